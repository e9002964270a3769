//! Whether a device's mappings are those of the guest's page tables, entry by entry.
//!
//! The tables are read in up to two ways: from the guest's memory, as the hardware would walk them,
//! and as the guest's kernel prints them in debugfs. What the device was told is the probe's shadow.

use dmarig_viommu::tables::Leaf;
use serde::{Deserialize, Serialize};

/// Differences that are kept, of each kind.
const MAX_KEPT: usize = 8;

/// Memory below 4 GiB of QEMU's q35 machine with more than [`ALL_LOW`], in bytes
/// (QEMU: hw/i386/pc_q35.c).
const LOW_BYTES: u64 = 0x8000_0000;
/// A machine with less memory has all of it below 4 GiB.
const ALL_LOW: u64 = 0xb000_0000;
const FOUR_GIB: u64 = 1 << 32;

/// A live mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mapping {
    /// First I/O virtual address.
    pub iova: u64,
    /// Size, in bytes.
    pub size: u64,
    /// Offset of the memory in the guest's RAM file, in bytes.
    pub offset: u64,
    /// Whether the device may read.
    pub read: bool,
    /// Whether the device may write.
    pub write: bool,
}

/// Where page tables were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TablesSource {
    /// In the guest's memory, from the root table on, by the probe.
    Memory,
    /// In the guest's debugfs, by its kernel.
    Debugfs,
}

impl TablesSource {
    /// Its name in checks and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Debugfs => "debugfs",
        }
    }
}

/// One comparison at a quiet point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coherence {
    /// Where the tables were read.
    pub source: TablesSource,
    /// Leaf entries in them.
    pub entries: u64,
    /// Bytes that they map.
    pub bytes: u64,
    /// How often both sides were read until they were equal, or it was given up: a batch that waits
    /// for its flush is no difference for long.
    pub reads: u32,
    /// Parts of the tables that the device does not have, or has otherwise: how many, and the first
    /// few.
    pub missing: u64,
    /// The first few of them.
    pub missing_first: Vec<Mapping>,
    /// Parts of the device's mappings that the tables do not have, or have otherwise.
    pub extra: u64,
    /// The first few of them.
    pub extra_first: Vec<Mapping>,
}

impl Coherence {
    /// Compares; where one big entry on one side is many small ones on the other, that is no
    /// difference.
    #[must_use]
    pub fn of(source: TablesSource, tables: &[Mapping], shadow: &[Mapping], reads: u32) -> Self {
        let (ours, theirs) = (merged(shadow), merged(tables));
        let missing = without(&theirs, &ours);
        let extra = without(&ours, &theirs);
        let first = |all: &[Mapping]| all.iter().take(MAX_KEPT).copied().collect();
        Self {
            source,
            entries: tables.len() as u64,
            bytes: tables.iter().map(|entry| entry.size).fold(0, u64::saturating_add),
            reads,
            missing: missing.len() as u64,
            missing_first: first(&missing),
            extra: extra.len() as u64,
            extra_first: first(&extra),
        }
    }

    /// Whether both sides are the same.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.missing == 0 && self.extra == 0
    }
}

/// Neighbours that go on in address, memory and permission become one. What is empty or wraps
/// around, which no page table has, is left out.
fn merged(mappings: &[Mapping]) -> Vec<Mapping> {
    let whole = |entry: &&Mapping| {
        entry.size > 0
            && entry.iova.checked_add(entry.size).is_some()
            && entry.offset.checked_add(entry.size).is_some()
    };
    let mut sorted: Vec<Mapping> = mappings.iter().filter(whole).copied().collect();
    sorted.sort_unstable();
    let mut merged: Vec<Mapping> = Vec::with_capacity(sorted.len());
    for entry in sorted {
        match merged.last_mut() {
            Some(last)
                if last.iova + last.size == entry.iova
                    && last.offset + last.size == entry.offset
                    && (last.read, last.write) == (entry.read, entry.write) =>
            {
                last.size += entry.size;
            }
            _ => merged.push(entry),
        }
    }
    merged
}

/// The parts of `all` that do not stand in `other` with the same memory and permission. Both are
/// sorted, and neither overlaps itself.
fn without(all: &[Mapping], other: &[Mapping]) -> Vec<Mapping> {
    let mut left = Vec::new();
    let mut first = 0;
    for entry in all {
        let end = entry.iova + entry.size;
        // What ends before this one ends before all that follow.
        while other.get(first).is_some_and(|before| before.iova + before.size <= entry.iova) {
            first += 1;
        }
        let mut at = entry.iova;
        let mut part = |from: u64, to: u64| {
            if from < to {
                let offset = entry.offset + (from - entry.iova);
                left.push(Mapping { iova: from, size: to - from, offset, ..*entry });
            }
        };
        for beside in other[first..].iter().take_while(|beside| beside.iova < end) {
            let delta = |mapping: &Mapping| mapping.offset.wrapping_sub(mapping.iova);
            let same = delta(beside) == delta(entry)
                && (beside.read, beside.write) == (entry.read, entry.write);
            if same {
                part(at, beside.iova);
                at = at.max(beside.iova + beside.size);
            }
        }
        part(at, end);
    }
    left
}

