//! Numbers out of an observation: counts per operation, times, and where they came from.

use dmarig_viommu::DmaTracepoints;
use dmarig_wire::{DmaCounts, Interface};

use crate::{
    axes::{Axes, Device, ScalableMode, Toggle},
    metrics,
    observation::{Observation, TraceCounts, Window, WindowKind},
    probe::{ProbeCounts, Spread, Stale},
    viommu::VIOMMUS,
    windows::Side,
};

/// Where a number of DMA operations comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DmaSource {
    /// The guest kernel's tracepoints.
    Tracepoints,
    /// The workload's requests, each of which an NVMe driver maps and unmaps once.
    Requests,
}

/// DMA operations in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaOps {
    /// Maps.
    pub maps: u64,
    /// Unmaps.
    pub unmaps: u64,
    /// How many maps and unmaps happened while the trace was switched, so that they need not be in it; of
    /// them, the trace decides which count.
    pub at_edges: u64,
    /// Where that comes from.
    pub source: DmaSource,
}

/// One in so many operations at most is let be for having happened at a window's edges: a driver does little
/// for itself, and a kernel that says more of it must not have its invalidations taken on trust.
const AT_EDGES: u64 = 10;

/// The DMA operations of a window. `None` where it moved nothing, as a program's.
///
/// Unmaps are exact: `iommu:unmap` fires once per unmap, and on kernels before 5.12 so does
/// `unmap_single` of the driver, also for each unmap that `unmap_sg` reports besides. Map
/// tracepoints fire once per *segment* (`iommu:map`, and the driver's `map_sg` from 5.6 on), so
/// where there are more of them than unmaps, the unmaps are the number of maps: a workload that is
/// drained at both ends of the window unmaps all that it mapped.
///
/// What happened while the trace was switched counts as far as the trace has it.
#[must_use]
pub fn dma_ops(window: &Window, maps_invalidate: bool) -> Option<DmaOps> {
    if let Some(counts) = &window.dma {
        let generic =
            ["iommu:map", "iommu:unmap"].iter().any(|name| counts.events.contains_key(*name));
        // A kernel has both groups from 5.12 on; the driver's no longer fires then.
        let generic = generic && sum(counts, &["iommu:map", "iommu:unmap"]) > 0;
        let (maps, unmaps) = operations(counts, generic);
        let edges = window.dma_at_edges.as_ref().map(|counts| operations(counts, generic));
        let (maps_at_edges, unmaps_at_edges) = edges.unwrap_or_default();
        let (opening, closing) = match &window.trace {
            Some(trace) if maps_invalidate => (trace.psi_opening, trace.psi_closing),
            Some(trace) => (0, trace.psi),
            None => (0, 0),
        };
        let within = |traced: u64, all: u64, at_edges: u64| {
            traced.clamp(all - at_edges.min(all / AT_EDGES), all)
        };
        let maps = within(opening, maps, maps_at_edges);
        let unmaps = within(closing, unmaps, unmaps_at_edges);
        let maps = if unmaps > 0 { maps.min(unmaps) } else { maps };
        let at_edges = maps_at_edges.saturating_add(unmaps_at_edges);
        return Some(DmaOps { maps, unmaps, at_edges, source: DmaSource::Tracepoints });
    }
    match window.report.interface {
        Interface::IoUring | Interface::Aio | Interface::Sync => Some(DmaOps {
            maps: window.report.ops,
            unmaps: window.report.ops,
            at_edges: 0,
            source: DmaSource::Requests,
        }),
        Interface::Packet | Interface::Process | Interface::None => None,
    }
}

/// Maps and unmaps, by the tracepoints of the IOMMU layer or by those of the driver.
fn operations(counts: &DmaCounts, generic: bool) -> (u64, u64) {
    if generic {
        return (sum(counts, &["iommu:map"]), sum(counts, &["iommu:unmap"]));
    }
    let mut operations = (0, 0);
    for viommu in VIOMMUS {
        let DmaTracepoints { maps, unmaps, list_unmaps } = viommu.dma_tracepoints();
        operations.0 += sum(counts, maps);
        operations.1 += sum(counts, unmaps).max(sum(counts, list_unmaps));
    }
    operations
}

