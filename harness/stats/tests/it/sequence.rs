//! Tests of sequential comparisons.

use dmarig_stats::{
    paired::{Arm, Better, Judgement},
    sequence::{BadPair, BadPlan, BadRule, Finding, Metric, Pair, Plan, Rule, Sequence},
};

fn metric(better: Better, limit: Option<f64>) -> Metric {
    Metric { name: "elapsed".into(), better, limit }
}

fn sequence(seed: u64, metrics: Vec<Metric>) -> Sequence {
    Sequence::new(Plan { seed, rule: Rule::default(), metrics }).unwrap()
}

/// Adds pairs with these ratios, one for each metric, until none is due.
fn feed(sequence: &mut Sequence, ratios: impl Fn(usize) -> Vec<f64>) -> Vec<Finding> {
    while let Some(turn) = sequence.due() {
        let candidate: Vec<f64> = ratios(turn.number).iter().map(|ratio| ratio * 80.0).collect();
        let baseline = vec![80.0; candidate.len()];
        sequence.add(&Pair { candidate, baseline }).unwrap();
    }
    sequence.findings()
}

/// A ratio that is worse by some percent, with a deviation that depends on the number of the pair.
fn about(percent: f64, wobble: f64) -> impl Fn(usize) -> Vec<f64> {
    move |number| vec![1.0 + percent / 100.0 + wobble * ((number * 7 % 10) as f64 - 4.5) / 450.0]
}

#[test]
fn drops_looks_that_can_not_decide_a_shared_error() {
    let whole = Rule::default();
    assert_eq!(whole.shared(1), whole);
    for (parts, looks) in [
        (2, &[9, 12, 20, 30][..]),
        (6, &[12, 20, 30]),
        (40, &[13, 20, 30]),
        (100_000, &[24, 30]),
        (usize::MAX, &[30]),
    ] {
        let part = whole.shared(parts);
        assert_eq!(part.looks(), looks, "{parts}");
        assert!(part.error() * parts as f64 <= whole.error() * (1.0 + 1e-12));
    }
}

#[test]
fn judges_clear_cases_at_the_first_look() {
    let check = |better, percent, judgement| {
        let mut sequence = sequence(1, vec![metric(better, Some(5.0))]);
        let finding = feed(&mut sequence, about(percent, 1.0)).remove(0);
        let estimate = finding.estimate.unwrap();
        assert_eq!((finding.judgement, estimate.pairs), (Some(judgement), 8), "{percent}");
        assert_eq!(sequence.decision(), Some(judgement));
        let (low, high) = (estimate.low.unwrap(), estimate.high.unwrap());
        assert!(low < estimate.ratio && estimate.ratio < high, "{estimate:?}");
        assert!((estimate.ratio - 1.0 - percent / 100.0).abs() < 0.002, "{estimate:?}");
        // All 8 pairs are on one side, at the first of four looks.
        assert_eq!((finding.error, finding.too_fine), (Some(4.0 / 256.0), Some(false)));
        assert_eq!(sequence.due(), None);
        let over = sequence.add(&Pair { candidate: vec![1.0], baseline: vec![1.0] });
        assert_eq!(over, Err(BadPair::Over));
    };
    check(Better::Lower, 0.0, Judgement::Pass);
    check(Better::Lower, 9.0, Judgement::Fail);
    check(Better::Lower, -9.0, Judgement::Pass);
    check(Better::Higher, -9.0, Judgement::Fail);
    check(Better::Higher, 9.0, Judgement::Pass);
}

#[test]
fn reports_too_fine_limits_as_inconclusive() {
    let mut sequence = sequence(1, vec![metric(Better::Lower, Some(1.0))]);
    let finding = feed(&mut sequence, about(1.0, 3.0)).remove(0);
    let estimate = finding.estimate.unwrap();
    assert_eq!((finding.judgement, estimate.pairs), (Some(Judgement::Inconclusive), 30));
    assert_eq!((finding.too_fine, finding.error), (Some(true), None));
    // The smallest limit is well above the noise of 2 %.
    assert!((0.01..0.03).contains(&estimate.noise), "{estimate:?}");
    assert!((2.0..5.0).contains(&estimate.resolvable), "{estimate:?}");
}

