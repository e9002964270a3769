//! Files of all older versions, and of newer ones.

use dmarig_history::{
    AlertState, CheckTallies, HISTORY_SCHEMA, History, HistoryError, ImportOptions, SeriesFilter,
};
use rusqlite::Connection;

use crate::{fixtures::run, recorded_cells::fixture};

/// A history of version 1: one run with paired windows.
const VERSION_1: &str = include_str!("data/history-v1.sql");

/// A history of version 2: two runs of a cell. The second failed, and its alert is confirmed.
const VERSION_2: &str = include_str!("data/history-v2.sql");

/// A history of version 3 with the record of version 1.
const VERSION_3: &str = include_str!("data/history-v3.sql");

fn version(file: &std::path::Path) -> u32 {
    let connection = Connection::open(file).unwrap();
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

#[test]
fn migrates_version_1() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("history.sqlite");
    Connection::open(&file).unwrap().execute_batch(VERSION_1).unwrap();
    assert_eq!(version(&file), 1);
    let mut history = History::open(&file).unwrap();
    assert_eq!(version(&file), HISTORY_SCHEMA);
    let info = history.summary().unwrap();
    assert_eq!((info.runs, info.cells, info.series, info.samples), (1, 1, 38, 92));
    let filter = SeriesFilter { metric: Some("elapsed".into()), ..SeriesFilter::default() };
    let elapsed = history.series(&filter).unwrap().remove(0);
    assert_eq!(elapsed.id, elapsed.key.id());
    let pairs: Vec<_> = history.samples(&elapsed.id).unwrap();
    let pairs: Vec<_> =
        pairs.iter().map(|(_, sample)| (sample.window, sample.pair, sample.value)).collect();
    assert_eq!(pairs[0], (4, Some(0), 101_615_360.0));
    assert_eq!(pairs[3], (11, Some(3), 105_303_130.0));
    // Features of version 2 work on it.
    assert_eq!(history.alerts().unwrap(), []);
    history.insert_runs([&run(1, 1.0)]).unwrap();
    assert_eq!(history.runs(None).unwrap().len(), 2);
}

#[test]
fn completes_checks_of_version_2_from_records() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("history.sqlite");
    Connection::open(&file).unwrap().execute_batch(VERSION_2).unwrap();
    assert_eq!(version(&file), 2);
    let mut history = History::open(&file).unwrap();
    assert_eq!(version(&file), HISTORY_SCHEMA);
    let (first, second) = ("20261122T201454Z-34e008", "20261123T201454Z-34e009");
    let cell = history.cells(second).unwrap().remove(0);
    assert_eq!((cell.checks, cell.judged), (vec!["warning".to_owned()], None));
    assert_eq!(history.alerts().unwrap()[0].state, AlertState::Confirmed);

    // The record of the first run exists, so its entry is derived again.
    let imported = history.import(&[fixture()], ImportOptions::default()).unwrap();
    assert_eq!(imported.replaced, [first]);
    let cells = history.cells(first).unwrap();
    let held = |name: &str| cells[0].judged.as_ref().unwrap().get(name).map(|tally| tally.held);
    assert_eq!((held("integrity"), held("psi")), (Some(1), None));
    assert_eq!(cells[1].judged, Some(CheckTallies::new()), "it was interrupted");
    let imported = history.import(&[fixture()], ImportOptions::default()).unwrap();
    assert_eq!((imported.unchanged.len(), imported.replaced.len()), (1, 0));
}

/// Version 3 did not read the number of planned cells from records.
#[test]
fn completes_planned_cells_of_version_3_from_records() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("history.sqlite");
    Connection::open(&file).unwrap().execute_batch(VERSION_3).unwrap();
    assert_eq!(version(&file), 3);
    let mut history = History::open(&file).unwrap();
    assert_eq!(version(&file), HISTORY_SCHEMA);
    let id = "20261122T201454Z-34e008";
    assert_eq!(history.run(id).unwrap().ended_early, None);

    let record = place.path().join(id);
    std::fs::create_dir(&record).unwrap();
    std::fs::copy(fixture().join("cells.jsonl"), record.join("cells.jsonl")).unwrap();
    let meta = std::fs::read_to_string(fixture().join("run.json")).unwrap();
    let meta = meta.replacen('{', "{\"planned\": 72,", 1);
    std::fs::write(record.join("run.json"), meta).unwrap();
    assert_eq!(history.import(&[record], ImportOptions::default()).unwrap().replaced, [id]);
    let early = history.runs(None).unwrap()[0].ended_early.unwrap();
    assert_eq!((early.planned, early.not_run), (72, 70));
    // A merge takes the same data over.
    let mut ours = History::create(&place.path().join("ours.sqlite")).unwrap();
    ours.merge(&file).unwrap();
    assert_eq!(ours.run(id).unwrap().ended_early, Some(early));
}

