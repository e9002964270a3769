//! The registry of metrics and checks: name, unit, direction, family, and where each is measured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Stands before the name of a metric that was measured with the kernel made to batch.
pub const CONTROL_PREFIX: &str = "control/";

/// Ends the name of the check of a metric's growth with live mappings.
const GROWTH_SUFFIX: &str = "-growth";

/// The better of two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// The lower one, for example for a time.
    Lower,
    /// The higher one, for example for a rate.
    Higher,
}

/// Kinds of checks, in the order in which they stand on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// The kernel's warning that batching is off.
    Warning,
    /// IOMMU groups.
    Group,
    /// Invalidations that the hypervisor counts.
    Invalidations,
    /// Mappings that outlive their request.
    Mappings,
    /// The device and what it may reach.
    Device,
    /// The kernel's log.
    Log,
    /// The workload's data.
    Data,
    /// Everything else.
    Others,
}

impl Family {
    /// Every family, in order.
    pub const ALL: [Self; 8] = [
        Self::Warning,
        Self::Group,
        Self::Invalidations,
        Self::Mappings,
        Self::Device,
        Self::Log,
        Self::Data,
        Self::Others,
    ];

    /// The family of a check's name. A name that the registry lacks, as a program's metric, is one of
    /// the others.
    #[must_use]
    pub fn of_check(check: &str) -> Self {
        let name = check.strip_prefix(CONTROL_PREFIX).unwrap_or(check);
        let name = name.strip_suffix(GROWTH_SUFFIX).unwrap_or(name);
        if name.starts_with(ATTACK_PREFIX) {
            return Self::Device;
        }
        entry(name).map_or(Self::Others, |entry| entry.family)
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Group => "group",
            Self::Invalidations => "invalidations",
            Self::Mappings => "mappings",
            Self::Device => "device",
            Self::Log => "log",
            Self::Data => "data",
            Self::Others => "others",
        }
    }
}

/// Where a metric or check is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The hypervisor's trace in counting windows.
    CountingWindow,
    /// The probe, in counting windows.
    CountingProbe,
    /// The clock, in timing windows.
    TimingWindow,
    /// The probe, in timing windows.
    TimingProbe,
    /// The kernel's log.
    Log,
    /// The guest's description of itself.
    Guest,
    /// The workload's report.
    Workload,
    /// The hypervisor, the host or another guest.
    Outside,
}

/// A metric or check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its name in case files and reports.
    pub name: &'static str,
    /// Its unit; counts have `1`, checks that are no metric have none.
    pub unit: Option<&'static str>,
    /// Which of two values is better; `None` for a check that is no metric.
    pub better: Option<Better>,
    /// The checks that it is shown with.
    pub family: Family,
    /// Where it is measured.
    pub source: Source,
    /// What it is, in one sentence.
    pub explanation: &'static str,
}

impl Entry {
    /// Whether it is counted in a counting window.
    #[must_use]
    pub fn is_count(&self) -> bool {
        matches!(self.source, Source::CountingWindow | Source::CountingProbe)
    }

    /// Whether it is timed in a timing window.
    #[must_use]
    pub fn is_time(&self) -> bool {
        matches!(self.source, Source::TimingWindow | Source::TimingProbe)
    }

    /// Whether a probe measures it.
    #[must_use]
    pub fn needs_probe(&self) -> bool {
        matches!(self.source, Source::CountingProbe | Source::TimingProbe)
    }
}

/// Stands before the name of each attack's check.
pub const ATTACK_PREFIX: &str = "attack-";

/// Defines a constant for each name, and the table of entries.
macro_rules! registry {
    ($($constant:ident = $name:literal, $unit:expr, $better:expr, $family:ident, $source:ident:
       $explanation:literal;)+) => {
        $(
            #[doc = $explanation]
            pub const $constant: &str = $name;
        )+

        /// Every metric and check: times first, then counts, then other checks.
        pub const REGISTRY: &[Entry] = &[$(Entry {
            name: $name,
            unit: $unit,
            better: $better,
            family: Family::$family,
            source: Source::$source,
            explanation: $explanation,
        }),+];
    };
}

const LOWER: Option<Better> = Some(Better::Lower);
const HIGHER: Option<Better> = Some(Better::Higher);
const COUNT: Option<&str> = Some("1");
const NS: Option<&str> = Some("ns");

