//! The JSON document that `--format json` prints: an interface, with a version and a schema.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    axes::{Accelerator, Device, Passthrough, Policy, ScalableMode, Toggle, axis_table},
    judge::group_types,
    log::read,
    measure::{Counted, DmaSource, metric, times},
    metrics::{self, CONTROL_PREFIX},
    observation::{Check, End, Observation, Outcome, Verdict},
    text::shown,
    windows::Side,
};

/// Version of [`Document`].
pub const DOCUMENT_SCHEMA: u32 = 1;

/// Counts of passed-through devices that are shown among the metrics.
const PROBE_METRICS: &[&str] = &[
    metrics::PAGE_WALK_ENTRIES_PER_UNMAP,
    metrics::PAGE_WALK_IN_VAIN_PER_UNMAP,
    metrics::MAPPINGS_PER_OP,
    metrics::MAPPINGS_IN_FLIGHT,
    metrics::PSI_PER_UNMAP,
    metrics::DSI_PER_1000_UNMAPS,
    metrics::STALE_REQUESTS,
    metrics::STALE_SHARE,
    metrics::STALE_BYTES,
    metrics::LEAKED_REQUESTS,
    metrics::STALE_FOR_REQUESTS,
];

/// The results of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Document {
    /// Version of this layout: 1. It changes when a field goes away or changes its meaning.
    pub schema: u32,
    /// The run's id.
    pub run: String,
    /// Version of the dmarig that recorded the run, with its source revision.
    #[serde(default)]
    pub dmarig: String,
    /// Its cells, in the order of the matrix.
    pub cells: Vec<CellResult>,
    /// Its kernels beside its baseline, each as `dmarig compare --format json` prints it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comparisons: Vec<serde_json::Value>,
    /// Its numbers beside those of earlier runs, as `history.json` in its record has them; left away where
    /// no case asks for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<serde_json::Value>,
}

/// The result of one cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CellResult {
    /// The cell's id.
    pub id: String,
    /// Its case.
    pub case: String,
    /// What it was.
    pub axes: ShownAxes,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it did not pass, each on one line; empty where it passed.
    pub reasons: Vec<String>,
    /// Whether the kernel said that batching is off because the IOMMU is virtual; null where its
    /// log was not read whole.
    pub warning: Option<bool>,
    /// Type of the IOMMU group of the devices under test, as the guest's sysfs says it; several
    /// are joined by commas.
    pub group_type: Option<String>,
    /// What the hypervisor counted in the workload's counting window.
    pub counts: Counts,
    /// What was measured in timing windows.
    pub metrics: Vec<Metric>,
    /// Each thing that was checked.
    pub checks: Vec<ShownCheck>,
    /// Version of the QEMU that it ran on.
    pub qemu_version: Option<String>,
    /// Wall-clock time of the cell, in microseconds.
    pub duration_us: u64,
}

