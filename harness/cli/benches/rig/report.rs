//! Numbers as people read them.

/// The middle of some numbers.
pub(crate) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// One line for some ratios, and whether their median is within the limit.
pub(crate) fn show(what: &str, ratios: &[f64], limit: Option<f64>) {
    let mut sorted = ratios.to_vec();
    sorted.sort_by(f64::total_cmp);
    let verdict = limit.map_or_else(String::new, |limit| {
        let word = if median(ratios) <= limit { "within" } else { "OVER" };
        format!(", {word} the limit of {limit:.2}")
    });
    println!(
        "{what}: median {:.3} of {} ({:.3} to {:.3}){verdict}",
        median(ratios),
        ratios.len(),
        sorted[0],
        sorted[sorted.len() - 1]
    );
}
