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

use crate::{deadlines::Deadlines, probe::ProbeLaunch, session::Session, vitals::PhaseClock};

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
    /// Time that went into planning, for the record.
    pub planned_in: Duration,
}

/// What a guest is doing, for a progress display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
            let driven = session.drive(launch, &mut observation, &mut clock, progress).await;
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
