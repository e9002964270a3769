//! The description of one guest run, and its progress.

use std::{path::PathBuf, time::Duration};

use dmarig_model::{
    axes::Axes,
    observation::{PlannedWindow, Setup, WindowKind},
    plan::LaunchPlan,
    probe::Attack,
};
use dmarig_wire::Job;

use crate::{deadlines::Deadlines, probe::ProbeLaunch};

/// Everything that a run of one guest needs.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Id of the cell.
    pub cell: &'a str,
    /// Name of the cell's case.
    pub case: &'a str,
    /// Axis values of the cell.
    pub axes: &'a Axes,
    /// Arguments of QEMU and of the kernel.
    pub plan: &'a LaunchPlan,
    /// Description of kernel, QEMU and host for the record.
    pub setup: Setup,
    /// Properties of the virtual IOMMU that are read back from QEMU.
    pub iommu_properties: Vec<String>,
    /// The workload.
    pub job: Job,
    /// Windows in order; the workload runs once in each.
    pub windows: Vec<PlannedWindow>,
    /// DMA that must fault, tried after the windows; needs a probe.
    pub attacks: Vec<Attack>,
    /// Deadlines of all waits.
    pub deadlines: Deadlines,
    /// The probe that serves the device under test, if the cell has one.
    pub probe: Option<ProbeLaunch>,
    /// Directory of `console.log`, `qmp.log` and `probe.log`; `None` writes no logs.
    pub artifacts: Option<PathBuf>,
    /// Files of the workload that are copied from the guest to the host.
    pub guest_files: Option<GuestFiles>,
    /// Time spent on planning, for the record.
    pub planned_in: Duration,
}

/// Files that are copied from the guest to the host after the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestFiles {
    /// Directory in the guest; all regular files below it are copied.
    pub guest: String,
    /// Directory on the host; the files keep their relative paths.
    pub host: PathBuf,
}

/// Progress of a guest, for a display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// QEMU starts.
    Starting,
    /// Firmware and kernel run.
    Booting,
    /// The workload runs in window `number` of `total`.
    Working {
        /// Kind of the window.
        kind: WindowKind,
        /// Number of the window, from 1.
        number: usize,
        /// Number of all windows.
        total: usize,
    },
    /// The stage is unchanged, and the console has a new last line.
    ConsoleLine(String),
    /// The rig fetches the kernel log.
    Collecting,
    /// The rig stops QEMU.
    Ending,
}
