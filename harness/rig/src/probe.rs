//! The probe of one guest: a process that serves the device over vfio-user and takes requests on its
//! standard input.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use dmarig_model::{
    plan::PROBE_SOCKET,
    probe::{ProbeCounts, Reply, Request, Settings},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{ChildStdin, ChildStdout, Command},
    sync::{mpsc, watch},
};

use crate::process::Process;

/// Longest reply in bytes: half a million mappings fit.
const MAX_REPLY: u64 = 64 << 20;

/// The command that starts a guest's probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeLaunch {
    /// The program; `probe`, the socket and the settings are its arguments.
    pub program: PathBuf,
    /// Settings of the device.
    pub settings: Settings,
}

/// Why a request to a probe failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Its standard output ended.
    #[error("the probe closed its output")]
    Closed,
    /// No reply came in time.
    #[error("the probe did not answer within {after:?}: it stalls")]
    Late {
        /// The deadline.
        after: Duration,
    },
    /// A line is not a reply, or not the expected one.
    #[error("invalid answer of the probe: {what}")]
    InvalidReply {
        /// What was wrong.
        what: String,
    },
    /// It could not carry the request out.
    #[error("the probe failed: {what}")]
    Failed {
        /// Its reason.
        what: String,
    },
    /// A pipe to it failed.
    #[error("no connection to the probe: {0}")]
    Io(#[from] io::Error),
}

/// What QEMU prints when the server of a vfio-user device breaks the protocol, is silent for 5 s, or
/// goes (hw/vfio-user/proxy.c). From then on QEMU answers the guest in the device's stead.
const DEVICE_TROUBLE: &[&str] = &[
    "vfio_user_",
    "bad header size",
    "reply larger than recv buffer",
    "server closed socket",
    "short read of header",
    "timed out waiting for reply",
    "unexpected FDs",
    "unexpected reply",
    "unknown message type",
    "vfio_wait_reqs - timed out",
];
/// What QEMU prints on every exit, for whatever reason.
const ON_EXIT: &str = "vfio_user_disconnect";

/// Whether a line of QEMU's standard error blames the server of its vfio-user device.
pub(crate) fn reports_device_trouble(line: &str) -> bool {
    !line.contains(ON_EXIT) && DEVICE_TROUBLE.iter().any(|words| line.contains(words))
}

/// The connection for requests to a probe.
#[derive(Debug)]
pub(crate) struct ProbeLink {
    requests: ChildStdin,
    replies: mpsc::Receiver<Result<Reply, ProbeError>>,
    deadline: Duration,
}

/// A probe's process, and its report of how it lost its QEMU.
#[derive(Debug)]
pub(crate) struct ProbeProcess {
    pub(crate) process: Process,
    pub(crate) lost_qemu: watch::Receiver<Option<String>>,
}

/// Waits until a probe has lost its QEMU, and returns the probe's reason.
pub(crate) async fn wait_for_lost_qemu(mut lost: watch::Receiver<Option<String>>) -> String {
    if let Ok(what) = lost.wait_for(Option::is_some).await
        && let Some(what) = what.clone()
    {
        return what;
    }
    // The probe reports nothing any more.
    std::future::pending().await
}

/// Why a probe did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeStartError {
    /// Its process could not be started.
    #[error("can't start the probe {program}: {error}")]
    Spawn {
        /// The program.
        program: String,
        /// The system's error.
        error: io::Error,
    },
    /// It did not report that it listens.
    #[error("the probe {program} did not come up: {reason}; its last words: {stderr}")]
    NotListening {
        /// The program.
        program: String,
        /// What it reported instead.
        reason: String,
        /// The end of its standard error.
        stderr: String,
    },
}

/// Starts a probe in a guest's directory and waits until it listens on its socket; its standard error
/// is written to `log`.
///
/// # Errors
/// [`ProbeStartError`]
pub(crate) async fn start(
    launch: &ProbeLaunch,
    directory: &Path,
    log: Option<File>,
    deadline: Duration,
) -> Result<(ProbeProcess, ProbeLink), ProbeStartError> {
    let program = launch.program.display().to_string();
    let (mut process, requests, replies) = match spawn(launch, directory, log) {
        Ok(spawned) => spawned,
        Err(error) => return Err(ProbeStartError::Spawn { program, error }),
    };
    let (reply_sender, reply_receiver) = mpsc::channel(1);
    let (lost_sender, lost_qemu) = watch::channel(None);
    tokio::spawn(read_replies(BufReader::new(replies), reply_sender, lost_sender));
    let mut link = ProbeLink { requests, replies: reply_receiver, deadline };
    let reason = match link.receive().await {
        Ok(Reply::Listening) => return Ok((ProbeProcess { process, lost_qemu }, link)),
        Ok(reply) => format!("it began with {reply:?}"),
        Err(error) => error.to_string(),
    };
    process.stop(Duration::ZERO).await;
    let stderr = process.stderr().await;
    Err(ProbeStartError::NotListening { program, reason, stderr })
}

