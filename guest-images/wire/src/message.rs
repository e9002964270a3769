//! The messages themselves. The rig asks with [`Request`], the agent answers each with one [`Reply`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the rig asks of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Say what the guest looks like: answered with [`Reply::Environment`].
    Describe(Device),
    /// Do this work once: answered with [`Reply::Report`].
    Run(Job),
    /// The kernel log from the start (or from where the last answer ended): [`Reply::Log`].
    ReadLog,
    /// Start or stop counting the IOMMU's map and unmap operations in the kernel: answered with
    /// [`Reply::DmaCounts`], whose numbers are those since the counters were started.
    CountDma(bool),
    /// What is counted so far, by counters that go on: answered with [`Reply::DmaCounts`].
    ReadDma,
    /// Give the groups of this device another `type`, with its driver unbound meanwhile where the
    /// kernel wants that: answered with [`Reply::GroupType`].
    SetGroupType {
        /// The device under test.
        device: Device,
        /// The type, in the kernel's words: `DMA`, `DMA-FQ`, `identity`.
        kind: String,
    },
    /// The plain files below this directory: answered with [`Reply::Files`].
    ListFiles(String),
    /// A piece of a file, at most [`MAX_PIECE`] bytes: answered with [`Reply::Piece`].
    ReadFile {
        /// Its absolute path.
        path: String,
        /// Where the piece begins, in bytes.
        offset: u64,
    },
    /// Power the guest off: answered with [`Reply::Bye`], then the guest is gone.
    PowerOff,
}

/// What the lines of a program that go to the console begin with, to tell them from the kernel's.
pub const ECHO: &str = "> ";

/// Most bytes of a file in one [`Reply::Piece`].
pub const MAX_PIECE: usize = 256 << 10;

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// Sent once, unasked, when the agent is up.
    Hello(Hello),
    /// To [`Request::Describe`].
    Environment(Box<Environment>),
    /// To [`Request::Run`].
    Report(Box<Report>),
    /// To [`Request::ReadLog`].
    Log(Log),
    /// To [`Request::CountDma`] and [`Request::ReadDma`]; `None` where the kernel has no tracepoint to count by.
    DmaCounts(Option<DmaCounts>),
    /// To [`Request::SetGroupType`]: done, and read back.
    GroupType {
        /// Whether the driver had to be unbound for it.
        rebound: bool,
    },
    /// To [`Request::ListFiles`]: paths below the directory, in order.
    Files(Vec<String>),
    /// To [`Request::ReadFile`]; empty at the file's end.
    Piece(Vec<u8>),
    /// To [`Request::PowerOff`].
    Bye,
    /// To [`Request::Describe`]: the kernel has not made the devices usable in time.
    NotInTime {
        /// What is missing and what is there instead, for a person.
        what: String,
        /// How long it was waited for, in milliseconds.
        after_ms: u64,
    },
    /// The request could not be done.
    Failed {
        /// What failed and why, for a person.
        what: String,
    },
}

/// The agent's first words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the agent, from its package.
    pub agent: String,
    /// `uname -r`.
    pub release: String,
    /// Time since the guest's boot, in microseconds, by `CLOCK_BOOTTIME`.
    pub uptime_us: u64,
    /// Modules in the order in which they were loaded, each with its error if it had one.
    pub modules: Vec<(String, Option<String>)>,
}

/// A device under test, as the guest's kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Device {
    /// One NVMe namespace.
    Nvme,
    /// One virtio-blk disk.
    VirtioBlk,
    /// Two e1000e network interfaces.
    E1000e,
    /// Two virtio-net network interfaces.
    VirtioNet,
}

/// The guest's own view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// `/proc/cmdline`.
    pub cmdline: String,
    /// `/proc/version`.
    pub version: String,
    /// CPUs online.
    pub cpus: u32,
    /// `MemTotal`, in KiB.
    pub memory_kib: u64,
    /// By name below `/sys/class/iommu`.
    pub iommus: BTreeMap<String, IommuRegisters>,
    /// `/sys/kernel/iommu_groups`, by number.
    pub groups: Vec<IommuGroup>,
    /// PCI functions that are the device under test, in bus order.
    pub targets: Vec<Target>,
}

/// Registers that the kernel's driver exports, in hexadecimal as it prints them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IommuRegisters {
    /// The file `cap` of the driver's directory.
    pub cap: Option<String>,
    /// The file `ecap` of the same directory.
    pub ecap: Option<String>,
}

/// One IOMMU group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IommuGroup {
    /// Its number.
    pub number: u32,
    /// Its `type` (`DMA`, `DMA-FQ`, `identity`, ...); `None` where the kernel does not tell.
    pub kind: Option<String>,
    /// PCI addresses in it, such as `0000:00:03.0`.
    pub devices: Vec<String>,
}

/// One PCI function under test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// PCI address, such as `0000:00:03.0`.
    pub address: String,
    /// Name of the bound driver.
    pub driver: Option<String>,
    /// Number of its IOMMU group; `None` where it stands behind no IOMMU.
    pub group: Option<u32>,
    /// The block device (`nvme0n1`) or network interface (`eth0`) it gives.
    pub node: Option<String>,
}

