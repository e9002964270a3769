//! Runs two sides of a comparison turn and turn about, until it can be told which is worse.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use dmarig_history::{
    BadBoot, Boots, COMPARISON_SCHEMA, CellEnded, CellRecord, Compared, ComparedCell,
    ComparedCount, ComparedMetric, Comparison, Pairing, RECORD_SCHEMA, Recorder, differing_counts,
    is_wanted, label,
};
use dmarig_images::Cache;
use dmarig_model::{
    axes::Axis,
    case::{Case, Workload},
    judge::judge,
    limit::Limit,
    matrix::Cell,
    measure::{Measured, times},
    metrics,
    observation::{End, Observation, Outcome, PlannedWindow, Verdict, WindowKind},
    text::shown,
    windows::{Side, Windows, on_sides},
};
use dmarig_rig::guest;
use dmarig_stats::{
    RULE_VERSION,
    paired::{Arm, Better},
    sequence::{Metric, Pair, Plan, Rule, Sequence},
};
use tokio::sync::watch;

use crate::{
    cases::{Selected, check_kernels, check_limits, select},
    commands::run_meta,
    exit::Failure,
    options::Selection,
    prepare::{Obstacle, Prepared, Preparer},
    report::quantity,
};

/// Boots of one cell that may come to nothing in a row.
const FRUITLESS: usize = 2;

/// Why a cell is left when the user says so.
const INTERRUPTED: &str = "interrupted";

/// What is to be compared.
pub(crate) struct Asked<'a> {
    /// As the user named them: the candidate, the baseline.
    pub(crate) names: [String; 2],
    pub(crate) selections: [Selection; 2],
    pub(crate) sides: [Side; 2],
    /// Instead of the cases' own.
    pub(crate) limits: &'a [Limit],
    pub(crate) metrics: &'a [String],
    pub(crate) seed: u64,
}

/// What came of it.
pub(crate) struct Ended {
    pub(crate) comparison: Comparison,
    pub(crate) interrupted: bool,
    /// The record's.
    pub(crate) directory: PathBuf,
}

/// Two cells that are compared.
struct Couple {
    case: usize,
    candidate: Cell,
    baseline: Cell,
    label: String,
}

