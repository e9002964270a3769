//! Child processes: a real `sh` and `sleep`.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use dmarig_rig::process::Process;
use tokio::{io::AsyncReadExt, process::Command};

fn shell(script: &str) -> Process {
    let argv = ["sh", "-c", script].map(str::to_owned);
    Process::spawn(&argv, Path::new("/")).unwrap()
}

fn is_alive(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // A zombie is dead; nobody else reaps it.
    !status.is_empty() && !status.contains(") Z ")
}

#[tokio::test]
async fn describes_exit_codes_and_signals() {
    assert_eq!(shell("exit 7").wait_for_exit().await, "exit code 7");
    assert_eq!(shell("kill -9 $$").wait_for_exit().await, "signal 9");
}

#[tokio::test]
async fn keeps_the_end_of_standard_error() {
    let mut process = shell("head -c 100000 /dev/zero | tr '\\0' x >&2; echo the end >&2");
    process.wait_for_exit().await;
    let stderr = process.stderr().await;
    assert!(stderr.ends_with("xthe end\n"), "{stderr}");
    assert_eq!(stderr.len(), 16 << 10);
}

#[tokio::test]
async fn writes_all_of_standard_error_to_the_log() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "echo one >&2; echo two >&2"]).stdin(Stdio::null());
    let mut process = Process::start(command, Path::new("/"), Some(log.reopen().unwrap())).unwrap();
    process.wait_for_exit().await;
    assert_eq!(process.stderr().await, "one\ntwo\n");
    assert_eq!(std::fs::read_to_string(log.path()).unwrap(), "one\ntwo\n");
}

#[tokio::test]
async fn stops_a_child_with_sigterm() {
    let mut process = shell("exec sleep 600");
    assert_eq!(process.stop(Duration::from_secs(60)).await, "signal 15");
}

#[tokio::test]
async fn kills_a_child_that_ignores_sigterm_and_its_group() {
    // The shell reports when SIGTERM is ignored; its child is in the same group.
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' TERM; sleep 600 & echo $!; wait; wait"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut process = Process::start(command, Path::new("/"), None).unwrap();
    let (_, stdout) = process.take_pipes();
    let mut line = [0; 16];
    let count = stdout.unwrap().read(&mut line).await.unwrap();
    let sleep: u32 = String::from_utf8_lossy(&line[..count]).trim().parse().unwrap();
    assert_eq!(process.stop(Duration::from_millis(50)).await, "signal 9");
    let deadline = Instant::now() + Duration::from_secs(60);
    while is_alive(sleep) {
        assert!(Instant::now() < deadline, "the group's other process lives on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn kills_a_child_that_is_dropped() {
    let process = shell("exec sleep 600");
    let id = process.id().unwrap();
    drop(process);
    let deadline = Instant::now() + Duration::from_secs(60);
    while is_alive(id) {
        assert!(Instant::now() < deadline, "the child lives on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn does_not_wait_for_a_grandchild_that_holds_standard_error() {
    let mut process = shell("setsid sleep 30 & echo done >&2");
    process.wait_for_exit().await;
    let started = Instant::now();
    assert_eq!(process.stderr().await, "done\n");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn names_a_program_that_is_missing() {
    let argv = ["/nowhere/qemu".to_owned()];
    let error = Process::spawn(&argv, Path::new("/")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert!(error.to_string().contains("/nowhere/qemu"));
}
