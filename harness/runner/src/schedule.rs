//! Runs cells, several at once, and judges each as it ends.

use dmarig_model::{
    case::Case,
    document::CellResult,
    judge::judge,
    matrix::Cell,
    observation::{End, KernelLog, Observation, Outcome, Setup, Verdict},
    sweep::{Sweep, sweeps},
};
use dmarig_records::{CellRecord, RECORD_SCHEMA, Recorder, judge_across_cells};
use dmarig_rig::{guest, launch::Stage};
use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use crate::{
    event::{Event, Reporter},
    host, nested,
    prepare::{NotLaunched, Prepared},
    select::Selected,
};

/// Memory that a QEMU takes beside its guest's, in MiB.
const QEMU_MIB: u64 = 200;

/// A cell that ended. Its kernel log is in the record and is not kept.
#[derive(Debug)]
pub struct FinishedCell {
    /// The cell.
    pub cell: Cell,
    /// What was observed, without the kernel log.
    pub observation: Observation,
    /// The verdict.
    pub verdict: Verdict,
    /// The result as it is reported.
    pub result: CellResult,
}

/// Judges what compares cells of the run with each other, records the verdicts that this changes, and
/// finds the sweeps over live mappings.
pub(crate) fn conclude_run(
    cases: &[Case],
    ended: &mut [FinishedCell],
    recorder: &mut Recorder,
) -> Vec<Sweep> {
    for position in judge_across(cases, ended) {
        let FinishedCell { cell, verdict, result, .. } = &mut ended[position];
        if let Err(error) = recorder.amend(&cell.id, verdict) {
            // A verdict that is not recorded did not count: its user must not believe otherwise.
            verdict.outcome = Outcome::Errored;
            verdict.reasons.push(error.to_string());
            result.amend(verdict);
        }
    }
    sweeps_of(cases, ended)
}

/// Adds the checks that compare cells of a run with each other. Returns the positions of the cells that
/// got one.
pub fn judge_across(cases: &[Case], ended: &mut [FinishedCell]) -> Vec<usize> {
    let mut cells: Vec<(&Observation, &mut Verdict)> =
        ended.iter_mut().map(|ended| (&ended.observation, &mut ended.verdict)).collect();
    let amended = judge_across_cells(cases, &mut cells);
    for position in &amended {
        let FinishedCell { verdict, result, .. } = &mut ended[*position];
        result.amend(verdict);
    }
    amended
}

/// The sweeps over live mappings of a run.
pub fn sweeps_of(cases: &[Case], ended: &[FinishedCell]) -> Vec<Sweep> {
    let mut found = Vec::new();
    for case in cases {
        let of_case: Vec<&Observation> = ended
            .iter()
            .filter(|ended| ended.cell.case == case.name)
            .map(|ended| &ended.observation)
            .collect();
        found.extend(sweeps(case, &of_case));
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
    reporter: &dyn Reporter,
) -> Vec<FinishedCell> {
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
            reporter.report(&Event::CellStarted(&prepared.cell));
            let observation = match artifacts {
                Ok(path) => observe(&prepared, Some(path), interrupt.clone(), reporter).await,
                Err(error) => {
                    unlaunched(&prepared.cell, End::HostFault { what: error.to_string() })
                }
            };
            let planned_windows = match prepared.launch {
                Ok(ready) if ready.outer.is_none() => Some(ready.windows),
                _ => None,
            };
            let verdict = judge(case, &observation);
            let record = CellRecord {
                schema: RECORD_SCHEMA,
                boot: None,
                planned_windows,
                observation,
                verdict,
            };
            Some((prepared.cell, record))
        });
        let mut running = stream::iter(runs).buffer_unordered(at_once);
        while let Some(result) = running.next().await {
            let Some((cell, mut record)) = result else { continue };
            if let Err(error) = recorder.add(&record) {
                // What can't be recorded did not count: its user must not believe otherwise.
                record.verdict.outcome = Outcome::Errored;
                record.verdict.reasons.push(error.to_string());
            }
            reporter.report(&Event::CellFinished(&cell, &record));
            let CellRecord { mut observation, verdict, .. } = record;
            let result = CellResult::new(&observation, &verdict);
            observation.log = KernelLog::default();
            ended.push(FinishedCell { cell, observation, verdict, result });
        }
    }
    // In the order of the matrix, which people compare from run to run.
    let order =
        |ended: &FinishedCell| selected.cells.iter().position(|cell| cell.id == ended.cell.id);
    ended.sort_by_key(order);
    ended
}

async fn observe(
    prepared: &Prepared,
    artifacts: Option<std::path::PathBuf>,
    interrupt: watch::Receiver<bool>,
    reporter: &dyn Reporter,
) -> Observation {
    let cell = &prepared.cell;
    match &prepared.launch {
        Ok(ready) => {
            let launch = ready.launch(cell, artifacts.clone(), prepared.planned_in);
            let progress = |stage: Stage| reporter.report(&Event::CellStage(cell, &stage));
            let observation = guest::run(&launch, interrupt, &progress).await;
            match (&ready.outer, artifacts) {
                (Some(_), Some(artifacts)) => nested::hand_out(cell, &artifacts, observation),
                _ => observation,
            }
        }
        Err(NotLaunched::Skipped(reason)) => {
            unlaunched(cell, End::Skipped { reason: reason.clone() })
        }
        Err(NotLaunched::Failed(error)) => {
            unlaunched(cell, End::HostFault { what: error.to_string() })
        }
    }
}

/// The observation of a cell that was never launched.
fn unlaunched(cell: &Cell, end: End) -> Observation {
    Observation::unseen(&cell.id, &cell.case, &cell.axes, Setup::unplanned(&cell.axes), end)
}