fn sum(counts: &DmaCounts, names: &[&str]) -> u64 {
    let all = names.iter().filter_map(|name| counts.events.get(*name));
    all.fold(0, |sum, count| sum.saturating_add(*count))
}

/// What the counting windows of a cell saw, added up.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// Trace events.
    pub trace: TraceCounts,
    /// Operations of the workload.
    pub ops: u64,
    /// What they made of the IOMMU layer, if that is known.
    pub dma: Option<DmaOps>,
    /// What the probe saw, where there is one.
    pub probe: Option<ProbeCounts>,
    /// Whether page-selective invalidations belong to maps as well as to unmaps.
    pub maps_invalidate: bool,
}

impl Counted {
    /// The counts of one side of an observation; `None` where nothing was counted.
    #[must_use]
    pub fn of(observation: &Observation, side: Side) -> Option<Self> {
        let windows: Vec<&Window> = of_kind(observation, side, WindowKind::Counting)
            .filter(|window| window.trace.is_some())
            .collect();
        let trace =
            windows.iter().filter_map(|window| window.trace.as_ref()).cloned().reduce(add)?;
        let maps_invalidate = maps_invalidate(&observation.axes);
        let known: Option<Vec<DmaOps>> =
            windows.iter().map(|window| dma_ops(window, maps_invalidate)).collect();
        let dma = known
            .and_then(|all| {
                all.into_iter().reduce(|a, b| DmaOps {
                    maps: a.maps + b.maps,
                    unmaps: a.unmaps + b.unmaps,
                    at_edges: a.at_edges.saturating_add(b.at_edges),
                    source: a.source,
                })
            })
            // Other drivers map more than one piece per request.
            .filter(|dma| {
                dma.source == DmaSource::Tracepoints || observation.axes.device == Device::Nvme
            });
        let ops = windows.iter().map(|window| window.report.ops).sum();
        let probe = windows.iter().filter_map(|window| window.probe.clone()).reduce(together);
        Some(Self { trace, ops, dma, probe, maps_invalidate })
    }

    /// The count or rate of a check. `Err` says why there is none.
    ///
    /// # Errors
    /// [`NoCount::NoDenominator`] where nothing was mapped or unmapped, [`NoCount::NoData`] where
    /// it is not known.
    pub fn value(&self, check: &str) -> Result<f64, NoCount> {
        let trace = &self.trace;
        // Counts of ours are far below 2^53.
        let per = |count: u64, ops: Option<u64>| match ops {
            None => Err(NoCount::NoData),
            Some(0) => Err(NoCount::NoDenominator),
            Some(ops) => Ok(count as f64 / ops as f64),
        };
        let probe = self.probe.as_ref().ok_or(NoCount::NoData);
        let stale = probe.and_then(|probe| probe.stale.as_ref().ok_or(NoCount::NoData));
        let (maps, unmaps) = (self.dma.map(|dma| dma.maps), self.dma.map(|dma| dma.unmaps));
        match check {
            metrics::PSI => Ok(trace.psi as f64),
            metrics::DSI => Ok(trace.dsi as f64),
            metrics::GLOBAL => Ok(trace.global as f64),
            metrics::PSI_PER_UNMAP if self.maps_invalidate => per(trace.psi_closing, unmaps),
            metrics::PSI_PER_UNMAP => per(trace.psi, unmaps),
            metrics::PSI_PER_MAP if self.maps_invalidate => per(trace.psi_opening, maps),
            metrics::PSI_PER_MAP => Ok(0.0),
            // As many as are open at once must be new.
            metrics::NEW_RANGES_PER_UNMAP if self.maps_invalidate => {
                per(trace.psi_new.saturating_sub(trace.psi_open_at_most), unmaps)
            }
            metrics::NEW_RANGES_PER_UNMAP => Err(NoCount::NoData),
            metrics::DSI_PER_1000_UNMAPS => per(trace.dsi * 1000, unmaps),
            metrics::DEVICE_IOTLB_PER_UNMAP => per(trace.device_iotlb, unmaps),
            metrics::PAGE_WALK_ENTRIES_PER_UNMAP => per(trace.page_walk_entries, unmaps),
            metrics::PAGE_WALK_IN_VAIN_PER_UNMAP => per(trace.page_walk_in_vain, unmaps),
            metrics::STALE_REQUESTS => Ok(stale?.stale as f64),
            metrics::STALE_SHARE => per(stale?.stale, Some(stale?.requests)),
            metrics::STALE_BYTES => Ok(stale?.most_bytes as f64),
            metrics::LEAKED_REQUESTS => Ok(stale?.never as f64),
            metrics::STALE_FOR_REQUESTS => {
                let spread = stale?.later_requests.ok_or(NoCount::NoDenominator)?;
                Ok(spread.max as f64)
            }
            metrics::MAPPINGS_IN_FLIGHT => {
                let probe = probe?;
                Ok(probe.peak.saturating_sub(probe.live_before) as f64)
            }
            metrics::MAPPINGS_PER_OP => per(probe?.maps, Some(self.ops)),
            _ => Err(NoCount::NoData),
        }
    }

