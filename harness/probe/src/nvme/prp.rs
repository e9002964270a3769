//! Where a command's data is: physical region pages and lists of them (NVM Express 1.4, 4.3).

use zerocopy::{IntoBytes, little_endian::U64};

use super::{PAGE, Status};
use crate::{memory::Fault, range::Range};

/// Most bytes that a command transfers (MDTS is 8).
pub const MAX_TRANSFER: u64 = PAGE << super::identify::MDTS;

/// Why a command's data can't be found.
#[derive(Debug)]
pub enum PrpError {
    /// An entry is invalid; the command fails with this status.
    Invalid(Status),
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
    read: impl FnMut(u64, &mut [u8]) -> Result<(), Fault>,
    ranges: &mut Vec<Range>,
) -> Result<(), PrpError> {
    ranges.clear();
    if size == 0 {
        return Ok(());
    }
    if size > MAX_TRANSFER {
        return Err(PrpError::Invalid(Status::INVALID_FIELD));
    }
    let invalid = PrpError::Invalid(Status::PRP_OFFSET);
    if !prp1.is_multiple_of(4) {
        return Err(invalid);
    }
    let first = (PAGE - prp1 % PAGE).min(size);
    push(ranges, prp1, first);
    let left = size - first;
    if left == 0 {
        return Ok(());
    }
    if left <= PAGE {
        if !prp2.is_multiple_of(PAGE) {
            return Err(invalid);
        }
        push(ranges, prp2, left);
        return Ok(());
    }
    if !prp2.is_multiple_of(8) {
        return Err(invalid);
    }
    walk_list(prp2, left, read, ranges)
}

/// Finds the ranges of the `left` bytes behind a command's first page.
fn walk_list(
    mut list: u64,
    mut left: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), Fault>,
    ranges: &mut Vec<Range>,
) -> Result<(), PrpError> {
    let invalid = PrpError::Invalid(Status::PRP_OFFSET);
    let mut page = [U64::ZERO; PAGE as usize / 8];
    while left > 0 {
        let room = (PAGE - list % PAGE) / 8;
        let needed = left.div_ceil(PAGE);
        let entries = &mut page[..needed.min(room) as usize];
        read(list, entries.as_mut_bytes()).map_err(PrpError::Fault)?;
        // If not all fit, the last entry of a page is the address of the rest of the list.
        let (entries, next) = match entries.split_last() {
            Some((next, entries)) if needed > room => (entries, Some(next.get())),
            _ => (&*entries, None),
        };
        for entry in entries {
            if !entry.get().is_multiple_of(PAGE) {
                return Err(invalid);
            }
            let part = left.min(PAGE);
            push(ranges, entry.get(), part);
            left -= part;
        }
        let Some(next) = next else { continue };
        list = next;
        // A list that goes on begins a page, so it has room for more than a pointer.
        if !list.is_multiple_of(PAGE) {
            return Err(invalid);
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
