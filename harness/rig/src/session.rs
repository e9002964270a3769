//! A running guest with all the channels to it.

use std::{fs::File, io, path::Path, time::Duration};

use dmarig_model::{
    observation::{End, LogSource, Observation, WindowKind},
    probe::Request,
};
use dmarig_wire::{Reply, Request as AgentRequest};
use tokio::{net::UnixListener, sync::watch};

use crate::{
    agent::{AgentError, AgentLink},
    console::{Console, LastLine},
    guest::{Launch, Stage},
    kernel_log::console_log,
    probe::{self, ProbeError, ProbeLink, ProbeProcess, tells_of_trouble},
    process::Process,
    qmp::{self, Qmp, QmpError},
    trace::Trace,
    vitals::{Fault, PhaseClock, Vitals, interrupted},
    workdir::Workdir,
};

mod attack;
mod coherence;
mod collect;
mod look;
mod window;

/// A guest that runs, or is about to.
pub(crate) struct Session {
    // Fields drop in this order: QEMU is killed before its probe, and before its directory goes.
    vitals: Vitals,
    qmp: Qmp,
    agent: AgentLink,
    trace: Trace,
    probe: Option<ProbeLink>,
    _workdir: Workdir,
}

/// Sockets that QEMU connects to.
struct Listeners {
    console: UnixListener,
    agent: UnixListener,
    qmp: UnixListener,
}

impl Listeners {
    fn bind(directory: &Path) -> io::Result<Self> {
        let bind = |name: &str| {
            let path = directory.join(name);
            UnixListener::bind(&path).map_err(|error| {
                let shown = path.display();
                let hint = match error.kind() {
                    io::ErrorKind::InvalidInput => {
                        " (too long for a socket's path: name a shorter place by TMPDIR)"
                    }
                    _ => "",
                };
                io::Error::new(error.kind(), format!("can't listen on {shown}: {error}{hint}"))
            })
        };
        Ok(Self {
            console: bind("console.sock")?,
            agent: bind("agent.sock")?,
            qmp: bind("qmp.sock")?,
        })
    }
}

fn host_fault(error: &dyn std::fmt::Display) -> End {
    End::HostFault { what: error.to_string() }
}

/// How long a probe gets to be seen dead where QEMU died, or complains of it: of the two, the probe's
/// end is the cause.
const TOGETHER: Duration = Duration::from_millis(500);
/// Characters of a probe's last words that are shown behind those of its QEMU.
const PROBE_SHOWN: usize = 400;

/// The end of a QEMU that has exited by itself, or for its probe.
pub(crate) async fn died(process: &mut Process, probe: Option<&mut ProbeProcess>) -> End {
    let (status, mut stderr) = (process.exited().await, process.stderr().await);
    let Some(probe) = probe else { return End::QemuDied { status, stderr } };
    if tokio::time::timeout(TOGETHER, probe.process.exited()).await.is_ok() {
        return probe_died(probe).await;
    }
    if let Some(line) = stderr.lines().find(|line| tells_of_trouble(line)) {
        return device_trouble(line, probe).await;
    }
    // Whoever it was, one should not have to look for them (QEMU 11.1 crashes on half a reply).
    let words = probe.process.stderr().await;
    let more = words.chars().count().saturating_sub(PROBE_SHOWN);
    if !words.is_empty() {
        stderr.push_str("\nthe probe's last words: ");
        stderr.extend(words.chars().skip(more));
    }
    End::QemuDied { status, stderr }
}

/// The end of a probe that has exited by itself.
pub(crate) async fn probe_died(probe: &mut ProbeProcess) -> End {
    let (status, words) = (probe.process.exited().await, probe.process.stderr().await);
    End::HostFault {
        what: format!("the probe ended by itself ({status}); its last words: {words}"),
    }
}

/// The end of a guest whose QEMU says that the probe does not serve it as it should.
pub(crate) async fn device_trouble(line: &str, probe: &mut ProbeProcess) -> End {
    if tokio::time::timeout(TOGETHER, probe.process.exited()).await.is_ok() {
        return probe_died(probe).await;
    }
    let words = probe.process.stderr().await;
    End::HostFault {
        what: format!("QEMU says of the probe: {line}; the probe's last words: {words}"),
    }
}

/// The end of a guest whose QEMU lives on without the probe.
pub(crate) async fn given_up(what: &str, probe: &mut ProbeProcess) -> End {
    let words = probe.process.stderr().await;
    End::HostFault {
        what: format!("QEMU and the probe have parted: {what}; the probe's last words: {words}"),
    }
}

