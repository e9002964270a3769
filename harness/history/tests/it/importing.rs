//! From records into the history, and away.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    time::{Duration, SystemTime},
};

use dmarig_history::{
    GcAction, History, ImportOptions, ImportReport, PointEntry, Retention, RunEntry, sweep_gone,
};
use dmarig_records::{StoredRun, run_directories};

use crate::recorded_cells::{begin, cell, fixture, record};

fn history(place: &Path) -> History {
    History::create(&place.join("history.sqlite")).unwrap()
}

fn import(history: &mut History, runs: &Path) -> ImportReport {
    history.import(&run_directories(runs).unwrap(), ImportOptions::default()).unwrap()
}

fn dump(history: &History) -> String {
    let mut text = Vec::new();
    history.dump(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[track_caller]
fn point<'a>(entry: &'a RunEntry, kernel: &str, metric: &str, ratio: bool) -> &'a PointEntry {
    let fits = |point: &&PointEntry| {
        let key = &point.series;
        key.place.kernel == kernel && key.metric == metric && key.reference.is_some() == ratio
    };
    entry.points.iter().find(fits).unwrap_or_else(|| panic!("no {metric} of {kernel}"))
}

#[test]
fn a_record_of_the_first_version_is_read() {
    let entry = RunEntry::new(StoredRun::read(&fixture()).unwrap(), None);
    assert_eq!((entry.id.as_str(), entry.cells.len()), ("20261122T201454Z-34e008", 2));
    assert_eq!(
        entry.cells[0].place.to_string(),
        "aa/caching-mode=on,policy=strict,kernel=debian-6.1"
    );
    let environment = &entry.cells[0].environment;
    assert_eq!((environment.cpu.as_str(), environment.memory_gib), ("AMD EPYC", 24));
    assert_eq!((environment.microcode.as_str(), environment.qemu_sha256.as_str()), ("", ""));
    let elapsed = point(&entry, "debian-6.1", "elapsed", false);
    let samples: Vec<(u32, f64)> =
        elapsed.samples.iter().map(|sample| (sample.window, sample.value)).collect();
    let times = [63_793_820.0, 1_093_940_260.0, 715_720_140.0, 1_561_960_630.0];
    assert_eq!(samples, [(2, times[0]), (3, times[1]), (4, times[2]), (5, times[3])]);
    assert_eq!(elapsed.value, f64::midpoint(times[1], times[2]));
    assert!(elapsed.samples.iter().all(|sample| sample.pair.is_none()));
    // What was interrupted has no numbers.
    assert!(entry.points.iter().all(|point| point.series.place.kernel == "debian-6.1"));
}

#[test]
fn numbers_are_set_in_relation_to_the_reference_of_their_run() {
    let runs = tempfile::tempdir().unwrap();
    let mut recorder = begin(runs.path(), |meta| meta.reference = Some("base".into()));
    for (kernel, slower) in [("base", 2), ("mine", 3)] {
        recorder.add(&cell(kernel, slower)).unwrap();
    }
    let entry = RunEntry::new(StoredRun::read(recorder.directory()).unwrap(), Some("other"));
    let ratio = point(&entry, "mine", "elapsed", true);
    assert_eq!(ratio.value, 1.5);
    let reference = ratio.series.reference.as_ref().unwrap();
    assert_eq!(*reference, format!("base@{}", entry.cells[0].build.identity()));
    assert_eq!(ratio.series.value_unit(), "1");
    assert!(point(&entry, "mine", "throughput", true).value < 1.0);
    assert!(
        !entry.points.iter().any(|point| {
            point.series.place.kernel == "base" && point.series.reference.is_some()
        })
    );
}

#[test]
fn machines_that_are_alike_are_told_apart_by_their_names_alone() {
    let runs = tempfile::tempdir().unwrap();
    let fingerprint = |machine: &str| {
        let mut recorder = begin(runs.path(), |meta| meta.host.machine = machine.into());
        recorder.add(&cell("a", 1)).unwrap();
        let written = fs::read_to_string(recorder.directory().join("run.json")).unwrap();
        assert_eq!(written.contains("machine"), !machine.is_empty());
        let run = StoredRun::read(recorder.directory()).unwrap();
        assert_eq!(run.meta.host.machine, machine);
        let entry = RunEntry::new(run, None);
        let environment = &entry.cells[0].environment;
        assert_eq!(environment.machine, machine);
        assert!(
            entry.points.iter().all(|point| point.series.environment == environment.fingerprint())
        );
        environment.fingerprint()
    };
    // As it was before there were names.
    assert_eq!(fingerprint(""), "7669ffdb9b9f1c07");
    let (left, right) = (fingerprint("left"), fingerprint("right"));
    assert!(left != right && left != fingerprint("") && right != fingerprint(""));
    assert_eq!(left, fingerprint("left"));
}

