//! Tests of the history.

mod alerts;
mod exports;
mod failures;
mod fixtures;
mod history_check;
mod importing;
mod killed;
mod merging;
mod reading;
mod recorded_cells;
mod synthetic;
mod versions;
