//! Runs two sides of a comparison turn and turn about, until it can be told which is worse.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use dmarig_history::{
    COMPARISON_SCHEMA, CellRecord, Compared, ComparedCell, ComparedMetric, Comparison, Pairing,
    RECORD_SCHEMA, Recorder, is_wanted, label,
};
use dmarig_images::Cache;
use dmarig_model::{
    axes::Axis,
    case::{Case, Workload},
    judge::judge,
    limit::{self, Limit},
    matrix::Cell,
    measure::{Measured, times},
    observation::{End, Observation, Outcome, PlannedWindow, WindowKind},
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
    cases::{Selected, select},
    commands::run_meta,
    exit::Failure,
    options::Selection,
    prepare::{Obstacle, Prepared, Preparer},
    report::quantity,
};

/// Boots of one cell that may come to nothing in a row.
const FRUITLESS: usize = 2;

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
    /// Whether a cell could not be compared to its end.
    pub(crate) stopped: bool,
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
    let mut cells = Vec::new();
    let mut notes = BTreeSet::new();
    let mut stopped = false;
    for couple in &couples {
        if *interrupted.borrow() {
            break;
        }
        say(&format!("comparing {}", shown(&couple.label)));
        let prepared = [
            preparer.prepare(&cases[couple.case], &couple.candidate).await,
            preparer.prepare(&cases[couple.case], &couple.baseline).await,
        ];
        let mut bench = Bench {
            asked,
            case: &cases[couple.case],
            prepared: &prepared,
            recorder: &mut recorder,
            interrupted: &interrupted,
            notes: &mut notes,
            boots: 0,
        };
        let (tracks, why) = bench.compare(one_boot).await;
        if let Some(why) = why {
            stopped = true;
            notes.insert(format!("{} was stopped: {why}", couple.label));
        }
        cells.extend(tracks.map(|tracks| tracks.cell(&couple.label)));
    }
    let comparison = Comparison {
        schema: COMPARISON_SCHEMA,
        candidate: asked.names[0].clone(),
        baseline: asked.names[1].clone(),
        pairing: Some(pairing(asked, one_boot)),
        cells,
        notes: notes.into_iter().collect(),
    };
    let directory = recorder.directory().to_owned();
    comparison.write(&directory)?;
    let interrupted = *interrupted.borrow();
    Ok(Ended { comparison, stopped, interrupted, directory })
}

