//! Waits that end early: when QEMU exits, the kernel panics, an event says so, or the user interrupts.

use std::time::{Duration, Instant};

use dmarig_model::observation::{End, Phase, QmpEvent};
use tokio::sync::watch;

use crate::{
    blame::{WaitError, device_trouble, probe_disconnected, probe_exit, qemu_exit},
    console::Console,
    probe::{ProbeProcess, reports_device_trouble, wait_for_lost_qemu},
    process::{Process, StderrTail},
    qmp::Events,
};

/// Number of events that are kept for the record.
const MAX_EVENTS: usize = 256;
/// Bytes of the console's end that a timeout shows.
const CONSOLE_SHOWN: usize = 1500;
/// Events of ordinary operation, which are not recorded.
const ORDINARY_EVENTS: &[&str] =
    &["RESUME", "RTC_CHANGE", "NIC_RX_FILTER_CHANGED", "DEVICE_TRAY_MOVED"];
/// Time that QEMU gets to exit after one of its channels was closed, which mostly means that it is
/// exiting.
const EXIT_GRACE: Duration = Duration::from_secs(5);

/// The channels that show whether a guest is alive.
#[derive(Debug)]
pub(crate) struct Vitals {
    pub(crate) qemu: Process,
    pub(crate) probe: Option<ProbeProcess>,
    pub(crate) console: Console,
    events: Events,
    events_closed: bool,
    recorded_events: Vec<QmpEvent>,
    interrupt: watch::Receiver<bool>,
}

impl Vitals {
    pub(crate) fn new(
        qemu: Process,
        probe: Option<ProbeProcess>,
        console: Console,
        events: Events,
        interrupt: watch::Receiver<bool>,
    ) -> Self {
        Self {
            qemu,
            probe,
            console,
            events,
            events_closed: false,
            recorded_events: Vec::new(),
            interrupt,
        }
    }

