//! What is kept of runs: append-only records, and the history that is derived from them.

mod alerts;
mod changes;
mod derive;
mod entry;
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
pub use events::{AlertEvent, AlertState, EVENT_SCHEMA};
pub use export::{ExportError, ExportFormat, ExportSelection};
pub use history_check::{
    HISTORY_JUDGEMENT_SCHEMA, HistoryCheckInput, HistoryJudgement, HistoryMetric, HistoryVerdict,
};
pub use import::{GcAction, GcReport, ImportOptions, ImportReport, Retention, sweep_gone};
pub use merge::MergeReport;
pub use store::{
    CellVisit, HISTORY_SCHEMA, History, HistoryError, InsertOutcome, Outcomes, Point, RunRow,
    SeriesFilter, SeriesRow, Summary, history_file,
};
