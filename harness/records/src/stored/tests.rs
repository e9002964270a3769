use dmarig_model::{
    axes::Axes,
    observation::{End, Outcome, Setup},
};

use std::io::Write as _;

use super::*;
use crate::{
    meta::CaseText,
    recorder::{Recorder, create_synced, parents_of_new, whole_or_nothing},
};

fn meta() -> RunMeta {
    RunMeta {
        schema: RECORD_SCHEMA,
        dmarig: "0.1.0".into(),
        command: vec!["dmarig".into(), "run".into()],
        cases: vec![CaseText { file: "smoke.yaml".into(), text: "case: smoke\n".into() }],
        planned: Some(3),
        ..RunMeta::default()
    }
}

fn cell(id: &str) -> CellRecord {
    CellRecord::new(
        Observation::unseen(
            id,
            "smoke",
            &Axes::default(),
            Setup::unplanned(&Axes::default()),
            End::Completed,
        ),
        Verdict { outcome: Outcome::Passed, reasons: Vec::new(), checks: Vec::new() },
    )
}

#[test]
fn reads_recorded_cells_back() {
    let runs = tempfile::tempdir().unwrap();
    let mut meta = meta();
    let mut recorder = Recorder::create(runs.path(), &mut meta).unwrap();
    recorder.add(&cell("smoke/a")).unwrap();
    recorder.add(&cell("smoke/b")).unwrap();
    for name in [meta.id.as_str(), "last", recorder.directory().to_str().unwrap()] {
        let run = StoredRun::load(name, runs.path()).unwrap();
        assert_eq!((&run.meta, run.cells.len(), run.truncated), (&meta, 2, false));
        assert_eq!(run.cells[1], cell("smoke/b"));
    }
}

#[test]
fn syncs_the_parents_of_new_directories() {
    let place = tempfile::tempdir().unwrap();
    let runs = place.path().join("dmarig/runs");
    let relative_parents = |directory: &Path| {
        let parents = parents_of_new(directory);
        let relative = |parent: PathBuf| parent.strip_prefix(place.path()).unwrap().to_owned();
        parents.into_iter().map(relative).collect::<Vec<_>>()
    };
    let expected = ["dmarig/runs/a", "dmarig/runs", "dmarig", ""].map(PathBuf::from);
    assert_eq!(relative_parents(&runs.join("a/cells")), expected);
    create_synced(&runs).unwrap();
    assert_eq!(relative_parents(&runs.join("a")), [Path::new("dmarig/runs")]);
    assert!(relative_parents(&runs).is_empty());
    assert_eq!(
        parents_of_new(Path::new("not-there/run")),
        [Path::new("not-there"), Path::new(".")]
    );
}

#[test]
fn reports_missing_cells_of_an_ended_run() {
    let runs = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(runs.path(), &mut meta()).unwrap();
    recorder.add(&cell("smoke/a")).unwrap();
    let directory = recorder.directory().to_owned();
    let read = || StoredRun::read(&directory).unwrap();
    assert_eq!((read().running, read().ended_early()), (true, None));
    drop(recorder);
    assert_eq!(read().ended_early(), Some(EarlyEnd { planned: 3, not_run: 2 }));
    // Nothing is missing, or the record does not say how many cells were planned.
    for (planned, ran) in [(Some(3), 3), (Some(3), 4), (None, 1)] {
        assert_eq!(EarlyEnd::new(planned, ran), None);
    }
}

#[test]
fn drops_only_the_truncated_last_line() {
    let runs = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(runs.path(), &mut meta()).unwrap();
    recorder.add(&cell("smoke/a")).unwrap();
    let path = recorder.directory().join("cells.jsonl");
    let whole = fs::read(&path).unwrap();
    for cut in 1..whole.len() {
        let mut bytes = whole.clone();
        bytes.extend_from_slice(&whole[..cut]);
        fs::write(&path, bytes).unwrap();
        let run = StoredRun::load("last", runs.path()).unwrap();
        assert!(run.truncated && run.cells.len() == 1, "cut at {cut}");
    }
}

#[test]
fn locks_a_run_while_it_is_recorded() {
    let runs = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(runs.path(), &mut meta()).unwrap();
    recorder.add(&cell("smoke/a")).unwrap();
    let directory = recorder.directory().to_owned();
    assert!(RunLock::acquire(&directory).unwrap().is_none());
    assert_eq!(StoredRun::read(&directory).unwrap().cells.len(), 1);
    drop(recorder);
    let held = RunLock::acquire(&directory).unwrap().unwrap();
    assert_eq!(held.bytes, StoredRun::read(&directory).unwrap().bytes);
    // The lock is shared among readers.
    assert!(RunLock::acquire(&directory).unwrap().is_some());
}

#[test]
fn removes_a_partial_line_after_a_failed_write() {
    let runs = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(runs.path(), &mut meta()).unwrap();
    recorder.add(&cell("smoke/a")).unwrap();
    let full = whole_or_nothing(&mut recorder.cells, |file| {
        file.write_all(b"{\"schema\":1,\"obs")?;
        Err(io::ErrorKind::StorageFull.into())
    });
    assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
    recorder.add(&cell("smoke/b")).unwrap();
    let run = StoredRun::load("last", runs.path()).unwrap();
    assert_eq!((run.cells.len(), run.truncated), (2, false));
}

#[test]
fn rejects_newer_records_and_observations() {
    let runs = tempfile::tempdir().unwrap();
    let recorder = Recorder::create(runs.path(), &mut meta()).unwrap();
    fs::write(recorder.directory().join("cells.jsonl"), "{\"schema\":99,\"news\":1}\n").unwrap();
    let error = StoredRun::load("last", runs.path()).unwrap_err();
    let expected = matches!(error, RecordError::Newer { what: "record", found: 99, .. });
    assert!(expected, "{error}");
    let mut newer = cell("smoke/a");
    newer.observation.schema = 99;
    fs::write(recorder.directory().join(CELLS), serde_json::to_string(&newer).unwrap() + "\n")
        .unwrap();
    let error = StoredRun::load("last", runs.path()).unwrap_err();
    let expected = matches!(error, RecordError::Newer { what: "observation", found: 99, .. });
    assert!(expected, "{error}");
}

#[test]
fn names_the_directory_that_lacks_an_unknown_run() {
    let runs = tempfile::tempdir().unwrap();
    let error = StoredRun::load("nope", runs.path()).unwrap_err();
    let RecordError::UnknownRun { name, runs: searched } = error else { panic!("{error}") };
    assert_eq!((name.as_str(), Path::new(&searched)), ("nope", runs.path()));
}
