//! Import of records, and garbage collection.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    time::{Duration, SystemTime},
};

use dmarig_history::{
    GcAction, History, ImportOptions, ImportReport, PointEntry, Retention, RunEntry, sweep_gone,
};
use dmarig_records::{RecordError, StoredRun, run_directories};

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
fn reads_a_record_of_version_1() {
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
    // An interrupted cell has no points.
    assert!(entry.points.iter().all(|point| point.series.place.kernel == "debian-6.1"));
}

#[test]
fn divides_by_the_reference_of_the_run() {
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
fn distinguishes_equal_machines_by_name() {
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
    // Without a name the fingerprint is the same as before machines had names.
    assert_eq!(fingerprint(""), "7669ffdb9b9f1c07");
    let (left, right) = (fingerprint("left"), fingerprint("right"));
    assert!(left != right && left != fingerprint("") && right != fingerprint(""));
    assert_eq!(left, fingerprint("left"));
}

#[test]
fn joins_paired_boots_into_one_point() {
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
fn imports_readable_records_and_reports_others() {
    let place = tempfile::tempdir().unwrap();
    let runs = place.path().join("runs");
    let whole = record(&runs, &[cell("a", 1)]);
    let truncated = record(&runs, &[cell("a", 1)]);
    let newer = record(&runs, &[cell("a", 1)]);
    let damaged = record(&runs, &[cell("a", 1)]);
    let append = |directory: &Path, text: &str| {
        let file = OpenOptions::new().append(true).open(directory.join("cells.jsonl"));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    };
    append(&truncated, "{\"schema\":1,\"obs");
    append(&newer, "{\"schema\":99,\"news\":[]}\n");
    append(&damaged, "{}\n");
    let mut running = begin(&runs, |_| ());
    running.add(&cell("a", 1)).unwrap();

    let mut history = history(place.path());
    let imported = import(&mut history, &runs);
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(imported.added, [name(&whole), name(&truncated)]);
    assert_eq!(imported.truncated, [name(&truncated)]);
    assert_eq!(imported.running, [name(running.directory())]);
    let [
        RecordError::Newer { path, found: 99, .. },
        RecordError::Damaged { path: other, line: 2, .. },
    ] = imported.unreadable.as_slice()
    else {
        panic!("{:?}", imported.unreadable);
    };
    assert!(path.contains(&name(&newer)) && other.contains(&name(&damaged)), "{path} {other}");

    // The run that has ended is imported; imported runs are not read again.
    let directory = running.directory().to_owned();
    drop(running);
    fs::write(directory.parent().unwrap().join(name(&whole)).join("run.json"), "broken").unwrap();
    let imported = import(&mut history, &runs);
    assert_eq!(
        (imported.added, imported.unchanged),
        (vec![name(&directory)], vec![name(&whole), name(&truncated)])
    );
    assert_eq!(history.cells(&name(&truncated)).unwrap().len(), 1);
}

#[test]
fn rebuilds_the_history_from_records() {
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
    let mut rebuilt = self::history(place.path());
    import(&mut rebuilt, &runs);
    assert_eq!(dump(&rebuilt), before);

    // A run without a record stays when the others are rebuilt, here with one of them as reference.
    fs::remove_dir_all(&lone).unwrap();
    let options = ImportOptions { reference: Some("b"), rebuild: true };
    rebuilt.import(&run_directories(&runs).unwrap(), options).unwrap();
    let runs = rebuilt.runs(None).unwrap();
    assert_eq!(runs.len(), 2);
    assert_eq!((runs[0].reference.as_deref(), runs[1].reference.as_deref()), (Some("b"), None));
}

#[test]
fn removes_only_imported_runs_that_have_ended() {
    let place = tempfile::tempdir().unwrap();
    let runs = place.path().join("runs");
    let old: Vec<_> = (0..4).map(|_| record(&runs, &[cell("a", 1)])).collect();
    let mut history = history(place.path());
    import(&mut history, &runs);
    // One record has grown since its import, one was never imported, and one run is still running.
    let mut line = serde_json::to_vec(&cell("b", 1)).unwrap();
    line.push(b'\n');
    let cells = OpenOptions::new().append(true).open(old[1].join("cells.jsonl"));
    cells.unwrap().write_all(&line).unwrap();
    let unknown = record(&runs, &[cell("a", 1)]);
    let running = begin(&runs, |_| ());
    let newest = record(&runs, &[cell("a", 1)]);
    let directories = run_directories(&runs).unwrap();
    let mut collect = |keep, dry_run| {
        let now = SystemTime::now();
        let all = history.collect_garbage(&directories, keep, now, dry_run).unwrap();
        all.iter().map(|report| format!("{:?}", report.action)).collect::<Vec<_>>()
    };
    let keep = Retention { count: Some(1), ..Retention::default() };
    let expected =
        ["Removed", "NotInHistory", "Removed", "Removed", "NotInHistory", "Running", "Kept"];
    assert_eq!(collect(keep, true), expected);
    assert!(old.iter().all(|run| run.exists()));
    assert_eq!(collect(keep, false), expected);
    let left = [&old[1], &unknown, running.directory(), &newest];
    assert_eq!(run_directories(&runs).unwrap(), left.map(|path| path.to_path_buf()));
    assert_eq!(history.summary().unwrap().runs, 4);

    // What a killed collection left is not a run, and the next one removes it.
    fs::rename(&unknown, runs.join(".gone-x")).unwrap();
    assert_eq!(run_directories(&runs).unwrap().len(), 3);
    assert_eq!(sweep_gone(&runs), [".gone-x"]);
    assert_eq!(fs::read_dir(&runs).unwrap().count(), 3);
}

/// The entry of an older version lacks data that the record has.
#[test]
fn derives_entries_again_before_removal() {
    let place = tempfile::tempdir().unwrap();
    let runs = place.path().join("runs");
    record(&runs, &[cell("a", 1), cell("b", 2)]);
    let directories = run_directories(&runs).unwrap();
    let mut history = history(place.path());
    let options = ImportOptions { reference: Some("b"), ..ImportOptions::default() };
    history.import(&directories, options).unwrap();
    let complete = dump(&history);
    drop(history);
    let file = place.path().join("history.sqlite");
    let older = rusqlite::Connection::open(&file).unwrap();
    older.execute_batch("UPDATE runs SET derivation = derivation - 1").unwrap();
    older.execute_batch("UPDATE cells SET judgement = NULL; DELETE FROM judgements").unwrap();
    drop(older);

    let mut history = self::history(place.path());
    let incomplete = dump(&history);
    assert_ne!(incomplete, complete);
    let keep = Retention { count: Some(0), ..Retention::default() };
    for (dry_run, expected) in [(true, &incomplete), (false, &complete)] {
        let all = history.collect_garbage(&directories, keep, SystemTime::now(), dry_run).unwrap();
        assert!(matches!(all[0].action, GcAction::Removed), "{all:?}");
        assert_eq!((&dump(&history), directories[0].exists()), (expected, dry_run));
    }
}

#[test]
fn removes_records_by_age_and_size() {
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
        let sizes: Vec<u64> = all.iter().map(|report| report.bytes).collect();
        let removed = all.iter().filter(|report| matches!(report.action, GcAction::Removed));
        (removed.count(), sizes)
    };
    let week = Retention { age: Some(Duration::from_secs(7 * 86_400)), ..Retention::default() };
    assert_eq!((removed(week, 6).0, removed(week, 8).0), (0, 3));
    let (_, sizes) = removed(week, 0);
    let two = Retention { bytes: Some(sizes[1] + sizes[2]), ..Retention::default() };
    assert_eq!((removed(two, 0).0, sizes[0] > 0), (1, true));
}
