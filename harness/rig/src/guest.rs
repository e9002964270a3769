//! One guest, from its launch to its end.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use dmarig_model::{
    axes::Axes,
    observation::{End, KernelLog, LogSource, Observation, Registers, Setup, Window, WindowKind},
    plan::LaunchPlan,
};
use dmarig_wire::{Hello, Job, LogRecord, Reply, Request};
use tokio::{net::UnixListener, sync::watch};

use crate::{
    agent::{AgentError, AgentLink},
    console::Console,
    deadlines::Deadlines,
    expect_reply,
    process::Process,
    qmp::{self, Qmp, QmpError},
    trace::Trace,
    vitals::{Fault, PhaseClock, Vitals, interrupted},
    workdir::Workdir,
};

/// Physical address of the virtual IOMMU's registers in QEMU's q35 machine.
const REGISTERS: u64 = 0xfed9_0000;
/// Offsets of the capability registers (VT-d specification, chapter "Register Descriptions").
const CAP: u64 = 0x08;
const ECAP: u64 = 0x10;
/// QOM path of the virtual IOMMU, by the id that the plan gives it.
const VIOMMU: &str = "/machine/peripheral/viommu";
/// Pieces of a kernel log that are taken from an agent before it is taken for endless.
const MAX_LOG_PIECES: usize = 64;
/// Bytes of all pieces together: more than a kernel's buffer holds, as text and in memory.
const MAX_LOG_BYTES: usize = 32 << 20;
/// Records that a console's log has at each end where its middle is left out.
const CONSOLE_RECORDS: usize = 20_000;

/// Everything that one guest is run by.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The cell's id.
    pub cell: &'a str,
    /// The case that it is a cell of.
    pub case: &'a str,
    /// What was asked for.
    pub axes: &'a Axes,
    /// How it is launched.
    pub plan: &'a LaunchPlan,
    /// What the record says of that.
    pub setup: Setup,
    /// Properties of the virtual IOMMU to read back.
    pub iommu_properties: Vec<String>,
    /// The work.
    pub job: Job,
    /// The windows, in order, in each of which the work is done once.
    pub windows: Vec<WindowKind>,
    /// How long to wait for what.
    pub deadlines: Deadlines,
    /// Where `console.log` and `qmp.log` go; nowhere if `None`.
    pub artifacts: Option<PathBuf>,
    /// Time that went into planning, for the record.
    pub planned_in: Duration,
}

/// What a guest is doing, for a progress display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// QEMU starts.
    Starting,
    /// Firmware and kernel run.
    Booting,
    /// Window `number` of `of`, from 1.
    Working {
        /// Its kind.
        kind: WindowKind,
        /// Its number.
        number: usize,
        /// How many there are.
        of: usize,
    },
    /// The log is fetched.
    Collecting,
    /// QEMU is ended.
    Ending,
}

/// Runs one guest to its end. Whatever happens is in the observation; no process and no directory
/// is left behind, also where the future is dropped.
pub async fn run(
    launch: &Launch<'_>,
    interrupt: watch::Receiver<bool>,
    progress: &dyn Fn(Stage),
) -> Observation {
    let (cell, case, setup) = (launch.cell, launch.case, launch.setup.clone());
    let mut observation = Observation::unseen(cell, case, launch.axes, setup, End::Completed);
    let mut clock = PhaseClock::start(launch.planned_in);
    progress(Stage::Starting);
    let end = match Session::start(launch, interrupt).await {
        Ok(mut session) => {
            clock.lap("spawn");
            let driven = session.drive(launch, &mut observation, &mut clock, progress).await;
            progress(Stage::Ending);
            let end = session.finish(launch, &mut observation, driven).await;
            clock.lap("teardown");
            end
        }
        Err(end) => end,
    };
    observation.end = end;
    observation.phases = clock.into_phases();
    observation
}

struct Session {
    // Fields drop in this order: QEMU is killed before its directory goes.
    vitals: Vitals,
    qmp: Qmp,
    agent: AgentLink,
    trace: Trace,
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

/// The end of a QEMU that has exited by itself.
pub(crate) async fn died(process: &mut Process) -> End {
    End::QemuDied { status: process.exited().await, stderr: process.stderr().await }
}

impl Session {
    async fn start(launch: &Launch<'_>, interrupt: watch::Receiver<bool>) -> Result<Self, End> {
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
        let workdir = Workdir::new().map_err(|error| host_fault(&error))?;
        if launch.plan.disk {
            workdir.make_disk().map_err(|error| host_fault(&error))?;
        }
        let listeners = Listeners::bind(workdir.path()).map_err(|error| host_fault(&error))?;
        let trace = Trace::start(workdir.path()).map_err(|error| host_fault(&error))?;
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
            _ = process.exited() => return Err(died(&mut process).await),
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
            _ = process.exited() => return Err(died(&mut process).await),
            () = interrupted(interrupt.clone()) => return Err(End::Interrupted),
        };
        let (qmp, events) = opened.map_err(|error| host_fault(&error))?;
        let vitals = Vitals::new(process, console, events, interrupt);
        Ok(Self { vitals, qmp, agent: AgentLink::new(agent), trace, _workdir: workdir })
    }

