//! Deadlines of the rig's waits.

use std::time::Duration;

use dmarig_model::axes::Accelerator;

/// Deadlines of one guest. Each is generous: it ends a wait that would never succeed and measures
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// From QEMU's start until it has connected all its channels.
    pub spawn: Duration,
    /// From the guest's start until the agent's greeting.
    pub boot: Duration,
    /// One answer of QEMU's monitor.
    pub qmp: Duration,
    /// One answer of the agent other than a workload's report.
    pub request: Duration,
    /// One run of the workload.
    pub workload: Duration,
    /// From QEMU being asked to end until it has.
    pub end: Duration,
}

impl Deadlines {
    /// For one answer of QEMU's monitor on a machine that is `factor` times slower than usual. QEMU
    /// answers in milliseconds; the rest is for a machine that is very busy.
    #[must_use]
    pub fn qmp_answer(factor: f64) -> Duration {
        Duration::from_secs(60).mul_f64(factor.max(0.1))
    }

    /// Deadlines for an accelerator. `boot` and `workload` are what a case allows on real hardware;
    /// all are stretched where instructions are emulated, and by `factor` (2 for a machine half as
    /// fast).
    #[must_use]
    pub fn new(accelerator: Accelerator, boot: Duration, workload: Duration, factor: f64) -> Self {
        let emulated = match accelerator {
            Accelerator::Kvm => 1.0,
            // A stock kernel boots in 3 to 12 s on an idle core, workloads run 10 to 50 times slower.
            Accelerator::Auto | Accelerator::Tcg => 4.0,
        };
        let stretch = |time: Duration, by: f64| time.mul_f64(by * factor.max(0.1));
        let seconds = |seconds| stretch(Duration::from_secs(seconds), 1.0);
        Self {
            spawn: seconds(30),
            boot: stretch(boot, emulated),
            qmp: Self::qmp_answer(factor),
            request: seconds(120),
            workload: stretch(workload, emulated),
            end: seconds(10),
        }
    }

    /// The sum for a guest with `windows` runs of its workload, inspection of its QEMU included: the
    /// deadline of the program that runs it within another guest.
    #[must_use]
    pub fn total(&self, windows: usize) -> Duration {
        let windows = u32::try_from(windows).unwrap_or(u32::MAX);
        // A few QMP commands before it starts, two descriptions, and its log in pieces.
        let overhead = self.qmp * 4 + self.request * 4 + self.end * 2;
        self.spawn + self.boot + self.workload.saturating_mul(windows.max(1)) + overhead
    }
}
