//! A metric of two kernels, in pairs of runs, until it can be told.

use dmarig_bisect::{Obstacle, Seen, Trouble};
use dmarig_model::{
    limit::Limit,
    measure::metric,
    metrics::{Better, unit_of},
    windows::Side,
};
use dmarig_stats::{
    paired::{Arm, Judgement},
    sequence::{Metric, Pair, Plan, Rule, Sequence},
};

use super::{
    guests::Ran,
    seen::{key, seen},
};
use crate::interleave;

/// From which the order of pairs is drawn. Any will do; a kept one can be followed.
const SEED: u64 = 0x646d_6172_6967;

/// Pairs after which a count is believed that came out the same in each of them.
const COUNTED: usize = 2;

/// What is added to a count before it is divided by another, which may be none at all.
const NEARLY_NOTHING: f64 = 0.01;

/// One comparison.
pub(crate) struct Comparison {
    metric: String,
    limit: f64,
    counted: bool,
    sequence: Sequence,
    values: Vec<Pair>,
}

/// What one run gave.
enum Run {
    Value(f64, String),
    Obstacle(Seen),
}

impl Comparison {
    /// Of a metric that may be so much worse.
    pub(crate) fn new(limit: &Limit, error: f64, pairs: usize) -> Result<Self, Trouble> {
        let Limit { metric: name, better, percent: limit } = limit;
        let told =
            |error: &dyn std::fmt::Display| Trouble::Host(format!("--metric {name}: {error}"));
        let rule = Rule::until(error, pairs).map_err(|error| told(&error))?;
        // A program's: its unit is known only when it has run, which is too late to ask.
        let unsaid = format!("say which value is the better one: {name}:lower or {name}:higher");
        let better = better.or(Better::of(name, "")).ok_or_else(|| told(&unsaid))?;
        let better = interleave::better(Some(better));
        let (name, limit) = (name.as_str(), *limit);
        let metric = Metric { name: name.to_owned(), better, limit: Some(limit) };
        let plan = Plan { seed: SEED, rule, metrics: vec![metric] };
        let sequence = Sequence::new(plan).map_err(|error| told(&error))?;
        let counted = unit_of(name) == Some("1");
        Ok(Self { metric: name.to_owned(), limit, counted, sequence, values: Vec::new() })
    }

    /// Runs pairs until it can be told; the first run of each is thrown away where a clock runs.
    pub(crate) fn run(
        &mut self,
        guests: &mut dyn FnMut(Arm) -> Result<Ran, Trouble>,
    ) -> Result<Seen, Trouble> {
        let mut record = String::new();
        if !self.counted {
            for arm in self.sequence.warm_ups() {
                if let Run::Obstacle(seen) = self.value(arm, &guests(arm)?)? {
                    return Ok(seen);
                }
            }
        }
        while let Some(turn) = self.sequence.due() {
            let (mut candidate, mut baseline) = (0.0, 0.0);
            for arm in turn.order {
                match self.value(arm, &guests(arm)?)? {
                    Run::Obstacle(seen) => return Ok(seen),
                    Run::Value(value, at) => match arm {
                        Arm::Candidate => (candidate, record) = (value, at),
                        Arm::Baseline => baseline = value,
                    },
                }
            }
            let pair = Pair { candidate: vec![candidate], baseline: vec![baseline] };
            self.values.push(pair.clone());
            if let Some(worse) = self.settled() {
                return Ok(self.told(worse, 0.0, self.line(), record));
            }
            let more = if self.counted { NEARLY_NOTHING } else { 0.0 };
            let pair = Pair { candidate: vec![candidate + more], baseline: vec![baseline + more] };
            self.sequence.add(&pair).map_err(|error| Trouble::Host(error.to_string()))?;
        }
        Ok(self.concluded(record))
    }

    /// Whether a count is worse, where it is exact: the same in each of the first pairs.
    fn settled(&self) -> Option<bool> {
        let first = self.values.first()?;
        let same = self.values.iter().all(|pair| pair == first);
        (self.counted && self.values.len() == COUNTED && same).then(|| {
            let (candidate, baseline) = (first.candidate[0], first.baseline[0]);
            candidate > baseline * (1.0 + self.limit / 100.0) + NEARLY_NOTHING
        })
    }

