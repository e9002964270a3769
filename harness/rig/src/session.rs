//! A running guest with all the channels to it.

use std::{fs::File, io, path::Path, time::Duration};

use dmarig_model::{
    observation::{End, LogSource, Observation, WindowKind},
    probe::Request,
    viommu,
};
use dmarig_wire::{Reply, Request as AgentRequest};
use qapi::qmp::{QmpCommand, cont, quit};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
};

use crate::{
    agent::AgentLink,
    blame::{attribute, host_fault, qemu_exit},
    console::{Console, LastLine},
    kernel_log::console_log,
    launch::{Launch, Stage},
    probe::{self, ProbeLink, ProbeProcess},
    process::Process,
    qmp::{Events, Qmp},
    trace::Trace,
    vitals::{PhaseClock, Vitals, interrupted},
    workdir::Workdir,
};

mod attack;
mod coherence;
mod collect;
mod look;
mod window;

/// Time that the deadline of a QMP command exceeds that of its connection, whose error says more.
const QMP_BACKSTOP: Duration = Duration::from_secs(5);

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

/// Connections from QEMU.
struct Channels {
    console: UnixStream,
    agent: UnixStream,
    qmp: UnixStream,
}

impl Listeners {
    fn bind(directory: &Path) -> io::Result<Self> {
        Ok(Self {
            console: bind(directory, "console.sock")?,
            agent: bind(directory, "agent.sock")?,
            qmp: bind(directory, "qmp.sock")?,
        })
    }

    async fn accept(&self) -> io::Result<Channels> {
        let ((console, _), (agent, _), (qmp, _)) =
            tokio::try_join!(self.console.accept(), self.agent.accept(), self.qmp.accept())?;
        Ok(Channels { console, agent, qmp })
    }
}

fn bind(directory: &Path, name: &str) -> io::Result<UnixListener> {
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
}

/// Logs of one guest, where they are wanted.
struct Logs {
    console: Option<File>,
    qmp: Option<File>,
    probe: Option<File>,
}

impl Logs {
    fn create(launch: &Launch<'_>) -> Result<Self, End> {
        let Some(directory) = &launch.artifacts else {
            return Ok(Self { console: None, qmp: None, probe: None });
        };
        let probe = match &launch.probe {
            Some(_) => Some(create_log(directory, "probe.log")?),
            None => None,
        };
        Ok(Self {
            console: Some(create_log(directory, "console.log")?),
            qmp: Some(create_log(directory, "qmp.log")?),
            probe,
        })
    }
}

fn create_log(directory: &Path, name: &str) -> Result<File, End> {
    let path = directory.join(name);
    File::create(&path).map_err(|error| End::HostFault {
        what: format!("can't write {}: {error}", path.display()),
    })
}

fn prepare_workdir(launch: &Launch<'_>) -> io::Result<(Workdir, Listeners, Trace)> {
    let workdir = Workdir::new()?;
    if launch.plan.disk {
        workdir.make_disk()?;
    }
    let listeners = Listeners::bind(workdir.path())?;
    let trace = Trace::start(workdir.path(), viommu::for_axes(launch.axes))?;
    Ok((workdir, listeners, trace))
}

/// Waits until QEMU has connected all its channels.
async fn connect(
    listeners: &Listeners,
    qemu: &mut Process,
    probe: Option<&mut ProbeProcess>,
    deadline: Duration,
    interrupt: watch::Receiver<bool>,
) -> Result<Channels, End> {
    tokio::select! {
        accepted = listeners.accept() => accepted.map_err(|error| host_fault(&error)),
        _ = qemu.wait_for_exit() => Err(qemu_exit(qemu, probe).await),
        () = interrupted(interrupt) => Err(End::Interrupted),
        () = tokio::time::sleep(deadline) => {
            qemu.stop(Duration::ZERO).await;
            Err(End::HostFault { what: format!(
                "QEMU did not connect its channels within {deadline:?}; its last words: {}",
                qemu.stderr().await
            )})
        }
    }
}

/// Negotiates QMP.
async fn open_qmp(
    socket: UnixStream,
    log: Option<File>,
    launch: &Launch<'_>,
    qemu: &mut Process,
    probe: Option<&mut ProbeProcess>,
    interrupt: watch::Receiver<bool>,
) -> Result<(Qmp, Events), End> {
    let opened = tokio::select! {
        opened = Qmp::open(socket, log, launch.deadlines.qmp) => opened,
        _ = qemu.wait_for_exit() => return Err(qemu_exit(qemu, probe).await),
        () = interrupted(interrupt) => return Err(End::Interrupted),
    };
    match opened {
        Ok(opened) => Ok(opened),
        // A monitor that is closed mostly means that QEMU is exiting, and its exit says more.
        Err(error) => {
            let exit = tokio::time::timeout(launch.deadlines.end, qemu.wait_for_exit()).await;
            Err(if exit.is_ok() { qemu_exit(qemu, probe).await } else { host_fault(&error) })
        }
    }
}

