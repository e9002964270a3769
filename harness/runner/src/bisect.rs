//! The judge of a bisection: builds a revision, runs cells on it, and collects the evidence.

mod builds;
mod evidence;
mod guests;
mod judge;
mod metric;
mod spec;

pub use self::{
    builds::{NewBuildProgress, kernel_error_class},
    judge::{CellJudge, JudgeSetup, Revision},
    spec::{JudgeSpec, case_of},
};
