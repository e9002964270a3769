//! Runs `make` so that it ends with us, holds the lock as long as anything of it lives, and tells
//! how far it is.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use dmarig_images::Progress;

use crate::output::Reading;
use crate::tools::{Tools, in_path};
use crate::{Error, Result};

/// How often it is asked whether to stop.
const POLL: Duration = Duration::from_millis(100);
/// How long a make that is told to stop may take for it.
const GRACE: Duration = Duration::from_secs(10);
/// How long output is waited for that a process of an ended make may still write.
const REST: Duration = Duration::from_secs(2);
/// Beside an object directory's files while a make works on them.
const MARK: &str = ".dmarig-making";
/// Variables of the environment that would change what is built.
const FORGOTTEN: [&str; 17] = [
    "ARCH",
    "AS",
    "CC",
    "CFLAGS",
    "CROSS_COMPILE",
    "KBUILD_EXTMOD",
    "KBUILD_OUTPUT",
    "KBUILD_VERBOSE",
    "KCFLAGS",
    "KCONFIG_CONFIG",
    "LD",
    "LDFLAGS",
    "LLVM",
    "LOCALVERSION",
    "MAKEFLAGS",
    "MAKELEVEL",
    "MFLAGS",
];

/// A make of one source into one object directory.
pub(crate) struct Make<'a> {
    pub(crate) tree: &'a Path,
    pub(crate) objects: &'a Path,
    pub(crate) tools: &'a Tools,
    pub(crate) jobs: usize,
    /// Of the workspace; each process of the make holds it too.
    pub(crate) lock: &'a File,
    pub(crate) progress: &'a dyn Progress,
}

