//! What is asked, and who answers.

use std::{collections::BTreeSet, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::workspace::{Commit, Workspace};

/// What a bisection is about: the first line of its journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The user's repository.
    pub tree: PathBuf,
    /// The good end: what the user called it, and the commit.
    pub good: (String, String),
    /// The bad end, likewise.
    pub bad: (String, String),
    /// Checks that alone count; all that fail at the bad end where there is none.
    #[serde(default)]
    pub only: BTreeSet<String>,
    /// The probability that the answer may be wrong by noise, over all judgements together.
    pub error: f64,
    /// What the judge needs to know, in its own words.
    pub subject: serde_json::Value,
    /// How to ask again.
    pub command: String,
}

/// Why a commit is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It is the bad end: it shows the symptom.
    BadEnd,
    /// It is the good end, which must not.
    GoodEnd,
    /// The ends forked there.
    MergeBase,
    /// It halves what is left.
    Step,
    /// It is the guilty one, or its parent, once more.
    Confirmation,
}

impl Role {
    /// In a log's words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadEnd => "bad end",
            Self::GoodEnd => "good end",
            Self::MergeBase => "merge base",
            Self::Step => "step",
            Self::Confirmation => "confirmation",
        }
    }
}

/// A commit to be judged.
#[derive(Debug, Clone, Copy)]
pub struct JudgeRequest<'a> {
    /// Which.
    pub commit: &'a Commit,
    /// Why.
    pub role: Role,
    /// The good end, to compare with.
    pub good: &'a Commit,
    /// Where it can be had.
    pub workspace: &'a Workspace,
    /// The probability with which noise may turn this judgement.
    pub error: f64,
}

/// What was seen of a commit, without an opinion on what it means.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Checks that failed.
    #[serde(default)]
    pub failed: BTreeSet<String>,
    /// Checks that held.
    #[serde(default)]
    pub held: BTreeSet<String>,
    /// What kept it from being judged.
    #[serde(default)]
    pub obstacle: Option<SkipCause>,
    /// What kept a part of it from being judged: others may still hold or fail.
    #[serde(default)]
    pub unclear: Option<SkipCause>,
    /// Those of the checks that failed which a clock decides, so that a busy machine may have.
    #[serde(default)]
    pub clocked: BTreeSet<String>,
    /// The probability with which noise may have turned this; 0 where counts are exact.
    #[serde(default)]
    pub error: f64,
    /// Lines that show it, safe to be shown.
    #[serde(default)]
    pub evidence: Vec<String>,
    /// Where more of it is.
    #[serde(default)]
    pub record: Option<String>,
}

/// What kept a commit from being judged. It is skipped for that, and never blamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "at", content = "why")]
pub enum SkipCause {
    /// It does not build: the compiler's first error.
    Build(String),
    /// It does not come up.
    Boot(String),
    /// It can't be told.
    Unclear(String),
}

impl SkipCause {
    /// On a line.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Self::Build(why) => format!("does not build: {why}"),
            Self::Boot(why) => format!("does not boot: {why}"),
            Self::Unclear(why) => format!("not decided: {why}"),
        }
    }
}

/// Why there is no answer at all: nothing that the commit could be blamed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JudgeError {
    /// The host, the rig or its tools failed. It is tried once more, and then the bisection stops.
    Host(String),
    /// The user stopped it.
    Interrupted,
}

/// Who says what can be seen of a commit.
pub trait Judge {
    /// Builds, boots, looks.
    ///
    /// # Errors
    /// [`JudgeError`] where that failed for a reason that is not the commit's.
    fn judge(&mut self, asked: &JudgeRequest<'_>) -> Result<Evidence, JudgeError>;
}
