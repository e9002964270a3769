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
    /// Of a doorbell in the host's memory, what was seen there last, and what was asked for.
    pub(super) seen: u32,
    pub(super) asked: u32,
}

impl SubmissionQueue {
    pub(super) fn new(completion: u16, base: u64, size: u32) -> Self {
        let identifiers = vec![0; 1 << 10];
        let (head, tail, under_way, seen, asked) = (0, 0, 0, 0, 0);
        Self { completion, base, size, head, tail, identifiers, under_way, seen, asked }
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

    pub(super) fn tail(&self) -> u32 {
        self.tail
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
    /// Entries that are not written yet.
    waiting: VecDeque<Entry>,
    /// Submission queues that use it.
    pub(super) users: u32,
    /// Whether the host is to be told of new entries.
    pub(super) news: bool,
    /// As a submission queue's.
    pub(super) seen: u32,
    pub(super) asked: u32,
}

impl CompletionQueue {
    pub(super) fn new(base: u64, size: u32, vector: Option<u16>) -> Self {
        let (head, tail, waiting) = (0, 0, VecDeque::new());
        Self {
            vector,
            base,
            size,
            head,
            tail,
            phase: true,
            waiting,
            users: 0,
            news: false,
            seen: 0,
            asked: 0,
        }
    }

    /// Takes a new head; `false` where it can't be one.
    pub(super) fn ring(&mut self, head: u32) -> bool {
        let used = (self.tail + self.size - self.head) % self.size;
        let taken = (head.min(self.size) + self.size - self.head) % self.size;
        let possible = head < self.size && taken <= used;
        if possible {
            self.head = head;
        }
        possible
    }

    /// Whether entries wait and there is no room for one.
    pub(super) fn is_full(&self) -> bool {
        self.is_behind() && (self.tail + 1) % self.size == self.head
    }

    pub(super) fn head(&self) -> u32 {
        self.head
    }

    /// Whether entries wait for room, or to be written.
    pub(super) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes an entry, for the next [`CompletionQueue::flush`].
    pub(super) fn post(&mut self, entry: Entry) {
        self.waiting.push_back(entry);
    }

    /// Writes what there is room for.
    ///
    /// The phase tag makes an entry valid, and within one write the order of bytes is nobody's
    /// promise. So entries are written twice: whole but with the tag that is there already, then
    /// with the new one, which changes nothing else.
    pub(super) fn flush(&mut self, memory: &Memory) -> Result<(), Fault> {
        while self.is_behind() {
            let used = (self.tail + self.size - self.head) % self.size;
            let room = (self.size - 1 - used).min(self.size - self.tail);
            let count = self.waiting.len().min(room as usize);
            if count == 0 {
                break;
            }
            let at = self.base.wrapping_add(u64::from(self.tail) * 16);
            for phase in [!self.phase, self.phase] {
                let entries = self.waiting.iter().take(count);
                let bytes: Vec<u8> = entries.flat_map(|entry| entry.encode(phase)).collect();
                memory.write(at, &bytes)?;
            }
            self.waiting.drain(..count);
            self.tail = (self.tail + count as u32) % self.size;
            self.phase ^= self.tail == 0;
            self.news = true;
        }
        Ok(())
    }
}

impl Entry {
    fn encode(&self, phase: bool) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0..4].copy_from_slice(&self.result.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.head.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.queue.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.identifier.to_le_bytes());
        let status = self.status.bits() | u16::from(phase);
        bytes[14..16].copy_from_slice(&status.to_le_bytes());
        bytes
    }
}
