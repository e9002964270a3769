//! The guest's page tables, walked in its memory as the hardware would walk them: root table,
//! context entry, and down to the leaves (VT-d specification, chapter "DMA Remapping").
//!
//! Everything here was written by the guest: tables may lead anywhere, in circles too, so walks are
//! bounded by depth and by leaves.

use dmarig_viommu::tables::{FunctionTables, GuestPages, Leaf, PAGE_BYTES, PciFunction, WalkError};

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

/// Bits of a second-stage entry (VT-d specification, "Second-Stage Paging Entries").
mod entry {
    /// The device may read.
    pub(super) const READ: u64 = 1 << 0;
    /// The device may write.
    pub(super) const WRITE: u64 = 1 << 1;
    /// It is a leaf above the lowest level.
    pub(super) const LARGE: u64 = 1 << 7;
    /// The address of the next table, or of the memory.
    pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
}

/// Bytes that a leaf of a level maps; the lowest level is 1.
const fn leaf_bytes(level: u32) -> u64 {
    PAGE_BYTES << (9 * (level - 1))
}

/// Decodes a leaf entry.
pub(crate) const fn leaf(iova: u64, value: u64, level: u32) -> Leaf {
    let size = leaf_bytes(level);
    let address = value & entry::ADDRESS & !(size - 1);
    let (read, write) = (value & entry::READ != 0, value & entry::WRITE != 0);
    Leaf { iova, size, address, read, write }
}

pub(crate) fn walk(
    memory: &dyn GuestPages,
    root: u64,
    function: PciFunction,
) -> Result<FunctionTables, WalkError> {
    let translation = match root & MODE {
        LEGACY => legacy(memory, root, function),
        SCALABLE => scalable(memory, root, function),
        other => Err(unknown("a root table of mode", other >> 10)),
    }?;
    match translation {
        Translation::Denied => Ok(FunctionTables::Shadowed(Vec::new())),
        Translation::FirstStage => Ok(FunctionTables::FirstStage),
        Translation::PassThrough => Ok(FunctionTables::PassThrough),
        Translation::SecondStage { table, levels } => {
            let mut walk = Walk { memory, leaves: Vec::new(), tables: 0 };
            walk.level(table, levels, 0)?;
            Ok(FunctionTables::Shadowed(walk.leaves))
        }
    }
}

/// How a function's DMA is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Translation {
    /// The function may do no DMA.
    Denied,
    /// In first-stage tables.
    FirstStage,
    /// Not at all.
    PassThrough,
    /// In second-stage tables.
    SecondStage { table: u64, levels: u32 },
}

const fn unknown(what: &'static str, code: u64) -> WalkError {
    WalkError::UnknownForm { what, code }
}

fn words<const N: usize>(
    memory: &dyn GuestPages,
    table: u64,
    index: usize,
) -> Result<[u64; N], WalkError> {
    let byte = index * N * 8;
    let page = (table & entry::ADDRESS) + (byte as u64 & !(PAGE_BYTES - 1));
    let words = memory.page(page).ok_or(WalkError::NoMemory(page))?;
    let at = byte % PAGE_BYTES as usize / 8;
    Ok(std::array::from_fn(|n| words[at + n]))
}

fn legacy(
    memory: &dyn GuestPages,
    root: u64,
    function: PciFunction,
) -> Result<Translation, WalkError> {
    let [context, _] = words(memory, root, function.bus.into())?;
    if context & PRESENT == 0 {
        return Ok(Translation::Denied);
    }
    let [low, high] = words(memory, context, function.devfn.into())?;
    if low & PRESENT == 0 {
        return Ok(Translation::Denied);
    }
    match low >> 2 & 3 {
        0 | 1 => table(low, high & 7),
        2 => Ok(Translation::PassThrough),
        other => Err(unknown("a context entry of translation type", other)),
    }
}

fn scalable(
    memory: &dyn GuestPages,
    root: u64,
    function: PciFunction,
) -> Result<Translation, WalkError> {
    // A root entry has a context table for each half of a bus.
    let halves: [u64; 2] = words(memory, root, function.bus.into())?;
    let context = halves[usize::from(function.devfn >= 0x80)];
    if context & PRESENT == 0 {
        return Ok(Translation::Denied);
    }
    let [directory, ..]: [u64; 4] = words(memory, context, usize::from(function.devfn & 0x7f))?;
    if directory & PRESENT == 0 {
        return Ok(Translation::Denied);
    }
    // A driver's requests without PASID use PASID 0.
    let [pasids] = words(memory, directory, 0)?;
    if pasids & PRESENT == 0 {
        return Ok(Translation::Denied);
    }
    let [low, ..]: [u64; 8] = words(memory, pasids, 0)?;
    if low & PRESENT == 0 {
        return Ok(Translation::Denied);
    }
    match low >> 6 & 7 {
        1 | 3 => Ok(Translation::FirstStage),
        2 => table(low, low >> 2 & 7),
        4 => Ok(Translation::PassThrough),
        other => Err(unknown("a PASID table entry of type", other)),
    }
}