#[test]
fn combines_judgements_of_metrics() {
    let both = || vec![metric(Better::Lower, Some(5.0)), metric(Better::Lower, Some(5.0))];
    let mut sequence = sequence(1, both());
    let findings =
        feed(&mut sequence, |number| vec![about(0.0, 1.0)(number)[0], about(9.0, 1.0)(number)[0]]);
    assert_eq!(sequence.decision(), Some(Judgement::Fail));
    // With two metrics, 8 pairs are not enough to fail.
    let ended = |finding: &Finding| (finding.judgement.unwrap(), finding.estimate.unwrap().pairs);
    let ended: Vec<_> = findings.iter().map(ended).collect();
    assert_eq!(ended, [(Judgement::Pass, 8), (Judgement::Fail, 12)]);
}

#[test]
fn only_estimates_without_a_limit() {
    let mut sequence = sequence(1, vec![metric(Better::Lower, None)]);
    let finding = feed(&mut sequence, about(3.0, 1.0)).remove(0);
    assert_eq!((sequence.decision(), finding.judgement), (None, None));
    assert_eq!(finding.estimate.unwrap().pairs, 30);
}

#[test]
fn has_no_bounds_with_few_pairs() {
    let mut sequence = sequence(1, vec![metric(Better::Lower, Some(5.0))]);
    assert_eq!(sequence.findings()[0].estimate, None);
    for _ in 0..7 {
        sequence.add(&Pair { candidate: vec![1.0], baseline: vec![1.0] }).unwrap();
    }
    let estimate = sequence.findings()[0].estimate.unwrap();
    assert_eq!((estimate.low, estimate.high, estimate.ratio), (None, None, 1.0));
    assert_eq!(sequence.decision(), None);
}

#[test]
fn repeats_a_pair_until_it_is_added() {
    let orders = |seed| {
        let mut sequence = sequence(seed, vec![metric(Better::Lower, None)]);
        let mut firsts = vec![sequence.warm_ups()[0]];
        while let Some(turn) = sequence.due() {
            assert_eq!(sequence.due(), Some(turn));
            assert_ne!(turn.order[0], turn.order[1]);
            firsts.push(turn.order[0]);
            sequence.add(&Pair { candidate: vec![1.0], baseline: vec![1.0] }).unwrap();
        }
        firsts
    };
    assert_eq!(orders(7), orders(7));
    assert_ne!(orders(7), orders(8));
    let candidates: usize = (0..100)
        .map(|seed| orders(seed).iter().filter(|arm| **arm == Arm::Candidate).count())
        .sum();
    assert!((1450..1650).contains(&candidates), "{candidates} of 3100");
}

#[test]
fn plans_a_batch_up_to_the_next_look() {
    let mut sequence = sequence(5, vec![metric(Better::Lower, None)]);
    for size in [8, 4, 8, 10] {
        let batch = sequence.batch();
        assert_eq!(batch.len(), size);
        for turn in batch {
            assert_eq!(sequence.due(), Some(turn));
            sequence.add(&Pair { candidate: vec![1.0], baseline: vec![1.0] }).unwrap();
        }
    }
    assert_eq!(sequence.batch(), []);
}

#[test]
fn rejects_pairs_without_ratios() {
    let both = vec![metric(Better::Lower, None), metric(Better::Higher, None)];
    let mut sequence = sequence(1, both);
    let turn = sequence.due();
    let mut refused = |candidate: Vec<f64>, baseline: Vec<f64>| {
        let error = sequence.add(&Pair { candidate, baseline }).unwrap_err();
        assert_eq!(sequence.due(), turn);
        error
    };
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = refused(vec![1.0, 1.0], vec![1.0, bad]);
        assert!(
            matches!(&error, BadPair::NoRatio { metric, .. } if metric == "elapsed"),
            "{error}"
        );
        refused(vec![bad, 1.0], vec![1.0, 1.0]);
    }
    let shape = BadPair::Shape { candidate: 2, baseline: 1, metrics: 2 };
    assert_eq!(refused(vec![1.0, 1.0], vec![1.0]), shape);
}

