//! How long the rig waits for what.

use std::time::Duration;

use dmarig_model::axes::Accelerator;

/// Deadlines of one guest. Each is generous: it is there to end what will never come, not to
/// measure anything.
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
    /// Defaults for an accelerator, stretched by `factor` (2 for a machine half as fast).
    #[must_use]
    pub fn new(accelerator: Accelerator, factor: f64) -> Self {
        let (boot, workload) = match accelerator {
            Accelerator::Kvm => (60, 120),
            // A stock kernel boots in 3 to 12 s under TCG on an idle core.
            Accelerator::Auto | Accelerator::Tcg => (180, 600),
        };
        let seconds = |seconds: u32| Duration::from_secs(seconds.into()).mul_f64(factor.max(0.1));
        Self {
            spawn: seconds(30),
            boot: seconds(boot),
            qmp: seconds(60),
            request: seconds(120),
            workload: seconds(workload),
            end: seconds(10),
        }
    }
}
