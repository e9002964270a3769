//! The guest's console: always logged, always bounded, watched for the kernel's last words.

use std::{
    collections::VecDeque,
    fs::File,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use dmarig_wire::ECHO;
use tokio::{io::AsyncReadExt, net::UnixStream, sync::watch, task::JoinHandle};

/// Bytes of the console that are kept from its beginning.
pub const HEAD_KEPT: usize = 4 << 20;
/// Bytes that are kept from its end where it is longer.
pub const TAIL_KEPT: usize = 256 << 10;
/// A longer line is taken in pieces.
const MAX_LINE: usize = 8 << 10;

/// What is known of a console while the guest runs.
#[derive(Debug, Default)]
struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
    line: Vec<u8>,
    last_line: String,
    first_byte: Option<Instant>,
    init_started: Option<Instant>,
}

/// Tells what a console's last line is.
#[derive(Debug)]
pub struct LastLine(Arc<Mutex<Kept>>);

impl LastLine {
    /// The last line that was printed whole and is not empty, as it came.
    #[must_use]
    pub fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last_line.clone()
    }
}

/// Reads a console until its end.
#[derive(Debug)]
pub struct Console {
    kept: Arc<Mutex<Kept>>,
    panic: watch::Receiver<Option<String>>,
    reader: JoinHandle<()>,
}

impl Console {
    /// Reads from `socket`; everything kept is also written to `log` as it comes.
    #[must_use]
    pub fn start(socket: UnixStream, log: Option<File>) -> Self {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let (sender, panic) = watch::channel(None);
        let reader = tokio::spawn(read(socket, Arc::clone(&kept), log, sender));
        Self { kept, panic, reader }
    }

    /// Waits for a line that says that the kernel has panicked; for ever if none comes.
    pub async fn panicked(&mut self) -> String {
        match self.panic.wait_for(Option::is_some).await.map(|line| line.clone()) {
            Ok(Some(line)) => line,
            _ => std::future::pending().await,
        }
    }

    /// The panic's line if there was one so far.
    #[must_use]
    pub fn panic(&self) -> Option<String> {
        self.panic.borrow().clone()
    }

    /// Waits for the console's end, which comes with QEMU's.
    pub async fn ended(&mut self) {
        let _ = (&mut self.reader).await;
    }

    /// The last `bytes` of what was printed.
    #[must_use]
    pub fn last(&self, bytes: usize) -> String {
        self.with(|kept| {
            let tail: Vec<u8> = if kept.tail.is_empty() {
                kept.head[kept.head.len().saturating_sub(bytes)..].to_vec()
            } else {
                kept.tail.iter().copied().skip(kept.tail.len().saturating_sub(bytes)).collect()
            };
            String::from_utf8_lossy(&tail).into_owned()
        })
    }

    /// All that was kept, what was left out being told.
    #[must_use]
    pub fn text(&self) -> String {
        self.with(|kept| {
            let mut bytes = kept.head.clone();
            bytes.extend(left_out(kept).unwrap_or_default().into_bytes());
            bytes.extend(&kept.tail);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }

    /// What tells its last line from now on.
    #[must_use]
    pub fn last_line(&self) -> LastLine {
        LastLine(Arc::clone(&self.kept))
    }

    /// When the first byte came.
    #[must_use]
    pub fn first_byte(&self) -> Option<Instant> {
        self.with(|kept| kept.first_byte)
    }

    /// When the kernel said that it starts init.
    #[must_use]
    pub fn init_started(&self) -> Option<Instant> {
        self.with(|kept| kept.init_started)
    }

    fn with<T>(&self, look: impl FnOnce(&Kept) -> T) -> T {
        look(&self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn left_out(kept: &Kept) -> Option<String> {
    let bytes = kept.total - kept.head.len() as u64 - kept.tail.len() as u64;
    (bytes > 0).then(|| format!("\n[dmarig: {bytes} bytes of the console left out here]\n"))
}

async fn read(
    mut socket: UnixStream,
    kept: Arc<Mutex<Kept>>,
    mut log: Option<File>,
    panic: watch::Sender<Option<String>>,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length @ 1..) = socket.read(&mut buffer).await {
        let bytes = &buffer[..length];
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let logged = kept.add(bytes);
        if log.as_mut().is_some_and(|log| log.write_all(&bytes[..logged]).is_err()) {
            tracing::warn!("the console's log can't be written any more");
            log = None;
        }
        if let Some(line) = kept.watch(bytes) {
            panic.send_if_modified(|seen| seen.is_none() && seen.replace(line).is_none());
        }
    }
    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if let (Some(log), false) = (&mut log, kept.tail.is_empty()) {
        let (front, back) = kept.tail.as_slices();
        let note = left_out(&kept).unwrap_or_default();
        let written =
            [note.as_bytes(), front, back].iter().try_for_each(|part| log.write_all(part));
        if written.is_err() {
            tracing::warn!("the end of the console's log could not be written");
        }
    }
}

impl Kept {
    /// Keeps what there is room for; gives how many of the bytes went to the head.
    fn add(&mut self, bytes: &[u8]) -> usize {
        self.total += bytes.len() as u64;
        self.first_byte.get_or_insert_with(Instant::now);
        let to_head = bytes.len().min(HEAD_KEPT - self.head.len());
        self.head.extend_from_slice(&bytes[..to_head]);
        self.tail.extend(&bytes[to_head..]);
        let surplus = self.tail.len().saturating_sub(TAIL_KEPT);
        self.tail.drain(..surplus);
        to_head
    }

    /// Looks at each line that these bytes end; gives the panic's if there is one.
    fn watch(&mut self, bytes: &[u8]) -> Option<String> {
        let mut panic = None;
        for byte in bytes {
            if *byte != b'\n' && self.line.len() < MAX_LINE {
                self.line.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&self.line);
            // A program may speak of the panic of a guest of its own.
            if line.contains("Kernel panic - not syncing") && !line.starts_with(ECHO) {
                panic.get_or_insert_with(|| line.trim().to_owned());
            }
            if self.init_started.is_none() && line.contains("Run /init as init process") {
                self.init_started = Some(Instant::now());
            }
            if !line.trim().is_empty() {
                self.last_line = line.trim().to_owned();
            }
            self.line.clear();
        }
        panic
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn what_a_program_says_is_no_panic_of_this_kernel() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut console = Console::start(near, None);
        far.write_all(b"> inner: Kernel panic - not syncing: x\r\n\r\nhalf").await.unwrap();
        drop(far);
        console.ended().await;
        assert_eq!(console.panic(), None);
        assert_eq!(console.last_line().get(), "> inner: Kernel panic - not syncing: x");
    }

    #[tokio::test]
    async fn a_panic_is_known_when_its_line_ends() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut console = Console::start(near, None);
        far.write_all(b"[    1.0] Run /init as init process\r\n[ 2.0] Kernel panic - not ")
            .await
            .unwrap();
        far.write_all(b"syncing: Attempted to kill init!\r\n").await.unwrap();
        let line = tokio::time::timeout(Duration::from_secs(60), console.panicked()).await.unwrap();
        assert_eq!(line, "[ 2.0] Kernel panic - not syncing: Attempted to kill init!");
        assert!(console.init_started().is_some());
    }

    #[tokio::test]
    async fn a_flood_keeps_its_ends_and_is_told() {
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
        console.ended().await;
        let written = std::fs::read(log.path()).unwrap();
        assert!(written.len() < HEAD_KEPT + TAIL_KEPT + 200, "{}", written.len());
        assert!(console.text().contains("bytes of the console left out here"));
        assert!(console.last(7) == "the end" && written.ends_with(b"the end"));
    }
}
