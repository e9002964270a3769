//! Runs cases on guests: selects cells, prepares kernels and QEMUs, schedules guests, judges and
//! records what they did. [`run()`] is the whole of it for one request; comparisons, seeded-bug trials
//! and the judge of a bisection are made of the same parts.
//!
//! Nothing here prints. Progress is a stream of [`Event`]s that a [`Reporter`] consumes.

mod baseline;
pub mod bisect;
pub mod builds;
mod cell_run;
mod error;
mod event;
mod history_gate;
pub mod host;
pub mod host_device;
mod meta;
mod nested;
pub mod paired;
pub mod prepare;
pub mod proof;
pub mod request;
mod run;
mod schedule;
pub mod select;
pub mod signals;
pub mod slower;
pub mod trial;

pub use baseline::Baseline;
pub use cell_run::{CellRun, RunOutcome};
pub use error::{Error, ErrorClass, PrepareError, RequestError, kernel_error_class};
pub use event::{Event, PairedValue, Reporter, Silent};
pub use history_gate::HistoryGate;
pub use meta::run_meta;
pub use run::{Run, RunRequest, remove_left_directories, run, run_selected};
pub use schedule::{FinishedCell, judge_across, sweeps_of};
