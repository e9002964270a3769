//! The probe of one guest: a process that serves the device over vfio-user, and is asked over its
//! standard input and output.

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

/// A reply longer than this is none, in bytes: half a million mappings have room in it.
const MAX_REPLY: u64 = 64 << 20;

/// How a guest's probe is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeLaunch {
    /// The program and its first words; socket and settings are added.
    pub program: PathBuf,
    /// How it behaves.
    pub settings: Settings,
}

/// Why a probe gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Its output ended.
    #[error("the probe closed its output")]
    Closed,
    /// No answer came in time.
    #[error("the probe did not answer within {after:?}: it stalls")]
    Late {
        /// The deadline.
        after: Duration,
    },
    /// What came is no answer.
    #[error("the probe said what is no answer: {what}")]
    Garbage {
        /// What was wrong.
        what: String,
    },
    /// It said that it can't.
    #[error("the probe failed: {what}")]
    Failed {
        /// Its words.
        what: String,
    },
    /// The system's words.
    #[error("the probe can't be talked to: {0}")]
    Io(#[from] io::Error),
}

/// What QEMU says when the server of a vfio-user device breaks the protocol, is silent for 5 s, or
/// goes (hw/vfio-user/proxy.c). From then on QEMU answers the guest in the device's stead.
const TROUBLE: &[&str] = &[
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
/// What it says as it ends, whatever it ends for.
const NO_TROUBLE: &str = "vfio_user_disconnect";

/// Whether a line of QEMU's standard error says that its device's server is to blame.
pub(crate) fn tells_of_trouble(line: &str) -> bool {
    !line.contains(NO_TROUBLE) && TROUBLE.iter().any(|words| line.contains(words))
}

/// The line to a probe.
#[derive(Debug)]
pub(crate) struct ProbeLink {
    requests: ChildStdin,
    replies: mpsc::Receiver<Result<Reply, ProbeError>>,
    deadline: Duration,
}

/// A probe's process, and what it says without being asked: how it lost its QEMU.
#[derive(Debug)]
pub(crate) struct ProbeProcess {
    pub(crate) process: Process,
    pub(crate) lost: watch::Receiver<Option<String>>,
}

/// Waits until a probe has lost its QEMU, and gives the probe's words for it.
pub(crate) async fn lost(mut lost: watch::Receiver<Option<String>>) -> String {
    if let Ok(what) = lost.wait_for(Option::is_some).await
        && let Some(what) = what.clone()
    {
        return what;
    }
    // It will say no more.
    std::future::pending().await
}

/// Starts a probe in a guest's directory; its standard error goes to `log`. It has made its socket
/// when this returns.
///
/// # Errors
/// What became of it, with its last words.
pub(crate) async fn start(
    launch: &ProbeLaunch,
    directory: &Path,
    log: Option<File>,
    deadline: Duration,
) -> Result<(ProbeProcess, ProbeLink), String> {
    let shown = launch.program.display();
    let settings = serde_json::to_string(&launch.settings).map_err(|error| error.to_string())?;
    let mut command = Command::new(&launch.program);
    command
        .args(["probe", PROBE_SOCKET, "--settings", &settings])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut process = Process::start(command, directory, log)
        .map_err(|error| format!("can't start the probe {shown}: {error}"))?;
    let (Some(requests), Some(replies)) = process.take_pipes() else {
        return Err(format!("the probe {shown} has no pipes"));
    };
    let (told, replies_of) = mpsc::channel(1);
    let (loses, lost) = watch::channel(None);
    tokio::spawn(listen(BufReader::new(replies), told, loses));
    let mut link = ProbeLink { requests, replies: replies_of, deadline };
    match link.receive().await {
        Ok(Reply::Listening) => Ok((ProbeProcess { process, lost }, link)),
        other => {
            process.end(Duration::ZERO).await;
            let why = match other {
                Ok(reply) => format!("it began with {reply:?}"),
                Err(error) => error.to_string(),
            };
            let words = process.stderr().await;
            Err(format!("the probe {shown} did not come up: {why}; its last words: {words}"))
        }
    }
}

/// Takes what a probe says to its end: what answers a request goes to who asked.
async fn listen(
    mut output: BufReader<ChildStdout>,
    told: mpsc::Sender<Result<Reply, ProbeError>>,
    loses: watch::Sender<Option<String>>,
) {
    loop {
        let mut line = Vec::new();
        let read = (&mut output).take(MAX_REPLY).read_until(b'\n', &mut line).await;
        let said = match read {
            Err(error) => Err(error.into()),
            Ok(_) if !line.ends_with(b"\n") => Err(ProbeError::Closed),
            Ok(_) => match serde_json::from_slice(&line) {
                Ok(Reply::Lost { what }) => {
                    // The first tells why.
                    loses.send_if_modified(|lost| {
                        let first = lost.is_none();
                        lost.get_or_insert(what);
                        first
                    });
                    continue;
                }
                Ok(Reply::Failed { what }) => Err(ProbeError::Failed { what }),
                Ok(reply) => Ok(reply),
                Err(error) => Err(ProbeError::Garbage { what: error.to_string() }),
            },
        };
        let last = matches!(said, Err(ProbeError::Closed | ProbeError::Io(_)));
        if told.send(said).await.is_err() || last {
            return;
        }
    }
}

impl ProbeLink {
    async fn receive(&mut self) -> Result<Reply, ProbeError> {
        match tokio::time::timeout(self.deadline, self.replies.recv()).await {
            Err(_) => Err(ProbeError::Late { after: self.deadline }),
            Ok(said) => said.unwrap_or(Err(ProbeError::Closed)),
        }
    }

    /// Sends one request and waits for its answer.
    pub(crate) async fn ask(&mut self, request: &Request) -> Result<Reply, ProbeError> {
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

    /// Begins to count from zero.
    pub(crate) async fn begin(&mut self) -> Result<(), ProbeError> {
        match self.ask(&Request::Begin).await? {
            Reply::Begun => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether it still does its work, in `within` at most; its words where it doesn't.
    pub(crate) async fn is_well(&mut self, within: Duration) -> Result<(), ProbeError> {
        let late = || ProbeError::Late { after: within };
        let counted = tokio::time::timeout(within, self.counts()).await;
        counted.unwrap_or_else(|_| Err(late())).map(drop)
    }

    /// What was counted since [`ProbeLink::begin`].
    pub(crate) async fn counts(&mut self) -> Result<ProbeCounts, ProbeError> {
        match self.ask(&Request::End).await? {
            Reply::Counted { counts } => Ok(*counts),
            other => Err(unexpected(&other)),
        }
    }
}

/// The error of a reply that is none to what was asked.
pub(crate) fn unexpected(reply: &Reply) -> ProbeError {
    ProbeError::Garbage { what: format!("{reply:?}").chars().take(200).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_qemu_tell_whose_trouble_it_is() {
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
        assert!(device.into_iter().all(tells_of_trouble));
        assert!(!other.into_iter().any(tells_of_trouble));
    }
}