/// Where an address of the guest's memory is in its RAM file; `None` for what is no memory.
#[must_use]
pub const fn ram_offset(address: u64, ram_bytes: u64) -> Option<u64> {
    let low = if ram_bytes < ALL_LOW { ram_bytes } else { LOW_BYTES };
    if address < low {
        return Some(address);
    }
    match address.checked_sub(FOUR_GIB) {
        Some(above) if above < ram_bytes - low => Some(low + above),
        _ => None,
    }
}

/// Set in the offset of what is no memory; the rest of it is the address.
pub const NO_MEMORY: u64 = 1 << 63;

/// A leaf of the guest's tables as a mapping. One that leads to no memory is a mapping that no device
/// can have.
#[must_use]
pub const fn mapping_of_leaf(leaf: &Leaf, ram_bytes: u64) -> Mapping {
    let Leaf { iova, size, address, read, write } = *leaf;
    let offset = match ram_offset(address, ram_bytes) {
        Some(offset) => offset,
        None => NO_MEMORY | address,
    };
    Mapping { iova, size, offset, read, write }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: u64 = 512 << 20;

    fn mapping(iova: u64, size: u64, offset: u64) -> Mapping {
        Mapping { iova, size, offset, read: true, write: true }
    }

    fn check(tables: &[Mapping], shadow: &[Mapping], missing: &[Mapping], extra: &[Mapping]) {
        let found = Coherence::of(TablesSource::Memory, tables, shadow, 1);
        assert_eq!((&*found.missing_first, &*found.extra_first), (missing, extra));
        assert_eq!(found.holds(), missing.is_empty() && extra.is_empty());
    }

    #[test]
    fn small_pages_are_as_good_as_a_large_one() {
        let large = mapping(0x20_0000, 0x20_0000, 0x40_0000);
        let small: Vec<_> =
            (0..512).map(|n| mapping(0x20_0000 + n * 4096, 4096, 0x40_0000 + n * 4096)).collect();
        check(&[large], &small, &[], &[]);
        check(&small, &[large], &[], &[]);
    }

    #[test]
    fn what_one_side_lacks_is_told() {
        let (a, b) = (mapping(0x1000, 0x1000, 0x5000), mapping(0x3000, 0x2000, 0x9000));
        check(&[a, b], &[a], &[b], &[]);
        check(&[b], &[b, a], &[], &[a]);
        // The middle of it.
        let hole = [mapping(0x10_000, 0x1000, 0x20_000), mapping(0x12_000, 0x1000, 0x22_000)];
        let all = mapping(0x10_000, 0x3000, 0x20_000);
        check(&[all], &hole, &[mapping(0x11_000, 0x1000, 0x21_000)], &[]);
    }

    #[test]
    fn other_memory_and_other_permissions_are_differences() {
        let one = mapping(0x1000, 0x1000, 0x5000);
        let elsewhere = Mapping { offset: 0x6000, ..one };
        let read_only = Mapping { write: false, ..one };
        for other in [elsewhere, read_only] {
            check(&[one], &[other], &[one], &[other]);
        }
    }

    #[test]
    fn a_leaf_that_leads_to_no_memory_is_a_difference() {
        let leaf = Leaf { iova: 0x1000, size: 4096, address: RAM, read: true, write: true };
        let lost = mapping_of_leaf(&leaf, RAM);
        assert_eq!(lost, mapping(0x1000, 4096, NO_MEMORY | RAM));
        check(&[lost], &[], &[lost], &[]);
    }

    #[test]
    fn memory_above_4_gib_follows_the_low_part_in_its_file() {
        assert_eq!(ram_offset(0x1000, RAM), Some(0x1000));
        assert_eq!(ram_offset(RAM, RAM), None);
        let eight = 8 << 30;
        assert_eq!(ram_offset(LOW_BYTES - 1, eight), Some(LOW_BYTES - 1));
        assert_eq!(ram_offset(LOW_BYTES, eight), None);
        assert_eq!(ram_offset(FOUR_GIB, eight), Some(LOW_BYTES));
        assert_eq!(ram_offset(FOUR_GIB + eight - LOW_BYTES, eight), None);
    }
}
