//! Case files: what to run, over which axes, and what to expect of it.

use std::{collections::BTreeMap, fmt, time::Duration};

use dmarig_wire::{BlockJob, ExecJob, Job, NetJob};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    axes::{Axes, Device, Passthrough},
    conditions::{AxisSets, When},
    expect::{Rule, standard},
    limit::{HistoryLimit, Limit},
    log::LogKind,
    mistake::{Mistake, path_text},
    observation::PlannedWindow,
    pattern::Pattern,
    probe::Knobs,
    text::shown,
    value::{Limit as TimeLimit, Size},
    version::Version,
    windows::Windows,
    yaml_de::read,
    yaml_tree::Part,
};

mod check;

/// The largest case file that is read, in bytes.
pub const MAX_CASE_BYTES: usize = 1 << 20;

/// A case: the domain's view of a [`CaseFile`] without mistakes.
#[derive(Debug, Clone)]
pub struct Case {
    /// The file that it was read from, for messages.
    pub file: String,
    /// The text that it was read from: what a run's record keeps, to judge it again.
    pub text: String,
    /// Its name, unique in a run.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Values of each axis.
    pub axes: AxisSets,
    /// Combinations that are left out.
    pub exclude: Vec<Exclude>,
    /// Work of each guest.
    pub workload: Workload,
    /// How often, and in what kind of window.
    pub windows: Windows,
    /// Whether its cells want the machine for themselves.
    pub quiet: bool,
    /// Deadlines, where they are not the usual ones.
    pub time_limits: TimeLimits,
    /// How its probes behave.
    pub probe: Knobs,
    /// Whether the standard expectations apply.
    pub standard: bool,
    /// Its own expectations, which go before the standard ones.
    pub expect: Vec<Rule>,
    /// How much worse than a baseline's its metrics may be.
    pub limits: Vec<Limit>,
    /// How much worse than in earlier runs its metrics may be.
    pub history: Vec<HistoryLimit>,
    /// Findings in the kernel log that are acceptable in this case.
    pub allow: Vec<Allow>,
}

/// A case file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CaseFile {
    /// Name of the case: letters, digits, dots and dashes, unique among the cases of a run.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    case: String,
    /// Purpose of the case.
    #[serde(default)]
    description: String,
    /// Values of each axis. An axis that is left out has its default.
    #[serde(default)]
    axes: AxisSets,
    /// Combinations of axis values that do not run.
    #[serde(default)]
    exclude: Vec<Exclude>,
    /// Work of each guest.
    workload: WorkloadFile,
    /// Windows in which the workload runs.
    #[serde(default)]
    windows: Windows,
    /// Whether no other guest may run at the same time, because the case measures time.
    #[serde(default)]
    quiet: bool,
    /// Deadlines under KVM. They are longer under TCG.
    #[serde(default)]
    time_limits: TimeLimits,
    /// Behaviour of the probe, for cells with `passthrough: probe`.
    #[serde(default)]
    probe: Knobs,
    /// Whether the standard expectations apply.
    #[serde(default = "yes")]
    standard: bool,
    /// Expectations. If several that apply to a cell set the same check, the last one wins. The
    /// standard expectations come first.
    #[serde(default)]
    expect: Vec<Rule>,
    /// Limits in comparison with a baseline kernel (`--baseline`). Both kernels run in pairs until each
    /// limit is decided.
    #[serde(default)]
    limits: Vec<Limit>,
    /// Limits in comparison with earlier runs of the history. A metric that is compared with a baseline
    /// in the same run is judged by the baseline instead.
    #[serde(default)]
    history: Vec<HistoryLimit>,
    /// Findings in the kernel log that are acceptable in this case.
    #[serde(default)]
    allow: Vec<Allow>,
}

/// Combinations of axis values that do not run.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exclude {
    /// The combinations.
    pub when: AxisSets,
    /// Reason.
    pub reason: String,
}

/// A workload: one of these keys, or `block` and `net` for cases with both kinds of devices.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct WorkloadFile {
    /// Reads and writes, for cells with a disk.
    block: Option<BlockWorkload>,
    /// Frames, for cells with a pair of network interfaces.
    net: Option<NetWorkload>,
    /// A program that was added to the guest with `--add`.
    exec: Option<ExecWorkload>,
    /// Boot only.
    idle: Option<IdleWorkload>,
}

/// What a guest does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workload {
    /// It boots.
    Idle,
    /// It runs a program.
    Exec(ExecWorkload),
    /// It does DMA, by the class of its device. At least one of the two is there.
    Dma {
        /// On disks.
        block: Option<BlockWorkload>,
        /// On network interfaces.
        net: Option<NetWorkload>,
    },
}

/// Only a boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdleWorkload {}

