//! Progress of runs.

use std::path::Path;

use dmarig_model::matrix::Cell;
use dmarig_records::CellRecord;
use dmarig_rig::launch::Stage;

use crate::trial::Trial;

/// Something that happened in a run, in the order in which it happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A line about the preparation, such as a kernel's missing module.
    Note(&'a str),
    /// A cell's guest is about to be launched.
    CellStarted(&'a Cell),
    /// A cell's guest reached a stage.
    CellStage(&'a Cell, &'a Stage),
    /// A cell ended, was judged and recorded.
    CellFinished(&'a Cell, &'a CellRecord),
    /// The comparison of two cells starts.
    ComparisonStarted {
        /// What both cells have in common.
        label: &'a str,
    },
    /// A pair was measured.
    PairMeasured {
        /// Its number, from 1.
        number: usize,
        /// What it gave for each metric.
        values: &'a [PairedValue],
    },
    /// A pair was measured in vain.
    PairDiscarded {
        /// Why.
        reason: &'a str,
    },
    /// A record was completed.
    Recorded(&'a Path),
    /// A kernel's source was fetched and verified.
    SourceFetched {
        /// Its name.
        name: &'a str,
        /// Its version.
        version: &'a str,
    },
    /// The build of a kernel starts.
    BuildStarted {
        /// The kernel's name.
        name: &'a str,
    },
    /// A kernel with a seeded bug is timed in pairs with the good one.
    TimingStarted {
        /// The kernel with the bug.
        candidate: &'a str,
        /// The good kernel.
        baseline: &'a str,
    },
    /// A kernel of a proof was tried and judged.
    TrialFinished(&'a Trial),
}

/// What a pair gave for one metric.
#[derive(Debug, Clone, PartialEq)]
pub struct PairedValue {
    /// Name of the metric.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// The candidate's value.
    pub candidate: f64,
    /// The baseline's value.
    pub baseline: f64,
}

/// Consumes events. It is called on the thread that runs the guests and must not block.
pub trait Reporter {
    /// Takes one event.
    fn report(&self, event: &Event<'_>);
}

/// A reporter that ignores all events.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn report(&self, _event: &Event<'_>) {}
}
