//! Which earlier runs a run is judged by, and which not.

use std::path::Path;

use dmarig_history::{
    CellEntry, CellKey, History, HistoryCheckInput, HistoryJudgement, HistoryVerdict, PointEntry,
    RunEntry, SeriesKey,
};
use dmarig_model::{case::Case, limit::LEAST_RUNS, observation::Outcome};
use dmarig_records::Build;
use dmarig_stats::{paired::Judgement, prediction::LEAST};

use crate::fixtures::{cell, environment, key, point, run};

const REFERENCE: &str = "debian-6.1";

fn case(limits: &str) -> Case {
    let text = format!(
        "case: timing\nworkload: {{exec: {{argv: [/add/x]}}}}\nwindows: {{time: 1}}\nhistory: [{limits}]\n"
    );
    Case::parse("timing.yaml", &text).unwrap()
}

fn elapsed() -> Case {
    case("{metric: elapsed, percent: 5}")
}

/// In relation to the reference's build of this name.
fn ratio(build: &str) -> SeriesKey {
    let reference = Some(format!("{REFERENCE}@{build}"));
    SeriesKey { reference, ..key("elapsed", "ns", "mine") }
}

/// A night in which the kernel took so many times as long as the reference, on a machine in some mood.
fn night(day: u32, slower: f64) -> RunEntry {
    let mood = 1e9 * f64::from(1 + day % 3);
    let points = vec![
        point(key("elapsed", "ns", REFERENCE), 1, &[mood]),
        point(key("elapsed", "ns", "mine"), 0, &[mood * slower]),
        point(ratio("a"), 0, &[slower]),
        point(key("psi-per-unmap", "1", "mine"), 0, &[slower]),
    ];
    let cells = vec![cell(0, "mine", Outcome::Passed), cell(1, REFERENCE, Outcome::Passed)];
    RunEntry { points, cells, reference: Some(REFERENCE.into()), ..run(day, 1.0) }
}

/// As many nights, of which nothing changed in any.
fn nights(count: u32) -> Vec<RunEntry> {
    (0..count).map(|day| night(day, 1.0 + f64::from(day * 7919 % 13) / 2600.0)).collect()
}

fn history(place: &Path, runs: &[RunEntry]) -> History {
    let mut history = History::create(&place.join("history.sqlite")).unwrap();
    history.put(runs).unwrap();
    history
}

fn standing(run: &RunEntry, case: Case, history: Option<&History>) -> HistoryJudgement {
    let beside = |_: &CellKey, _: &str| None;
    let asked = HistoryCheckInput { run, cases: &[case], history, file: "h", beside: &beside };
    HistoryJudgement::new(&asked).unwrap()
}

/// What the only number of a run came to, beside these runs.
#[track_caller]
fn stood(runs: &[RunEntry], run: &RunEntry, case: Case) -> HistoryVerdict {
    let place = tempfile::tempdir().unwrap();
    let standing = standing(run, case, Some(&history(place.path(), runs)));
    let [metric] = <[_; 1]>::try_from(standing.metrics).unwrap();
    metric.result
}

#[track_caller]
fn judgement(stood: &HistoryVerdict) -> Judgement {
    let HistoryVerdict::Judged { found, .. } = stood else { panic!("{stood:?}") };
    found.judgement
}

#[track_caller]
fn not_compared(stood: HistoryVerdict, expected: &str) {
    let HistoryVerdict::NotCompared { why } = stood else { panic!("{stood:?}") };
    assert!(why.contains(expected), "{why}");
}

const NONE: HistoryVerdict = few(0, false, 0);

const fn few(runs: usize, changed: bool, other_samples: usize) -> HistoryVerdict {
    HistoryVerdict::TooFew { runs, needed: LEAST, changed, other_samples }
}

#[test]
fn as_few_runs_may_be_asked_for_as_are_enough() {
    assert_eq!(LEAST_RUNS as usize, LEAST);
}