fn pairing(asked: &Asked<'_>, one_boot: bool) -> Pairing {
    let rule = Rule::default();
    Pairing {
        seed: asked.seed,
        error: rule.error(),
        looks: rule.looks().to_vec(),
        rule: RULE_VERSION,
        one_boot,
    }
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

/// The cases with windows that are timed and not counted.
fn timed(cases: &[Case], one_boot: bool) -> Result<Vec<Case>, Failure> {
    if let Some(case) = cases.iter().find(|case| case.workload == Workload::Idle) {
        let name = &case.name;
        return Err(Failure::usage(anyhow!("case {name} does nothing that could be timed")));
    }
    let timed = |case: &Case| {
        let Windows { time, warm_up, .. } = case.windows;
        let (time, warm_up) = (time.max(1), warm_up.max(1));
        let windows = Windows { count: false, time, warm_up, control: one_boot };
        Case { windows, ..case.clone() }
    };
    Ok(cases.iter().map(timed).collect())
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
    case: &'a Case,
    prepared: &'a [Prepared; 2],
    recorder: &'a mut Recorder,
    interrupted: &'a watch::Receiver<bool>,
    notes: &'a mut BTreeSet<String>,
    boots: usize,
}

impl<'a> Bench<'a> {
    /// How much worse each metric may be.
    fn limits(&self) -> &'a [Limit] {
        if self.asked.limits.is_empty() { &self.case.limits } else { self.asked.limits }
    }

    /// Goes on until it is decided; gives what there is, and why it was stopped where it was.
    async fn compare(&mut self, one_boot: bool) -> (Option<Tracks>, Option<String>) {
        let mut tracks = None;
        let mut fruitless = 0;
        loop {
            if *self.interrupted.borrow() {
                return (tracks, Some("interrupted".to_owned()));
            }
            let before = tracks.as_ref().map_or(0, Tracks::pairs);
            let step = match one_boot {
                true => self.batch(&mut tracks).await,
                false => self.pair(&mut tracks).await,
            };
            match step {
                Ok(true) => fruitless = 0,
                Ok(false) => return (tracks, None),
                Err(Stop::Now(why)) => return (tracks, Some(why)),
                Err(Stop::Fruitless(why)) => {
                    errln!("  came to nothing: {why}");
                    fruitless += 1;
                    if fruitless == FRUITLESS {
                        return (tracks, Some(why));
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
        let mut both = [Vec::new(), Vec::new()];
        for arm in order {
            let of = arm as usize;
            let name = match number {
                Some(number) => format!("pair{number}"),
                None => "warm-up".to_owned(),
            };
            let observation = self.boot(of, &name, None).await?;
            both[of] = times(&observation, Side::Own);
        }
        match tracks {
            None => *tracks = Some(Tracks::new(self.asked, self.limits(), &both)?),
            Some(tracks) => tracks.add(&both, None)?,
        }
        Ok(true)
    }

    /// Boots once, with a window on either side for each pair up to the next look.
    async fn batch(&mut self, tracks: &mut Option<Tracks>) -> Result<bool, Stop> {
        // The order of pairs is the seed's alone, so it is known before the metrics are.
        let turns = match tracks {
            None => orders(self.asked.seed).batch(),
            Some(tracks) => tracks.sequence.batch(),
        };
        if turns.is_empty() {
            return Ok(false);
        }
        let sides = self.asked.sides;
        let warm_up = sides.map(|side| (WindowKind::WarmUp, side));
        let timing = turns.iter().flat_map(|turn| turn.order);
        let timing = timing.map(|arm| (WindowKind::Timing, sides[arm as usize]));
        let windows = on_sides(warm_up.into_iter().chain(timing));
        let name = format!("pairs{}-{}", turns[0].number, turns[turns.len() - 1].number);
        let observation = self.boot(0, &name, Some(windows)).await?;
        let both = sides.map(|side| times(&observation, side));
        if tracks.is_none() {
            *tracks = Some(Tracks::new(self.asked, self.limits(), &both)?);
        }
        if let Some(tracks) = tracks {
            for at in 0..turns.len() {
                tracks.add(&both, Some(at))?;
            }
        }
        Ok(true)
    }

    /// Boots the candidate (0) or the baseline (1), and records what was seen.
    async fn boot(
        &mut self,
        of: usize,
        name: &str,
        windows: Option<Vec<PlannedWindow>>,
    ) -> Result<Observation, Stop> {
        let prepared = &self.prepared[of];
        let ready = match &prepared.launch {
            Ok(ready) => ready,
            Err(Obstacle::Skip(why) | Obstacle::Fault(why)) => return Err(Stop::Now(why.clone())),
        };
        let twins = ready.windows.iter().any(|window| window.group_type.is_some());
        if windows.is_some() && !twins {
            return Err(Stop::Now(
                "it can't be made to batch: that takes caching-mode=on, policy=lazy and a kernel from 6.1 on"
                    .to_owned(),
            ));
        }
        self.boots += 1;
        let arm = ["candidate", "baseline"][of];
        let id = format!("{}.{:03}-{name}-{arm}", prepared.cell.id, self.boots);
        let cell = Cell { id, ..prepared.cell.clone() };
        let fault = |error: std::io::Error| Stop::Now(error.to_string());
        let artifacts = self.recorder.artifacts(&cell.id).map_err(fault)?;
        let mut launch = ready.launch(&cell, Some(artifacts), prepared.planned_in);
        if let Some(windows) = windows {
            launch.windows = windows;
        }
        let observation = guest::run(&launch, self.interrupted.clone(), &|_| ()).await;
        let verdict = judge(self.case, &observation);
        let reason = verdict.reasons.first().cloned().unwrap_or_default();
        let outcome = verdict.outcome;
        let record = CellRecord { schema: RECORD_SCHEMA, observation, verdict };
        self.recorder.add(&record).map_err(fault)?;
        if record.observation.end != End::Completed {
            return Err(Stop::Fruitless(format!("{}: {reason}", outcome.name())));
        }
        if outcome != Outcome::Passed {
            self.notes.insert(format!("the {arm} did not pass its own checks: {reason}"));
        }
        Ok(record.observation)
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
pub(crate) fn better(better: Option<limit::Better>) -> Better {
    match better {
        Some(limit::Better::Higher) => Better::Higher,
        Some(limit::Better::Lower) | None => Better::Lower,
    }
}

/// The order of pairs, of nothing in particular.
fn orders(seed: u64) -> Sequence {
    let any = Metric { name: String::new(), better: Better::Lower, limit: None };
    let plan = Plan { seed, rule: Rule::default(), metrics: vec![any] };
    Sequence::new(plan).expect("a metric without a limit makes a sound plan")
}

/// What was measured so far.
struct Tracks {
    sequence: Sequence,
    /// Name and unit of each metric, and what both gave.
    metrics: Vec<(String, String, [Vec<f64>; 2])>,
}

impl Tracks {
    /// For the metrics that both sides have.
    fn new(asked: &Asked<'_>, limits: &[Limit], both: &[Vec<Measured>; 2]) -> Result<Self, Stop> {
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
            let known = known.or_else(|| limit::Better::of(&measured.name, &measured.unit));
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
        let plan = Plan { seed: asked.seed, rule: Rule::default(), metrics };
        let sequence = Sequence::new(plan).map_err(|error| Stop::Now(error.to_string()))?;
        let empty = |measured: &&Measured| {
            (measured.name.clone(), measured.unit.clone(), [Vec::new(), Vec::new()])
        };
        Ok(Self { sequence, metrics: wanted.iter().map(empty).collect() })
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

    fn cell(self, label: &str) -> ComparedCell {
        let findings = self.sequence.findings();
        let metrics =
            self.metrics.into_iter().zip(findings).map(|((name, unit, values), found)| {
                let [candidate, baseline] = values;
                ComparedMetric { name, unit, candidate, baseline, result: Compared::Paired(found) }
            });
        ComparedCell { label: label.to_owned(), metrics: metrics.collect(), counts: Vec::new() }
    }
}
