//! Compares a thing with itself. Reads series from standard input, each a JSON list on one line
//! with repeated measurements of one thing, makes pairs of neighbours, and counts the verdicts. All
//! of them should be PASS or INCONCLUSIVE.
//!
//! The first argument is the limit in percent. Each comparison uses as many pairs as it needs. For
//! comparison, the example also prints how many blocks of 15 and 15 values differ by Welch's test
//! at 5 %.

use std::io::{self, BufRead};

use dmarig_stats::{
    paired::{Arm, Better, Judgement},
    sequence::{Metric, Pair, Plan, Rule, Sequence},
};

/// Values in each of two blocks.
const BLOCK: usize = 15;
/// The 97.5 % quantile of Student's distribution with 28 degrees of freedom.
const STUDENT: f64 = 2.048;

fn main() -> io::Result<()> {
    let limit = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(10.0);
    let mut seed = 0;
    let mut counts = [0_usize; 3];
    let (mut blocks, mut differ, mut pairs, mut noise) = (0, 0, 0, Vec::new());
    for line in io::stdin().lock().lines() {
        let series: Vec<f64> = serde_json::from_str(&line?)?;
        let mut rest = series.as_slice();
        while let Some((sequence, used)) = compare(rest, limit, seed) {
            rest = &rest[used..];
            seed += 1;
            pairs += used / 2;
            let Some(judgement) = sequence.decision() else { break };
            counts[judgement as usize] += 1;
            noise.extend(sequence.findings()[0].estimate.map(|estimate| estimate.noise));
        }
        for both in series.chunks_exact(2 * BLOCK) {
            blocks += 1;
            differ += usize::from(welch(&both[..BLOCK], &both[BLOCK..]).abs() > STUDENT);
        }
    }
    noise.sort_by(f64::total_cmp);
    let comparisons: usize = counts.iter().sum();
    let count = |judgement| counts[judgement as usize];
    println!(
        "{comparisons} comparisons with a limit of {limit} %, {pairs} pairs: {} PASS, {} FAIL, {} \
         inconclusive; median noise of a pair {:.1} %",
        count(Judgement::Pass),
        count(Judgement::Fail),
        count(Judgement::Inconclusive),
        noise.get(noise.len() / 2).unwrap_or(&f64::NAN) * 100.0
    );
    println!("{differ} of {blocks} blocks of {BLOCK} and {BLOCK} differ, by Welch's test at 5 %");
    Ok(())
}

/// Compares neighbours, and returns the number of used values. `None` if there are too few.
fn compare(series: &[f64], limit: f64, seed: u64) -> Option<(Sequence, usize)> {
    let metric = Metric { name: "it".into(), better: Better::Lower, limit: Some(limit) };
    let plan = Plan { seed, rule: Rule::default(), metrics: vec![metric] };
    let mut sequence = Sequence::new(plan).ok()?;
    let mut used = 0;
    while let Some(turn) = sequence.due() {
        let (first, second) = (*series.get(used)?, *series.get(used + 1)?);
        let (candidate, baseline) =
            if turn.order[0] == Arm::Candidate { (first, second) } else { (second, first) };
        sequence.add(&Pair { candidate: vec![candidate], baseline: vec![baseline] }).ok()?;
        used += 2;
    }
    Some((sequence, used))
}

fn welch(a: &[f64], b: &[f64]) -> f64 {
    let moments = |values: &[f64]| {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let square: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        (mean, square / (n - 1.0) / n)
    };
    let ((a, spread_a), (b, spread_b)) = (moments(a), moments(b));
    (a - b) / (spread_a + spread_b).sqrt()
}