impl Session {
    /// Starts the probe, and QEMU with its processors stopped.
    pub(crate) async fn start(
        launch: &Launch<'_>,
        interrupt: watch::Receiver<bool>,
    ) -> Result<Self, End> {
        let logs = Logs::create(launch)?;
        let (workdir, listeners, trace) =
            prepare_workdir(launch).map_err(|error| host_fault(&error))?;
        let (mut probe, link) = match &launch.probe {
            None => (None, None),
            Some(wanted) => {
                let deadline = launch.deadlines.qmp;
                let started = probe::start(wanted, workdir.path(), logs.probe, deadline).await;
                let (process, link) = started.map_err(|error| host_fault(&error))?;
                (Some(process), Some(link))
            }
        };
        let mut qemu = Process::spawn(&launch.plan.argv(), workdir.path())
            .map_err(|error| host_fault(&error))?;
        let deadline = launch.deadlines.spawn;
        let channels =
            connect(&listeners, &mut qemu, probe.as_mut(), deadline, interrupt.clone()).await?;
        let console = Console::start(channels.console, logs.console);
        let (qmp, events) =
            open_qmp(channels.qmp, logs.qmp, launch, &mut qemu, probe.as_mut(), interrupt.clone())
                .await?;
        let vitals = Vitals::new(qemu, probe, console, events, interrupt);
        let agent = AgentLink::new(channels.agent);
        Ok(Self { vitals, qmp, agent, trace, probe: link, _workdir: workdir })
    }

    /// The console's last line, which can be read while the guest is driven.
    pub(crate) fn last_line(&self) -> LastLine {
        self.vitals.console.last_line()
    }

    /// Boots the guest, runs all windows and attacks, and collects its files and its kernel log.
    pub(crate) async fn drive(
        &mut self,
        launch: &Launch<'_>,
        observation: &mut Observation,
        clock: &mut PhaseClock,
        progress: &dyn Fn(Stage),
    ) -> Result<(), End> {
        self.boot(launch, observation, clock, progress).await?;
        let total = launch.windows.len();
        for (index, planned) in launch.windows.iter().enumerate() {
            progress(Stage::Working { kind: planned.kind, number: index + 1, total });
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
        if let Some(files) = &launch.guest_files {
            self.collect(launch, files).await?;
        }
        if total > 0 {
            observation.guest_after = Some(self.describe(launch).await?);
        }
        self.read_log(launch, &mut observation.log).await?;
        clock.lap("collect");
        Ok(())
    }

    async fn boot(
        &mut self,
        launch: &Launch<'_>,
        observation: &mut Observation,
        clock: &mut PhaseClock,
        progress: &dyn Fn(Stage),
    ) -> Result<(), End> {
        self.switch_trace(launch, &["*"], false).await?;
        self.look_from_the_host(launch, observation).await?;
        self.qmp(launch, cont {}).await?;
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
        Ok(())
    }

    async fn qmp<C: QmpCommand>(&mut self, launch: &Launch<'_>, command: C) -> Result<C::Ok, End> {
        let deadline = launch.deadlines.qmp + QMP_BACKSTOP;
        let what = format!("answer to `{}`", C::NAME);
        self.vitals.race(&what, deadline, self.qmp.execute(command)).await
    }

    async fn ask(
        &mut self,
        what: &str,
        deadline: Duration,
        request: &AgentRequest,
    ) -> Result<Reply, End> {
        self.vitals.race(what, deadline, self.agent.request(request)).await
    }

    /// Stops the guest in whatever state it is, and returns the end that it had come to.
    pub(crate) async fn finish(
        mut self,
        launch: &Launch<'_>,
        observation: &mut Observation,
        driven: Result<(), End>,
    ) -> End {
        let grace = launch.deadlines.end;
        let end = driven.err().unwrap_or(End::Completed);
        let Vitals { qemu, probe, .. } = &mut self.vitals;
        let mut end = attribute(end, qemu, probe.as_mut(), self.probe.as_mut(), grace).await;
        if end == End::Completed {
            // QEMU closes the connection before or after it answers: both are an end.
            let _ = self.qmp.execute(quit {}).await;
        }
        self.stop_processes(&end, grace).await;
        observation.qemu_stderr = self.vitals.qemu.stderr().await;
        let _ = tokio::time::timeout(grace, self.vitals.console.wait_for_end()).await;
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

    async fn stop_processes(&mut self, end: &End, grace: Duration) {
        let qemu_exits_by_itself = matches!(
            end,
            End::Completed | End::Panicked { .. } | End::WentDown { .. } | End::QemuDied { .. }
        );
        let qemu = &mut self.vitals.qemu;
        let has_exited =
            qemu_exits_by_itself && tokio::time::timeout(grace, qemu.wait_for_exit()).await.is_ok();
        if !has_exited {
            qemu.stop(grace).await;
        }
        if let Some(mut link) = self.probe.take() {
            let _ = link.request(&Request::Quit).await;
        }
        if let Some(probe) = &mut self.vitals.probe
            && tokio::time::timeout(grace, probe.process.wait_for_exit()).await.is_err()
        {
            probe.process.stop(grace).await;
        }
    }
}