#[test]
fn keeps_the_reference_of_a_record_that_is_read_again() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("history.sqlite");
    let mut history = History::create(&file).unwrap();
    let options = ImportOptions { reference: Some("debian-6.1"), rebuild: false };
    history.import(&[fixture()], options).unwrap();
    drop(history);
    Connection::open(&file).unwrap().execute_batch("UPDATE runs SET derivation = 1").unwrap();
    let mut history = History::open(&file).unwrap();
    let imported = history.import(&[fixture()], ImportOptions::default()).unwrap();
    let run = history.run(&imported.replaced[0]).unwrap();
    assert_eq!(run.reference.as_deref(), Some("debian-6.1"));
}

#[test]
fn merges_version_1_without_migrating_the_file() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("old.sqlite");
    Connection::open(&file).unwrap().execute_batch(VERSION_1).unwrap();
    let mut ours = History::create(&place.path().join("ours.sqlite")).unwrap();
    assert_eq!(ours.merge(&file).unwrap().added, 1);
    assert_eq!(ours.merge(&file).unwrap().unchanged, 1);
    assert_eq!(version(&file), 1);
}

#[test]
fn rejects_newer_and_foreign_files_unchanged() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("history.sqlite");
    drop(History::create(&file).unwrap());
    let newer = Connection::open(&file).unwrap();
    newer.pragma_update(None, "user_version", HISTORY_SCHEMA + 1).unwrap();
    drop(newer);
    let before = std::fs::read(&file).unwrap();
    let mut ours = History::create(&place.path().join("ours.sqlite")).unwrap();
    for error in [History::open(&file).unwrap_err(), ours.merge(&file).unwrap_err()] {
        let HistoryError::Newer { path, found } = &error else { panic!("{error}") };
        assert_eq!(
            (path.as_str(), *found),
            (file.to_str().unwrap(), i64::from(HISTORY_SCHEMA) + 1)
        );
    }
    assert!(before == std::fs::read(&file).unwrap());

    let strange = place.path().join("strange.sqlite");
    Connection::open(&strange).unwrap().execute_batch("CREATE TABLE runs (x)").unwrap();
    for error in [History::create(&strange).unwrap_err(), ours.merge(&strange).unwrap_err()] {
        assert!(matches!(error, HistoryError::Foreign { .. }), "{error}");
    }
    let text = place.path().join("text.sqlite");
    std::fs::write(&text, "this is no database at all, but it is long enough").unwrap();
    let error = History::open(&text).unwrap_err();
    assert!(matches!(error, HistoryError::Sql { .. }), "{error}");
    insta::assert_snapshot!(error.to_string().replace(text.to_str().unwrap(), "[FILE]"));
}

#[test]
fn creates_and_migrates_concurrently() {
    let place = tempfile::tempdir().unwrap();
    for turn in 0..8 {
        let file = place.path().join(format!("history{turn}.sqlite"));
        if turn % 2 == 1 {
            Connection::open(&file).unwrap().execute_batch(VERSION_1).unwrap();
        }
        let start = std::sync::Barrier::new(6);
        std::thread::scope(|scope| {
            for day in 0..6 {
                let (start, file) = (&start, &file);
                scope.spawn(move || {
                    start.wait();
                    History::create(file).unwrap().insert_runs([&run(day, 1.0)]).unwrap();
                });
            }
        });
        assert_eq!(History::open(&file).unwrap().runs(None).unwrap().len(), 6 + turn % 2);
    }
}
