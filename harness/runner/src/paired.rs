//! Comparisons: the two sides run in pairs, in random order, until each limit is decided.

mod pair_loop;
mod series;
mod subject;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use dmarig_images::Cache;
use dmarig_model::{
    axes::Axis,
    case::{Case, Workload},
    limit::Limit,
    matrix::Cell,
    measure::{Measured, times},
    observation::{End, Observation, Outcome, PlannedWindow, WindowKind},
    windows::{Side, Windows, on_sides},
};
use dmarig_records::{
    BadBoot, Boots, COMPARISON_SCHEMA, CellComparison, CellEnd, CellRecord, Comparison,
    CountDifference, PairedBoot, Pairing, RECORD_SCHEMA, RecordError, RecordFile, Recorder,
    differing_counts, judge_boot, label,
};
use dmarig_rig::guest;
use dmarig_stats::{
    RULE_VERSION,
    paired::{Arm, Better},
    sequence::{Metric, Plan, Rule, Sequence},
};
use tokio::sync::watch;

use self::pair_loop::{INTERRUPTED, PairSource, Step};
pub use self::subject::{StoredPart, Subject, SubjectError};
pub(crate) use self::{
    pair_loop::{BootArm, LoopEnd, PairError, Purpose, SeparateBoots, run_pairs},
    series::{EXACT_AFTER, MetricSeries, better},
};
use crate::{
    error::{Error, RequestError},
    event::{Event, Reporter},
    meta::run_meta,
    prepare::{NotLaunched, Prepared, Preparer},
    request::Selection,
    select::{Selected, check_kernels, check_limits, check_qemus, select},
};

/// What to compare.
pub struct CompareRequest<'a> {
    /// As the user named them: the candidate, the baseline.
    pub names: [String; 2],
    /// The cells of both.
    pub selections: [Selection; 2],
    /// The kernel as it is, or made to batch.
    pub sides: [Side; 2],
    /// Limits instead of the cases' own.
    pub limits: &'a [Limit],
    /// Metrics to compare in addition to those with a limit; without any, all that are independent.
    pub metrics: &'a [String],
    /// Seed of the order of pairs.
    pub seed: u64,
}

/// A comparison that ended.
#[derive(Debug)]
pub struct CompareOutcome {
    /// The comparison.
    pub comparison: Comparison,
    /// Whether the user stopped it.
    pub interrupted: bool,
    /// The directory of its record.
    pub directory: PathBuf,
}

/// A random seed, short enough to be typed again.
#[must_use]
pub fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) ^ (now.as_secs() & 0xffff_ffff)
}

/// Two cells that are compared.
struct CellPair {
    /// Position of their case.
    case: usize,
    candidate: Cell,
    baseline: Cell,
    label: String,
}

/// Two prepared cells, and the reason if they cannot be compared.
struct PreparedPair {
    cells: CellPair,
    prepared: [Prepared; 2],
    skipped: Option<String>,
}

