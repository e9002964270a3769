//! The pages, one file each.

pub(crate) mod alerts;
pub(crate) mod compare;
mod health;
mod limits;
mod machines;
mod outliers;
pub(crate) mod overview;
pub(crate) mod run;
mod run_cells;
pub(crate) mod runs;
pub(crate) mod series;
pub(crate) mod series_list;
pub(crate) mod sweeps;
mod verdict_changes;
