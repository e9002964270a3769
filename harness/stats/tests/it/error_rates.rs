//! Simulated error rates on drifting machines with all kinds of noise.

use dmarig_stats::{
    paired::{Arm, Better, Judgement},
    sequence::{Metric, Pair, Plan, Rule, Sequence},
};

use crate::noise::{Machine, Noise};

const LIMIT: f64 = 5.0;

#[derive(Debug, Default)]
struct Tally {
    pass: usize,
    fail: usize,
    inconclusive: usize,
    pairs: Vec<usize>,
}

/// Compares on a machine until it is decided. The metrics of the candidate are worse by `changes`
/// percent.
fn compare(
    machine: &mut Machine,
    seed: u64,
    rule: &Rule,
    (drift, noise): (f64, f64),
    changes: &[(Better, f64)],
) -> (Sequence, usize) {
    let metric = |(better, _): &(Better, f64)| Metric {
        name: "elapsed".into(),
        better: *better,
        limit: Some(LIMIT),
    };
    let metrics = changes.iter().map(metric).collect();
    let mut sequence = Sequence::new(Plan { seed, rule: rule.clone(), metrics }).unwrap();
    let mut pairs = 0;
    while let Some(turn) = sequence.due() {
        let mut pair = Pair { candidate: Vec::new(), baseline: Vec::new() };
        for arm in turn.order {
            let values = changes.iter().map(|(better, percent)| {
                let factor = better.limit(*percent).map_or(1.0, |loss| better.ratio(loss));
                machine.run(drift, noise) * if arm == Arm::Candidate { factor } else { 1.0 }
            });
            match arm {
                Arm::Candidate => pair.candidate = values.collect(),
                Arm::Baseline => pair.baseline = values.collect(),
            }
        }
        sequence.add(&pair).unwrap();
        pairs += 1;
    }
    (sequence, pairs)
}

fn tally(
    rounds: u64,
    rule: &Rule,
    (kind, correlation): (Noise, f64),
    sizes: (f64, f64),
    changes: &[(Better, f64)],
) -> Tally {
    let mut tally = Tally::default();
    for seed in 0..rounds {
        let mut machine = Machine::new(seed, kind, correlation);
        let (sequence, pairs) = compare(&mut machine, !seed, rule, sizes, changes);
        match sequence.decision().unwrap() {
            Judgement::Pass => tally.pass += 1,
            Judgement::Fail => tally.fail += 1,
            Judgement::Inconclusive => tally.inconclusive += 1,
        }
        tally.pairs.push(pairs);
    }
    tally.pairs.sort_unstable();
    tally
}

/// Whether a count exceeds its expectation for this probability by four standard deviations.
fn too_many(count: usize, rounds: u64, probability: f64) -> bool {
    let expected = rounds as f64 * probability;
    count as f64 > expected + 4.0 * (expected * (1.0 - probability)).sqrt()
}

/// A change of exactly the limit, where a PASS is as wrong as a FAIL.
#[test]
fn keeps_error_rates_on_all_machines() {
    let rounds = 2000;
    let (mut worst, mut all) = (0, 0);
    for noise in [Noise::Gauss, Noise::T3, Noise::Outliers, Noise::Bimodal] {
        for correlation in [0.0, 0.5, 0.9, 0.98] {
            let better = if correlation == 0.5 { Better::Higher } else { Better::Lower };
            let change = [(better, LIMIT)];
            let found =
                tally(rounds, &Rule::default(), (noise, correlation), (0.10, 0.03), &change);
            println!(
                "{noise:?} {correlation}: PASS {} FAIL {} of {rounds}",
                found.pass, found.fail
            );
            for wrong in [found.pass, found.fail] {
                assert!(!too_many(wrong, rounds, 0.02), "{noise:?} {correlation}: {found:?}");
                worst = worst.max(wrong);
                all += wrong;
            }
        }
    }
    println!("worst {worst}, all {all}");
    // A test that never decides would never be wrong.
    assert!(all > rounds as usize * 32 / 200, "{all}");
}

