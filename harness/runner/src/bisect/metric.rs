//! A metric of two kernels, in pairs of runs, until it is decided which is worse.

use dmarig_bisect::{Evidence, JudgeError, SkipCause};
use dmarig_model::{
    limit::Limit,
    measure::{Measured, metric},
    metrics::{Better, unit_of},
    windows::Side,
};
use dmarig_stats::{
    paired::{Arm, Judgement},
    sequence::{Metric, Rule},
};
use tokio::sync::watch;

use super::{
    evidence::{evidence, key},
    guests::{Guests, RecordedCells},
    spec::JudgeSpec,
};
use crate::{
    event::Silent,
    paired::{
        BootArm, EXACT_AFTER, LoopEnd, MetricSeries, PairError, Purpose, SeparateBoots, better,
        run_pairs,
    },
};

/// Seed of the order of pairs. Any will do; a fixed one can be repeated.
const SEED: u64 = 0x646d_6172_6967;

/// The comparison of one metric.
pub(super) struct MetricComparison {
    limit: f64,
    name: String,
    counted: bool,
    series: MetricSeries,
}

impl MetricComparison {
    /// A comparison of a metric that may be worse by its limit, with at most `error` probability of a
    /// wrong answer and at most so many pairs.
    pub(super) fn new(limit: &Limit, error: f64, pairs: usize) -> Result<Self, JudgeError> {
        let Limit { metric: name, better: direction, percent } = limit;
        let wrong =
            |reason: &dyn std::fmt::Display| JudgeError::Host(format!("--metric {name}: {reason}"));
        let rule = Rule::until(error, pairs).map_err(|error| wrong(&error))?;
        // A program's metric: its unit is known only when it has run, which is too late to ask.
        let unknown = format!("add the better direction: {name}:lower or {name}:higher");
        let direction = direction.or(Better::of(name, "")).ok_or_else(|| wrong(&unknown))?;
        let metric =
            Metric { name: name.clone(), better: better(Some(direction)), limit: Some(*percent) };
        let unit = unit_of(name).unwrap_or_default();
        let series = match MetricSeries::of_metric(SEED, rule, metric, unit) {
            Ok(series) => series,
            Err(PairError::Final(reason) | PairError::Discarded(reason)) => {
                return Err(wrong(&reason));
            }
        };
        Ok(Self { limit: *percent, name: name.clone(), counted: unit == "1", series })
    }

    /// Runs pairs until it is decided. A warm-up of both sides is discarded where a clock runs.
    pub(super) async fn run(
        self,
        guests: &Guests,
        spec: &JudgeSpec,
        kernels: [&str; 2],
        interrupted: watch::Receiver<bool>,
    ) -> Result<Evidence, JudgeError> {
        let Self { limit, name, counted, series } = self;
        let boots = KernelBoots {
            guests,
            spec,
            kernels,
            metric: &name,
            counted,
            interrupted: &interrupted,
            record: String::new(),
            end: None,
        };
        let mut source = SeparateBoots::new(boots, !counted);
        let mut series = Some(series);
        let end = run_pairs(&mut source, &mut series, &interrupted, &Silent).await;
        let boots = source.into_inner();
        if let Some(end) = boots.end {
            return end;
        }
        let Some(series) = series else { return Err(JudgeError::Interrupted) };
        let verdict = Verdict { name: &name, limit, series: &series, record: boots.record };
        match end {
            LoopEnd::Exact => Ok(verdict.decided(series.exact_is_worse(limit), 0.0)),
            LoopEnd::Decided => Ok(verdict.concluded()),
            LoopEnd::Stopped(_) if *interrupted.borrow() => Err(JudgeError::Interrupted),
            LoopEnd::Stopped(reason) => Err(JudgeError::Host(reason)),
        }
    }
}

/// What a run gave.
enum Value {
    Measured(Measured),
    /// What was observed instead.
    SkipCause(Box<Evidence>),
}

/// Boots of the two kernels, each recorded as a run.
struct KernelBoots<'a> {
    guests: &'a Guests,
    spec: &'a JudgeSpec,
    /// The candidate and the baseline.
    kernels: [&'a str; 2],
    metric: &'a str,
    counted: bool,
    interrupted: &'a watch::Receiver<bool>,
    /// The record of the candidate's last run.
    record: String,
    /// Why there is no comparison: what was observed instead, or trouble.
    end: Option<Result<Evidence, JudgeError>>,
}

