//! Tests of change points.

use dmarig_stats::change_points::{NotFinite, Search, energy, strongest};

use crate::noise::{Machine, Noise};

/// Points of noise, with an offset for each.
fn series(seed: u64, noise: Noise, points: usize, level: impl Fn(usize) -> f64) -> Vec<f64> {
    let mut machine = Machine::new(seed, noise, 0.0);
    (0..points).map(|at| level(at) + machine.draw()).collect()
}

const NONE: [usize; 0] = [];

fn places(series: &[f64]) -> Vec<usize> {
    Search::default().changes(series).unwrap().iter().map(|change| change.at).collect()
}

fn step(at: usize, height: f64) -> impl Fn(usize) -> f64 {
    move |point| if point >= at { height } else { 0.0 }
}

#[test]
fn finds_the_split_with_the_largest_energy() {
    for seed in 0..20 {
        let series = series(seed, Noise::T3, 14 + seed as usize, step(7, 1.0));
        let mut best = (f64::NEG_INFINITY, 0, 0);
        for end in 6..=series.len() {
            for at in 3..=end - 3 {
                let strength = energy(&series[..at], &series[at..end]);
                if strength > best.0 {
                    best = (strength, at, end);
                }
            }
        }
        let split = strongest(&series, 3).unwrap();
        assert_eq!((split.at, split.end), (best.1, best.2));
        assert!((split.strength - best.0).abs() < 1e-9, "{split:?} {best:?}");
    }
    assert_eq!(strongest(&[1.0; 9], 5), None);
}

#[test]
fn computes_energy_by_its_definition() {
    // Computed by hand: across 16, within 1 and 2; 4/4 * (2 * 16/4 - 1 - 2).
    assert!((energy(&[0.0, 1.0], &[4.0, 6.0]) - 6.0).abs() < 1e-12);
    assert!(energy(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]) < 0.0);
}

#[test]
fn reports_changes_with_medians_on_both_sides() {
    let level = |at: usize| [10.0, 14.0, 11.0][at / 40];
    let found = Search::default().changes(&series(1, Noise::Gauss, 120, level)).unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
    for (change, (at, before, after)) in found.iter().zip([(40, 10.0, 14.0), (80, 14.0, 11.0)]) {
        assert!(change.at.abs_diff(at) <= 2, "{change:?}");
        assert!((change.before - before).abs() < 0.8, "{change:?}");
        assert!((change.after - after).abs() < 0.8, "{change:?}");
        assert!(change.p <= 0.01 && change.strength > 0.0, "{change:?}");
    }
}

#[test]
fn keeps_changes_when_later_points_differ() {
    let level = |at: usize| [0.0, 5.0, -5.0][at / 30];
    let whole = series(3, Noise::Gauss, 90, level);
    for end in [75, 80, 85, 90] {
        assert_eq!(places(&whole[..end])[..2], places(&whole)[..2], "{end} points");
    }
    assert_eq!(Search::default().changes(&whole), Search::default().changes(&whole));
}

#[test]
fn finds_nothing_in_constant_series() {
    assert_eq!(places(&[]), NONE);
    assert_eq!(places(&[1.0; 200]), NONE);
    assert_eq!(places(&[1.0, 1.0, 1.0, 1.0, 9.0, 9.0, 9.0, 9.0]), NONE);
    let mut one_wild = [1.0; 100];
    one_wild[50] = 1e12;
    assert_eq!(places(&one_wild), NONE);
    // Constant counts that change once.
    let mut counts = [6014.0; 40];
    counts[30..].fill(12_021.0);
    assert_eq!(places(&counts), [30]);
}

#[test]
fn rejects_infinite_points_by_index() {
    let error = Search::default().changes(&[1.0, f64::NAN]).unwrap_err();
    assert_eq!(error, NotFinite { index: 1 });
    // Sums of these overflow: nothing is found.
    assert_eq!(places(&[f64::MAX; 12]), NONE);
    places(&[f64::MAX, f64::MIN, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, f64::MIN, f64::MAX, 1.0]);
}

/// The rate of false positives in series of 100 points without a change.
#[test]
fn rarely_finds_changes_in_noise() {
    for noise in [Noise::Gauss, Noise::T3, Noise::FewOutliers, Noise::Bimodal] {
        let rounds = 400;
        let found = (0..rounds)
            .filter(|seed| !places(&series(*seed, noise, 100, |_| 0.0)).is_empty())
            .count();
        println!("{noise:?}: {found} of {rounds}");
        // The level is 1 %; four standard deviations are allowed.
        assert!(found <= 12, "{noise:?}: {found}");
    }
}

/// A shift of two standard deviations at 60 of 100, found within 3 points.
#[test]
fn finds_shifts_where_they_are() {
    for (noise, least) in [(Noise::Gauss, 0.95), (Noise::T3, 0.95), (Noise::Outliers, 0.85)] {
        let rounds = 100;
        let hit = |seed: &u64| {
            let found = places(&series(*seed, noise, 100, step(60, 2.0)));
            found.iter().any(|at| at.abs_diff(60) <= 3)
        };
        let part = (0..rounds).filter(hit).count() as f64 / rounds as f64;
        println!("{noise:?}: {part}");
        assert!(part >= least, "{noise:?}: {part}");
    }
}

/// Eight points higher by four standard deviations: both edges.
#[test]
fn finds_both_edges_of_a_bump() {
    let bump = |at: usize| if (46..54).contains(&at) { 4.0 } else { 0.0 };
    let rounds = 50;
    let both = |seed: &u64| {
        let found = places(&series(*seed, Noise::Gauss, 100, bump));
        [46, 54].iter().all(|edge| found.iter().any(|at| at.abs_diff(*edge) <= 3))
    };
    let part = (0..rounds).filter(both).count() as f64 / rounds as f64;
    println!("{part}");
    assert!(part >= 0.95, "{part}");
}
