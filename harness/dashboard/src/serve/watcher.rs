//! Rebuilds the served site when the history or the records change.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::interval};

use super::{SiteVersion, build_site, history_revision, import_records};
use crate::{Dashboard, DashboardError, Sources};

/// Time between two looks at the files.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Publishes a new version of the site whenever something has changed. Never returns.
pub(super) async fn rebuild_on_changes(
    mut watcher: Watcher,
    sender: watch::Sender<Arc<SiteVersion>>,
) {
    let mut clock = interval(POLL_INTERVAL);
    loop {
        clock.tick().await;
        match watcher.poll().await {
            Ok(Some(dashboard)) => {
                let number = sender.borrow().number + 1;
                sender.send_replace(Arc::new(SiteVersion { number, dashboard }));
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("the pages stay as they are: {error}"),
        }
    }
}

/// Detects changes. Other programs may add records to the history before this one does, and this one
/// writes to the history as well. A changed file is therefore only a reason to read the history's
/// revision, and only another revision is a change.
pub(super) struct Watcher {
    sources: Sources,
    /// The files at the last poll; `None` forces the next poll to look closer.
    files: Option<FileStates>,
    /// Whether the next poll imports records even if no file has changed: the end of a run changes none.
    import_again: bool,
    /// The revision that the pages show.
    revision: String,
}

impl Watcher {
    pub(super) fn new(sources: Sources, revision: String) -> Self {
        Self { sources, files: None, import_again: true, revision }
    }

    /// The rebuilt site if something has changed.
    async fn poll(&mut self) -> Result<Option<Dashboard>, DashboardError> {
        let files = FileStates::read(&self.sources);
        let earlier = self.files.take();
        let mut changed = earlier.as_ref() != Some(&files);
        let records_changed = earlier.is_none_or(|earlier| earlier.records != files.records);
        if self.sources.add && (records_changed || self.import_again) {
            self.import_again = true;
            match import_records(self.sources.clone()).await {
                Ok(imported) => {
                    self.import_again = imported.running;
                    changed |= imported.changed;
                }
                Err(error) => tracing::warn!("no record was added: {error}"),
            }
        }
        let rebuilt = if changed { self.rebuild().await? } else { None };
        // Only now: after an error, the next poll tries again.
        self.files = Some(files);
        Ok(rebuilt)
    }

    async fn rebuild(&mut self) -> Result<Option<Dashboard>, DashboardError> {
        let sources = self.sources.clone();
        let revision = tokio::task::spawn_blocking(move || history_revision(&sources)).await??;
        if revision == self.revision {
            return Ok(None);
        }
        let (revision, dashboard) = build_site(self.sources.clone()).await?;
        self.revision = revision;
        Ok(Some(dashboard))
    }
}

/// Sizes and times of the files that the pages are made of.
#[derive(PartialEq, Eq)]
struct FileStates {
    /// Records, which are added to the history.
    records: Vec<FileState>,
    /// The history and the triage of its alerts, whoever writes them.
    history: Vec<FileState>,
}

#[derive(PartialEq, Eq)]
struct FileState {
    path: PathBuf,
    size: u64,
    modified: Option<SystemTime>,
}

impl FileStates {
    fn read(sources: &Sources) -> Self {
        let mut log = sources.history.as_os_str().to_owned();
        log.push("-wal");
        let triage = sources.history.with_extension("alerts.jsonl");
        let mut records = Vec::new();
        if sources.add {
            let entries = std::fs::read_dir(&sources.runs).into_iter().flatten().flatten();
            records.extend(entries.map(|entry| entry.path().join("cells.jsonl")));
            records.sort();
        }
        Self {
            records: file_states(records),
            history: file_states(vec![sources.history.clone(), log.into(), triage]),
        }
    }
}

/// The states of the files that exist.
fn file_states(paths: Vec<PathBuf>) -> Vec<FileState> {
    let mut states = Vec::new();
    for path in paths {
        if let Ok(metadata) = std::fs::metadata(&path) {
            let modified = metadata.modified().ok();
            states.push(FileState { path, size: metadata.len(), modified });
        }
    }
    states
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use dmarig_demo::synthetic_year;
    use dmarig_history::{AlertEvent, AlertState, EVENT_SCHEMA, History, ImportOptions};
    use dmarig_records::{RECORD_SCHEMA, Recorder, RunMeta};

    use super::*;

    /// Records a run without cells that is over; returns its directory.
    fn record(runs: &Path) -> PathBuf {
        let mut meta = RunMeta { schema: RECORD_SCHEMA, ..RunMeta::default() };
        Recorder::create(runs, &mut meta).unwrap().directory().to_owned()
    }

    #[rstest::rstest]
    #[case::adding_records(true)]
    #[case::only_showing(false)]
    #[tokio::test]
    async fn rebuilds_once_for_each_change(#[case] add: bool) {
        let place = tempfile::tempdir().unwrap();
        let (file, runs) = (place.path().join("history.sqlite"), place.path().join("runs"));
        let history = || History::create(&file).unwrap();
        let mut year = synthetic_year(1);
        history().insert_runs([&year.next().unwrap()]).unwrap();
        let sources = Sources { history: file.clone(), runs: runs.clone(), add, detailed: 0 };
        let (revision, _) = build_site(sources.clone()).await.unwrap();
        let mut watcher = Watcher::new(sources, revision);
        let mut check = async |expected: bool, what: &str| {
            assert_eq!(watcher.poll().await.unwrap().is_some(), expected, "{what}");
            for _ in 0..3 {
                assert!(watcher.poll().await.unwrap().is_none(), "{what}, once more");
            }
        };
        check(false, "nothing").await;
        history().insert_runs([&year.next().unwrap()]).unwrap();
        check(true, "a merged run").await;
        history().import(&[record(&runs)], ImportOptions::default()).unwrap();
        check(true, "a record that another program has added").await;
        let event = AlertEvent {
            schema: EVENT_SCHEMA,
            id: "event".into(),
            time: 0,
            subject: String::new(),
            run: String::new(),
            state: AlertState::Confirmed,
            note: String::new(),
            author: String::new(),
        };
        history().add_events(&[event]).unwrap();
        check(true, "the triage of an alert").await;
        record(&runs);
        check(add, "a record that nobody has added").await;
    }
}