/// Reads and writes on a disk, without the page cache. Each block contains its address and generation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct BlockWorkload {
    /// Size of a request: a multiple of 4 KiB, at most 1 MiB.
    pub block_size: Size,
    /// Requests in flight per thread.
    #[schemars(range(min = 1, max = 1024))]
    pub queue_depth: u32,
    /// Total number of requests.
    #[schemars(range(min = 1))]
    pub ops: u64,
    /// Share of reads, in percent.
    #[schemars(range(min = 0, max = 100))]
    pub read_percent: u8,
    /// Number of threads. Each uses its own part of the disk.
    #[schemars(range(min = 1, max = 64))]
    pub threads: u32,
    /// Bytes of the disk to use; 0 for the whole disk.
    pub span: Size,
    /// Random seed of the order and contents of blocks.
    pub seed: u64,
    /// Idle time after the last request, at most a minute. Work that the kernel defers, such as the
    /// flush of a batch, then belongs to the window.
    pub linger: Option<TimeLimit>,
}

impl Default for BlockWorkload {
    fn default() -> Self {
        Self {
            block_size: Size(64 << 10),
            queue_depth: 4,
            ops: 400,
            read_percent: 50,
            threads: 1,
            span: Size(0),
            seed: 1,
            linger: None,
        }
    }
}

/// Frames between two network interfaces. Each frame is verified.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct NetWorkload {
    /// Size of a frame, in bytes, from the destination address to the end of the payload.
    #[schemars(range(min = 64, max = 1514))]
    pub frame_size: u32,
    /// Total number of frames, half in each direction.
    #[schemars(range(min = 1))]
    pub frames: u64,
    /// Frames in flight before the sender waits for the receiver.
    #[schemars(range(min = 1, max = 256))]
    pub window: u32,
    /// Random seed of the contents.
    pub seed: u64,
}

impl Default for NetWorkload {
    fn default() -> Self {
        Self { frame_size: 1514, frames: 400, window: 16, seed: 1 }
    }
}

/// A program that was added to the guest with `--add`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecWorkload {
    /// Path of the program in the guest, and its arguments.
    #[schemars(length(min = 1))]
    pub argv: Vec<String>,
}

/// Deadlines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeLimits {
    /// From the start of QEMU to the first message of the agent.
    boot: Option<TimeLimit>,
    /// One run of the workload.
    workload: Option<TimeLimit>,
}

impl TimeLimits {
    /// From the start of QEMU to the first message of the agent.
    #[must_use]
    pub fn boot(&self) -> Duration {
        self.boot.map_or(Duration::from_secs(60), |limit| limit.0)
    }

    /// One run of the workload.
    #[must_use]
    pub fn workload(&self) -> Duration {
        self.workload.map_or(Duration::from_secs(120), |limit| limit.0)
    }
}

/// A finding in the kernel log that is acceptable.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// Kind of the finding.
    pub kind: LogKind,
    /// Regular expression that the line must match. Without it, every line of that kind is acceptable.
    #[serde(default)]
    pub pattern: Option<Pattern>,
    /// Reason why it is acceptable.
    pub why: String,
}

const fn yes() -> bool {
    true
}

/// All that is wrong with case files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct CaseErrors(pub Vec<CaseError>);

impl fmt::Display for CaseErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong with a case file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseError {
    /// The file.
    pub file: String,
    /// Line, from 1; 0 where it is the file as a whole.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// Path of keys to the mistake, such as `axes.policy[1]`.
    pub path: String,
    /// What is wrong, and what would have been right.
    pub what: String,
}

impl fmt::Display for CaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", shown(&self.file))?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", shown(&self.path))?;
        }
        write!(f, ": {}", self.what)
    }
}

impl Case {
    /// The rules that apply to a guest. If several set the same check, the last one wins.
    #[must_use]
    pub fn applying_rules(
        &self,
        axes: &Axes,
        kernel: Option<Version>,
        qemu: Option<Version>,
    ) -> Vec<&Rule> {
        let standard: &[Rule] = if self.standard { standard() } else { &[] };
        let rules = standard.iter().chain(&self.expect);
        rules.filter(|rule| rule.when.holds(axes, kernel, qemu)).collect()
    }

    /// The windows of a cell, in their order. A guest that does nothing has none.
    #[must_use]
    pub fn planned_windows(&self, axes: &Axes, kernel: Option<Version>) -> Vec<PlannedWindow> {
        match self.workload {
            Workload::Idle => Vec::new(),
            _ => self.windows.planned(axes, kernel),
        }
    }