fn table(low: u64, width: u64) -> Result<Translation, WalkError> {
    match width {
        1..=3 => {
            Ok(Translation::SecondStage { table: low & entry::ADDRESS, levels: width as u32 + 2 })
        }
        other => Err(unknown("an address width of code", other)),
    }
}

struct Walk<'a> {
    memory: &'a dyn GuestPages,
    leaves: Vec<Leaf>,
    tables: usize,
}

impl Walk<'_> {
    fn level(&mut self, table: u64, level: u32, first: u64) -> Result<(), WalkError> {
        self.tables += 1;
        if self.tables > MAX_TABLES {
            return Err(WalkError::TooManyTables(MAX_TABLES));
        }
        let entries = self.memory.page(table).ok_or(WalkError::NoMemory(table))?;
        for (value, n) in entries.into_iter().zip(0..) {
            if value & (entry::READ | entry::WRITE) == 0 {
                continue;
            }
            let iova = first + n * leaf_bytes(level);
            if level > 1 && value & entry::LARGE == 0 {
                self.level(value & entry::ADDRESS, level - 1, iova)?;
                continue;
            }
            if self.leaves.len() == MAX_LEAVES {
                return Err(WalkError::TooManyLeaves(MAX_LEAVES));
            }
            self.leaves.push(leaf(iova, value, level));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use dmarig_viommu::tables::PAGE_WORDS;

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

    impl GuestPages for Words {
        fn page(&self, address: u64) -> Option<[u64; PAGE_WORDS]> {
            let word = |n| self.0.get(&(address + 8 * n as u64)).copied().unwrap_or(0);
            (address < RAM).then(|| std::array::from_fn(word))
        }
    }

    fn expected() -> FunctionTables {
        FunctionTables::Shadowed(vec![
            Leaf { iova: 0x20_1000, size: 4096, address: 0x123_4000, read: true, write: false },
            Leaf { iova: 0x40_0000, size: 2 << 20, address: 0x200_0000, read: true, write: true },
        ])
    }

    fn walk_from(
        memory: &Words,
        root: u64,
        bus: u8,
        devfn: u8,
    ) -> Result<FunctionTables, WalkError> {
        walk(memory, root, PciFunction { bus, devfn })
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
    fn follows_a_context_entry() {
        let tables = legacy(0x10000 | 1, 1);
        let pass_through = legacy(2 << 2 | 1, 1);
        let denied = FunctionTables::Shadowed(Vec::new());
        for (memory, bus, devfn, found) in [
            (&tables, 0, 8, expected()),
            (&tables, 0, 16, denied.clone()),
            (&tables, 3, 8, denied),
            (&pass_through, 0, 8, FunctionTables::PassThrough),
        ] {
            assert_eq!(walk_from(memory, 0x1000, bus, devfn), Ok(found));
        }
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
    fn follows_a_pasid_table_entry() {
        let root = 0x1000 | SCALABLE;
        let denied = FunctionTables::Shadowed(Vec::new());
        for (entry, devfn, found) in [
            (0x10000 | 2 << 6 | 1 << 2 | 1, 0x88, expected()),
            (1 << 6 | 1, 0x88, FunctionTables::FirstStage),
            (4 << 6 | 1, 0x88, FunctionTables::PassThrough),
            (0, 0x88, denied.clone()),
            (2 << 6 | 5, 0x08, denied),
        ] {
            assert_eq!(walk_from(&scalable(entry), root, 0, devfn), Ok(found));
        }
    }

    #[test]
    fn refuses_tables_of_unknown_form() {
        let unknown = |what, code| WalkError::UnknownForm { what, code };
        for (memory, root, error) in [
            (
                legacy(0x10000 | 3 << 2 | 1, 1),
                0x1000,
                unknown("a context entry of translation type", 3),
            ),
            (legacy(0x10000 | 1, 5), 0x1000, unknown("an address width of code", 5)),
            (legacy(0x10000 | 1, 1), 0x1000 | 2 << 10, unknown("a root table of mode", 2)),
            (legacy(RAM | 1, 1), 0x1000, WalkError::NoMemory(RAM)),
        ] {
            assert_eq!(walk_from(&memory, root, 0, 8), Err(error));
        }
    }

    #[test]
    fn ends_in_tables_that_lead_to_themselves() {
        let mut circle = legacy(0x10000 | 1, 3);
        for n in 0..PAGE_WORDS as u64 {
            circle = circle.set(0x10000 + 8 * n, 0x10000 | 3);
        }
        let found = walk_from(&circle, 0x1000, 0, 8);
        assert!(
            matches!(found, Err(WalkError::TooManyTables(_) | WalkError::TooManyLeaves(_))),
            "{found:?}"
        );
    }
}