/// Runs a comparison. Each boot is recorded as it ends, and the comparison in the same record.
///
/// # Errors
/// [`Error`]; what goes wrong with one pair of cells is recorded as its end instead.
pub async fn compare(
    request: &CompareRequest<'_>,
    cache: &Cache,
    command: Vec<String>,
    runs: &Path,
    interrupted: watch::Receiver<bool>,
    reporter: &dyn Reporter,
) -> Result<CompareOutcome, Error> {
    let [candidate, baseline] = &request.selections;
    let selected = [select(candidate, cache)?, select(baseline, cache)?];
    for side in &selected {
        check_kernels(side, cache)?;
        check_qemus(side, cache)?;
    }
    check_limits(&selected[0].cases, request.limits, request.metrics)?;
    let one_boot = one_boot(request)?;
    let cases = timed(&selected[0].cases, one_boot)?;
    let cell_pairs = cell_pairs(&selected)?;
    let mut meta = run_meta(&selected[0], command);
    meta.reference = reference(&cell_pairs);
    // The number of boots is not known before.
    meta.planned = None;
    let mut recorder = Recorder::create(runs, &mut meta)?;
    let mut preparer = Preparer::new(cache, candidate, None, interrupted.clone(), reporter);
    // All of them first: the more cells are judged, the less each of them may err.
    let mut prepared_pairs = Vec::new();
    for cells in cell_pairs {
        let case = &cases[cells.case];
        let prepared = [
            preparer.prepare(case, &cells.candidate).await,
            preparer.prepare(case, &cells.baseline).await,
        ];
        let skipped = skip_reason(&prepared, one_boot);
        prepared_pairs.push(PreparedPair { cells, prepared, skipped });
    }
    let judged = prepared_pairs.iter().filter(|pair| {
        let limits = &cases[pair.cells.case].limits;
        let limited = !request.limits.is_empty() || !limits.is_empty();
        pair.skipped.is_none() && limited
    });
    let parts = judged.count().max(1);
    let rule = Rule::default().shared(parts);
    let mut cells = Vec::new();
    for pair in &prepared_pairs {
        let label = pair.cells.label.clone();
        if let Some(why) = &pair.skipped {
            cells.push(empty_cell(label, CellEnd::Skipped { why: why.clone() }));
            continue;
        }
        if *interrupted.borrow() {
            cells.push(empty_cell(label, CellEnd::Stopped { why: INTERRUPTED.to_owned() }));
            continue;
        }
        reporter.report(&Event::ComparisonStarted { label: &label });
        let runner = PairRunner {
            request,
            rule: &rule,
            case: &cases[pair.cells.case],
            prepared: &pair.prepared,
            recorder: &mut recorder,
            interrupted: &interrupted,
            boots: Default::default(),
            first: [None, None],
            counts: Vec::new(),
        };
        cells.push(runner.compare(label, one_boot, reporter).await);
    }
    let comparison = Comparison {
        schema: COMPARISON_SCHEMA,
        candidate: request.names[0].clone(),
        baseline: request.names[1].clone(),
        pairing: Some(Pairing {
            seed: request.seed,
            error: rule.error() * parts as f64,
            level: Some(rule.level()),
            looks: rule.looks().to_vec(),
            rule: RULE_VERSION,
            one_boot,
        }),
        cells,
        notes: Vec::new(),
    };
    let directory = recorder.directory().to_owned();
    comparison.write(&directory)?;
    let interrupted = *interrupted.borrow();
    Ok(CompareOutcome { comparison, interrupted, directory })
}

/// A cell that measured nothing.
fn empty_cell(label: String, ended: CellEnd) -> CellComparison {
    CellComparison { label, metrics: Vec::new(), counts: Vec::new(), boots: None, ended }
}

/// Why two cells cannot be compared at all. What is wrong with the host or the rig is reported when it
/// is their turn.
fn skip_reason(prepared: &[Prepared; 2], one_boot: bool) -> Option<String> {
    for side in prepared {
        if let Err(NotLaunched::Skipped(why)) = &side.launch {
            return Some(why.clone());
        }
    }
    let can_batch = |side: &Prepared| match &side.launch {
        Ok(ready) => ready.windows.iter().any(|window| window.group_type.is_some()),
        Err(_) => true,
    };
    if one_boot && !prepared.iter().all(can_batch) {
        return Some(
            "it can't be made to batch: that takes caching-mode=on, policy=lazy and a kernel from 6.1 on"
                .to_owned(),
        );
    }
    None
}

/// Whether both sides are the same cells, one of which is made to batch.
fn one_boot(request: &CompareRequest<'_>) -> Result<bool, RequestError> {
    match request.sides {
        [Side::Own, Side::Own] => Ok(false),
        [Side::Control, Side::Control] => Err(RequestError::ControlOnBothSides),
        _ if request.selections[0].sets == request.selections[1].sets => Ok(true),
        _ => Err(RequestError::ControlWithOtherValues),
    }
}

/// The cases with windows that are timed, and that count only if they say so.
fn timed(cases: &[Case], one_boot: bool) -> Result<Vec<Case>, RequestError> {
    if let Some(case) = cases.iter().find(|case| case.workload == Workload::Idle) {
        return Err(RequestError::IdleCase { case: case.name.clone() });
    }
    let timed = |case: &Case| {
        let Windows { time, warm_up, .. } = case.windows;
        let (time, warm_up) = (time.max(1), warm_up.max(1));
        let windows = Windows { time, warm_up, control: one_boot, ..case.windows };
        Case { windows, ..case.clone() }
    };
    Ok(cases.iter().map(timed).collect())
}

