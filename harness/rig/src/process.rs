//! A child process (QEMU, a probe) that can't outlive its parent and is always reaped.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::watch,
    task::JoinHandle,
};

/// Bytes of the end of standard error that are kept.
const STDERR_KEPT: usize = 16 << 10;

/// A running child.
#[derive(Debug)]
pub struct Process {
    child: Child,
    status: Option<ExitStatus>,
    stderr: StderrTail,
    /// Reads standard error; `None` once it has been read to its end.
    reader: Option<JoinHandle<()>>,
}

/// The end of a process' standard error, which grows while the process runs.
#[derive(Debug, Clone)]
pub(crate) struct StderrTail {
    kept: Arc<Mutex<Vec<u8>>>,
    grown: watch::Receiver<()>,
}

impl StderrTail {
    /// The text so far.
    pub(crate) fn text(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).into_owned()
    }

    /// Waits for a complete line that `wanted` accepts; for ever if none comes.
    pub(crate) async fn wait_for_line(mut self, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let text = self.text();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            if let Some(line) = whole.lines().find(|line| wanted(line)) {
                return line.to_owned();
            }
            if self.grown.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Process {
    /// Starts `argv` in `directory`, in a process group of its own.
    ///
    /// # Errors
    /// The system's error, with the program's name.
    pub fn spawn(argv: &[String], directory: &Path) -> io::Result<Self> {
        let (program, arguments) =
            argv.split_first().ok_or_else(|| io::Error::other("an empty command"))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        Self::start(command, directory, None).map_err(|error| {
            io::Error::new(error.kind(), format!("can't start {program}: {error}"))
        })
    }

    /// Starts a command in `directory`, in a process group of its own. The end of its standard error
    /// is kept, and all of it is written to `log`. The caller sets up standard input and output.
    ///
    /// # Errors
    /// The system's error.
    pub fn start(mut command: Command, directory: &Path, log: Option<File>) -> io::Result<Self> {
        command
            .current_dir(directory)
            .stderr(Stdio::piped())
            // Ctrl-C on the terminal is for the rig, which then ends its guests in order.
            .process_group(0)
            .kill_on_drop(true);
        die_with_parent(&mut command);
        let mut child = command.spawn()?;
        let kept = Arc::new(Mutex::new(Vec::new()));
        let pipe = child.stderr.take().ok_or_else(|| io::Error::other("no standard error"))?;
        let (grows, grown) = watch::channel(());
        let reader = Some(tokio::spawn(keep_tail(pipe, Arc::clone(&kept), grows, log)));
        Ok(Self { child, status: None, stderr: StderrTail { kept, grown }, reader })
    }

    /// Takes the pipes of standard input and output, if there are any.
    pub fn take_pipes(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>) {
        (self.child.stdin.take(), self.child.stdout.take())
    }

    /// The process id; `None` after its exit was noticed.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its exit and describes the status; may be dropped and called again.
    pub async fn wait_for_exit(&mut self) -> String {
        if self.status.is_none() {
            self.status = self.child.wait().await.ok();
        }
        self.status.map_or_else(|| "an unknown status".to_owned(), describe_status)
    }

    /// The end of its standard error; complete if the process has exited.
    pub async fn stderr(&mut self) -> String {
        if self.status.is_some()
            && let Some(reader) = &mut self.reader
            // The pipe closes with the process, unless a child inherited it: don't wait for that.
            && tokio::time::timeout(Duration::from_secs(1), reader).await.is_ok()
        {
            self.reader = None;
        }
        self.stderr.text()
    }

    /// The end of its standard error, to follow.
    pub(crate) fn stderr_tail(&self) -> StderrTail {
        self.stderr.clone()
    }

    /// Stops its process group by SIGTERM and, after `grace`, by SIGKILL; waits for its exit and
    /// describes the status.
    pub async fn stop(&mut self, grace: Duration) -> String {
        self.signal(rustix::process::Signal::TERM);
        if tokio::time::timeout(grace, self.wait_for_exit()).await.is_err() {
            self.signal(rustix::process::Signal::KILL);
        }
        self.wait_for_exit().await
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let group = self
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group {
            // It may be gone already, which is what is wanted.
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }
}

async fn keep_tail(
    mut pipe: ChildStderr,
    kept: Arc<Mutex<Vec<u8>>>,
    grows: watch::Sender<()>,
    mut log: Option<File>,
) {
    let mut buffer = vec![0; 4096];
    while let Ok(length) = pipe.read(&mut buffer).await {
        if length == 0 {
            break;
        }
        // A log that can't be written any more ends here; the tail is still kept.
        if let Some(file) = &mut log
            && file.write_all(&buffer[..length]).is_err()
        {
            log = None;
        }
        {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(&buffer[..length]);
            let surplus = kept.len().saturating_sub(STDERR_KEPT);
            kept.drain(..surplus);
        }
        // Mostly nobody waits for a line.
        let _ = grows.send(());
    }
}

fn describe_status(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}

/// Has the kernel kill the child when the thread that starts it ends, whatever ends that.
///
/// The signal is tied to the *thread*: the rig runs on its main thread alone.
#[expect(unsafe_code, reason = "code between fork and exec has no safe interface")]
pub(crate) fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let before_exec = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // The parent may have died before the request was in place.
        if rustix::process::getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()))
        }
    };
    // SAFETY: between fork and exec only two system calls are made; nothing allocates or locks.
    unsafe {
        command.pre_exec(before_exec);
    }
}
