//! Finds the commit that changed a judgement: the git side of a bisection, and its memory.
//!
//! - The user's repository is only read: its objects are borrowed by a [`Workspace`] of our own, so that
//!   not a byte of it changes, whatever kills us.
//! - What was judged stands in a journal, synced line by line. All state follows from it: to go on is to
//!   run again with the answers that are there.
//! - What a [`Judge`] sees of a commit is kept apart from what it means. The bad end shows the symptom;
//!   only a commit that shows it is bad, only one in which the same checks held is good, and all others
//!   (not built, not booted, broken in another way, not decided) are skipped and never blamed.

mod bisection;
mod error;
mod git;
mod journal;
mod question;
mod search;
mod summary;
mod symptom;
mod workspace;

pub use bisection::{Bisection, Events};
pub use error::Error;
pub use journal::{Entry, Journal};
pub use question::{Evidence, Judge, JudgeError, JudgeRequest, Question, Role, SkipCause};
pub use summary::{Conclusion, Step, Summary};
pub use symptom::{Verdict, classify};
pub use workspace::{Commit, Workspace};

/// What every function here returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;
