//! Cells of one run: events, records, and what one cell's trouble does to others.

use std::{cell::RefCell, fs, os::unix::fs::PermissionsExt};

use dmarig_fake_qemu::{QemuScript, Role, write_kernel_tree};
use dmarig_images::Cache;
use dmarig_model::{axes::Accelerator, observation::Outcome};
use dmarig_records::StoredRun;
use dmarig_runner::{
    Error, Event, Reporter, RequestError, Run, RunRequest, request::Selection, run,
};
use tempfile::TempDir;
use tokio::sync::watch;

/// A case of two cells.
const CASE: &str =
    "case: two\naxes: {policy: [lazy, strict]}\nworkload: {block: {ops: 64}}\nstandard: false\n";

/// Directories for one test, with a case, a kernel and a QEMU.
struct Place {
    directory: TempDir,
    selection: Selection,
}

impl Place {
    fn new(case: &str, script: QemuScript) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("case.yaml");
        fs::write(&file, case).unwrap();
        let kernel = directory.path().join("kernel");
        write_kernel_tree(&kernel, &[]);
        let programs = directory.path().join("bin");
        fs::create_dir(&programs).unwrap();
        let text = |path: &std::path::Path| path.display().to_string();
        let selection = Selection {
            cases: vec![text(&file)],
            kernels: vec![text(&kernel)],
            qemus: vec![text(&script.link_in(&programs))],
            accelerator: Accelerator::Tcg,
            ..Selection::default()
        };
        Self { directory, selection }
    }

    fn run(&self, interrupted: bool, reporter: &dyn Reporter) -> Result<Run, Error> {
        let cache = Cache::open(Some(&self.directory.path().join("cache"))).unwrap();
        let request = RunRequest {
            selection: self.selection.clone(),
            jobs: Some(2),
            runs: self.directory.path().join("runs"),
            command: vec!["dmarig".to_owned(), "run".to_owned()],
            options: None,
        };
        let (_sender, receiver) = watch::channel(interrupted);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(&request, &cache, &receiver, reporter))
    }
}

/// The outcomes of a run, in the order of the matrix.
fn outcomes(run: &Run) -> Vec<Outcome> {
    run.outcome.cells.iter().map(|cell| cell.verdict.outcome).collect()
}

/// Keeps the events about cells.
#[derive(Default)]
struct Log(RefCell<Vec<String>>);

impl Reporter for Log {
    fn report(&self, event: &Event<'_>) {
        let line = match event {
            Event::CellStarted(cell) => format!("started {}", cell.axes.policy),
            Event::CellFinished(cell, record) => {
                format!("{} {}", record.verdict.outcome.name(), cell.axes.policy)
            }
            _ => return,
        };
        self.0.borrow_mut().push(line);
    }
}

#[test]
fn reports_each_cell_and_records_it() {
    let place = Place::new(CASE, QemuScript::Passes);
    let log = Log::default();
    let run = place.run(false, &log).unwrap();
    let mut lines = log.0.into_inner();
    lines.sort();
    assert_eq!(lines, ["passed lazy", "passed strict", "started lazy", "started strict"]);
    let stored = StoredRun::read(&run.directory).unwrap();
    assert_eq!((stored.meta.id, stored.cells.len()), (run.id.clone(), 2));
    assert!(stored.cells.iter().all(|cell| cell.boot.is_none()));
    assert!(stored.cells.iter().all(|cell| cell.planned_windows.as_ref().unwrap().len() == 1));
}

#[test]
fn records_the_final_verdict_of_cells_that_are_compared() {
    let ratio = "case: two\naxes: {policy: [lazy, strict]}\nworkload: {block: {ops: 64}}\nstandard: false\n\
                 expect:\n  - name: never\n    when: {policy: lazy}\n    ratios:\n      - {metric: psi, to: {policy: strict}, max: 0.5}\n";
    let place = Place::new(ratio, QemuScript::Passes);
    let run = place.run(false, &Log::default()).unwrap();
    assert_eq!(outcomes(&run), [Outcome::Failed, Outcome::Passed]);
    let stored = StoredRun::read(&run.directory).unwrap();
    for finished in &run.outcome.cells {
        let same_cell =
            |cell: &&dmarig_records::CellRecord| cell.observation.cell == finished.cell.id;
        let record = stored.cells.iter().find(same_cell).unwrap();
        assert_eq!(record.verdict, finished.verdict);
    }
    let lines = fs::read_to_string(run.directory.join("cells.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 3, "two cells and one amendment");
}

#[test]
fn starts_nothing_after_an_interrupt() {
    let place = Place::new(CASE, QemuScript::Passes);
    let log = Log::default();
    let run = place.run(true, &log).unwrap();
    assert!(run.outcome.cells.is_empty() && log.0.into_inner().is_empty());
    let stored = StoredRun::read(&run.directory).unwrap();
    assert_eq!(stored.ended_early().unwrap().not_run, 2);
}

#[test]
fn keeps_the_trouble_of_one_kernel_from_the_other() {
    let mut place = Place::new(CASE, QemuScript::Passes);
    let broken = place.directory.path().join("broken");
    fs::write(&broken, "no kernel").unwrap();
    place.selection.kernels.insert(0, broken.display().to_string());
    let run = place.run(false, &Log::default()).unwrap();
    let good = place.selection.kernels[1].as_str();
    for finished in &run.outcome.cells {
        let expected = match finished.cell.axes.kernel == good {
            true => Outcome::Passed,
            false => Outcome::Errored,
        };
        assert_eq!(finished.verdict.outcome, expected, "{}", finished.cell.id);
    }
    assert_eq!(run.outcome.cells.len(), 4);
}

#[test]
fn leaves_the_first_look_at_a_qemu_out_of_a_cells_time() {
    let mut place = Place::new(CASE, QemuScript::Passes);
    let qemu = &mut place.selection.qemus[0];
    // It takes three seconds to answer, each time that it is started. A cell's own plan is computed in less than
    // a thousandth of that, so a busy machine does not blur the two.
    let slow = place.directory.path().join("bin/fake-qemu-passes-slowly");
    fs::write(&slow, format!("#!/bin/sh\nsleep 3\nexec {qemu} \"$@\"\n")).unwrap();
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).unwrap();
    *qemu = slow.display().to_string();
    let run = place.run(false, &Log::default()).unwrap();
    assert_eq!(outcomes(&run), [Outcome::Passed, Outcome::Passed]);
    for finished in &run.outcome.cells {
        let phases = &finished.observation.phases;
        let planning = phases.iter().find(|phase| phase.name == "plan").unwrap();
        assert!(planning.us < 3_000_000, "{planning:?}");
    }
}

#[test]
fn rejects_a_case_that_does_not_exist() {
    let mut place = Place::new(CASE, QemuScript::Passes);
    place.selection.cases = vec!["lost".to_owned()];
    let error = place.run(false, &Log::default()).unwrap_err();
    assert!(matches!(error, Error::Request(RequestError::UnknownCase { .. })), "{error:?}");
}

#[test]
fn rejects_a_kernel_that_does_not_exist() {
    let mut place = Place::new(CASE, QemuScript::Passes);
    place.selection.kernels = vec!["debian-6.11".to_owned()];
    let error = place.run(false, &Log::default()).unwrap_err();
    assert!(matches!(error, Error::Request(RequestError::Kernel(_))), "{error:?}");
}
