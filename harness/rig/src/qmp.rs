//! The QMP connection: commands through `qapi`, events as QEMU sends them.
//!
//! `qapi` knows a closed set of events and drops them when it drives the stream itself. So events are
//! separated before it reads the stream: they go to a channel of their own, answers go on to `qapi`.
//! Everything is logged.
//!
//! Commands are `qapi`'s types where QEMU's answer is the same in all versions, and types of this
//! module where it is not.

use std::{
    fs::File,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use dmarig_model::observation::QmpEvent;
use qapi::{
    Command,
    futures::{QapiService, QmpStreamTokio},
    qmp::QmpCommand,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    io::{
        AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream, WriteHalf,
    },
    sync::mpsc,
    task::JoinHandle,
};

/// Longest line that QEMU may send, in bytes.
const MAX_LINE: usize = 4 << 20;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The connection is closed, by QEMU or after a command that was not answered in time.
    #[error("the QMP connection is closed")]
    Closed,
    /// No answer came in time. The connection is closed, since a late answer would be taken for the
    /// next command's.
    #[error("QEMU did not answer `{command}` within {after:?}")]
    Late {
        /// The command.
        command: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// QEMU refused.
    #[error("QEMU refused `{command}`: {reason}")]
    Refused {
        /// The command.
        command: &'static str,
        /// QEMU's reason.
        reason: String,
    },
    /// No greeting came, or it was not QMP's.
    #[error("no QMP greeting: {0}")]
    Greeting(io::Error),
}

type Service = QapiService<QmpStreamTokio<WriteHalf<DuplexStream>>>;

/// A negotiated connection.
pub struct Qmp {
    service: Option<Service>,
    deadline: Duration,
    tasks: Vec<JoinHandle<()>>,
}

/// Events in QEMU's order; the channel closes with the connection.
pub type Events = mpsc::UnboundedReceiver<QmpEvent>;

/// A log of both directions, message by message.
type Log = Arc<Mutex<Option<File>>>;

impl Qmp {
    /// Reads the greeting and negotiates. `deadline` is for the answer to each command.
    ///
    /// # Errors
    /// [`QmpError::Greeting`]
    pub async fn open<S>(
        socket: S,
        log: Option<File>,
        deadline: Duration,
    ) -> Result<(Self, Events), QmpError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let log: Log = Arc::new(Mutex::new(log));
        let (read, write) = tokio::io::split(socket);
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (from_qapi, to_qapi) = tokio::io::split(theirs);
        let (sender, events) = mpsc::unbounded_channel();
        let mut tasks = vec![
            tokio::spawn(route_incoming(BufReader::new(read), to_qapi, sender, Arc::clone(&log))),
            tokio::spawn(forward_outgoing(BufReader::new(from_qapi), write, log)),
        ];
        let (qapi_read, qapi_write) = tokio::io::split(ours);
        let negotiation = QmpStreamTokio::open_split(qapi_read, qapi_write);
        let stream = tokio::time::timeout(deadline, async { negotiation.await?.negotiate().await })
            .await
            .map_err(io::Error::from)
            .flatten()
            .map_err(QmpError::Greeting)?;
        let (service, answers) = stream.into_parts();
        tasks.push(tokio::spawn(answers.into_future()));
        Ok((Self { service: Some(service), deadline, tasks }, events))
    }

    /// Sends one command and waits for its answer. If the wait is dropped or times out, the
    /// connection is closed.
    ///
    /// # Errors
    /// Any [`QmpError`] but `Greeting`.
    pub async fn execute<C: QmpCommand>(&mut self, command: C) -> Result<C::Ok, QmpError> {
        let service = self.service.take().ok_or(QmpError::Closed)?;
        let answer = tokio::time::timeout(self.deadline, service.execute(command)).await;
        let answer =
            answer.map_err(|_| QmpError::Late { command: C::NAME, after: self.deadline })?;
        match answer {
            Ok(ok) => {
                self.service = Some(service);
                Ok(ok)
            }
            Err(qapi::ExecuteError::Qapi(error)) => {
                self.service = Some(service);
                Err(QmpError::Refused { command: C::NAME, reason: error.desc })
            }
            Err(qapi::ExecuteError::Io(_)) => Err(QmpError::Closed),
        }
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn write_log(log: &Log, direction: &str, line: &str) {
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    let failed =
        log.as_mut().is_some_and(|file| writeln!(file, "{direction} {}", line.trim_end()).is_err());
    if failed {
        // A full disk must not end the guest; the record says elsewhere that it could not be kept.
        tracing::warn!("the QMP log can't be written any more");
        *log = None;
    }
}

async fn route_incoming(
    mut from: impl AsyncBufReadExt + Unpin,
    mut answers: impl AsyncWrite + Unpin,
    events: mpsc::UnboundedSender<QmpEvent>,
    log: Log,
) {
    let start = Instant::now();
    let mut line = String::new();
    loop {
        line.clear();
        match tokio::io::AsyncReadExt::take(&mut from, MAX_LINE as u64).read_line(&mut line).await {
            Ok(0) | Err(_) => break,
            Ok(_) => write_log(&log, "<", &line),
        }
        // QEMU sends JSON alone: after anything else, no line can be trusted to be an answer.
        let Ok(mut message) = serde_json::from_str::<Value>(&line) else { break };
        if let Some(name) = message.get("event").and_then(Value::as_str).map(str::to_owned) {
            let data = message.get_mut("data").map(Value::take).unwrap_or_default();
            let at_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
            let _ = events.send(QmpEvent { name, data, at_ms });
        } else if answers.write_all(line.as_bytes()).await.is_err() {
            break;
        }
    }
    // Tells whoever waits for an answer that none will come: the other half keeps the pipe open.
    let _ = answers.shutdown().await;
}

async fn forward_outgoing(
    mut from: impl AsyncBufReadExt + Unpin,
    mut to: impl AsyncWrite + Unpin,
    log: Log,
) {
    let mut line = String::new();
    loop {
        line.clear();
        match from.read_line(&mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => write_log(&log, ">", &line),
        }
        if to.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Lists options that QEMU's command line takes. `qapi`'s type knows a closed set of parameter types.
#[derive(Debug, Clone, Serialize)]
pub struct QueryCommandLineOptions {}

impl Command for QueryCommandLineOptions {
    type Ok = Vec<CommandLineOption>;

    const NAME: &'static str = "query-command-line-options";
    const ALLOW_OOB: bool = false;
}

impl QmpCommand for QueryCommandLineOptions {}

/// An option of QEMU's command line.
#[derive(Debug, Clone, Deserialize)]
pub struct CommandLineOption {
    /// Its name, without dashes.
    pub option: String,
}

/// Reads statistics of each disk. `qapi`'s type requires counters that older QEMUs don't have.
#[derive(Debug, Clone, Serialize)]
pub struct QueryBlockstats {}

impl Command for QueryBlockstats {
    type Ok = Vec<DiskStatistics>;

    const NAME: &'static str = "query-blockstats";
    const ALLOW_OOB: bool = false;
}

impl QmpCommand for QueryBlockstats {}

/// Statistics of one disk.
#[derive(Debug, Clone, Deserialize)]
pub struct DiskStatistics {
    /// Its counters.
    #[serde(default)]
    pub stats: FailedOperations,
}

/// Operations of a disk that the host failed, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FailedOperations {
    /// Reads.
    pub failed_rd_operations: u64,
    /// Writes.
    pub failed_wr_operations: u64,
    /// Flushes.
    pub failed_flush_operations: u64,
}

impl FailedOperations {
    /// Their sum.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.failed_rd_operations + self.failed_wr_operations + self.failed_flush_operations
    }
}
