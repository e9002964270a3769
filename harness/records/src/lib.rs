//! Records of runs. A run's directory has `run.json`, which says what was requested; `cells.jsonl`
//! with a line for each cell that ended, synced as it is written; `cells/` with the logs of each
//! guest; and documents about the run as a whole.

mod across;
mod cell;
mod comparison;
mod directories;
mod environment;
mod error;
mod estimate;
mod meta;
mod recorder;
mod rerun;
mod sidecar;
mod stored;
mod time;

pub use across::{judge_across_cells, judge_boot};
pub use cell::{CellRecord, PairedBoot, RECORD_SCHEMA};
pub use comparison::{
    BadBoot, Boots, COMPARISON_SCHEMA, CellComparison, CellEnd, Comparison, CountDifference,
    MetricComparison, MetricResult, Pairing, differing_counts, is_wanted, label,
};
pub use directories::{proofs_directory, runs_directory, state_directory};
pub use environment::{Build, Environment};
pub use error::RecordError;
pub use estimate::{RunPart, compare_runs};
pub use meta::{CaseText, HostFacts, RunMeta, rules};
pub use recorder::Recorder;
pub use rerun::{CellName, RunOptions};
pub use sidecar::RecordFile;
pub use stored::{EarlyEnd, RunLock, StoredRun, is_run, run_directories};
pub use time::{began_us, new_name, rfc3339, utc};
