//! The model as its users see it.

mod analysis;
mod axes;
mod case_files;
mod document;
mod judge;
mod log;
mod matrix;
mod measured;
mod never_judged;
mod passed_through;
mod proof;
mod seen;