    /// The counts in a line.
    #[must_use]
    pub fn describe(&self) -> String {
        let TraceCounts { psi, psi_opening, psi_closing, dsi, global, device_iotlb, .. } =
            &self.trace;
        let devices = match device_iotlb {
            0 => String::new(),
            count => format!(", device IOTLB {count}"),
        };
        let ops = match self.dma {
            Some(DmaOps { maps, unmaps, at_edges, source: DmaSource::Tracepoints }) => {
                let edges = match at_edges {
                    0 => String::new(),
                    some => format!("; {some} more or less, while the trace was switched"),
                };
                format!("{maps} maps, {unmaps} unmaps (the kernel's tracepoints{edges})")
            }
            Some(DmaOps { unmaps, .. }) => format!("{unmaps} requests (no tracepoints)"),
            None => "unknown numbers of maps and unmaps".to_owned(),
        };
        let device = self.probe.as_ref().map_or_else(String::new, |probe| {
            let (entries, vain) = (self.trace.page_walk_entries, self.trace.page_walk_in_vain);
            format!(
                "; the device saw {} maps, {} unmaps, at most {} live; {entries} entries walked, {vain} in vain",
                probe.maps, probe.unmaps, probe.peak
            )
        });
        format!(
            "PSI {psi} ({psi_opening} opening, {psi_closing} closing), DSI {dsi}, global {global}{devices}; {ops}{device}"
        )
    }
}

fn of_kind(
    observation: &Observation,
    side: Side,
    kind: WindowKind,
) -> impl Iterator<Item = &Window> {
    observation.windows.iter().filter(move |window| window.kind == kind && window.side() == side)
}

/// Why there is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoCount {
    /// Nothing was mapped or unmapped.
    NoDenominator,
    /// It was not counted.
    NoData,
}

/// With caching mode on the kernel invalidates what it maps, but for first-stage tables, which the
/// hypervisor does not shadow.
pub(crate) fn maps_invalidate(axes: &Axes) -> bool {
    axes.caching_mode == Toggle::On && axes.scalable_mode != ScalableMode::FirstStage
}

fn add(mut a: TraceCounts, b: TraceCounts) -> TraceCounts {
    a.psi += b.psi;
    a.psi_opening += b.psi_opening;
    a.psi_closing += b.psi_closing;
    a.psi_new += b.psi_new;
    a.psi_open_at_most = a.psi_open_at_most.max(b.psi_open_at_most);
    a.dsi += b.dsi;
    a.global += b.global;
    a.wait += b.wait;
    a.device_iotlb += b.device_iotlb;
    a.page_walk_entries += b.page_walk_entries;
    a.page_walk_in_vain += b.page_walk_in_vain;
    a.page_walk_levels += b.page_walk_levels;
    a.unmap_whole += b.unmap_whole;
    a.faults += b.faults;
    a.fault_lines.extend(b.fault_lines);
    a.unknown += b.unknown;
    a.lines += b.lines;
    a
}

/// Of two windows the sums, and of distributions the worse.
fn together(mut a: ProbeCounts, b: ProbeCounts) -> ProbeCounts {
    a.maps += b.maps;
    a.unmaps += b.unmaps;
    a.unmaps_in_vain += b.unmaps_in_vain;
    // In flight is what peaks above what was there before: of the higher of them.
    if b.peak.saturating_sub(b.live_before) > a.peak.saturating_sub(a.live_before) {
        a.live_before = b.live_before;
        a.peak = b.peak;
    }
    a.live_after = b.live_after;
    a.stale = match (a.stale, b.stale) {
        (Some(a), Some(b)) => Some(Stale {
            requests: a.requests + b.requests,
            stale: a.stale + b.stale,
            reachable: a.reachable + b.reachable,
            never: a.never + b.never,
            never_lines: [a.never_lines, b.never_lines].concat(),
            ns: worse(a.ns, b.ns),
            later_requests: worse(a.later_requests, b.later_requests),
            most_bytes: a.most_bytes.max(b.most_bytes),
        }),
        (a, b) => a.or(b),
    };
    a
}

