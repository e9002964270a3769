//! What a passed-through device saw of each policy: invalidations, walks, how long and how much it
//! still reached, and how fast it was meanwhile.

use comfy_table::{Cell as Field, CellAlignment, ContentArrangement, Table, presets};
use dmarig_model::{
    axes::{Axis, Passthrough},
    document::CellResult,
    matrix::Cell,
    metrics::CONTROL_PREFIX,
};

use crate::{
    layout::laid_out,
    number::{coarse_bytes, coarse_time, megabytes_per_second, per_operation, share, whole},
};

/// A column: its head, its metric, and how that is written.
type Column = (&'static str, &'static str, fn(f64) -> String);

/// What a policy cost.
const COST: &[Column] = &[
    ("PSI\nan unmap", "psi-per-unmap", per_operation),
    ("DSI per\n1,000", "dsi-per-1000-unmaps", per_operation),
    ("walked\nan unmap", "page-walk-entries-per-unmap", per_operation),
    ("in vain\nan unmap", "page-walk-in-vain-per-unmap", per_operation),
    ("throughput", "throughput", megabytes_per_second),
];

/// What it left within reach: the share of requests that the kernel had given back, and how long, for how
/// many later requests and with how many bytes at a time a finished request's buffers stayed mapped.
const REACH: &[Column] = &[
    ("stale", "stale-share", share),
    ("mapped on\np50", "stale-p50", coarse_time),
    ("\np99", "stale-p99", coarse_time),
    ("\nlongest", "stale-max", coarse_time),
    ("later\nrequests", "stale-for-requests", whole),
    ("at a time", "stale-bytes", coarse_bytes),
];

/// The tables of a case's cells with a probe; empty where none of them told anything.
pub(crate) fn device_tables(cells: &[(&Cell, &CellResult)], axes: &[Axis], width: u16) -> String {
    let titles = [("what it cost", COST), ("what the device still reached", REACH)];
    titles.map(|(title, columns)| one(title, columns, cells, axes, width)).concat()
}

fn one(
    title: &str,
    columns: &[Column],
    cells: &[(&Cell, &CellResult)],
    axes: &[Axis],
    width: u16,
) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width);
    let heads = axes.iter().map(|axis| axis.name().replace('-', "-\n"));
    let named = columns.iter().map(|(head, ..)| (*head).to_owned());
    table.set_header(heads.chain(["group".to_owned()]).chain(named).collect::<Vec<_>>());
    let probed = |cell: &Cell| cell.axes.passthrough == Passthrough::Probe;
    for (cell, result) in cells.iter().filter(|(cell, _)| probed(cell)) {
        let own = result.group_type.as_deref().unwrap_or("-");
        for (prefix, group) in [("", own), (CONTROL_PREFIX, "made to batch")] {
            let of = |(_, name, show): &Column| {
                let name = format!("{prefix}{name}");
                let metric = result.metrics.iter().find(|metric| metric.name == name)?;
                Some(show(metric.value))
            };
            let values: Vec<Option<String>> = columns.iter().map(of).collect();
            if values.iter().all(Option::is_none) {
                continue;
            }
            let mut row: Vec<Field> =
                axes.iter().map(|axis| Field::new(axis.value(&cell.axes))).collect();
            row.push(Field::new(group));
            row.extend(values.into_iter().map(|value| {
                let text = value.unwrap_or_else(|| "-".to_owned());
                Field::new(text).set_alignment(CellAlignment::Right)
            }));
            table.add_row(row);
        }
    }
    if table.row_count() == 0 {
        return String::new();
    }
    let lines: Vec<String> = laid_out(table, true).collect();
    format!("\n{title}\n{}\n", lines.join("\n"))
}
