//! What is found in series, and what is not.

use dmarig_stats::change_points::{NotFinite, Search, energy, strongest};

use crate::noise::{Machine, Noise};

/// So many points of noise, with what is added to each.
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
fn the_strongest_split_is_the_largest_of_all_energies() {
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
fn the_energy_is_that_of_its_definition() {
    // By hand: across 16, within 1 and 2; 4/4 * (2 * 16/4 - 1 - 2).
    assert!((energy(&[0.0, 1.0], &[4.0, 6.0]) - 6.0).abs() < 1e-12);
    assert!(energy(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]) < 0.0);
}

#[test]
fn changes_are_told_with_what_lies_around_them() {
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
fn a_change_stands_whatever_comes_after_a_later_one() {
    let level = |at: usize| [0.0, 5.0, -5.0][at / 30];
    let whole = series(3, Noise::Gauss, 90, level);
    for end in [75, 80, 85, 90] {
        assert_eq!(places(&whole[..end])[..2], places(&whole)[..2], "{end} points");
    }
    assert_eq!(Search::default().changes(&whole), Search::default().changes(&whole));
}

#[test]
fn where_nothing_changes_nothing_is_found() {
    assert_eq!(places(&[]), NONE);
    assert_eq!(places(&[1.0; 200]), NONE);
    assert_eq!(places(&[1.0, 1.0, 1.0, 1.0, 9.0, 9.0, 9.0, 9.0]), NONE);
    let mut one_wild = [1.0; 100];
    one_wild[50] = 1e12;
    assert_eq!(places(&one_wild), NONE);
    // Counts that repeat exactly, and then others.
    let mut counts = [6014.0; 40];
    counts[30..].fill(12_021.0);
    assert_eq!(places(&counts), [30]);
}

#[test]
fn what_is_no_number_is_named() {
    let error = Search::default().changes(&[1.0, f64::NAN]).unwrap_err();
    assert_eq!(error, NotFinite { index: 1 });
    assert_eq!(error.to_string(), "point 1 of the series is not a finite number");
    // So large that sums are none: nothing is found, and nothing breaks.
    assert_eq!(places(&[f64::MAX; 12]), NONE);
    places(&[f64::MAX, f64::MIN, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, f64::MIN, f64::MAX, 1.0]);
}

/// Series without a change, 100 points each: how many have one found.
#[test]
fn hardly_any_series_of_noise_has_a_change() {
    for noise in [Noise::Gauss, Noise::T3, Noise::FewOutliers, Noise::Bimodal] {
        let rounds = 400;
        let found = (0..rounds)
            .filter(|seed| !places(&series(*seed, noise, 100, |_| 0.0)).is_empty())
            .count();
        println!("{noise:?}: {found} of {rounds}");
        // 1 % is promised; four standard deviations more.
        assert!(found <= 12, "{noise:?}: {found}");
    }
}

/// A shift of two standard deviations at 60 of 100, found within 3 points.
#[test]
fn a_shift_is_found_where_it_is() {
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
fn a_bump_has_two_edges() {
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
