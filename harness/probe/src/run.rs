//! Runs a probe: its threads and its control channel.

use std::{
    io::{BufRead, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use dmarig_model::probe::{Attack, ProbeCounts, Reply, Request, Settings};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use crate::{
    device::Device,
    irqs::Interrupts,
    memory::Memory,
    nvme::{self, Controller, Engine, Event, Registers, Shared, Tally},
    pci::MAX_VECTORS,
    server::{self, Client},
};

/// Most pairs of I/O queues: their doorbells fit below the MSI-X table.
const MAX_QUEUES: u16 = 256;
/// Longest line of a request, in bytes.
const MAX_LINE: u64 = 4096;
/// Time that an attack gets: it waits for a mapping, and asks the client several times.
const ATTACK_TIMEOUT: Duration = Duration::from_secs(60);
/// Time that the controller gets until its next turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a probe can't start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is out of range.
    #[error("{0}")]
    Settings(String),
    /// The socket can't be made.
    #[error("can't listen on {path}: {error}; its directory must exist and the name be free")]
    Listen {
        /// Its path.
        path: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// Requests can't be read, or replies can't be written.
    #[error("the probe's control channel: {0}")]
    Control(#[from] std::io::Error),
    /// The kernel refuses an eventfd.
    #[error("can't make an eventfd: {0}")]
    Eventfd(#[from] rustix::io::Errno),
}

/// Serves one device on a socket until `requests` end or have [`Request::Quit`]. Each line is a
/// [`Request`] in JSON, and gets a [`Reply`] on `replies`.
///
/// # Errors
/// Where it can't start, or the control channel fails. A client that breaks the protocol loses its
/// connection, and nothing else happens.
pub fn run(
    listener_path: &Path,
    settings: Settings,
    requests: impl BufRead + Send,
    replies: impl Write + Send,
) -> Result<(), Error> {
    check(&settings)?;
    let listen = |error| Error::Listen { path: listener_path.to_owned(), error };
    let listener = UnixListener::bind(listener_path).map_err(listen)?;
    let _socket = SocketFile(listener_path);
    listener.set_nonblocking(true).map_err(listen)?;
    let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
    let shared = Shared {
        registers: Arc::new(Registers::new(settings.queues, settings.entries)),
        memory: Arc::new(Memory::new(settings.follow)),
        interrupts: Arc::new(Interrupts::new(settings.vectors)),
        tally: Arc::new(Mutex::new(Tally::default())),
        client: Arc::new(Client::default()),
    };
    let controller = Controller::new(
        settings.clone(),
        serial(listener_path),
        Arc::clone(&shared.registers),
        Arc::clone(&shared.memory),
        Arc::clone(&shared.interrupts),
        Arc::clone(&shared.tally),
    );
    let engine = Arc::new(Engine::new(controller, Arc::clone(&shared.registers)));
    let replies = Replies(Mutex::new(replies));
    thread::scope(|scope| {
        let work = thread::Builder::new().name("controller".into());
        let worker = work.spawn_scoped(scope, || nvme::work(&engine, &shared))?;
        // Set before there is a client: a reset waits only if there is a thread to do it.
        shared.registers.set_worker(worker.thread().clone());
        let serve = thread::Builder::new().name("socket".into());
        let accepting = serve.spawn_scoped(scope, || {
            let device = Device::new(
                Arc::clone(&shared.memory),
                Arc::clone(&shared.interrupts),
                Arc::clone(&shared.registers),
                settings.vectors,
            );
            let stop = stop.as_fd().try_clone_to_owned();
            accept(&listener, stop, &shared.client, device, &engine, |what| {
                // If nobody listens, nobody needs to know.
                let _ = replies.send(&Reply::Lost { what });
            });
        });
        let result = match accepting {
            Ok(_) => Control { shared: &shared, replies: &replies }.run(requests),
            Err(error) => Err(error.into()),
        };
        shared.registers.post(Event::Stop);
        // It can't fail: nobody else writes to it.
        let _ = rustix::io::write(&stop, &1u64.to_ne_bytes());
        shared.client.disconnect();
        result
    })
}

fn check(settings: &Settings) -> Result<(), Error> {
    let Settings { disk_bytes, queues, entries, vectors, .. } = settings;
    let problem = if *disk_bytes == 0 || disk_bytes % nvme::PAGE != 0 {
        format!("a disk of {disk_bytes} bytes: it takes a multiple of {}", nvme::PAGE)
    } else if !(1..=MAX_QUEUES).contains(queues) {
        format!("{queues} pairs of I/O queues: 1 to {MAX_QUEUES}")
    } else if !(2..=nvme::MAX_ENTRIES).contains(entries) {
        format!("{entries} entries of an I/O queue: 2 to {}", nvme::MAX_ENTRIES)
    } else if !(1..=MAX_VECTORS).contains(vectors) {
        format!("{vectors} MSI-X vectors: 1 to {MAX_VECTORS}")
    } else {
        return Ok(());
    };
    Err(Error::Settings(problem))
}

/// Serves one client after the other until `stop` is readable; calls `lost` for each that disconnects
/// before.
fn accept(
    listener: &UnixListener,
    stop: std::io::Result<OwnedFd>,
    client: &Arc<Client>,
    mut device: Device,
    engine: &Engine,
    lost: impl Fn(String),
) {
    let Ok(stop) = stop else { return };
    loop {
        let mut ready = [PollFd::new(&stop, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        match rustix::event::poll(&mut ready, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return tracing::error!(%error, "can't wait for a client"),
        }
        if !ready[0].revents().is_empty() {
            return;
        }
        let Ok((stream, _)) = listener.accept() else { continue };
        tracing::info!("a client");
        // On Linux an accepted socket doesn't inherit it, but nothing says so.
        if let Err(error) = stream.set_nonblocking(false) {
            tracing::error!(%error, "a socket that can't block");
            continue;
        }
        let served = server::serve(stream, client, &mut device, engine);
        device.disconnect();
        if is_readable(&stop) {
            return;
        }
        match served {
            Ok(()) => {
                tracing::info!("the client is gone");
                lost("QEMU has closed the device's socket".to_owned());
            }
            Err(error) => {
                tracing::error!(%error, "the client is given up");
                lost(error.to_string());
            }
        }
    }
}

fn is_readable(fd: &OwnedFd) -> bool {
    let mut ready = [PollFd::new(fd, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut ready, Some(&at_once)).is_ok_and(|count| count > 0)
}

/// Writes replies, one per line.
struct Replies<W>(Mutex<W>);

impl<W: Write> Replies<W> {
    fn send(&self, reply: &Reply) -> Result<(), Error> {
        let mut line = serde_json::to_vec(reply).map_err(std::io::Error::from)?;
        line.push(b'\n');
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(&line)?;
        Ok(out.flush()?)
    }
}

/// Answers requests.
struct Control<'a, W> {
    shared: &'a Shared,
    replies: &'a Replies<W>,
}

impl<W: Write> Control<'_, W> {
    fn run(&self, mut requests: impl BufRead) -> Result<(), Error> {
        self.replies.send(&Reply::Listening)?;
        let mut line = String::new();
        loop {
            line.clear();
            if requests.by_ref().take(MAX_LINE).read_line(&mut line)? == 0 {
                return Ok(());
            }
            match serde_json::from_str(&line) {
                Ok(Request::Quit) => return self.replies.send(&Reply::Bye),
                Ok(request) => {
                    let reply = self.answer(request);
                    self.replies.send(&reply)?;
                }
                Err(error) => {
                    self.replies
                        .send(&Reply::Failed { what: format!("not a request: {error}") })?;
                }
            }
        }
    }

    fn answer(&self, request: Request) -> Reply {
        let Shared { memory, tally, .. } = self.shared;
        let tally = || tally.lock().unwrap_or_else(PoisonError::into_inner);
        match request {
            Request::Begin => {
                *tally() = Tally::default();
                memory.begin_window();
                Reply::Begun
            }
            Request::End => {
                // A controller that hangs would have counts, too, and its guest would be blamed.
                if !self.controller_responds() {
                    let what = format!("the controller takes no turn within {TURN_TIMEOUT:?}");
                    return Reply::Failed { what };
                }
                let mut counts: ProbeCounts = memory.counts();
                tally().add_to(&mut counts);
                Reply::Counted { counts: Box::new(counts) }
            }
            Request::Shadow => Reply::Shadow { mappings: memory.mappings() },
            Request::Compare { root, bus, devfn } => match memory.compare(root, bus, devfn) {
                Ok((tables, coherence)) => Reply::Compared { tables, coherence },
                Err(error) => Reply::Failed { what: error.to_string() },
            },
            Request::Attack { kind } => self.attack(kind),
            Request::Quit => Reply::Bye,
        }
    }

    fn controller_responds(&self) -> bool {
        let (done, answer) = mpsc::sync_channel(1);
        self.shared.registers.post(Event::Turn { done });
        answer.recv_timeout(TURN_TIMEOUT).is_ok()
    }

    fn attack(&self, kind: Attack) -> Reply {
        let (done, outcome) = mpsc::sync_channel(1);
        self.shared.registers.post(Event::Attack { kind, done });
        match outcome.recv_timeout(ATTACK_TIMEOUT) {
            Ok(Ok(outcome)) => Reply::Attacked { outcome },
            Ok(Err(error)) => Reply::Failed { what: error.to_string() },
            Err(_) => Reply::Failed { what: "the attack came to no end".to_owned() },
        }
    }
}

/// A serial number that differs between probes.
fn serial(path: &Path) -> String {
    let path = path.as_os_str().as_encoded_bytes();
    let hash = path.iter().fold(0, |state, byte| dmarig_pattern::mix(state ^ u64::from(*byte)));
    format!("DMARIG{:014X}", hash >> 8)
}

/// Removes the socket's file when the probe ends.
struct SocketFile<'a>(&'a Path);

impl Drop for SocketFile<'_> {
    fn drop(&mut self) {
        // It may be gone with its directory.
        let _ = std::fs::remove_file(self.0);
    }
}
