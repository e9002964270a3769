//! Results as text: the terminal's tables, JSON, JUnit and Markdown, and the formatting of numbers
//! that these share with the dashboard.

mod alerts;
mod analysis;
mod comparison;
mod device;
mod folded;
mod history_tables;
mod judged;
mod junit;
mod layout;
pub mod number;
mod recorded_runs;
mod run_view;
mod standing;
pub mod svg;
mod sweep;
mod table;
mod text;
mod trials;

pub use self::{
    alerts::alerts_table,
    analysis::analysis,
    comparison::{
        comparison_heading, comparison_json, comparison_markdown, comparison_notes,
        comparison_table,
    },
    folded::folded,
    history_tables::{points_table, run_table, runs_table, series_table},
    judged::{Basis, Column, JudgedMetric, MetricVerdict, Range, Reference},
    recorded_runs::{RecordedRun, recorded_runs_table},
    run_view::{CellFacts, CellView, FactColumn, RunView},
    standing::standing_notes,
    sweep::{sweep_crossovers, sweep_growth, sweep_picture},
    table::TableContext,
    text::{environment_change, kernel_name, safe, triage_note},
    trials::{TrialsDocument, trial_line, trials_document, trials_text},
};
