//! A number beside others, as it is told: in a table of a terminal, in Markdown and on a page.

use comfy_table::{
    Attribute, Cell as Field, CellAlignment, Color, ContentArrangement, Table, presets,
};
use dmarig_stats::paired::Judgement;

/// Fields of a number.
pub const FIELDS: usize = 9;

/// Which field is the verdict.
pub const VERDICT: usize = 6;

/// A number beside others.
pub struct JudgedRow {
    /// What is told of it: its name first, its verdict as a word at [`VERDICT`].
    pub fields: [String; FIELDS],
    /// What is thought of it; `None` where nothing is.
    pub judgement: Option<Judgement>,
}

/// The numbers as a table for a terminal of this width.
pub(crate) fn judged_table(
    heads: [&str; FIELDS],
    rows: impl IntoIterator<Item = JudgedRow>,
    width: u16,
    colour: bool,
) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width)
        .set_header(heads.map(|head| {
            let head = Field::new(head);
            if colour { head.add_attribute(Attribute::Bold) } else { head }
        }));
    for JudgedRow { fields, judgement } in rows {
        table.add_row(fields.into_iter().enumerate().map(|(at, field)| {
            let field = Field::new(field);
            match at {
                VERDICT if colour => paint(field, judgement),
                0 | VERDICT => field,
                _ => field.set_alignment(CellAlignment::Right),
            }
        }));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn paint(field: Field, judgement: Option<Judgement>) -> Field {
    match judgement {
        Some(Judgement::Pass) => field.fg(Color::Green),
        Some(Judgement::Fail) => field.fg(Color::Red),
        Some(Judgement::Inconclusive) => field.fg(Color::Yellow),
        None => field,
    }
}
