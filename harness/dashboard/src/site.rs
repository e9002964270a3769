//! What a site is made of. Whoever fills this in knows where it is stored; the pages do not.

use std::sync::Arc;

use dmarig_model::observation::Outcome;
use dmarig_report::{CellFacts, JudgedMetric, Reference};

/// Where a served site tells of news: a stream of server-sent events, each with the version of what
/// is served. A page that was made from another version loads itself again.
pub const EVENTS: &str = "events";

/// All that the pages tell. Indices of one list into another are positions in it.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// When it was put together, in seconds since 1970.
    pub generated: i64,
    /// Whether pages are served by a program that tells them of news (see [`crate::EVENTS`]).
    pub live: bool,
    /// Runs, the oldest first.
    pub runs: Vec<Run>,
    /// From which run on it was looked up how numbers were judged beside others.
    pub judged_from: usize,
    /// Machines and hypervisors that cells ran on.
    pub environments: Vec<Environment>,
    /// Every cell that any run has, once for each environment that it ran in.
    pub cells: Vec<Cell>,
    /// What is followed from run to run.
    pub series: Vec<Series>,
    /// Changes that somebody is to look at, the newest first.
    pub alerts: Vec<Alert>,
    /// Sweeps over live mappings, the newest first.
    pub sweeps: Vec<Sweep>,
}

/// A machine and hypervisor that cells ran on.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// What tells it from all others.
    pub key: String,
    /// What it is called, in as few words as tell it from the others.
    pub name: String,
    /// What is known of it: name and value, the same names of all.
    pub facts: Vec<(String, String)>,
}

/// A run, in short.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// When it started, in seconds since 1970.
    pub started: i64,
    /// The command line that started it.
    pub command: String,
    /// What tells its machine from others, whatever system is on it.
    pub machine: String,
    /// Facts of the host and of what it ran on: name and value.
    pub environment: Vec<(String, String)>,
    /// How its cells ended.
    pub results: Vec<CellResult>,
    /// Cells that were planned and never ran, where it ended early.
    pub not_run: usize,
    /// Its numbers where they were judged beside others, from [`Site::judged_from`] on.
    pub judged: Vec<JudgedNumbers>,
}

impl Run {
    /// That it ended early, where it did.
    pub(crate) fn ended_early(&self) -> Option<String> {
        let planned = self.results.len() + self.not_run;
        let told = || format!("ended early, {} of {planned} cells did not run", self.not_run);
        (self.not_run > 0).then(told)
    }
}

/// Numbers of a run that were judged beside others: those of the runs before it, or a baseline's.
#[derive(Debug, Clone, Default)]
pub struct JudgedNumbers {
    /// Beside what, and how.
    pub against: String,
    /// By what they were judged.
    pub reference: Reference,
    /// The numbers.
    pub numbers: Vec<JudgedNumber>,
    /// What a reader must know to trust it.
    pub notes: Vec<String>,
}

/// A number with what was thought of it.
#[derive(Debug, Clone, Default)]
pub struct JudgedNumber {
    /// By what it is known for the same in another run, in which it may be judged again.
    pub key: String,
    /// The cell, or what the cells have in common.
    pub place: String,
    /// Index of the series that it belongs to, where that is known.
    pub series: Option<usize>,
    /// The number with its verdict.
    pub metric: JudgedMetric,
}

/// A cell in one environment, whatever run it is of.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// Its id.
    pub id: String,
    /// Its case.
    pub case: String,
    /// The name of its kernel.
    pub kernel: String,
    /// What tells it from the others of its case, but for the kernel.
    pub variant: String,
    /// Index of the environment.
    pub environment: usize,
}

impl Cell {
    /// What makes it the same cell in another environment.
    pub(crate) fn place(&self) -> [&str; 4] {
        [&self.id, &self.case, &self.variant, &self.kernel]
    }
}

/// How a cell ended.
#[derive(Debug, Clone)]
pub struct CellResult {
    /// Index of the cell.
    pub cell: usize,
    /// How it ended.
    pub outcome: Outcome,
    /// The kernel as it says itself: release, commit, or what is known of either.
    pub kernel: Arc<str>,
    /// Names of the checks that did not hold.
    pub broken: Vec<Arc<str>>,
    /// All that was checked; `None` where only is known what did not hold.
    pub checks: Option<Arc<[Checked]>>,
}

/// How a check came out in a cell. Mostly it is there once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Its name.
    pub name: Arc<str>,
    /// Times that it held.
    pub held: u32,
    /// Times that it did not.
    pub broken: u32,
    /// Times that it could not be judged.
    pub unjudged: u32,
}