    /// Waits for `future`, for the guest's end, for the user's interrupt or for the deadline,
    /// whichever comes first.
    pub(crate) async fn race<T, E: Into<WaitError>>(
        &mut self,
        what: &str,
        deadline: Duration,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, End> {
        let interrupt = self.interrupt.clone();
        let error = tokio::select! {
            biased;
            result = future => match result {
                Ok(value) => return Ok(value),
                Err(error) => error.into(),
            },
            end = self.wait_for_end() => return Err(end),
            () = interrupted(interrupt) => return Err(End::Interrupted),
            () = tokio::time::sleep(deadline) => {
                return Err(End::TimedOut {
                    waiting_for: what.to_owned(),
                    after_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
                    last: self.console.last(CONSOLE_SHOWN),
                });
            }
        };
        match error {
            WaitError::Reason(end) => Err(end),
            WaitError::ChannelClosed(end) => {
                let cause = tokio::time::timeout(EXIT_GRACE, self.wait_for_end()).await;
                Err(cause.unwrap_or(end))
            }
        }
    }

    /// Waits until the guest can't go on; may be dropped and called again.
    async fn wait_for_end(&mut self) -> End {
        loop {
            let stderr = self.qemu.stderr_tail();
            tokio::select! {
                biased;
                message = self.console.wait_for_panic() => return End::Panicked { message },
                event = self.events.recv(), if !self.events_closed => match event {
                    Some(event) => {
                        if let Some(end) = self.record(event) {
                            return end;
                        }
                    }
                    None => {
                        if let Some(end) = self.monitor_closed().await {
                            return end;
                        }
                    }
                },
                _ = self.qemu.wait_for_exit() => return self.qemu_exited().await,
                event = next_probe_event(self.probe.as_mut(), stderr) => {
                    if let Some(end) = self.probe_end(event).await {
                        return end;
                    }
                }
            }
        }
    }

    /// Waits for QEMU's exit, which says more than its closed monitor. A guest without a monitor
    /// can't be commanded any more, so it has ended if QEMU does not exit.
    async fn monitor_closed(&mut self) -> Option<End> {
        let exit = tokio::time::timeout(EXIT_GRACE, self.qemu.wait_for_exit()).await;
        if exit.is_err() {
            let what = "QEMU closed its monitor and did not end".to_owned();
            return Some(End::HostFault { what });
        }
        self.events_closed = true;
        None
    }

    /// The end of a guest whose QEMU has exited. An event that says why may still be on its way: the
    /// last one has come when the connection's end has.
    async fn qemu_exited(&mut self) -> End {
        while let Ok(Some(event)) = tokio::time::timeout(EXIT_GRACE, self.events.recv()).await {
            if let Some(end) = self.record(event) {
                return end;
            }
        }
        qemu_exit(&mut self.qemu, self.probe.as_mut()).await
    }

    async fn probe_end(&mut self, event: ProbeEvent) -> Option<End> {
        let probe = self.probe.as_mut()?;
        match event {
            ProbeEvent::Exited => Some(probe_exit(probe).await),
            ProbeEvent::Trouble(line) => Some(device_trouble(&line, probe).await),
            ProbeEvent::Disconnected(what) => {
                // The usual cause is QEMU's exit, which says more.
                let exit = tokio::time::timeout(EXIT_GRACE, self.qemu.wait_for_exit()).await;
                if exit.is_ok() { None } else { Some(probe_disconnected(&what, probe).await) }
            }
        }
    }

    /// Records an event and returns the end that it means for the guest, if any.
    fn record(&mut self, event: QmpEvent) -> Option<End> {
        let end = end_by_event(&event);
        let ordinary = ORDINARY_EVENTS.contains(&event.name.as_str());
        if !ordinary && self.recorded_events.len() < MAX_EVENTS {
            self.recorded_events.push(event);
        }
        end
    }

    /// Takes the events that were recorded.
    pub(crate) fn take_events(&mut self) -> Vec<QmpEvent> {
        while let Ok(event) = self.events.try_recv() {
            self.record(event);
        }
        std::mem::take(&mut self.recorded_events)
    }
}

/// A sign that the probe does not serve its device any more.
enum ProbeEvent {
    Exited,
    Disconnected(String),
    /// A line of QEMU's standard error that complains of the probe.
    Trouble(String),
}

/// Waits for the next sign; for ever if there is no probe.
async fn next_probe_event(probe: Option<&mut ProbeProcess>, qemu_stderr: StderrTail) -> ProbeEvent {
    let Some(ProbeProcess { process, lost_qemu }) = probe else {
        return std::future::pending().await;
    };
    tokio::select! {
        biased;
        _ = process.wait_for_exit() => ProbeEvent::Exited,
        line = qemu_stderr.wait_for_line(reports_device_trouble) => ProbeEvent::Trouble(line),
        what = wait_for_lost_qemu(lost_qemu.clone()) => ProbeEvent::Disconnected(what),
    }
}

/// The guest's end that an event reports, if it does.
fn end_by_event(event: &QmpEvent) -> Option<End> {
    let text = |key: &str| event.data[key].as_str().unwrap_or("unknown").to_owned();
    match event.name.as_str() {
        "GUEST_PANICKED" | "GUEST_CRASHLOADED" => {
            Some(End::Panicked { message: format!("QEMU reports {}", event.name) })
        }
        "SHUTDOWN" => Some(End::WentDown { reason: text("reason") }),
        "BLOCK_IO_ERROR" if event.data["nospace"] == true => Some(End::HostFault {
            what: "no space is left for the file of the guest's disk; make room or name another place \
                   by TMPDIR"
                .to_owned(),
        }),
        "WATCHDOG" => Some(End::WentDown { reason: format!("watchdog: {}", text("action")) }),
        // The rig itself never stops a guest.
        "STOP" => Some(End::HostFault {
            what: "QEMU has stopped the guest by itself, as on an error of its disk".to_owned(),
        }),
        _ => None,
    }
}

/// Returns when the user interrupts the run.
pub(crate) async fn interrupted(mut interrupt: watch::Receiver<bool>) {
    if interrupt.wait_for(|interrupted| *interrupted).await.is_err() {
        // Nobody is left who could interrupt.
        std::future::pending().await
    }
}

/// Measures the phases of a guest's run.
#[derive(Debug)]
pub(crate) struct PhaseClock {
    last: Instant,
    phases: Vec<Phase>,
}

impl PhaseClock {
    pub(crate) fn start(planned_in: Duration) -> Self {
        let mut clock = Self { last: Instant::now(), phases: Vec::new() };
        clock.add("plan", planned_in);
        clock
    }

    /// Ends a phase now.
    pub(crate) fn lap(&mut self, name: &str) {
        self.lap_at(name, Some(Instant::now()));
    }

    /// Ends a phase at a moment that was noted; does nothing for `None`.
    pub(crate) fn lap_at(&mut self, name: &str, at: Option<Instant>) {
        let Some(at) = at else { return };
        self.add(name, at.saturating_duration_since(self.last));
        self.last = self.last.max(at);
    }

    fn add(&mut self, name: &str, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        match self.phases.iter_mut().find(|phase| phase.name == name) {
            Some(phase) => phase.us += us,
            None => self.phases.push(Phase { name: name.to_owned(), us }),
        }
    }

    pub(crate) fn into_phases(self) -> Vec<Phase> {
        self.phases
    }
}
