//! Where a command's data is: physical region pages and lists of them (NVM Express 1.4, 4.3).

use super::{PAGE, Status};
use crate::memory::{Fault, Range};

/// Most bytes that a command transfers (MDTS is 8).
pub const MAX_TRANSFER: u64 = PAGE << super::identify::MDTS;

/// Why there is no data.
#[derive(Debug)]
pub enum Prp {
    /// An entry is wrong.
    Wrong(Status),
    /// A list can't be read.
    Fault(Fault),
}

/// Finds the ranges of a command's data, in order; neighbours are joined. Lists are read by `read`.
///
/// # Errors
/// Where an entry has an offset that it can't have, or a list can't be read.
pub fn walk(
    prp1: u64,
    prp2: u64,
    size: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), Fault>,
    ranges: &mut Vec<Range>,
) -> Result<(), Prp> {
    ranges.clear();
    if size == 0 {
        return Ok(());
    }
    if size > MAX_TRANSFER {
        return Err(Prp::Wrong(Status::INVALID_FIELD));
    }
    let wrong = Prp::Wrong(Status::PRP_OFFSET);
    if !prp1.is_multiple_of(4) {
        return Err(wrong);
    }
    let first = (PAGE - prp1 % PAGE).min(size);
    push(ranges, prp1, first);
    let mut left = size - first;
    if left == 0 {
        return Ok(());
    }
    if left <= PAGE {
        if !prp2.is_multiple_of(PAGE) {
            return Err(wrong);
        }
        push(ranges, prp2, left);
        return Ok(());
    }
    if !prp2.is_multiple_of(8) {
        return Err(wrong);
    }
    let mut list = prp2;
    let mut page = [0; PAGE as usize];
    while left > 0 {
        let room = (PAGE - list % PAGE) / 8;
        let entries = left.div_ceil(PAGE).min(room);
        let bytes = &mut page[..entries as usize * 8];
        read(list, bytes).map_err(Prp::Fault)?;
        // Where not all fit, the last entry of a page is where the list goes on.
        let goes_on = left.div_ceil(PAGE) > room;
        let here = if goes_on { entries - 1 } else { entries };
        let mut values = bytes
            .chunks_exact(8)
            .map(|entry| u64::from_le_bytes(entry.try_into().unwrap_or_default()));
        for value in values.by_ref().take(here as usize) {
            if value % PAGE != 0 {
                return Err(wrong);
            }
            let part = left.min(PAGE);
            push(ranges, value, part);
            left -= part;
        }
        if goes_on {
            list = values.next().unwrap_or_default();
            // A list that goes on begins a page, so it has room for more than a pointer.
            if !list.is_multiple_of(PAGE) {
                return Err(wrong);
            }
        }
    }
    Ok(())
}

fn push(ranges: &mut Vec<Range>, iova: u64, size: u64) {
    match ranges.last_mut() {
        Some(last) if last.iova.checked_add(last.size) == Some(iova) => last.size += size,
        _ => ranges.push(Range { iova, size }),
    }
}
