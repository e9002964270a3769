//! Features (NVM Express 1.4, 5.21).

use dmarig_model::probe::Settings;

use super::{Command, PAGE, Status, controller::Controller};
use crate::memory::Range;

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

/// What the host has set; lost in a reset.
#[derive(Debug)]
pub(super) struct Features {
    /// Events that the host wants to hear of.
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
    /// Answers the value of a feature.
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
                let mut data = Vec::new();
                data.extend(memory.pages.to_le_bytes());
                data.extend(memory.list.to_le_bytes());
                data.extend(memory.count.to_le_bytes());
                let enabled = u32::from(memory.enabled);
                self.answer(command, &data, PAGE)?;
                enabled
            }
            _ => return Err(Status::INVALID_FIELD),
        })
    }

    /// Sets a feature; answers what the host is told of it.
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
        let list = u64::from(command.dword(13)) | u64::from(command.dword(14)) << 32;
        if pages < self.host_memory_pages()
            || count == 0
            || count > MAX_DESCRIPTORS
            || list % 16 != 0
        {
            return Err(Status::INVALID_FIELD);
        }
        let mut bytes = vec![0; count as usize * 16];
        let read = self.memory.read(list, &mut bytes);
        read.map_err(|fault| self.data_fault(0, command, &fault))?;
        let mut ranges = Vec::new();
        let mut whole = 0u64;
        for descriptor in bytes.as_chunks::<16>().0 {
            let (address, pages) = descriptor_of(descriptor);
            if address % PAGE != 0 {
                return Err(Status::INVALID_FIELD);
            }
            whole += u64::from(pages);
            ranges.push(Range { iova: address, size: u64::from(pages) * PAGE });
        }
        if whole < u64::from(pages) {
            return Err(Status::INVALID_FIELD);
        }
        tracing::info!(pages, descriptors = count, "a host memory buffer");
        self.features.host_memory = HostMemory { enabled: true, pages, list, count, ranges };
        Ok(())
    }

    /// Where the host memory buffer is, as far as there is one.
    #[must_use]
    pub fn host_memory(&self) -> &[Range] {
        &self.features.host_memory.ranges
    }
}

/// Address and pages of a host memory buffer descriptor.
fn descriptor_of(descriptor: &[u8; 16]) -> (u64, u32) {
    let mut words = descriptor.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
    let mut next = || words.next().unwrap_or_default();
    let (low, high) = (next(), next());
    (u64::from(low) | u64::from(high) << 32, next())
}
