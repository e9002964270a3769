//! The order of outcomes.

use dmarig_model::observation::Outcome;

/// All outcomes, the worst first.
pub(crate) const WORST: [Outcome; 5] =
    [Outcome::Failed, Outcome::TimedOut, Outcome::Errored, Outcome::Passed, Outcome::Skipped];

/// The worst of these: what is said of a lot of cells.
pub(crate) fn worst(outcomes: impl IntoIterator<Item = Outcome>) -> Option<Outcome> {
    let rank = |one: &Outcome| WORST.iter().position(|other| other == one);
    outcomes.into_iter().min_by_key(rank)
}