#[test]
fn boots_of_a_comparison_are_one_point_in_pairs() {
    let runs = tempfile::tempdir().unwrap();
    let mut recorder = begin(runs.path(), |meta| meta.reference = Some("base".into()));
    let boots = [
        ("warm-up", "base", 100),
        ("warm-up", "mine", 100),
        ("pair1", "mine", 4),
        ("pair1", "base", 2),
        ("pair2", "base", 1),
        ("pair2", "mine", 3),
    ];
    for (number, (name, kernel, slower)) in boots.into_iter().enumerate() {
        let mut boot = cell(kernel, slower);
        let arm = if kernel == "mine" { "candidate" } else { "baseline" };
        boot.observation.cell.push_str(&format!(".{:03}-{name}-{arm}", number + 1));
        recorder.add(&boot).unwrap();
    }
    let entry = RunEntry::new(StoredRun::read(recorder.directory()).unwrap(), None);
    let elapsed = point(&entry, "mine", "elapsed", false);
    let pairs: Vec<_> = elapsed.samples.iter().map(|sample| (sample.cell, sample.pair)).collect();
    assert_eq!(pairs, [[(2, Some(1)); 4], [(5, Some(2)); 4]].concat());
    let ratio = point(&entry, "mine", "elapsed", true);
    let values: Vec<f64> = ratio.samples.iter().map(|sample| sample.value).collect();
    assert_eq!((ratio.value, values), (2.5, vec![2.0, 3.0]));
}

#[test]
fn what_can_be_read_goes_in_and_the_rest_is_told_by_name() {
    let place = tempfile::tempdir().unwrap();
    let runs = place.path().join("runs");
    let whole = record(&runs, &[cell("a", 1)]);
    let torn = record(&runs, &[cell("a", 1)]);
    let newer = record(&runs, &[cell("a", 1)]);
    let damaged = record(&runs, &[cell("a", 1)]);
    let append = |directory: &Path, text: &str| {
        let file = OpenOptions::new().append(true).open(directory.join("cells.jsonl"));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    };
    append(&torn, "{\"schema\":1,\"obs");
    append(&newer, "{\"schema\":99,\"news\":[]}\n");
    append(&damaged, "{}\n");
    let mut going_on = begin(&runs, |_| ());
    going_on.add(&cell("a", 1)).unwrap();

    let mut history = history(place.path());
    let imported = import(&mut history, &runs);
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(imported.added, [name(&whole), name(&torn)]);
    assert_eq!(imported.torn, [name(&torn)]);
    assert_eq!(imported.going_on, [name(going_on.directory())]);
    let refused: Vec<String> = imported.refused.iter().map(ToString::to_string).collect();
    assert!(
        refused[0].contains(&name(&newer)) && refused[0].contains("record version 99"),
        "{refused:?}"
    );
    assert!(refused[1].contains(&name(&damaged)) && refused[1].contains("line 2"), "{refused:?}");

    // What has ended goes in; what is in is not read again.
    let directory = going_on.directory().to_owned();
    drop(going_on);
    fs::write(directory.parent().unwrap().join(name(&whole)).join("run.json"), "broken").unwrap();
    let imported = import(&mut history, &runs);
    assert_eq!(
        (imported.added, imported.known),
        (vec![name(&directory)], vec![name(&whole), name(&torn)])
    );
    assert_eq!(history.cells(&name(&torn)).unwrap().len(), 1);
}

#[test]
fn it_is_made_again_from_the_records() {
    let place = tempfile::tempdir().unwrap();
    let runs = place.path().join("runs");
    let lone = record(&runs, &[cell("a", 1), cell("b", 2)]);
    record(&runs, &[cell("a", 3)]);
    let mut history = history(place.path());
    import(&mut history, &runs);
    let before = dump(&history);
    assert_eq!(before.lines().count(), 2);
    drop(history);
    fs::remove_file(place.path().join("history.sqlite")).unwrap();
    let mut again = self::history(place.path());
    import(&mut again, &runs);
    assert_eq!(dump(&again), before);

    // A run whose record is gone stays when the others are made again, here in relation to one of them.
    fs::remove_dir_all(&lone).unwrap();
    let how = ImportOptions { reference: Some("b"), again: true };
    again.import(&run_directories(&runs).unwrap(), how).unwrap();
    let runs = again.runs(None).unwrap();
    assert_eq!(runs.len(), 2);
    assert_eq!((runs[0].reference.as_deref(), runs[1].reference.as_deref()), (Some("b"), None));
}

