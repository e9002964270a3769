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

/// The line to a probe.
#[derive(Debug)]
pub(crate) struct ProbeLink {
    requests: ChildStdin,
    replies: BufReader<ChildStdout>,
    deadline: Duration,
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
) -> Result<(Process, ProbeLink), String> {
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
    let mut link = ProbeLink { requests, replies: BufReader::new(replies), deadline };
    match link.receive().await {
        Ok(Reply::Listening) => Ok((process, link)),
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

impl ProbeLink {
    async fn receive(&mut self) -> Result<Reply, ProbeError> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.replies).take(MAX_REPLY);
        let read = tokio::time::timeout(self.deadline, bounded.read_until(b'\n', &mut line));
        match read.await {
            Err(_) => Err(ProbeError::Late { after: self.deadline }),
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(_)) if !line.ends_with(b"\n") => Err(ProbeError::Closed),
            Ok(Ok(_)) => match serde_json::from_slice(&line) {
                Ok(Reply::Failed { what }) => Err(ProbeError::Failed { what }),
                Ok(reply) => Ok(reply),
                Err(error) => Err(ProbeError::Garbage { what: error.to_string() }),
            },
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
