//! The history of runs: an SQLite database that is derived from records, with series of numbers,
//! change points, alerts and exports.

mod alerts;
mod changes;
mod derive;
mod entry;
mod error;
mod events;
mod export;
mod failures;
mod history_check;
mod import;
mod merge;
mod store;

pub use alerts::{Alert, AlertEnd, AlertKind};
pub use changes::ChangeRow;
pub use derive::{median_point, reference_ratios};
pub use entry::{
    CellEntry, CellKey, CheckTallies, DERIVATION_VERSION, PointEntry, RunEntry, Sample, SeriesKey,
    Tally, variant,
};
pub use error::HistoryError;
pub use events::{AlertEvent, AlertState, EVENT_SCHEMA};
pub use export::{ExportFormat, ExportSelection};
pub use history_check::{
    HISTORY_JUDGEMENT_SCHEMA, HistoryCheckInput, HistoryJudgement, HistoryMetric, HistoryVerdict,
};
pub use import::{GcAction, GcReport, ImportOptions, ImportReport, Retention, sweep_gone};
pub use merge::MergeReport;
pub use store::{
    CellVisit, HISTORY_SCHEMA, History, InsertOutcome, Outcomes, Point, RunRow, SeriesFilter,
    SeriesRow, Summary, history_file,
};
