//! An NVMe controller (NVM Express 1.4): registers, queues, admin and NVM commands.

mod admin;
mod controller;
mod doorbells;
mod engine;
mod features;
mod identify;
mod io;
mod log_page;
mod prp;
mod queue;
mod registers;
mod status;
mod worker;

pub use controller::{Controller, Tally};
pub use engine::Engine;
pub use prp::{MAX_TRANSFER, Prp, walk};
pub use registers::{Event, Registers};
pub use status::Status;
pub use worker::{Shared, work};

/// Bytes of a logical block.
pub const BLOCK: u64 = 512;
/// Bytes of a page of the controller's.
pub const PAGE: u64 = 4096;
/// Most entries of a queue.
pub const MAX_ENTRIES: u16 = 1024;
/// Version 1.4.
const VERSION: u32 = 0x0001_0400;

/// A command, as a submission queue has it.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    /// What to do.
    opcode: u8,
    /// Fusing and kind of data pointer.
    flags: u8,
    /// The host's name for it.
    identifier: u16,
    /// The namespace.
    namespace: u32,
    /// Where its data is.
    prp1: u64,
    /// Where the rest of it is.
    prp2: u64,
    /// Command dwords 10 to 15.
    dwords: [u32; 6],
}

impl Command {
    /// Bytes of one.
    pub(crate) const BYTES: usize = 64;

    fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        Self {
            opcode: bytes[0],
            flags: bytes[1],
            identifier: u16::from_le_bytes([bytes[2], bytes[3]]),
            namespace: u32_at(4),
            prp1: u64_at(24),
            prp2: u64_at(32),
            dwords: std::array::from_fn(|index| u32_at(40 + 4 * index)),
        }
    }

    /// A command dword by its number in the specification, 10 to 15.
    fn dword(&self, number: usize) -> u32 {
        self.dwords[number - 10]
    }
}
