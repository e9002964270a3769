//! Tables of a history: runs, series and their values.

use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use dmarig_history::{CellEntry, Point, RunRow, SeriesRow, Summary};
use dmarig_model::text::shown;
use dmarig_records::utc;

use crate::{kernel_name, number::quantity};

/// Runs of a history, newest first, and a summary of the history at `path`.
#[must_use]
pub fn runs_table(runs: &[RunRow], summary: &Summary, path: &Path) -> String {
    let mut table = table(["run", "started", "cells", "", "reference"]);
    for run in runs {
        table.add_row([
            shown(&run.id),
            utc(run.started),
            run.outcomes.values().sum::<u64>().to_string(),
            outcomes(run),
            run.reference.as_deref().map_or("-".to_owned(), shown),
        ]);
    }
    align_right(&mut table, 2);
    let mut text = rendered(&table);
    text.push_str(&format!(
        "\n{} of {} runs; {} series, {} samples: {}\n",
        runs.len(),
        summary.runs,
        summary.series,
        summary.samples,
        path.display()
    ));
    if summary.synthetic > 0 {
        text.push_str(&format!("{} of the runs were MADE UP, not measured\n", summary.synthetic));
    }
    text
}

/// Series of a history.
#[must_use]
pub fn series_table(series: &[SeriesRow]) -> String {
    let mut table = table(["series", "of", "environment", "points", "last"]);
    for SeriesRow { id, key, points, last } in series {
        table.add_row([
            id.clone(),
            shown(&key.to_string()),
            key.environment.clone(),
            points.to_string(),
            utc(*last),
        ]);
    }
    align_right(&mut table, 3);
    rendered(&table)
}

/// One run of a history with its cells.
#[must_use]
pub fn run_table(run: &RunRow, cells: &[CellEntry]) -> String {
    let mut text = format!("run {}, {} UTC\n", shown(&run.id), utc(run.started));
    let facts = [
        ("command", run.command.join(" ")),
        ("dmarig", run.dmarig.clone()),
        ("rules", run.rules.clone()),
        ("reference", run.reference.clone().unwrap_or_default()),
    ];
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        text.push_str(&format!("{name}: {}\n", shown(value)));
    }
    let mut environments: Vec<_> = cells.iter().map(|cell| &cell.environment).collect();
    environments.sort();
    environments.dedup();
    for environment in environments {
        let parts = environment.parts().into_iter().filter(|(_, value)| !value.is_empty());
        let parts: Vec<String> = parts.map(|(name, value)| format!("{name} {value}")).collect();
        let line = format!("{}: {}", environment.fingerprint(), parts.join(", "));
        text.push_str(&format!("environment {}\n", shown(&line)));
    }
    text.push('\n');
    let mut table = table(["cell", "", "kernel", "why"]);
    for CellEntry { id, outcome, build, release, reasons, .. } in cells {
        let kernel = kernel_name(release.as_deref(), &build.short());
        let reason = reasons.first().map_or_else(String::new, |reason| shown(reason));
        let kernel = kernel.unwrap_or_else(|| "-".to_owned());
        table.add_row([shown(id), outcome.name().to_owned(), kernel, reason]);
    }
    text.push_str(&rendered(&table));
    text.push_str(&format!("\n{}\n", outcomes(run)));
    text
}

/// One series of a history with its values.
#[must_use]
pub fn points_table(series: &SeriesRow, points: &[Point]) -> String {
    let mut table = table(["run", "started", "kernel", "value"]);
    for point in points {
        let kernel = kernel_name(point.release.as_deref(), &point.build.short());
        table.add_row([
            shown(&point.run),
            utc(point.started),
            kernel.unwrap_or_else(|| "-".to_owned()),
            quantity(point.value, series.key.value_unit()),
        ]);
    }
    align_right(&mut table, 3);
    let key = &series.key;
    format!("{}\nin {}\n\n{}", shown(&key.to_string()), key.environment, rendered(&table))
}

/// Outcomes of a run's cells, and whether some never ran.
fn outcomes(run: &RunRow) -> String {
    let cells = run.outcomes.iter().map(|(outcome, count)| format!("{count} {}", outcome.name()));
    let cells = cells.collect::<Vec<_>>().join(", ");
    match run.ended_early {
        None => cells,
        Some(early) if cells.is_empty() => early.to_string(),
        Some(early) => format!("{cells}; {early}"),
    }
}

/// A table without lines.
pub(crate) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

fn align_right(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// The lines of a table, without trailing blanks.
pub(crate) fn rendered(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
