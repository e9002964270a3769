//! The QMP connection: commands through `qapi`, events as they are.
//!
//! `qapi` knows a closed set of events and drops them where it drives the stream itself. So the
//! lines are told apart before it sees them: events go to a channel of their own by name, answers
//! go on to `qapi`. All of it is logged.

use std::{
    fs::File,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use dmarig_model::observation::QmpEvent;
use qapi::{
    Command, Empty,
    futures::{QapiService, QmpStreamTokio},
    qmp::QmpCommand,
};
use serde::Serialize;
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

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The connection is gone, or was given up after an earlier command.
    #[error("the QMP connection is closed")]
    Closed,
    /// No answer came in time; the connection is given up, since a late answer would be taken for
    /// the next command's.
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
        /// QEMU's words.
        reason: String,
    },
    /// The greeting did not come or was not QMP's.
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

/// Events in the order in which QEMU sent them; it ends with the connection.
pub type Events = mpsc::UnboundedReceiver<QmpEvent>;

/// A log of what went over a connection, a line each way.
type Log = Arc<Mutex<Option<File>>>;

impl Qmp {
    /// Takes the greeting and negotiates. Each command is to be answered within `deadline`.
    ///
    /// # Errors
    /// [`QmpError::Greeting`] or what became of `qmp_capabilities`.
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
            tokio::spawn(sort_lines(BufReader::new(read), to_qapi, sender, Arc::clone(&log))),
            tokio::spawn(pass_on(BufReader::new(from_qapi), write, log)),
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

    /// Sends one command and waits for its answer.
    ///
    /// If the wait is dropped or too long, so is the connection.
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

async fn sort_lines(
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
        // What is no JSON comes from no QEMU: nothing after it can be trusted to be an answer.
        let Ok(mut message) = serde_json::from_str::<Value>(&line) else { break };
        if let Some(name) = message.get("event").and_then(Value::as_str).map(str::to_owned) {
            let data = message.get_mut("data").map(Value::take).unwrap_or_default();
            let at_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
            let _ = events.send(QmpEvent { name, data, at_ms });
        } else if answers.write_all(line.as_bytes()).await.is_err() {
            break;
        }
    }
    // Whoever waits for an answer learns now that none will come: the other half of this pipe keeps
    // it open otherwise.
    let _ = answers.shutdown().await;
}

async fn pass_on(
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

/// A command of which only the name and arguments matter, with an answer of any shape: QEMU's
/// schema grows, and `qapi`'s types are those of one version.
macro_rules! command {
    ($(#[$doc:meta])* $name:ident = $text:literal -> $answer:ty { $($(#[$field_doc:meta])* $field:ident: $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $kind),*
        }

        impl Command for $name {
            type Ok = $answer;

            const NAME: &'static str = $text;
            const ALLOW_OOB: bool = false;
        }

        impl QmpCommand for $name {}
    };
}

command! {
    /// Resumes a guest that was started stopped.
    Continue = "cont" -> Empty {}
}
command! {
    /// Ends QEMU.
    Quit = "quit" -> Empty {}
}
command! {
    /// Reads a property of an object.
    QomGet = "qom-get" -> Value {
        /// The object's path.
        path: String,
        /// The property's name.
        property: String,
    }
}
command! {
    /// Switches trace events on or off.
    TraceEventSetState = "trace-event-set-state" -> Value {
        /// Name, or a pattern with `*`.
        name: String,
        /// On or off.
        enable: bool,
        /// Pass over events that this build has not.
        ignore_unavailable: bool,
    }
}
command! {
    /// A command of the human monitor.
    HumanMonitorCommand = "human-monitor-command" -> String {
        /// Its line.
        command_line: String,
    }
}
command! {
    /// What a device type can be given.
    DeviceListProperties = "device-list-properties" -> Vec<Value> {
        /// The type.
        typename: String,
    }
}
command! {
    /// Properties of a type of object, which may live in a module that is loaded for it.
    QomListProperties = "qom-list-properties" -> Vec<Value> {
        /// The type.
        typename: String,
    }
}
command! {
    /// Options that the command line takes.
    QueryCommandLineOptions = "query-command-line-options" -> Vec<Value> {}
}
command! {
    /// What became of each disk's operations.
    QueryBlockstats = "query-blockstats" -> Vec<Value> {}
}
command! {
    /// QEMU's version.
    QueryVersion = "query-version" -> Value {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Speaks QMP from a script: for each line that comes, the lines to send back.
    async fn talk(script: &[(&str, &str)], deadline: Duration) -> (Qmp, Events) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let script: Vec<(String, String)> = script
            .iter()
            .map(|(want, answer)| ((*want).to_owned(), (*answer).to_owned()))
            .collect();
        tokio::spawn(async move {
            let (read, mut write) = tokio::io::split(far);
            let mut lines = BufReader::new(read).lines();
            let greeting = r#"{"QMP":{"version":{"qemu":{"micro":3,"minor":1,"major":11},"package":""},"capabilities":["oob"]}}"#;
            write.write_all(format!("{greeting}\r\n").as_bytes()).await.unwrap();
            while let Ok(Some(line)) = lines.next_line().await {
                let answer = script.iter().find(|(want, _)| line.contains(want.as_str()));
                let answer = answer.map_or(r#"{"return":{}}"#, |(_, answer)| answer.as_str());
                if !answer.is_empty() {
                    write.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
                }
            }
        });
        Qmp::open(near, None, deadline).await.unwrap()
    }

    #[tokio::test]
    async fn events_that_nobody_knows_are_kept() {
        let event = r#"{"timestamp":{"seconds":1,"microseconds":2},"event":"FROM_THE_FUTURE","data":{"a":1}}"#;
        let script = [("\"cont\"", &*format!("{event}\r\n{{\"return\":{{}}}}"))];
        let (mut qmp, mut events) = talk(&script, Duration::from_secs(60)).await;
        qmp.execute(Continue {}).await.unwrap();
        let event = events.recv().await.unwrap();
        assert_eq!((event.name.as_str(), &event.data["a"]), ("FROM_THE_FUTURE", &1.into()));
    }

    #[tokio::test]
    async fn a_refusal_leaves_the_connection_usable() {
        let script =
            [("qom-get", r#"{"error":{"class":"GenericError","desc":"no such property"}}"#)];
        let (mut qmp, _events) = talk(&script, Duration::from_secs(60)).await;
        let get = QomGet { path: "/machine".into(), property: "x".into() };
        let error = qmp.execute(get).await.unwrap_err();
        assert_eq!(error.to_string(), "QEMU refused `qom-get`: no such property");
        qmp.execute(Continue {}).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_closes_the_connection() {
        let (mut qmp, _events) = talk(&[("query-version", "")], Duration::from_secs(5)).await;
        assert!(matches!(qmp.execute(QueryVersion {}).await, Err(QmpError::Late { .. })));
        assert!(matches!(qmp.execute(Continue {}).await, Err(QmpError::Closed)));
    }

    #[tokio::test]
    async fn no_qmp_is_told_so() {
        let (near, mut far) = tokio::io::duplex(1 << 10);
        far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let opened = Qmp::open(near, None, Duration::from_secs(60)).await;
        assert!(matches!(opened, Err(QmpError::Greeting(_))));
    }
}
