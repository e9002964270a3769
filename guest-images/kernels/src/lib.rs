//! Kernels built from source: Debian's packages of it, or a user's own tree, which is never written
//! to; with a small configuration of our own, and with edits, such as the [`Bug`]s that prove that
//! the rig catches what it is there for.
//!
//! A [`Builder`] takes a [`Spec`] to a kernel in the [`Cache`](dmarig_images::Cache). What was built
//! before is found again by its source, configuration, edits and compiler; else the objects of the
//! last build from the same source are there, and only what changed is compiled.

mod builder;
mod config;
mod dir_source;
mod edit;
mod error;
mod git_source;
mod kconfig;
mod make;
mod output;
mod tools;
mod workspace;

pub use builder::{Builder, Built, Phase, Source, Spec};
pub use config::Fragment;
pub use edit::{Bug, Bugs, Edit, Edits};
pub use error::{Error, Fault};

/// What every function here returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Hexadecimal digits of the names of built kernels, workspaces and object directories.
const ID_DIGITS: usize = 20;
