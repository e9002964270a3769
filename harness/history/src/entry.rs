//! A run as the history keeps it: what is derived from its record, without the guests' logs.

use dmarig_digest::short_id;
use dmarig_records::{Build, Environment, HostFacts};
use std::{collections::BTreeMap, fmt};

use dmarig_model::metrics::Better;
use dmarig_model::{
    axes::{Axes, Axis},
    observation::Outcome,
};
use serde::{Deserialize, Serialize};

/// Version of what is derived from a record. An entry of a higher one replaces that of a lower one.
pub const DERIVATION_VERSION: u32 = 4;

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEntry {
    /// [`DERIVATION_VERSION`] of the writer.
    pub derivation: u32,
    /// The run's id; ids sort by time.
    pub id: String,
    /// Seconds since 1970.
    pub started: i64,
    /// Version of dmarig that ran it.
    pub dmarig: String,
    /// The command line.
    pub command: Vec<String>,
    /// The host.
    pub host: HostFacts,
    /// The rules that judged it: a hash of the standard table, with the version of dmarig; empty where
    /// the record does not say.
    pub rules: String,
    /// Name of the kernel that the others are set in relation to.
    pub reference: Option<String>,
    /// Whether it was made up, as the demo history is.
    pub synthetic: bool,
    /// Cells that were to run; `None` where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<u32>,
    /// Size of the record's `cells.jsonl`, but for a line that was cut short.
    pub record_bytes: u64,
    /// Its cells, in the order in which they ended.
    pub cells: Vec<CellEntry>,
    /// Its numbers.
    pub points: Vec<PointEntry>,
}

/// A cell of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellEntry {
    /// Its number in the run, from 0, in the order in which cells ended.
    pub number: u32,
    /// Its id.
    pub id: String,
    /// Its place in other runs as well.
    pub place: CellKey,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, for a person.
    pub reasons: Vec<String>,
    /// Checks that did not hold.
    pub checks: Vec<String>,
    /// All that was checked; `None` where an older dmarig derived it, which kept only what did not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<CheckTallies>,
    /// `uname -r` of the guest, where it said so.
    pub release: Option<String>,
    /// Type of the IOMMU group of the devices under test.
    pub group_type: Option<String>,
    /// Whether the kernel said that batching is off because the IOMMU is virtual.
    pub warning: Option<bool>,
    /// Wall-clock time, in microseconds.
    pub duration_us: u64,
    /// What it ran on.
    pub environment: Environment,
    /// Its kernel.
    pub build: Build,
}

/// Of each check of a cell, by its name, how it came out.
pub type CheckTallies = BTreeMap<String, Tally>;

/// How often a check came out in which way. In one cell that is once, mostly: a rule may bound a metric
/// that another one bounds as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tally {
    /// It held.
    pub held: u32,
    /// It did not.
    pub broken: u32,
    /// It was asked for and could not be judged.
    pub unjudged: u32,
}

impl Tally {
    /// Counts it once more.
    pub fn count(&mut self, held: Option<bool>) {
        *match held {
            Some(true) => &mut self.held,
            Some(false) => &mut self.broken,
            None => &mut self.unjudged,
        } += 1;
    }
}

/// What makes two cells of different runs the same: neither QEMU nor machine are part of it, and of the
/// kernel its name alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CellKey {
    /// Name of the case.
    pub case: String,
    /// Values of axes, as [`variant`] writes them.
    pub variant: String,
    /// Name of the kernel.
    pub kernel: String,
}

impl fmt::Display for CellKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{},kernel={}", self.case, self.variant, self.kernel)
    }
}

/// The number of one series in one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointEntry {
    /// The series.
    pub series: SeriesKey,
    /// The cell that it was measured in; of several, the first.
    pub cell: u32,
    /// The median of the samples.
    pub value: f64,
    /// What was measured, in its order; of a ratio, those of pairs.
    pub samples: Vec<Sample>,
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The cell's number.
    pub cell: u32,
    /// Index of the window in its cell.
    pub window: u32,
    /// Number of the pair that it belongs to, where it was measured in pairs.
    pub pair: Option<u32>,
    /// The value.
    pub value: f64,
}

/// What makes two numbers of different runs comparable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesKey {
    /// Of which cells.
    pub place: CellKey,
    /// Name of the metric; with the kernel made to batch it begins with `control/`.
    pub metric: String,
    /// Unit of the metric; a ratio of it has none.
    pub unit: String,
    /// Of a ratio, what was divided by: the reference kernel's name and, after `@`, the identity of its
    /// build, since another build is another yardstick.
    pub reference: Option<String>,
    /// Fingerprint of the environment.
    pub environment: String,
}

impl SeriesKey {
    /// A hash of all of it, fit for addresses: 20 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        let reference = self.reference.as_deref().unwrap_or_default();
        let CellKey { case, variant, kernel } = &self.place;
        let parts = [case, variant, kernel, &self.metric, &self.unit, reference, &self.environment];
        short_id(parts, 20)
    }

    /// Unit of its values: `1` of a ratio.
    #[must_use]
    pub fn value_unit(&self) -> &str {
        if self.reference.is_some() { "1" } else { &self.unit }
    }

    /// Which of two values is better, where it is known.
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

/// The values of axes that tell a cell from others of its case: caching mode and policy always, others
/// where they are not the default. Kernel, QEMU and accelerator are none of them.
#[must_use]
pub fn variant(axes: &Axes) -> String {
    let defaults = Axes::default();
    let told = |axis: &Axis| match axis {
        Axis::CachingMode | Axis::Policy => true,
        Axis::Kernel | Axis::Qemu | Axis::Accelerator => false,
        other => other.value(axes) != other.value(&defaults),
    };
    let words = Axis::ALL.into_iter().filter(told);
    words.map(|axis| format!("{axis}={}", axis.value(axes))).collect::<Vec<_>>().join(",")
}
