//! NVM commands (NVM Express 1.4, 6).

use zerocopy::{
    FromBytes, FromZeros, Immutable, IntoBytes,
    little_endian::{U32, U64},
};

use super::{BLOCK, Command, Status, controller::Controller, prp::MAX_TRANSFER};
use crate::{counting::MAX_LINES, stale::TrackedRequest};

const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const WRITE_ZEROES: u8 = 0x08;
const DATASET_MANAGEMENT: u8 = 0x09;
/// Bytes of a transfer that the socket's thread leaves to the controller's.
const LARGE: u64 = 64 << 10;
/// The one namespace.
pub(super) const NAMESPACE: u32 = 1;
/// All namespaces.
pub(super) const ALL: u32 = u32::MAX;
/// Most ranges of a Dataset Management command.
const MAX_RANGES: usize = 256;

/// A range of a Dataset Management command.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct DatasetRange {
    attributes: U32,
    blocks: U32,
    first: U64,
}

impl Controller {
    /// Executes an I/O command.
    pub(super) fn io(
        &mut self,
        queue: u16,
        command: &Command,
        request: &mut TrackedRequest,
    ) -> Status {
        let index = match command.opcode {
            READ => 0,
            WRITE => 1,
            FLUSH => 2,
            WRITE_ZEROES => 3,
            DATASET_MANAGEMENT => 4,
            _ => return Status::INVALID_OPCODE,
        };
        self.tally().commands[index] += 1;
        // Fused commands and scatter/gather lists are not supported.
        if command.flags & 0xc3 != 0 {
            return Status::INVALID_FIELD;
        }
        let namespace = command.namespace.get();
        if namespace != NAMESPACE && !(command.opcode == FLUSH && namespace == ALL) {
            return Status::INVALID_NAMESPACE;
        }
        let result = match command.opcode {
            READ => self.read(queue, command, request),
            WRITE => self.write(queue, command, request),
            WRITE_ZEROES => self.write_zeroes(command),
            DATASET_MANAGEMENT => self.manage(queue, command, request),
            // A flush: written data is visible at once.
            _ => Ok(()),
        };
        result.err().unwrap_or(Status::SUCCESS)
    }

    /// First byte and bytes of the command's blocks.
    fn extent(&self, command: &Command) -> Result<(u64, u64), Status> {
        let first = command.qword(10);
        let count = u64::from(command.dword(12) & 0xffff) + 1;
        match first.checked_add(count) {
            Some(end) if end <= self.blocks() => Ok((first * BLOCK, count * BLOCK)),
            _ => Err(Status::OUT_OF_RANGE),
        }
    }

    fn transfer(&mut self, queue: u16, command: &Command) -> Result<(u64, u64), Status> {
        let (offset, size) = self.extent(command)?;
        if size > MAX_TRANSFER {
            return Err(Status::INVALID_FIELD);
        }
        self.large = size > LARGE;
        self.locate_data(queue, command, size)?;
        self.data.resize(MAX_TRANSFER as usize, 0);
        Ok((offset, size))
    }

    fn read(
        &mut self,
        queue: u16,
        command: &Command,
        request: &mut TrackedRequest,
    ) -> Result<(), Status> {
        let (offset, size) = self.transfer(queue, command)?;
        let data = &mut self.data[..size as usize];
        self.store.read(offset, data);
        let sent = self.memory.scatter(&self.ranges, data, request);
        sent.map_err(|fault| self.data_fault(queue, command, &fault))?;
        self.tally().to_guest_bytes += size;
        Ok(())
    }

    fn write(
        &mut self,
        queue: u16,
        command: &Command,
        request: &mut TrackedRequest,
    ) -> Result<(), Status> {
        let (offset, size) = self.transfer(queue, command)?;
        let data = &mut self.data[..size as usize];
        let taken = self.memory.gather(&self.ranges, data, request);
        taken.map_err(|fault| self.data_fault(queue, command, &fault))?;
        self.tally().from_guest_bytes += size;
        self.check(command, offset, size);
        self.store.write(offset, &self.data[..size as usize]);
        Ok(())
    }

    /// Checks data from the guest, sector by sector, against the workload's pattern.
    fn check(&self, command: &Command, offset: u64, size: u64) {
        let data = &self.data[..size as usize];
        let mut sector = [0; dmarig_pattern::SECTOR_WORDS];
        for (at, bytes) in (offset..).step_by(BLOCK as usize).zip(data.chunks_exact(BLOCK as usize))
        {
            for (word, bytes) in sector.iter_mut().zip(bytes.as_chunks().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            if let Err(mismatch) = dmarig_pattern::check_stamped(&sector, at) {
                let mut tally = self.tally();
                tally.corrupt += 1;
                if tally.corrupt_lines.len() < MAX_LINES {
                    tally.corrupt_lines.push(format!(
                        "command {:#06x}: byte {} of the sector at {at:#x}: expected {:#04x}, \
                         found {:#04x} ({} bytes are wrong; {})",
                        command.identifier.get(),
                        mismatch.at,
                        mismatch.expected,
                        mismatch.found,
                        mismatch.bytes,
                        mismatch.clue
                    ));
                }
            }
        }
    }

    fn write_zeroes(&mut self, command: &Command) -> Result<(), Status> {
        let (offset, size) = self.extent(command)?;
        self.store.zero(offset, size);
        Ok(())
    }

    fn manage(
        &mut self,
        queue: u16,
        command: &Command,
        request: &mut TrackedRequest,
    ) -> Result<(), Status> {
        let count = (command.dword(10) & 0xff) as usize + 1;
        let size = (count * size_of::<DatasetRange>()) as u64;
        self.locate_data(queue, command, size)?;
        let mut list = [DatasetRange::new_zeroed(); MAX_RANGES];
        let list = &mut list[..count];
        let taken = self.memory.gather(&self.ranges, list.as_mut_bytes(), request);
        taken.map_err(|fault| self.data_fault(queue, command, &fault))?;
        // Only the attribute "deallocate" has an effect.
        let deallocate = command.dword(11) & 4 != 0;
        for range in list {
            let (first, count) = (range.first.get(), u64::from(range.blocks.get()));
            match first.checked_add(count) {
                Some(end) if end <= self.blocks() => {}
                _ => return Err(Status::OUT_OF_RANGE),
            }
            if deallocate {
                self.store.zero(first * BLOCK, count * BLOCK);
            }
        }
        Ok(())
    }
}
