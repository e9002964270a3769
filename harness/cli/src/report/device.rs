//! What a passed-through device saw of each policy: invalidations, walks, how long and how much it
//! still reached, and how fast it was meanwhile.

use comfy_table::{Cell as Field, CellAlignment, ContentArrangement, Table, presets};
use dmarig_model::{
    axes::{Axis, Passthrough},
    document::CellResult,
    matrix::Cell,
    metrics::CONTROL_PREFIX,
};

use super::table::laid_out;

/// A column: its head, its metric, and how that is written.
type Column = (&'static str, &'static str, fn(f64) -> String);

/// What a policy cost.
const COST: &[Column] = &[
    ("PSI\nan unmap", "psi-per-unmap", ratio),
    ("DSI per\n1,000", "dsi-per-1000-unmaps", ratio),
    ("walked\nan unmap", "page-walk-entries-per-unmap", ratio),
    ("in vain\nan unmap", "page-walk-in-vain-per-unmap", ratio),
    ("throughput", "throughput", rate),
];

/// What it left within reach: the share of requests that the kernel had given back, and how long, for how
/// many later requests and with how many bytes at a time a finished request's buffers stayed mapped.
const REACH: &[Column] = &[
    ("stale", "stale-share", share),
    ("mapped on\np50", "stale-p50", time),
    ("\np99", "stale-p99", time),
    ("\nlongest", "stale-max", time),
    ("later\nrequests", "stale-for-requests", whole),
    ("at a time", "stale-bytes", bytes),
];

/// The tables of a case's cells with a probe; empty where none of them told anything.
pub(super) fn device_tables(cells: &[(&Cell, &CellResult)], axes: &[Axis], width: u16) -> String {
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

fn ratio(value: f64) -> String {
    if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

fn share(value: f64) -> String {
    let percent = value * 100.0;
    // What is there at all is not shown as nothing.
    if percent > 0.0 && percent < 0.1 { "<0.1 %".to_owned() } else { format!("{percent:.1} %") }
}

/// Nanoseconds.
fn time(value: f64) -> String {
    match value {
        ns if ns < 1e6 => format!("{:.0} us", ns / 1e3),
        ns if ns < 1e8 => format!("{:.1} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

fn bytes(value: f64) -> String {
    match value {
        small if small < 1024.0 * 1024.0 => format!("{:.0} KiB", small / 1024.0),
        large => format!("{:.1} MiB", large / 1024.0 / 1024.0),
    }
}

fn rate(value: f64) -> String {
    format!("{:.2} MB/s", value / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!([0.0, 0.0004, 0.25].map(share), ["0.0 %", "<0.1 %", "25.0 %"]);
        assert_eq!([38_400.0, 9_700_000.0, 1.5e9].map(time), ["38 us", "9.7 ms", "1.50 s"]);
        assert_eq!([4096.0, 3.5e6].map(bytes), ["4 KiB", "3.3 MiB"]);
        assert_eq!([0.004, 12.0, 25_000.4].map(ratio), ["0.00", "12.00", "25000"]);
    }
}
