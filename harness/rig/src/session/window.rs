//! One run of the workload, with what is counted around it.

use std::time::Duration;

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

/// The line to the probe has a deadline of its own, which says more: this one is only a backstop.
const PROBE_BACKSTOP: Duration = Duration::from_secs(3600);

impl Session {
    /// Runs the workload once, in a window of this kind, under this type of group.
    pub(super) async fn window(
        &mut self,
        launch: &Launch<'_>,
        planned: &PlannedWindow,
    ) -> Result<Window, End> {
        let kind = planned.kind;
        if let Some(group_type) = &planned.group_type {
            self.set_group_type(launch, group_type).await?;
        }
        let counting = kind == WindowKind::Counting;
        // The guest counts for longer than the trace, and can't be stopped while that is switched: what
        // it counts meanwhile may be on either side.
        let mut before = None;
        if counting {
            self.count_dma(launch, Request::CountDma(true)).await?;
            self.trace.take().await.map_err(|error| host_fault(&error))?;
            self.switch_trace(launch, &launch.plan.trace_events, true).await?;
            before = self.count_dma(launch, Request::ReadDma).await?;
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
        let probe = match &mut self.probe {
            Some(probe) => {
                Some(self.vitals.race("the probe", PROBE_BACKSTOP, probe.read_counts()).await?)
            }
            None => None,
        };
        if !counting {
            let group_type = planned.group_type.clone();
            return Ok(Window { probe, ..Window::new(kind, group_type, report) });
        }
        let until = self.count_dma(launch, Request::ReadDma).await?;
        self.switch_trace(launch, &launch.plan.trace_events, false).await?;
        let taken =
            self.vitals.race("end of the trace", launch.deadlines.request, self.trace.take());
        let trace = Some(taken.await?);
        let dma = self.count_dma(launch, Request::CountDma(false)).await?;
        let dma_at_edges = match (&before, &until, &dma) {
            (Some(before), Some(until), Some(dma)) => Some(at_edges(before, until, dma)),
            _ => None,
        };
        let group_type = planned.group_type.clone();
        Ok(Window { trace, dma, dma_at_edges, probe, ..Window::new(kind, group_type, report) })
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

/// What was counted before the trace was all on, and since it began to be switched off. The numbers are
/// a guest's: they may be anything.
fn at_edges(before: &DmaCounts, until: &DmaCounts, dma: &DmaCounts) -> DmaCounts {
    let of = |counts: &DmaCounts, name: &str| counts.events.get(name).copied().unwrap_or(0);
    let events = dma.events.iter().map(|(name, all)| {
        let since = all.saturating_sub(of(until, name));
        (name.clone(), of(before, name).saturating_add(since).min(*all))
    });
    DmaCounts { events: events.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_happens_while_the_trace_is_switched() {
        let counts = |maps, unmaps| DmaCounts {
            events: [("iommu:map".to_owned(), maps), ("iommu:unmap".to_owned(), unmaps)].into(),
        };
        let edges = at_edges(&counts(3, 0), &counts(100, 90), &counts(109, 99));
        assert_eq!(edges, counts(12, 9));
        assert_eq!(at_edges(&counts(0, 0), &counts(7, 7), &counts(7, 7)), counts(0, 0));
        // Nonsense from a guest is no more than all.
        assert_eq!(at_edges(&counts(u64::MAX, 5), &counts(9, 9), &counts(10, 1)), counts(10, 1));
    }
}
