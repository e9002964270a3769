//! Benchmark of the search for change points: time, false positives of one search and of nightly
//! searches, recall, delay, and the effect of autocorrelation.
//!
//! `cargo bench -p dmarig-stats --bench change_points`. After `--`, a number sets the number of
//! series for each row, and words select the parts to run.

use std::{hint::black_box, time::Instant};

use dmarig_stats::change_points::Search;

#[path = "../tests/it/noise.rs"]
mod noise;

use noise::{Machine, Noise};

const KINDS: [Noise; 5] =
    [Noise::Gauss, Noise::T3, Noise::FewOutliers, Noise::Outliers, Noise::Bimodal];

/// The parts, each with the function that measures it for a number of series.
type Part = (&'static str, fn(u64));

const PARTS: [Part; 6] = [
    ("speed", speed),
    ("false-positives", false_positives),
    ("night-by-night", night_by_night),
    ("recall", recall),
    ("delay", delay),
    ("correlated", correlated),
];

fn main() {
    // Cargo adds its own option.
    let words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let (mut rounds, mut asked) = (500, Vec::new());
    for word in words {
        match word.parse() {
            Ok(number) => rounds = number,
            Err(_) if PARTS.iter().any(|(part, _)| *part == word) => asked.push(word),
            Err(_) => {
                let parts = PARTS.map(|(part, _)| part).join(", ");
                eprintln!("`{word}` is no part of this benchmark: {parts}");
                std::process::exit(2);
            }
        }
    }
    println!("of {rounds} series a row, of 100 points where no other number is told");
    for (part, measure) in PARTS {
        if asked.is_empty() || asked.iter().any(|name| name == part) {
            println!("\n{part}");
            measure(rounds);
        }
    }
}

fn speed(_rounds: u64) {
    let sizes = [(100, 1), (365, 3), (1000, 0), (1000, 1), (1000, 3), (1000, 9), (3000, 3)];
    for (points, shifts) in sizes {
        let level = |at: usize| 2.0 * ((at * (shifts + 1) / points) % 2) as f64;
        let series = series(points as u64, Noise::Gauss, points, level);
        let mut times: Vec<f64> = Vec::new();
        let mut found = 0;
        for _ in 0..15 {
            let began = Instant::now();
            found = black_box(Search::default().changes(black_box(&series))).unwrap().len();
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        let (best, median) = (times[0], times[times.len() / 2]);
        println!(
            "{points} points, {shifts} shifts, {found} found: {best:.1} ms at best, median \
             {median:.1} ms"
        );
    }
}

fn false_positives(rounds: u64) {
    for noise in KINDS {
        let found =
            (0..rounds).filter(|seed| !places(&series(*seed, noise, 100, |_| 0.0)).is_empty());
        println!("{noise:?}: {} without a change have one found", percent(found.count(), rounds));
    }
}

/// False positives of a reader who looks each night: a search of all points so far, from 10 to 120.
fn night_by_night(rounds: u64) {
    const NIGHTS: std::ops::RangeInclusive<usize> = 10..=120;
    for noise in [Noise::Gauss, Noise::T3, Noise::FewOutliers] {
        let (mut ever, mut at_last, mut nights) = (0, 0, 0);
        for seed in 0..rounds {
            let series = series(seed, noise, *NIGHTS.end(), |_| 0.0);
            let found: Vec<bool> =
                NIGHTS.map(|points| !places(&series[..points]).is_empty()).collect();
            ever += usize::from(found.contains(&true));
            at_last += usize::from(found.last() == Some(&true));
            nights += found.iter().filter(|found| **found).count();
        }
        println!(
            "{noise:?}: {} without a change have one found on some night, for {:.1} nights each; \
             {} on the last",
            percent(ever, rounds),
            nights as f64 / ever.max(1) as f64,
            percent(at_last, rounds)
        );
    }
}

fn recall(rounds: u64) {
    let step = |at: usize| if at >= 60 { 2.0 } else { 0.0 };
    let bump = |at: usize| if (46..54).contains(&at) { 3.0 } else { 0.0 };
    let all = |seed: u64, noise, level: &dyn Fn(usize) -> f64, edges: &[usize]| {
        let found = places(&series(seed, noise, 100, level));
        edges.iter().all(|edge| found.iter().any(|at| at.abs_diff(*edge) <= 3))
    };
    for noise in KINDS {
        let shifts = (0..rounds).filter(|seed| all(*seed, noise, &step, &[60]));
        let bumps = (0..rounds).filter(|seed| all(*seed, noise, &bump, &[46, 54]));
        let (shifts, bumps) = (percent(shifts.count(), rounds), percent(bumps.count(), rounds));
        println!(
            "{noise:?}: a shift of 2 sigma is found in {shifts} within 3 points, both edges of 8 \
             points 3 sigma higher in {bumps}"
        );
    }
}

/// Number of nights between a shift and its detection, with a search each night.
fn delay(rounds: u64) {
    for noise in KINDS {
        let mut nights: Vec<usize> = (0..rounds)
            .map(|seed| {
                let step = |at: usize| if at >= 60 { 2.0 } else { 0.0 };
                let series = series(seed, noise, 100, step);
                let seen =
                    |end: &usize| places(&series[..*end]).iter().any(|at| at.abs_diff(60) <= 3);
                (61..=100).find(seen).map_or(usize::MAX, |end| end - 60)
            })
            .collect();
        nights.sort_unstable();
        let at = |part: f64| match nights[((nights.len() - 1) as f64 * part) as usize] {
            usize::MAX => "never".to_owned(),
            nights => nights.to_string(),
        };
        println!("{noise:?}: 2 sigma are seen after {} nights, p90 {}", at(0.5), at(0.9));
    }
}

fn correlated(rounds: u64) {
    for correlation in [0.0, 0.3, 0.6] {
        let found = (0..rounds).filter(|seed| {
            let mut machine = Machine::new(*seed, Noise::Gauss, correlation);
            let series: Vec<f64> = (0..100).map(|_| machine.run(1.0, 0.0).ln()).collect();
            !places(&series).is_empty()
        });
        println!(
            "autocorrelation {correlation}: {} without a change have one found",
            percent(found.count(), rounds)
        );
    }
}

fn series(seed: u64, noise: Noise, points: usize, level: impl Fn(usize) -> f64) -> Vec<f64> {
    let mut machine = Machine::new(seed, noise, 0.0);
    (0..points).map(|at| level(at) + machine.draw()).collect()
}

fn places(series: &[f64]) -> Vec<usize> {
    Search::default().changes(series).unwrap().iter().map(|change| change.at).collect()
}

fn percent(count: usize, of: u64) -> String {
    format!("{:.1} %", count as f64 * 100.0 / of as f64)
}