/// Cells that differ only in the axes that are compared.
fn cell_pairs(selected: &[Selected; 2]) -> Result<Vec<CellPair>, RequestError> {
    let [ours, theirs] = selected;
    let values = |selected: &Selected, axis: Axis| -> BTreeSet<String> {
        selected.cells.iter().map(|cell| axis.value(&cell.axes)).collect()
    };
    let compared: Vec<Axis> =
        Axis::ALL.into_iter().filter(|axis| values(ours, *axis) != values(theirs, *axis)).collect();
    let mut pairs = Vec::new();
    for candidate in &ours.cells {
        let matches = |baseline: &&Cell| {
            let same = |axis: &Axis| axis.value(&candidate.axes) == axis.value(&baseline.axes);
            baseline.case == candidate.case
                && Axis::ALL.iter().all(|axis| compared.contains(axis) || same(axis))
        };
        let baseline = theirs.cells.iter().find(matches);
        let case = ours.cases.iter().position(|case| case.name == candidate.case);
        if let (Some(baseline), Some(case)) = (baseline, case) {
            let label = label(&candidate.case, &candidate.axes, &candidate.varied, &compared);
            let (candidate, baseline) = (candidate.clone(), baseline.clone());
            pairs.push(CellPair { case, candidate, baseline, label });
        }
    }
    if pairs.is_empty() { Err(RequestError::NothingInCommon) } else { Ok(pairs) }
}

/// The kernel that the history relates the candidate's numbers to, pair by pair: the baseline's, where
/// it is another one.
fn reference(pairs: &[CellPair]) -> Option<String> {
    let baseline = &pairs.first()?.baseline.axes.kernel;
    let differs = |pair: &CellPair| {
        pair.baseline.axes.kernel == *baseline && pair.candidate.axes.kernel != *baseline
    };
    pairs.iter().all(differs).then(|| baseline.clone())
}

/// Boots two cells for one comparison.
struct PairRunner<'a> {
    request: &'a CompareRequest<'a>,
    rule: &'a Rule,
    case: &'a Case,
    prepared: &'a [Prepared; 2],
    recorder: &'a mut Recorder,
    interrupted: &'a watch::Receiver<bool>,
    /// How the boots of the candidate and of the baseline went.
    boots: [Boots; 2],
    /// What the first boot of each side observed, until the counts of both were compared.
    first: [Option<Observation>; 2],
    counts: Vec<CountDifference>,
}

impl PairRunner<'_> {
    /// Runs pairs until all limits are decided.
    async fn compare(
        self,
        label: String,
        one_boot: bool,
        reporter: &dyn Reporter,
    ) -> CellComparison {
        let interrupted = self.interrupted.clone();
        let mut series = None;
        let (end, runner) = if one_boot {
            let mut source = SharedBoots { runner: self };
            let end = run_pairs(&mut source, &mut series, &interrupted, reporter).await;
            (end, source.runner)
        } else {
            let mut source = SeparateBoots::new(self, true);
            let end = run_pairs(&mut source, &mut series, &interrupted, reporter).await;
            (end, source.into_inner())
        };
        let ended = match end {
            LoopEnd::Decided | LoopEnd::Exact => CellEnd::Done,
            LoopEnd::Stopped(why) => CellEnd::Stopped { why },
        };
        let metrics = series.map_or_else(Vec::new, MetricSeries::compared);
        let counts = if metrics.is_empty() { Vec::new() } else { runner.counts };
        CellComparison { label, metrics, counts, boots: Some(runner.boots), ended }
    }

    /// How much worse each metric may be.
    fn limits(&self) -> &[Limit] {
        if self.request.limits.is_empty() { &self.case.limits } else { self.request.limits }
    }

    fn new_series(&self, both: &[Vec<Measured>; 2]) -> Result<MetricSeries, PairError> {
        MetricSeries::of_first_boots(
            self.request.seed,
            self.rule,
            self.limits(),
            self.request.metrics,
            both,
        )
    }

    /// Boots a side and records what was observed. `windows` replace those of the case, of which the
    /// counting ones run only if `counts` says so. `name` is a part of the cell's id.
    async fn boot_side(
        &mut self,
        name: &str,
        boot: PairedBoot,
        counts: bool,
        windows: Option<Vec<PlannedWindow>>,
    ) -> Result<Observation, PairError> {
        let side = boot.arm as usize;
        let prepared = &self.prepared[side];
        let ready = match &prepared.launch {
            Ok(ready) => ready,
            Err(error) => return Err(PairError::Final(error.to_string())),
        };
        let number = self.boots.iter().map(|boots| boots.all).sum::<u32>() + 1;
        self.boots[side].all += 1;
        let arm = boot.arm.name();
        let id = format!("{}.{number:03}-{name}-{arm}", prepared.cell.id);
        let cell = Cell { id, ..prepared.cell.clone() };
        let not_recorded = |error: RecordError| PairError::Final(error.to_string());
        let artifacts = self.recorder.artifacts(&cell.id).map_err(not_recorded)?;
        let mut launch = ready.launch(&cell, Some(artifacts), prepared.planned_in);
        match windows {
            Some(windows) => launch.windows = windows,
            None => launch.windows.retain(|window| counts || window.kind != WindowKind::Counting),
        }
        let planned_windows = Some(launch.windows.clone());
        let observation = guest::run(&launch, self.interrupted.clone(), &|_| ()).await;
        let verdict = judge_boot(self.case, planned_windows.as_deref(), &observation);
        let record = CellRecord {
            schema: RECORD_SCHEMA,
            boot: Some(boot),
            planned_windows,
            observation,
            verdict,
        };
        self.recorder.add(&record).map_err(not_recorded)?;
        let CellRecord { observation, verdict, .. } = record;
        let reason = verdict.reasons.into_iter().next().unwrap_or_default();
        let outcome = verdict.outcome;
        let sentence = format!("the {arm} {}: {reason}", outcome.name());
        if outcome != Outcome::Passed && !*self.interrupted.borrow() {
            let cell = observation.cell.clone();
            self.boots[side].bad.push(BadBoot { cell, outcome, reason });
        }
        match observation.end {
            End::Completed => Ok(observation),
            _ => Err(PairError::Discarded(sentence)),
        }
    }
}

