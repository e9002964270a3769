//! Why a site can't be made, written or served.

use std::{io, net::SocketAddr, path::PathBuf};

use dmarig_history::HistoryError;
use dmarig_records::RecordError;

/// Why a site can't be made, written or served.
#[derive(Debug, thiserror::Error)]
pub enum DashboardError {
    /// A directory with something else in it.
    #[error(
        "{} contains something that is not a dashboard: name an empty directory, or one that does not \
         exist",
        path.display()
    )]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// An address that other machines can reach, without the names by which they may ask for it.
    #[error(
        "{address} can be reached from other machines, and everybody there could read what ran here: \
         name the host that they will ask for with --expose NAME if that is meant, or serve at \
         127.0.0.1"
    )]
    NotExposed {
        /// The address.
        address: SocketAddr,
    },
    /// The history can't be read or written.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The records can't be listed.
    #[error(transparent)]
    Records(#[from] RecordError),
    /// A file of the site can't be read or written.
    #[error("can't {action} {}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The address can't be served at.
    #[error("can't serve at {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The server ended.
    #[error("the server ended")]
    Serve(#[from] io::Error),
    /// A task that reads the history panicked.
    #[error("reading the history failed")]
    Task(#[from] tokio::task::JoinError),
}
