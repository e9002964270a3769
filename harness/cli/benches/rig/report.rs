//! Numbers as people read them.

use std::ops::{Bound, RangeBounds};

/// The middle of some numbers.
pub(crate) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// One line for some ratios, and whether their median is within a limit (`..` for none).
pub(crate) fn show(what: &str, ratios: &[f64], limit: impl RangeBounds<f64>) {
    let mut sorted = ratios.to_vec();
    sorted.sort_by(f64::total_cmp);
    let word = if limit.contains(&median(ratios)) { "within" } else { "BEYOND" };
    let verdict = match (limit.start_bound(), limit.end_bound()) {
        (Bound::Included(edge), _) | (_, Bound::Included(edge)) => {
            format!(", {word} the limit of {edge:.2}")
        }
        _ => String::new(),
    };
    println!(
        "{what}: median {:.3} of {} ({:.3} to {:.3}){verdict}",
        median(ratios),
        ratios.len(),
        sorted[0],
        sorted[sorted.len() - 1]
    );
}
