//! Whole jobs on plain files.

use std::os::unix::fs::FileExt;

use dmarig_wire::Device;

use super::*;

const SIZE: u64 = 1 << 20;

fn job() -> BlockJob {
    BlockJob {
        device: Device::Nvme,
        block_size: 8192,
        queue_depth: 8,
        ops: 600,
        read_percent: 50,
        threads: 2,
        span: 0,
        seed: 42,
        used: false,
        linger_ms: 0,
    }
}

struct Bench {
    disk: Disk,
    file: tempfile::NamedTempFile,
    flags: i32,
}

impl Bench {
    fn new() -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(SIZE).unwrap();
        // A temporary directory may be on a file system without direct I/O.
        let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(file.path());
        let flags = if direct.is_ok() { libc::O_DIRECT } else { 0 };
        Self { disk: Disk::at("disk", file.path()), file, flags }
    }

    fn run(&mut self, job: &BlockJob) -> Report {
        run_through(&mut self.disk, job, &INTERFACES, self.flags).unwrap()
    }

    fn flip(&self, at: u64) {
        let mut byte = [0];
        self.file.as_file().read_exact_at(&mut byte, at).unwrap();
        self.file.as_file().write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    }
}

fn check_clean(report: &Report, ops: u64) {
    assert_eq!((report.ops, report.errors, report.corrupt), (ops, 0, 0), "{report:?}");
    assert_eq!(report.problems, []);
    assert_eq!(report.latency.as_ref().map(|latency| latency.count), Some(ops));
}

#[test]
fn does_the_same_work_through_each_interface() {
    let mut disks = Vec::new();
    for interface in INTERFACES {
        let mut bench = Bench::new();
        let Ok(report) = run_through(&mut bench.disk, &job(), &[interface], bench.flags) else {
            assert_eq!(interface, Interface::IoUring, "a sandbox may forbid only this one");
            continue;
        };
        check_clean(&report, 600);
        assert_eq!(report.interface, interface);
        assert_eq!(report.bytes, 600 * 8192);
        disks.push((report.reads, std::fs::read(bench.file.path()).unwrap()));
    }
    assert!(disks.windows(2).all(|two| two[0] == two[1]), "contents follow from the seed");
}

#[test]
fn checks_what_earlier_jobs_wrote() {
    let mut bench = Bench::new();
    check_clean(&bench.run(&job()), 600);
    let reads = BlockJob { read_percent: 100, block_size: 16384, threads: 3, ..job() };
    check_clean(&bench.run(&reads), 600);
    let mixed = BlockJob { block_size: 4096, seed: 1, span: SIZE / 2, ..job() };
    check_clean(&bench.run(&mixed), 600);
    check_clean(&bench.run(&reads), 600);
}

#[test]
fn reports_a_wrong_byte() {
    let mut bench = Bench::new();
    bench.run(&BlockJob { read_percent: 0, ops: 128, ..job() });
    bench.flip(5 * 8192 + 4097);
    let report = bench.run(&BlockJob { read_percent: 100, ops: 128, ..job() });
    assert_eq!((report.ops, report.errors, report.corrupt), (128, 0, 1));
    let what = &report.problems[0].what;
    assert!(report.problems[0].corrupt);
    assert!(what.starts_with("disk: byte 4097 of the block at 0xa000: expected"), "{what}");
    assert!(what.contains("1 bytes of its page are wrong"), "{what}");
}

#[test]
fn reports_a_lost_write() {
    let mut bench = Bench::new();
    bench.run(&BlockJob { read_percent: 0, ops: 128, ..job() });
    let before = std::fs::read(bench.file.path()).unwrap();
    bench.run(&BlockJob { read_percent: 0, ops: 128, seed: 43, ..job() });
    bench.file.as_file().write_all_at(&before[..8192], 0).unwrap();
    let report = bench.run(&BlockJob { read_percent: 100, ops: 128, ..job() });
    assert_eq!(report.corrupt, 1);
    assert!(report.problems[0].what.contains("looks like stale generation"), "{report:?}");
}

#[test]
fn runs_one_operation_per_block_at_a_time() {
    let mut bench = Bench::new();
    let tight = BlockJob { span: 3 * 8192, queue_depth: 64, threads: 1, ..job() };
    check_clean(&bench.run(&tight), 600);
}

#[test]
fn counts_a_failed_write_and_skips_its_block_in_checks() {
    let mut bench = Bench::new();
    bench.disk.path = "/dev/full".into();
    let file = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    let queue = DirectQueue::open(file, 4, 8192, &[Interface::Sync]).unwrap();
    let job = BlockJob { read_percent: 0, ops: 40, ..job() };
    let worker = Worker {
        disk: "full",
        job: &job,
        blocks: 0..8,
        ops: 40,
        generation: 1,
        order: Order::new(1, 0, 8, 0),
        contents: Contents::default(),
        queue,
    };
    let done = worker.run().unwrap();
    assert_eq!((done.tally.errors, done.tally.writes), (40, 0));
    assert_eq!(done.contents.check(&[1; 1024], 0), Ok(()));
    let report = done.tally.report(Interface::Sync, 1);
    assert_eq!(report.problems.len(), 16);
    assert!(report.problems[0].what.contains("No space left"), "{:?}", report.problems[0]);
}

#[test]
fn refuses_impossible_jobs() {
    let check = |job: BlockJob, words: &str| {
        let error = validate(&job, SIZE).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    check(BlockJob { block_size: 512, ..job() }, "block size 512");
    check(BlockJob { block_size: 2 << 20, ..job() }, "block size");
    check(BlockJob { queue_depth: 0, ..job() }, "queue depth 0");
    check(BlockJob { queue_depth: 2000, ..job() }, "queue depth 2000");
    check(BlockJob { threads: 65, ..job() }, "65 threads");
    check(BlockJob { read_percent: 101, ..job() }, "101 percent");
    check(BlockJob { span: SIZE + 1, ..job() }, "span");
    check(BlockJob { block_size: 1 << 20, ..job() }, "too few");
    let big = BlockJob { block_size: 1 << 20, threads: 64, queue_depth: 1024, ..job() };
    assert!(validate(&big, 1 << 40).unwrap_err().to_string().contains("KiB that are free"));
    assert_eq!(validate(&job(), SIZE).unwrap(), 128);
}

#[test]
fn splits_work_evenly() {
    for (whole, threads) in [(10, 3), (64, 64), (7, 1), (100, 7)] {
        let parts: Vec<_> = (0..threads).map(|thread| share(whole, threads, thread)).collect();
        assert_eq!((parts[0].start, parts[parts.len() - 1].end), (0, whole));
        assert!(parts.windows(2).all(|two| two[0].end == two[1].start));
        assert!(parts.iter().all(|part| part.end - part.start >= whole / threads));
    }
}
