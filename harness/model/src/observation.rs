//! What was seen of one cell, each thing with its source, and no opinion on any of it.

use std::collections::BTreeMap;

use dmarig_viommu::mode::Registers;
use dmarig_wire::{DmaCounts, Environment, LogRecord, Report};
use serde::{Deserialize, Serialize};

use crate::{
    axes::{Accelerator, Axes},
    coherence::Coherence,
    kernel::KernelBuild,
    metrics::CONTROL_PREFIX,
    probe::{AttackOutcome, ProbeCounts},
    text::{shown, shown_end},
};

/// Version of the [`Observation`]'s layout.
pub const OBSERVATION_SCHEMA: u32 = 1;

/// Everything that was seen of one cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// [`OBSERVATION_SCHEMA`] of the writer.
    pub schema: u32,
    /// The cell's id.
    pub cell: String,
    /// The case that it is a cell of.
    pub case: String,
    /// What was asked for.
    pub axes: Axes,
    /// How the rig's part ended.
    pub end: End,
    /// What the guest ran on.
    pub setup: Setup,
    /// Words of the agent's greeting: `uname -r` and modules that did not load.
    pub release: Option<String>,
    /// Modules that failed to load, with the kernel's reason.
    pub module_errors: BTreeMap<String, String>,
    /// The guest's view of itself (source: agent), before the workload.
    pub guest: Option<Environment>,
    /// The same after the workload.
    pub guest_after: Option<Environment>,
    /// QEMU's view of the virtual IOMMU (source: QMP `qom-get`), by property name.
    pub qom: BTreeMap<String, serde_json::Value>,
    /// The registers, read from the hypervisor's side (source: HMP `xp`).
    pub registers: Option<Registers>,
    /// The kernel log.
    pub log: KernelLog,
    /// The end of what QEMU said on its standard error.
    #[serde(default)]
    pub qemu_stderr: String,
    /// QMP events other than those of ordinary operation, in order.
    pub events: Vec<QmpEvent>,
    /// What the workload did, window by window.
    pub windows: Vec<Window>,
    /// What became of DMA that must fault, after the windows.
    #[serde(default)]
    pub attacks: Vec<Attacked>,
    /// Wall-clock time of each phase, in order.
    pub phases: Vec<Phase>,
    /// The guest around this one, whose kernel passed the device through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer: Option<Box<Outer>>,
}

/// What was seen of an outer guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outer {
    /// Its settings.
    pub axes: Axes,
    /// What it ran on.
    pub setup: Setup,
    /// Its `uname -r`.
    pub release: Option<String>,
    /// Its kernel log.
    pub log: KernelLog,
    /// The end of what the dmarig in it said.
    pub output: String,
    /// Wall-clock time of its phases; the inner guest ran within its workload.
    pub phases: Vec<Phase>,
}

/// How the rig's part of a cell ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "how")]
pub enum End {
    /// All that was planned was done.
    Completed,
    /// It was not started.
    Skipped {
        /// Reason.
        reason: String,
    },
    /// The guest's kernel panicked (source: QMP event or console).
    Panicked {
        /// The panic's line.
        message: String,
    },
    /// The guest reset or shut itself down when it should not have (source: QMP event).
    WentDown {
        /// QEMU's word for it, such as `guest-reset`.
        reason: String,
    },
    /// Something did not come in time.
    TimedOut {
        /// What was waited for.
        waiting_for: String,
        /// The deadline, in milliseconds.
        after_ms: u64,
        /// What had been seen last: the console's end, escaped.
        last: String,
    },
    /// QEMU ended by itself.
    QemuDied {
        /// Its exit status.
        status: String,
        /// The end of its standard error, escaped.
        stderr: String,
    },
    /// The agent refused or failed a request.
    AgentFailed {
        /// What it said, escaped.
        what: String,
    },
    /// The agent's channel carried something that is no message.
    ChannelBroken {
        /// What was wrong with it.
        what: String,
    },
    /// Something on the host went wrong.
    HostFault {
        /// What, where, and what to do.
        what: String,
    },
    /// The user stopped it.
    Interrupted,
}

impl End {
    /// It in words, for a person; what came from a guest is escaped.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::Completed => "completed".to_owned(),
            Self::Skipped { reason } => shown(reason),
            Self::Panicked { message } => {
                format!("the guest's kernel panicked: {}", shown(message))
            }
            Self::WentDown { reason } => {
                format!("the guest went down by itself ({})", shown(reason))
            }
            Self::TimedOut { waiting_for, after_ms, last } => format!(
                "no {} after {}.{:03} s; last seen: {}",
                shown(waiting_for),
                after_ms / 1000,
                after_ms % 1000,
                shown_end(last)
            ),
            Self::QemuDied { status, stderr } => {
                format!("QEMU ended by itself ({}): {}", shown(status), shown_end(stderr))
            }
            Self::AgentFailed { what } => format!("the agent failed: {}", shown(what)),
            Self::ChannelBroken { what } => format!("the agent's channel broke: {}", shown(what)),
            Self::HostFault { what } => shown(what),
            Self::Interrupted => "interrupted".to_owned(),
        }
    }
}

