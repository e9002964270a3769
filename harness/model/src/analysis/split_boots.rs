//! Which lines of a log are of which boot.

use std::collections::HashSet;

use dmarig_wire::LogRecord;

use crate::text::message;

/// Most boots of one log that are told apart.
const MAX_BOOTS: usize = 100;

/// One slice a boot. A console is played back when the real one takes over from an early one: what stands
/// again in the next slice, stamps and all, is no boot of its own.
pub(super) fn split_boots(records: &[LogRecord]) -> Vec<&[LogRecord]> {
    let starts = |record: &LogRecord| message(&record.text).starts_with("Linux version ");
    let mut borders: Vec<usize> =
        (0..records.len()).filter(|at| starts(&records[*at])).take(MAX_BOOTS).collect();
    if borders.first() != Some(&0) {
        borders.insert(0, 0);
    }
    borders.push(records.len());
    let slices: Vec<&[LogRecord]> =
        borders.windows(2).map(|pair| &records[pair[0]..pair[1]]).collect();
    let mut found = Vec::new();
    for (at, slice) in slices.iter().enumerate() {
        let said = |records: &[LogRecord]| -> HashSet<(u64, String)> {
            records.iter().map(|record| (record.time_us, record.text.clone())).collect()
        };
        let again = slices.get(at + 1).is_some_and(|next| said(slice).is_subset(&said(next)));
        if !again {
            found.push(*slice);
        }
    }
    found
}
