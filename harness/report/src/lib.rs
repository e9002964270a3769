//! Results as text: the terminal's tables, JSON, JUnit and Markdown, and the formatting of numbers
//! that these share with the dashboard.

mod analysis;
mod comparison;
mod device;
mod folded;
mod judged;
mod junit;
mod layout;
pub mod number;
mod run_view;
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
    run_view::{CellFacts, CellView, FactColumn, RunView},
    standing::standing_notes,
    sweep::{sweep_crossovers, sweep_growth, sweep_picture},
    table::TableContext,
    text::{environment_change, kernel_name, safe, triage_note},
};
