//! The hypervisor's trace, read from a FIFO and counted as it is written.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    thread::JoinHandle,
};

use dmarig_model::{
    observation::TraceCounts,
    plan::TRACE_FIFO,
    trace::{MARK, TraceCounter},
};
use dmarig_viommu::Viommu;
use tokio::sync::mpsc;

/// Size of the FIFO and of a read, in bytes: the most that an ordinary user may ask for.
const CHUNK: usize = 1 << 20;

/// A FIFO that QEMU writes its trace to, and the thread that counts its lines.
#[derive(Debug)]
pub struct Trace {
    marks: File,
    next_mark: u64,
    windows: mpsc::UnboundedReceiver<(u64, TraceCounts)>,
    reader: Option<JoinHandle<io::Result<()>>>,
}

impl Trace {
    /// Creates the FIFO in `directory` and starts to count the events of `viommu` in it.
    ///
    /// # Errors
    /// The system's error.
    pub fn start(directory: &Path, viommu: &'static dyn Viommu) -> io::Result<Self> {
        let path = directory.join(TRACE_FIFO);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600))?;
        // A FIFO opens for reading at once only without blocking, and for writing only with a reader.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let fifo = OpenOptions::new().read(true).custom_flags(flags).open(&path)?;
        let marks = OpenOptions::new().write(true).open(&path)?;
        rustix::fs::fcntl_setfl(&fifo, rustix::fs::OFlags::empty())?;
        // A host may allow less; then it is smaller.
        let _ = rustix::pipe::fcntl_setpipe_size(&fifo, CHUNK);
        let (sender, windows) = mpsc::unbounded_channel();
        let counter = TraceCounter::new(viommu);
        let reader = std::thread::Builder::new()
            .name("trace".into())
            .spawn(move || count(fifo, counter, &sender))?;
        Ok(Self { marks, next_mark: 1, windows, reader: Some(reader) })
    }

    /// Takes the counts since the last call. To be called when QEMU has answered that the events are
    /// off: by then it has written all of them.
    ///
    /// # Errors
    /// The stream has ended.
    pub async fn take(&mut self) -> io::Result<TraceCounts> {
        let mark = self.next_mark;
        self.next_mark += 1;
        // Shorter than PIPE_BUF, so it can't be torn by a line of QEMU's. The reader is emptying
        // the FIFO all the time: this does not block for long.
        self.marks.write_all(format!("{MARK}{mark}\n").as_bytes())?;
        while let Some((number, counts)) = self.windows.recv().await {
            if number == mark {
                return Ok(counts);
            }
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the trace's stream ended"))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // The thread ends with the last writer: that is us once QEMU is gone. Where QEMU is still
        // there it is left to end by itself rather than waited for.
        drop(self.reader.take());
    }
}

fn count(
    mut fifo: File,
    mut counter: TraceCounter,
    sender: &mpsc::UnboundedSender<(u64, TraceCounts)>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = fifo.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        counter.push(&buffer[..length]);
        for window in counter.windows() {
            // Nobody listens any more once the guest is being ended.
            let _ = sender.send(window);
        }
    }
}