/// Work to be done, bounded by count and the same each time for the same seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Job {
    /// Nothing: boot only.
    Idle,
    /// Reads and writes on the block device under test.
    Block(BlockJob),
    /// Frames from one network interface under test to the other.
    Net(NetJob),
    /// A program that was added to the guest with `--add`.
    Exec(ExecJob),
}

impl Job {
    /// The device under test that the job needs; `None` if it works without one.
    #[must_use]
    pub fn device(&self) -> Option<Device> {
        match self {
            Self::Block(job) => Some(job.device),
            Self::Net(job) => Some(job.device),
            Self::Idle | Self::Exec(_) => None,
        }
    }
}

/// `O_DIRECT` reads and writes, each block carrying its address and generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockJob {
    /// The block device under test.
    pub device: Device,
    /// Size of one request, in bytes: a multiple of 4096, at most 1 MiB.
    pub block_size: u32,
    /// Requests in flight, per thread.
    pub queue_depth: u32,
    /// Requests in all, shared out over the threads.
    pub ops: u64,
    /// Share of reads, in percent; the rest are writes.
    pub read_percent: u8,
    /// Number of threads. Each uses its own part of the disk.
    pub threads: u32,
    /// Bytes of the disk to use; 0 for the whole disk.
    pub span: u64,
    /// Random seed of the order and contents of blocks.
    pub seed: u64,
    /// Whether the disk came with nobody knows what, and not with zeros.
    pub used: bool,
    /// Time that the guest is left alone after the last request, in milliseconds: what the kernel
    /// puts off belongs to the window too.
    pub linger_ms: u32,
}

/// Frames with verified contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetJob {
    /// The pair of network interfaces under test.
    pub device: Device,
    /// Size of a frame from destination address to payload's end, in bytes: 64 to 1514.
    pub frame_size: u32,
    /// Frames to send, half in each direction.
    pub frames: u64,
    /// Frames in flight before the sender waits for the receiver.
    pub window: u32,
    /// Random seed of the contents.
    pub seed: u64,
}

/// A program of the user's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecJob {
    /// Path of the program in the guest, and its arguments.
    pub argv: Vec<String>,
    /// Whether each line that it says also goes to the console, as it comes, after [`ECHO`].
    pub echo: bool,
}

/// How a job was carried out underneath.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interface {
    /// `io_uring`.
    IoUring,
    /// Linux AIO (`io_submit`).
    Aio,
    /// `pread` and `pwrite`, one request at a time.
    Sync,
    /// `AF_PACKET` sockets.
    Packet,
    /// A child process.
    Process,
    /// Nothing was done.
    None,
}

/// What one run of a job did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What it was done through.
    pub interface: Interface,
    /// Operations that were done whole.
    pub ops: u64,
    /// Of them, reads (block) or frames received (net).
    pub reads: u64,
    /// Of them, writes (block) or frames sent (net).
    pub writes: u64,
    /// Bytes that those operations moved.
    pub bytes: u64,
    /// Operations that the kernel refused or that came back short.
    pub errors: u64,
    /// Frames that were sent and never arrived.
    pub lost: u64,
    /// Time from first submission to last completion, in nanoseconds, verification included.
    pub elapsed_ns: u64,
    /// Latency of operations.
    pub latency: Option<Latency>,
    /// The first few errors and integrity failures; each names where.
    pub problems: Vec<Problem>,
    /// How many integrity failures there were in all.
    pub corrupt: u64,
    /// Metrics that an [`ExecJob`] printed.
    pub metrics: Vec<Metric>,
    /// How an [`ExecJob`] ended.
    pub exit: Option<Exit>,
    /// The end of an [`ExecJob`]'s output, at most 64 KiB.
    pub output: Option<String>,
}

/// Something that went wrong with one operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Whether data was wrong, rather than an operation refused.
    pub corrupt: bool,
    /// What and where, for a person.
    pub what: String,
}

/// Percentiles from a histogram with three significant digits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Operations counted.
    pub count: u64,
    /// Smallest, in nanoseconds.
    pub min_ns: u64,
    /// Largest, in nanoseconds.
    pub max_ns: u64,
    /// Mean, in nanoseconds.
    pub mean_ns: f64,
    /// Median, in nanoseconds.
    pub p50_ns: u64,
    /// 90th percentile, in nanoseconds.
    pub p90_ns: u64,
    /// 99th percentile, in nanoseconds.
    pub p99_ns: u64,
    /// 99.9th percentile, in nanoseconds.
    pub p999_ns: u64,
}

/// One `name value unit` line of a program's output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Its value, finite.
    pub value: f64,
    /// Its unit, as printed.
    pub unit: String,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// Its end could not be learned.
    Unknown,
}

/// A piece of the kernel log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Records in order.
    pub records: Vec<LogRecord>,
    /// Records that were overwritten before they could be read.
    pub lost: u64,
    /// Whether more is to be read: the log is sent in pieces.
    pub more: bool,
}

/// One record of `/dev/kmsg`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Severity, 0 (emergency) to 7 (debug).
    pub level: u8,
    /// Sequence number.
    pub seq: u64,
    /// Time since boot, in microseconds.
    pub time_us: u64,
    /// Text, without the trailing newline, escapes of the kernel undone.
    pub text: String,
}

/// Operations on the IOMMU that the kernel counted for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DmaCounts {
    /// Events by tracepoint (`iommu:map`, ...).
    pub events: BTreeMap<String, u64>,
}
