use dmarig_model::{
    axes::Axes,
    observation::{End, Outcome, Setup},
};

use std::io::Write as _;

use super::*;
use crate::{
    meta::{CaseText, HostFacts},
    recorder::{Recorder, create_synced, holders_of_new, whole_or_nothing},
};

fn meta() -> RunMeta {
    RunMeta {
        schema: RECORD_SCHEMA,
        id: String::new(),
        started: 0,
        dmarig: "0.1.0".into(),
        command: vec!["dmarig".into(), "run".into()],
        host: HostFacts::default(),
        cases: vec![CaseText { file: "smoke.yaml".into(), text: "case: smoke\n".into() }],
        rules: String::new(),
        reference: None,
        planned: Some(3),
        options: None,
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
fn what_is_recorded_is_read_back() {
    let runs = tempfile::tempdir().unwrap();
    let mut meta = meta();
    let mut recorder = Recorder::create(runs.path(), &mut meta).unwrap();
    recorder.add(&cell("smoke/a")).unwrap();
    recorder.add(&cell("smoke/b")).unwrap();
    for name in [meta.id.as_str(), "last", recorder.directory().to_str().unwrap()] {
        let run = StoredRun::load(name, runs.path()).unwrap();
        assert_eq!((&run.meta, run.cells.len(), run.torn), (&meta, 2, false));
        assert_eq!(run.cells[1], cell("smoke/b"));
    }
}

#[test]
fn new_directories_are_synced_in_those_that_hold_them() {
    let place = tempfile::tempdir().unwrap();
    let runs = place.path().join("dmarig/runs");
    let told = |directory: &Path| {
        let holders = holders_of_new(directory);
        let below = |holder: PathBuf| holder.strip_prefix(place.path()).unwrap().to_owned();
        holders.into_iter().map(below).collect::<Vec<_>>()
    };
    let expected = ["dmarig/runs/a", "dmarig/runs", "dmarig", ""].map(PathBuf::from);
    assert_eq!(told(&runs.join("a/cells")), expected);
    create_synced(&runs).unwrap();
    assert_eq!(told(&runs.join("a")), [Path::new("dmarig/runs")]);
    assert!(told(&runs).is_empty());
    assert_eq!(
        holders_of_new(Path::new("not-there/run")),
        [Path::new("not-there"), Path::new(".")]
    );
}

#[test]
fn a_run_that_is_over_and_lacks_cells_ended_early() {
    let runs = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(runs.path(), &mut meta()).unwrap();
    recorder.add(&cell("smoke/a")).unwrap();
    let directory = recorder.directory().to_owned();
    let read = || StoredRun::read(&directory).unwrap();
    assert_eq!((read().going_on, read().ended_early()), (true, None));
    drop(recorder);
    let told = read().ended_early().unwrap().to_string();
    assert_eq!(told, "ended early, 2 of 3 cells did not run");
    // One that has them all did not, nor can it be said of one of old.
    for (planned, ran) in [(Some(3), 3), (Some(3), 4), (None, 1)] {
        assert_eq!(EarlyEnd::of(planned, ran), None);
    }
}

#[test]
fn a_torn_last_line_loses_only_itself() {
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
        assert!(run.torn && run.cells.len() == 1, "cut at {cut}");
    }
}

#[test]
fn a_run_is_going_on_as_long_as_it_is_recorded() {
    let runs = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(runs.path(), &mut meta()).unwrap();
    recorder.add(&cell("smoke/a")).unwrap();
    let directory = recorder.directory().to_owned();
    assert!(RunLock::hold(&directory).unwrap().is_none());
    assert_eq!(StoredRun::read(&directory).unwrap().cells.len(), 1);
    drop(recorder);
    let held = RunLock::hold(&directory).unwrap().unwrap();
    assert_eq!(held.bytes, StoredRun::read(&directory).unwrap().bytes);
    // As many may read it as like.
    assert!(RunLock::hold(&directory).unwrap().is_some());
}

#[test]
fn half_a_line_of_a_full_disk_is_taken_back() {
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
    assert_eq!((run.cells.len(), run.torn), (2, false));
}

#[test]
fn a_newer_record_is_refused_by_name() {
    let runs = tempfile::tempdir().unwrap();
    let recorder = Recorder::create(runs.path(), &mut meta()).unwrap();
    fs::write(recorder.directory().join("cells.jsonl"), "{\"schema\":99,\"news\":1}\n").unwrap();
    let error = StoredRun::load("last", runs.path()).unwrap_err();
    assert!(error.to_string().contains("record version 99"), "{error}");
    let mut newer = cell("smoke/a");
    newer.observation.schema = 99;
    fs::write(recorder.directory().join(CELLS), serde_json::to_string(&newer).unwrap() + "\n")
        .unwrap();
    let error = StoredRun::load("last", runs.path()).unwrap_err();
    assert!(error.to_string().contains("observation version 99"), "{error}");
}

#[test]
fn an_unknown_run_is_told_where_it_was_looked_for() {
    let runs = tempfile::tempdir().unwrap();
    let error = StoredRun::load("nope", runs.path()).unwrap_err();
    assert!(error.to_string().starts_with("there is no run `nope` in /"), "{error}");
}
