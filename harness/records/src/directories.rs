//! Default directories.

use std::{env, path::PathBuf};

/// Directory of runs: `$XDG_STATE_HOME/dmarig/runs` or `~/.local/state/dmarig/runs`.
#[must_use]
pub fn runs_directory() -> Option<PathBuf> {
    Some(state_directory()?.join("runs"))
}

/// Directory of runs on kernels with seeded bugs: `$XDG_STATE_HOME/dmarig/proofs` or
/// `~/.local/state/dmarig/proofs`.
#[must_use]
pub fn proofs_directory() -> Option<PathBuf> {
    Some(state_directory()?.join("proofs"))
}

/// Directory of persistent data: `$XDG_STATE_HOME/dmarig` or `~/.local/state/dmarig`. `None` if
/// neither `XDG_STATE_HOME` nor `HOME` is an absolute path.
#[must_use]
pub fn state_directory() -> Option<PathBuf> {
    let absolute =
        |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Some(state?.join("dmarig"))
}
