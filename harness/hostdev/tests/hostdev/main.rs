//! Checks, hand-over and mending on hosts that are made of files.

mod binding;
mod checks;
mod fake;
mod journal;