impl BootArm for PairRunner<'_> {
    async fn boot(&mut self, arm: Arm, purpose: Purpose) -> Result<Vec<Measured>, PairError> {
        let (name, pair) = match purpose {
            Purpose::WarmUp => ("warm-up".to_owned(), None),
            Purpose::Pair(number) => (format!("pair{number}"), u32::try_from(number).ok()),
        };
        let warm_up = purpose == Purpose::WarmUp;
        let boot = PairedBoot { arm, pair, warm_up };
        // Only the first boot of a side counts.
        let observation = self.boot_side(&name, boot, warm_up, None).await?;
        let measured = times(&observation, Side::Own);
        if warm_up {
            self.first[arm as usize] = Some(observation);
        }
        Ok(measured)
    }

    fn first_series(&mut self, warm_ups: &[Vec<Measured>; 2]) -> Result<MetricSeries, PairError> {
        if let [Some(candidate), Some(baseline)] = &self.first {
            self.counts = differing_counts([candidate, baseline], [Side::Own; 2]);
        }
        self.first = [None, None];
        self.new_series(warm_ups)
    }
}

/// Pairs whose sides share boots: the kernel as it is, and made to batch, in alternating windows.
struct SharedBoots<'a> {
    runner: PairRunner<'a>,
}

impl PairSource for SharedBoots<'_> {
    /// Boots once, with a window on either side for each pair up to the next look.
    async fn step(&mut self, series: &mut Option<MetricSeries>) -> Result<Step, PairError> {
        let runner = &mut self.runner;
        // The order of pairs is the seed's alone, so it is known before the metrics are.
        let turns = match series {
            None => any_sequence(runner.request.seed, runner.rule).batch(),
            Some(series) => series.batch(),
        };
        let (Some(first), Some(last)) = (turns.first(), turns.last()) else {
            return Ok(Step::NothingDue);
        };
        let sides = runner.request.sides;
        let counts = series.is_none() && runner.case.windows.count;
        // What the driver sets up when it is first used would be counted in the first window.
        let counted: &[WindowKind] =
            if counts { &[WindowKind::WarmUp, WindowKind::Counting] } else { &[] };
        let mut windows: Vec<(WindowKind, Side)> = Vec::new();
        for kind in counted.iter().chain(&[WindowKind::WarmUp]) {
            windows.extend(sides.map(|side| (*kind, side)));
        }
        for turn in &turns {
            windows.extend(turn.order.map(|arm| (WindowKind::Timing, sides[arm as usize])));
        }
        let name = format!("pairs{}-{}", first.number, last.number);
        let pair = u32::try_from(first.number).ok();
        let boot = PairedBoot { arm: Arm::Candidate, pair, warm_up: false };
        let observation = runner.boot_side(&name, boot, counts, Some(on_sides(windows))).await?;
        let both = [times(&observation, sides[0]), times(&observation, sides[1])];
        if series.is_none() {
            runner.counts = differing_counts([&observation; 2], sides);
            *series = Some(runner.new_series(&both)?);
        }
        if let Some(series) = series {
            for position in 0..turns.len() {
                series.add(&both, Some(position))?;
            }
        }
        Ok(Step::Measured)
    }
}

/// A sequence of some metric, for the order of its pairs.
fn any_sequence(seed: u64, rule: &Rule) -> Sequence {
    let metric = Metric { name: String::new(), better: Better::Lower, limit: None };
    let plan = Plan { seed, rule: rule.clone(), metrics: vec![metric] };
    Sequence::new(plan).expect("a metric without a limit makes a valid plan")
}
