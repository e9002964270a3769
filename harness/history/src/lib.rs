//! What is kept of runs: append-only records, and the history that is derived from them.

mod alerts;
mod beside;
mod changes;
mod comparison;
mod derive;
mod entry;
mod environment;
mod events;
mod export;
mod failures;
mod import;
mod merge;
mod ratio;
mod record;
mod standing;
mod store;
mod synthetic;

pub use alerts::{Alert, Mark, What};
pub use changes::ChangeRow;
pub use comparison::{
    BadBoot, Boots, COMPARISON_SCHEMA, CellEnded, CompareError, Compared, ComparedCell,
    ComparedCount, ComparedMetric, Comparison, Pairing, Part, compare_runs, differing_counts,
    is_wanted, label,
};
pub use dmarig_model::kernel::KernelBuild;
pub use entry::{
    CellEntry, DERIVATION, Judged, Place, PointEntry, RunEntry, Sample, SeriesKey, Tally, variant,
};
pub use environment::{Build, Environment};
pub use events::{AlertEvent, AlertState, EVENT_SCHEMA};
pub use export::{ExportError, ExportFormat, Exported};
pub use import::{Collected, Fate, How, Imported, Keep, sweep_gone};
pub use merge::Merged;
pub use ratio::judge_ratios;
pub use record::{
    CaseText, CellRecord, EndedEarly, HostFacts, LoadError, RECORD_SCHEMA, Recorder, RunMeta,
    StoredRun, is_run, new_name, proofs_directory, rules, run_directories, runs_directory, utc,
};
pub use standing::{Asked, STANDING_SCHEMA, Standing, StandingMetric, Stood};
pub use store::{
    HISTORY_SCHEMA, History, HistoryError, Info, Outcomes, Point, Put, RunRow, SeriesFilter,
    SeriesRow, Visit, history_file,
};
pub use synthetic::{Planted, SYNTHETIC_NIGHTS, planted, synthetic_year};