/// What a guest ran on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// QEMU's version, as it says itself.
    pub qemu_version: String,
    /// The QEMU binary.
    pub qemu_path: String,
    /// SHA-256 of that binary; empty where it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub qemu_sha256: String,
    /// The accelerator that was used.
    pub accelerator: Accelerator,
    /// QEMU's arguments, the binary first.
    pub argv: Vec<String>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Words of the command line that make the boot faster and change nothing under test.
    pub boot_levers: Vec<String>,
    /// How the kernel is entered: `pvh` or `bzimage`.
    pub boot: String,
    /// The kernel image that was booted.
    pub kernel_image: String,
    /// SHA-256 of that image.
    pub kernel_sha256: String,
    /// Packages that the kernel came from, each `name version sha256`.
    pub packages: Vec<String>,
    /// What the kernel was built from.
    #[serde(default)]
    pub build: KernelBuild,
    /// SHA-256 of the initramfs.
    pub initramfs_sha256: String,
    /// Modules in it, in load order.
    pub modules: Vec<String>,
}

/// The kernel log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelLog {
    /// Where it was read.
    pub source: LogSource,
    /// Records in order. From a console, level is 255 (unknown) and `seq` the line's number.
    pub records: Vec<LogRecord>,
    /// Records that were overwritten before they could be read.
    pub lost: u64,
}

/// Where a kernel log was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogSource {
    /// Nowhere.
    #[default]
    None,
    /// `/dev/kmsg`, by the agent.
    Kmsg,
    /// The console, as it was when the guest ended.
    Console,
}

/// One QMP event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QmpEvent {
    /// Its name, such as `GUEST_PANICKED`.
    pub name: String,
    /// Its data.
    pub data: serde_json::Value,
    /// Time since the guest's start, in milliseconds.
    pub at_ms: u64,
}

/// What a window is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WindowKind {
    /// The hypervisor's trace is on; its times mean nothing.
    Counting,
    /// The trace is off, and a clock runs.
    Timing,
    /// As timing, thrown away.
    WarmUp,
}

/// A window that is planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedWindow {
    /// What it is for.
    pub kind: WindowKind,
    /// The type that the groups of the device are given first; `None` for what they booted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_type: Option<String>,
}

/// One run of the workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// What it is for.
    pub kind: WindowKind,
    /// The type that the groups of the device had been given for it, where they had.
    #[serde(default)]
    pub group_type: Option<String>,
    /// What the agent says of it.
    pub report: Report,
    /// What the hypervisor saw meanwhile (source: trace events); none in a timing window.
    pub trace: Option<TraceCounts>,
    /// What the guest's kernel counted meanwhile (source: tracepoints); none in a timing window.
    pub dma: Option<DmaCounts>,
    /// How much of `dma` happened while the trace was switched on and off, event by event, so that
    /// nobody can say whether it is in `trace` too: a driver's own work, which waits for no workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dma_at_edges: Option<DmaCounts>,
    /// What the probe saw meanwhile; none in a cell without one, or in a window for warming up.
    #[serde(default)]
    pub probe: Option<ProbeCounts>,
    /// The device's mappings beside the guest's page tables, right after it (source: probe, and the
    /// guest's debugfs); none in a cell without a probe, or where no tables are shadowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coherence: Vec<Coherence>,
}

impl Window {
    /// A window of which the workload's report alone is known.
    #[must_use]
    pub const fn new(kind: WindowKind, group_type: Option<String>, report: Report) -> Self {
        Self {
            kind,
            group_type,
            report,
            trace: None,
            dma: None,
            dma_at_edges: None,
            probe: None,
            coherence: Vec::new(),
        }
    }
}

/// What became of DMA that must fault, from three sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attacked {
    /// The device's (source: probe).
    pub outcome: AttackOutcome,
    /// Faults that the hypervisor reported meanwhile (source: trace events).
    pub hypervisor_faults: u64,
    /// Faults that the guest's kernel logged meanwhile (source: kernel log).
    pub guest_faults: u64,
}

/// Trace events of the hypervisor, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceCounts {
    /// Page-selective IOTLB invalidations, PASID-based ones included.
    pub psi: u64,
    /// Of them, those that came first for their range since it was last invalidated: with caching
    /// mode on a range is invalidated when it is mapped and again when it is unmapped.
    pub psi_opening: u64,
    /// Of them, the others: they close a range that an earlier one opened.
    pub psi_closing: u64,
    /// Of them, those that came when more ranges were open than are kept track of.
    pub psi_unattributed: u64,
    /// Of those that opened a range, how many were the first of the window for theirs.
    #[serde(default)]
    pub psi_new: u64,
    /// Most ranges that were open at once.
    #[serde(default)]
    pub psi_open_at_most: u64,
    /// Domain-selective IOTLB invalidations, PASID-selective ones included.
    pub dsi: u64,
    /// Global IOTLB invalidations.
    pub global: u64,
    /// Wait descriptors.
    pub wait: u64,
    /// Device-IOTLB invalidations.
    pub device_iotlb: u64,
    /// Leaf entries that a walk of a shadowed page table visited.
    pub page_walk_entries: u64,
    /// Of them, entries that had not changed.
    pub page_walk_in_vain: u64,
    /// Walks, by table level.
    pub page_walk_levels: u64,
    /// Whole address spaces that were unmapped.
    pub unmap_whole: u64,
    /// DMA faults.
    pub faults: u64,
    /// The first few faults' lines.
    pub fault_lines: Vec<String>,
    /// Lines that are none of the events asked for.
    pub unknown: u64,
    /// Lines in all.
    pub lines: u64,
}

