//! Serves a site and rebuilds it when the history or the records change.
//!
//! A page shows what ran on this machine, so other machines are served only on request. A page from
//! elsewhere can make a browser on this machine ask for the site by a host name of its own (DNS
//! rebinding), so the server answers only to its own host names.

mod http;
mod watcher;

use std::{net::SocketAddr, str::FromStr, sync::Arc};

use dmarig_history::{History, HistoryError};
use tokio::{net::TcpListener, sync::watch};

use self::{
    http::{HostNames, serve_connections},
    watcher::{Watcher, rebuild_on_changes},
};
use crate::{
    Dashboard, DashboardError, Sources,
    site_builder::{NewRecords, add_records, build_dashboard},
};

/// An address to serve at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

/// A text that is not an address to serve at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}`: write a port, or an address and a port, as in 127.0.0.1:8321")]
pub struct InvalidAddress(String);

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if let Ok(port) = text.parse() {
            return Ok(Self(SocketAddr::from(([127, 0, 0, 1], port))));
        }
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        numeric.parse().map(Self).map_err(|_| InvalidAddress(text.to_owned()))
    }
}

/// A site with the number of times that it was rebuilt.
struct SiteVersion {
    number: u64,
    dashboard: Dashboard,
}

type CurrentSite = watch::Receiver<Arc<SiteVersion>>;

/// Serves until the process is interrupted. `exposed` are host names by which other machines know this
/// one; without any, only a loopback address is accepted.
///
/// # Errors
/// [`DashboardError`]
pub async fn serve(
    sources: Sources,
    address: Address,
    exposed: &[String],
    serving: impl FnOnce(&SocketAddr),
) -> Result<(), DashboardError> {
    let Address(address) = address;
    if !address.ip().is_loopback() && exposed.is_empty() {
        return Err(DashboardError::NotExposed { address });
    }
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| DashboardError::Bind { address, source })?;
    let address = listener.local_addr()?;
    if sources.add {
        import_records(sources.clone()).await?;
    }
    let (revision, dashboard) = build_site(sources.clone()).await?;
    let watcher = Watcher::new(sources, revision);
    let (sender, current) = watch::channel(Arc::new(SiteVersion { number: 0, dashboard }));
    serving(&address);
    let host_names = HostNames::new(address.ip(), exposed);
    tokio::select! {
        () = rebuild_on_changes(watcher, sender) => Ok(()),
        error = serve_connections(listener, current, host_names) => {
            Err(DashboardError::Serve(error))
        }
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

/// Builds the site on a blocking thread, since that may take seconds. Also returns a revision of the
/// history that the site is at least as new as.
async fn build_site(sources: Sources) -> Result<(String, Dashboard), DashboardError> {
    let built = tokio::task::spawn_blocking(move || {
        // The revision is read first: what is added meanwhile makes another one.
        let revision = history_revision(&sources)?;
        Ok::<_, HistoryError>((revision, build_dashboard(&sources, true)?))
    });
    Ok(built.await??)
}

fn history_revision(sources: &Sources) -> Result<String, HistoryError> {
    History::open(&sources.history)?.revision()
}

/// Adds new records to the history.
async fn import_records(sources: Sources) -> Result<NewRecords, DashboardError> {
    tokio::task::spawn_blocking(move || add_records(&sources)).await?
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn reads_addresses_with_their_defaults() {
        let read = |text: &str| text.parse::<Address>().map(|address| address.0.to_string());
        assert_eq!(read("8321").unwrap(), "127.0.0.1:8321");
        assert_eq!(read("localhost:80").unwrap(), "127.0.0.1:80");
        assert_eq!(read("0.0.0.0:80").unwrap(), "0.0.0.0:80");
        assert_eq!(read("[::1]:80").unwrap(), "[::1]:80");
        assert_eq!(read("somewhere:80"), Err(InvalidAddress("somewhere:80".into())));
    }

    #[tokio::test]
    async fn refuses_other_machines_without_host_names() {
        let nowhere = Path::new("/nonexistent");
        let sources =
            Sources { history: nowhere.into(), runs: nowhere.into(), add: false, detailed: 0 };
        let address = "0.0.0.0:0".parse().unwrap();
        let error = serve(sources, address, &[], |_| ()).await.unwrap_err();
        assert!(matches!(error, DashboardError::NotExposed { .. }), "{error}");
    }

    #[tokio::test]
    async fn ends_without_error_when_interrupted() {
        let place = tempfile::tempdir().unwrap();
        let (history, runs) = (place.path().join("history.sqlite"), place.path().join("runs"));
        History::create(&history).unwrap();
        let sources = Sources { history, runs, add: false, detailed: 0 };
        let interrupt = |_: &SocketAddr| {
            // The task runs once the server waits, and so handles the signal.
            tokio::spawn(async {
                let process = rustix::process::getpid();
                rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
            });
        };
        serve(sources, "0".parse().unwrap(), &[], interrupt).await.unwrap();
    }
}