fn worse(a: Option<Spread>, b: Option<Spread>) -> Option<Spread> {
    a.into_iter().chain(b).max_by_key(|spread| spread.max)
}

/// A metric with one sample per repetition.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// One sample per timing window (of a count: per counting window), in order; never empty.
    pub samples: Vec<f64>,
}

impl Measured {
    /// The median of the samples.
    #[must_use]
    pub fn median(&self) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            len if len % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        }
    }
}

/// What was measured in timing windows: our own metrics, then a program's, by name. A window that
/// lacks one (an error in it) leaves that metric out.
#[must_use]
pub fn times(observation: &Observation, side: Side) -> Vec<Measured> {
    let windows: Vec<&Window> = of_kind(observation, side, WindowKind::Timing).collect();
    let mut all = Vec::new();
    for entry in metrics::times() {
        let (name, unit) = (entry.name, entry.unit.unwrap_or_default());
        let samples: Option<Vec<f64>> = windows.iter().map(|window| sample(window, name)).collect();
        if let Some(samples) = samples.filter(|samples| !samples.is_empty()) {
            all.push(Measured { name: name.to_owned(), unit: unit.to_owned(), samples });
        }
    }
    let Some(first) = windows.first() else { return all };
    for metric in &first.report.metrics {
        let same =
            |other: &&dmarig_wire::Metric| other.name == metric.name && other.unit == metric.unit;
        let samples: Option<Vec<f64>> = windows
            .iter()
            .map(|window| window.report.metrics.iter().find(same).map(|metric| metric.value))
            .collect();
        if let Some(samples) = samples
            && !all.iter().any(|known: &Measured| known.name == metric.name)
        {
            all.push(Measured { name: metric.name.clone(), unit: metric.unit.clone(), samples });
        }
    }
    all
}

/// One metric by name, a time or a count.
#[must_use]
pub fn metric(observation: &Observation, side: Side, name: &str) -> Option<Measured> {
    if metrics::entry(name).is_some_and(metrics::Entry::is_count) {
        let value = Counted::of(observation, side)?.value(name).ok()?;
        return Some(Measured {
            name: name.to_owned(),
            unit: "1".to_owned(),
            samples: vec![value],
        });
    }
    times(observation, side).into_iter().find(|measured| measured.name == name)
}

fn sample(window: &Window, name: &str) -> Option<f64> {
    let report = &window.report;
    let seconds = report.elapsed_ns as f64 / 1e9;
    let rate = |count: u64| (seconds > 0.0 && count > 0).then(|| count as f64 / seconds);
    let latency = report.latency.as_ref();
    let stale = window.probe.as_ref().and_then(|probe| probe.stale.as_ref()?.ns);
    match name {
        metrics::THROUGHPUT => rate(report.bytes),
        metrics::IOPS => rate(report.ops),
        metrics::ELAPSED => (report.elapsed_ns > 0).then_some(report.elapsed_ns as f64),
        metrics::LATENCY_MEAN => latency.map(|latency| latency.mean_ns),
        metrics::LATENCY_P50 => latency.map(|latency| latency.p50_ns as f64),
        metrics::LATENCY_P90 => latency.map(|latency| latency.p90_ns as f64),
        metrics::LATENCY_P99 => latency.map(|latency| latency.p99_ns as f64),
        metrics::LATENCY_P999 => latency.map(|latency| latency.p999_ns as f64),
        metrics::LATENCY_MAX => latency.map(|latency| latency.max_ns as f64),
        metrics::STALE_P50 => stale.map(|stale| stale.p50 as f64),
        metrics::STALE_P99 => stale.map(|stale| stale.p99 as f64),
        metrics::STALE_MAX => stale.map(|stale| stale.max as f64),
        _ => None,
    }
}
