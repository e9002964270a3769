//! NVM commands (NVM Express 1.4, 6).

use super::{BLOCK, Command, PAGE, Status, controller::Controller, prp::MAX_TRANSFER};
use crate::{follow::Request, memory::MAX_LINES};

const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const WRITE_ZEROES: u8 = 0x08;
const DATASET_MANAGEMENT: u8 = 0x09;
/// Bytes of a transfer that nobody else should wait for.
const LARGE: u64 = 64 << 10;
/// The one namespace.
pub(super) const NAMESPACE: u32 = 1;
/// All namespaces.
pub(super) const ALL: u32 = u32::MAX;

impl Controller {
    /// Carries an I/O command out.
    pub(super) fn io(&mut self, queue: u16, command: &Command, request: &mut Request) -> Status {
        let known = match command.opcode {
            READ => 0,
            WRITE => 1,
            FLUSH => 2,
            WRITE_ZEROES => 3,
            DATASET_MANAGEMENT => 4,
            _ => return Status::INVALID_OPCODE,
        };
        self.tally().commands[known] += 1;
        // Fused commands and scatter/gather lists were not offered.
        if command.flags & 0xc3 != 0 {
            return Status::INVALID_FIELD;
        }
        if command.namespace != NAMESPACE && !(known == 2 && command.namespace == ALL) {
            return Status::INVALID_NAMESPACE;
        }
        let done = match command.opcode {
            READ => self.read(queue, command, request),
            WRITE => self.write(queue, command, request),
            WRITE_ZEROES => self.write_zeroes(command),
            DATASET_MANAGEMENT => self.manage(queue, command, request),
            // What was written is there for all to see.
            _ => Ok(()),
        };
        done.err().unwrap_or(Status::SUCCESS)
    }

    /// First byte and bytes of the command's blocks.
    fn extent(&self, command: &Command) -> Result<(u64, u64), Status> {
        let first = u64::from(command.dword(10)) | u64::from(command.dword(11)) << 32;
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
        self.find(queue, command, size)?;
        self.data.resize(MAX_TRANSFER as usize, 0);
        Ok((offset, size))
    }

    fn read(&mut self, queue: u16, command: &Command, request: &mut Request) -> Result<(), Status> {
        let (offset, size) = self.transfer(queue, command)?;
        let data = &mut self.data[..size as usize];
        self.store.read(offset, data);
        let sent = self.memory.scatter(&self.ranges, data, request);
        sent.map_err(|fault| self.data_fault(queue, command, &fault))?;
        self.tally().to_guest += size;
        Ok(())
    }

    fn write(
        &mut self,
        queue: u16,
        command: &Command,
        request: &mut Request,
    ) -> Result<(), Status> {
        let (offset, size) = self.transfer(queue, command)?;
        let data = &mut self.data[..size as usize];
        let taken = self.memory.gather(&self.ranges, data, request);
        taken.map_err(|fault| self.data_fault(queue, command, &fault))?;
        self.tally().from_guest += size;
        self.check(command, offset, size);
        self.store.write(offset, &self.data[..size as usize]);
        Ok(())
    }

    /// Checks data that arrived, sector by sector, against what the workload says it is.
    fn check(&self, command: &Command, offset: u64, size: u64) {
        let data = &self.data[..size as usize];
        let mut sector = [0; dmarig_pattern::SECTOR_WORDS];
        for (at, bytes) in (offset..).step_by(BLOCK as usize).zip(data.chunks_exact(BLOCK as usize))
        {
            for (word, bytes) in sector.iter_mut().zip(bytes.as_chunks().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            if let Err(wrong) = dmarig_pattern::check_stamped(&sector, at) {
                let mut tally = self.tally();
                tally.corrupt += 1;
                if tally.corrupt_lines.len() < MAX_LINES {
                    tally.corrupt_lines.push(format!(
                        "command {:#06x}: byte {} of the sector at {at:#x}: expected {:#04x}, \
                         found {:#04x} ({} bytes are wrong; {})",
                        command.identifier,
                        wrong.at,
                        wrong.expected,
                        wrong.found,
                        wrong.bytes,
                        wrong.clue
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
        request: &mut Request,
    ) -> Result<(), Status> {
        let size = (u64::from(command.dword(10) & 0xff) + 1) * 16;
        self.find(queue, command, size)?;
        let mut list = [0; PAGE as usize];
        let list = &mut list[..size as usize];
        let taken = self.memory.gather(&self.ranges, list, request);
        taken.map_err(|fault| self.data_fault(queue, command, &fault))?;
        // Of the attributes only "deallocate" does anything.
        let deallocate = command.dword(11) & 4 != 0;
        for range in list.as_chunks::<16>().0 {
            let (count, first) = range_of(range);
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

/// Length and first block of a dataset management range.
fn range_of(range: &[u8; 16]) -> (u64, u64) {
    let mut words = range.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
    let mut next = || u64::from(words.next().unwrap_or_default());
    let (_attributes, count) = (next(), next());
    (count, next() | next() << 32)
}
