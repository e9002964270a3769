//! One thread of a block job: keeps its queue full, checks what comes back.

use std::{ops::Range, time::Instant};

use anyhow::{Context, Result};
use dmarig_pattern::{Mismatch, Stamp};
use dmarig_wire::BlockJob;

use super::{contents::Contents, order::Order};
use crate::{
    sys::{Completion, DirectQueue},
    tally::Tally,
};

/// One thread's part of a job.
pub(crate) struct Worker<'a> {
    /// Name of the disk, for messages.
    pub(crate) disk: &'a str,
    /// The job that this is a part of.
    pub(crate) job: &'a BlockJob,
    /// The blocks that only this thread uses.
    pub(crate) blocks: Range<u64>,
    /// Number of its operations.
    pub(crate) ops: u64,
    /// Generation of its first operation.
    pub(crate) generation: u64,
    /// Order of its operations.
    pub(crate) order: Order,
    /// Contents of its blocks.
    pub(crate) contents: Contents,
    /// Queue of requests to the disk.
    pub(crate) queue: DirectQueue,
}

/// The result of one thread.
pub(crate) struct WorkerResult {
    /// Contents of its blocks.
    pub(crate) contents: Contents,
    /// Its counts.
    pub(crate) tally: Tally,
    /// Its start and end.
    pub(crate) time: Range<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Operation {
    address: u64,
    write: bool,
    stamp: Stamp,
    started: Instant,
}

impl Worker<'_> {
    /// Runs all operations.
    ///
    /// # Errors
    /// Where the queue itself fails; operations that fail are counted.
    pub(crate) fn run(mut self) -> Result<WorkerResult> {
        let mut tally = Tally::default();
        let mut in_flight: Vec<Option<Operation>> = vec![None; self.queue.depth()];
        let mut free: Vec<usize> = (0..self.queue.depth()).rev().collect();
        let mut completions = Vec::with_capacity(self.queue.depth());
        let begin = Instant::now();
        let mut next = self.operation(0, begin);
        let mut started = 0;
        while next.is_some() || free.len() < self.queue.depth() {
            let now = Instant::now();
            while let Some(mut operation) = next
                && let Some(&slot) = free.last()
                // The results of two operations on one block at a time could not be distinguished.
                && !in_flight.iter().flatten().any(|other| other.address == operation.address)
            {
                free.pop();
                operation.started = now;
                self.start(slot, operation);
                in_flight[slot] = Some(operation);
                started += 1;
                next = self.operation(started, now);
            }
            self.queue.wait(&mut completions).context("can't wait for the disk")?;
            let now = Instant::now();
            for completion in completions.drain(..) {
                let slot = completion.slot;
                let operation = in_flight[slot]
                    .take()
                    .context("the disk completed a request that was not made")?;
                tally.record_latency((now - operation.started).as_nanos());
                self.finish(operation, completion, &mut tally);
                free.push(slot);
            }
        }
        Ok(WorkerResult { contents: self.contents, tally, time: begin..Instant::now() })
    }

    /// The operation of this index; `None` after the last one.
    fn operation(&mut self, index: u64, now: Instant) -> Option<Operation> {
        if index >= self.ops {
            return None;
        }
        let (block, write) = self.order.operation(index);
        Some(Operation {
            address: (self.blocks.start + block) * u64::from(self.job.block_size),
            write,
            stamp: Stamp { seed: self.job.seed, generation: self.generation + index },
            started: now,
        })
    }

    fn start(&mut self, slot: usize, operation: Operation) {
        if operation.write {
            operation.stamp.fill(self.queue.buffer(slot), operation.address);
        }
        self.queue.start(slot, operation.write, operation.address);
    }

    fn finish(&mut self, operation: Operation, completion: Completion, tally: &mut Tally) {
        let Operation { address, write, stamp, .. } = operation;
        let size = u64::from(self.job.block_size);
        let bytes = address..address + size;
        let disk = self.disk;
        let what = if write { "write to" } else { "read of" };
        match completion.result {
            Ok(count) if count as u64 == size => {}
            result => {
                if write {
                    self.contents.record_failed_write(bytes);
                }
                return tally.count_error(|| match result {
                    Ok(count) => {
                        format!("{disk}: {what} the block at {address:#x}: {count} bytes of {size}")
                    }
                    Err(error) => format!("{disk}: {what} the block at {address:#x}: {error}"),
                });
            }
        }
        tally.bytes += size;
        if write {
            tally.writes += 1;
            self.contents.record_write(bytes, stamp);
            return;
        }
        tally.reads += 1;
        if let Err(mismatch) = self.contents.check(self.queue.buffer(completion.slot), address) {
            tally.count_corrupt(|| describe(disk, address, &mismatch, &self.contents));
        }
    }
}

fn describe(disk: &str, address: u64, mismatch: &Mismatch, contents: &Contents) -> String {
    let Mismatch { at, bytes, expected, found, clue } = mismatch;
    let source = match contents.stamp(address + *at as u64) {
        Some(stamp) => format!("generation {}", stamp.generation),
        None => "never written".to_owned(),
    };
    format!(
        "{disk}: byte {at} of the block at {address:#x}: expected {expected:#04x}, found \
         {found:#04x} ({bytes} bytes of its page are wrong; {source}; {clue})"
    )
}
