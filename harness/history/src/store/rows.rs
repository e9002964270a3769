//! The rows that are read from a history.

use dmarig_records::{Build, EarlyEnd, HostFacts};
use std::collections::BTreeMap;

use dmarig_model::observation::Outcome;
use serde::Serialize;

use crate::entry::SeriesKey;

/// Counts of all that a history contains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// [`HISTORY_SCHEMA`](crate::HISTORY_SCHEMA).
    pub schema: u32,
    /// Number of runs.
    pub runs: u64,
    /// Number of synthetic runs. If there are any, every page and table must say so.
    pub synthetic: u64,
    /// Number of cells.
    pub cells: u64,
    /// Number of series.
    pub series: u64,
    /// Number of points.
    pub points: u64,
    /// Number of samples.
    pub samples: u64,
}

/// What an entry was imported from, which decides whether its record is read again.
#[derive(Debug)]
pub(crate) struct ImportState {
    /// Imported part of the record's `cells.jsonl`, in bytes.
    pub(crate) bytes: u64,
    /// [`DERIVATION_VERSION`](crate::DERIVATION_VERSION) of the entry.
    pub(crate) derivation: u32,
    /// Name of the reference kernel.
    pub(crate) reference: Option<String>,
}

/// Number of cells by outcome.
pub type Outcomes = BTreeMap<Outcome, u64>;

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunRow {
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
    /// The rules that judged it; empty if unknown.
    pub rules: String,
    /// Name of the reference kernel.
    pub reference: Option<String>,
    /// Whether the run is synthetic.
    pub synthetic: bool,
    /// Number of cells by outcome.
    pub outcomes: Outcomes,
    /// The planned cells that did not run.
    pub ended_early: Option<EarlyEnd>,
}

/// One cell in one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CellVisit {
    /// The run.
    pub run: String,
    /// When it started, in seconds since 1970.
    pub started: i64,
    /// Number of the cell in the run.
    pub number: u32,
    /// Outcome of the cell.
    pub outcome: Outcome,
    /// Checks that failed.
    pub checks: Vec<String>,
    /// Fingerprint of the environment.
    pub environment: String,
    /// Build of the kernel.
    pub build: Build,
    /// `uname -r` in the guest.
    pub release: Option<String>,
}

/// Selects series. A field that is `None` matches all.
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
    /// Only ratios to a reference kernel (`true`), or only other series (`false`).
    pub ratios: Option<bool>,
}

/// A series.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SeriesRow {
    /// Id, as [`SeriesKey::id`] gives it.
    pub id: String,
    /// What its numbers were measured of.
    pub key: SeriesKey,
    /// Number of points.
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
    /// Outcome of that cell.
    pub outcome: Outcome,
    /// The median of its samples.
    pub value: f64,
    /// Whether the run is synthetic.
    pub synthetic: bool,
    /// Build of the kernel.
    pub build: Build,
    /// `uname -r` in the guest.
    pub release: Option<String>,
}
