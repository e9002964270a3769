//! Counts of commands.

use std::collections::BTreeMap;

use dmarig_model::probe::ProbeCounts;

/// Names of the I/O commands that are counted.
const COMMANDS: [&str; 5] = ["read", "write", "flush", "write-zeroes", "dataset-management"];

/// Counts of commands.
#[derive(Debug, Default)]
pub struct Tally {
    pub(super) commands: [u64; COMMANDS.len()],
    pub(super) failed: BTreeMap<(u8, u8), u64>,
    pub(super) to_guest_bytes: u64,
    pub(super) from_guest_bytes: u64,
    pub(super) corrupt: u64,
    pub(super) corrupt_lines: Vec<String>,
}

impl Tally {
    /// Adds these counts to those of mappings.
    pub fn add_to(&self, counts: &mut ProbeCounts) {
        let named = COMMANDS.into_iter().zip(self.commands).filter(|(_, count)| *count > 0);
        counts.commands = named.map(|(name, count)| (name.to_owned(), count)).collect();
        let failed = self.failed.iter();
        counts.failed =
            failed.map(|((kind, code), count)| (format!("{kind:x}/{code:02x}"), *count)).collect();
        counts.to_guest_bytes = self.to_guest_bytes;
        counts.from_guest_bytes = self.from_guest_bytes;
        counts.corrupt = self.corrupt;
        counts.corrupt_lines.clone_from(&self.corrupt_lines);
    }
}
