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
pub mod svg;
mod sweep;
mod table;
mod text;

pub use self::{
    analysis::analysis,
    comparison::{
        comparison_heading, comparison_json, comparison_markdown, comparison_notes,
        comparison_table,
    },
    folded::folded,
    judged::{Basis, Column, JudgedMetric, MetricVerdict, Range, Reference},
    junit::junit,
    standing::{standing_notes, standing_table},
    sweep::{sweep_crossovers, sweep_growth, sweep_lines, sweep_picture},
    table::{Footing, table},
    text::{environment_change, kernel_name, safe, triage_note},
};