impl KernelBoots<'_> {
    /// The metric of a run, whatever its checks say: those are another question.
    fn value(&self, arm: Arm, ran: &RecordedCells) -> Result<Value, JudgeError> {
        let seen = evidence(ran, &[])?;
        if let Some(obstacle) = &seen.obstacle {
            return match arm {
                // The good kernel has run before: that it does not now says nothing about the other one.
                Arm::Baseline => {
                    Err(JudgeError::Host(format!("the good kernel: {}", obstacle.told())))
                }
                Arm::Candidate => Ok(Value::SkipCause(Box::new(seen))),
            };
        }
        let [cell] = ran.cells.as_slice() else {
            return Err(JudgeError::Host(format!(
                "a metric is judged by one cell, and {} are selected: name one with --case or --cell",
                ran.cells.len()
            )));
        };
        match metric(&cell.observation, Side::Own, self.metric) {
            Some(measured) if measured.median().is_finite() => Ok(Value::Measured(measured)),
            _ if arm == Arm::Baseline => Err(JudgeError::Host(format!(
                "{} has no metric `{}` on the good kernel: {}",
                key(&cell.cell, false),
                self.metric,
                if self.counted {
                    "nothing was counted"
                } else {
                    "its case needs timing windows (`windows: { time: 5 }`)"
                }
            ))),
            _ => {
                let what = format!("{} has no metric `{}`", key(&cell.cell, false), self.metric);
                Ok(Value::SkipCause(Box::new(Evidence {
                    obstacle: Some(SkipCause::Unclear(what)),
                    record: Some(ran.record.clone()),
                    ..Evidence::default()
                })))
            }
        }
    }
}

impl BootArm for KernelBoots<'_> {
    async fn boot(&mut self, arm: Arm, purpose: Purpose) -> Result<Vec<Measured>, PairError> {
        let kernel = self.kernels[arm as usize];
        let ran = self.guests.run(self.spec, kernel, self.interrupted.clone()).await;
        let end = match ran.and_then(|ran| Ok((self.value(arm, &ran)?, ran.record))) {
            Ok((Value::Measured(measured), record)) => {
                if arm == Arm::Candidate && purpose != Purpose::WarmUp {
                    self.record = record;
                }
                return Ok(vec![measured]);
            }
            Ok((Value::SkipCause(seen), _)) => Ok(*seen),
            Err(trouble) => Err(trouble),
        };
        self.end = Some(end);
        Err(PairError::Final("there is no comparison".to_owned()))
    }

    fn first_series(&mut self, _warm_ups: &[Vec<Measured>; 2]) -> Result<MetricSeries, PairError> {
        // The series exists before the first boot.
        Err(PairError::Final("there is no series".to_owned()))
    }
}

/// What the pairs say.
struct Verdict<'a> {
    name: &'a str,
    limit: f64,
    series: &'a MetricSeries,
    record: String,
}

impl Verdict<'_> {
    fn concluded(self) -> Evidence {
        let findings = self.series.findings();
        let finding = findings.first();
        let error = finding.and_then(|finding| finding.error).unwrap_or(0.0);
        match self.series.decision() {
            Some(Judgement::Fail) => self.decided(true, error),
            Some(Judgement::Pass) => self.decided(false, error),
            Some(Judgement::Inconclusive) | None => {
                let resolvable = match finding.and_then(|finding| finding.estimate) {
                    Some(estimate) => format!(
                        "; a limit of {:.0} % could be decided on this machine",
                        estimate.resolvable.ceil()
                    ),
                    None => String::new(),
                };
                let why = format!("{}{resolvable}", self.line());
                Evidence {
                    obstacle: Some(SkipCause::Unclear(why)),
                    record: Some(self.record),
                    ..Evidence::default()
                }
            }
        }
    }

    fn decided(self, worse: bool, error: f64) -> Evidence {
        let name = [self.name.to_owned()].into();
        let (failed, held) =
            if worse { (name, Default::default()) } else { (Default::default(), name) };
        let (evidence, record) = (vec![self.line()], Some(self.record));
        Evidence { failed, held, error, evidence, record, ..Evidence::default() }
    }

    /// The result so far, on one line.
    fn line(&self) -> String {
        let (name, limit, count) = (self.name, self.limit, self.series.pairs());
        let findings = self.series.findings();
        let estimate = findings.first().and_then(|finding| finding.estimate);
        let Some(estimate) = estimate.filter(|_| count > EXACT_AFTER) else {
            let (candidate, baseline) = match count {
                0 => (0.0, 0.0),
                last => {
                    let pair = self.series.pair(last);
                    (pair[0].candidate, pair[0].baseline)
                }
            };
            return format!(
                "{name}: {} against the good kernel's {} in each of {count} pairs (limit {limit} % worse)",
                round(candidate),
                round(baseline)
            );
        };
        let bound = |bound: Option<f64>| bound.map_or_else(|| "?".to_owned(), round);
        format!(
            "{name}: {} times the good kernel's ({} to {}, {count} pairs, noise of a pair {:.1} %; limit {limit} % worse)",
            round(estimate.ratio),
            bound(estimate.low),
            bound(estimate.high),
            100.0 * estimate.noise
        )
    }
}

/// Three significant digits.
fn round(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.2e}"),
    }
}
