//! Two sides run in turn, and two recorded runs.

use dmarig_fake_qemu::{QemuScript, SLOW_KERNEL};
use dmarig_model::observation::Outcome;
use dmarig_records::{Comparison, MetricResult};
use dmarig_stats::paired::Judgement;
use quick_junit::Report;

use crate::place::{CASE, Ended, Place};

/// Words that compare two QEMUs by the time of a workload.
fn words<'a>(
    candidate: &'a str,
    baseline: &'a str,
    case: &'a str,
    kernel: &'a str,
) -> Vec<&'a str> {
    let limit = ["--limit", "elapsed=5", "--seed", "1", "--format", "json"];
    let mut words = vec!["compare", candidate, baseline, "--case", case, "--set", kernel];
    words.extend(limit);
    words
}

fn comparison(text: &str) -> Comparison {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn judges_two_qemus_in_interleaved_pairs() {
    let place = Place::new();
    let case = place.file("case.yaml", CASE);
    let kernel = format!("kernel={}", place.kernel());
    let [good, slow] = [QemuScript::Passes, QemuScript::IsSlow]
        .map(|script| format!("qemu={}", place.qemu(script)));
    let check = |candidate: &str, baseline: &str, code, judgement, ratio: f64| {
        let ended = place.run(&words(candidate, baseline, &case, &kernel));
        ended.exits(code);
        let found = comparison(&ended.stdout);
        assert_eq!(found.judgement(), Some(judgement), "{found:?}");
        assert!(!found.pairing.unwrap().one_boot);
        let [cell] = found.cells.as_slice() else { panic!("{:?}", found.cells) };
        let metric = &cell.metrics[0];
        let MetricResult::Paired(finding) = &metric.result else { panic!("{metric:?}") };
        let estimate = finding.estimate.unwrap();
        assert_eq!((metric.candidate.len(), estimate.pairs), (8, 8));
        assert!((estimate.ratio - ratio).abs() < 1e-9, "{estimate:?}");
    };
    check(&slow, &good, 1, Judgement::Fail, 1.2);
    check(&good, &slow, 0, Judgement::Pass, 1.0 / 1.2);

    // A warm-up and eight pairs, of two boots each, all recorded; and what came of them.
    let runs: Vec<_> = std::fs::read_dir(place.path("runs")).unwrap().flatten().collect();
    assert_eq!(runs.len(), 2);
    for run in runs {
        let read = |name: &str| std::fs::read_to_string(run.path().join(name)).unwrap();
        assert_eq!(read("cells.jsonl").lines().count(), 18);
        assert_eq!(comparison(&read("comparison.json")).cells.len(), 1);
    }
}

#[test]
fn judges_run_against_baseline() {
    let place = Place::new();
    let unlimited = place.file("unlimited.yaml", CASE);
    let limits = "limits:\n  - {metric: elapsed, percent: 5}\n";
    let case = place.file("case.yaml", format!("{CASE}{limits}"));
    let (good, slow) = (place.kernel(), place.kernel_without(SLOW_KERNEL, &[]));
    let qemu = place.qemu(QemuScript::Passes);
    let run = |case: &str, kernel: &str, baseline: &str, more: &[&str]| {
        let mut words = vec!["run", case, "--qemu", &qemu, "-k", kernel, "--baseline", baseline];
        words.extend(more);
        place.run(&words)
    };
    let check = |ended: Ended, code, judgement| {
        ended.exits(code);
        let document = ended.document();
        // By itself each cell passes.
        assert_eq!(document["cells"][0]["outcome"], "passed");
        let [found] = document["comparisons"].as_array().unwrap().as_slice() else { panic!() };
        let found: Comparison = serde_json::from_value(found.clone()).unwrap();
        assert_eq!(found.judgement(), Some(judgement), "{found:?}");
    };
    let json = ["--format", "json"];
    let junit = place.path("junit.xml").display().to_string();
    let both = ["--format", "json", "--junit", &junit];
    check(run(&case, &slow, &good, &both), 1, Judgement::Fail);
    let report = Report::deserialize_from_str(&std::fs::read_to_string(&junit).unwrap()).unwrap();
    assert_eq!(report.failures, 1);
    check(run(&case, &good, &slow, &json), 0, Judgement::Pass);
    // Instead of the case's own.
    let wide = ["--limit", "elapsed=50", "--format", "json"];
    check(run(&case, &slow, &good, &wide), 0, Judgement::Pass);
    run(&case, &slow, &good, &[]).exits(1);

    let rejected = [run(&unlimited, &slow, &good, &[]), run(&case, &good, &good, &[])];
    for ended in &rejected {
        ended.exits(2);
    }
    insta::assert_snapshot!("rejected_baselines", place.transcript(&rejected));
}

#[test]
fn stops_when_a_side_errors() {
    let place = Place::new();
    let case = place.file("case.yaml", CASE);
    let kernel = format!("kernel={}", place.kernel());
    let [good, dies] =
        [QemuScript::Passes, QemuScript::Dies].map(|script| format!("qemu={}", place.qemu(script)));
    let ended = place.run(&words(&dies, &good, &case, &kernel));
    ended.exits(3);
    let found = comparison(&ended.stdout);
    assert_eq!((found.judgement(), found.outcome()), (None, Outcome::Errored));
    insta::assert_snapshot!("candidate_that_dies", place.redact(found.stopped().unwrap()));
    // It was tried twice.
    let [candidate, baseline] = found.cells[0].boots.as_ref().unwrap();
    assert_eq!((candidate.all, candidate.bad.len()), (2, 2));
    assert!(baseline.all > 0 && baseline.bad.is_empty(), "{baseline:?}");
}

/// A kernel that crashes, or does not do what is expected of it, has failed, whatever its times are.
#[test]
fn fails_when_candidate_fails_by_itself() {
    let place = Place::new();
    // Of a time that is no failure in pairs, and is one by itself.
    let expect = "windows: {time: 1}\nexpect:\n  - {name: fast, bounds: [{metric: elapsed, max: 1100000, unit: ns, accelerators: tcg}]}\n\
                  limits:\n  - {metric: elapsed, percent: 50}\n";
    let case = place.file("case.yaml", format!("{CASE}{expect}"));
    let kernel = format!("kernel={}", place.kernel());
    let qemu = |script| format!("qemu={}", place.qemu(script));
    let [good, bad, panics] =
        [QemuScript::Passes, QemuScript::IsSlow, QemuScript::Panics].map(qemu);
    let check = |candidate: &str, baseline: &str, code, outcome| {
        let case = ["--case", &case, "--set", &kernel, "--format", "json"];
        let ended = place.run(&[&["compare", candidate, baseline][..], &case].concat());
        ended.exits(code);
        let found = comparison(&ended.stdout);
        assert_eq!(found.outcome(), outcome, "{found:?}");
        let document: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(document["outcome"], serde_json::to_value(outcome).unwrap());
        found
    };
    let found = check(&panics, &good, 1, Outcome::Failed);
    insta::assert_snapshot!("candidate_that_panics", place.redact(found.stopped().unwrap()));
    // A baseline that crashes says nothing of the candidate.
    check(&good, &panics, 3, Outcome::Errored);
    // It was timed as well.
    let found = check(&bad, &good, 1, Outcome::Failed);
    assert_eq!((found.judgement(), found.stopped()), (Some(Judgement::Pass), None));
    let [candidate, _] = found.cells[0].boots.as_ref().unwrap();
    assert_eq!(candidate.failed().count() as u32, candidate.all);
    check(&good, &bad, 0, Outcome::Passed);
}

/// A record of a comparison is judged as it ran, and told once more in any format.
#[test]
fn reports_recorded_comparison() {
    let place = Place::new();
    let case = place.file("case.yaml", CASE);
    let kernel = format!("kernel={}", place.kernel());
    let [good, slow] = [QemuScript::Passes, QemuScript::IsSlow]
        .map(|script| format!("qemu={}", place.qemu(script)));
    let first = place.run(&words(&slow, &good, &case, &kernel));
    first.exits(1);
    let again = place.run(&["compare", "last", "--format", "json"]);
    again.exits(1);
    assert_eq!(again.stdout, first.stdout);
    for format in ["table", "markdown"] {
        let printed = place.run(&["compare", "last", "--format", format]);
        printed.exits(1);
        insta::assert_snapshot!(format!("{format}_of_a_comparison"), place.redact(&printed.stdout));
    }
    let page = place.run(&["compare", "last", "--format", "html"]);
    page.exits(1);
    assert!(page.stdout.starts_with("<!DOCTYPE html>"), "{page:?}");
    let judged = place.run(&["judge", "last", "--format", "json"]);
    judged.exits(1);
    let document = judged.document();
    let cells = document["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 18);
    assert!(cells.iter().all(|cell| cell["outcome"] == "passed"), "{judged:?}");
    assert_eq!(document["comparisons"][0]["outcome"], "failed");

    let rejected = [
        &["compare", "last", "last"][..],
        &["compare", "last", "--limit", "elapsed=5"],
        &["compare", "last", "--set", "policy=lazy"],
        &["compare", "nope"],
    ];
    insta::assert_snapshot!("rejected_comparisons_of_records", place.run_all(2, &rejected));
    place.run(&["run", &case, "--set", &kernel, "--set", &good]).exits(0);
    insta::assert_snapshot!("rejected_run", place.run_all(2, &[&["compare", "last"]]));

    // A comparison that was killed has no result.
    let runs = std::fs::read_dir(place.path("runs")).unwrap().flatten();
    let pairs =
        runs.map(|run| run.path()).find(|run| run.join("comparison.json").exists()).unwrap();
    std::fs::remove_file(pairs.join("comparison.json")).unwrap();
    let judged = place.run(&["judge", &pairs.display().to_string()]);
    judged.exits(3);
    insta::assert_snapshot!("killed_comparison", place.redact(&judged.stderr));
}

#[test]
fn estimates_difference_of_recorded_runs() {
    let place = Place::new();
    let timed = format!("{CASE}windows: {{time: 6}}\n");
    let (case, kernel) = (place.file("case.yaml", timed), place.kernel());
    let [good, slow] = [QemuScript::Passes, QemuScript::IsSlow].map(|script| place.qemu(script));
    place.run(&["run", &case, "--kernel", &kernel, "--qemu", &good]).exits(0);
    let first = place.run(&["judge", "last", "--format", "json"]);
    let first = first.document()["run"].as_str().unwrap().to_owned();
    place.run(&["run", &case, "--kernel", &kernel, "--qemu", &slow, "--qemu", &good]).exits(0);

    // By its name: of two runs within a second, either may be the last.
    let runs = std::fs::read_dir(place.path("runs")).unwrap().flatten();
    let mut runs = runs.map(|run| run.file_name().into_string().unwrap());
    let second = runs.find(|run| *run != first).unwrap();
    let part = format!("{second}:qemu={slow}");
    let ended = place.run(&["compare", &part, &first, "--format", "json"]);
    ended.exits(0);
    let found = comparison(&ended.stdout);
    let metric = &found.cells[0].metrics[0];
    let MetricResult::Unpaired { estimate: Some(estimate) } = &metric.result else {
        panic!("{metric:?}");
    };
    assert!((estimate.ratio - 1.2).abs() < 1e-9 && estimate.differs(), "{estimate:?}");
    assert_eq!((found.judgement(), found.pairing), (None, None));

    let table = place.run(&["compare", &part, &first]);
    table.exits(0);
    insta::assert_snapshot!("table_of_unpaired_runs", place.redact(&table.stdout));
    let markdown = place.run(&["compare", &part, &first, "--format", "markdown"]);
    markdown.exits(0);
    insta::assert_snapshot!("markdown_of_unpaired_runs", place.redact(&markdown.stdout));

    let page = place.run(&["compare", &part, &first, "--format", "html"]);
    page.exits(0);
    assert!(page.stdout.starts_with("<!DOCTYPE html>"), "{page:?}");
    assert!(!page.stdout.contains("<script") && !page.stdout.contains(" src="), "{page:?}");

    let rejected = [["--limit", "elapsed=5"], ["--set", "policy=lazy"], ["--metric", "nope"]]
        .map(|more| ["compare", &part, &first, more[0], more[1]]);
    let rejected = rejected.each_ref().map(|words| &words[..]);
    insta::assert_snapshot!("rejected_comparisons_of_runs", place.run_all(2, &rejected));
    // The cells of both QEMUs fit. The message ends with a part of the run that can be named.
    let ambiguous = place.run(&["compare", &first, &second]);
    if ambiguous.code == Some(2) {
        let remedy = ambiguous.stderr.split_whitespace().last().unwrap();
        place.run(&["compare", &first, remedy]).exits(0);
    }
}

#[test]
fn rejects_invalid_comparisons() {
    let place = Place::new();
    let case = place.file("case.yaml", CASE);
    let idle = place.file("idle.yaml", "case: idle\nworkload: {idle: {}}\n");
    let kernel = format!("kernel={}", place.kernel());
    let good = format!("qemu={}", place.qemu(QemuScript::Passes));
    let twins = ["compare", "control=on", "control=off"];
    let two = |axes: [&str; 2], more: &[&str]| {
        let words = [&["compare", axes[0], axes[1]], more, &["-s", &kernel]].concat();
        place.run(&words)
    };
    let same = [good.as_str(); 2];
    let rejected = [
        (2, two(same, &["--case", &idle])),
        // A run that has gone, or a kernel that is misspelt: nothing is begun.
        (2, place.run(&["compare", "last", "nope", "--case", &case])),
        (0, place.run(&["history", "add"])),
        (2, place.run(&["compare", "policy=lazy,strict", &good])),
        (2, place.run(&["compare", "control=on", "control=on", "--case", &case])),
        (2, place.run(&["compare", "control=on", "policy=lazy", "--case", &case])),
        (2, place.run(&["compare", "polcy=lazy", &good, "--case", &case])),
        (2, two(same, &["--limit", "elapsd=5"])),
        (2, two(same, &["--metric", "psi"])),
        (2, two(same, &["--limit", "elapsed=5", "--limit", "elapsed=6"])),
        (2, place.run(&["run", &case, "-s", &kernel, "--reference", "nope"])),
        (
            2,
            place.run(&["run", &case, "-s", &kernel, "--baseline", "nope", "--limit", "elapsed=5"]),
        ),
        (2, place.run(&[&twins[..], &["--case", &case, "-s", "kernel=nope"]].concat())),
        (2, two(same, &["--case", &case, "--limit", "iops=100"])),
    ];
    for (code, ended) in &rejected {
        ended.exits(*code);
    }
    insta::assert_snapshot!(place.transcript(rejected.iter().map(|(_, ended)| ended)));

    // There is no such cell, so nothing runs.
    place.run(&[&twins[..], &["--case", &case, "-s", &kernel, "-s", &good]].concat()).exits(4);
    let unmeasured = ["--case", &case, "--limit", "latency-p50=5", "--format", "json"];
    let ended = two(same, &unmeasured);
    ended.exits(3);
    let found = comparison(&ended.stdout);
    insta::assert_snapshot!("metric_that_no_cell_has", found.stopped().unwrap());
}
