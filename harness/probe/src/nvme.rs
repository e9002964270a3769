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
mod tally;
mod worker;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

pub use controller::Controller;
pub use engine::Engine;
pub use prp::{MAX_TRANSFER, PrpError, walk};
pub use registers::{Event, NotEnabled, Registers};
pub use status::Status;
pub use tally::Tally;
pub use worker::{Shared, work};

/// Bytes of a logical block.
pub const BLOCK: u64 = 512;
/// Bytes of a page of the controller's.
pub const PAGE: u64 = 4096;
/// Most entries of a queue.
pub const MAX_ENTRIES: u16 = 1024;
/// Version 1.4.
const VERSION: u32 = 0x0001_0400;

/// An entry of a submission queue.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Command {
    /// What to do.
    opcode: u8,
    /// Fusing and kind of data pointer.
    flags: u8,
    /// The host's name for it.
    identifier: U16,
    /// The namespace.
    namespace: U32,
    reserved: U64,
    metadata: U64,
    /// Where its data is.
    prp1: U64,
    /// Where the rest of it is.
    prp2: U64,
    /// Command dwords 10 to 15.
    dwords: [U32; 6],
}

impl Command {
    /// A command dword by its number in the specification, 10 to 15.
    fn dword(&self, number: usize) -> u32 {
        self.dwords[number - 10].get()
    }

    /// Two command dwords as one number; `number` is that of the lower one.
    fn qword(&self, number: usize) -> u64 {
        u64::from(self.dword(number)) | u64::from(self.dword(number + 1)) << 32
    }
}
