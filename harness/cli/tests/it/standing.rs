//! A run beside the runs before it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use dmarig_fake_qemu::QemuScript;
use dmarig_history::{HistoryJudgement, HistoryMetric};
use dmarig_stats::paired::Judgement;
use quick_junit::Report;
use serde_json::Value;

use dmarig_fake_qemu::{EM_X86_64, vmlinux_with};

use crate::place::{Ended, Place};

const LIMITED: &str = "\
case: timed
axes: {policy: strict}
workload: {block: {ops: 64}}
windows: {time: 3}
history:
  - {metric: elapsed, percent: 5}
  - {metric: psi-per-unmap, percent: 10}
";

/// Earlier runs that there are.
const NIGHTS: i64 = 30;

/// A kernel of this name that plays this script.
fn kernel(place: &Place, name: &str, script: QemuScript) -> String {
    let directory = place.kernel_without(name, &[]);
    let image = vmlinux_with(EM_X86_64, &script.kernel_marker());
    place.file(&format!("{name}/vmlinux"), image);
    directory
}

/// A kernel under test beside a reference.
struct Bench {
    place: Place,
    case: String,
    qemu: String,
    reference: String,
}

impl Bench {
    fn new() -> Self {
        let place = Place::new();
        let case = place.file("case.yaml", LIMITED);
        let qemu = place.qemu(QemuScript::AsItsKernel);
        let reference = kernel(&place, "reference", QemuScript::Passes);
        Self { place, case, qemu, reference }
    }

    /// Runs a kernel of always the same name.
    fn run(&self, script: QemuScript, more: &[&str]) -> Ended {
        self.judge(script, "json", more)
    }

    /// As that, told otherwise.
    fn judge(&self, script: QemuScript, format: &str, more: &[&str]) -> Ended {
        let mine = kernel(&self.place, "mine", script);
        let words = ["run", &self.case, "--qemu", &self.qemu, "-k", &mine, "--format", format];
        self.place.run(&[&words[..], &["--reference", &self.reference], more].concat())
    }

    /// The lines of standard error that say why a time is not compared.
    fn reasons_not_to_compare(&self, ended: &Ended) -> String {
        let lines = ended.stderr.lines().filter(|line| line.contains("elapsed"));
        self.place.redact(&lines.collect::<Vec<_>>().join("\n"))
    }

    /// Makes the only run one of many nights, which go into a history of this name.
    fn nights(&self, name: &str, change: impl Fn(&mut Value)) -> String {
        let (run, runs) = (self.place.run_directory(), self.place.path(name));
        (0..NIGHTS).for_each(|night| copy(&run, &runs, night, &change));
        let (runs, file) = (runs.display().to_string(), format!("{name}.sqlite"));
        let words = ["history", "--history", &file, "--runs", &runs, "add"];
        self.place.run(&words).exits(0);
        file
    }
}

/// Puts a run among others, as if it had been made some nights earlier, with times as noisy as half a
/// percent.
fn copy(run: &Path, runs: &Path, night: i64, change: &impl Fn(&mut Value)) {
    let read = |name: &str| fs::read_to_string(run.join(name)).unwrap();
    let mut meta: Value = serde_json::from_str(&read("run.json")).unwrap();
    let id = format!("20200101T{night:06}.000000Z-000000");
    meta["id"] = id.clone().into();
    meta["started"] = (meta["started"].as_i64().unwrap() - (NIGHTS - night) * 86_400).into();
    change(&mut meta);
    let mut cells = String::new();
    for (cell, line) in read("cells.jsonl").lines().enumerate() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        for window in line["observation"]["windows"].as_array_mut().unwrap() {
            let noise = (night * 7919 + cell as i64 * 31) % 13 * 400;
            let elapsed = window["report"]["elapsed_ns"].as_i64().unwrap();
            window["report"]["elapsed_ns"] = (elapsed + noise).into();
        }
        cells += &format!("{line}\n");
    }
    let directory = runs.join(id);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("run.json"), meta.to_string()).unwrap();
    fs::write(directory.join("cells.jsonl"), cells).unwrap();
}

fn standing(ended: &Ended) -> HistoryJudgement {
    serde_json::from_value(ended.document()["history"].clone()).unwrap()
}

/// Of both metrics.
fn judgements(ended: &Ended) -> Vec<Option<Judgement>> {
    standing(ended).metrics.iter().map(HistoryMetric::judgement).collect()
}

