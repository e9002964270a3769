//! What is kept of runs: append-only records, and the history that is derived from them.

mod alerts;
mod changes;
mod derive;
mod entry;
mod events;
mod export;
mod failures;
mod import;
mod merge;
mod standing;
mod store;

pub use alerts::{Alert, Mark, What};
pub use changes::ChangeRow;
pub use derive::{median_point, reference_ratios};
pub use entry::{
    CellEntry, DERIVATION, Judged, Place, PointEntry, RunEntry, Sample, SeriesKey, Tally, variant,
};
pub use events::{AlertEvent, AlertState, EVENT_SCHEMA};
pub use export::{ExportError, ExportFormat, Exported};
pub use import::{Collected, Fate, How, Imported, Keep, sweep_gone};
pub use merge::Merged;
pub use standing::{Asked, STANDING_SCHEMA, Standing, StandingMetric, Stood};
pub use store::{
    HISTORY_SCHEMA, History, HistoryError, Info, Outcomes, Point, Put, RunRow, SeriesFilter,
    SeriesRow, Visit, history_file,
};
