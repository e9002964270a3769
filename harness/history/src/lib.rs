//! What is kept of runs: append-only records, from which everything else is derived.

mod comparison;
mod record;

pub use comparison::{
    COMPARISON_SCHEMA, CompareError, Compared, ComparedCell, ComparedCount, ComparedMetric,
    Comparison, Pairing, Part, compare_runs, is_wanted, label,
};
pub use record::{
    CaseText, CellRecord, HostFacts, LoadError, RECORD_SCHEMA, Recorder, RunMeta, StoredRun,
    new_name, runs_directory,
};