    /// Reads a case file. `file` is its name, for messages.
    ///
    /// # Errors
    /// All mistakes of the file together; only the first where it is no YAML at all.
    pub fn parse(file: &str, text: &str) -> Result<Self, CaseErrors> {
        let whole = |what| CaseErrors(vec![error_at(file, &Mistake::new(what), None)]);
        if text.len() > MAX_CASE_BYTES {
            let (len, most) = (Size(text.len() as u64), Size(MAX_CASE_BYTES as u64));
            return Err(whole(format!("the file has {len}; a case file has at most {most}")));
        }
        let root = Part::parse(text)
            .map_err(|mistake| CaseErrors(vec![error_at(file, &mistake, None)]))?;
        let (parsed, mut mistakes) = read::<CaseFile>(&root);
        if let Some(parsed) = &parsed {
            check::check(parsed, &mistakes.clone(), &mut mistakes);
        }
        match parsed {
            Some(parsed) if mistakes.is_empty() => Ok(Self::from_file(file, text, parsed)),
            _ => {
                let mut errors: Vec<CaseError> =
                    mistakes.iter().map(|mistake| error_at(file, mistake, Some(&root))).collect();
                errors.sort_by_key(|error| (error.line, error.column));
                Err(CaseErrors(errors))
            }
        }
    }

    fn from_file(file: &str, text: &str, parsed: CaseFile) -> Self {
        Self {
            file: file.to_owned(),
            text: text.to_owned(),
            name: parsed.case,
            description: parsed.description,
            axes: parsed.axes,
            exclude: parsed.exclude,
            workload: match parsed.workload {
                WorkloadFile { exec: Some(exec), .. } => Workload::Exec(exec),
                WorkloadFile { block: None, net: None, .. } => Workload::Idle,
                WorkloadFile { block, net, .. } => Workload::Dma { block, net },
            },
            windows: parsed.windows,
            quiet: parsed.quiet,
            time_limits: parsed.time_limits,
            probe: parsed.probe,
            standard: parsed.standard,
            expect: parsed.expect,
            limits: parsed.limits,
            history: parsed.history,
            allow: parsed.allow,
        }
    }

    /// What the agent is asked to do in a cell.
    #[must_use]
    pub fn job(&self, axes: &Axes) -> Job {
        let device = axes.device;
        match &self.workload {
            Workload::Idle => Job::Idle,
            Workload::Exec(exec) => Job::Exec(ExecJob { argv: exec.argv.clone(), echo: false }),
            Workload::Dma { net: Some(net), .. } if device.is_network() => Job::Net(NetJob {
                device: device.wire(),
                frame_size: net.frame_size,
                frames: net.frames,
                window: net.window,
                seed: net.seed,
            }),
            Workload::Dma { block: Some(block), .. } if !device.is_network() => {
                Job::Block(BlockJob {
                    device: device.wire(),
                    block_size: u32::try_from(block.block_size.0).unwrap_or(u32::MAX),
                    queue_depth: block.queue_depth,
                    ops: block.ops,
                    read_percent: block.read_percent,
                    threads: block.threads,
                    span: block.span.0,
                    seed: block.seed,
                    used: axes.passthrough == Passthrough::Host,
                    linger_ms: block.linger.map_or(0, |linger| {
                        u32::try_from(linger.0.as_millis()).unwrap_or(u32::MAX)
                    }),
                })
            }
            // An override can bring in a device that the case has no work for.
            Workload::Dma { .. } => Job::Idle,
        }
    }

    /// Whether the case has work for `device`.
    #[must_use]
    pub fn fits(&self, device: Device) -> bool {
        match &self.workload {
            Workload::Idle | Workload::Exec(_) => true,
            Workload::Dma { block, net } => {
                if device.is_network() {
                    net.is_some()
                } else {
                    block.is_some()
                }
            }
        }
    }

    /// Whether `axes` is left out, with the reason.
    #[must_use]
    pub fn excluded(&self, axes: &Axes) -> Option<&str> {
        self.exclude
            .iter()
            .find(|exclude| exclude.when.contains(axes))
            .map(|exclude| exclude.reason.as_str())
    }
}

fn error_at(file: &str, mistake: &Mistake, root: Option<&Part>) -> CaseError {
    let place = mistake.place.or_else(|| root.map(|root| root.locate(&mistake.path)));
    let place = place.unwrap_or_default();
    CaseError {
        file: file.to_owned(),
        line: place.line,
        column: place.column,
        path: path_text(&mistake.path),
        what: mistake.what.clone(),
    }
}

/// Checks that no two cases have the same name.
///
/// # Errors
/// One for each case whose name another one before it has.
pub fn check_names(cases: &[Case]) -> Result<(), CaseErrors> {
    let mut seen: BTreeMap<&str, &Case> = BTreeMap::new();
    let errors: Vec<CaseError> = cases
        .iter()
        .filter_map(|case| {
            let first = seen.insert(&case.name, case)?;
            seen.insert(&case.name, first);
            let what = format!("a case named `{}` stands in {} already", case.name, first.file);
            let mistake = Mistake::new(what).under(&[crate::mistake::Step::Key("case".to_owned())]);
            let root = Part::parse(&case.text).ok();
            Some(error_at(&case.file, &mistake, root.as_ref()))
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(CaseErrors(errors)) }
}

/// The conditions of a rule or an exclude, for checks that treat them alike.
fn never_holds(when: &When, cells: &[Axes]) -> bool {
    !cells.iter().any(|axes| when.may_hold(axes))
}
