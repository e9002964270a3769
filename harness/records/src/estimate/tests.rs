use dmarig_model::{
    axes::{Axes, Policy},
    matrix::parse_override,
    observation::{End, Outcome, Setup, TraceCounts, Verdict, Window, WindowKind},
};
use dmarig_wire::{Interface, Report};

use super::*;
use crate::{CellRecord, RECORD_SCHEMA, RunMeta};

fn window(kind: WindowKind, elapsed_ms: u64) -> Window {
    let report = Report {
        interface: Interface::IoUring,
        ops: 100,
        reads: 100,
        writes: 0,
        bytes: 409_600,
        errors: 0,
        lost: 0,
        elapsed_ns: elapsed_ms * 1_000_000,
        latency: None,
        problems: Vec::new(),
        corrupt: 0,
        metrics: Vec::new(),
        exit: None,
        output: None,
    };
    let trace = (kind == WindowKind::Counting).then(|| TraceCounts {
        psi: 10 * elapsed_ms,
        dsi: 3,
        ..TraceCounts::default()
    });
    Window { trace, ..Window::new(kind, None, report) }
}

/// A cell with these times, and ten invalidations per millisecond of the first.
fn cell(kernel: &str, policy: Policy, elapsed_ms: &[u64]) -> CellRecord {
    let axes = Axes { kernel: kernel.into(), policy, ..Axes::default() };
    let setup = Setup::unplanned(&axes);
    let mut observation = Observation::unseen("t/a", "t", &axes, setup, End::Completed);
    let timing = elapsed_ms.iter().map(|ms| window(WindowKind::Timing, *ms));
    observation.windows =
        [window(WindowKind::Counting, elapsed_ms[0])].into_iter().chain(timing).collect();
    let verdict = Verdict { outcome: Outcome::Passed, reasons: Vec::new(), checks: Vec::new() };
    CellRecord::new(observation, verdict)
}

fn run(cells: Vec<CellRecord>) -> StoredRun {
    let meta = RunMeta {
        schema: RECORD_SCHEMA,
        id: "r".into(),
        host: HostFacts { cpus: 2, ..HostFacts::default() },
        ..RunMeta::default()
    };
    StoredRun { meta, cells, bytes: 0, truncated: false, running: false }
}

fn only(words: &[&str]) -> AxisSets {
    let mut sets = AxisSets::default();
    words.iter().for_each(|word| parse_override(word, &mut sets).unwrap());
    sets
}

fn compare(
    candidate: (&StoredRun, &[&str]),
    baseline: (&StoredRun, &[&str]),
    wanted: &[&str],
) -> Result<Comparison, RecordError> {
    let (ours, theirs) = (only(candidate.1), only(baseline.1));
    let part = |run, only| RunPart { run, only, side: Side::Own };
    let parts = [part(candidate.0, &ours), part(baseline.0, &theirs)];
    let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    compare_runs(["new", "old"], parts, &wanted)
}

const SLOW: [u64; 6] = [121, 125, 119, 122, 120, 124];
const FAST: [u64; 6] = [101, 103, 99, 100, 102, 98];

#[test]
fn compares_cells_across_kernels() {
    let new = run(vec![cell("b", Policy::Strict, &SLOW), cell("b", Policy::Lazy, &FAST)]);
    let old = run(vec![cell("a", Policy::Lazy, &FAST), cell("a", Policy::Strict, &FAST)]);
    let found = compare((&new, &[]), (&old, &[]), &[]).unwrap();
    let labels: Vec<&str> = found.cells.iter().map(|cell| cell.label.as_str()).collect();
    assert_eq!(labels, ["t/policy=strict", "t/policy=lazy"]);
    let ratio = |at: usize| {
        let metric = &found.cells[at].metrics[0];
        assert_eq!((metric.name.as_str(), metric.unit.as_str()), ("elapsed", "ns"));
        assert_eq!((metric.candidate.len(), metric.baseline.len()), (6, 6));
        let MetricResult::Unpaired { estimate: Some(estimate) } = metric.result else {
            panic!("{metric:?}");
        };
        estimate
    };
    assert!((ratio(0).ratio - 1.21).abs() < 0.02 && ratio(0).differs(), "{:?}", ratio(0));
    assert!((ratio(1).ratio - 1.0).abs() < 1e-9 && !ratio(1).differs(), "{:?}", ratio(1));
    // Only counts that differ are listed.
    let counts = &found.cells[0].counts;
    assert_eq!(
        (counts[0].name.as_str(), counts[0].candidate, counts[0].baseline),
        ("psi", 1210.0, 1010.0)
    );
    assert!(counts.iter().all(|count| count.name != "dsi"), "{counts:?}");
    assert_eq!(found.cells[1].counts, []);
    // Without pairs nothing is judged.
    assert_eq!((found.judgement(), &found.pairing), (None, &None));
    insta::assert_snapshot!(found.notes.join("\n"));
}

