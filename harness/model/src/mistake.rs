//! Mistakes in a document, with their places.

use std::fmt::{self, Write as _};

/// A line and a column, both from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// One step of a path into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// A path as a person writes it: `axes.policy[1]`.
pub(crate) fn path_text(path: &[Step]) -> String {
    path.iter().fold(String::new(), |mut text, step| {
        let _ = match step {
            Step::Key(key) if text.is_empty() => write!(text, "{key}"),
            Step::Key(key) => write!(text, ".{key}"),
            Step::Index(index) => write!(text, "[{index}]"),
        };
        text
    })
}

/// Something that is wrong with a document.
#[derive(Debug, Clone)]
pub(crate) struct Mistake {
    pub(crate) path: Vec<Step>,
    pub(crate) place: Option<Place>,
    pub(crate) what: String,
    /// What is missing below `path`, where that is the mistake.
    pub(crate) missing: Option<Missing>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missing {
    /// This key.
    Key(String),
    /// Every item of a list.
    Items,
}

impl Mistake {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { path: Vec::new(), place: None, what: what.into(), missing: None }
    }

    pub(crate) fn standing(mut self, place: Place) -> Self {
        self.place.get_or_insert(place);
        self
    }

    pub(crate) fn under(mut self, path: &[Step]) -> Self {
        self.path.splice(0..0, path.iter().cloned());
        self
    }

    pub(crate) fn below(mut self, step: Step) -> Self {
        self.path.insert(0, step);
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Mistake {}
