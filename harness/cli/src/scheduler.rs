//! Runs cells, several at once, and judges each as it ends.

use dmarig_history::{CellRecord, RECORD_SCHEMA, Recorder, judge_ratios};
use dmarig_model::{
    case::Case,
    document::{CellResult, ShownCheck},
    judge::judge,
    matrix::Cell,
    observation::{End, KernelLog, Observation, Outcome, Setup, Verdict},
    sweep::{Sweep, sweeps},
};
use dmarig_rig::{guest, launch::Stage};
use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use crate::{
    cases::Selected,
    host, nested,
    prepare::{Obstacle, Prepared},
    report::Events,
};

/// Memory that a QEMU takes beside its guest's, in MiB.
const QEMU_MIB: u64 = 200;

/// A cell that has ended. The kernel log has been recorded and is not kept.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) cell: Cell,
    pub(crate) observation: Observation,
    pub(crate) verdict: Verdict,
    pub(crate) result: CellResult,
}

/// Judges what compares cells of the run with each other, and adds it to their results; gives the
/// sweeps over live mappings that the run has.
pub(crate) fn compare(cases: &[Case], ended: &mut [Ended]) -> Vec<Sweep> {
    let mut found = Vec::new();
    for case in cases {
        let of_case: Vec<Observation> = ended
            .iter()
            .filter(|ended| ended.cell.case == case.name)
            .map(|ended| ended.observation.clone())
            .collect();
        found.extend(sweeps(case, &of_case));
        for (id, check) in judge_ratios(case, &of_case) {
            let Some(ended) = ended.iter_mut().find(|ended| ended.cell.id == id) else { continue };
            ended.verdict.add(check);
            ended.result.outcome = ended.verdict.outcome;
            ended.result.reasons.clone_from(&ended.verdict.reasons);
            ended.result.checks.extend(ended.verdict.checks.last().map(ShownCheck::from));
        }
    }
    found
}

/// How many guests run at once: by cores and free memory where the user does not say.
pub(crate) fn jobs(asked: Option<usize>, largest_mib: u32) -> usize {
    asked.unwrap_or_else(|| {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let each = (u64::from(largest_mib) + QEMU_MIB) << 10;
        let fit = host::memory_kib("MemAvailable") / each.max(1);
        cpus.min(usize::try_from(fit).unwrap_or(cpus)).max(1)
    })
}

/// Runs all that is prepared; those that want a quiet machine come last, one at a time.
pub(crate) async fn run(
    selected: &Selected,
    prepared: Vec<Prepared>,
    jobs: usize,
    recorder: &mut Recorder,
    interrupt: &watch::Receiver<bool>,
    events: &dyn Events,
) -> Vec<Ended> {
    let (quiet, shared): (Vec<_>, Vec<_>) =
        prepared.into_iter().partition(|prepared| prepared.quiet && prepared.launch.is_ok());
    let mut ended = Vec::new();
    for (cells, at_once) in [(shared, jobs), (quiet, 1)] {
        let artifacts: Vec<_> =
            cells.iter().map(|prepared| recorder.artifacts(&prepared.cell.id)).collect();
        let runs = cells.into_iter().zip(artifacts).map(|(prepared, artifacts)| async {
            if *interrupt.borrow() {
                return None;
            }
            let case = selected.case(&prepared.cell);
            events.started(&prepared.cell);
            let observation = match artifacts {
                Ok(path) => observe(&prepared, Some(path), interrupt.clone(), events).await,
                Err(error) => {
                    unlaunched(&prepared.cell, End::HostFault { what: error.to_string() })
                }
            };
            Some((prepared.cell, conclude(case, observation)))
        });
        let mut running = stream::iter(runs).buffer_unordered(at_once);
        while let Some(result) = running.next().await {
            let Some((cell, mut record)) = result else { continue };
            if let Err(error) = recorder.add(&record) {
                // What can't be recorded did not count: its user must not believe otherwise.
                record.verdict.outcome = Outcome::Errored;
                record.verdict.reasons.push(error.to_string());
            }
            events.ended(&cell, &record);
            let CellRecord { mut observation, verdict, .. } = record;
            let result = CellResult::new(&observation, &verdict);
            observation.log = KernelLog::default();
            ended.push(Ended { cell, observation, verdict, result });
        }
    }
    // In the order of the matrix, which people compare from run to run.
    let order = |ended: &Ended| selected.cells.iter().position(|cell| cell.id == ended.cell.id);
    ended.sort_by_key(order);
    ended
}

fn conclude(case: &Case, observation: Observation) -> CellRecord {
    let verdict = judge(case, &observation);
    CellRecord { schema: RECORD_SCHEMA, observation, verdict }
}

async fn observe(
    prepared: &Prepared,
    artifacts: Option<std::path::PathBuf>,
    interrupt: watch::Receiver<bool>,
    events: &dyn Events,
) -> Observation {
    let cell = &prepared.cell;
    match &prepared.launch {
        Ok(ready) => {
            let launch = ready.launch(cell, artifacts.clone(), prepared.planned_in);
            let progress = |stage: Stage| events.stage(cell, stage);
            let observation = guest::run(&launch, interrupt, &progress).await;
            match (&ready.outer, artifacts) {
                (Some(_), Some(artifacts)) => nested::hand_out(cell, &artifacts, observation),
                _ => observation,
            }
        }
        Err(Obstacle::Skip(reason)) => unlaunched(cell, End::Skipped { reason: reason.clone() }),
        Err(Obstacle::Fault(what)) => unlaunched(cell, End::HostFault { what: what.clone() }),
    }
}

/// The observation of a cell that was never launched.
fn unlaunched(cell: &Cell, end: End) -> Observation {
    Observation::unseen(&cell.id, &cell.case, &cell.axes, Setup::unplanned(&cell.axes), end)
}