#[test]
fn compares_two_parts_of_one_run() {
    let run = run(vec![cell("a", Policy::Strict, &SLOW), cell("a", Policy::Lazy, &FAST)]);
    let found = compare((&run, &["policy=strict"]), (&run, &["policy=lazy"]), &["iops"]).unwrap();
    assert_eq!(found.cells.len(), 1);
    let metric = &found.cells[0].metrics[0];
    assert_eq!((metric.name.as_str(), found.cells[0].metrics.len()), ("iops", 1));
    assert!(metric.candidate.iter().all(|iops| *iops < 900.0), "{metric:?}");
}

#[test]
fn rejects_cells_with_no_or_several_counterparts() {
    let new = run(vec![cell("c", Policy::Strict, &SLOW)]);
    let old = run(vec![cell("a", Policy::Strict, &FAST), cell("b", Policy::Strict, &FAST)]);
    let several = compare((&new, &[]), (&old, &[]), &[]).unwrap_err();
    assert!(matches!(several, RecordError::AmbiguousCell { count: 2, .. }), "{several}");
    assert!(compare((&new, &[]), (&old, &["kernel=b"]), &[]).is_ok());
    assert!(compare((&old, &["kernel=a"]), (&old, &["kernel=b"]), &[]).is_ok());
    let none = compare((&new, &["policy=lazy"]), (&old, &[]), &[]).unwrap_err();
    assert!(matches!(none, RecordError::NoCommonCells { .. }), "{none}");
}

#[test]
fn notes_differences_of_hosts() {
    let new = run(vec![cell("a", Policy::Strict, &SLOW)]);
    let mut old = new.clone();
    old.meta.host.cpus = 64;
    let found = compare((&new, &[]), (&old, &[]), &[]).unwrap();
    assert_eq!(found.notes.last().unwrap(), "the hosts differ: CPUs 2, not 64");
    old.meta.host.machine = "left".into();
    let found = compare((&new, &[]), (&old, &[]), &[]).unwrap();
    assert_eq!(
        found.notes.last().unwrap(),
        "the hosts differ: machine unnamed, not left; CPUs 2, not 64"
    );
    let same = compare((&new, &[]), (&new, &[]), &[]).unwrap();
    assert!(!same.notes.iter().any(|note| note.contains("hosts differ")), "{:?}", same.notes);
}

#[test]
fn reads_a_comparison_back() {
    let run = run(vec![cell("a", Policy::Strict, &SLOW)]);
    let found = compare((&run, &[]), (&run, &[]), &[]).unwrap();
    let text = serde_json::to_string(&found).unwrap();
    let read: Comparison = serde_json::from_str(&text).unwrap();
    let metric = |comparison: &Comparison| {
        let metric = &comparison.cells[0].metrics[0];
        // JSON may change the last digit of a fraction.
        let MetricResult::Unpaired { estimate: Some(estimate) } = metric.result else { panic!() };
        ((estimate.low.unwrap() * 1e12).round(), metric.candidate.clone(), metric.unit.clone())
    };
    assert_eq!(metric(&read), metric(&found));
    assert_eq!((read.notes, read.pairing), (found.notes, found.pairing));
}
