//! The probe: a software NVMe controller that is passed through to the guest over vfio-user. What
//! it is told, and what it tells: one JSON document a line on its standard input and output.

use std::collections::BTreeMap;

use dmarig_viommu::tables::PAGE_BYTES;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    coherence::{Coherence, Mapping},
    disk::DISK_BYTES,
    value::Limit,
};

/// How a probe behaves; set before the guest starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Size of the namespace, in bytes.
    pub disk_bytes: u64,
    /// Most pairs of I/O queues that the driver gets.
    pub queues: u16,
    /// Most entries of an I/O queue, so one more than commands that the driver has under way there.
    /// With few, command identifiers come again soon, and only that proves a buffer stale: a batched
    /// unmapping takes some 10 ms, and a driver uses all identifiers before it uses one again.
    pub entries: u16,
    /// MSI-X vectors.
    pub vectors: u16,
    /// Least time between a command's arrival and its completion, in microseconds.
    pub latency_us: u64,
    /// Completions of I/O commands are held back until there are as many; they all go when nothing
    /// else is under way. 0 for none.
    pub hold_back: u32,
    /// Size of the host memory buffer that the controller asks for, in bytes; 0 for none.
    pub host_memory_bytes: u64,
    /// Whether the buffers of finished requests are followed until their mappings are gone.
    pub follow: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            disk_bytes: DISK_BYTES,
            queues: 4,
            // As many as a Linux driver wants by default.
            entries: 1024,
            vectors: 5,
            latency_us: 0,
            hold_back: 0,
            host_memory_bytes: 0,
            follow: true,
        }
    }
}

/// Behaviour of the probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Knobs {
    /// Least time between the arrival of a command and its completion. With a latency, the queue depth
    /// determines the number of live mappings.
    pub latency: Option<Limit>,
    /// Number of completions that the probe collects before it sends them. It sends all of them when no
    /// other request is in flight.
    #[schemars(range(max = 1024))]
    pub hold_back: u32,
    /// Pairs of I/O queues [default: 4].
    #[schemars(range(min = 1, max = 64))]
    pub queues: Option<u16>,
    /// Entries of an I/O queue, one more than its requests in flight [default: 16]. With few entries,
    /// identifiers are reused soon, which proves that the previous request was completed.
    #[schemars(range(min = 2, max = 1024))]
    pub queue_entries: Option<u16>,
    /// MSI-X vectors [default: one more than queues].
    #[schemars(range(min = 1, max = 65))]
    pub vectors: Option<u16>,
    /// DMA that must fault, attempted after the workload.
    pub attacks: Vec<Attack>,
}

/// Entries of a queue where a case does not say.
const USUAL_ENTRIES: u16 = 16;

/// Most entries of a queue that a case can ask for.
pub(crate) const MAX_ENTRIES: u16 = 1024;

/// Most pairs of I/O queues that a case can ask for.
pub(crate) const MAX_QUEUES: u16 = 64;

impl Knobs {
    /// The settings of a probe whose driver is made to keep `live_mappings` pages mapped.
    #[must_use]
    pub fn settings(&self, live_mappings: u32) -> Settings {
        let usual = Settings::default();
        let queues = self.queues.unwrap_or(usual.queues);
        Settings {
            queues,
            entries: self.queue_entries.unwrap_or(USUAL_ENTRIES),
            vectors: self.vectors.unwrap_or(queues + 1),
            latency_us: self
                .latency
                .map_or(0, |limit| u64::try_from(limit.0.as_micros()).unwrap_or(u64::MAX)),
            hold_back: self.hold_back,
            host_memory_bytes: u64::from(live_mappings) * PAGE_BYTES,
            ..usual
        }
    }
}

/// What a probe is asked, a line each. Each is answered by one [`Reply`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do", deny_unknown_fields)]
pub enum Request {
    /// Begin to count from zero.
    Begin,
    /// Say what was counted since [`Request::Begin`].
    End,
    /// Say what is mapped now.
    Shadow,
    /// Compare what is mapped with the guest's own page tables, in its memory.
    Compare {
        /// The root table, as the virtual IOMMU's register holds it (`RTADDR_REG`).
        root: u64,
        /// The device's bus number in the guest.
        bus: u8,
        /// Its device and function numbers.
        devfn: u8,
    },
    /// Do DMA that must fault. Only with a controller that the guest has enabled.
    Attack {
        /// Which one.
        kind: Attack,
    },
    /// End.
    Quit,
}

/// DMA that must fault.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// A read of an address that was never mapped.
    Unmapped,
    /// A write to a buffer that is mapped read-only.
    ReadOnly,
    /// A read that starts inside a mapping and continues past its end.
    PastTheEnd,
    /// A read of a buffer whose request was completed and whose mapping was removed.
    AfterUnmap,
}

impl Attack {
    /// Its name in cases and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unmapped => "unmapped",
            Self::ReadOnly => "read-only",
            Self::PastTheEnd => "past-the-end",
            Self::AfterUnmap => "after-unmap",
        }
    }
}

