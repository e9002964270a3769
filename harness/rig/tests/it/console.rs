//! The console, over a socket pair.

use std::time::Duration;

use dmarig_rig::console::{Console, HEAD_KEPT, TAIL_KEPT};
use tokio::{io::AsyncWriteExt, net::UnixStream};

/// Longest wait of a test.
const TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn ignores_a_panic_that_a_program_prints() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut console = Console::start(near, None);
    far.write_all(b"> inner: Kernel panic - not syncing: x\r\n\r\nhalf").await.unwrap();
    drop(far);
    console.wait_for_end().await;
    assert_eq!(console.panic(), None);
    assert_eq!(console.last_line().get(), "> inner: Kernel panic - not syncing: x");
}

#[tokio::test]
async fn reports_a_panic_when_its_line_is_complete() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut console = Console::start(near, None);
    far.write_all(b"[    1.0] Run /init as init process\r\n[ 2.0] Kernel panic - not ")
        .await
        .unwrap();
    far.write_all(b"syncing: Attempted to kill init!\r\n").await.unwrap();
    let line = tokio::time::timeout(TIMEOUT, console.wait_for_panic()).await.unwrap();
    assert_eq!(line, "[ 2.0] Kernel panic - not syncing: Attempted to kill init!");
    assert!(console.init_started().is_some());
    assert!(console.first_byte() <= console.init_started());
}

#[tokio::test]
async fn keeps_the_first_of_several_panics() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut console = Console::start(near, None);
    far.write_all(b"Kernel panic - not syncing: one\nKernel panic - not syncing: two\n")
        .await
        .unwrap();
    drop(far);
    console.wait_for_end().await;
    assert_eq!(console.panic().as_deref(), Some("Kernel panic - not syncing: one"));
}

#[tokio::test]
async fn keeps_both_ends_of_a_flood_and_notes_the_gap() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut console = Console::start(near, Some(log.reopen().unwrap()));
    let flood = tokio::spawn(async move {
        let line = [b'x'; 64 << 10];
        for _ in 0..(HEAD_KEPT / line.len() + 40) {
            far.write_all(&line).await.unwrap();
        }
        far.write_all(b"the end").await.unwrap();
    });
    flood.await.unwrap();
    console.wait_for_end().await;
    let written = std::fs::read(log.path()).unwrap();
    assert!(written.len() < HEAD_KEPT + TAIL_KEPT + 200, "{}", written.len());
    assert!(console.text().contains("bytes of the console left out here"));
    assert_eq!(console.last(7), "the end");
    assert!(written.ends_with(b"the end"));
}
