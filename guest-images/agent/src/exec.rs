//! Runs a program of the user and keeps the end of its output.

mod metrics;

use std::{
    io::{ErrorKind, PipeReader, Read},
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitStatus, Stdio},
    time::Instant,
};

use anyhow::{Context, Result};
use dmarig_wire::{ECHO, ExecJob, Exit, Interface, Report};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{OFlags, fcntl_setfl},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};

use self::metrics::Metrics;
use crate::{console, tally::Tally};

/// Bytes of the end of the output that are kept.
const KEPT: usize = 64 << 10;

/// Runs the program to its end, and kills what it leaves running in its process group.
///
/// # Errors
/// Where it can't be started.
pub(crate) fn run(job: &ExecJob, nodes: &[String]) -> Result<Report> {
    let (program, arguments) = job.argv.split_first().context("no program is named")?;
    let (mut pipe, writer) = std::io::pipe().context("can't make a pipe")?;
    fcntl_setfl(&pipe, OFlags::NONBLOCK).context("can't set the pipe up")?;
    let begin = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/add:/bin")
        .env("DMARIG_NODES", nodes.join(" "))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("can't share the pipe")?)
        .stderr(writer)
        // A group of its own, so that what it starts can be ended with it.
        .process_group(0)
        .spawn()
        .with_context(|| format!("can't start {program}"))?;
    let mut output = Output { echo: job.echo, ..Output::default() };
    let followed = read_output(&child, &mut pipe, &mut output);
    let group = Pid::from_child(&child);
    if followed.is_err() {
        let _ = child.kill();
    }
    let status = child.wait();
    let elapsed = begin.elapsed();
    // The group is gone already where the program left nothing behind.
    let _ = kill_process_group(group, Signal::KILL);
    followed?;
    let interface = Interface::Process;
    let mut report = Tally::default().report(interface, u64::try_from(elapsed.as_nanos())?);
    report.exit = Some(status.map_or(Exit::Unknown, exit_of));
    report.output = Some(String::from_utf8_lossy(output.tail()).into_owned());
    report.metrics = output.metrics.finish();
    Ok(report)
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

/// Reads until the program itself exits: its children may hold the pipe open for ever.
fn read_output(child: &Child, pipe: &mut PipeReader, output: &mut Output) -> Result<()> {
    let process: OwnedFd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())
        .context("can't watch the program")?;
    let mut open = true;
    loop {
        let mut fds = [PollFd::new(&process, PollFlags::IN), PollFd::new(&*pipe, PollFlags::IN)];
        // A pipe at its end would be readable for ever, so it is left out.
        let fds = if open { &mut fds[..] } else { &mut fds[..1] };
        match poll(fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.context("can't wait for the program")?,
        };
        let ended = !fds[0].revents().is_empty();
        open = open && drain(pipe, output).context("can't read the program's output")?;
        if ended {
            return Ok(());
        }
    }
}

/// Reads what is available; `false` at the end.
fn drain(pipe: &mut PipeReader, output: &mut Output) -> std::io::Result<bool> {
    let mut bytes = [0; 16 << 10];
    loop {
        match pipe.read(&mut bytes) {
            Ok(0) => return Ok(false),
            Ok(count) => output.push(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Bytes of one line that are shown on the console.
const ECHOED: usize = 400;

/// The end of the output, and the metrics in all of it.
#[derive(Debug, Default)]
struct Output {
    kept: Vec<u8>,
    metrics: Metrics,
    echo: bool,
    line: Vec<u8>,
}

impl Output {
    fn push(&mut self, bytes: &[u8]) {
        self.metrics.push(bytes);
        if self.echo {
            self.complete_lines(bytes)
                .into_iter()
                .for_each(|line| console::print(&format!("{ECHO}{line}")));
        }
        self.kept.extend_from_slice(bytes);
        // Rarely, so that bytes are moved once on average.
        if self.kept.len() > 2 * KEPT {
            self.kept.drain(..self.kept.len() - KEPT);
        }
    }

    /// The lines that these bytes complete.
    fn complete_lines(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut ended = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => {
                    ended.push(String::from_utf8_lossy(&self.line).escape_debug().to_string());
                    self.line.clear();
                }
                _ if self.line.len() < ECHOED => self.line.push(*byte),
                _ => {}
            }
        }
        ended
    }

    fn tail(&self) -> &[u8] {
        &self.kept[self.kept.len().saturating_sub(KEPT)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Report {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        run(&ExecJob { argv, echo: false }, &["nvme0n1".to_owned(), "nvme1n1".to_owned()]).unwrap()
    }

    #[test]
    fn keeps_output_metrics_and_exit_code() {
        let report = shell("echo iops 12.5 1/s; echo $DMARIG_NODES $PATH >&2; exit 3");
        assert_eq!(report.exit, Some(Exit::Code(3)));
        assert_eq!(report.output.unwrap(), "iops 12.5 1/s\nnvme0n1 nvme1n1 /add:/bin\n");
        assert_eq!(report.metrics.len(), 1);
        assert_eq!(report.interface, Interface::Process);
    }

    #[test]
    fn echoes_complete_short_and_escaped_lines() {
        let mut output = Output::default();
        assert!(output.complete_lines(b"boot").is_empty());
        assert_eq!(output.complete_lines(b"ing\n\x1b[2J\nhal"), ["booting", "\\u{1b}[2J"]);
        assert_eq!(output.complete_lines(&[b'x'; 1000]), Vec::<String>::new());
        assert_eq!(output.complete_lines(b"\n"), [format!("hal{}", "x".repeat(ECHOED - 3))]);
    }

    #[test]
    fn distinguishes_signals_from_exit_codes() {
        assert_eq!(shell("kill -9 $$").exit, Some(Exit::Signal(9)));
    }

    #[test]
    fn keeps_the_end_of_long_output() {
        let script = "i=0; while [ $i -lt 20000 ]; do echo line $i .....; i=$((i+1)); done";
        let output = shell(script).output.unwrap();
        assert_eq!(output.len(), KEPT);
        assert!(output.ends_with("line 19999 .....\n"));
    }

    #[test]
    fn does_not_wait_for_background_processes() {
        let begin = Instant::now();
        assert_eq!(shell("sleep 30 & echo started").output.unwrap(), "started\n");
        assert!(begin.elapsed().as_secs() < 20);
    }

    #[test]
    fn waits_for_a_program_that_closed_its_output() {
        assert_eq!(shell("exec >&- 2>&-; sleep 0.1; exit 4").exit, Some(Exit::Code(4)));
    }

    #[test]
    fn reports_a_missing_program() {
        let argv = vec!["/nowhere/at-all".to_owned()];
        let error = run(&ExecJob { argv, echo: false }, &[]).unwrap_err();
        assert!(format!("{error:#}").contains("can't start /nowhere/at-all: No such file"));
        assert!(run(&ExecJob { argv: Vec::new(), echo: false }, &[]).is_err());
    }
}