#[test]
fn a_run_is_judged_by_those_before_it_and_not_by_itself() {
    let mut runs = nights(40);
    assert_eq!(judgement(&stood(&runs, &night(40, 1.0), elapsed())), Judgement::Pass);
    let slow = night(40, 1.2);
    let found = stood(&runs, &slow, elapsed());
    assert_eq!(judgement(&found), Judgement::Fail);
    // Neither itself nor what came later makes a difference.
    runs.push(slow.clone());
    runs.extend((41..60).map(|day| night(day, 1.2)));
    assert_eq!(stood(&runs, &slow, elapsed()), found);
    let HistoryVerdict::Judged { earlier, .. } = &found else { panic!() };
    let expected: Vec<(String, f64)> =
        runs[..40].iter().map(|run| (run.id.clone(), run.points[2].value)).collect();
    assert_eq!(*earlier, expected);
    // The second of two nights.
    runs.truncate(41);
    let next = stood(&runs, &night(41, 1.2), elapsed());
    assert_eq!(judgement(&next), Judgement::Fail);
    let HistoryVerdict::Judged { set_aside, .. } = &next else { panic!() };
    assert_eq!(*set_aside, [(runs[40].id.clone(), 1.2)]);
}

#[test]
fn a_regression_is_one_of_the_kernel_under_test_alone() {
    let place = tempfile::tempdir().unwrap();
    let history = history(place.path(), &nights(40));
    let found = standing(&night(40, 1.2), elapsed(), Some(&history));
    assert_eq!(found.judgement(), Some(Judgement::Fail));
    let [metric] = found.metrics.as_slice() else { panic!("{found:?}") };
    assert_eq!(metric.place.kernel, "mine");
    assert_eq!(metric.series, Some((ratio("a").id(), ratio("a"))));
    assert_eq!((metric.value, found.error), (Some(1.2), 0.02));
}

#[test]
fn few_runs_are_not_compared() {
    assert_eq!(stood(&nights(23), &night(40, 1.2), elapsed()), few(23, false, 0));
    let changed: Vec<RunEntry> = (0..50)
        .map(|day| night(day, if day < 30 { 1.3 } else { 1.0 } + f64::from(day % 5) / 1e3))
        .collect();
    assert_eq!(stood(&changed, &night(50, 1.3), elapsed()), few(20, true, 0));
    let none = standing(&night(0, 1.0), elapsed(), None);
    assert_eq!((none.judgement(), &none.metrics[0].result), (None, &NONE));
    assert_eq!(none.metrics[0].not_compared().unwrap(), "0 runs so far, 24 needed");
}

/// Another machine, another reference, another way to measure: each would make it fail, were it taken.
#[test]
fn what_is_not_alike_is_not_taken() {
    let slow = night(40, 1.2);
    let check = |change: fn(&mut RunEntry)| {
        let mut runs = nights(40);
        runs.iter_mut().for_each(change);
        assert_eq!(stood(&runs, &slow, elapsed()), NONE);
    };
    check(|run| {
        run.cells.iter_mut().for_each(|cell| cell.environment = environment("Xeon"));
        let other = environment("Xeon").fingerprint();
        run.points.iter_mut().for_each(|point| point.series.environment.clone_from(&other));
    });
    check(|run| run.points[2].series = ratio("b"));
    check(|run| run.synthetic = true);
    check(|run| run.points[2].series.place.kernel = "x".into());
    check(|run| run.points[2].series.place.variant = "x".into());
    check(|run| run.points[2].series.place.case = "x".into());
}

#[test]
fn runs_with_another_number_of_samples_are_left_out_and_counted() {
    let place = tempfile::tempdir().unwrap();
    let mut runs = nights(40);
    for run in &mut runs[..30] {
        let PointEntry { series, value, .. } = run.points[2].clone();
        run.points[2] = point(series, 0, &[value; 8]);
    }
    // Those that are left out for another reason are none of them.
    runs[0].synthetic = true;
    let found = standing(&night(40, 1.2), elapsed(), Some(&history(place.path(), &runs)));
    assert_eq!(found.metrics[0].result, few(10, false, 29));
    assert_eq!(
        found.metrics[0].not_compared().unwrap(),
        "10 runs so far, 24 needed; 29 more are left out, which have another number of samples"
    );
}