    /// All that is done with a guest that behaves.
    async fn drive(
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
        for (index, kind) in launch.windows.iter().enumerate() {
            progress(Stage::Working { kind: *kind, number: index + 1, of });
            let window = self.window(launch, *kind).await?;
            observation.windows.push(window);
        }
        clock.lap("workload");
        progress(Stage::Collecting);
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

    async fn ask(&mut self, what: &str, after: Duration, request: &Request) -> Result<Reply, End> {
        self.vitals.race(what, after, self.agent.ask(request)).await
    }

    async fn greeting(&mut self, launch: &Launch<'_>) -> Result<Hello, End> {
        let after = launch.deadlines.boot;
        let what =
            "greeting of the agent (it comes over the second UART once the guest has booted)";
        let reply = self.vitals.race(what, after, self.agent.receive()).await?;
        expect_reply!(reply, Reply::Hello(hello) => hello, "a greeting").map_err(broken)
    }

    async fn describe(&mut self, launch: &Launch<'_>) -> Result<dmarig_wire::Environment, End> {
        let request = Request::Describe(launch.axes.device.wire());
        let after = launch.deadlines.request;
        let reply = self.ask("description of the guest by its agent", after, &request).await?;
        expect_reply!(reply, Reply::Environment(seen) => *seen, "its environment").map_err(broken)
    }

    async fn window(&mut self, launch: &Launch<'_>, kind: WindowKind) -> Result<Window, End> {
        let counting = kind == WindowKind::Counting;
        if counting {
            self.count_dma(launch, true).await?;
            self.trace.take().await.map_err(|error| host_fault(&error))?;
            self.switch_trace(launch, &launch.plan.trace_events, true).await?;
        }
        let request = Request::Run(launch.job.clone());
        let reply = self.ask("end of the workload", launch.deadlines.workload, &request).await?;
        let report =
            expect_reply!(reply, Reply::Report(report) => *report, "a report").map_err(broken)?;
        if report.errors > 0 && launch.plan.disk {
            self.disk_on_the_host(launch).await?;
        }
        if !counting {
            return Ok(Window { kind, report, trace: None, dma: None });
        }
        self.switch_trace(launch, &launch.plan.trace_events, false).await?;
        let taken =
            self.vitals.race("end of the trace", launch.deadlines.request, self.trace.take());
        let trace = Some(taken.await?);
        let dma = self.count_dma(launch, false).await?;
        Ok(Window { kind, report, trace, dma })
    }

    /// Sees whether it was the host that failed the guest's disk. QEMU's NVMe controller stops for
    /// nothing: it passes an error on to the guest, as if the device or its driver were to blame.
    async fn disk_on_the_host(&mut self, launch: &Launch<'_>) -> Result<(), End> {
        let disks = self.qmp(launch, qmp::QueryBlockstats {}).await?;
        let kinds = ["failed_rd_operations", "failed_wr_operations", "failed_flush_operations"];
        let failed = |disk: &serde_json::Value| -> u64 {
            kinds.iter().filter_map(|kind| disk["stats"][kind].as_u64()).sum()
        };
        match disks.iter().map(failed).sum::<u64>() {
            0 => Ok(()),
            failed => Err(End::HostFault {
                what: format!(
                    "the host failed {failed} operations on the file of the guest's disk, as where no \
                     space is left; make room or name another place by TMPDIR"
                ),
            }),
        }
    }

    async fn count_dma(
        &mut self,
        launch: &Launch<'_>,
        on: bool,
    ) -> Result<Option<dmarig_wire::DmaCounts>, End> {
        let after = launch.deadlines.request;
        let reply = self.ask("DMA counts of the guest", after, &Request::CountDma(on)).await?;
        expect_reply!(reply, Reply::DmaCounts(counts) => counts, "DMA counts").map_err(broken)
    }

    async fn switch_trace(
        &mut self,
        launch: &Launch<'_>,
        names: &[&str],
        enable: bool,
    ) -> Result<(), End> {
        for name in names {
            let name = (*name).to_owned();
            // An event that this QEMU has not, or can't trace, would count nothing and look like
            // peace: that must not be passed over.
            let command = qmp::TraceEventSetState { name, enable, ignore_unavailable: !enable };
            self.qmp(launch, command).await?;
        }
        Ok(())
    }

    async fn look_from_the_host(
        &mut self,
        launch: &Launch<'_>,
        observation: &mut Observation,
    ) -> Result<(), End> {
        for property in &launch.iommu_properties {
            let get = qmp::QomGet { path: VIOMMU.into(), property: property.clone() };
            let value = self.qmp(launch, get).await?;
            observation.qom.insert(property.clone(), value);
        }
        let cap = self.register(launch, CAP).await?;
        let ecap = self.register(launch, ECAP).await?;
        observation.registers = Some(Registers { cap, ecap });
        Ok(())
    }

    async fn register(&mut self, launch: &Launch<'_>, offset: u64) -> Result<u64, End> {
        let command_line = format!("xp /1gx {:#x}", REGISTERS + offset);
        let text = self.qmp(launch, qmp::HumanMonitorCommand { command_line }).await?;
        parse_register(&text).ok_or_else(|| End::HostFault {
            what: format!("QEMU's monitor gave no register at offset {offset:#x}: {text:?}"),
        })
    }

    async fn read_log(&mut self, launch: &Launch<'_>, log: &mut KernelLog) -> Result<(), End> {
        log.source = LogSource::Kmsg;
        let mut bytes = 0;
        for _ in 0..MAX_LOG_PIECES {
            let after = launch.deadlines.request;
            let reply = self.ask("kernel log from the agent", after, &Request::ReadLog).await?;
            let piece = expect_reply!(reply, Reply::Log(log) => log, "a piece of the log")
                .map_err(broken)?;
            let size = |record: &LogRecord| record.text.len() + size_of::<LogRecord>();
            bytes += piece.records.iter().map(size).sum::<usize>();
            if bytes > MAX_LOG_BYTES {
                break;
            }
            log.records.extend(piece.records);
            log.lost = log.lost.saturating_add(piece.lost);
            if !piece.more {
                return Ok(());
            }
        }
        Err(End::ChannelBroken { what: "the agent sends a kernel log without end".into() })
    }

    /// Ends the guest in whatever state it is, and tells how it had ended.
    async fn finish(
        mut self,
        launch: &Launch<'_>,
        observation: &mut Observation,
        driven: Result<(), End>,
    ) -> End {
        let grace = launch.deadlines.end;
        let mut end = driven.err().unwrap_or(End::Completed);
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
}

fn broken(error: AgentError) -> End {
    End::ChannelBroken { what: error.to_string() }
}

impl From<AgentError> for Fault {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Failed(what) => Self::Known(End::AgentFailed { what }),
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

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Ended(host_fault(&error))
    }
}

/// `00000000fed90008: 0x00d2008c22260286`
fn parse_register(text: &str) -> Option<u64> {
    let (_, value) = text.trim().split_once(": 0x")?;
    u64::from_str_radix(value.trim(), 16).ok()
}

/// A kernel log out of console lines, for guests whose agent can't be asked any more. What is left
/// out of a flood counts as lost.
fn console_log(text: &str) -> KernelLog {
    let lines = || text.lines().filter(|line| !line.trim().is_empty());
    let lost = lines().count().saturating_sub(2 * CONSOLE_RECORDS) as u64;
    let middle = CONSOLE_RECORDS as u64..CONSOLE_RECORDS as u64 + lost;
    let records = lines()
        .zip(0..)
        .filter(|(_, seq)| !middle.contains(seq))
        .map(|(line, seq)| {
            let line = line.trim_end();
            let stamped = line.strip_prefix('[').and_then(|rest| {
                let (stamp, text) = rest.split_once("] ")?;
                let (seconds, micros) = stamp.trim().split_once('.')?;
                let time = seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?;
                Some((time.checked_add(micros.parse().ok()?)?, text))
            });
            let (time_us, text) = stamped.unwrap_or((0, line));
            LogRecord { level: u8::MAX, seq, time_us, text: text.to_owned() }
        })
        .collect();
    KernelLog { source: LogSource::Console, records, lost }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_is_read_from_the_monitors_line() {
        assert_eq!(
            parse_register("00000000fed90008: 0x00d2008c22260286\r\n"),
            Some(0x00d2_008c_2226_0286)
        );
        assert_eq!(parse_register("Cannot access memory\r\n"), None);
    }

    #[test]
    fn console_lines_become_records() {
        let log = console_log("SeaBIOS\r\n\r\n[    1.500000] DMAR: IOMMU enabled\r\n[oops] x\r\n");
        let seen: Vec<_> = log.records.iter().map(|r| (r.time_us, r.text.as_str())).collect();
        assert_eq!(seen, [(0, "SeaBIOS"), (1_500_000, "DMAR: IOMMU enabled"), (0, "[oops] x")]);
    }

    #[test]
    fn a_flooded_console_keeps_both_ends_as_records() {
        let text: String = (0..3 * CONSOLE_RECORDS).map(|number| format!("{number}\n")).collect();
        let log = console_log(&text);
        assert_eq!((log.records.len(), log.lost), (2 * CONSOLE_RECORDS, CONSOLE_RECORDS as u64));
        let kept = &log.records[CONSOLE_RECORDS - 1..=CONSOLE_RECORDS];
        let kept: Vec<_> = kept.iter().map(|record| (record.seq, record.text.as_str())).collect();
        assert_eq!(kept, [(19_999, "19999"), (40_000, "40000")]);
    }
}
