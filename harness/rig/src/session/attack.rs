//! DMA that must fault, and who says that it did.

use dmarig_model::{
    log::provoked,
    observation::{Attacked, End, KernelLog, Observation, Window, WindowKind},
    probe::{Attack, AttackOutcome, Reply, Request},
    viommu,
};
use dmarig_wire::{Reply as AgentReply, Request as AgentRequest};

use super::Session;
use crate::{
    agent::expect_reply,
    blame::{WaitError, channel_broken, host_fault},
    launch::Launch,
    probe::unexpected_reply,
};

/// How often an attack is tried where the guest says nothing of it. The virtual IOMMU has one fault
/// register, and QEMU reports some accesses twice: a second fault that comes while the guest is done
/// with the first one's record and not with its status was seen to be swallowed with its successor.
const ATTEMPTS: usize = 3;

impl Session {
    /// Has the probe do one attack, and waits until the guest has said what its IOMMU reports.
    pub(super) async fn attack(
        &mut self,
        launch: &Launch<'_>,
        kind: Attack,
        observation: &mut Observation,
    ) -> Result<(), End> {
        let fault_events = viommu::for_axes(launch.axes).trace().fault_events;
        let log = &mut observation.log;
        // What the guest said before is not the answer.
        self.read_log(launch, log).await?;
        let before = log.records.len();
        self.trace.take().await.map_err(|error| host_fault(&error))?;
        self.switch_trace(launch, fault_events, true).await?;
        // A workload that runs beside it is judged as any other is, and is no measurement.
        let (mut outcome, beside) = self.attacked(launch, kind).await?;
        observation.windows.extend(beside);
        for _ in 1..ATTEMPTS {
            if outcome.hypervisor_let_through != Some(false)
                || self.await_fault(launch, log, before, &outcome).await?
            {
                break;
            }
            let again = self.attacked(launch, kind).await?;
            outcome = again.0;
            observation.windows.extend(again.1);
        }
        self.switch_trace(launch, fault_events, false).await?;
        let taken =
            self.vitals.race("end of the trace", launch.deadlines.request, self.trace.take());
        let hypervisor_faults = taken.await?.faults;
        self.read_log(launch, log).await?;
        let guest_faults = provoked(&log.records[before..], &outcome);
        observation.attacks.push(Attacked { outcome, hypervisor_faults, guest_faults });
        Ok(())
    }

    async fn attacked(
        &mut self,
        launch: &Launch<'_>,
        kind: Attack,
    ) -> Result<(AttackOutcome, Option<Window>), End> {
        let Some(probe) = &mut self.probe else { return Err(host_fault(&"no probe attacks")) };
        let asked = async {
            match probe.request(&Request::Attack { kind }).await.map_err(WaitError::from)? {
                Reply::Attacked { outcome } => Ok(outcome),
                other => Err(WaitError::from(unexpected_reply(&other))),
            }
        };
        let after = launch.deadlines.workload + launch.deadlines.qmp;
        if kind != Attack::ReadOnly {
            let outcome = self.vitals.race("the probe's attack", after, asked).await?;
            return Ok((outcome, None));
        }
        // A buffer that may only be read is there while the workload writes.
        let job = AgentRequest::Run(launch.job.clone());
        let agent = &mut self.agent;
        let work = async { agent.request(&job).await.map_err(WaitError::from) };
        let both = async { tokio::try_join!(asked, work) };
        let (outcome, reply) = self.vitals.race("the probe's attack", after, both).await?;
        let report = expect_reply!(reply, AgentReply::Report(report) => *report, "a report")
            .map_err(channel_broken)?;
        let beside = Window::new(WindowKind::WarmUp, None, report);
        Ok((outcome, Some(beside)))
    }

    /// Reads the guest's log until the attack's fault stands in it; tells whether one does. Where none comes,
    /// that is for the judge.
    async fn await_fault(
        &mut self,
        launch: &Launch<'_>,
        log: &mut KernelLog,
        before: usize,
        outcome: &AttackOutcome,
    ) -> Result<bool, End> {
        let deadline = tokio::time::Instant::now() + launch.deadlines.request / 10;
        loop {
            if provoked(&log.records[before..], outcome) > 0 {
                return Ok(true);
            }
            if tokio::time::Instant::now() >= deadline {
                return Ok(false);
            }
            // Each answer takes a turn of the guest, in which it can take its interrupt.
            self.read_log(launch, log).await?;
        }
    }
}