#[test]
fn only_what_is_in_the_history_and_has_ended_is_removed() {
    let place = tempfile::tempdir().unwrap();
    let runs = place.path().join("runs");
    let old: Vec<_> = (0..4).map(|_| record(&runs, &[cell("a", 1)])).collect();
    let mut history = history(place.path());
    import(&mut history, &runs);
    // One has grown since, of one nothing is known, one is going on.
    let mut line = serde_json::to_vec(&cell("b", 1)).unwrap();
    line.push(b'\n');
    let cells = OpenOptions::new().append(true).open(old[1].join("cells.jsonl"));
    cells.unwrap().write_all(&line).unwrap();
    let unknown = record(&runs, &[cell("a", 1)]);
    let going_on = begin(&runs, |_| ());
    let newest = record(&runs, &[cell("a", 1)]);
    let directories = run_directories(&runs).unwrap();
    let mut collect = |keep, dry_run| {
        let now = SystemTime::now();
        let all = history.collect_garbage(&directories, keep, now, dry_run).unwrap();
        all.into_iter().map(|one| one.fate).collect::<Vec<_>>()
    };
    let keep = Retention { count: Some(1), ..Retention::default() };
    let expected = vec![
        GcAction::Removed,
        GcAction::NotInHistory,
        GcAction::Removed,
        GcAction::Removed,
        GcAction::NotInHistory,
        GcAction::GoingOn,
        GcAction::Kept,
    ];
    assert_eq!(collect(keep, true), expected);
    assert!(old.iter().all(|run| run.exists()));
    assert_eq!(collect(keep, false), expected);
    let left = [&old[1], &unknown, going_on.directory(), &newest];
    assert_eq!(run_directories(&runs).unwrap(), left.map(|path| path.to_path_buf()));
    assert_eq!(history.info().unwrap().runs, 4);

    // What a killed collection left is no run, and goes with the next.
    fs::rename(&unknown, runs.join(".gone-x")).unwrap();
    assert_eq!(run_directories(&runs).unwrap().len(), 3);
    assert_eq!(sweep_gone(&runs), [".gone-x"]);
    assert_eq!(fs::read_dir(&runs).unwrap().count(), 3);
}

/// What an older dmarig kept of a run is less than what its record says.
#[test]
fn what_goes_has_been_derived_by_the_newest_rules() {
    let place = tempfile::tempdir().unwrap();
    let runs = place.path().join("runs");
    record(&runs, &[cell("a", 1), cell("b", 2)]);
    let directories = run_directories(&runs).unwrap();
    let mut history = history(place.path());
    let how = ImportOptions { reference: Some("b"), ..ImportOptions::default() };
    history.import(&directories, how).unwrap();
    let whole = dump(&history);
    drop(history);
    let file = place.path().join("history.sqlite");
    let older = rusqlite::Connection::open(&file).unwrap();
    older.execute_batch("UPDATE runs SET derivation = derivation - 1").unwrap();
    older.execute_batch("UPDATE cells SET judgement = NULL; DELETE FROM judgements").unwrap();
    drop(older);

    let mut history = self::history(place.path());
    let lacking = dump(&history);
    assert_ne!(lacking, whole);
    let keep = Retention { count: Some(0), ..Retention::default() };
    for (dry_run, expected) in [(true, &lacking), (false, &whole)] {
        let all = history.collect_garbage(&directories, keep, SystemTime::now(), dry_run).unwrap();
        assert_eq!(all[0].fate, GcAction::Removed);
        assert_eq!((&dump(&history), directories[0].exists()), (expected, dry_run));
    }
}

#[test]
fn records_go_by_age_and_size_as_well() {
    let place = tempfile::tempdir().unwrap();
    let runs = place.path().join("runs");
    (0..3).for_each(|_| {
        record(&runs, &[cell("a", 1)]);
    });
    let mut history = history(place.path());
    import(&mut history, &runs);
    let directories = run_directories(&runs).unwrap();
    let mut removed = |keep, days: u64| {
        let now = SystemTime::now() + Duration::from_secs(days * 86_400);
        let all = history.collect_garbage(&directories, keep, now, true).unwrap();
        let sizes: Vec<u64> = all.iter().map(|one| one.bytes).collect();
        (all.iter().filter(|one| one.fate == GcAction::Removed).count(), sizes)
    };
    let week = Retention { age: Some(Duration::from_secs(7 * 86_400)), ..Retention::default() };
    assert_eq!((removed(week, 6).0, removed(week, 8).0), (0, 3));
    let (_, sizes) = removed(week, 0);
    let two = Retention { bytes: Some(sizes[1] + sizes[2]), ..Retention::default() };
    assert_eq!((removed(two, 0).0, sizes[0] > 0), (1, true));
}
