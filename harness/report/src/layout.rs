//! The layout of tables with many columns.

use comfy_table::{Cell as Field, ColumnConstraint, Table, Width};

/// A table's lines. A value is never broken; many columns stand close together.
pub(crate) fn laid_out(mut table: Table, close: bool) -> impl Iterator<Item = String> {
    let widths: Vec<u16> = (0..table.column_count()).map(|at| widest(&table, at)).collect();
    for (column, width) in table.column_iter_mut().zip(widths) {
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
        if close {
            column.set_padding((1, 0));
        }
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.into_iter()
}

/// The width of a column's widest value, with the space around it.
fn widest(table: &Table, column: usize) -> u16 {
    let rows = table.header().into_iter().chain(table.row_iter());
    let fields = rows.filter_map(|row| row.cell_iter().nth(column)).map(Field::content);
    let widest = fields.flat_map(|text| text.lines().map(str::len).max()).max().unwrap_or(0);
    u16::try_from(widest + 2).unwrap_or(u16::MAX)
}