impl Session {
    /// Starts QEMU, stopped, and its probe.
    pub(crate) async fn start(
        launch: &Launch<'_>,
        interrupt: watch::Receiver<bool>,
    ) -> Result<Self, End> {
        let log = |name: &str| {
            let path = launch.artifacts.as_ref().map(|directory| directory.join(name));
            path.map(|path| {
                File::create(&path).map_err(|error| End::HostFault {
                    what: format!("can't write {}: {error}", path.display()),
                })
            })
            .transpose()
        };
        let (console_log, qmp_log) = (log("console.log")?, log("qmp.log")?);
        let probe_log =
            launch.probe.as_ref().and_then(|_| log("probe.log").transpose()).transpose()?;
        let workdir = Workdir::new().map_err(|error| host_fault(&error))?;
        if launch.plan.disk {
            workdir.make_disk().map_err(|error| host_fault(&error))?;
        }
        let listeners = Listeners::bind(workdir.path()).map_err(|error| host_fault(&error))?;
        let trace = Trace::start(workdir.path()).map_err(|error| host_fault(&error))?;
        let (mut probe, link) = match &launch.probe {
            None => (None, None),
            Some(wanted) => {
                let answer = launch.deadlines.qmp;
                let (process, link) = probe::start(wanted, workdir.path(), probe_log, answer)
                    .await
                    .map_err(|error| host_fault(&error))?;
                (Some(process), Some(link))
            }
        };
        let mut process = Process::spawn(&launch.plan.argv(), workdir.path())
            .map_err(|error| host_fault(&error))?;
        let accept = async {
            let ((console, _), (agent, _), (qmp, _)) = tokio::try_join!(
                listeners.console.accept(),
                listeners.agent.accept(),
                listeners.qmp.accept()
            )?;
            Ok::<_, io::Error>((console, agent, qmp))
        };
        let after = launch.deadlines.spawn;
        let (console, agent, qmp) = tokio::select! {
            accepted = accept => accepted.map_err(|error| host_fault(&error))?,
            _ = process.exited() => return Err(died(&mut process, probe.as_mut()).await),
            () = interrupted(interrupt.clone()) => return Err(End::Interrupted),
            () = tokio::time::sleep(after) => {
                process.end(Duration::ZERO).await;
                return Err(End::HostFault { what: format!(
                    "QEMU did not connect its channels within {after:?}; its last words: {}",
                    process.stderr().await
                )});
            }
        };
        let console = Console::start(console, console_log);
        let opened = tokio::select! {
            opened = Qmp::open(qmp, qmp_log, launch.deadlines.qmp) => opened,
            _ = process.exited() => return Err(died(&mut process, probe.as_mut()).await),
            () = interrupted(interrupt.clone()) => return Err(End::Interrupted),
        };
        let (qmp, events) = match opened {
            Ok(opened) => opened,
            // A monitor that is closed mostly means that QEMU is ending, and its end says more.
            Err(error) => {
                let ending = tokio::time::timeout(launch.deadlines.end, process.exited());
                return Err(match ending.await {
                    Ok(_) => died(&mut process, probe.as_mut()).await,
                    Err(_) => host_fault(&error),
                });
            }
        };
        let vitals = Vitals::new(process, probe, console, events, interrupt);
        let agent = AgentLink::new(agent);
        Ok(Self { vitals, qmp, agent, trace, probe: link, _workdir: workdir })
    }

    /// What tells the console's last line while the guest is driven.
    pub(crate) fn last_line(&self) -> LastLine {
        self.vitals.console.last_line()
    }

    /// All that is done with a guest that behaves.
    pub(crate) async fn drive(
        &mut self,
        launch: &Launch<'_>,
        observation: &mut Observation,
        clock: &mut PhaseClock,
        progress: &dyn Fn(Stage),
    ) -> Result<(), End> {
        self.switch_trace(launch, &["*"], false).await?;
        self.look_from_the_host(launch, observation).await?;
        self.qmp(launch, qmp::Continue {}).await?;
        progress(Stage::Booting);
        clock.lap("spawn");
        let hello = self.greeting(launch).await?;
        let console = &self.vitals.console;
        clock.lap_at("firmware", console.first_byte());
        clock.lap_at("kernel", console.init_started());
        clock.lap("agent");
        observation.release = Some(hello.release);
        observation.module_errors =
            hello.modules.into_iter().filter_map(|(name, error)| Some((name, error?))).collect();
        observation.guest = Some(self.describe(launch).await?);
        clock.lap("agent");
        let of = launch.windows.len();
        for (index, planned) in launch.windows.iter().enumerate() {
            progress(Stage::Working { kind: planned.kind, number: index + 1, of });
            let mut window = self.window(launch, planned).await?;
            if planned.kind == WindowKind::Counting && self.probe.is_some() {
                window.coherence = self.coherence(launch, observation).await?;
            }
            observation.windows.push(window);
        }
        for kind in &launch.attacks {
            self.attack(launch, *kind, observation).await?;
        }
        clock.lap("workload");
        progress(Stage::Collecting);
        if let Some(collect) = &launch.collect {
            self.collect(launch, collect).await?;
        }
        if of > 0 {
            observation.guest_after = Some(self.describe(launch).await?);
        }
        self.read_log(launch, &mut observation.log).await?;
        clock.lap("collect");
        Ok(())
    }

