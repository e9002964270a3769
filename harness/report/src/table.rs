//! The table of cells, and below it what did not pass, with its evidence and how to see it again.

use std::{collections::BTreeMap, fmt::Write};

use comfy_table::{
    Attribute, Cell as Field, CellAlignment, Color, ContentArrangement, Table, presets,
};
use dmarig_model::{
    axes::{Axis, Passthrough},
    document::CellResult,
    matrix::Cell,
    metrics::SHOWN_OF_PASSED_CELLS,
    observation::Outcome,
};

use crate::{
    device::device_tables,
    folded::folded,
    layout::laid_out,
    run_view::{CellFacts, FactColumn},
};

/// A cell with its result.
type Row<'a> = (&'a Cell, &'a CellResult);

/// Cells whose checks are told though they passed; more would bury the table.
const EXPLAINED: usize = 12;

/// How the tables of a run are shown.
#[derive(Clone, Copy)]
pub struct TableContext<'a> {
    /// How wide they may be, in columns.
    pub width: u16,
    /// Whether outcomes are coloured.
    pub colour: bool,
    /// The command that runs a cell again.
    pub rerun: &'a dyn Fn(&Cell) -> String,
    /// Where the logs of guests are.
    pub logs: &'a dyn Fn(&Cell) -> String,
}

