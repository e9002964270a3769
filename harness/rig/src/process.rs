//! A QEMU process: started so that it can't outlive its parent, ended for sure.

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

/// How much of the end of standard error is kept, in bytes.
const STDERR_KEPT: usize = 16 << 10;

/// A running QEMU.
#[derive(Debug)]
pub struct Process {
    child: Child,
    status: Option<ExitStatus>,
    words: Words,
    /// Gone once it has come to its end.
    reader: Option<JoinHandle<()>>,
}

/// The end of what a process says on its standard error, and news of more.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    kept: Arc<Mutex<Vec<u8>>>,
    grown: watch::Receiver<()>,
}

impl Words {
    /// What is kept.
    pub(crate) fn text(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).into_owned()
    }

    /// Waits for a whole line that is `wanted`; for ever where none comes.
    pub(crate) async fn line(mut self, wanted: impl Fn(&str) -> bool) -> String {
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
    /// What the system says, with the program's name.
    pub fn spawn(argv: &[String], directory: &Path) -> io::Result<Self> {
        let (program, arguments) =
            argv.split_first().ok_or_else(|| io::Error::other("an empty command"))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        Self::start(command, directory, None).map_err(|error| {
            io::Error::new(error.kind(), format!("can't start {program}: {error}"))
        })
    }

    /// Starts a command in `directory`, in a process group of its own. Its standard error is kept,
    /// and goes to `log` as well; what its other ends are is the command's to say.
    ///
    /// # Errors
    /// What the system says.
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
        Ok(Self { child, status: None, words: Words { kept, grown }, reader })
    }

    /// Its standard input and output, where they are pipes; once.
    pub fn take_pipes(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>) {
        (self.child.stdin.take(), self.child.stdout.take())
    }

    /// The process' number while it lives.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end; may be dropped and called again.
    pub async fn exited(&mut self) -> String {
        if self.status.is_none() {
            self.status = self.child.wait().await.ok();
        }
        self.status.map_or_else(|| "an unknown status".to_owned(), describe)
    }

    /// The end of its standard error, read to its end where the process has ended.
    pub async fn stderr(&mut self) -> String {
        if self.status.is_some()
            && let Some(reader) = &mut self.reader
            // The pipe ends with the process, unless something inherited it: don't wait for that.
            && tokio::time::timeout(Duration::from_secs(1), reader).await.is_ok()
        {
            self.reader = None;
        }
        self.words.text()
    }

    /// The end of its standard error so far, and what is to come of it.
    pub(crate) fn words(&self) -> Words {
        self.words.clone()
    }

    /// Ends it: TERM, a grace, KILL; then waits for it.
    pub async fn end(&mut self, grace: Duration) -> String {
        self.signal(rustix::process::Signal::TERM);
        if tokio::time::timeout(grace, self.exited()).await.is_err() {
            self.signal(rustix::process::Signal::KILL);
        }
        self.exited().await
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
        // A log that can't be written any more is left where it is: the tail still tells.
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
        // Mostly nobody listens.
        let _ = grows.send(());
    }
}

fn describe(status: ExitStatus) -> String {
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
