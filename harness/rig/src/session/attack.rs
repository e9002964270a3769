//! DMA that must fault, and who says that it did.

use std::time::Duration;

use dmarig_model::{
    log,
    observation::{Attacked, End, KernelLog},
    probe::{Attack, Reply, Request},
};

use super::{Session, host_fault};
use crate::{guest::Launch, probe::unexpected};

/// The hypervisor's event of a DMA that it let nobody have.
const FAULT_EVENTS: &[&str] = &["vtd_dmar_fault"];

impl Session {
    /// Has the probe do one attack, and waits until the guest has said what its IOMMU reports.
    pub(super) async fn attack(
        &mut self,
        launch: &Launch<'_>,
        kind: Attack,
        log: &mut KernelLog,
    ) -> Result<Attacked, End> {
        // What the guest said before is not the answer.
        self.read_log(launch, log).await?;
        let before = log.records.len();
        self.trace.take().await.map_err(|error| host_fault(&error))?;
        self.switch_trace(launch, FAULT_EVENTS, true).await?;
        let Some(probe) = &mut self.probe else { return Err(host_fault(&"no probe attacks")) };
        let asked = async {
            match probe.ask(&Request::Attack { kind }).await? {
                Reply::Attacked { outcome } => Ok(outcome),
                other => Err(unexpected(&other)),
            }
        };
        let after = launch.deadlines.qmp + Duration::from_secs(5);
        let outcome = self.vitals.race("the probe's attack", after, asked).await?;
        if outcome.hypervisor_let_through == Some(false) {
            self.await_fault(launch, log, before).await?;
        }
        self.switch_trace(launch, FAULT_EVENTS, false).await?;
        let taken =
            self.vitals.race("end of the trace", launch.deadlines.request, self.trace.take());
        let hypervisor_faults = taken.await?.faults;
        self.read_log(launch, log).await?;
        let guest_faults = log::read(&log.records[before..]).faults.len() as u64;
        Ok(Attacked { outcome, hypervisor_faults, guest_faults })
    }

    /// Reads the guest's log until a fault stands in it; where none comes, that is for the judge.
    async fn await_fault(
        &mut self,
        launch: &Launch<'_>,
        log: &mut KernelLog,
        before: usize,
    ) -> Result<(), End> {
        let deadline = tokio::time::Instant::now() + launch.deadlines.request;
        while log::read(&log.records[before..]).faults.is_empty()
            && tokio::time::Instant::now() < deadline
        {
            // Each answer takes a turn of the guest, in which it can take its interrupt.
            self.read_log(launch, log).await?;
        }
        Ok(())
    }
}
