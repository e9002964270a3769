//! Two sides run in turn, and two recorded runs.

use dmarig_fake_qemu::{QemuScript, SLOW_KERNEL};
use dmarig_history::{Compared, Comparison};
use dmarig_model::observation::Outcome;
use dmarig_stats::paired::Judgement;

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
fn two_qemus_are_run_in_turn_and_judged() {
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
        let Compared::Paired(finding) = &metric.result else { panic!("{metric:?}") };
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
fn a_run_is_judged_beside_its_baseline() {
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
    let report = std::fs::read_to_string(&junit).unwrap();
    assert!(report.contains("worse after 8 pairs: estimated +20.0 %, limit 5 % worse"), "{report}");
    check(run(&case, &good, &slow, &json), 0, Judgement::Pass);
    // Instead of the case's own.
    let wide = ["--limit", "elapsed=50", "--format", "json"];
    check(run(&case, &slow, &good, &wide), 0, Judgement::Pass);
    let table = run(&case, &slow, &good, &[]);
    table.exits(1);
    assert!(table.stdout.contains("+20.0 %"), "{table:?}");

    let nothing = run(&unlimited, &slow, &good, &[]);
    nothing.exits(2);
    assert!(nothing.stderr.contains("give --limit"), "{nothing:?}");
    let itself = run(&case, &good, &good, &[]);
    itself.exits(2);
    assert!(itself.stderr.contains("with itself"), "{itself:?}");
}

#[test]
fn a_side_that_comes_to_nothing_stops_it() {
    let place = Place::new();
    let case = place.file("case.yaml", CASE);
    let kernel = format!("kernel={}", place.kernel());
    let [good, dies] =
        [QemuScript::Passes, QemuScript::Dies].map(|script| format!("qemu={}", place.qemu(script)));
    let ended = place.run(&words(&dies, &good, &case, &kernel));
    ended.exits(3);
    let found = comparison(&ended.stdout);
    assert_eq!((found.judgement(), found.outcome()), (None, Outcome::Errored));
    let why = found.stopped().unwrap();
    assert!(why.contains("the candidate errored"), "{why}");
    // It was tried twice.
    assert_eq!(ended.stderr.matches("came to nothing").count(), 2, "{ended:?}");
    let [candidate, baseline] = found.cells[0].boots.as_ref().unwrap();
    assert_eq!((candidate.all, candidate.bad.len()), (2, 2));
    assert!(baseline.all > 0 && baseline.bad.is_empty(), "{baseline:?}");
}

/// A kernel that crashes, or does not do what is expected of it, has failed, whatever its times are.
#[test]
fn a_candidate_that_fails_by_itself_fails() {
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
    assert!(found.stopped().unwrap().contains("the candidate failed"), "{found:?}");
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
fn a_comparison_is_told_from_its_record() {
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
    for (format, text) in [("table", "FAIL"), ("markdown", "| FAIL |"), ("html", "<!DOCTYPE html>")]
    {
        let told = place.run(&["compare", "last", "--format", format]);
        told.exits(1);
        assert!(told.stdout.contains(text), "no {text} in {told:?}");
    }
    let judged = place.run(&["judge", "last", "--format", "json"]);
    judged.exits(1);
    let document = judged.document();
    let cells = document["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 18);
    assert!(cells.iter().all(|cell| cell["outcome"] == "passed"), "{judged:?}");
    assert_eq!(document["comparisons"][0]["outcome"], "failed");

    let check = |words: &[&str], expected: &str| {
        let ended = place.run(words);
        ended.exits(2);
        assert!(ended.stderr.contains(expected), "no `{expected}`: {ended:?}");
    };
    check(&["compare", "last", "last"], "is the record of a comparison");
    check(&["compare", "last", "--limit", "elapsed=5"], "leave --limit and --metric away");
    check(&["compare", "last", "--set", "policy=lazy"], "--set: nothing is run");
    check(&["compare", "nope"], "dmarig compare nope BASELINE");
    place.run(&["run", &case, "--set", &kernel, "--set", &good]).exits(0);
    check(&["compare", "last"], "is a run and not a comparison");

    // What was killed on its way is told so.
    let runs = std::fs::read_dir(place.path("runs")).unwrap().flatten();
    let pairs =
        runs.map(|run| run.path()).find(|run| run.join("comparison.json").exists()).unwrap();
    std::fs::remove_file(pairs.join("comparison.json")).unwrap();
    let judged = place.run(&["judge", &pairs.display().to_string()]);
    judged.exits(3);
    assert!(judged.stderr.contains("ended before all was compared"), "{judged:?}");
}

#[test]
fn recorded_runs_are_compared_and_not_judged() {
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
    let Compared::Unpaired { estimate: Some(estimate) } = &metric.result else {
        panic!("{metric:?}");
    };
    assert!((estimate.ratio - 1.2).abs() < 1e-9 && estimate.differs(), "{estimate:?}");
    assert_eq!((found.judgement(), found.pairing), (None, None));

    let table = place.run(&["compare", &part, &first]);
    table.exits(0);
    assert!(table.stdout.contains("UNPAIRED") && table.stdout.contains("+20.0 %"), "{table:?}");
    let markdown = place.run(&["compare", &part, &first, "--format", "markdown"]);
    assert!(markdown.stdout.contains("| elapsed | 1.2 ms | 1 ms | +20.0 % |"), "{markdown:?}");

    let page = place.run(&["compare", &part, &first, "--format", "html"]);
    for text in ["<!DOCTYPE html>", "+20.0 %", "not measured in pairs", "1.2 ms"] {
        assert!(page.stdout.contains(text), "no {text} in {page:?}");
    }
    assert!(!page.stdout.contains("<script") && !page.stdout.contains(" src="), "{page:?}");

    for (more, expected) in [
        (["--limit", "elapsed=5"], "not measured in pairs"),
        (["--set", "policy=lazy"], "--set: nothing is run"),
        (["--metric", "nope"], "no cell of both has a metric `nope`; there are "),
    ] {
        let judged = place.run(&["compare", &part, &first, more[0], more[1]]);
        judged.exits(2);
        assert!(judged.stderr.contains(expected), "{judged:?}");
    }
    // Both kernels' cells could be meant, and each remedy can be typed.
    let ambiguous = place.run(&["compare", &first, &second]);
    if ambiguous.stderr.contains("could be compared with 2 cells") {
        let remedy = ambiguous.stderr.split("as in ").nth(1).unwrap().trim();
        place.run(&["compare", &first, remedy]).exits(0);
    }
}

#[test]
fn what_can_not_be_compared_is_told() {
    let place = Place::new();
    let case = place.file("case.yaml", CASE);
    let idle = place.file("idle.yaml", "case: idle\nworkload: {idle: {}}\n");
    let kernel = format!("kernel={}", place.kernel());
    let good = format!("qemu={}", place.qemu(QemuScript::Passes));
    let check = |words: &[&str], code, expected: &str| {
        let ended = place.run(words);
        ended.exits(code);
        let said = ended.stderr.clone() + &ended.stdout;
        assert!(said.contains(expected), "no `{expected}`: {ended:?}");
    };
    check(
        &["compare", &good, &good, "--case", &idle, "-s", &kernel],
        2,
        "nothing that could be timed",
    );
    // A run that has gone, or a kernel that is spelt wrong: nothing is begun.
    check(&["compare", "last", "nope", "--case", &case], 2, "no run of that name is in");
    check(&["history", "add"], 0, "0 added");
    check(&["compare", "policy=lazy,strict", &good], 2, "write axis=value");
    check(&["compare", "control=on", "control=on", "--case", &case], 2, "on both sides");
    check(&["compare", "control=on", "policy=lazy", "--case", &case], 2, "other values to both");
    check(&["compare", "polcy=lazy", &good, "--case", &case], 2, "policy");
    let twins =
        ["compare", "control=on", "control=off", "--case", &case, "-s", &kernel, "-s", &good];
    // There is no such cell, so nothing runs.
    check(&twins, 4, "be made to batch: that takes caching-mode=on");
    let misspelt = ["compare", &good, &good, "-s", &kernel, "--limit", "elapsd=5"];
    check(&misspelt, 2, "--limit: unknown metric `elapsd`; did you mean `elapsed`?");
    let misspelt = ["compare", &good, &good, "-s", &kernel, "--metric", "psi"];
    check(&misspelt, 2, "--metric: unknown metric `psi`; there are ");
    let twice =
        ["compare", &good, &good, "-s", &kernel, "--limit", "elapsed=5", "--limit", "elapsed=6"];
    check(&twice, 2, "--limit elapsed is given twice");
    let reference = ["run", &case, "-s", &kernel, "--reference", "nope"];
    check(&reference, 2, "--reference: ");
    let baseline = ["run", &case, "-s", &kernel, "--baseline", "nope", "--limit", "elapsed=5"];
    check(&baseline, 2, "--baseline: ");
    let sides = ["compare", "control=on", "control=off", "--case", &case, "-s", "kernel=nope"];
    check(&sides, 2, "nope");
    let unknown =
        ["compare", &good, &good, "--case", &case, "-s", &kernel, "--limit", "latency-p50=5"];
    check(&unknown, 3, "no metric `latency-p50`; there are throughput, iops, elapsed");
    let limit = ["compare", &good, &good, "--case", &case, "-s", &kernel, "--limit", "iops=100"];
    check(&limit, 2, "below 100 where higher is better");
}