    async fn qmp<C: qapi::qmp::QmpCommand>(
        &mut self,
        launch: &Launch<'_>,
        command: C,
    ) -> Result<C::Ok, End> {
        // The connection has a deadline of its own, which says more: this one is only a backstop.
        let after = launch.deadlines.qmp + Duration::from_secs(5);
        let what = format!("answer to `{}`", C::NAME);
        self.vitals.race(&what, after, self.qmp.execute(command)).await
    }

    async fn ask(
        &mut self,
        what: &str,
        after: Duration,
        request: &AgentRequest,
    ) -> Result<Reply, End> {
        self.vitals.race(what, after, self.agent.ask(request)).await
    }

    /// Ends the guest in whatever state it is, and tells how it had ended.
    pub(crate) async fn finish(
        mut self,
        launch: &Launch<'_>,
        observation: &mut Observation,
        driven: Result<(), End>,
    ) -> End {
        let grace = launch.deadlines.end;
        let mut end = self.blame(driven.err().unwrap_or(End::Completed), grace).await;
        if end == End::Completed {
            // QEMU closes the connection before or after it answers: both are an end.
            let _ = self.qmp.execute(qmp::Quit {}).await;
        }
        let leaves_by_itself = matches!(
            end,
            End::Completed | End::Panicked { .. } | End::WentDown { .. } | End::QemuDied { .. }
        );
        let gone = leaves_by_itself
            && tokio::time::timeout(grace, self.vitals.process.exited()).await.is_ok();
        if !gone {
            self.vitals.process.end(grace).await;
        }
        if let Some(mut link) = self.probe.take() {
            let _ = link.ask(&Request::Quit).await;
        }
        if let Some(probe) = &mut self.vitals.probe
            && tokio::time::timeout(grace, probe.process.exited()).await.is_err()
        {
            probe.process.end(grace).await;
        }
        observation.qemu_stderr = self.vitals.process.stderr().await;
        let _ = tokio::time::timeout(grace, self.vitals.console.ended()).await;
        // The panic's line may come later than the reset that it leads to.
        if let (Some(message), End::WentDown { .. } | End::QemuDied { .. }) =
            (self.vitals.console.panic(), &end)
        {
            end = End::Panicked { message };
        }
        if observation.log.source == LogSource::None || end != End::Completed {
            observation.log = console_log(&self.vitals.console.text());
        }
        observation.events = self.vitals.take_events();
        end
    }

    /// The end that a guest has come to, unless its probe is to blame for it: what a guest makes of a
    /// device that fails says nothing of its kernel.
    async fn blame(&mut self, end: End, within: Duration) -> End {
        let Vitals { process, probe: Some(probe), .. } = &mut self.vitals else { return end };
        if matches!(end, End::HostFault { .. } | End::Interrupted) {
            return end;
        }
        let said = process.words().text();
        if let Some(line) = said.lines().find(|line| tells_of_trouble(line)) {
            return device_trouble(line, probe).await;
        }
        let Some(link) = self.probe.as_mut().filter(|_| end != End::Completed) else { return end };
        match link.is_well(within).await {
            Ok(()) => end,
            Err(error) => {
                let words = probe.process.stderr().await;
                let what =
                    format!("the probe is of no use any more: {error}; its last words: {words}");
                End::HostFault { what }
            }
        }
    }
}

fn broken(error: AgentError) -> End {
    End::ChannelBroken { what: error.to_string() }
}

impl From<AgentError> for Fault {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Failed(what) => Self::Known(End::AgentFailed { what }),
            AgentError::NotInTime { what, after_ms } => Self::Known(End::TimedOut {
                waiting_for: "usable device".to_owned(),
                after_ms,
                last: what,
            }),
            AgentError::Io(_) => Self::Ended(broken(error)),
            other => Self::Known(broken(other)),
        }
    }
}

impl From<QmpError> for Fault {
    fn from(error: QmpError) -> Self {
        match error {
            QmpError::Closed => Self::Ended(host_fault(&error)),
            other => Self::Known(host_fault(&other)),
        }
    }
}

impl From<ProbeError> for Fault {
    fn from(error: ProbeError) -> Self {
        match error {
            // Its end says more.
            ProbeError::Closed | ProbeError::Io(_) => Self::Ended(host_fault(&error)),
            other => Self::Known(host_fault(&other)),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Ended(host_fault(&error))
    }
}
