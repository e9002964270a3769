//! Reads and writes on a disk, each checked against what was last written.

mod contents;
mod order;
mod worker;

use std::{
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom},
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use dmarig_wire::{BlockJob, Interface, Report};

use self::{
    contents::{Contents, PAGE},
    order::Order,
    worker::{Worker, WorkerResult},
};
use crate::{environment, sys::DirectQueue, tally::Tally};

const MAX_BLOCK: u32 = 1 << 20;
const MAX_DEPTH: u32 = 1024;
const MAX_THREADS: u32 = 64;
/// From the best to the last resort.
const INTERFACES: [Interface; 3] = [Interface::IoUring, Interface::Aio, Interface::Sync];

/// A disk and its expected contents.
#[derive(Debug)]
pub(crate) struct Disk {
    name: String,
    path: PathBuf,
    contents: Contents,
    /// The generation of the next write; one for each operation, so that none is used twice.
    generation: u64,
    /// Whether a job was aborted, so that the contents are unknown.
    unknown: bool,
}

impl Disk {
    /// A disk by its name in `/dev`, with all zeros.
    pub(crate) fn new(name: &str) -> Self {
        Self::at(name, &Path::new("/dev").join(name))
    }

    fn at(name: &str, path: &Path) -> Self {
        let (name, path) = (name.to_owned(), path.to_owned());
        Self { name, path, contents: Contents::default(), generation: 1, unknown: false }
    }
}

/// Makes a disk's driver map what it maps once and then keeps: lists of a request's pages, of each
/// size. A kernel that has read no more than a page so far, in search of partitions, would do so
/// within the first window, and be blamed for a mapping that is never unmapped.
///
/// If the disk can't be read, the workload reports it.
pub(crate) fn warm_up(name: &str) {
    const PAGE_BYTES: usize = PAGE as usize;
    for length in [16 * PAGE_BYTES, MAX_BLOCK as usize] {
        let mut options = OpenOptions::new();
        let path = Path::new("/dev").join(name);
        let Ok(file) = options.read(true).custom_flags(libc::O_DIRECT).open(path) else { return };
        // What is read past the cache needs room that starts where a page does.
        let mut room = vec![0; length + PAGE_BYTES];
        let start = room.as_ptr().align_offset(PAGE_BYTES);
        let _ = room.get_mut(start..start + length).map(|room| file.read_at(room, 0));
    }
}

/// Runs a job on a disk.
///
/// # Errors
/// Where the job is impossible or the kernel refuses a resource; failures of single operations are in
/// the report.
pub(crate) fn run(disk: &mut Disk, job: &BlockJob) -> Result<Report> {
    run_through(disk, job, &INTERFACES, libc::O_DIRECT)
}

fn run_through(
    disk: &mut Disk,
    job: &BlockJob,
    interfaces: &[Interface],
    flags: i32,
) -> Result<Report> {
    ensure!(!disk.unknown, "{}: an earlier job broke off, so its contents are unknown", disk.name);
    let open = || {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).custom_flags(flags).open(&disk.path);
        file.with_context(|| format!("can't open {}", disk.path.display()))
    };
    disk.contents.used = job.used;
    make_counts_repeatable(&disk.name);
    let size = open()?.seek(SeekFrom::End(0)).context("can't learn the disk's size")?;
    let blocks = validate(job, size)?;
    let (depth, block_size) = (job.queue_depth as usize, job.block_size as usize);
    // Everything that may fail comes before the contents are split.
    let queues = (0..job.threads)
        .map(|_| DirectQueue::open(open()?, depth, block_size, interfaces))
        .collect::<Result<Vec<_>>>()?;
    let interface = queues[0].interface();
    let workers = workers(disk, job, blocks, queues);
    let mut tally = Tally::default();
    let mut time = None::<Range<Instant>>;
    let results = run_all(workers);
    disk.unknown = results.iter().any(Result::is_err);
    for result in results {
        let result = result?;
        disk.contents.append(result.contents);
        tally.add(result.tally);
        time = Some(match time {
            None => result.time,
            Some(all) => all.start.min(result.time.start)..all.end.max(result.time.end),
        });
    }
    thread::sleep(Duration::from_millis(job.linger_ms.into()));
    let elapsed = time.map_or(0, |time| (time.end - time.start).as_nanos());
    Ok(tally.report(interface, u64::try_from(elapsed)?))
}