/// What is told of a run on its own page alone.
#[derive(Debug, Clone, Default)]
pub struct RunDetails {
    /// Of its cells.
    pub cells: Vec<CellDetails>,
    /// What a reader must know, such as that the record is gone.
    pub notes: Vec<String>,
}

/// All that is known of how a cell ended.
#[derive(Debug, Clone, Default)]
pub struct CellDetails {
    /// Index of the cell.
    pub cell: usize,
    /// Why it did not pass.
    pub reasons: Vec<String>,
    /// What was observed.
    pub facts: CellFacts,
    /// What was checked.
    pub checks: Vec<Check>,
    /// Lines of logs that are worth reading, under the name of the log.
    pub logs: Vec<(String, Vec<String>)>,
    /// The command that runs it again.
    pub again: String,
}

/// One thing that was checked.
#[derive(Debug, Clone, Default)]
pub struct Check {
    /// What.
    pub name: String,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// Whether it held; `None` where it could not be judged.
    pub held: Option<bool>,
    /// Lines that show it.
    pub evidence: Vec<String>,
}

/// Which way a metric is better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Better {
    /// Less of it.
    Lower,
    /// More of it.
    Higher,
    /// Not known.
    #[default]
    Unknown,
}

/// One metric of one variant on one kernel in one environment.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// What tells it from all others, and stays the same from night to night.
    pub key: String,
    /// Its case.
    pub case: String,
    /// The variant.
    pub variant: String,
    /// The kernel's name.
    pub kernel: String,
    /// The metric.
    pub metric: String,
    /// Its unit; `1` for none.
    pub unit: String,
    /// What its values are divided by, where they are ratios.
    pub reference: Option<String>,
    /// Index of the environment that it is measured in.
    pub environment: usize,
    /// Which way it is better.
    pub better: Better,
    /// Its points, the oldest first.
    pub points: Vec<Point>,
    /// Whether changes are looked for: in counts as they are, and in times only in relation to what ran
    /// beside, since a machine's level wanders and takes them with it.
    pub searched: bool,
    /// Where it changed, the first first.
    pub changes: Vec<Change>,
}

/// A point of a series.
#[derive(Debug, Clone)]
pub struct Point {
    /// Index of the run.
    pub run: usize,
    /// The value, in the series' unit.
    pub value: f64,
    /// How many samples it is the median of; 0 where that is not known.
    pub samples: u32,
    /// The kernel as it says itself.
    pub kernel: Arc<str>,
}

/// Where a series changed.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Index of the first point of what is new.
    pub at: usize,
    /// Level before.
    pub before: f64,
    /// Level after.
    pub after: f64,
    /// The part of shufflings with a change as strong.
    pub p: f64,
}

/// What became of an alert.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AlertState {
    /// Nobody has looked at it.
    #[default]
    New,
    /// It is real.
    Confirmed,
    /// It is nothing.
    Invalid,
    /// It is over.
    Fixed,
    /// Nobody has to look at it: it is for the better.
    Improved,
}

impl AlertState {
    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Confirmed => "confirmed",
            Self::Invalid => "invalid",
            Self::Fixed => "fixed",
            Self::Improved => "for the better",
        }
    }
}

/// What an alert is about.
#[derive(Debug, Clone)]
pub enum Subject {
    /// The change of a series that begins with this point.
    Series {
        /// Index of the series.
        series: usize,
        /// Index of the point; the series' last where it has fewer.
        point: usize,
    },
    /// A cell that does not pass any more.
    Cell(usize),
    /// Something else, in words.
    Other(String),
}

/// A change that somebody is to look at.
#[derive(Debug, Clone)]
pub struct Alert {
    /// Its id.
    pub id: String,
    /// What became of it.
    pub state: AlertState,
    /// What it is about.
    pub subject: Subject,
    /// What happened, in words; may be empty where the subject tells.
    pub what: String,
    /// The last run before it.
    pub last_good: Option<usize>,
    /// The first run that shows it.
    pub first_bad: Option<usize>,
    /// The first run that does not show it any more.
    pub until: Option<usize>,
    /// The kernel of the last run before it.
    pub good_kernel: String,
    /// The kernel of the first run that shows it.
    pub bad_kernel: String,
    /// What somebody said of it.
    pub note: String,
}

/// A sweep over live mappings.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// What it is of.
    pub title: String,
    /// The run that it is of.
    pub run: usize,
    /// Index of the environment that it was measured in.
    pub environment: usize,
    /// Its cells.
    pub cells: dmarig_model::sweep::Sweep,
}