/// A stretch of wall-clock time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name: plan, spawn, firmware, kernel, agent, workload, collect, teardown.
    pub name: String,
    /// How long it took, in microseconds.
    pub us: u64,
}

/// How a cell ended, as its user is told.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All that was expected was seen.
    Passed,
    /// Something was seen that must not be, or not seen that must.
    Failed,
    /// Not run, for a reason.
    Skipped,
    /// The guest did not come to an end in time.
    TimedOut,
    /// The rig's fault or the host's; nothing is said of the kernel.
    Errored,
}

impl Outcome {
    /// The word in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::TimedOut => "timed out",
            Self::Errored => "errored",
        }
    }
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked, such as `warning` or `psi-per-unmap`.
    pub name: String,
    /// The rule that asked for it.
    pub rule: String,
    /// What was expected, for a person.
    pub expected: String,
    /// What was found, for a person.
    pub found: String,
    /// Whether it held; `None` where it could not be judged.
    pub held: Option<bool>,
    /// Lines that show it: of the kernel log, or counts.
    pub evidence: Vec<String>,
}

/// The judgement of one cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How it ended.
    pub outcome: Outcome,
    /// Why, for a person; empty where it passed.
    pub reasons: Vec<String>,
    /// Each thing that was checked.
    pub checks: Vec<Check>,
}

impl Verdict {
    /// Adds a check that compares the cell with another of its run. It can turn a passed cell into
    /// a failed one, or into an error where it is of the control: a control that does not show what
    /// it is there for says nothing of the kernel.
    pub fn add(&mut self, check: Check) {
        if check.held == Some(false) {
            if self.outcome == Outcome::Passed {
                let of_control = check.name.starts_with(CONTROL_PREFIX);
                self.outcome = if of_control { Outcome::Errored } else { Outcome::Failed };
            }
            let Check { name, found, expected, .. } = &check;
            self.reasons.push(format!("{name}: {found}, expected {expected}"));
        }
        self.checks.push(check);
    }
}

impl Observation {
    /// An observation of a cell of which nothing has been seen yet.
    #[must_use]
    pub fn unseen(cell: &str, case: &str, axes: &Axes, setup: Setup, end: End) -> Self {
        Self {
            schema: OBSERVATION_SCHEMA,
            cell: cell.to_owned(),
            case: case.to_owned(),
            axes: axes.clone(),
            end,
            setup,
            release: None,
            module_errors: BTreeMap::new(),
            guest: None,
            guest_after: None,
            qom: BTreeMap::new(),
            registers: None,
            log: KernelLog::default(),
            qemu_stderr: String::new(),
            events: Vec::new(),
            windows: Vec::new(),
            attacks: Vec::new(),
            phases: Vec::new(),
            outer: None,
        }
    }

    /// The observation of a nested cell: what the dmarig in the outer guest saw of the inner one,
    /// with what was seen of the outer one.
    #[must_use]
    pub fn nested(inner: Self, cell: &str, axes: &Axes, outer: Self) -> Self {
        let total = |phases: &[Phase]| phases.iter().map(|phase| phase.us).sum::<u64>();
        // Their sum stays the time that the cell took.
        let around = total(&outer.phases).saturating_sub(total(&inner.phases));
        let mut phases = vec![Phase { name: "outer guest".to_owned(), us: around }];
        phases.extend(inner.phases);
        let output = outer.windows.into_iter().filter_map(|window| window.report.output);
        Self {
            cell: cell.to_owned(),
            axes: axes.clone(),
            phases,
            outer: Some(Box::new(Outer {
                axes: outer.axes,
                setup: outer.setup,
                release: outer.release,
                log: outer.log,
                output: output.collect(),
                phases: outer.phases,
            })),
            ..inner
        }
    }
}

impl Setup {
    /// What is known of the setup of a cell that was never planned.
    #[must_use]
    pub fn unplanned(axes: &Axes) -> Self {
        Self {
            qemu_version: String::new(),
            qemu_path: axes.qemu.clone(),
            qemu_sha256: String::new(),
            accelerator: axes.accelerator,
            argv: Vec::new(),
            cmdline: String::new(),
            boot_levers: Vec::new(),
            boot: String::new(),
            kernel_image: axes.kernel.clone(),
            kernel_sha256: String::new(),
            packages: Vec::new(),
            build: KernelBuild::default(),
            initramfs_sha256: String::new(),
            modules: Vec::new(),
        }
    }
}
