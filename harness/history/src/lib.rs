//! What is kept of runs: append-only records, from which everything else is derived.

mod record;

pub use record::{
    CaseText, CellRecord, HostFacts, LoadError, RECORD_SCHEMA, Recorder, RunMeta, StoredRun,
    new_name, runs_directory,
};
