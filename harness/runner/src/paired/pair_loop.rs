//! The loop that runs pairs. Whoever compares two things uses it: comparisons, runs with a baseline,
//! bisections by a metric, and trials of bugs that only cost time.

use dmarig_model::measure::Measured;
use dmarig_stats::paired::Arm;
use tokio::sync::watch;

use super::series::MetricSeries;
use crate::event::{Event, Reporter};

/// Pairs of one comparison that may be discarded in a row.
const DISCARDED_IN_A_ROW: usize = 2;

/// Why there is no pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PairError {
    /// There will be none either.
    Final(String),
    /// The next one may succeed.
    Discarded(String),
}

/// What one step of the loop did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It measured something: a warm-up, a pair, or several pairs.
    Measured,
    /// It measured a pair, and the metric is an exact count that needs no more.
    Exact,
    /// No pair is due.
    NothingDue,
}

/// Where pairs come from.
pub(crate) trait PairSource {
    /// Measures what is due next and adds it to the series, which it makes where there is none.
    ///
    /// # Errors
    /// [`PairError`]
    async fn step(&mut self, series: &mut Option<MetricSeries>) -> Result<Step, PairError>;
}

/// How the loop ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LoopEnd {
    /// All pairs that were due were run.
    Decided,
    /// An exact count needs no more pairs.
    Exact,
    /// It cannot go on, or the user stopped it.
    Stopped(String),
}

/// The reason of a loop that the user stopped.
pub(crate) const INTERRUPTED: &str = "interrupted";

/// Runs pairs until each limit is decided.
pub(crate) async fn run_pairs(
    source: &mut impl PairSource,
    series: &mut Option<MetricSeries>,
    interrupted: &watch::Receiver<bool>,
    reporter: &dyn Reporter,
) -> LoopEnd {
    let mut discarded = 0;
    loop {
        if *interrupted.borrow() {
            return LoopEnd::Stopped(INTERRUPTED.to_owned());
        }
        let pairs_before = series.as_ref().map_or(0, MetricSeries::pairs);
        let step = source.step(series).await;
        if let Some(series) = series {
            for number in pairs_before + 1..=series.pairs() {
                let values = series.pair(number);
                reporter.report(&Event::PairMeasured { number, values: &values });
            }
        }
        match step {
            Ok(Step::Measured) => discarded = 0,
            Ok(Step::Exact) => return LoopEnd::Exact,
            Ok(Step::NothingDue) => return LoopEnd::Decided,
            Err(PairError::Final(reason)) => return LoopEnd::Stopped(reason),
            Err(PairError::Discarded(reason)) => {
                reporter.report(&Event::PairDiscarded { reason: &reason });
                discarded += 1;
                if discarded == DISCARDED_IN_A_ROW {
                    return LoopEnd::Stopped(reason);
                }
            }
        }
    }
}

/// What a boot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Its times are discarded. It counts where the case counts.
    WarmUp,
    /// It is one side of the pair with this number, from 0.
    Pair(usize),
}

/// Boots one side at a time.
pub(crate) trait BootArm {
    /// Boots a side and returns what it measured.
    ///
    /// # Errors
    /// [`PairError`]
    async fn boot(&mut self, arm: Arm, purpose: Purpose) -> Result<Vec<Measured>, PairError>;

    /// The series, from what the warm-ups of the candidate and the baseline measured.
    ///
    /// # Errors
    /// [`PairError`]
    fn first_series(&mut self, warm_ups: &[Vec<Measured>; 2]) -> Result<MetricSeries, PairError>;
}

/// Pairs whose sides are booted one after the other.
pub(crate) struct SeparateBoots<B> {
    boots: B,
    warm_up_due: bool,
}

impl<B: BootArm> SeparateBoots<B> {
    /// Pairs of `boots`, after a warm-up of both sides where `warm_up` says so.
    pub(crate) fn new(boots: B, warm_up: bool) -> Self {
        Self { boots, warm_up_due: warm_up }
    }

    /// What the boots left.
    pub(crate) fn into_inner(self) -> B {
        self.boots
    }

    async fn warm_up(&mut self) -> Result<[Vec<Measured>; 2], PairError> {
        let baseline = self.boots.boot(Arm::Baseline, Purpose::WarmUp).await?;
        let candidate = self.boots.boot(Arm::Candidate, Purpose::WarmUp).await?;
        self.warm_up_due = false;
        Ok([candidate, baseline])
    }
}

impl<B: BootArm> PairSource for SeparateBoots<B> {
    async fn step(&mut self, series: &mut Option<MetricSeries>) -> Result<Step, PairError> {
        let Some(series) = series else {
            let warm_ups = self.warm_up().await?;
            *series = Some(self.boots.first_series(&warm_ups)?);
            return Ok(Step::Measured);
        };
        if self.warm_up_due {
            self.warm_up().await?;
            return Ok(Step::Measured);
        }
        let Some(turn) = series.due() else { return Ok(Step::NothingDue) };
        let mut both = [Vec::new(), Vec::new()];
        for arm in turn.order {
            both[arm as usize] = self.boots.boot(arm, Purpose::Pair(turn.number)).await?;
        }
        series.add(&both, None)?;
        Ok(if series.is_exact() { Step::Exact } else { Step::Measured })
    }
}

#[cfg(test)]
mod tests;
