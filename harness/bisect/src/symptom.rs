//! What was seen, and what it means.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::question::Evidence;

/// What a commit is taken for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "why")]
pub enum Verdict {
    /// All checks of the symptom held.
    Good,
    /// It shows the symptom.
    Bad,
    /// It says nothing: why.
    Skip(String),
}

impl Verdict {
    /// In git's word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Skip(_) => "skip",
        }
    }
}

/// What a commit is taken for, by a symptom: the checks that fail at the bad end. Another failure is
/// another bug, behind which the symptom may be there or not.
#[must_use]
pub fn classify(symptom: &BTreeSet<String>, seen: &Evidence) -> Verdict {
    if let Some(obstacle) = &seen.obstacle {
        return Verdict::Skip(obstacle.told());
    }
    if seen.failed.intersection(symptom).next().is_some() {
        return Verdict::Bad;
    }
    if symptom.is_subset(&seen.held) {
        return Verdict::Good;
    }
    let list = |names: &mut dyn Iterator<Item = &String>| {
        names.take(4).cloned().collect::<Vec<_>>().join(", ")
    };
    let open = list(&mut symptom.difference(&seen.held));
    let why = match seen.failed.is_empty() {
        true => format!("{open} could not be judged"),
        false => format!("{open} could not be judged; failed at {}", list(&mut seen.failed.iter())),
    };
    Verdict::Skip(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::SkipCause;

    fn set(names: &str) -> BTreeSet<String> {
        names.split_ascii_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn only_the_symptom_makes_a_commit_bad() {
        for (failed, held, name) in [
            ("", "a b", "good"),
            ("a", "b", "bad"),
            ("a b", "", "bad"),
            // Another bug beside checks that held is no matter; in front of them it hides them.
            ("c", "a b", "good"),
            ("c", "a", "skip"),
            ("", "", "skip"),
        ] {
            let seen = Evidence { failed: set(failed), held: set(held), ..Evidence::default() };
            assert_eq!(
                classify(&set("a b"), &seen).name(),
                name,
                "failed `{failed}`, held `{held}`"
            );
        }
    }

    #[test]
    fn what_does_not_build_or_boot_is_skipped_whatever_else_is_said() {
        for obstacle in [
            SkipCause::Build("x".into()),
            SkipCause::Boot("x".into()),
            SkipCause::Unclear("x".into()),
        ] {
            let seen =
                Evidence { failed: set("a"), obstacle: Some(obstacle), ..Evidence::default() };
            assert_eq!(classify(&set("a"), &seen).name(), "skip");
        }
    }
}