/// Sets kernel options that make the counts of a disk's DMA mappings repeat exactly. Without them,
/// counts only repeat less well.
fn make_counts_repeatable(disk: &str) {
    // Neighbours are not merged to one request: whether two meet in the queue is chance, and each
    // that is merged is one mapping less.
    let _ = fs::write(format!("/sys/block/{disk}/queue/nomerges"), "2");
    // Huge pages for buffers that ask for them; a guest with less than 512 MiB starts with none.
    let huge = "/sys/kernel/mm/transparent_hugepage/enabled";
    if fs::read_to_string(huge).is_ok_and(|modes| modes.contains("[never]")) {
        let _ = fs::write(huge, "madvise");
    }
}

/// Splits a job and the disk's contents, one part for each queue.
fn workers<'a>(
    disk: &'a mut Disk,
    job: &'a BlockJob,
    blocks: u64,
    queues: Vec<DirectQueue>,
) -> Vec<Worker<'a>> {
    let threads = u64::from(job.threads);
    let size = u64::from(job.block_size);
    let mut generation = disk.generation;
    disk.generation += job.ops;
    let mut workers = Vec::new();
    for (queue, thread) in queues.into_iter().zip(0..) {
        let part = share(blocks, threads, thread);
        let ops = share(job.ops, threads, thread);
        let ops = ops.end - ops.start;
        workers.push(Worker {
            disk: &disk.name,
            job,
            order: Order::new(job.seed, thread, part.end - part.start, job.read_percent),
            contents: disk.contents.split_off(part.start * size..part.end * size),
            blocks: part,
            ops,
            generation,
            queue,
        });
        generation += ops;
    }
    workers
}

fn run_all(workers: Vec<Worker<'_>>) -> Vec<Result<WorkerResult>> {
    let workers = match <[Worker<'_>; 1]>::try_from(workers) {
        Ok([only]) => return vec![only.run()],
        Err(workers) => workers,
    };
    thread::scope(|scope| {
        let threads: Vec<_> =
            workers.into_iter().map(|worker| scope.spawn(|| worker.run())).collect();
        let results = threads.into_iter().map(|thread| thread.join());
        results.map(|result| result.unwrap_or_else(|_| Err(anyhow!("a thread panicked")))).collect()
    })
}

/// One thread's part of a whole; parts differ in size by one at most.
fn share(whole: u64, threads: u64, thread: u64) -> Range<u64> {
    let start = |thread: u64| whole / threads * thread + (whole % threads).min(thread);
    start(thread)..start(thread + 1)
}

/// Checks a job against a disk of `size` bytes; returns the number of its blocks.
fn validate(job: &BlockJob, size: u64) -> Result<u64> {
    let BlockJob { block_size, queue_depth, threads, .. } = *job;
    ensure!(
        block_size > 0 && block_size % PAGE as u32 == 0 && block_size <= MAX_BLOCK,
        "block size {block_size}: it must be a multiple of {PAGE}, at most {MAX_BLOCK}"
    );
    ensure!((1..=MAX_DEPTH).contains(&queue_depth), "queue depth {queue_depth}: 1 to {MAX_DEPTH}");
    ensure!((1..=MAX_THREADS).contains(&threads), "{threads} threads: 1 to {MAX_THREADS}");
    ensure!(job.read_percent <= 100, "{} percent of reads: 0 to 100", job.read_percent);
    let span = if job.span == 0 { size } else { job.span };
    ensure!(span <= size, "a span of {span} bytes on a disk of {size}");
    let blocks = span / u64::from(block_size);
    if blocks < u64::from(threads) {
        bail!("{blocks} blocks of {block_size} bytes are too few for {threads} threads");
    }
    let buffers = u64::from(threads) * u64::from(queue_depth) * u64::from(block_size) / 1024;
    let available = environment::memory_kib("MemAvailable")?;
    ensure!(
        buffers <= available / 2,
        "{threads} threads with {queue_depth} buffers of {block_size} bytes take {buffers} KiB, \
         over half of the {available} KiB that are free"
    );
    Ok(blocks)
}

#[cfg(test)]
#[path = "block/tests.rs"]
mod tests;
