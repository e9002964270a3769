//! Judgements by earlier runs, and their simulated error rates on machines with all kinds of noise.

use dmarig_stats::{
    paired::{Better, Judgement},
    prediction::{ERROR, LEAST, NotComparableSeries, Prediction, Subject, judge},
};

use crate::noise::{Machine, Noise};

const LIMIT: f64 = 5.0;

/// Level of the machine and noise of a run, as standard deviations.
type Sizes = (f64, f64);

/// A value of a kernel that is worse by `percent`, after `runs` earlier ones. `None` if a change is
/// found in these, as in one series of a hundred.
fn subject(machine: &mut Machine, sizes: Sizes, runs: usize, percent: f64) -> Option<Subject> {
    let (drift, noise) = sizes;
    let earlier: Vec<f64> = (0..runs).map(|_| machine.run(drift, noise)).collect();
    let value = machine.run(drift, noise) * (1.0 + percent / 100.0);
    match Subject::new(Better::Lower, LIMIT, &earlier, runs, value) {
        Ok(subject) => Some(subject),
        Err(NotComparableSeries::TooFew { changed: true, .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Shares of FAIL and of PASS, in percent, of cells with several values.
fn shares(
    kind: (Noise, f64),
    sizes: Sizes,
    runs: usize,
    cell: (u64, f64),
    rounds: u64,
) -> (f64, f64) {
    let ((noise, correlation), (metrics, percent)) = (kind, cell);
    let (mut fail, mut pass, mut all) = (0, 0, 0);
    for seed in 0..rounds {
        let subjects = (0..metrics).map(|metric| {
            let mut machine = Machine::new(seed * metrics + metric, noise, correlation);
            subject(&mut machine, sizes, runs, percent)
        });
        let Some(subjects) = subjects.collect::<Option<Vec<_>>>() else { continue };
        let found = judge(&subjects);
        let is = |judgement| move |found: &Prediction| found.judgement == judgement;
        fail += u32::from(found.iter().any(is(Judgement::Fail)));
        pass += u32::from(found.iter().all(is(Judgement::Pass)));
        all += 1;
    }
    let share = |count: u32| 100.0 * f64::from(count) / f64::from(all);
    (share(fail), share(pass))
}

/// The largest acceptable share for an expected one: four standard deviations more.
fn allowed(percent: f64, rounds: u64) -> f64 {
    percent + 4.0 * (percent * (100.0 - percent) / rounds as f64).sqrt()
}

/// A change of exactly the limit, where a PASS is as wrong as a FAIL.
#[test]
fn keeps_error_rates() {
    let (rounds, promised) = (2000, ERROR * 100.0);
    let mut all = 0.0;
    for noise in [Noise::Gauss, Noise::T3, Noise::FewOutliers, Noise::Outliers, Noise::Bimodal] {
        for (correlation, drift) in [(0.0, 0.0), (0.5, 0.01), (0.9, 0.01), (0.98, 0.02)] {
            for runs in [LEAST, 50] {
                let sizes = (drift, 0.01);
                let found = shares((noise, correlation), sizes, runs, (1, LIMIT), rounds);
                let (fail, pass) = found;
                println!(
                    "{noise:?}, drift {correlation}, {runs} runs: FAIL {fail:.2} % PASS {pass:.2} %"
                );
                assert!(
                    fail.max(pass) <= allowed(promised, rounds),
                    "{noise:?} {correlation} {runs}"
                );
                all += fail + pass;
            }
        }
    }
    println!("{:.2} % on average", all / 80.0);
    // A test that never decides would never be wrong.
    assert!(all / 80.0 > 0.5, "{all}");
}

/// Three values at the limit: the probability that any fails is not above that of one, unless one
/// run in ten is an outlier, which this number of runs can't show.
#[test]
fn fails_many_numbers_as_rarely_as_one() {
    let rounds = 2000;
    for (noise, promised) in [(Noise::Gauss, 2.0), (Noise::T3, 2.0), (Noise::Outliers, 4.5)] {
        for runs in [LEAST, 50] {
            let (fail, pass) = shares((noise, 0.0), (0.0, 0.01), runs, (3, LIMIT), rounds);
            println!("three numbers, {noise:?}, {runs} runs: FAIL {fail:.2} % PASS {pass:.2} %");
            assert!(fail <= allowed(promised, rounds) && pass < 0.2, "{noise:?} {runs}");
        }
    }
}

/// With noise of a fifth of the limit, unchanged kernels pass and hardly ever fail, and much worse
/// ones fail.
#[test]
fn decides_clear_changes() {
    let rounds = 1500;
    for (noise, most_failed, least_passed) in
        [(Noise::Gauss, 0.0, 88.0), (Noise::T3, 0.5, 80.0), (Noise::Outliers, 1.5, 0.0)]
    {
        for runs in [LEAST, 50] {
            let (fail, pass) = shares((noise, 0.0), (0.0, 0.01), runs, (1, 0.0), rounds);
            println!("unchanged, {noise:?}, {runs} runs: FAIL {fail:.2} % PASS {pass:.2} %");
            assert!(fail <= most_failed && pass >= least_passed, "{noise:?} {runs}");
        }
    }
    for (percent, least) in [(8.0, 35.0), (12.0, 97.0)] {
        let (fail, pass) = shares((Noise::Gauss, 0.0), (0.0, 0.01), LEAST, (1, percent), rounds);
        println!("{percent} % worse: FAIL {fail:.2} % PASS {pass:.2} %");
        assert!(fail >= least && pass == 0.0, "{percent}");
    }
}

/// Runs around a level, with deviations of half a percent at most.
fn about(level: f64, runs: usize) -> Vec<f64> {
    (0..runs).map(|at| level * (1.0 + ((at * 7919 % 13) as f64 / 13.0 - 0.5) / 100.0)).collect()
}

fn one(better: Better, earlier: &[f64], value: f64) -> Prediction {
    let subject = Subject::new(better, LIMIT, earlier, 50, value).unwrap();
    judge(&[subject]).remove(0)
}

#[test]
fn judges_both_directions() {
    let earlier = about(80.0, 30);
    let check = |better, value, judgement| {
        let found = one(better, &earlier, value);
        assert_eq!(found.judgement, judgement, "{value}: {found:?}");
        assert!((found.level - 80.0).abs() < 0.1 && (found.ratio - value / 80.0).abs() < 0.002);
        assert!((0.002..0.004).contains(&found.noise), "{found:?}");
        assert!(found.low < 80.0 && 80.0 < found.high, "{found:?}");
        assert!((1.0..3.0).contains(&found.resolvable), "{found:?}");
        let error = (judgement != Judgement::Inconclusive).then_some(true);
        assert_eq!(found.error.map(|error| error <= ERROR), error);
    };
    check(Better::Lower, 80.0, Judgement::Pass);
    check(Better::Lower, 88.0, Judgement::Fail);
    check(Better::Lower, 84.0, Judgement::Inconclusive);
    check(Better::Lower, 60.0, Judgement::Pass);
    check(Better::Higher, 80.0, Judgement::Pass);
    check(Better::Higher, 72.0, Judgement::Fail);
    check(Better::Higher, 76.0, Judgement::Inconclusive);
    check(Better::Higher, 90.0, Judgement::Pass);
}

#[test]
fn uses_runs_since_the_last_change() {
    let few = |earlier: &[f64]| Subject::new(Better::Lower, LIMIT, earlier, 50, 1.0).unwrap_err();
    let short = about(1.0, LEAST - 1);
    assert_eq!(few(&short), NotComparableSeries::TooFew { runs: LEAST - 1, changed: false });
    assert_eq!(few(&[]), NotComparableSeries::TooFew { runs: 0, changed: false });
    let changed = [about(1.2, 30), short].concat();
    assert_eq!(few(&changed), NotComparableSeries::TooFew { runs: LEAST - 1, changed: true });
    // A value of the level before the change is worse than now.
    let changed = [about(1.2, 30), about(1.0, 30)].concat();
    let subject = Subject::new(Better::Lower, LIMIT, &changed, 50, 1.2).unwrap();
    assert_eq!(subject.range(), 30..60);
    assert_eq!(judge(&[subject])[0].judgement, Judgement::Fail);
    // Only the newest of many runs are used.
    let subject = Subject::new(Better::Lower, LIMIT, &about(1.0, 60), 40, 1.0).unwrap();
    assert_eq!(subject.range(), 20..60);
}

/// A regression fails up to its fifth night: then the series has changed.
#[test]
fn sets_aside_runs_that_would_have_failed() {
    for nights in 1..=4 {
        let earlier = [about(1.0, 30), about(1.15, nights)].concat();
        let subject = Subject::new(Better::Lower, LIMIT, &earlier, 50, 1.15).unwrap();
        assert_eq!(subject.range(), 0..30, "{nights}");
        assert_eq!(judge(&[subject])[0].judgement, Judgement::Fail, "{nights}");
    }
    let earlier = [about(1.0, 30), about(1.15, 5)].concat();
    let changed = Subject::new(Better::Lower, LIMIT, &earlier, 50, 1.15).unwrap_err();
    assert_eq!(changed, NotComparableSeries::TooFew { runs: 5, changed: true });
    // Temporary outliers count as noise.
    let earlier = [about(1.0, 30), vec![1.15], about(1.0, 2)].concat();
    let subject = Subject::new(Better::Lower, LIMIT, &earlier, 50, 1.15).unwrap();
    assert_eq!(subject.range(), 0..33);
    assert_eq!(judge(&[subject])[0].judgement, Judgement::Inconclusive);
}

#[test]
fn judges_constant_counts_without_noise() {
    let earlier = [1.1; 30];
    let check = |value, judgement| {
        let found = one(Better::Lower, &earlier, value);
        assert_eq!((found.judgement, found.noise, found.resolvable), (judgement, 0.0, 0.0));
        assert!((found.low - 1.1).abs() < 1e-12 && (found.high - 1.1).abs() < 1e-12, "{found:?}");
    };
    check(1.1, Judgement::Pass);
    check(1.1 * 1.06, Judgement::Fail);
    check(1.1 * 1.04, Judgement::Pass);
}

#[test]
fn adjusts_for_the_number_of_metrics() {
    let subject = |value| Subject::new(Better::Lower, LIMIT, &about(1.0, 30), 50, value).unwrap();
    let edge = one(Better::Lower, &about(1.0, 30), 1.0).high * 1.0501;
    assert_eq!(judge(&[subject(edge)])[0].judgement, Judgement::Fail);
    let both = judge(&[subject(edge), subject(1.0)]);
    assert_eq!(both[0].judgement, Judgement::Inconclusive, "{both:?}");
    assert_eq!(both[1].judgement, Judgement::Pass);
    let both = judge(&[subject(edge), subject(1.3)]);
    assert!(both.iter().all(|found| found.judgement == Judgement::Fail), "{both:?}");
}

#[test]
fn rejects_values_without_ratios() {
    let refused = |earlier: &[f64], value, percent| {
        Subject::new(Better::Higher, percent, earlier, 50, value).unwrap_err()
    };
    assert_eq!(refused(&about(1.0, 30), 0.0, LIMIT), NotComparableSeries::NoRatio(0.0));
    assert_eq!(refused(&[0.0; 30], 1.0, LIMIT), NotComparableSeries::NoRatio(0.0));
    assert_eq!(refused(&about(1.0, 30), 1.0, 100.0), NotComparableSeries::Limit(100.0));
}

proptest::proptest! {
    /// For any values, nothing panics, and bounds and judgement agree.
    #[test]
    fn bounds_and_judgement_agree(
        earlier in proptest::collection::vec(1e-3..1e3_f64, LEAST..60),
        value in 1e-4..1e4_f64,
        limit in 0.1..99.0_f64,
        higher: bool,
    ) {
        let better = if higher { Better::Higher } else { Better::Lower };
        let Ok(subject) = Subject::new(better, limit, &earlier, 50, value) else { return Ok(()) };
        let found = judge(&[subject]).remove(0);
        assert!(found.low <= found.level && found.level <= found.high, "{found:?}");
        let loss = |than: f64| better.loss(value, than).unwrap() - better.limit(limit).unwrap();
        let (best, worst) = if higher { (found.high, found.low) } else { (found.low, found.high) };
        if loss(worst).abs() > 1e-6 && loss(best).abs() > 1e-6 {
            assert_eq!(loss(worst) > 0.0, found.judgement == Judgement::Fail, "{found:?}");
            assert_eq!(loss(best) < 0.0, found.judgement == Judgement::Pass, "{found:?}");
        }
    }
}
