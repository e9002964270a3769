//! How a run is told: live on standard error, then as a table, JSON or JUnit.

mod analysis;
mod comparison;
mod device;
mod folded;
mod judged;
mod junit;
mod live;
mod standing;
mod sweep;
mod table;

use std::collections::BTreeMap;

use dmarig_history::Alert;
use dmarig_model::{matrix::Cell, text::shown};
use dmarig_records::Environment;

pub(crate) use dmarig_dashboard::quantity;

pub(crate) use self::{
    analysis::analysis,
    comparison::{
        COMPARISON_HEADS, comparison_heading, comparison_json, comparison_markdown,
        comparison_notes, comparison_row, comparison_table,
    },
    folded::folded,
    judged::{FIELDS, JudgedRow, VERDICT},
    junit::junit,
    live::{BisectionCells, Lines, Live, Notes, on_interrupt},
    standing::{STANDING_HEADS, standing_notes, standing_row, standing_table},
    sweep::{sweep_lines, sweep_picture},
    table::{Footing, table},
};

/// Tells of an error that ended a command: each cause on a line of its own.
pub(crate) fn diagnose(error: &anyhow::Error) {
    let mut causes = error.chain().map(ToString::to_string);
    let first = causes.next().unwrap_or_default();
    errln!("dmarig: {}", first.trim_end());
    let mut last = first;
    for cause in causes.filter(|cause| !cause.is_empty()) {
        // Many errors repeat their source's text.
        if !last.contains(&cause) {
            errln!("  because: {}", cause.trim_end());
        }
        last = cause;
    }
}

/// A kernel as it says itself, and where that is known what tells its build from others that say the
/// same: a commit, a package's version, or a hash. `None` where neither is known.
pub(crate) fn kernel(release: Option<&str>, build: &str) -> Option<String> {
    match release {
        Some(release) if build == "-" || release.contains(build) => Some(shown(release)),
        Some(release) => Some(format!("{} ({})", shown(release), shown(build))),
        None => (build != "-").then(|| shown(build)),
    }
}

/// What was said of an alert, and by whom.
pub(crate) fn note(alert: &Alert) -> String {
    let Some(said) = &alert.said else { return String::new() };
    let told = [said.note.trim(), said.author.trim()].into_iter().filter(|part| !part.is_empty());
    told.collect::<Vec<_>>().join(", ")
}

/// What an alert's last good run ran on that its first bad one did not; `None` where that is all the same.
pub(crate) fn elsewhere(
    alert: &Alert,
    environments: &BTreeMap<String, Environment>,
) -> Option<String> {
    let good = environments.get(&alert.last_good.as_ref()?.environment)?;
    let told = environments.get(&alert.environment)?.otherwise(good);
    (!told.is_empty()).then(|| shown(&told))
}

/// The cell's settings in a few words, such as `on lazy nvme debian-6.1`.
pub(crate) fn short(cell: &Cell) -> String {
    let words: Vec<String> =
        cell.varied.iter().map(|axis| format!("{axis}={}", axis.value(&cell.axes))).collect();
    shown(&format!("{}/{}", cell.case, words.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_of_one_release_are_told_apart() {
        let told = |release, build| kernel(release, build).unwrap_or_default();
        assert_eq!(told(Some("6.12.0-dmarig"), "0123456789ab"), "6.12.0-dmarig (0123456789ab)");
        assert_eq!(told(Some("6.12.0-g0123456789ab"), "0123456789ab"), "6.12.0-g0123456789ab");
        assert_eq!(told(Some("6.1.0\u{1b}"), "-"), "6.1.0\\u{1b}");
        assert_eq!(told(None, "6.1.176-1"), "6.1.176-1");
        assert_eq!(kernel(None, "-"), None);
    }
}