/// Runs it all; what was seen of each boot is recorded as it ends, and the comparison beside it.
pub(crate) async fn run(
    asked: &Asked<'_>,
    cache: &Cache,
    command: Vec<String>,
    runs: &Path,
    interrupted: watch::Receiver<bool>,
) -> Result<Ended, Failure> {
    let [candidate, baseline] = &asked.selections;
    let selected = [select(candidate, cache)?, select(baseline, cache)?];
    for side in &selected {
        check_kernels(side, cache)?;
    }
    check_limits(&selected[0].cases, asked.limits, asked.metrics)?;
    let one_boot = one_boot(asked)?;
    let cases = timed(&selected[0].cases, one_boot)?;
    let couples = couples(&selected)?;
    let mut meta = run_meta(&selected[0], command);
    meta.reference = reference(&couples);
    // Pairs are run until it can be told.
    meta.planned = None;
    let mut recorder = Recorder::create(runs, &mut meta)?;
    let say = |text: &str| errln!("{text}");
    let mut preparer = Preparer::new(cache, candidate, None, interrupted.clone(), &say);
    // All of them at first: the more cells are judged, the less may each err.
    let mut ready = Vec::new();
    for couple in couples {
        let prepared = [
            preparer.prepare(&cases[couple.case], &couple.candidate).await,
            preparer.prepare(&cases[couple.case], &couple.baseline).await,
        ];
        let skipped = obstacle(&prepared, one_boot);
        ready.push((couple, prepared, skipped));
    }
    let limits = |case: &Case| if asked.limits.is_empty() { case.limits.len() } else { 1 };
    let judged = ready
        .iter()
        .filter(|(couple, _, skipped)| skipped.is_none() && limits(&cases[couple.case]) > 0);
    let parts = judged.count().max(1);
    let rule = Rule::default().shared(parts);
    let mut cells = Vec::new();
    for (couple, prepared, skipped) in ready {
        let label = couple.label;
        if let Some(why) = skipped {
            cells.push(empty(label, CellEnded::Skipped { why }));
            continue;
        }
        if *interrupted.borrow() {
            cells.push(empty(label, CellEnded::Stopped { why: INTERRUPTED.to_owned() }));
            continue;
        }
        say(&format!("comparing {}", shown(&label)));
        let mut bench = Bench {
            asked,
            rule: &rule,
            case: &cases[couple.case],
            prepared: &prepared,
            recorder: &mut recorder,
            interrupted: &interrupted,
            boots: Default::default(),
        };
        let (tracks, ended) = bench.compare(one_boot).await;
        let boots = Some(bench.boots);
        let (metrics, counts) = tracks.map_or_else(Default::default, Tracks::told);
        cells.push(ComparedCell { label, metrics, counts, boots, ended });
    }
    let comparison = Comparison {
        schema: COMPARISON_SCHEMA,
        candidate: asked.names[0].clone(),
        baseline: asked.names[1].clone(),
        pairing: Some(Pairing {
            seed: asked.seed,
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
    Ok(Ended { comparison, interrupted, directory })
}

/// A cell of which nothing was measured.
fn empty(label: String, ended: CellEnded) -> ComparedCell {
    ComparedCell { label, metrics: Vec::new(), counts: Vec::new(), boots: None, ended }
}

/// Why a cell can't be run at all; what is a fault of the host or the rig is told when it is its turn.
fn obstacle(prepared: &[Prepared; 2], one_boot: bool) -> Option<String> {
    let skipped = prepared.iter().find_map(|side| match &side.launch {
        Err(Obstacle::Skip(why)) => Some(why.clone()),
        _ => None,
    });
    let batches = |side: &Prepared| match &side.launch {
        Ok(ready) => ready.windows.iter().any(|window| window.group_type.is_some()),
        Err(_) => true,
    };
    let can_batch = !one_boot || prepared.iter().all(batches);
    skipped.or_else(|| {
        (!can_batch).then(|| {
            "it can't be made to batch: that takes caching-mode=on, policy=lazy and a kernel from 6.1 on"
                .to_owned()
        })
    })
}

/// Whether both are the same cells, of which one is made to batch.
fn one_boot(asked: &Asked<'_>) -> Result<bool, Failure> {
    let same = asked.selections[0].sets == asked.selections[1].sets;
    match asked.sides {
        [Side::Own, Side::Own] => Ok(false),
        [Side::Control, Side::Control] => Err(Failure::usage(anyhow!(
            "control=on stands on both sides: a kernel that is made to batch is compared with itself as it is"
        ))),
        _ if same => Ok(true),
        _ => Err(Failure::usage(anyhow!(
            "control=on compares a kernel with itself in one boot: give other values to both by --set"
        ))),
    }
}

/// The cases with windows that are timed, and counted only as they say.
fn timed(cases: &[Case], one_boot: bool) -> Result<Vec<Case>, Failure> {
    if let Some(case) = cases.iter().find(|case| case.workload == Workload::Idle) {
        let name = &case.name;
        return Err(Failure::usage(anyhow!("case {name} does nothing that could be timed")));
    }
    let timed = |case: &Case| {
        let Windows { time, warm_up, .. } = case.windows;
        let (time, warm_up) = (time.max(1), warm_up.max(1));
        let windows = Windows { time, warm_up, control: one_boot, ..case.windows };
        Case { windows, ..case.clone() }
    };
    Ok(cases.iter().map(timed).collect())
}

/// A case as a boot of a comparison runs it: only the first of each side counts, and is timed for nothing.
fn of_boot(case: &Case, counts: bool) -> Case {
    let windows = Windows { count: case.windows.count && counts, ..case.windows };
    Case { windows, ..case.clone() }
}

/// What is thought of a boot that a comparison has recorded.
pub(crate) fn judge_again(case: &Case, seen: &Observation) -> Verdict {
    // As it ran: what counted once, and what was timed, by what is there of it.
    let of = |kind| seen.windows.iter().filter(|window| window.kind == kind).count();
    let time = u32::try_from(of(WindowKind::Timing)).unwrap_or(u32::MAX);
    let windows = Windows { time: case.windows.time.min(time), ..case.windows };
    let case = of_boot(&Case { windows, ..case.clone() }, of(WindowKind::Counting) > 0);
    judge(&case, seen)
}

/// Cells that differ in nothing but the axes that are compared.
fn couples(selected: &[Selected; 2]) -> Result<Vec<Couple>, Failure> {
    let [ours, theirs] = selected;
    let differ = |axis: &Axis| {
        let values = |selected: &Selected| -> BTreeSet<String> {
            selected.cells.iter().map(|cell| axis.value(&cell.axes)).collect()
        };
        values(ours) != values(theirs)
    };
    let compared: Vec<Axis> = Axis::ALL.into_iter().filter(differ).collect();
    let couple = |candidate: &Cell| {
        let like = |baseline: &&Cell| {
            let same = |axis: &Axis| axis.value(&candidate.axes) == axis.value(&baseline.axes);
            baseline.case == candidate.case
                && Axis::ALL.iter().all(|axis| compared.contains(axis) || same(axis))
        };
        let baseline = theirs.cells.iter().find(like)?.clone();
        let label = label(&candidate.case, &candidate.axes, &candidate.varied, &compared);
        let case = ours.cases.iter().position(|case| case.name == candidate.case)?;
        Some(Couple { case, candidate: candidate.clone(), baseline, label })
    };
    let couples: Vec<Couple> = ours.cells.iter().filter_map(couple).collect();
    if couples.is_empty() {
        return Err(Failure::usage(anyhow!(
            "no cell of the candidate has its like among the baseline's: `dmarig cells` lists them"
        )));
    }
    Ok(couples)
}

/// The kernel that the history sets the candidate's numbers in relation to, pair by pair: that of the
/// baseline, where it is another one.
fn reference(couples: &[Couple]) -> Option<String> {
    let baseline = &couples.first()?.baseline.axes.kernel;
    let theirs = |couple: &Couple| {
        couple.baseline.axes.kernel == *baseline && couple.candidate.axes.kernel != *baseline
    };
    couples.iter().all(theirs).then(|| baseline.clone())
}

/// One couple being compared.
struct Bench<'a> {
    asked: &'a Asked<'a>,
    rule: &'a Rule,
    case: &'a Case,
    prepared: &'a [Prepared; 2],
    recorder: &'a mut Recorder,
    interrupted: &'a watch::Receiver<bool>,
    /// Of the candidate and of the baseline.
    boots: [Boots; 2],
}

impl<'a> Bench<'a> {
    /// How much worse each metric may be.
    fn limits(&self) -> &'a [Limit] {
        if self.asked.limits.is_empty() { &self.case.limits } else { self.asked.limits }
    }

    /// Goes on until it is decided; gives what there is, and how it ended.
    async fn compare(&mut self, one_boot: bool) -> (Option<Tracks>, CellEnded) {
        let mut tracks = None;
        let mut fruitless = 0;
        loop {
            if *self.interrupted.borrow() {
                return (tracks, CellEnded::Stopped { why: INTERRUPTED.to_owned() });
            }
            let before = tracks.as_ref().map_or(0, Tracks::pairs);
            let step = match one_boot {
                true => self.batch(&mut tracks).await,
                false => self.pair(&mut tracks).await,
            };
            match step {
                Ok(true) => fruitless = 0,
                Ok(false) => return (tracks, CellEnded::Done),
                Err(Stop::Now(why)) => return (tracks, CellEnded::Stopped { why }),
                Err(Stop::Fruitless(why)) => {
                    errln!("  came to nothing: {why}");
                    fruitless += 1;
                    if fruitless == FRUITLESS {
                        return (tracks, CellEnded::Stopped { why });
                    }
                }
            }
            if let Some(tracks) = &tracks {
                tracks.progress(before);
            }
        }
    }

    /// Boots both sides once: at first for nothing, and then as the pair that is due. False when none is.
    async fn pair(&mut self, tracks: &mut Option<Tracks>) -> Result<bool, Stop> {
        let due = match tracks {
            None => Some((None, [Arm::Baseline, Arm::Candidate])),
            Some(tracks) => tracks.sequence.due().map(|turn| (Some(turn.number), turn.order)),
        };
        let Some((number, order)) = due else { return Ok(false) };
        let mut seen = [None, None];
        for arm in order {
            let of = arm as usize;
            let name = match number {
                Some(number) => format!("pair{number}"),
                None => "warm-up".to_owned(),
            };
            seen[of] = Some(self.boot(of, &name, number.is_none(), None).await?);
        }
        let [Some(ours), Some(theirs)] = &seen else { return Ok(false) };
        let sides = [Side::Own; 2];
        match tracks {
            None => *tracks = Some(self.tracks([ours, theirs], sides)?),
            Some(tracks) => tracks.add(&measured([ours, theirs], sides), None)?,
        }
        Ok(true)
    }

    /// Boots once, with a window on either side for each pair up to the next look.
    async fn batch(&mut self, tracks: &mut Option<Tracks>) -> Result<bool, Stop> {
        // The order of pairs is the seed's alone, so it is known before the metrics are.
        let turns = match tracks {
            None => orders(self.asked.seed, self.rule).batch(),
            Some(tracks) => tracks.sequence.batch(),
        };
        if turns.is_empty() {
            return Ok(false);
        }
        let sides = self.asked.sides;
        let counts = tracks.is_none() && self.case.windows.count;
        let on_both = |kind| sides.map(|side| (kind, side));
        // What was never in use yet is set up in the first window, and would be counted.
        let counted = [WindowKind::WarmUp, WindowKind::Counting].into_iter().filter(|_| counts);
        let first = counted.chain([WindowKind::WarmUp]).flat_map(on_both);
        let timing = turns.iter().flat_map(|turn| turn.order);
        let timing = timing.map(|arm| (WindowKind::Timing, sides[arm as usize]));
        let windows = on_sides(first.chain(timing));
        let name = format!("pairs{}-{}", turns[0].number, turns[turns.len() - 1].number);
        let observation = self.boot(0, &name, counts, Some(windows)).await?;
        let both = [&observation; 2];
        if tracks.is_none() {
            *tracks = Some(self.tracks(both, sides)?);
        }
        if let Some(tracks) = tracks {
            let both = measured(both, sides);
            for at in 0..turns.len() {
                tracks.add(&both, Some(at))?;
            }
        }
        Ok(true)
    }

    /// What the first boot of each side gave.
    fn tracks(&self, seen: [&Observation; 2], sides: [Side; 2]) -> Result<Tracks, Stop> {
        let counts = differing_counts(seen, sides);
        Tracks::new(self.asked, self.rule, self.limits(), &measured(seen, sides), counts)
    }

    /// Boots the candidate (0) or the baseline (1), and records what was seen.
    async fn boot(
        &mut self,
        of: usize,
        name: &str,
        counts: bool,
        windows: Option<Vec<PlannedWindow>>,
    ) -> Result<Observation, Stop> {
        let prepared = &self.prepared[of];
        let ready = match &prepared.launch {
            Ok(ready) => ready,
            Err(Obstacle::Skip(why) | Obstacle::Fault(why)) => return Err(Stop::Now(why.clone())),
        };
        let number = self.boots.iter().map(|boots| boots.all).sum::<u32>() + 1;
        self.boots[of].all += 1;
        let arm = ["candidate", "baseline"][of];
        let id = format!("{}.{number:03}-{name}-{arm}", prepared.cell.id);
        let cell = Cell { id, ..prepared.cell.clone() };
        let fault = |error: std::io::Error| Stop::Now(error.to_string());
        let artifacts = self.recorder.artifacts(&cell.id).map_err(fault)?;
        let mut launch = ready.launch(&cell, Some(artifacts), prepared.planned_in);
        match windows {
            Some(windows) => launch.windows = windows,
            None => launch.windows.retain(|window| counts || window.kind != WindowKind::Counting),
        }
        let observation = guest::run(&launch, self.interrupted.clone(), &|_| ()).await;
        let verdict = judge(&of_boot(self.case, counts), &observation);
        let reason = verdict.reasons.first().cloned().unwrap_or_default();
        let outcome = verdict.outcome;
        let record = CellRecord { schema: RECORD_SCHEMA, observation, verdict };
        self.recorder.add(&record).map_err(fault)?;
        let said = format!("the {arm} {}: {reason}", outcome.name());
        if outcome != Outcome::Passed && !*self.interrupted.borrow() {
            let cell = record.observation.cell.clone();
            self.boots[of].bad.push(BadBoot { cell, outcome, reason });
        }
        match record.observation.end {
            End::Completed => Ok(record.observation),
            _ => Err(Stop::Fruitless(said)),
        }
    }
}

/// Why there is no pair.
enum Stop {
    /// Nor will there be.
    Now(String),
    /// There may be when it is tried again.
    Fruitless(String),
}

/// A direction as the tests know it; lower is better of what does not tell.
pub(crate) fn better(better: Option<metrics::Better>) -> Better {
    match better {
        Some(metrics::Better::Higher) => Better::Higher,
        Some(metrics::Better::Lower) | None => Better::Lower,
    }
}

/// What was timed on both sides.
fn measured(seen: [&Observation; 2], sides: [Side; 2]) -> [Vec<Measured>; 2] {
    [times(seen[0], sides[0]), times(seen[1], sides[1])]
}

/// The order of pairs, of nothing in particular.
fn orders(seed: u64, rule: &Rule) -> Sequence {
    let any = Metric { name: String::new(), better: Better::Lower, limit: None };
    let plan = Plan { seed, rule: rule.clone(), metrics: vec![any] };
    Sequence::new(plan).expect("a metric without a limit makes a sound plan")
}

/// What was measured so far.
struct Tracks {
    sequence: Sequence,
    /// Name and unit of each metric, and what both gave.
    metrics: Vec<(String, String, [Vec<f64>; 2])>,
    /// What differs of what the first boots counted.
    counts: Vec<ComparedCount>,
}

impl Tracks {
    /// For the metrics that both sides have.
    fn new(
        asked: &Asked<'_>,
        rule: &Rule,
        limits: &[Limit],
        both: &[Vec<Measured>; 2],
        counts: Vec<ComparedCount>,
    ) -> Result<Self, Stop> {
        let [ours, theirs] = both;
        let limit = |name: &str| limits.iter().find(|limit| limit.metric == name);
        let wanted: Vec<&Measured> = ours
            .iter()
            .filter(|metric| theirs.iter().any(|other| other.name == metric.name))
            .filter(|metric| {
                limit(&metric.name).is_some() || is_wanted(&metric.name, asked.metrics)
            })
            .collect();
        for name in limits.iter().map(|limit| &limit.metric).chain(asked.metrics) {
            if !wanted.iter().any(|metric| metric.name == *name) {
                let there: Vec<&str> = ours.iter().map(|metric| metric.name.as_str()).collect();
                let (name, there) = (shown(name), shown(&there.join(", ")));
                return Err(Stop::Now(format!("both have no metric `{name}`; there are {there}")));
            }
        }
        let metric = |measured: &&Measured| {
            let limit = limit(&measured.name);
            let known = limit.and_then(|limit| limit.better);
            let known = known.or_else(|| metrics::Better::of(&measured.name, &measured.unit));
            if let (Some(limit), None) = (limit, known) {
                let (name, percent) = (shown(&measured.name), limit.percent);
                return Err(Stop::Now(format!(
                    "which `{name}` is better? write --limit {name}:lower={percent} or {name}:higher={percent}"
                )));
            }
            let better = better(known);
            let limit = limit.map(|limit| limit.percent);
            Ok(Metric { name: measured.name.clone(), better, limit })
        };
        let metrics = wanted.iter().map(metric).collect::<Result<Vec<_>, _>>()?;
        let plan = Plan { seed: asked.seed, rule: rule.clone(), metrics };
        let sequence = Sequence::new(plan).map_err(|error| Stop::Now(error.to_string()))?;
        let empty = |measured: &&Measured| {
            (measured.name.clone(), measured.unit.clone(), [Vec::new(), Vec::new()])
        };
        Ok(Self { sequence, metrics: wanted.iter().map(empty).collect(), counts })
    }

    /// Takes a pair: the medians of what both gave, or the sample `at`.
    fn add(&mut self, both: &[Vec<Measured>; 2], at: Option<usize>) -> Result<(), Stop> {
        let value = |of: usize, name: &str| {
            let measured = both[of].iter().find(|metric| metric.name == name)?;
            match at {
                None => Some(measured.median()),
                Some(at) => measured.samples.get(at).copied(),
            }
        };
        let side = |of: usize| {
            let values = self.metrics.iter().map(|(name, ..)| {
                value(of, name)
                    .ok_or_else(|| Stop::Fruitless(format!("it gave no {} this time", shown(name))))
            });
            values.collect::<Result<Vec<f64>, _>>()
        };
        let pair = Pair { candidate: side(0)?, baseline: side(1)? };
        self.sequence.add(&pair).map_err(|error| Stop::Fruitless(error.to_string()))?;
        for (at, (_, _, values)) in self.metrics.iter_mut().enumerate() {
            values[0].push(pair.candidate[at]);
            values[1].push(pair.baseline[at]);
        }
        Ok(())
    }

    fn pairs(&self) -> usize {
        self.metrics.first().map_or(0, |(_, _, values)| values[0].len())
    }

    /// Tells of the pairs from this one on.
    fn progress(&self, from: usize) {
        for at in from..self.pairs() {
            let told = self.metrics.iter().map(|(name, unit, [candidate, baseline])| {
                let (ours, theirs) = (quantity(candidate[at], unit), quantity(baseline[at], unit));
                format!("{} {ours} against {theirs}", shown(name))
            });
            errln!("  pair {}: {}", at + 1, told.collect::<Vec<_>>().join(", "));
        }
    }

    fn told(self) -> (Vec<ComparedMetric>, Vec<ComparedCount>) {
        let findings = self.sequence.findings();
        let metrics =
            self.metrics.into_iter().zip(findings).map(|((name, unit, values), found)| {
                let [candidate, baseline] = values;
                ComparedMetric { name, unit, candidate, baseline, result: Compared::Paired(found) }
            });
        (metrics.collect(), self.counts)
    }
}
