//! The two sides of a comparison, as a user names them.

use std::path::Path;

use dmarig_model::{
    conditions::AxisSets,
    matrix::{MatrixError, parse_override},
    text::shown,
    windows::Side,
};
use dmarig_records::{RecordError, RunPart, StoredRun};

/// One side of a comparison.
pub enum Subject {
    /// A part of a recorded run.
    Stored(Box<StoredPart>),
    /// A variant to run.
    Variant {
        /// Values of axes, each `axis=value`.
        sets: Vec<String>,
        /// The side of its windows.
        side: Side,
    },
}

/// A part of a recorded run.
pub struct StoredPart {
    run: StoredRun,
    only: AxisSets,
    side: Side,
}

impl StoredPart {
    /// The part, for an estimate.
    #[must_use]
    pub fn part(&self) -> RunPart<'_> {
        RunPart { run: &self.run, only: &self.only, side: self.side }
    }
}

/// A text that does not name a side of a comparison.
#[derive(Debug, thiserror::Error)]
pub enum SubjectError {
    /// An axis or a value that does not exist.
    #[error(transparent)]
    Axis(#[from] MatrixError),
    /// A recorded run that cannot be read.
    #[error(transparent)]
    Run(#[from] RecordError),
    /// A word without `=`.
    #[error("`{0}`: write axis=value,axis=value")]
    Word(String),
}

impl Subject {
    /// Parses a recorded run below `runs` (its id, directory or `last`), optionally with `:axis=value,...`
    /// for a part of it; or `axis=value,...`; or a kernel. A name that is not a run is taken for a kernel.
    ///
    /// # Errors
    /// [`SubjectError`]
    pub fn parse(text: &str, runs: &Path) -> Result<Self, SubjectError> {
        let (head, rest) = match text.split_once(':') {
            Some((head, rest)) if !head.contains('=') => (head, rest),
            _ => (text, ""),
        };
        if head.contains('=') {
            let (sets, side) = axis_values(text)?;
            return Ok(Self::Variant { sets, side });
        }
        match StoredRun::load(head, runs) {
            Ok(run) => {
                let (sets, side) = axis_values(rest)?;
                let mut only = AxisSets::default();
                for set in &sets {
                    parse_override(set, &mut only)?;
                }
                Ok(Self::Stored(Box::new(StoredPart { run, only, side })))
            }
            Err(RecordError::UnknownRun { .. }) => {
                Ok(Self::Variant { sets: vec![format!("kernel={text}")], side: Side::Own })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The words `axis=value` of a list, and the side, which is not an axis.
fn axis_values(text: &str) -> Result<(Vec<String>, Side), SubjectError> {
    let mut sets = Vec::new();
    let mut side = Side::Own;
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word {
            "control=on" => side = Side::Control,
            "control=off" => side = Side::Own,
            _ if word.contains('=') => sets.push(word.to_owned()),
            _ => return Err(SubjectError::Word(shown(word))),
        }
    }
    Ok((sets, side))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const NOWHERE: &str = "/nonexistent";

    #[rstest]
    #[case::kernel("debian-6.1", &["kernel=debian-6.1"], Side::Own)]
    #[case::path("./arch/x86/boot/bzImage", &["kernel=./arch/x86/boot/bzImage"], Side::Own)]
    #[case::axes("policy=lazy, kernel=a,control=on", &["policy=lazy", "kernel=a"], Side::Control)]
    fn takes_a_name_that_is_not_a_run_for_a_variant(
        #[case] text: &str,
        #[case] expected: &[&str],
        #[case] expected_side: Side,
    ) {
        let Ok(Subject::Variant { sets, side }) = Subject::parse(text, Path::new(NOWHERE)) else {
            panic!("{text} is not a variant")
        };
        assert_eq!(
            (&*sets, side),
            (&*expected.iter().map(|set| (*set).to_owned()).collect::<Vec<_>>(), expected_side)
        );
    }

    #[test]
    fn rejects_a_value_without_an_axis() {
        let parsed = Subject::parse("policy=lazy,strict", Path::new(NOWHERE));
        assert!(matches!(parsed, Err(SubjectError::Word(word)) if word == "strict"));
    }
}