/// The number of pairs without a change, by the noise of a pair relative to the limit.
#[test]
fn passes_unchanged_kernels_in_few_pairs() {
    let log = Better::Lower.limit(LIMIT).unwrap();
    for (part, least_passed, most_pairs) in [(0.3, 0.999, 8), (0.6, 0.995, 12), (1.2, 0.75, 20)] {
        let rounds = 1000;
        let noise = part * log / 2.0_f64.sqrt();
        let same = [(Better::Lower, 0.0)];
        let found = tally(rounds, &Rule::default(), (Noise::Gauss, 0.0), (0.0, noise), &same);
        let (median, passed) = (found.pairs[500], found.pass as f64 / rounds as f64);
        println!("{part}: {passed} passed, {median} pairs, nine in ten by {}", found.pairs[900]);
        assert!(passed >= least_passed && median <= most_pairs && found.fail == 0, "{found:?}");
    }
}

/// Five metrics at the limit: the probability that any fails is not above that of one.
#[test]
fn fails_many_metrics_as_rarely_as_one() {
    let rounds = 1500;
    let changes = [(Better::Lower, LIMIT); 5];
    for noise in [Noise::Gauss, Noise::Outliers] {
        let found = tally(rounds, &Rule::default(), (noise, 0.9), (0.1, 0.03), &changes);
        println!("five metrics, {noise:?}: FAIL {} PASS {} of {rounds}", found.fail, found.pass);
        assert!(!too_many(found.fail, rounds, 0.02), "{found:?}");
        // All must pass, so a false PASS is rarer still.
        assert!(!too_many(found.pass, rounds, 0.001), "{found:?}");
    }
}

/// Six cells at the limit that share the error: the probability of any error is not above that of
/// one.
#[test]
fn shares_the_error_among_cells() {
    let (rounds, cells) = (700, 6);
    let rule = Rule::default().shared(cells);
    let change = [(Better::Lower, LIMIT)];
    for noise in [Noise::Gauss, Noise::Outliers] {
        let (mut passed, mut failed) = (0, 0);
        for round in 0..rounds {
            let mut machine = Machine::new(round, noise, 0.9);
            let judged = (0..cells as u64).map(|cell| {
                let seed = round * 31 + cell;
                let (sequence, _) = compare(&mut machine, seed, &rule, (0.1, 0.03), &change);
                sequence.decision().unwrap()
            });
            let judged: Vec<Judgement> = judged.collect();
            passed += usize::from(judged.contains(&Judgement::Pass));
            failed += usize::from(judged.contains(&Judgement::Fail));
        }
        println!("six cells, {noise:?}: any PASS {passed}, any FAIL {failed} of {rounds}");
        assert!(!too_many(passed, rounds, 0.02) && !too_many(failed, rounds, 0.02));
        assert!(passed + failed > 0, "nothing was ever said");
    }
}

/// Steps of a bisection: a much smaller error than the default, and nearly always a decision.
#[test]
fn decides_bisection_steps_with_the_requested_error() {
    let rule = Rule::until(0.001, 100).unwrap();
    let rounds = 400;
    let log = Better::Lower.limit(LIMIT).unwrap();
    let noise = 1.2 * log / 2.0_f64.sqrt();
    for (change, noise_kind) in [(0.0, Noise::Gauss), (10.25, Noise::Gauss), (10.25, Noise::T3)] {
        let changes = [(Better::Lower, change)];
        let found = tally(rounds, &rule, (noise_kind, 0.9), (0.02, noise), &changes);
        println!(
            "{change} %, {noise_kind:?}: PASS {} FAIL {} neither {}, {} pairs, nine in ten by {}",
            found.pass, found.fail, found.inconclusive, found.pairs[200], found.pairs[360]
        );
        let wrong = if change > LIMIT { found.pass } else { found.fail };
        assert!(wrong <= 1 && found.inconclusive <= 1, "{found:?}");
    }
    let changes = [(Better::Lower, LIMIT)];
    let found = tally(rounds, &rule, (Noise::Gauss, 0.9), (0.02, noise), &changes);
    println!("at the limit: {} of {rounds} are wrong", found.pass + found.fail);
    assert!(found.pass + found.fail <= 5, "{found:?}");
}
