//! Submission and completion queues in the guest's memory.

use std::collections::VecDeque;

use super::{Command, Status};
use crate::memory::{Fault, Memory};

/// Commands that are fetched at a time.
const BATCH: u32 = 32;

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
    /// Commands that are under way.
    pub(super) under_way: u32,
}

impl SubmissionQueue {
    pub(super) fn new(completion: u16, base: u64, size: u32) -> Self {
        let identifiers = vec![0; 1 << 10];
        Self { completion, base, size, head: 0, tail: 0, identifiers, under_way: 0 }
    }

    /// Takes a new tail; `false` where it can't be one.
    pub(super) fn ring(&mut self, tail: u32) -> bool {
        if tail < self.size {
            self.tail = tail;
        }
        tail < self.size
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Fetches what has come, up to a batch, and no more than a queue's worth may be under way:
    /// the guest can reuse entries as soon as they are fetched.
    pub(super) fn fetch(
        &mut self,
        memory: &Memory,
        commands: &mut Vec<Command>,
    ) -> Result<(), Fault> {
        let run =
            if self.tail >= self.head { self.tail - self.head } else { self.size - self.head };
        let room = self.size.saturating_sub(self.under_way);
        let count = run.min(BATCH).min(room);
        let mut bytes = [0; BATCH as usize * Command::BYTES];
        let bytes = &mut bytes[..count as usize * Command::BYTES];
        if count == 0 {
            return Ok(());
        }
        memory.read(self.base.wrapping_add(u64::from(self.head) * Command::BYTES as u64), bytes)?;
        commands.extend(bytes.as_chunks::<{ Command::BYTES }>().0.iter().map(Command::decode));
        self.head = (self.head + count) % self.size;
        self.under_way += count;
        Ok(())
    }

    /// Notes that an identifier is in use; `false` where it is already.
    pub(super) fn begin(&mut self, identifier: u16) -> bool {
        let word = &mut self.identifiers[usize::from(identifier / 64)];
        let bit = 1 << (identifier % 64);
        let free = *word & bit == 0;
        *word |= bit;
        free
    }

    /// Notes that a command is done.
    pub(super) fn end(&mut self, identifier: u16) {
        self.identifiers[usize::from(identifier / 64)] &= !(1 << (identifier % 64));
        self.under_way = self.under_way.saturating_sub(1);
    }

    pub(super) fn head(&self) -> u16 {
        self.head as u16
    }
}

/// What the host is told of a command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) result: u32,
    pub(super) queue: u16,
    pub(super) head: u16,
    pub(super) identifier: u16,
    pub(super) status: Status,
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
    /// Entries that there is no room for.
    waiting: VecDeque<Entry>,
    /// Submission queues that use it.
    pub(super) users: u32,
    /// Whether the host is to be told of new entries.
    pub(super) news: bool,
}

impl CompletionQueue {
    pub(super) fn new(base: u64, size: u32, vector: Option<u16>) -> Self {
        let (head, tail, waiting) = (0, 0, VecDeque::new());
        Self { vector, base, size, head, tail, phase: true, waiting, users: 0, news: false }
    }

    /// Takes a new head; `false` where it can't be one. Entries that waited for room are posted.
    pub(super) fn ring(&mut self, head: u32, memory: &Memory) -> Result<bool, Fault> {
        let used = (self.tail + self.size - self.head) % self.size;
        let taken = (head.min(self.size) + self.size - self.head) % self.size;
        if head >= self.size || taken > used {
            return Ok(false);
        }
        self.head = head;
        while !self.is_full()
            && let Some(entry) = self.waiting.pop_front()
        {
            self.write(&entry, memory)?;
        }
        Ok(true)
    }

    pub(super) fn is_full(&self) -> bool {
        (self.tail + 1) % self.size == self.head
    }

    /// Whether entries wait for room.
    pub(super) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn post(&mut self, entry: Entry, memory: &Memory) -> Result<(), Fault> {
        if self.is_full() || self.is_behind() {
            self.waiting.push_back(entry);
            return Ok(());
        }
        self.write(&entry, memory)
    }

    fn write(&mut self, entry: &Entry, memory: &Memory) -> Result<(), Fault> {
        let at = self.base.wrapping_add(u64::from(self.tail) * 16);
        let mut bytes = [0; 12];
        bytes[0..4].copy_from_slice(&entry.result.to_le_bytes());
        bytes[8..10].copy_from_slice(&entry.head.to_le_bytes());
        bytes[10..12].copy_from_slice(&entry.queue.to_le_bytes());
        let status = entry.status.bits() | u16::from(self.phase);
        let last = u32::from(entry.identifier) | u32::from(status) << 16;
        memory.write(at, &bytes)?;
        // The phase tag makes the entry valid, so it comes in a write of its own, after the rest:
        // within one write the order of bytes is nobody's promise.
        memory.write(at.wrapping_add(12), &last.to_le_bytes())?;
        self.tail = (self.tail + 1) % self.size;
        self.phase ^= self.tail == 0;
        self.news = true;
        Ok(())
    }
}
