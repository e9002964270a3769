//! The judge of a bisection: builds a revision, runs cells on it, and collects the evidence.

mod builds;
mod evidence;
mod guests;
mod judge;
mod metric;
pub mod session;
mod spec;

pub use self::{
    judge::{CellJudge, JudgeSetup, Revision},
    spec::{JudgeSpec, case_of},
};