    fn concluded(&self, record: String) -> Seen {
        let findings = self.sequence.findings();
        let found = findings.first();
        let error = found.and_then(|found| found.error).unwrap_or(0.0);
        match self.sequence.decision() {
            Some(Judgement::Fail) => self.told(true, error, self.line(), record),
            Some(Judgement::Pass) => self.told(false, error, self.line(), record),
            Some(Judgement::Inconclusive) | None => {
                let fine = match found.and_then(|found| found.estimate) {
                    Some(estimate) => format!(
                        "; a limit of {:.0} % could be told on this machine",
                        estimate.resolvable.ceil()
                    ),
                    None => String::new(),
                };
                let why = format!("{}{fine}", self.line());
                Seen {
                    obstacle: Some(Obstacle::Unclear(why)),
                    record: Some(record),
                    ..Seen::default()
                }
            }
        }
    }

    fn told(&self, worse: bool, error: f64, line: String, record: String) -> Seen {
        let name = [self.metric.clone()].into();
        let (failed, held) =
            if worse { (name, Default::default()) } else { (Default::default(), name) };
        let (evidence, record) = (vec![line], Some(record));
        Seen { failed, held, error, evidence, record, ..Seen::default() }
    }

    /// What came out so far, on a line.
    fn line(&self) -> String {
        let limit = self.limit;
        let count = self.values.len();
        let last = self.values.last().map(|pair| (pair.candidate[0], pair.baseline[0]));
        let findings = self.sequence.findings();
        let Some(estimate) =
            findings.first().and_then(|found| found.estimate).filter(|_| count > COUNTED)
        else {
            let (candidate, baseline) = last.unwrap_or_default();
            return format!(
                "{}: {} against the good kernel's {} in each of {count} pairs (limit {limit} % worse)",
                self.metric,
                round(candidate),
                round(baseline)
            );
        };
        let bound = |bound: Option<f64>| bound.map_or_else(|| "?".to_owned(), round);
        format!(
            "{}: {} times the good kernel's ({} to {}, {count} pairs, noise of a pair {:.1} %; limit {limit} % worse)",
            self.metric,
            round(estimate.ratio),
            bound(estimate.low),
            bound(estimate.high),
            100.0 * estimate.noise
        )
    }

    /// The metric of a run, whatever its checks say: those are another question.
    fn value(&self, arm: Arm, ran: &Ran) -> Result<Run, Trouble> {
        let unclear = |what: String| {
            let obstacle = Some(Obstacle::Unclear(what));
            let record = Some(ran.record.clone());
            Ok(Run::Obstacle(Seen { obstacle, record, ..Seen::default() }))
        };
        let seen = seen(ran, &[])?;
        // The good kernel has run before: if it does not now, nothing is said of the other one.
        let told = |seen: &Seen| match (&seen.obstacle, arm) {
            (Some(obstacle), Arm::Baseline) => {
                Some(Trouble::Host(format!("the good kernel: {}", obstacle.told())))
            }
            _ => None,
        };
        if let Some(trouble) = told(&seen) {
            return Err(trouble);
        }
        if seen.obstacle.is_some() {
            return Ok(Run::Obstacle(seen));
        }
        let [ended] = &*ran.ended else {
            return Err(Trouble::Host(format!(
                "a metric is judged by one cell, and {} are selected: name one with --case or --cell",
                ran.ended.len()
            )));
        };
        match metric(&ended.observation, Side::Own, &self.metric) {
            Some(measured) if measured.median().is_finite() => {
                Ok(Run::Value(measured.median(), ran.record.clone()))
            }
            _ if arm == Arm::Baseline => Err(Trouble::Host(format!(
                "{} has no metric `{}` on the good kernel: {}",
                key(&ended.cell, false),
                self.metric,
                match self.counted {
                    true => "nothing was counted".to_owned(),
                    false => "its case needs timing windows (`windows: { time: 5 }`)".to_owned(),
                }
            ))),
            _ => unclear(format!("{} has no metric `{}`", key(&ended.cell, false), self.metric)),
        }
    }
}

/// Three digits that count.
fn round(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.2e}"),
    }
}
