//! The guest's own page tables, walked in its memory as the hardware would walk them: root table,
//! context entry, and down to the leaves (VT-d specification, chapter "DMA Remapping").
//!
//! Everything here was written by the guest: tables may lead anywhere, in circles too, so walks are
//! bounded by depth and by leaves.

use dmarig_model::{
    coherence::{entry, leaf, leaf_bytes},
    probe::{Mapping, PAGE_BYTES, Tables as Kind},
};

/// Entries of a table.
const ENTRIES: usize = 512;
/// Most leaves of a walk: more than a guest of this rig maps.
const MAX_LEAVES: usize = 1 << 22;
/// Most tables of a walk.
const MAX_TABLES: usize = 1 << 14;

/// Bits of the root table address register: translation table mode.
const MODE: u64 = 3 << 10;
const LEGACY: u64 = 0 << 10;
const SCALABLE: u64 = 1 << 10;
/// Present, in root, context, PASID directory and PASID table entries.
const PRESENT: u64 = 1;

/// A page of the guest's memory by its address; `None` where there is no memory.
pub trait Pages {
    /// Its 512 words.
    fn page(&self, address: u64) -> Option<[u64; ENTRIES]>;
    /// Bytes of the guest's memory.
    fn ram_bytes(&self) -> u64;
}

/// The tables of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// Their kind.
    pub kind: Kind,
    /// Leaves of second-stage tables, in order of address.
    pub mappings: Vec<Mapping>,
}

/// What the root table, given as its register holds it, says of a function.
///
/// # Errors
/// Where an entry on the way is of no known form, or there is no end.
pub fn walk(memory: &impl Pages, root: u64, bus: u8, devfn: u8) -> Result<Tables, String> {
    let place = match root & MODE {
        LEGACY => legacy(memory, root, bus, devfn),
        SCALABLE => scalable(memory, root, bus, devfn),
        other => Err(format!("a root table of mode {}", other >> 10)),
    }?;
    let (table, levels) = match place {
        // A function that may do no DMA has tables with nothing in them.
        Place::Nowhere => return Ok(Tables { kind: Kind::SecondStage, mappings: Vec::new() }),
        Place::Other(kind) => return Ok(Tables { kind, mappings: Vec::new() }),
        Place::Table { address, levels } => (address, levels),
    };
    let mut walk = Walk { memory, mappings: Vec::new(), tables: 0 };
    walk.level(table, levels, 0)?;
    Ok(Tables { kind: Kind::SecondStage, mappings: walk.mappings })
}

/// Where a function's DMA is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It may do none.
    Nowhere,
    /// Not in second-stage tables.
    Other(Kind),
    /// In second-stage tables.
    Table { address: u64, levels: u32 },
}

fn words<const N: usize>(
    memory: &impl Pages,
    table: u64,
    index: usize,
) -> Result<[u64; N], String> {
    let byte = index * N * 8;
    let page = (table & entry::ADDRESS) + (byte as u64 & !(PAGE_BYTES - 1));
    let words = memory.page(page).ok_or_else(|| format!("no memory at {page:#x} for a table"))?;
    let at = byte % PAGE_BYTES as usize / 8;
    Ok(std::array::from_fn(|n| words[at + n]))
}

fn legacy(memory: &impl Pages, root: u64, bus: u8, devfn: u8) -> Result<Place, String> {
    let [context, _] = words(memory, root, bus.into())?;
    if context & PRESENT == 0 {
        return Ok(Place::Nowhere);
    }
    let [low, high] = words(memory, context, devfn.into())?;
    if low & PRESENT == 0 {
        return Ok(Place::Nowhere);
    }
    match low >> 2 & 3 {
        0 | 1 => table(low, high & 7),
        2 => Ok(Place::Other(Kind::PassThrough)),
        other => Err(format!("a context entry of translation type {other}")),
    }
}

fn scalable(memory: &impl Pages, root: u64, bus: u8, devfn: u8) -> Result<Place, String> {
    // A root entry has a context table for each half of a bus.
    let halves: [u64; 2] = words(memory, root, bus.into())?;
    let context = halves[usize::from(devfn >= 0x80)];
    if context & PRESENT == 0 {
        return Ok(Place::Nowhere);
    }
    let [directory, ..]: [u64; 4] = words(memory, context, usize::from(devfn & 0x7f))?;
    if directory & PRESENT == 0 {
        return Ok(Place::Nowhere);
    }
    // A driver's requests without PASID use PASID 0.
    let [pasids] = words(memory, directory, 0)?;
    if pasids & PRESENT == 0 {
        return Ok(Place::Nowhere);
    }
    let [low, ..]: [u64; 8] = words(memory, pasids, 0)?;
    if low & PRESENT == 0 {
        return Ok(Place::Nowhere);
    }
    match low >> 6 & 7 {
        1 | 3 => Ok(Place::Other(Kind::FirstStage)),
        2 => table(low, low >> 2 & 7),
        4 => Ok(Place::Other(Kind::PassThrough)),
        other => Err(format!("a PASID table entry of type {other}")),
    }
}

fn table(low: u64, width: u64) -> Result<Place, String> {
    match width {
        1..=3 => Ok(Place::Table { address: low & entry::ADDRESS, levels: width as u32 + 2 }),
        other => Err(format!("an address width of code {other}")),
    }
}

struct Walk<'a, M> {
    memory: &'a M,
    mappings: Vec<Mapping>,
    tables: usize,
}

