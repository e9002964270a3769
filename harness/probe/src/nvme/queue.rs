//! Submission and completion queues in the guest's memory.

use std::collections::VecDeque;

use zerocopy::{
    FromZeros, Immutable, IntoBytes,
    little_endian::{U16, U32},
};

use super::Command;
use crate::memory::{Fault, Memory};

/// Commands that are fetched at a time.
const BATCH: u32 = 32;
const COMMAND_BYTES: u64 = size_of::<Command>() as u64;
const COMPLETION_BYTES: u64 = size_of::<CompletionEntry>() as u64;

/// A submission queue.
#[derive(Debug)]
pub(super) struct SubmissionQueue {
    pub(super) completion: u16,
    base: u64,
    size: u32,
    head: u32,
    tail: u32,
    /// A bit for each identifier that is in use.
    identifiers: Vec<u64>,
    /// Commands that were fetched and are not completed.
    in_flight: u32,
    /// Last value of the queue's doorbell in the host's memory.
    pub(super) last_doorbell: u32,
    /// Value that the host's doorbell must pass for the host to write the register.
    pub(super) event_index: u32,
}

impl SubmissionQueue {
    pub(super) fn new(completion: u16, base: u64, size: u32) -> Self {
        Self {
            completion,
            base,
            size,
            head: 0,
            tail: 0,
            identifiers: vec![0; 1 << 10],
            in_flight: 0,
            last_doorbell: 0,
            event_index: 0,
        }
    }

    /// Takes a new tail from the host; `false` if it is not valid.
    pub(super) fn set_tail(&mut self, tail: u32) -> bool {
        if tail < self.size {
            self.tail = tail;
        }
        tail < self.size
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    pub(super) fn tail(&self) -> u32 {
        self.tail
    }

    /// Fetches new commands, up to a batch, into `commands`. No more than a queue's worth may be in
    /// flight: the guest can reuse entries as soon as they are fetched.
    pub(super) fn fetch(
        &mut self,
        memory: &Memory,
        commands: &mut Vec<Command>,
    ) -> Result<(), Fault> {
        commands.clear();
        let until_wrap =
            if self.tail >= self.head { self.tail - self.head } else { self.size - self.head };
        let room = self.size.saturating_sub(self.in_flight);
        let count = until_wrap.min(BATCH).min(room);
        if count == 0 {
            return Ok(());
        }
        let mut batch = [Command::new_zeroed(); BATCH as usize];
        let batch = &mut batch[..count as usize];
        let at = self.base.wrapping_add(u64::from(self.head) * COMMAND_BYTES);
        memory.read(at, batch.as_mut_bytes())?;
        commands.extend_from_slice(batch);
        self.head = (self.head + count) % self.size;
        self.in_flight += count;
        Ok(())
    }

    /// Marks an identifier as used; `false` if it was already.
    pub(super) fn claim(&mut self, identifier: u16) -> bool {
        let word = &mut self.identifiers[usize::from(identifier / 64)];
        let bit = 1 << (identifier % 64);
        let free = *word & bit == 0;
        *word |= bit;
        free
    }

    /// Marks a command as completed and its identifier as free.
    pub(super) fn release(&mut self, identifier: u16) {
        self.identifiers[usize::from(identifier / 64)] &= !(1 << (identifier % 64));
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    pub(super) fn head(&self) -> u16 {
        self.head as u16
    }
}

/// An entry of a completion queue. Its phase tag is bit 0 of the status.
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct CompletionEntry {
    pub(super) result: U32,
    pub(super) reserved: U32,
    pub(super) submission_head: U16,
    pub(super) submission_queue: U16,
    pub(super) identifier: U16,
    pub(super) status: U16,
}

impl CompletionEntry {
    fn set_phase(&mut self, phase: bool) {
        self.status.set(self.status.get() & !1 | u16::from(phase));
    }
}

/// A completion queue.
#[derive(Debug)]
pub(super) struct CompletionQueue {
    pub(super) vector: Option<u16>,
    base: u64,
    size: u32,
    head: u32,
    tail: u32,
    phase: bool,
    /// Entries that are not written yet.
    waiting: VecDeque<CompletionEntry>,
    /// Number of submission queues that use it.
    pub(super) users: u32,
    /// Whether an interrupt for new entries is due.
    pub(super) interrupt_due: bool,
    /// As a submission queue's.
    pub(super) last_doorbell: u32,
    pub(super) event_index: u32,
}

impl CompletionQueue {
    pub(super) fn new(base: u64, size: u32, vector: Option<u16>) -> Self {
        Self {
            vector,
            base,
            size,
            head: 0,
            tail: 0,
            phase: true,
            waiting: VecDeque::new(),
            users: 0,
            interrupt_due: false,
            last_doorbell: 0,
            event_index: 0,
        }
    }

    /// Takes a new head from the host; `false` if it is not valid.
    pub(super) fn set_head(&mut self, head: u32) -> bool {
        let used = (self.tail + self.size - self.head) % self.size;
        let taken = (head.min(self.size) + self.size - self.head) % self.size;
        let possible = head < self.size && taken <= used;
        if possible {
            self.head = head;
        }
        possible
    }

    /// Whether entries wait and the host has left no room for one.
    pub(super) fn is_full(&self) -> bool {
        self.has_waiting() && (self.tail + 1) % self.size == self.head
    }

    pub(super) fn head(&self) -> u32 {
        self.head
    }

    /// Whether entries wait for room, or to be written.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Adds an entry, which the next [`CompletionQueue::flush`] writes.
    pub(super) fn post(&mut self, entry: CompletionEntry) {
        self.waiting.push_back(entry);
    }

    /// Writes as many waiting entries as there is room for.
    ///
    /// The phase tag makes an entry valid, and the order of bytes within one write is undefined. So
    /// entries are written twice: complete but with the old tag, then with the new one, which changes
    /// nothing else.
    pub(super) fn flush(&mut self, memory: &Memory) -> Result<(), Fault> {
        while self.has_waiting() {
            let used = (self.tail + self.size - self.head) % self.size;
            let room = (self.size - 1 - used).min(self.size - self.tail);
            let count = self.waiting.len().min(room as usize);
            if count == 0 {
                break;
            }
            let at = self.base.wrapping_add(u64::from(self.tail) * COMPLETION_BYTES);
            let mut entries: Vec<_> = self.waiting.iter().copied().take(count).collect();
            for phase in [!self.phase, self.phase] {
                entries.iter_mut().for_each(|entry| entry.set_phase(phase));
                memory.write(at, entries.as_bytes())?;
            }
            self.waiting.drain(..count);
            self.tail = (self.tail + count as u32) % self.size;
            self.phase ^= self.tail == 0;
            self.interrupt_due = true;
        }
        Ok(())
    }
}