/// Defines [`ShownAxes`].
macro_rules! define_shown_axes {
    ($({
        $(#[$doc:meta])+
        $axis:ident = $name:literal;
        field $field:ident: $field_type:ty = $default:expr;
        values $list:ident: $value:ty;
        json { $(#[$json:meta])* }
        shown { $(#[$shown:meta])* }
    })+) => {
        /// The axes of a cell as they were in the guest.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        pub struct ShownAxes {
            $($(#[$shown])+ $(#[$json])* pub $field: $field_type,)+
            /// The accelerator that was used; the one asked for where the cell did not start.
            pub accelerator: Accelerator,
            /// Name of the QEMU.
            pub qemu: String,
            /// The kernel's release as the guest says it; null where it never did.
            pub kernel: Option<String>,
            /// The kernel's name on the command line or in the case.
            pub kernel_name: String,
        }

        fn shown_axes(observation: &Observation) -> ShownAxes {
            let axes = observation.axes.clone();
            let started = !matches!(observation.end, End::Skipped { .. });
            ShownAxes {
                $($field: axes.$field,)+
                accelerator: if started {
                    observation.setup.accelerator
                } else {
                    axes.accelerator
                },
                qemu: axes.qemu,
                kernel: observation.release.as_deref().map(shown),
                kernel_name: axes.kernel,
            }
        }
    };
}
axis_table!(define_shown_axes, settings);

/// Counts of the hypervisor in the counting window; null where nothing was counted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Page-selective invalidations.
    pub psi: Option<u64>,
    /// Domain-selective invalidations.
    pub dsi: Option<u64>,
    /// Global invalidations.
    pub global: Option<u64>,
    /// Leaf entries that walks of a shadowed page table visited.
    pub page_walk_entries: Option<u64>,
    /// Of them, those that had not changed.
    pub page_walk_in_vain: Option<u64>,
    /// DMA operations of the workload: its requests, or frames sent and received.
    pub dma_ops: Option<u64>,
    /// Maps that the guest's IOMMU layer made meanwhile; none with passthrough.
    pub maps: Option<u64>,
    /// Unmaps likewise.
    pub unmaps: Option<u64>,
    /// Where maps and unmaps come from: `tracepoints` of the guest's kernel, or `requests`.
    pub dma_source: Option<String>,
    /// DMA faults.
    pub faults: Option<u64>,
}

/// A metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// The median of its samples.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// One sample per repetition, in order.
    pub samples: Vec<f64>,
}

/// A thing that was checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ShownCheck {
    /// What was checked.
    pub name: String,
    /// The rule that asked for it.
    pub rule: String,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// Whether it held; null where it could not be judged.
    pub held: Option<bool>,
    /// Log lines and counts that show it.
    pub evidence: Vec<String>,
}

impl From<&Check> for ShownCheck {
    fn from(check: &Check) -> Self {
        Self {
            name: check.name.clone(),
            rule: check.rule.clone(),
            expected: check.expected.clone(),
            found: check.found.clone(),
            held: check.held,
            evidence: check.evidence.clone(),
        }
    }
}

impl Document {
    /// The document of a run.
    #[must_use]
    pub fn new<'a>(
        run: &str,
        cells: impl IntoIterator<Item = (&'a Observation, &'a Verdict)>,
    ) -> Self {
        let cells = cells.into_iter().map(|(seen, verdict)| CellResult::new(seen, verdict));
        Self {
            schema: DOCUMENT_SCHEMA,
            run: run.to_owned(),
            dmarig: String::new(),
            cells: cells.collect(),
            comparisons: Vec::new(),
            history: None,
        }
    }
}

impl CellResult {
    /// Takes over a verdict that changed.
    pub fn amend(&mut self, verdict: &Verdict) {
        self.outcome = verdict.outcome;
        self.reasons.clone_from(&verdict.reasons);
        self.checks = verdict.checks.iter().map(ShownCheck::from).collect();
    }

    /// The result of one cell.
    #[must_use]
    pub fn new(observation: &Observation, verdict: &Verdict) -> Self {
        let qemu_version = &observation.setup.qemu_version;
        Self {
            id: observation.cell.clone(),
            case: observation.case.clone(),
            axes: shown_axes(observation),
            outcome: verdict.outcome,
            reasons: verdict.reasons.clone(),
            warning: warning(observation),
            group_type: group_type(observation),
            counts: counts(observation),
            metrics: metrics(observation),
            checks: verdict.checks.iter().map(ShownCheck::from).collect(),
            qemu_version: (!qemu_version.is_empty()).then(|| shown(qemu_version)),
            duration_us: observation.phases.iter().map(|phase| phase.us).sum(),
        }
    }
}

fn warning(observation: &Observation) -> Option<bool> {
    let log = &observation.log;
    let present = !read(&log.records).warnings.is_empty();
    let whole = log.lost == 0 && observation.end == End::Completed && !log.records.is_empty();
    (present || whole).then_some(present)
}

/// The group type of the devices under test, before the workload.
#[must_use]
pub fn group_type(observation: &Observation) -> Option<String> {
    let types = group_types(observation.guest.as_ref()?);
    let mut kinds: Vec<String> = types.into_iter().filter_map(|(_, kind)| kind).collect();
    kinds.sort();
    kinds.dedup();
    (!kinds.is_empty()).then(|| shown(&kinds.join(",")))
}

/// The counts of the counting window.
#[must_use]
pub fn counts(observation: &Observation) -> Counts {
    let Some(Counted { trace, dma, ops, .. }) = Counted::of(observation, Side::Own) else {
        return Counts::default();
    };
    let source = |source| match source {
        DmaSource::Tracepoints => "tracepoints".to_owned(),
        DmaSource::Requests => "requests".to_owned(),
    };
    Counts {
        psi: Some(trace.psi),
        dsi: Some(trace.dsi),
        global: Some(trace.global),
        page_walk_entries: Some(trace.page_walk_entries),
        page_walk_in_vain: Some(trace.page_walk_in_vain),
        dma_ops: Some(ops),
        maps: dma.map(|dma| dma.maps),
        unmaps: dma.map(|dma| dma.unmaps),
        dma_source: dma.map(|dma| source(dma.source)),
        faults: Some(trace.faults),
    }
}

/// What was measured in timing windows.
#[must_use]
pub fn metrics(observation: &Observation) -> Vec<Metric> {
    let all = |side| {
        let shadowed = observation.axes.passthrough != Passthrough::None;
        let names = if shadowed { PROBE_METRICS } else { &[] };
        let counts = names.iter().filter_map(move |name| metric(observation, side, name));
        times(observation, side).into_iter().chain(counts)
    };
    let own = all(Side::Own).map(|measured| (measured.name.clone(), measured));
    let control =
        all(Side::Control).map(|measured| (format!("{CONTROL_PREFIX}{}", measured.name), measured));
    own.chain(control)
        .map(|(name, measured)| Metric {
            value: measured.median(),
            name: shown(&name),
            unit: shown(&measured.unit),
            samples: measured.samples,
        })
        .collect()
}
