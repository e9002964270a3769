//! One guest, from its launch to its end.

use std::{path::PathBuf, time::Duration};

use dmarig_model::{
    axes::Axes,
    observation::{End, Observation, PlannedWindow, Setup, WindowKind},
    plan::LaunchPlan,
    probe::Attack,
};
use dmarig_wire::Job;
use tokio::sync::watch;

use crate::{
    console::LastLine, deadlines::Deadlines, probe::ProbeLaunch, session::Session,
    vitals::PhaseClock,
};

/// How often a guest that takes long shows where it is.
const FOLLOWED: Duration = Duration::from_secs(5);

/// Everything that one guest is run by.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The cell's id.
    pub cell: &'a str,
    /// The case that it is a cell of.
    pub case: &'a str,
    /// What was asked for.
    pub axes: &'a Axes,
    /// How it is launched.
    pub plan: &'a LaunchPlan,
    /// What the record says of that.
    pub setup: Setup,
    /// Properties of the virtual IOMMU to read back.
    pub iommu_properties: Vec<String>,
    /// The work.
    pub job: Job,
    /// The windows, in order, in each of which the work is done once.
    pub windows: Vec<PlannedWindow>,
    /// DMA that must fault, tried after the windows; only with a probe.
    pub attacks: Vec<Attack>,
    /// How long to wait for what.
    pub deadlines: Deadlines,
    /// The probe that serves the device, where one does.
    pub probe: Option<ProbeLaunch>,
    /// Where `console.log`, `qmp.log` and `probe.log` go; nowhere if `None`.
    pub artifacts: Option<PathBuf>,
    /// Files that the workload leaves in the guest and that are taken out.
    pub collect: Option<Collect>,
    /// Time that went into planning, for the record.
    pub planned_in: Duration,
}

/// Files that are taken out of a guest once its workload is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collect {
    /// The directory in the guest: all plain files below it are taken.
    pub guest: String,
    /// The directory of the host that they go to, under the same names.
    pub host: PathBuf,
}

/// What a guest is doing, for a progress display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// QEMU starts.
    Starting,
    /// Firmware and kernel run.
    Booting,
    /// Window `number` of `of`, from 1.
    Working {
        /// Its kind.
        kind: WindowKind,
        /// Its number.
        number: usize,
        /// How many there are.
        of: usize,
    },
    /// Still what it was before; this is the last line of its console, which has changed.
    Says(String),
    /// The log is fetched.
    Collecting,
    /// QEMU is ended.
    Ending,
}

/// Runs one guest to its end. Whatever happens is in the observation; no process and no directory
/// is left behind, also where the future is dropped.
pub async fn run(
    launch: &Launch<'_>,
    interrupt: watch::Receiver<bool>,
    progress: &dyn Fn(Stage),
) -> Observation {
    let (cell, case, setup) = (launch.cell, launch.case, launch.setup.clone());
    let mut observation = Observation::unseen(cell, case, launch.axes, setup, End::Completed);
    let mut clock = PhaseClock::start(launch.planned_in);
    progress(Stage::Starting);
    let end = match Session::start(launch, interrupt).await {
        Ok(mut session) => {
            clock.lap("spawn");
            let last_line = session.last_line();
            let driven = tokio::select! {
                driven = session.drive(launch, &mut observation, &mut clock, progress) => driven,
                never = follow(&last_line, progress) => never,
            };
            progress(Stage::Ending);
            let end = session.finish(launch, &mut observation, driven).await;
            clock.lap("teardown");
            end
        }
        Err(end) => end,
    };
    observation.end = end;
    observation.phases = clock.into_phases();
    observation
}

/// Tells, now and then, what the console says: a guest within a guest takes minutes to boot.
async fn follow<T>(console: &LastLine, progress: &dyn Fn(Stage)) -> T {
    let mut told = String::new();
    loop {
        tokio::time::sleep(FOLLOWED).await;
        let line = console.get();
        if line != told {
            progress(Stage::Says(line.clone()));
            told = line;
        }
    }
}
