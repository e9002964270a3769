//! Selection of the earlier runs that a run is judged by.

use std::path::Path;

use dmarig_history::{
    CellEntry, CellKey, History, HistoryCheckInput, HistoryJudgement, HistoryVerdict, PointEntry,
    RunEntry, SeriesKey,
};
use dmarig_model::{case::Case, limit::LEAST_RUNS, observation::Outcome};
use dmarig_records::{Build, RecordError, RecordFile};
use dmarig_stats::{paired::Judgement, prediction::LEAST};

use crate::fixtures::{cell, environment, key, point, run};

const REFERENCE: &str = "debian-6.1";

fn case(limits: &str) -> Case {
    let text = format!(
        "case: timing\nworkload: {{exec: {{argv: [/add/x]}}}}\nwindows: {{time: 1}}\nhistory: \
         [{limits}]\n"
    );
    Case::parse("timing.yaml", &text).unwrap()
}

fn elapsed() -> Case {
    case("{metric: elapsed, percent: 5}")
}

/// The series of ratios to a build of the reference.
fn ratio(build: &str) -> SeriesKey {
    let reference = Some(format!("{REFERENCE}@{build}"));
    SeriesKey { reference, ..key("elapsed", "ns", "mine") }
}

/// A night in which the kernel took `slower` times as long as the reference, on a machine that
/// drifts.
fn night(day: u32, slower: f64) -> RunEntry {
    let drift = 1e9 * f64::from(1 + day % 3);
    let points = vec![
        point(key("elapsed", "ns", REFERENCE), 1, &[drift]),
        point(key("elapsed", "ns", "mine"), 0, &[drift * slower]),
        point(ratio("a"), 0, &[slower]),
        point(key("psi-per-unmap", "1", "mine"), 0, &[slower]),
    ];
    let cells = vec![cell(0, "mine", Outcome::Passed), cell(1, REFERENCE, Outcome::Passed)];
    RunEntry { points, cells, reference: Some(REFERENCE.into()), ..run(day, 1.0) }
}

/// Nights without a change.
fn nights(count: u32) -> Vec<RunEntry> {
    (0..count).map(|day| night(day, 1.0 + f64::from(day * 7919 % 13) / 2600.0)).collect()
}

fn history(place: &Path, runs: &[RunEntry]) -> History {
    let mut history = History::create(&place.join("history.sqlite")).unwrap();
    history.insert_runs(runs).unwrap();
    history
}

fn judge(run: &RunEntry, case: Case, history: Option<&History>) -> HistoryJudgement {
    let beside = |_: &CellKey, _: &str| None;
    let input = HistoryCheckInput { run, cases: &[case], history, file: "h", beside: &beside };
    HistoryJudgement::new(&input).unwrap()
}

/// The verdict on the only metric of a run, by these earlier runs.
#[track_caller]
fn verdict(runs: &[RunEntry], run: &RunEntry, case: Case) -> HistoryVerdict {
    let place = tempfile::tempdir().unwrap();
    let judgement = judge(run, case, Some(&history(place.path(), runs)));
    let [metric] = <[_; 1]>::try_from(judgement.metrics).unwrap();
    metric.result
}

#[track_caller]
fn judgement(verdict: &HistoryVerdict) -> Judgement {
    let HistoryVerdict::Judged { found, .. } = verdict else { panic!("{verdict:?}") };
    found.judgement
}

#[track_caller]
fn reason(verdict: HistoryVerdict) -> String {
    let HistoryVerdict::NotCompared { why } = verdict else { panic!("{verdict:?}") };
    why
}

const NONE: HistoryVerdict = few(0, false, 0);

const fn few(runs: usize, changed: bool, other_samples: usize) -> HistoryVerdict {
    HistoryVerdict::TooFew { runs, needed: LEAST, changed, other_samples }
}

#[test]
fn accepts_the_least_number_of_runs_in_cases() {
    assert_eq!(LEAST_RUNS as usize, LEAST);
}

