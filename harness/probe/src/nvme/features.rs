//! Features (NVM Express 1.4, 5.21).

use dmarig_model::probe::Settings;
use zerocopy::{
    FromBytes, FromZeros, Immutable, IntoBytes,
    little_endian::{U32, U64},
};

use super::{Command, PAGE, Status, controller::Controller};
use crate::range::Range;

const ARBITRATION: u32 = 0x01;
const POWER: u32 = 0x02;
const TEMPERATURE: u32 = 0x04;
const ERROR_RECOVERY: u32 = 0x05;
const WRITE_CACHE: u32 = 0x06;
const QUEUES: u32 = 0x07;
const COALESCING: u32 = 0x08;
const VECTOR: u32 = 0x09;
const ATOMICITY: u32 = 0x0a;
const EVENTS: u32 = 0x0b;
const HOST_MEMORY: u32 = 0x0d;
/// Most descriptors of a host memory buffer that are read.
const MAX_DESCRIPTORS: u32 = 1 << 16;

/// Values that the host has set; a reset loses them.
#[derive(Debug)]
pub(super) struct Features {
    /// Events that the host has enabled.
    pub(super) events: u32,
    arbitration: u32,
    temperature: u32,
    error_recovery: u32,
    write_cache: u32,
    coalescing: u32,
    /// By interrupt vector.
    vectors: Vec<u32>,
    atomicity: u32,
    queues: u32,
    host_memory: HostMemory,
}

/// Attributes of the host memory buffer, as Get Features returns them.
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct HostMemoryAttributes {
    pages: U32,
    list: U64,
    count: U32,
}

/// An entry of the host memory buffer's list.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct HostMemoryDescriptor {
    address: U64,
    pages: U32,
    reserved: U32,
}

/// The host memory buffer.
#[derive(Debug, Default)]
struct HostMemory {
    enabled: bool,
    pages: u32,
    list: u64,
    count: u32,
    ranges: Vec<Range>,
}

impl Features {
    pub(super) fn new(settings: &Settings) -> Self {
        let most = u32::from(settings.queues) - 1;
        Self {
            events: 0,
            arbitration: 0,
            temperature: 343,
            error_recovery: 0,
            write_cache: 1,
            coalescing: 0,
            vectors: (0..u32::from(settings.vectors)).collect(),
            atomicity: 0,
            queues: most << 16 | most,
            host_memory: HostMemory::default(),
        }
    }
}

impl Controller {
    /// Returns the value of a feature.
    pub(super) fn get_features(&mut self, command: &Command) -> Result<u32, Status> {
        // Current values alone: nothing can be saved.
        if command.dword(10) >> 8 & 7 != 0 {
            return Err(Status::INVALID_FIELD);
        }
        let features = &self.features;
        Ok(match command.dword(10) & 0xff {
            ARBITRATION => features.arbitration,
            POWER => 0,
            TEMPERATURE => match command.dword(11) >> 16 & 0x3f {
                // Over the composite temperature's threshold; there is no other.
                0 => features.temperature,
                _ => return Err(Status::INVALID_FIELD),
            },
            ERROR_RECOVERY => features.error_recovery,
            WRITE_CACHE => features.write_cache,
            QUEUES => features.queues,
            COALESCING => features.coalescing,
            VECTOR => {
                let vector = (command.dword(11) & 0xffff) as usize;
                *features.vectors.get(vector).ok_or(Status::INVALID_FIELD)?
            }
            ATOMICITY => features.atomicity,
            EVENTS => features.events,
            HOST_MEMORY => {
                let memory = &features.host_memory;
                let attributes = HostMemoryAttributes {
                    pages: memory.pages.into(),
                    list: memory.list.into(),
                    count: memory.count.into(),
                };
                let enabled = u32::from(memory.enabled);
                self.answer(command, attributes.as_bytes(), PAGE)?;
                enabled
            }
            _ => return Err(Status::INVALID_FIELD),
        })
    }

    /// Sets a feature; returns the result for the host.
    pub(super) fn set_features(&mut self, command: &Command) -> Result<u32, Status> {
        if command.dword(10) >> 31 != 0 {
            return Err(Status::NOT_SAVEABLE);
        }
        let value = command.dword(11);
        match command.dword(10) & 0xff {
            ARBITRATION => self.features.arbitration = value,
            // There is one power state.
            POWER if value & 0x1f == 0 => {}
            TEMPERATURE => {
                if value >> 16 & 0x3f == 0 && value >> 20 & 3 == 0 {
                    self.features.temperature = value & 0xffff;
                }
            }
            ERROR_RECOVERY => self.features.error_recovery = value & 0xffff,
            WRITE_CACHE => self.features.write_cache = value & 1,
            QUEUES => return self.set_queues(value),
            COALESCING => self.features.coalescing = value & 0xffff,
            VECTOR => {
                let vector = self.features.vectors.get_mut((value & 0xffff) as usize);
                *vector.ok_or(Status::INVALID_FIELD)? = value & 0x1_ffff;
            }
            ATOMICITY => self.features.atomicity = value & 1,
            EVENTS => self.features.events = value,
            HOST_MEMORY => self.set_host_memory(command)?,
            _ => return Err(Status::INVALID_FIELD),
        }
        Ok(0)
    }

    fn set_queues(&mut self, wanted: u32) -> Result<u32, Status> {
        let most = u32::from(self.settings.queues) - 1;
        let (submissions, completions) = (wanted & 0xffff, wanted >> 16);
        if submissions == 0xffff || completions == 0xffff {
            return Err(Status::INVALID_FIELD);
        }
        if self.completions.iter().skip(1).any(Option::is_some) {
            return Err(Status::SEQUENCE_ERROR);
        }
        self.features.queues = completions.min(most) << 16 | submissions.min(most);
        Ok(self.features.queues)
    }

    fn set_host_memory(&mut self, command: &Command) -> Result<(), Status> {
        if command.dword(11) & 1 == 0 {
            self.features.host_memory = HostMemory::default();
            return Ok(());
        }
        if self.host_memory_pages() == 0 {
            return Err(Status::INVALID_FIELD);
        }
        if self.features.host_memory.enabled {
            return Err(Status::SEQUENCE_ERROR);
        }
        let (pages, count) = (command.dword(12), command.dword(15));
        let list = command.qword(13);
        if pages < self.host_memory_pages()
            || count == 0
            || count > MAX_DESCRIPTORS
            || !list.is_multiple_of(size_of::<HostMemoryDescriptor>() as u64)
        {
            return Err(Status::INVALID_FIELD);
        }
        let mut descriptors = vec![HostMemoryDescriptor::new_zeroed(); count as usize];
        let read = self.memory.read(list, descriptors.as_mut_bytes());
        read.map_err(|fault| self.data_fault(0, command, &fault))?;
        let mut ranges = Vec::new();
        let mut total = 0u64;
        for descriptor in &descriptors {
            let (iova, pages) = (descriptor.address.get(), u64::from(descriptor.pages.get()));
            if !iova.is_multiple_of(PAGE) {
                return Err(Status::INVALID_FIELD);
            }
            total += pages;
            ranges.push(Range { iova, size: pages * PAGE });
        }
        if total < u64::from(pages) {
            return Err(Status::INVALID_FIELD);
        }
        tracing::info!(pages, descriptors = count, "a host memory buffer");
        self.features.host_memory = HostMemory { enabled: true, pages, list, count, ranges };
        Ok(())
    }

    /// Ranges of the host memory buffer; empty if there is none.
    #[must_use]
    pub fn host_memory(&self) -> &[Range] {
        &self.features.host_memory.ranges
    }
}
