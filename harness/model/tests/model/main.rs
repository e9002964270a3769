//! The model as its users see it.

mod case_files;
mod document;
mod judge;
mod log;
mod matrix;
mod passed_through;
mod proof;
mod seen;