#[test]
fn judges_a_run_by_earlier_runs_only() {
    let mut runs = nights(40);
    assert_eq!(judgement(&verdict(&runs, &night(40, 1.0), elapsed())), Judgement::Pass);
    let slow = night(40, 1.2);
    let found = verdict(&runs, &slow, elapsed());
    assert_eq!(judgement(&found), Judgement::Fail);
    // Neither the run itself nor later runs make a difference.
    runs.push(slow.clone());
    runs.extend((41..60).map(|day| night(day, 1.2)));
    assert_eq!(verdict(&runs, &slow, elapsed()), found);
    let HistoryVerdict::Judged { earlier, .. } = &found else { panic!() };
    let expected: Vec<(String, f64)> =
        runs[..40].iter().map(|run| (run.id.clone(), run.points[2].value)).collect();
    assert_eq!(*earlier, expected);
    // The second night after the change: the first one is set aside.
    runs.truncate(41);
    let next = verdict(&runs, &night(41, 1.2), elapsed());
    assert_eq!(judgement(&next), Judgement::Fail);
    let HistoryVerdict::Judged { set_aside, .. } = &next else { panic!() };
    assert_eq!(*set_aside, [(runs[40].id.clone(), 1.2)]);
}

#[test]
fn judges_only_the_kernel_under_test() {
    let place = tempfile::tempdir().unwrap();
    let history = history(place.path(), &nights(40));
    let found = judge(&night(40, 1.2), elapsed(), Some(&history));
    assert_eq!(found.judgement(), Some(Judgement::Fail));
    let [metric] = found.metrics.as_slice() else { panic!("{found:?}") };
    assert_eq!(metric.place.kernel, "mine");
    assert_eq!(metric.series, Some((ratio("a").id(), ratio("a"))));
    assert_eq!((metric.value, found.error), (Some(1.2), 0.02));
}

#[test]
fn does_not_compare_with_few_runs() {
    assert_eq!(verdict(&nights(23), &night(40, 1.2), elapsed()), few(23, false, 0));
    let changed: Vec<RunEntry> = (0..50)
        .map(|day| night(day, if day < 30 { 1.3 } else { 1.0 } + f64::from(day % 5) / 1e3))
        .collect();
    assert_eq!(verdict(&changed, &night(50, 1.3), elapsed()), few(20, true, 0));
    let none = judge(&night(0, 1.0), elapsed(), None);
    assert_eq!((none.judgement(), &none.metrics[0].result), (None, &NONE));
    assert_eq!(none.metrics[0].not_compared().unwrap(), "0 runs so far, 24 needed");
}

/// Runs of another machine, reference or series: the run would fail if any of them were used.
#[test]
fn ignores_runs_of_other_series() {
    let slow = night(40, 1.2);
    let check = |change: fn(&mut RunEntry)| {
        let mut runs = nights(40);
        runs.iter_mut().for_each(change);
        assert_eq!(verdict(&runs, &slow, elapsed()), NONE);
    };
    check(|run| {
        run.cells.iter_mut().for_each(|cell| cell.environment = environment("Xeon"));
        let other = environment("Xeon").fingerprint();
        run.points.iter_mut().for_each(|point| point.series.environment.clone_from(&other));
    });
    check(|run| run.points[2].series = ratio("b"));
    check(|run| run.points[2].series.place.kernel = "x".into());
    check(|run| run.points[2].series.place.variant = "x".into());
    check(|run| run.points[2].series.place.case = "x".into());
}

#[test]
fn counts_runs_with_another_number_of_samples() {
    let place = tempfile::tempdir().unwrap();
    let mut runs = nights(40);
    for run in &mut runs[..30] {
        let PointEntry { series, value, .. } = run.points[2].clone();
        run.points[2] = point(series, 0, &[value; 8]);
    }
    let found = judge(&night(40, 1.2), elapsed(), Some(&history(place.path(), &runs)));
    assert_eq!(found.metrics[0].result, few(10, false, 30));
    assert_eq!(
        found.metrics[0].not_compared().unwrap(),
        "10 runs so far, 24 needed; 30 more have another number of samples"
    );
}