impl Make<'_> {
    /// Makes `target`, and returns the number of files that were made.
    ///
    /// # Errors
    /// [`Error::DoesNotBuild`], [`Error::BuildBroke`] or [`Error::Interrupted`].
    pub(crate) fn run(&self, target: &str, more: &[String]) -> Result<u32> {
        let mark = self.objects.join(MARK);
        fs::write(&mark, "").map_err(|e| Error::io("write", &mark, e))?;
        let path = self.log();
        let mut log = File::create(&path).map_err(|e| Error::io("write", &path, e))?;
        let (reader, writer) = io::pipe().map_err(|e| Error::io("make a pipe for", &path, e))?;
        let mut command = self.command(target, more);
        let mut child = writer
            .try_clone()
            .and_then(|other| command.stdout(writer).stderr(other).spawn())
            .map_err(|e| Error::io("run", Path::new("make"), e))?;
        // Its ends of the pipe are closed with it, so that the end of the output is seen.
        drop(command);
        let mut reading = Reading::default();
        let ended = self.follow(&mut child, reader, &mut log, &mut reading);
        let status = match ended {
            Ok(status) => status,
            Err(error) => {
                end(&mut child);
                return Err(error);
            }
        };
        // What a make ends by itself, well or not, is whole: it removes what it could not finish.
        if status.code().is_some() {
            fs::remove_file(&mark).map_err(|e| Error::io("remove", &mark, e))?;
        }
        if self.progress.is_cancelled() {
            return Err(Error::Interrupted);
        }
        let (target, log) = (target.to_owned(), path);
        match (status.code(), reading.host_fault()) {
            (Some(0), _) => Ok(reading.made),
            (None, _) => Err(Error::BuildBroke { target, reason: status.to_string(), log }),
            (Some(_), Some(reason)) => {
                Err(Error::BuildBroke { target, reason: reason.to_owned(), log })
            }
            (Some(_), None) => {
                // Where our tree is says nothing to those who know the file.
                let tree = format!("{}/", self.tree.display());
                let first = reading.first_error().replace(&tree, "");
                Err(Error::DoesNotBuild { target, first, log })
            }
        }
    }

    /// The output of the last make.
    fn log(&self) -> PathBuf {
        self.objects.join("dmarig.log")
    }

    /// Hands on what comes, until the make ends.
    fn follow(
        &self,
        child: &mut Child,
        pipe: io::PipeReader,
        log: &mut File,
        reading: &mut Reading,
    ) -> Result<ExitStatus> {
        let (sender, lines) = mpsc::channel::<Vec<u8>>();
        // Ends with the pipe; what is left then goes nowhere.
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            loop {
                let mut line = Vec::new();
                match pipe.read_until(b'\n', &mut line) {
                    Ok(1..) if sender.send(line).is_ok() => {}
                    _ => return,
                }
            }
        });
        let mut ended: Option<(ExitStatus, Instant)> = None;
        loop {
            match lines.recv_timeout(POLL) {
                Ok(line) => {
                    log.write_all(&line).map_err(|e| Error::io("write", &self.log(), e))?;
                    if reading.line(String::from_utf8_lossy(&line).trim_end()) {
                        self.progress.advance(1);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return child.wait().map_err(|e| Error::io("wait for", Path::new("make"), e));
                }
            }
            if self.progress.is_cancelled() {
                return Err(Error::Interrupted);
            }
            if ended.is_none() {
                let status =
                    child.try_wait().map_err(|e| Error::io("wait for", Path::new("make"), e))?;
                ended = status.map(|status| (status, Instant::now()));
            }
            if let Some((status, since)) = ended
                && since.elapsed() > REST
            {
                return Ok(status);
            }
        }
    }

    fn command(&self, target: &str, more: &[String]) -> Command {
        // make tells its children when it is told to stop. setpriv is on each Debian and Ubuntu;
        // without it only a kill -9 of ours lets make live on, and it then still holds the lock.
        let mut words: Vec<&str> = Vec::new();
        if in_path("setpriv").is_some() {
            words.extend(["setpriv", "--pdeathsig", "TERM", "--"]);
        }
        // Descriptor 9 is inherited by all that make starts, unlike standard input.
        words.extend(["sh", "-c", "exec 9<&0 </dev/null; exec \"$@\"", "sh", "make"]);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        if let Ok(lock) = self.lock.try_clone() {
            command.stdin(lock);
        } else {
            command.stdin(Stdio::null());
        }
        for name in FORGOTTEN {
            command.env_remove(name);
        }
        // Ctrl-C on the terminal is for us, who then end it in order.
        command.process_group(0);
        command
            .env("LC_ALL", "C")
            // The same source gives the same kernel, whenever and wherever it is built.
            .env("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970")
            .env("KBUILD_BUILD_USER", "dmarig")
            .env("KBUILD_BUILD_HOST", "dmarig")
            .env("KBUILD_BUILD_VERSION", "1")
            // What ccache keeps then fits other workspaces too.
            .env("CCACHE_BASEDIR", self.objects.parent().unwrap_or(self.objects))
            .env("CCACHE_NOHASHDIR", "1")
            .arg("-C")
            .arg(self.tree)
            .arg(format!("O={}", self.objects.display()))
            .arg(format!("-j{}", self.jobs))
            .arg("ARCH=x86_64")
            .arg(if self.tools.ccache { "CC=ccache gcc" } else { "CC=gcc" })
            .args(more)
            .arg(target);
        command
    }

    /// Removes what a make that was killed may have left half written: everything that is as new
    /// as its mark. What was made before it is whole. To be called before anything is put there.
    pub(crate) fn clean_up(&self) -> Result<()> {
        let mark = self.objects.join(MARK);
        let Ok(meta) = fs::metadata(&mark) else { return Ok(()) };
        let since = meta.modified().map_err(|e| Error::io("read", &mark, e))?;
        self.progress.message("the last build was cut short: what it was writing is thrown away");
        for entry in walkdir::WalkDir::new(self.objects) {
            let entry = entry.map_err(|e| Error::io("read", self.objects, e.into()))?;
            let young = entry.metadata().ok().and_then(|meta| meta.modified().ok());
            let is_young = young.is_none_or(|time| time >= since);
            // The mark goes last: this may be cut short too.
            if entry.file_type().is_file() && is_young && entry.path() != mark {
                fs::remove_file(entry.path()).map_err(|e| Error::io("remove", entry.path(), e))?;
            }
        }
        Ok(())
    }
}

/// Has a make end: told first, so that it removes what is half written.
fn end(child: &mut Child) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let start = Instant::now();
    while start.elapsed() < GRACE {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    let _ = child.wait();
}
