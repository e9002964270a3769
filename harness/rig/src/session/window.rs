//! Runs the workload once and counts what it causes.

use std::{collections::BTreeMap, time::Duration};

use dmarig_model::observation::{End, PlannedWindow, Window, WindowKind};
use dmarig_wire::{DmaCounts, Reply, Request};
use qapi::qmp::trace_event_set_state;

use super::Session;
use crate::{
    agent::expect_reply,
    blame::{channel_broken, host_fault},
    launch::Launch,
    qmp::QueryBlockstats,
};

/// Backstop for requests to the probe, whose connection has a deadline of its own with a better error.
const PROBE_BACKSTOP: Duration = Duration::from_secs(3600);

impl Session {
    /// Runs the workload once in a planned window, with the group type that the window wants.
    pub(super) async fn window(
        &mut self,
        launch: &Launch<'_>,
        planned: &PlannedWindow,
    ) -> Result<Window, End> {
        if let Some(group_type) = &planned.group_type {
            self.set_group_type(launch, group_type).await?;
        }
        let is_counting = planned.kind == WindowKind::Counting;
        let mut counts_at_start = None;
        if is_counting {
            counts_at_start = self.start_counting(launch).await?;
        }
        if let Some(probe) = &mut self.probe {
            self.vitals.race("the probe", PROBE_BACKSTOP, probe.begin_counting()).await?;
        }
        let request = Request::Run(launch.job.clone());
        let reply = self.ask("end of the workload", launch.deadlines.workload, &request).await?;
        let report = expect_reply!(reply, Reply::Report(report) => *report, "a report")
            .map_err(channel_broken)?;
        if report.errors > 0 && launch.plan.disk {
            self.check_host_disk(launch).await?;
        }
        let mut window = Window::new(planned.kind, planned.group_type.clone(), report);
        if let Some(probe) = &mut self.probe {
            let counts = self.vitals.race("the probe", PROBE_BACKSTOP, probe.read_counts()).await?;
            window.probe = Some(counts);
        }
        if is_counting {
            self.stop_counting(launch, counts_at_start, &mut window).await?;
        }
        Ok(window)
    }

    /// Starts to count in the guest's kernel and in the hypervisor; returns the guest's counts after
    /// that. The guest counts for longer than the trace, and goes on while the trace is switched:
    /// what it counts meanwhile may belong to the window or not.
    async fn start_counting(&mut self, launch: &Launch<'_>) -> Result<Option<DmaCounts>, End> {
        self.count_dma(launch, Request::CountDma(true)).await?;
        self.trace.take().await.map_err(|error| host_fault(&error))?;
        self.switch_trace(launch, &launch.plan.trace_events, true).await?;
        self.count_dma(launch, Request::ReadDma).await
    }

    /// Stops to count, and stores the counts of hypervisor and guest in the window.
    async fn stop_counting(
        &mut self,
        launch: &Launch<'_>,
        at_start: Option<DmaCounts>,
        window: &mut Window,
    ) -> Result<(), End> {
        let at_end = self.count_dma(launch, Request::ReadDma).await?;
        self.switch_trace(launch, &launch.plan.trace_events, false).await?;
        let deadline = launch.deadlines.request;
        let trace = self.vitals.race("end of the trace", deadline, self.trace.take()).await?;
        let all = self.count_dma(launch, Request::CountDma(false)).await?;
        if let (Some(at_start), Some(at_end), Some(all)) = (&at_start, &at_end, &all) {
            window.dma_at_edges = Some(counts_at_edges(at_start, at_end, all));
        }
        window.trace = Some(trace);
        window.dma = all;
        Ok(())
    }

    async fn set_group_type(&mut self, launch: &Launch<'_>, kind: &str) -> Result<(), End> {
        let device = launch.axes.device.wire();
        let request = Request::SetGroupType { device, kind: kind.to_owned() };
        let what = "answer of the agent that the group has another type";
        let reply = self.ask(what, launch.deadlines.request, &request).await?;
        expect_reply!(reply, Reply::GroupType { .. } => (), "a group's type")
            .map_err(channel_broken)
    }

    /// Checks whether the host failed operations of the guest's disk. QEMU's NVMe controller never
    /// stops the guest for it: it passes the error on, as if device or driver were to blame.
    async fn check_host_disk(&mut self, launch: &Launch<'_>) -> Result<(), End> {
        let disks = self.qmp(launch, QueryBlockstats {}).await?;
        let failed: u64 = disks.iter().map(|disk| disk.stats.total()).sum();
        if failed == 0 {
            return Ok(());
        }
        Err(End::HostFault {
            what: format!(
                "the host failed {failed} operations on the file of the guest's disk, as where no \
                 space is left; make room or name another place by TMPDIR"
            ),
        })
    }

    async fn count_dma(
        &mut self,
        launch: &Launch<'_>,
        request: Request,
    ) -> Result<Option<DmaCounts>, End> {
        let after = launch.deadlines.request;
        let reply = self.ask("DMA counts of the guest", after, &request).await?;
        expect_reply!(reply, Reply::DmaCounts(counts) => counts, "DMA counts")
            .map_err(channel_broken)
    }

    pub(super) async fn switch_trace(
        &mut self,
        launch: &Launch<'_>,
        names: &[&str],
        enable: bool,
    ) -> Result<(), End> {
        for name in names {
            let name = (*name).to_owned();
            // An event that this QEMU doesn't have, or can't trace, would count nothing and look like
            // a good result: that must be an error.
            let ignore_unavailable = Some(!enable);
            let command = trace_event_set_state { name, enable, ignore_unavailable };
            self.qmp(launch, command).await?;
        }
        Ok(())
    }
}

/// The part of all counts that was counted while the trace was switched on or off. The numbers come
/// from a guest, so they may be anything.
fn counts_at_edges(at_start: &DmaCounts, at_end: &DmaCounts, all: &DmaCounts) -> DmaCounts {
    let count = |counts: &DmaCounts, name: &str| counts.events.get(name).copied().unwrap_or(0);
    let mut events = BTreeMap::new();
    for (name, total) in &all.events {
        let after_end = total.saturating_sub(count(at_end, name));
        let at_edges = count(at_start, name).saturating_add(after_end).min(*total);
        events.insert(name.clone(), at_edges);
    }
    DmaCounts { events }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_happens_while_the_trace_is_switched() {
        let counts = |maps, unmaps| DmaCounts {
            events: [("iommu:map".to_owned(), maps), ("iommu:unmap".to_owned(), unmaps)].into(),
        };
        let edges = counts_at_edges(&counts(3, 0), &counts(100, 90), &counts(109, 99));
        assert_eq!(edges, counts(12, 9));
        assert_eq!(counts_at_edges(&counts(0, 0), &counts(7, 7), &counts(7, 7)), counts(0, 0));
        // Nonsense from a guest never exceeds all counts.
        assert_eq!(
            counts_at_edges(&counts(u64::MAX, 5), &counts(9, 9), &counts(10, 1)),
            counts(10, 1)
        );
    }
}