#[test]
fn requires_a_reference_for_times_only() {
    let runs = nights(40);
    let mut alone = night(40, 1.2);
    alone.reference = None;
    alone.cells.truncate(1);
    alone
        .points
        .retain(|point| point.series.place.kernel == "mine" && point.series.reference.is_none());
    let why = reason(verdict(&runs, &alone, elapsed()));
    insta::assert_snapshot!(
        why,
        @"times drift with the machine: name a reference kernel with --reference"
    );
    let psi = || case("{metric: psi-per-unmap, percent: 5}");
    assert_eq!(judgement(&verdict(&runs, &alone, psi())), Judgement::Fail);
    let unrelated = RunEntry { reference: Some("x".into()), ..alone };
    let why = reason(verdict(&runs, &unrelated, elapsed()));
    insta::assert_snapshot!(why, @"the reference x has no such number in this run");
}

#[test]
fn explains_why_a_metric_is_not_compared() {
    let runs = nights(40);
    let missing = case("{metric: score, percent: 5}");
    let why = reason(verdict(&runs, &night(40, 1.0), missing.clone()));
    insta::assert_snapshot!(why, @"it was not measured in this run");
    let mut scored = night(40, 1.0);
    let score = |reference: Option<&str>| SeriesKey {
        reference: reference.map(str::to_owned),
        ..key("score", "points", "mine")
    };
    scored.points.push(point(score(None), 0, &[3.0]));
    scored.points.push(point(score(Some("debian-6.1@a")), 0, &[3.0]));
    let why = reason(verdict(&runs, &scored, missing));
    insta::assert_snapshot!(
        why,
        @"the better direction is unknown: write `better: lower` or `better: higher` in the case"
    );
    let higher = case("{metric: score, better: higher, percent: 5}");
    assert_eq!(verdict(&runs, &scored, higher), NONE);
    let zero = |run: &mut RunEntry| run.points[3] = point(run.points[3].series.clone(), 0, &[0.0]);
    let mut zeros = nights(40);
    zeros.iter_mut().for_each(zero);
    let psi = case("{metric: psi-per-unmap, percent: 5}");
    let why = reason(verdict(&zeros, &night(40, 1.0), psi));
    insta::assert_snapshot!(why, @"0 has no percentages: bound the metric by a rule of `expect`");
}

#[test]
fn leaves_paired_metrics_to_the_comparison() {
    let place = tempfile::tempdir().unwrap();
    let history = history(place.path(), &nights(40));
    let beside = |place: &CellKey, metric: &str| {
        (place.kernel == "mine" && metric == "elapsed").then(|| "old".to_owned())
    };
    let both = case("{metric: elapsed, percent: 5}, {metric: psi-per-unmap, percent: 5}");
    let run = night(40, 1.2);
    let history = Some(&history);
    let input =
        HistoryCheckInput { run: &run, cases: &[both], history, file: "h", beside: &beside };
    let found = HistoryJudgement::new(&input).unwrap();
    let why = reason(found.metrics[0].result.clone());
    insta::assert_snapshot!(why, @"judged in pairs with old instead");
    assert_eq!(judgement(&found.metrics[1].result), Judgement::Fail);
}

#[test]
fn judges_completed_cells_by_environment() {
    let mut broken = night(40, 1.0);
    broken.cells[0].outcome = Outcome::TimedOut;
    assert_eq!(judge(&broken, elapsed(), None).metrics, []);
    // The same cell in another environment is judged separately.
    let mut two = night(40, 1.0);
    let other = CellEntry {
        environment: environment("Xeon"),
        build: Build::default(),
        ..two.cells[0].clone()
    };
    two.cells.push(other);
    let found = judge(&two, elapsed(), None);
    let results: Vec<bool> = found.metrics.iter().map(|metric| metric.result == NONE).collect();
    assert_eq!(results.iter().filter(|none| **none).count(), 1, "{found:?}");
    assert_eq!(results.len(), 2);
}

#[test]
fn writes_the_judgement_once() {
    let place = tempfile::tempdir().unwrap();
    let first = judge(&night(0, 1.0), elapsed(), None);
    first.write(place.path()).unwrap();
    let second = HistoryJudgement { run: "other".into(), ..first.clone() };
    let error = second.write(place.path()).unwrap_err();
    assert!(matches!(error, RecordError::Write { .. }), "{error}");
    let text = std::fs::read_to_string(place.path().join("history.json")).unwrap();
    assert_eq!(serde_json::from_str::<HistoryJudgement>(&text).unwrap(), first);
}
