use std::cell::RefCell;

use dmarig_model::limit::Limit;
use dmarig_stats::{
    paired::Judgement,
    sequence::{Metric, Rule},
};

use super::*;
use crate::event::Silent;

/// A step of the loop that a test expects.
type Boot = (Arm, Purpose);

/// Boots that measure what a function says, and keep what they were asked for.
struct FakeBoots<F> {
    measure: F,
    boots: Vec<Boot>,
    limits: Vec<Limit>,
}

impl<F: FnMut(Arm, Purpose) -> Result<f64, PairError>> FakeBoots<F> {
    fn new(measure: F) -> Self {
        let limits = vec![Limit::parse("elapsed=20").unwrap()];
        Self { measure, boots: Vec::new(), limits }
    }
}

impl<F: FnMut(Arm, Purpose) -> Result<f64, PairError>> BootArm for FakeBoots<F> {
    async fn boot(&mut self, arm: Arm, purpose: Purpose) -> Result<Vec<Measured>, PairError> {
        self.boots.push((arm, purpose));
        let value = (self.measure)(arm, purpose)?;
        Ok(vec![Measured { name: "elapsed".into(), unit: "ns".into(), samples: vec![value] }])
    }

    fn first_series(&mut self, warm_ups: &[Vec<Measured>; 2]) -> Result<MetricSeries, PairError> {
        MetricSeries::of_first_boots(1, &Rule::default(), &self.limits, &[], warm_ups)
    }
}

/// Discarded pairs, and the numbers of those that were measured.
#[derive(Default)]
struct Log(RefCell<Vec<String>>);

impl Reporter for Log {
    fn report(&self, event: &Event<'_>) {
        let line = match event {
            Event::PairMeasured { number, .. } => format!("pair {number}"),
            Event::PairDiscarded { reason } => format!("discarded: {reason}"),
            _ => return,
        };
        self.0.borrow_mut().push(line);
    }
}

/// Runs a loop to its end.
fn run<F: FnMut(Arm, Purpose) -> Result<f64, PairError>>(
    boots: FakeBoots<F>,
    interrupted: bool,
    reporter: &dyn Reporter,
) -> (LoopEnd, Option<MetricSeries>, Vec<Boot>) {
    let mut source = SeparateBoots::new(boots, true);
    let mut series = None;
    let (_sender, receiver) = watch::channel(interrupted);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let end = runtime.block_on(run_pairs(&mut source, &mut series, &receiver, reporter));
    (end, series, source.into_inner().boots)
}

/// A value that differs a little from call to call, so that no two pairs tie.
fn noisy(level: f64) -> impl FnMut() -> f64 {
    let mut count = 0;
    move || {
        count += 1;
        level * (1.0 + 0.001 * f64::from(count % 7))
    }
}

#[test]
fn discards_the_warm_up_and_decides() {
    let mut value = noisy(100.0);
    let (end, series, boots) = run(FakeBoots::new(|_, _| Ok(value())), false, &Silent);
    assert_eq!(end, LoopEnd::Decided);
    let series = series.unwrap();
    assert_eq!(series.decision(), Some(Judgement::Pass));
    assert_eq!(boots[..2], [(Arm::Baseline, Purpose::WarmUp), (Arm::Candidate, Purpose::WarmUp)]);
    assert_eq!(boots.len(), 2 + 2 * series.pairs());
}

#[test]
fn runs_both_arms_of_each_pair_in_the_drawn_order() {
    let mut value = noisy(100.0);
    let (_, _, boots) = run(FakeBoots::new(|_, _| Ok(value())), false, &Silent);
    let pairs: Vec<&[Boot]> = boots[2..].chunks(2).collect();
    for (number, pair) in pairs.iter().enumerate() {
        assert!(pair.iter().all(|(_, purpose)| *purpose == Purpose::Pair(number)));
        assert_ne!(pair[0].0, pair[1].0);
    }
    assert!(pairs.iter().any(|pair| pair[0].0 == Arm::Candidate));
    assert!(pairs.iter().any(|pair| pair[0].0 == Arm::Baseline));
}

#[test]
fn fails_a_slower_candidate() {
    let mut value = noisy(100.0);
    let slower = |arm, _| Ok(value() * if arm == Arm::Candidate { 2.0 } else { 1.0 });
    let (end, series, _) = run(FakeBoots::new(slower), false, &Silent);
    assert_eq!(end, LoopEnd::Decided);
    assert_eq!(series.unwrap().decision(), Some(Judgement::Fail));
}

#[test]
fn repeats_a_pair_that_was_discarded() {
    let mut value = noisy(100.0);
    let mut failures = 1;
    let measure = |_, purpose| {
        if purpose == Purpose::Pair(3) && failures > 0 {
            failures -= 1;
            return Err(PairError::Discarded("the guest died".into()));
        }
        Ok(value())
    };
    let log = Log::default();
    let (end, series, _) = run(FakeBoots::new(measure), false, &log);
    assert_eq!(end, LoopEnd::Decided);
    assert_eq!(series.unwrap().pairs(), 8);
    let lines = log.0.into_inner();
    assert_eq!(lines[3], "discarded: the guest died");
    assert_eq!(lines[4], "pair 4");
}

#[test]
fn stops_after_two_discarded_pairs_in_a_row() {
    let mut value = noisy(100.0);
    let measure = |_, purpose| match purpose {
        Purpose::Pair(2) => Err(PairError::Discarded("the guest died".into())),
        _ => Ok(value()),
    };
    let (end, series, _) = run(FakeBoots::new(measure), false, &Silent);
    assert_eq!(end, LoopEnd::Stopped("the guest died".into()));
    assert_eq!(series.unwrap().pairs(), 2);
}

#[test]
fn stops_at_a_final_error() {
    let measure = |_, _| Err(PairError::Final("no such kernel".into()));
    let (end, series, boots) = run(FakeBoots::new(measure), false, &Silent);
    assert_eq!(end, LoopEnd::Stopped("no such kernel".into()));
    assert!(series.is_none());
    assert_eq!(boots.len(), 1);
}

#[test]
fn starts_nothing_when_interrupted() {
    let (end, _, boots) = run(FakeBoots::new(|_, _| Ok(1.0)), true, &Silent);
    assert_eq!(end, LoopEnd::Stopped(INTERRUPTED.into()));
    assert!(boots.is_empty());
}

#[test]
fn needs_two_pairs_for_an_exact_count() {
    let metric = Metric {
        name: "elapsed".into(),
        better: dmarig_stats::paired::Better::Lower,
        limit: Some(10.0),
    };
    let rule = Rule::until(0.01, 60).unwrap();
    let mut series = MetricSeries::of_metric(1, rule, metric, "1").ok();
    let counts = |arm, _| Ok(if arm == Arm::Candidate { 5.0 } else { 0.0 });
    let mut source = SeparateBoots::new(FakeBoots::new(counts), false);
    let (_sender, receiver) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let end = runtime.block_on(run_pairs(&mut source, &mut series, &receiver, &Silent));
    assert_eq!(end, LoopEnd::Exact);
    let series = series.unwrap();
    assert_eq!(series.pairs(), 2);
    assert!(series.exact_is_worse(10.0));
}