impl<M: Pages> Walk<'_, M> {
    fn level(&mut self, table: u64, level: u32, first: u64) -> Result<(), String> {
        self.tables += 1;
        if self.tables > MAX_TABLES {
            return Err(format!("more than {MAX_TABLES} tables"));
        }
        let entries = self
            .memory
            .page(table)
            .ok_or_else(|| format!("no memory at {table:#x} for a table"))?;
        for (value, n) in entries.into_iter().zip(0..) {
            if value & (entry::READ | entry::WRITE) == 0 {
                continue;
            }
            let iova = first + n * leaf_bytes(level);
            if level > 1 && value & entry::LARGE == 0 {
                self.level(value & entry::ADDRESS, level - 1, iova)?;
                continue;
            }
            if self.mappings.len() == MAX_LEAVES {
                return Err(format!("more than {MAX_LEAVES} mappings"));
            }
            self.mappings.push(leaf(iova, value, level, self.memory.ram_bytes()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const RAM: u64 = 64 << 20;

    /// Memory with some words in it.
    #[derive(Default)]
    struct Words(HashMap<u64, u64>);

    impl Words {
        fn set(mut self, address: u64, value: u64) -> Self {
            self.0.insert(address, value);
            self
        }

        /// Tables of three levels at 0x10000, with a page at 2 MiB + 4 KiB and a large one at 4 MiB.
        fn with_tables(self) -> Self {
            self.set(0x10000, 0x11000 | 3)
                .set(0x11000 + 8, 0x12000 | 3)
                .set(0x12000 + 8, 0x123_4000 | 1)
                .set(0x11000 + 16, 0x200_0000 | 0x80 | 3)
        }
    }

    impl Pages for Words {
        fn page(&self, address: u64) -> Option<[u64; ENTRIES]> {
            let word = |n| self.0.get(&(address + 8 * n as u64)).copied().unwrap_or(0);
            (address < RAM).then(|| std::array::from_fn(word))
        }

        fn ram_bytes(&self) -> u64 {
            RAM
        }
    }

    fn mapped(mappings: &[Mapping]) -> Result<Tables, String> {
        Ok(Tables { kind: Kind::SecondStage, mappings: mappings.to_vec() })
    }

    fn other(kind: Kind) -> Result<Tables, String> {
        Ok(Tables { kind, mappings: Vec::new() })
    }

    fn expected() -> [Mapping; 2] {
        [
            Mapping { iova: 0x20_1000, size: 4096, offset: 0x123_4000, read: true, write: false },
            Mapping { iova: 0x40_0000, size: 2 << 20, offset: 0x200_0000, read: true, write: true },
        ]
    }

    /// Legacy mode: bus 0, function 0x08, with this context entry.
    fn legacy(low: u64, high: u64) -> Words {
        Words::default()
            .set(0x1000, 0x2000 | 1)
            .set(0x2000 + 16 * 8, low)
            .set(0x2000 + 16 * 8 + 8, high)
            .with_tables()
    }

    #[test]
    fn tables_of_a_context_entry() {
        let found = walk(&legacy(0x10000 | 1, 1), 0x1000, 0, 8);
        assert_eq!(found, mapped(&expected()));
        assert_eq!(walk(&legacy(0x10000 | 1, 1), 0x1000, 0, 16), mapped(&[]));
        assert_eq!(walk(&legacy(0x10000 | 1, 1), 0x1000, 3, 8), mapped(&[]));
        let through = legacy(2 << 2 | 1, 1);
        assert_eq!(walk(&through, 0x1000, 0, 8), other(Kind::PassThrough));
    }

    /// Scalable mode: function 0x88, with this PASID table entry.
    fn scalable(pasid: u64) -> Words {
        Words::default()
            .set(0x1008, 0x2000 | 1)
            .set(0x2000 + 32 * 8, 0x3000 | 1)
            .set(0x3000, 0x4000 | 1)
            .set(0x4000, pasid)
            .with_tables()
    }

    #[test]
    fn tables_of_a_pasid() {
        let root = 0x1000 | SCALABLE;
        let found = walk(&scalable(0x10000 | 2 << 6 | 1 << 2 | 1), root, 0, 0x88);
        assert_eq!(found, mapped(&expected()));
        assert_eq!(walk(&scalable(1 << 6 | 1), root, 0, 0x88), other(Kind::FirstStage));
        assert_eq!(walk(&scalable(4 << 6 | 1), root, 0, 0x88), other(Kind::PassThrough));
        assert_eq!(walk(&scalable(0), root, 0, 0x88), mapped(&[]));
        assert_eq!(walk(&scalable(2 << 6 | 5), root, 0, 0x08), mapped(&[]));
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        let check = |memory: Words, root: u64, expected: &str| {
            let error = walk(&memory, root, 0, 8).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(legacy(0x10000 | 3 << 2 | 1, 1), 0x1000, "translation type 3");
        check(legacy(0x10000 | 1, 5), 0x1000, "address width of code 5");
        check(legacy(0x10000 | 1, 1), 0x1000 | 2 << 10, "mode 2");
        check(legacy(RAM | 1, 1), 0x1000, "no memory at 0x4000000");
        // Every table leads to itself, at each level.
        let mut circle = legacy(0x10000 | 1, 3);
        for n in 0..ENTRIES as u64 {
            circle = circle.set(0x10000 + 8 * n, 0x10000 | 3);
        }
        check(circle, 0x1000, "more than");
    }
}
