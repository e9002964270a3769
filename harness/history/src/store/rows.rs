//! What is read from a history.

use dmarig_records::{Build, EarlyEnd, HostFacts};
use std::collections::BTreeMap;

use dmarig_model::observation::Outcome;
use serde::Serialize;

use crate::entry::SeriesKey;

/// What a history holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Version of the file's layout.
    pub schema: u32,
    /// Runs.
    pub runs: u64,
    /// Of them, those that were made up: where there is one, every page and table has to say so.
    pub synthetic: u64,
    /// Cells of all runs.
    pub cells: u64,
    /// Series.
    pub series: u64,
    /// Points of all series.
    pub points: u64,
    /// Samples of all points.
    pub samples: u64,
}

/// What a history knows of where an entry came from.
#[derive(Debug)]
pub(crate) struct Known {
    /// How much of the record is in it.
    pub(crate) bytes: u64,
    /// How it was derived.
    pub(crate) derivation: u32,
    /// The kernel that others are set in relation to.
    pub(crate) reference: Option<String>,
}

/// How many cells ended how.
pub type Outcomes = BTreeMap<Outcome, u64>;

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunRow {
    /// Its id; ids sort by time.
    pub id: String,
    /// Seconds since 1970.
    pub started: i64,
    /// Version of dmarig.
    pub dmarig: String,
    /// The command line.
    pub command: Vec<String>,
    /// The host.
    pub host: HostFacts,
    /// The rules that judged it; empty where it is not known.
    pub rules: String,
    /// Name of the reference kernel.
    pub reference: Option<String>,
    /// Whether it was made up.
    pub synthetic: bool,
    /// How its cells ended.
    pub outcomes: Outcomes,
    /// Whether cells that were planned never ran.
    pub ended_early: Option<EarlyEnd>,
}

/// What one place came to in one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CellVisit {
    /// The run.
    pub run: String,
    /// When it started, in seconds since 1970.
    pub started: i64,
    /// The cell's number in it.
    pub number: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Checks that did not hold.
    pub checks: Vec<String>,
    /// Fingerprint of the environment.
    pub environment: String,
    /// The kernel.
    pub build: Build,
    /// `uname -r` of the guest.
    pub release: Option<String>,
}

/// Which series are asked for; what is not said fits all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeriesFilter {
    /// Name of the case.
    pub case: Option<String>,
    /// Variant.
    pub variant: Option<String>,
    /// Name of the kernel.
    pub kernel: Option<String>,
    /// Name of the metric.
    pub metric: Option<String>,
    /// Fingerprint of the environment.
    pub environment: Option<String>,
    /// Only ratios to a reference kernel, or only what is none.
    pub ratios: Option<bool>,
}

/// A series.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SeriesRow {
    /// Its id, fit for addresses.
    pub id: String,
    /// What it is of.
    pub key: SeriesKey,
    /// Its points.
    pub points: u64,
    /// When its last run started, in seconds since 1970.
    pub last: i64,
}

/// A point of a series.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// The run.
    pub run: String,
    /// When it started, in seconds since 1970.
    pub started: i64,
    /// Number of the cell in the run.
    pub cell: u32,
    /// How that cell ended.
    pub outcome: Outcome,
    /// The median of its samples.
    pub value: f64,
    /// Whether its run was made up.
    pub synthetic: bool,
    /// The kernel.
    pub build: Build,
    /// `uname -r` of the guest.
    pub release: Option<String>,
}
