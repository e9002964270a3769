//! What `bisect` and `bisect-step` have in common: building a revision, running cells on it, and what is
//! seen of them.

mod builds;
mod compare;
mod guests;
mod judge;
mod seen;
mod subject;

pub(crate) use self::{
    judge::{CellJudge, Revision},
    subject::{Subject, SubjectOptions},
};