/// All cells in one table a case, then those that need a look.
pub(crate) fn table(cells: &[Row<'_>], sweeps: &str, context: &TableContext<'_>) -> String {
    let mut text = String::new();
    let mut names: Vec<&str> = Vec::new();
    for (cell, _) in cells {
        if !names.contains(&cell.case.as_str()) {
            names.push(&cell.case);
        }
    }
    for name in names {
        let of_case: Vec<_> = cells.iter().filter(|(cell, _)| cell.case == name).copied().collect();
        text.push_str(&case_table(name, &of_case, context));
    }
    text.push_str(sweeps);
    text.push_str(&problems(cells, context));
    text.push_str(&totals(cells));
    text
}

/// Axes whose values differ within these cells.
fn columns(cells: &[Row<'_>]) -> Vec<Axis> {
    let differs = |axis: &Axis| {
        let mut values = cells.iter().map(|(cell, _)| axis.value(&cell.axes));
        let first = values.next();
        values.any(|value| Some(value) != first)
    };
    Axis::ALL.into_iter().filter(differs).collect()
}

fn case_table(name: &str, cells: &[Row<'_>], context: &TableContext<'_>) -> String {
    let columns = columns(cells);
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(context.width);
    let heads = columns.iter().map(|axis| axis.name().to_owned());
    // What a hypervisor walks and what a device still reaches is of interest where one is shadowed.
    let shadowed = cells.iter().any(|(cell, _)| cell.axes.passthrough != Passthrough::None);
    let columns_of_facts = fact_columns(shadowed);
    let header = heads
        .chain(["verdict".to_owned()])
        .chain(columns_of_facts.iter().map(|column| column.head().to_owned()))
        .map(|head| if shadowed { head.replace('-', "-\n").replace(' ', "\n") } else { head })
        .map(|head| bold(head, context));
    table.set_header(header);
    for (cell, result) in cells {
        let mut row: Vec<Field> =
            columns.iter().map(|axis| Field::new(axis.value(&cell.axes))).collect();
        row.extend(fields(result, &columns_of_facts, context));
        table.add_row(row);
    }
    let heading = heading(name, cells, &columns);
    let mut text = format!("\n{}\n\n", folded(&heading, context.width, "  "));
    for line in laid_out(table, shadowed) {
        text.push_str(&line);
        text.push('\n');
    }
    text.push_str(&device_tables(cells, &columns, context.width));
    text.push_str(&why(cells, &columns, context));
    text
}

/// What each cell that passed was held against, in a line or two; left away where there are many.
fn why(cells: &[Row<'_>], columns: &[Axis], context: &TableContext<'_>) -> String {
    let passed = cells.iter().filter(|(_, result)| result.outcome == Outcome::Passed);
    let passed: Vec<_> = passed.collect();
    if passed.is_empty() || passed.len() > EXPLAINED {
        return String::new();
    }
    let mut text = String::from("\nas expected of each\n");
    for (cell, result) in passed {
        let values: Vec<String> = columns.iter().map(|axis| axis.value(&cell.axes)).collect();
        let held = result
            .checks
            .iter()
            .filter(|check| SHOWN_OF_PASSED_CELLS.contains(&check.name.as_str()));
        let checks: Vec<String> = held
            .map(|check| {
                if check.expected.trim_start_matches("exactly ") == check.found {
                    format!("{} {}", check.name, check.found)
                } else {
                    format!("{} {} (of {})", check.name, check.found, check.expected)
                }
            })
            .collect();
        let values = if values.is_empty() { cell.case.clone() } else { values.join(" ") };
        let line = format!("{values}: {}", checks.join(", "));
        let _ = writeln!(text, "{}", folded(&format!("  {line}"), context.width, "      "));
    }
    text
}

fn bold(text: String, context: &TableContext<'_>) -> Field {
    let field = Field::new(text);
    if context.colour { field.add_attribute(Attribute::Bold) } else { field }
}

/// The case, and the values that all of its cells share.
fn heading(name: &str, cells: &[Row<'_>], columns: &[Axis]) -> String {
    let mut text = format!("case {name}");
    let Some((cell, _)) = cells.first() else { return text };
    if !columns.contains(&Axis::Device) {
        let _ = write!(text, ", device {}", cell.axes.device);
    }
    if !columns.contains(&Axis::Kernel) {
        let _ = write!(text, ", kernel {}", cell.axes.kernel);
        if let Some(release) = cells.iter().find_map(|(_, result)| result.axes.kernel.as_ref()) {
            let _ = write!(text, " ({release})");
        }
    }
    if let Some(result) =
        cells.iter().map(|(_, result)| result).find(|result| result.qemu_version.is_some())
        && !columns.contains(&Axis::Qemu)
    {
        let version = result.qemu_version.as_deref().unwrap_or_default();
        let version = version.split(' ').next().unwrap_or_default();
        let _ = write!(text, ", QEMU {version} with {}", result.axes.accelerator);
    }
    text
}

/// What a hypervisor walks and what a device still reaches is of interest where one is shadowed.
fn fact_columns(shadowed: bool) -> Vec<FactColumn> {
    let only_shadowed = [FactColumn::InVain, FactColumn::Stale];
    let all = FactColumn::ALL.into_iter();
    all.filter(|column| shadowed || !only_shadowed.contains(column)).collect()
}

fn fields(result: &CellResult, columns: &[FactColumn], context: &TableContext<'_>) -> Vec<Field> {
    let outcome = Field::new(result.outcome.name());
    let colour = match result.outcome {
        Outcome::Passed => Color::Green,
        Outcome::Failed | Outcome::TimedOut => Color::Red,
        Outcome::Errored => Color::Yellow,
        Outcome::Skipped => Color::DarkGrey,
    };
    let mut fields = vec![if context.colour { outcome.fg(colour) } else { outcome }];
    let facts = CellFacts::from(result);
    for column in columns {
        let field = Field::new(facts.text(*column).unwrap_or_else(|| "-".to_owned()));
        fields.push(match column {
            FactColumn::Warning | FactColumn::Group => field,
            _ => field.set_alignment(CellAlignment::Right),
        });
    }
    fields
}

/// Cells that did not pass; those with the same reasons are told once.
fn problems(cells: &[Row<'_>], context: &TableContext<'_>) -> String {
    let mut text = String::new();
    let mut groups: BTreeMap<(Outcome, &[String]), Vec<Row<'_>>> = BTreeMap::new();
    for (cell, result) in cells {
        if result.outcome != Outcome::Passed {
            groups.entry((result.outcome, &result.reasons)).or_default().push((cell, result));
        }
    }
    for ((outcome, reasons), cells) in groups {
        let _ = writeln!(text, "\n{}", outcome.name().to_uppercase());
        // Skipped cells are many and need only their reason.
        let named = if outcome == Outcome::Skipped { 3 } else { 12 };
        for (cell, _) in cells.iter().take(named) {
            let _ = writeln!(text, "  {}", cell.id);
        }
        if cells.len() > named {
            let _ = writeln!(text, "  and {} more", cells.len() - named);
        }
        for reason in reasons {
            let _ = writeln!(text, "{}", folded(&format!("    {reason}"), context.width, "      "));
        }
        let Some((cell, result)) = cells.first() else { continue };
        for line in evidence(result) {
            let _ =
                writeln!(text, "{}", folded(&format!("    | {line}"), context.width, "    |   "));
        }
        if outcome != Outcome::Skipped {
            let _ = writeln!(text, "    again: {}", (context.rerun)(cell));
            let _ = writeln!(text, "    logs:  {}", (context.logs)(cell));
        }
    }
    text
}

/// Lines that show what did not hold.
fn evidence(result: &CellResult) -> Vec<String> {
    let broken = result.checks.iter().filter(|check| check.held != Some(true));
    let mut lines: Vec<String> = broken.flat_map(|check| check.evidence.clone()).collect();
    lines.dedup();
    lines.truncate(12);
    lines
}

fn totals(cells: &[Row<'_>]) -> String {
    let count = |outcome| cells.iter().filter(|(_, result)| result.outcome == outcome).count();
    let parts: Vec<String> =
        [Outcome::Passed, Outcome::Failed, Outcome::TimedOut, Outcome::Errored, Outcome::Skipped]
            .into_iter()
            .map(|outcome| (outcome, count(outcome)))
            .filter(|(outcome, count)| *count > 0 || *outcome == Outcome::Passed)
            .map(|(outcome, count)| format!("{count} {}", outcome.name()))
            .collect();
    format!("\n{} cells: {}\n", cells.len(), parts.join(", "))
}
