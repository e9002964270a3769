//! What was asked and answered, a line each, on the disk before anything rests on it.

use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    question::{Evidence, Question, Role},
    workspace::Commit,
};

/// Version of the journal's layout.
pub(crate) const JOURNAL_SCHEMA: u32 = 1;

const FILE: &str = "journal.jsonl";

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
#[non_exhaustive]
pub enum Entry {
    /// The first one.
    JudgeRequest {
        /// Version of the layout.
        schema: u32,
        /// What is asked.
        question: Question,
    },
    /// A commit was judged.
    Judged {
        /// Which.
        commit: Commit,
        /// Why.
        role: Role,
        /// What was seen.
        seen: Evidence,
        /// How long it took, in milliseconds.
        took_ms: u64,
    },
    /// It could not be judged, through no fault of the commit.
    JudgeError {
        /// Which.
        commit: String,
        /// Why it was to be judged.
        role: Role,
        /// What happened.
        said: String,
    },
}

/// The memory of a bisection.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    file: File,
    question: Question,
    /// Answers that were read back and not yet used, by what was asked.
    remembered: HashMap<(String, Role), VecDeque<Evidence>>,
}

#[derive(Deserialize)]
struct JustSchema {
    schema: u32,
}

impl Journal {
    /// Begins one in a new `directory`.
    ///
    /// # Errors
    /// What the system says, with the place.
    pub fn create(directory: &Path, question: Question) -> Result<Self> {
        let path = directory.join(FILE);
        fs::create_dir_all(directory).map_err(Error::io(directory))?;
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&path)
            .map_err(Error::io(&path))?;
        File::open(directory).and_then(|place| place.sync_all()).map_err(Error::io(directory))?;
        let mut journal = Self {
            directory: directory.to_owned(),
            file,
            question: question.clone(),
            remembered: HashMap::new(),
        };
        journal.add(&Entry::JudgeRequest { schema: JOURNAL_SCHEMA, question })?;
        Ok(journal)
    }

    /// Goes on with one.
    ///
    /// # Errors
    /// What is wrong with it, with the line. A last line that was cut short is taken away: what it told of
    /// is asked again.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let bytes = fs::read(&path).map_err(Error::io(&path))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let damaged =
            |line: usize, error: String| Error::Damaged { path: path.clone(), line, error };
        let mut question = None;
        let mut remembered: HashMap<_, VecDeque<Evidence>> = HashMap::new();
        let lines = bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        for (line, number) in lines.zip(1..) {
            if number == 1
                && let Ok(JustSchema { schema: found }) = serde_json::from_slice(line)
                && found > JOURNAL_SCHEMA
            {
                return Err(Error::Newer { path, found });
            }
            match serde_json::from_slice(line)
                .map_err(|error| damaged(number, error.to_string()))?
            {
                Entry::JudgeRequest { question: asked, .. } => question = Some(asked),
                Entry::Judged { commit, role, seen, .. } => {
                    remembered.entry((commit.id, role)).or_default().push_back(seen);
                }
                Entry::JudgeError { .. } => {}
            }
        }
        let question =
            question.ok_or_else(|| damaged(1, "it does not contain the question".to_owned()))?;
        let file = OpenOptions::new().append(true).open(&path).map_err(Error::io(&path))?;
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(Error::io(&path))?;
        }
        Ok(Self { directory: directory.to_owned(), file, question, remembered })
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What is asked.
    #[must_use]
    pub const fn question(&self) -> &Question {
        &self.question
    }

    /// An answer that an earlier run had got.
    pub(crate) fn recall(&mut self, commit: &str, role: Role) -> Option<Evidence> {
        self.remembered.get_mut(&(commit.to_owned(), role))?.pop_front()
    }

    /// Adds a line, and returns when it is on the disk.
    pub(crate) fn add(&mut self, entry: &Entry) -> Result<()> {
        let path = self.directory.join(FILE);
        let told = |error: std::io::Error| Error::Io { path: path.clone(), error };
        let mut line = serde_json::to_vec(entry).map_err(|error| told(error.into()))?;
        line.push(b'\n');
        let before = self.file.metadata().map_err(told)?.len();
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        written.map_err(|error| {
            // Half a line of a full disk would spoil the next one.
            let _ = self.file.set_len(before);
            told(error)
        })
    }
}
