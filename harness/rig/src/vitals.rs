//! What every wait is raced against: QEMU's end, a panic, an event, the user, and the clock.

use std::time::{Duration, Instant};

use dmarig_model::observation::{End, Phase, QmpEvent};
use tokio::sync::watch;

use crate::{
    console::Console,
    probe::{self, ProbeProcess, tells_of_trouble},
    process::{Process, Words},
    qmp::Events,
    session::{device_trouble, died, given_up, probe_died},
};

/// Events that are kept for the record.
const MAX_EVENTS: usize = 256;
/// Bytes of the console's end that an error shows.
const CONSOLE_SHOWN: usize = 1500;
/// Events of ordinary operation, not worth a record.
const ORDINARY: &[&str] = &["RESUME", "RTC_CHANGE", "NIC_RX_FILTER_CHANGED", "DEVICE_TRAY_MOVED"];
/// A channel that closes mostly means that QEMU is ending: how long that is waited for.
const ENDING: Duration = Duration::from_secs(5);

/// Why what was waited for has failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// For this reason.
    Known(End),
    /// Its channel ended, which is mostly the trace of something else; else for this reason.
    Ended(End),
}

/// A guest's signs of life.
#[derive(Debug)]
pub(crate) struct Vitals {
    pub(crate) process: Process,
    pub(crate) probe: Option<ProbeProcess>,
    pub(crate) console: Console,
    events: Events,
    events_ended: bool,
    seen: Vec<QmpEvent>,
    interrupt: watch::Receiver<bool>,
}

impl Vitals {
    pub(crate) fn new(
        process: Process,
        probe: Option<ProbeProcess>,
        console: Console,
        events: Events,
        interrupt: watch::Receiver<bool>,
    ) -> Self {
        Self { process, probe, console, events, events_ended: false, seen: Vec::new(), interrupt }
    }

    /// Waits for `future`, for the guest's end, for the user's interrupt or for the deadline,
    /// whichever comes first.
    pub(crate) async fn race<T, E: Into<Fault>>(
        &mut self,
        what: &str,
        after: Duration,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, End> {
        let interrupt = self.interrupt.clone();
        let fault = tokio::select! {
            biased;
            done = future => match done {
                Ok(value) => return Ok(value),
                Err(error) => error.into(),
            },
            end = self.end() => return Err(end),
            () = interrupted(interrupt) => return Err(End::Interrupted),
            () = tokio::time::sleep(after) => {
                return Err(End::TimedOut {
                    waiting_for: what.to_owned(),
                    after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
                    last: self.console.last(CONSOLE_SHOWN),
                });
            }
        };
        match fault {
            Fault::Known(end) => Err(end),
            Fault::Ended(why) => Err(tokio::time::timeout(ENDING, self.end()).await.unwrap_or(why)),
        }
    }

    /// Waits until the guest can't go on; may be dropped and called again.
    async fn end(&mut self) -> End {
        loop {
            let words = self.process.words();
            tokio::select! {
                biased;
                message = self.console.panicked() => return End::Panicked { message },
                event = self.events.recv(), if !self.events_ended => match event {
                    Some(event) => {
                        let end = meaning(&event);
                        self.keep(event);
                        if let Some(end) = end {
                            return end;
                        }
                    }
                    // A guest that nobody can command any more is of no use; QEMU is mostly about
                    // to end, and its end says more.
                    None => {
                        if tokio::time::timeout(ENDING, self.process.exited()).await.is_err() {
                            let what = "QEMU closed its monitor and did not end".to_owned();
                            return End::HostFault { what };
                        }
                        self.events_ended = true;
                    }
                },
                _ = self.process.exited() => {
                    // An event that tells why may still be on its way here: the last one has come
                    // when the connection's end has.
                    while let Ok(Some(event)) =
                        tokio::time::timeout(ENDING, self.events.recv()).await
                    {
                        let end = meaning(&event);
                        self.keep(event);
                        if let Some(end) = end {
                            return end;
                        }
                    }
                    return died(&mut self.process, self.probe.as_mut()).await;
                }
                news = news_of(self.probe.as_mut(), words) => {
                    let Some(probe) = &mut self.probe else { continue };
                    match news {
                        News::Died => return probe_died(probe).await,
                        News::Trouble(line) => return device_trouble(&line, probe).await,
                        News::Lost(what) => {
                            // Mostly it is QEMU that ends, and how it does says more.
                            if tokio::time::timeout(ENDING, self.process.exited()).await.is_err() {
                                return given_up(&what, probe).await;
                            }
                        }
                    }
                }
            }
        }
    }

    fn keep(&mut self, event: QmpEvent) {
        if !ORDINARY.contains(&event.name.as_str()) && self.seen.len() < MAX_EVENTS {
            self.seen.push(event);
        }
    }

    /// The events that were seen.
    pub(crate) fn take_events(&mut self) -> Vec<QmpEvent> {
        while let Ok(event) = self.events.try_recv() {
            self.keep(event);
        }
        std::mem::take(&mut self.seen)
    }
}

/// What becomes of a probe, or of what QEMU thinks of it.
enum News {
    Died,
    Lost(String),
    Trouble(String),
}

/// The next of it, where QEMU's words are these; never where there is no probe.
async fn news_of(probe: Option<&mut ProbeProcess>, words: Words) -> News {
    let Some(ProbeProcess { process, lost }) = probe else { return std::future::pending().await };
    tokio::select! {
        biased;
        _ = process.exited() => News::Died,
        line = words.line(tells_of_trouble) => News::Trouble(line),
        what = probe::lost(lost.clone()) => News::Lost(what),
    }
}

/// What an event says of the guest's end, if anything.
fn meaning(event: &QmpEvent) -> Option<End> {
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

/// Returns when the user stops the run.
pub(crate) async fn interrupted(mut interrupt: watch::Receiver<bool>) {
    if interrupt.wait_for(|interrupted| *interrupted).await.is_err() {
        // Nobody is left who could interrupt.
        std::future::pending().await
    }
}

/// Cuts a guest's time into phases.
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

    /// Ends a phase at a moment that was noted, if it was.
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
