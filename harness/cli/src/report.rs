//! Progress of a run on standard error, and errors that end a command.

mod live;

use dmarig_model::{matrix::Cell, text::shown};

pub(crate) use self::live::{BisectionCells, Lines, Live, Notes, on_interrupt};

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

/// The cell's settings in a few words, such as `on lazy nvme debian-6.1`.
pub(crate) fn short(cell: &Cell) -> String {
    let words: Vec<String> =
        cell.varied.iter().map(|axis| format!("{axis}={}", axis.value(&cell.axes))).collect();
    shown(&format!("{}/{}", cell.case, words.join(",")))
}
