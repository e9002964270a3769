//! Tests of the `dmarig` program: invalid input, QEMUs and guests that misbehave, and signals. Each checks the message,
//! the outcome, the documented exit code, that nothing is left behind, and that other cells are not affected.
//!
//! Texts for people stand in snapshots. Assertions are on exit codes, outcomes and JSON.

mod analyzing;
mod bisecting;
mod building;
mod cases;
mod compare;
mod completion;
mod dashboards;
mod disks;
mod documentation;
mod guests;
mod hand_over;
mod histories;
mod kernels;
mod night;
mod place;
mod probes;
mod qemus;
mod recorded_runs;
mod results;
mod scripts;
mod signals;
mod standing;
mod terminals;
mod trees;