/// What a probe says, a line each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is", deny_unknown_fields)]
pub enum Reply {
    /// The first line: the socket is there.
    Listening,
    /// Counting has begun.
    Begun,
    /// What was counted.
    Counted {
        /// It.
        counts: Box<ProbeCounts>,
    },
    /// What is mapped, in order of address; neighbours are not merged.
    Shadow {
        /// The mappings.
        mappings: Vec<Mapping>,
    },
    /// What a comparison found.
    Compared {
        /// The tables, or why there is nothing to compare.
        tables: Tables,
        /// It; `None` where the device's addresses are not translated by tables that its mappings
        /// follow.
        coherence: Option<Coherence>,
    },
    /// What became of an attack.
    Attacked {
        /// It.
        outcome: AttackOutcome,
    },
    /// The request could not be done.
    Failed {
        /// Reason.
        what: String,
    },
    /// The client is gone, or was given up. This answers nothing: it comes when it happens.
    Lost {
        /// What was seen of it.
        what: String,
    },
    /// The last line of a probe that was asked to quit.
    Bye,
}

/// How a guest translates a device's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tables {
    /// By second-stage tables.
    SecondStage,
    /// By first-stage tables, which no hypervisor shadows.
    FirstStage,
    /// Not at all.
    PassThrough,
}

/// What became of DMA that must fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttackOutcome {
    /// Which one.
    pub kind: Attack,
    /// The address; `None` where there was no mapping of the kind that it needs.
    pub iova: Option<u64>,
    /// Bytes that it tried for.
    pub size: u64,
    /// Whether the probe's shadow of the mappings let it through (a physical device's IOMMU would).
    pub shadow_let_through: bool,
    /// What the hypervisor's virtual IOMMU did with it: `None` where it could not be asked,
    /// otherwise whether it let it through.
    pub hypervisor_let_through: Option<bool>,
}

/// What a probe saw of mappings and commands between two points in time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeCounts {
    /// Mappings made.
    pub maps: u64,
    /// Mappings taken away.
    pub unmaps: u64,
    /// Bytes of them.
    pub mapped_bytes: u64,
    /// Bytes of them.
    pub unmapped_bytes: u64,
    /// Ranges to be unmapped in which nothing was mapped.
    pub unmaps_in_vain: u64,
    /// Live mappings at the beginning.
    pub live_before: u64,
    /// Live mappings at the end.
    pub live_after: u64,
    /// Most live mappings at any time.
    pub peak: u64,
    /// Live mappings, averaged over time.
    pub mean_live: f64,
    /// Length of the window, in nanoseconds.
    pub elapsed_ns: u64,
    /// Time spent on mappings and unmappings in the shadow, in nanoseconds.
    pub shadow_ns: u64,
    /// Messages of the client, whatever they were.
    pub messages: u64,
    /// Time spent on taking messages from the socket, and on understanding and answering mappings and
    /// unmappings, in nanoseconds; `shadow_ns` is not in it.
    pub socket_ns: u64,
    /// Time spent on commands, from looking for them to completing them, in nanoseconds.
    pub command_ns: u64,
    /// How often the socket's thread slept for want of anything to do.
    pub sleeps: u64,
    /// I/O commands by name: read, write, flush, write-zeroes, dataset-management.
    pub commands: BTreeMap<String, u64>,
    /// Statuses other than success, by `type/code` in hexadecimal.
    pub failed: BTreeMap<String, u64>,
    /// Bytes written to memory of the guest for its commands.
    pub to_guest_bytes: u64,
    /// Bytes read from memory of the guest for its commands.
    pub from_guest_bytes: u64,
    /// Sectors that arrived with a stamp of the workload's and contents that do not fit it.
    pub corrupt: u64,
    /// The first few of them, each in a line.
    pub corrupt_lines: Vec<String>,
    /// Accesses for commands that a mapping did not allow.
    pub faults: u64,
    /// The first few of them, each in a line.
    pub fault_lines: Vec<String>,
    /// Commands whose data is read alone, in mappings made for them that may be written as well.
    pub exposed: u64,
    /// The first few of them, each in a line.
    pub exposed_lines: Vec<String>,
    /// What became of the buffers of finished requests; `None` where they were not followed.
    pub stale: Option<Stale>,
}

/// How long buffers stayed within reach of the device after their request was finished.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stale {
    /// Requests that were followed.
    pub requests: u64,
    /// Of them, those of which a buffer was still mapped when the kernel had certainly given the
    /// request back, because it used its identifier again.
    pub stale: u64,
    /// Of those, the ones whose memory could still be read at that moment.
    pub reachable: u64,
    /// Of those followed, the ones that were still mapped at the end.
    pub never: u64,
    /// The first few of those, each in a line.
    pub never_lines: Vec<String>,
    /// Time from a request's completion until the last of its mappings was gone, in nanoseconds:
    /// median, 99th percentile and longest. `None` where none went.
    pub ns: Option<Spread>,
    /// The same time in requests that were submitted meanwhile.
    pub later_requests: Option<Spread>,
    /// Most bytes of finished requests that were mapped at one time.
    pub most_bytes: u64,
}

/// A distribution in short.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Greatest.
    pub max: u64,
}