registry! {
    THROUGHPUT = "throughput", Some("bytes/s"), HIGHER, Others, TimingWindow:
        "Bytes that the workload moved per second.";
    IOPS = "iops", Some("1/s"), HIGHER, Others, TimingWindow:
        "Operations of the workload per second.";
    ELAPSED = "elapsed", NS, LOWER, Others, TimingWindow:
        "Time that one run of the workload took.";
    LATENCY_MEAN = "latency-mean", NS, LOWER, Others, TimingWindow:
        "Mean latency of an operation.";
    LATENCY_P50 = "latency-p50", NS, LOWER, Others, TimingWindow:
        "Median latency of an operation.";
    LATENCY_P90 = "latency-p90", NS, LOWER, Others, TimingWindow:
        "90th percentile of the latency of operations.";
    LATENCY_P99 = "latency-p99", NS, LOWER, Others, TimingWindow:
        "99th percentile of the latency of operations.";
    LATENCY_P999 = "latency-p999", NS, LOWER, Others, TimingWindow:
        "99.9th percentile of the latency of operations.";
    LATENCY_MAX = "latency-max", NS, LOWER, Others, TimingWindow:
        "Highest latency of an operation.";
    STALE_P50 = "stale-p50", NS, LOWER, Others, TimingProbe:
        "Median time from a request's completion until the device reaches none of its buffers.";
    STALE_P99 = "stale-p99", NS, LOWER, Others, TimingProbe:
        "99th percentile of the time from completion until the device reaches no buffer.";
    STALE_MAX = "stale-max", NS, LOWER, Others, TimingProbe:
        "Longest time from a request's completion until the device reaches none of its buffers.";

    PSI = "psi", COUNT, LOWER, Invalidations, CountingWindow:
        "Page-selective invalidations.";
    DSI = "dsi", COUNT, LOWER, Invalidations, CountingWindow:
        "Domain-selective invalidations.";
    GLOBAL = "global", COUNT, LOWER, Invalidations, CountingWindow:
        "Global invalidations.";
    PSI_PER_UNMAP = "psi-per-unmap", COUNT, LOWER, Invalidations, CountingWindow:
        "Page-selective invalidations of unmaps, per unmap.";
    PSI_PER_MAP = "psi-per-map", COUNT, LOWER, Invalidations, CountingWindow:
        "Page-selective invalidations of maps, per map.";
    NEW_RANGES_PER_UNMAP = "new-ranges-per-unmap", COUNT, LOWER, Mappings, CountingWindow:
        "Ranges mapped for the first time beyond as many as are mapped at once, per unmap.";
    DSI_PER_1000_UNMAPS = "dsi-per-1000-unmaps", COUNT, LOWER, Invalidations, CountingWindow:
        "Domain-selective invalidations per thousand unmaps.";
    DEVICE_IOTLB_PER_UNMAP = "device-iotlb-per-unmap", COUNT, LOWER, Invalidations, CountingWindow:
        "Device-IOTLB invalidations per unmap.";
    PAGE_WALK_ENTRIES_PER_UNMAP = "page-walk-entries-per-unmap", COUNT, LOWER, Invalidations,
        CountingWindow: "Leaf entries visited by walks of a shadowed page table, per unmap.";
    PAGE_WALK_IN_VAIN_PER_UNMAP = "page-walk-in-vain-per-unmap", COUNT, LOWER, Invalidations,
        CountingWindow: "Visited leaf entries that had not changed, per unmap.";
    STALE_REQUESTS = "stale-requests", COUNT, LOWER, Mappings, CountingProbe:
        "Requests whose buffer the device still reached after the kernel had given it back.";
    STALE_SHARE = "stale-share", COUNT, LOWER, Mappings, CountingProbe:
        "Share of stale requests in all that the probe followed, from 0 to 1.";
    STALE_BYTES = "stale-bytes", COUNT, LOWER, Mappings, CountingProbe:
        "Most bytes of finished requests that the device reached at one time.";
    LEAKED_REQUESTS = "leaked-requests", COUNT, LOWER, Mappings, CountingProbe:
        "Requests with a buffer that was never unmapped.";
    STALE_FOR_REQUESTS = "stale-for-requests", COUNT, LOWER, Mappings, CountingProbe:
        "Most requests submitted between a request's completion and its last unmapping.";
    MAPPINGS_PER_OP = "mappings-per-op", COUNT, LOWER, Mappings, CountingProbe:
        "Mappings that the device was given, per operation.";
    MAPPINGS_IN_FLIGHT = "mappings-in-flight", COUNT, LOWER, Mappings, CountingProbe:
        "Most mappings that lived at one time in the window beyond those from before it.";

    WARNING = "warning", None, None, Warning, Log:
        "The kernel's warning that batching is off because the IOMMU is virtual.";
    GROUP_TYPE = "group-type", None, None, Group, Guest:
        "Type of the IOMMU group of each device under test, before the workload.";
    GROUP_TYPE_AFTER = "group-type-after", None, None, Group, Guest:
        "Type of the IOMMU group of each device under test, after the workload.";
    BEHIND_IOMMU = "behind-iommu", None, None, Group, Guest:
        "Whether each device under test is behind the IOMMU.";
    COHERENCE = "coherence", None, None, Mappings, Outside:
        "Whether the device's mappings are those of the guest's page tables.";
    DEVICE = "device", None, None, Device, Outside:
        "Whether the passed-through device works.";
    REFUSAL = "refusal", None, None, Device, Outside:
        "Whether the hypervisor refuses a configuration that it must refuse.";
    FAULTS = "faults", None, None, Device, Log:
        "DMA faults, in the kernel's log and in the hypervisor.";
    OUTER_GUEST = "outer-guest", None, None, Device, Outside:
        "Whether the outer guest of a nested cell is sound.";
    LOG = "log", None, None, Log, Log:
        "Whether the kernel's log has nothing suspicious.";
    KERNEL = "kernel", None, None, Log, Guest:
        "Whether the guest reported its kernel's version.";
    INTEGRITY = "integrity", None, None, Data, Workload:
        "Whether every byte is as written and no operation failed.";
    LOST = "lost", None, None, Data, Workload:
        "Frames that were lost.";
    WINDOWS = "windows", None, None, Others, Workload:
        "Whether each window that the case asks for is there.";
}

