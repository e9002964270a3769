//! Results as text: the terminal's tables, JSON, JUnit and Markdown, and the formatting of numbers
//! that these share with the dashboard.

mod analysis;
mod comparison;
mod device;
mod folded;
mod judged;
mod junit;
pub mod number;
mod standing;
mod sweep;
mod table;
mod text;

pub use self::{
    analysis::analysis,
    comparison::{
        COMPARISON_HEADS, comparison_heading, comparison_json, comparison_markdown,
        comparison_notes, comparison_row, comparison_table,
    },
    folded::folded,
    judged::{FIELDS, JudgedRow, VERDICT},
    junit::junit,
    standing::{STANDING_HEADS, standing_message, standing_notes, standing_row, standing_table},
    sweep::{sweep_lines, sweep_picture},
    table::{Footing, table},
    text::{environment_change, kernel_name, safe, triage_note},
};