#[test]
fn times_need_a_reference_and_counts_do_not() {
    let runs = nights(40);
    let mut alone = night(40, 1.2);
    alone.reference = None;
    alone.cells.truncate(1);
    alone
        .points
        .retain(|point| point.series.place.kernel == "mine" && point.series.reference.is_none());
    not_compared(stood(&runs, &alone, elapsed()), "--reference");
    let psi = || case("{metric: psi-per-unmap, percent: 5}");
    assert_eq!(judgement(&stood(&runs, &alone, psi())), Judgement::Fail);
    let unrelated = RunEntry { reference: Some("x".into()), ..alone };
    not_compared(stood(&runs, &unrelated, elapsed()), "the reference x has no such number");
}

#[test]
fn what_can_not_be_judged_says_why() {
    let runs = nights(40);
    let missing = case("{metric: score, percent: 5}");
    not_compared(stood(&runs, &night(40, 1.0), missing.clone()), "not measured");
    let mut scored = night(40, 1.0);
    let score = |reference: Option<&str>| SeriesKey {
        reference: reference.map(str::to_owned),
        ..key("score", "points", "mine")
    };
    scored.points.push(point(score(None), 0, &[3.0]));
    scored.points.push(point(score(Some("debian-6.1@a")), 0, &[3.0]));
    not_compared(stood(&runs, &scored, missing), "`better: higher`");
    let higher = case("{metric: score, better: higher, percent: 5}");
    assert_eq!(stood(&runs, &scored, higher), NONE);
    let zero = |run: &mut RunEntry| run.points[3] = point(run.points[3].series.clone(), 0, &[0.0]);
    let mut zeros = nights(40);
    zeros.iter_mut().for_each(zero);
    let psi = case("{metric: psi-per-unmap, percent: 5}");
    not_compared(stood(&zeros, &night(40, 1.0), psi), "bound it by a rule of `expect`");
}

#[test]
fn what_has_a_baseline_beside_it_does_not_ask_the_history() {
    let place = tempfile::tempdir().unwrap();
    let history = history(place.path(), &nights(40));
    let beside = |place: &CellKey, metric: &str| {
        (place.kernel == "mine" && metric == "elapsed").then(|| "old".to_owned())
    };
    let both = case("{metric: elapsed, percent: 5}, {metric: psi-per-unmap, percent: 5}");
    let run = night(40, 1.2);
    let history = Some(&history);
    let asked =
        HistoryCheckInput { run: &run, cases: &[both], history, file: "h", beside: &beside };
    let found = HistoryJudgement::new(&asked).unwrap();
    not_compared(found.metrics[0].result.clone(), "in pairs with old");
    assert_eq!(judgement(&found.metrics[1].result), Judgement::Fail);
}

#[test]
fn cells_that_came_to_no_end_have_no_standing() {
    let mut broken = night(40, 1.0);
    broken.cells[0].outcome = Outcome::TimedOut;
    assert_eq!(standing(&broken, elapsed(), None).metrics, []);
    // A cell of the same place on another QEMU stands by itself.
    let mut two = night(40, 1.0);
    let other = CellEntry {
        environment: environment("Xeon"),
        build: Build::default(),
        ..two.cells[0].clone()
    };
    two.cells.push(other);
    let found = standing(&two, elapsed(), None);
    let results: Vec<bool> = found.metrics.iter().map(|metric| metric.result == NONE).collect();
    assert_eq!(results.iter().filter(|none| **none).count(), 1, "{found:?}");
    assert_eq!(results.len(), 2);
}

#[test]
fn it_is_written_once() {
    let place = tempfile::tempdir().unwrap();
    let first = standing(&night(0, 1.0), elapsed(), None);
    first.write(place.path()).unwrap();
    let second = HistoryJudgement { run: "other".into(), ..first.clone() };
    let error = second.write(place.path()).unwrap_err().to_string();
    assert!(error.contains("history.json"), "{error}");
    let text = std::fs::read_to_string(place.path().join("history.json")).unwrap();
    assert_eq!(serde_json::from_str::<HistoryJudgement>(&text).unwrap(), first);
}
