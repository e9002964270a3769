//! A run in the history: what is derived from its record, without the logs of guests.

use dmarig_digest::short_id;
use dmarig_records::{Build, Environment, HostFacts};
use std::{collections::BTreeMap, fmt};

use dmarig_model::metrics::Better;
use dmarig_model::{
    axes::{Axes, Axis},
    observation::Outcome,
};
use serde::{Deserialize, Serialize};

/// Version of what is derived from a record. An entry with a higher version replaces one with a
/// lower.
pub const DERIVATION_VERSION: u32 = 4;

/// A run in the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEntry {
    /// [`DERIVATION_VERSION`] of the writer.
    pub derivation: u32,
    /// Id; ids sort by time.
    pub id: String,
    /// Seconds since 1970.
    pub started: i64,
    /// Version of dmarig that ran it.
    pub dmarig: String,
    /// The command line.
    pub command: Vec<String>,
    /// The host.
    pub host: HostFacts,
    /// The rules that judged it: a hash of the standard table, with the version of dmarig; empty if
    /// the record does not have it.
    pub rules: String,
    /// Name of the reference kernel.
    pub reference: Option<String>,
    /// Whether the run is synthetic, as those of the demo history.
    pub synthetic: bool,
    /// Number of planned cells; `None` if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<u32>,
    /// Size of the complete lines of the record's `cells.jsonl`, in bytes.
    pub record_bytes: u64,
    /// The cells, in the order in which they ended.
    pub cells: Vec<CellEntry>,
    /// One point for each series.
    pub points: Vec<PointEntry>,
}

/// A cell of a run in the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellEntry {
    /// Number in the run, from 0, in the order in which cells ended.
    pub number: u32,
    /// Id.
    pub id: String,
    /// Identifies the cell across runs.
    pub place: CellKey,
    /// Outcome.
    pub outcome: Outcome,
    /// Reasons for the outcome, as text.
    pub reasons: Vec<String>,
    /// Names of failed checks.
    pub checks: Vec<String>,
    /// The results of all checks; `None` in entries of older versions, which kept failed checks
    /// only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<CheckTallies>,
    /// `uname -r` in the guest, if it was reported.
    pub release: Option<String>,
    /// Type of the IOMMU group of the devices under test.
    pub group_type: Option<String>,
    /// Whether the kernel logged that batching is off because the IOMMU is virtual.
    pub warning: Option<bool>,
    /// Wall-clock time, in microseconds.
    pub duration_us: u64,
    /// Machine and hypervisor.
    pub environment: Environment,
    /// Build of its kernel.
    pub build: Build,
}

/// The results of a cell's checks, by name.
pub type CheckTallies = BTreeMap<String, Tally>;

/// The results of one check in one cell. There is more than one if several rules bound the same
/// metric.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tally {
    /// Number of times it held.
    pub held: u32,
    /// Number of times it failed.
    pub broken: u32,
    /// Number of times it could not be judged.
    pub unjudged: u32,
}

impl Tally {
    /// Adds one result.
    pub fn count(&mut self, held: Option<bool>) {
        match held {
            Some(true) => self.held += 1,
            Some(false) => self.broken += 1,
            None => self.unjudged += 1,
        }
    }
}

/// Identifies a cell across runs. QEMU, the machine and the kernel's build are not part of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CellKey {
    /// Name of the case.
    pub case: String,
    /// Values of axes, as [`variant`] formats them.
    pub variant: String,
    /// Name of the kernel.
    pub kernel: String,
}

impl fmt::Display for CellKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{},kernel={}", self.case, self.variant, self.kernel)
    }
}

/// The point of one series in one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointEntry {
    /// The series.
    pub series: SeriesKey,
    /// Number of the first cell that it was measured in.
    pub cell: u32,
    /// The median of the samples.
    pub value: f64,
    /// The samples in the order of measurement; for a ratio, the ratios of pairs.
    pub samples: Vec<Sample>,
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Number of the cell.
    pub cell: u32,
    /// Index of the window in the cell.
    pub window: u32,
    /// Number of its pair, if it was measured in pairs.
    pub pair: Option<u32>,
    /// The value.
    pub value: f64,
}

/// Identifies a series: numbers of different runs with the same key are comparable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesKey {
    /// The cell that it is measured in.
    pub place: CellKey,
    /// Name of the metric; `control/` precedes the name if batching was forced.
    pub metric: String,
    /// Unit of the metric, also for a ratio.
    pub unit: String,
    /// Divisor of a ratio: the reference kernel's name and, after `@`, the identity of its build.
    pub reference: Option<String>,
    /// Fingerprint of the environment.
    pub environment: String,
}

impl SeriesKey {
    /// A hash of the key, usable in URLs: 20 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        let reference = self.reference.as_deref().unwrap_or_default();
        let CellKey { case, variant, kernel } = &self.place;
        let parts = [case, variant, kernel, &self.metric, &self.unit, reference, &self.environment];
        short_id(parts, 20)
    }

    /// Unit of the values, which is `1` for a ratio.
    #[must_use]
    pub fn value_unit(&self) -> &str {
        if self.reference.is_some() { "1" } else { &self.unit }
    }

    /// The better direction, if it is known.
    #[must_use]
    pub fn better(&self) -> Option<Better> {
        let name = self.metric.strip_prefix(dmarig_model::metrics::CONTROL_PREFIX);
        let name = name.unwrap_or(&self.metric);
        Better::of(name, &self.unit)
    }
}

impl fmt::Display for SeriesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.place, self.metric)?;
        match &self.reference {
            Some(reference) => write!(f, " / {reference}"),
            None => Ok(()),
        }
    }
}

/// Formats the values of axes that distinguish a cell from others of its case: caching mode and
/// policy, and other axes with a value that is not the default; never kernel, QEMU and accelerator.
#[must_use]
pub fn variant(axes: &Axes) -> String {
    let defaults = Axes::default();
    let is_shown = |axis: &Axis| match axis {
        Axis::CachingMode | Axis::Policy => true,
        Axis::Kernel | Axis::Qemu | Axis::Accelerator => false,
        other => other.value(axes) != other.value(&defaults),
    };
    let words = Axis::ALL.into_iter().filter(is_shown);
    words.map(|axis| format!("{axis}={}", axis.value(axes))).collect::<Vec<_>>().join(",")
}