fn spawn(
    launch: &ProbeLaunch,
    directory: &Path,
    log: Option<File>,
) -> io::Result<(Process, ChildStdin, ChildStdout)> {
    let settings = serde_json::to_string(&launch.settings)?;
    let mut command = Command::new(&launch.program);
    command
        .args(["probe", PROBE_SOCKET, "--settings", &settings])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut process = Process::start(command, directory, log)?;
    match process.take_pipes() {
        (Some(requests), Some(replies)) => Ok((process, requests, replies)),
        _ => Err(io::Error::other("it has no pipes")),
    }
}

/// Reads a probe's output to its end: replies go to whoever sent the request, the first reason for a
/// lost QEMU goes to `lost`.
async fn read_replies(
    mut output: BufReader<ChildStdout>,
    replies: mpsc::Sender<Result<Reply, ProbeError>>,
    lost: watch::Sender<Option<String>>,
) {
    loop {
        let mut line = Vec::new();
        let read = (&mut output).take(MAX_REPLY).read_until(b'\n', &mut line).await;
        let reply = match read {
            Err(error) => Err(error.into()),
            Ok(_) if !line.ends_with(b"\n") => Err(ProbeError::Closed),
            Ok(_) => parse_reply(&line),
        };
        if let Ok(Reply::Lost { what }) = reply {
            lost.send_if_modified(|reason| {
                let is_first = reason.is_none();
                reason.get_or_insert(what);
                is_first
            });
            continue;
        }
        let is_last = matches!(reply, Err(ProbeError::Closed | ProbeError::Io(_)));
        if replies.send(reply).await.is_err() || is_last {
            return;
        }
    }
}

fn parse_reply(line: &[u8]) -> Result<Reply, ProbeError> {
    match serde_json::from_slice(line) {
        Ok(Reply::Failed { what }) => Err(ProbeError::Failed { what }),
        Ok(reply) => Ok(reply),
        Err(error) => Err(ProbeError::InvalidReply { what: error.to_string() }),
    }
}

impl ProbeLink {
    async fn receive(&mut self) -> Result<Reply, ProbeError> {
        match tokio::time::timeout(self.deadline, self.replies.recv()).await {
            Err(_) => Err(ProbeError::Late { after: self.deadline }),
            Ok(reply) => reply.unwrap_or(Err(ProbeError::Closed)),
        }
    }

    /// Sends one request and waits for its reply.
    pub(crate) async fn request(&mut self, request: &Request) -> Result<Reply, ProbeError> {
        let mut line = serde_json::to_vec(request).map_err(io::Error::other)?;
        line.push(b'\n');
        let sent = async {
            self.requests.write_all(&line).await?;
            self.requests.flush().await
        };
        match tokio::time::timeout(self.deadline, sent).await {
            Err(_) => return Err(ProbeError::Late { after: self.deadline }),
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Err(ProbeError::Closed);
            }
            Ok(sent) => sent?,
        }
        self.receive().await
    }

    /// Starts to count from zero.
    pub(crate) async fn begin_counting(&mut self) -> Result<(), ProbeError> {
        match self.request(&Request::Begin).await? {
            Reply::Begun => Ok(()),
            other => Err(unexpected_reply(&other)),
        }
    }

    /// Checks that it still does its work and replies `within` the time.
    pub(crate) async fn check_responsive(&mut self, within: Duration) -> Result<(), ProbeError> {
        match tokio::time::timeout(within, self.read_counts()).await {
            Ok(counts) => counts.map(drop),
            Err(_) => Err(ProbeError::Late { after: within }),
        }
    }

    /// The counts since [`ProbeLink::begin_counting`].
    pub(crate) async fn read_counts(&mut self) -> Result<ProbeCounts, ProbeError> {
        match self.request(&Request::End).await? {
            Reply::Counted { counts } => Ok(*counts),
            other => Err(unexpected_reply(&other)),
        }
    }
}

/// The error of a reply to another request.
pub(crate) fn unexpected_reply(reply: &Reply) -> ProbeError {
    ProbeError::InvalidReply { what: format!("{reply:?}").chars().take(200).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_lines_of_qemu_to_the_device_server() {
        let device = [
            "qemu-system-x86_64: server closed socket",
            "qemu-system-x86_64: timed out waiting for reply: Connection timed out",
            "qemu-system-x86_64: vfio_user_device_io_region_write: Unable to write to socket",
        ];
        let other = [
            "qemu-system-x86_64: vfio-user:probe.sock: device 01.01.0 requires caching mode",
            "vfio_user_disconnect: outstanding requests",
            "qemu-system-x86_64: terminating on signal 15 from pid 1 (dmarig)",
        ];
        assert!(device.into_iter().all(reports_device_trouble));
        assert!(!other.into_iter().any(reports_device_trouble));
    }
}