#[test]
fn rejects_invalid_limits() {
    let refused = |better, percent| {
        let metrics = vec![metric(better, Some(percent))];
        Sequence::new(Plan { seed: 1, rule: Rule::default(), metrics }).unwrap_err()
    };
    for percent in [0.0, -3.0, f64::NAN, f64::INFINITY] {
        let error = refused(Better::Lower, percent);
        assert!(matches!(error, BadPlan::Limit { .. }), "{error}");
    }
    refused(Better::Higher, 100.0);
    assert!((Better::Lower.limit(100.0).unwrap() - 2.0_f64.ln()).abs() < 1e-15);
    let plan = Plan { seed: 1, rule: Rule::default(), metrics: Vec::new() };
    assert_eq!(Sequence::new(plan).unwrap_err(), BadPlan::Empty);
}

#[test]
fn starts_rules_where_they_can_decide() {
    let rule = Rule::until(0.001, 100).unwrap();
    let first = rule.looks()[0];
    let level = 0.001 / rule.looks().len() as f64;
    assert!(0.5_f64.powi(first as i32) <= level, "{rule:?}");
    assert!(0.5_f64.powi(first as i32 - 1) > level, "{rule:?}");
    assert_eq!(rule.looks().last(), Some(&100));
    assert!(rule.looks().is_sorted());
    assert_eq!(Rule::until(0.02, 8).unwrap().looks(), [8]);
    let few = Rule::until(0.001, 9).unwrap_err();
    assert!(matches!(few, BadRule::TooFew { cap: 9, needed: 10.., .. }), "{few}");
    let BadRule::TooFew { needed, .. } = few else { unreachable!() };
    assert!(Rule::until(0.001, needed).is_ok(), "{needed}");
    // The number in the error is sufficient.
    for (error, cap) in [(0.0001, 8), (0.0001, 12), (0.000_01, 4), (0.01, 2)] {
        let BadRule::TooFew { needed, .. } = Rule::until(error, cap).unwrap_err() else { panic!() };
        assert!(Rule::until(error, needed).is_ok(), "{error}: {needed}");
    }
    assert_eq!(Rule::until(0.5, 100), Err(BadRule::Error(0.5)));
    assert!(Rule::until(f64::NAN, 100).is_err());
}

proptest::proptest! {
    /// For any values, the comparison ends without a panic, and its numbers are ordered.
    #[test]
    fn any_numbers_come_to_an_end(
        seed: u64,
        values in proptest::collection::vec((1e-300..1e300_f64, 1e-300..1e300_f64), 30),
        limit in 1e-6..99.0_f64,
        higher: bool,
    ) {
        let better = if higher { Better::Higher } else { Better::Lower };
        let mut sequence = sequence(seed, vec![metric(better, Some(limit))]);
        while let Some(turn) = sequence.due() {
            let (candidate, baseline) = values[turn.number];
            sequence.add(&Pair { candidate: vec![candidate], baseline: vec![baseline] }).unwrap();
        }
        let finding = sequence.findings().remove(0);
        let estimate = finding.estimate.unwrap();
        assert_eq!(sequence.decision(), finding.judgement);
        assert!(estimate.low.unwrap_or(0.0) <= estimate.ratio);
        assert!(estimate.high.unwrap_or(f64::INFINITY) >= estimate.ratio);
        // With a single metric, interval and judgement agree.
        let worst = if higher { estimate.low } else { estimate.high };
        let limit = better.limit(limit).unwrap();
        let within = worst.is_some_and(|worst| better.loss(worst, 1.0).unwrap() < limit);
        assert_eq!(within, finding.judgement == Some(Judgement::Pass), "{finding:?}");
    }
}
