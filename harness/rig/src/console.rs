//! The guest's console: always logged, always bounded, watched for the kernel's last words.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
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

/// The bounded contents of a console, and what was found in them.
#[derive(Debug, Default)]
struct Buffer {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
    line: Vec<u8>,
    last_line: String,
    first_byte: Option<Instant>,
    init_started: Option<Instant>,
}

/// The last line of a console that is still being read.
#[derive(Debug)]
pub struct LastLine(Arc<Mutex<Buffer>>);

impl LastLine {
    /// The last complete line that is not empty, trimmed.
    #[must_use]
    pub fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last_line.clone()
    }
}

/// Reads a console until its end.
#[derive(Debug)]
pub struct Console {
    buffer: Arc<Mutex<Buffer>>,
    panic: watch::Receiver<Option<String>>,
    reader: JoinHandle<()>,
}

impl Console {
    /// Reads `socket`; the bytes that are kept are also written to `log`.
    #[must_use]
    pub fn start(socket: UnixStream, log: Option<File>) -> Self {
        let buffer = Arc::new(Mutex::new(Buffer::default()));
        let (sender, panic) = watch::channel(None);
        let reader = tokio::spawn(read(socket, Arc::clone(&buffer), log, sender));
        Self { buffer, panic, reader }
    }

    /// Waits for the line of a kernel panic; for ever if none comes.
    pub async fn wait_for_panic(&mut self) -> String {
        match self.panic.wait_for(Option::is_some).await.map(|line| line.clone()) {
            Ok(Some(line)) => line,
            _ => std::future::pending().await,
        }
    }

    /// The line of a kernel panic, if there was one so far.
    #[must_use]
    pub fn panic(&self) -> Option<String> {
        self.panic.borrow().clone()
    }

    /// Waits for the console's end, which comes with QEMU's exit.
    pub async fn wait_for_end(&mut self) {
        let _ = (&mut self.reader).await;
    }

    /// The last `bytes` of the output.
    #[must_use]
    pub fn last(&self, bytes: usize) -> String {
        self.with_buffer(|buffer| {
            let tail: Vec<u8> = if buffer.tail.is_empty() {
                buffer.head[buffer.head.len().saturating_sub(bytes)..].to_vec()
            } else {
                buffer.tail.iter().copied().skip(buffer.tail.len().saturating_sub(bytes)).collect()
            };
            String::from_utf8_lossy(&tail).into_owned()
        })
    }

    /// All output that was kept, with a note where bytes are missing.
    #[must_use]
    pub fn text(&self) -> String {
        self.with_buffer(|buffer| {
            let mut bytes = buffer.head.clone();
            bytes.extend(gap_note(buffer).into_bytes());
            bytes.extend(&buffer.tail);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }

    /// A handle on its last line.
    #[must_use]
    pub fn last_line(&self) -> LastLine {
        LastLine(Arc::clone(&self.buffer))
    }

    /// Time of the first byte.
    #[must_use]
    pub fn first_byte(&self) -> Option<Instant> {
        self.with_buffer(|buffer| buffer.first_byte)
    }

    /// Time at which the kernel reported that it starts init.
    #[must_use]
    pub fn init_started(&self) -> Option<Instant> {
        self.with_buffer(|buffer| buffer.init_started)
    }

    fn with_buffer<T>(&self, read: impl FnOnce(&Buffer) -> T) -> T {
        read(&self.buffer.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The note that stands for the bytes between head and tail; empty if none are missing.
fn gap_note(buffer: &Buffer) -> String {
    let missing = buffer.total - buffer.head.len() as u64 - buffer.tail.len() as u64;
    if missing == 0 {
        return String::new();
    }
    format!("\n[dmarig: {missing} bytes of the console left out here]\n")
}

async fn read(
    mut socket: UnixStream,
    buffer: Arc<Mutex<Buffer>>,
    mut log: Option<File>,
    panic: watch::Sender<Option<String>>,
) {
    let mut received = vec![0; 16 << 10];
    while let Ok(length @ 1..) = socket.read(&mut received).await {
        let bytes = &received[..length];
        let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let kept_in_head = buffer.append(bytes);
        if let Some(file) = &mut log
            && file.write_all(&bytes[..kept_in_head]).is_err()
        {
            tracing::warn!("the console's log can't be written any more");
            log = None;
        }
        if let Some(line) = buffer.scan_lines(bytes) {
            panic.send_if_modified(|first| first.is_none() && first.replace(line).is_none());
        }
    }
    let buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = &mut log
        && !buffer.tail.is_empty()
        && write_tail(file, &buffer).is_err()
    {
        tracing::warn!("the end of the console's log could not be written");
    }
}

fn write_tail(log: &mut File, buffer: &Buffer) -> io::Result<()> {
    let (front, back) = buffer.tail.as_slices();
    log.write_all(gap_note(buffer).as_bytes())?;
    log.write_all(front)?;
    log.write_all(back)
}

impl Buffer {
    /// Appends bytes to the head while it has room, then to the tail; returns how many went to the head.
    fn append(&mut self, bytes: &[u8]) -> usize {
        self.total += bytes.len() as u64;
        self.first_byte.get_or_insert_with(Instant::now);
        let to_head = bytes.len().min(HEAD_KEPT - self.head.len());
        self.head.extend_from_slice(&bytes[..to_head]);
        self.tail.extend(&bytes[to_head..]);
        let surplus = self.tail.len().saturating_sub(TAIL_KEPT);
        self.tail.drain(..surplus);
        to_head
    }

    /// Scans each line that these bytes complete; returns the first line of a kernel panic.
    fn scan_lines(&mut self, bytes: &[u8]) -> Option<String> {
        let mut panic = None;
        for byte in bytes {
            if *byte != b'\n' && self.line.len() < MAX_LINE {
                self.line.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&self.line);
            // A program may print the panic of a guest of its own.
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