/// What stands beside each record.
fn written(place: &Place) -> Vec<PathBuf> {
    let runs = fs::read_dir(place.path("runs")).unwrap().flatten();
    runs.map(|run| run.path().join("history.json")).filter(|path| path.exists()).collect()
}

#[test]
fn judges_run_by_earlier_runs() {
    let bench = Bench::new();
    let first = bench.run(QemuScript::Passes, &[]);
    first.exits(0);
    insta::assert_snapshot!("too_few_runs", bench.reasons_not_to_compare(&first));
    assert_eq!(judgements(&first), [None, None]);
    let text = fs::read_to_string(&written(&bench.place)[0]).unwrap();
    assert_eq!(serde_json::from_str::<HistoryJudgement>(&text).unwrap(), standing(&first));
    let file = bench.nights("nights", |_| ());

    let same = bench.run(QemuScript::Passes, &["--history", &file]);
    same.exits(0);
    assert_eq!(judgements(&same), [Some(Judgement::Pass); 2], "{same:?}");
    let junit = bench.place.path("junit.xml").display().to_string();
    let slow = bench.run(QemuScript::IsSlow, &["--history", &file, "--junit", &junit]);
    slow.exits(1);
    assert_eq!(judgements(&slow), [Some(Judgement::Fail), Some(Judgement::Pass)], "{slow:?}");
    // By itself each cell passes.
    assert!(slow.cells().iter().all(|cell| cell["outcome"] == "passed"));
    let report = Report::deserialize_from_str(&fs::read_to_string(&junit).unwrap()).unwrap();
    assert_eq!(report.failures, 1);
    assert_eq!(written(&bench.place).len(), 3);

    let table = bench.judge(QemuScript::IsSlow, "table", &["--history", &file]);
    table.exits(1);

    // Who looks at the pages alone sees it as well.
    let site = bench.place.path("site");
    let words = ["dashboard", "--history", &file, "--out", &site.display().to_string()];
    bench.place.run(&["history", "--history", &file, "add"]).exits(0);
    bench.place.run(&words).exits(0);
    // The night's runs were judged twice, and the last judgement counts. These words are the pages' only sign of it.
    let first = fs::read_to_string(site.join("index.html")).unwrap();
    assert!(first.contains("passed, 1 number is too much worse"), "{first:.3000}");
    let pages = fs::read_dir(site.join("runs")).unwrap().flatten();
    let pages = pages.map(|page| fs::read_to_string(page.path()).unwrap());
    assert_eq!(pages.filter(|page| page.contains("against the runs before")).count(), 4);
}

#[test]
fn ignores_other_machines_and_bare_times() {
    let bench = Bench::new();
    bench.run(QemuScript::Passes, &[]).exits(0);
    let file = bench.nights("theirs", |meta| meta["host"]["cpu"] = "of another machine".into());
    let slow = bench.run(QemuScript::IsSlow, &["--history", &file]);
    slow.exits(0);
    assert_eq!(judgements(&slow), [None, None]);

    let bare = bench.case.as_str();
    let mine = bench.place.path("mine").display().to_string();
    let words = ["run", bare, "--qemu", &bench.qemu, "-k", &mine, "--history", &file];
    let table = bench.place.run(&words);
    table.exits(0);
    insta::assert_snapshot!("times_without_a_reference", bench.reasons_not_to_compare(&table));
    // A file that is no history is rejected before anything runs.
    bench.place.file("text", "no database, but long enough to be read as one");
    let rejected = bench.place.run_all(3, &[&[&words[..6], &["--history", "text"]].concat()]);
    insta::assert_snapshot!("file_that_is_no_history", rejected);
}

#[test]
fn prefers_baseline_to_history() {
    let bench = Bench::new();
    bench.run(QemuScript::Passes, &[]).exits(0);
    let file = bench.nights("nights", |_| ());
    // As slow as the baseline, so that only the history would blame it.
    let baseline = kernel(&bench.place, "baseline", QemuScript::IsSlow);
    let more = ["--history", &file, "--baseline", &baseline, "--limit", "elapsed=5"];
    let ended = bench.run(QemuScript::IsSlow, &more);
    ended.exits(0);
    assert_eq!(judgements(&ended), [None, Some(Judgement::Pass)], "{ended:?}");
    assert!(!ended.document()["comparisons"].as_array().unwrap().is_empty());
}