/// Metrics that a sweep over live mappings follows.
pub const SWEPT: &[&str] =
    &[PAGE_WALK_IN_VAIN_PER_UNMAP, PAGE_WALK_ENTRIES_PER_UNMAP, THROUGHPUT, LATENCY_P50, ELAPSED];

/// Fewest points of a sweep.
pub const MIN_SWEEP_POINTS: usize = 3;

/// Checks that show what a kernel did rather than what it should not have done, in a run's table.
pub const SHOWN_OF_PASSED_CELLS: &[&str] =
    &[REFUSAL, WARNING, GROUP_TYPE, PSI_PER_UNMAP, PSI_PER_MAP, PSI, DSI_PER_1000_UNMAPS];

/// Checks that a bisection shows as evidence that a revision is good.
pub const EVIDENCE_OF_PASSED_CELLS: &[&str] =
    &[WARNING, GROUP_TYPE, PSI_PER_UNMAP, DSI_PER_1000_UNMAPS, DSI, GLOBAL];

/// The entry of a name.
#[must_use]
pub fn entry(name: &str) -> Option<&'static Entry> {
    REGISTRY.iter().find(|entry| entry.name == name)
}

/// Metrics that are counted in a counting window.
pub fn counts() -> impl Iterator<Item = &'static Entry> {
    REGISTRY.iter().filter(|entry| entry.is_count())
}

/// Checks that a rule can set a bound on: faults, lost frames and every count.
pub fn bounded() -> impl Iterator<Item = &'static Entry> {
    let events = [FAULTS, LOST].into_iter().filter_map(entry);
    events.chain(counts())
}

/// Metrics that are timed in a timing window.
pub fn times() -> impl Iterator<Item = &'static Entry> {
    REGISTRY.iter().filter(|entry| entry.is_time())
}

/// Names of the metrics that every workload has: times, then counts.
pub fn metric_names() -> impl Iterator<Item = &'static str> {
    REGISTRY.iter().filter(|entry| entry.unit.is_some()).map(|entry| entry.name)
}

/// The unit of a metric of the registry; counts have `1`.
#[must_use]
pub fn unit_of(metric: &str) -> Option<&'static str> {
    entry(metric)?.unit
}

impl Better {
    /// Its name in case files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lower => "lower",
            Self::Higher => "higher",
        }
    }

    /// Which of two values of a metric is better: by the registry, else by the unit of a program's
    /// metric. `None` where the unit does not decide it.
    #[must_use]
    pub fn of(name: &str, unit: &str) -> Option<Self> {
        if let Some(better) = entry(name).and_then(|entry| entry.better) {
            return Some(better);
        }
        if unit.ends_with("/s") {
            return Some(Self::Higher);
        }
        matches!(unit, "s" | "ms" | "us" | "ns").then_some(Self::Lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for (index, entry) in REGISTRY.iter().enumerate() {
            let twice = REGISTRY[..index].iter().any(|other| other.name == entry.name);
            assert!(!twice, "`{}` is in the registry twice", entry.name);
        }
    }

    #[test]
    fn every_metric_has_a_unit_and_a_direction() {
        for entry in REGISTRY {
            let is_metric = entry.is_count() || entry.is_time();
            assert_eq!(entry.unit.is_some(), is_metric, "{}", entry.name);
            assert_eq!(entry.better.is_some(), is_metric, "{}", entry.name);
        }
    }

    #[test]
    fn control_growth_and_attack_checks_have_the_family_of_what_they_check() {
        for (name, family) in [
            ("control/psi-per-unmap", Family::Invalidations),
            ("page-walk-in-vain-per-unmap-growth", Family::Invalidations),
            ("stale-p99", Family::Others),
            ("attack-read-only", Family::Device),
            ("a-program's", Family::Others),
        ] {
            assert_eq!(Family::of_check(name), family, "{name}");
        }
    }
}
