//! A probe's life: its threads, and what it is asked on the way.

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
use rustix::event::{EventfdFlags, PollFd, PollFlags};

use crate::{
    device::Device,
    irqs::Interrupts,
    memory::Memory,
    nvme::{self, Controller, Event, Registers, Shared, Tally},
    pci::MAX_VECTORS,
    server::{self, Client},
};

/// Most pairs of I/O queues: their doorbells fit below the MSI-X table.
const MAX_QUEUES: u16 = 256;
/// Longest line of a request, in bytes.
const MAX_LINE: u64 = 4096;
/// Longest that an attack may take: it waits for a mapping, and asks the client several times.
const ATTACK_PATIENCE: Duration = Duration::from_secs(60);

/// Why a probe can't begin, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting has a value that it can't have.
    #[error("{0}")]
    Settings(String),
    /// The socket can't be made.
    #[error("can't listen on {path}: {error}; its directory must exist and the name be free")]
    Listen {
        /// Its path.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Requests can't be read or replies not be written.
    #[error("the probe's control channel: {0}")]
    Control(#[from] std::io::Error),
    /// The kernel refuses the means.
    #[error("can't make an eventfd: {0}")]
    Eventfd(#[from] rustix::io::Errno),
}

/// Serves one device on a socket until `requests` end or ask to quit: a JSON
/// [`Request`] a line, each answered by a [`Reply`] on `replies`.
///
/// # Errors
/// Where it can't begin, or the control channel breaks. What a client does wrong ends its
/// connection, and nothing else.
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
    thread::scope(|scope| {
        let work = thread::Builder::new().name("controller".into());
        let worker = work.spawn_scoped(scope, || nvme::work(controller, &shared))?;
        // Known before there is a client: its reset is waited for only where somebody carries it out.
        shared.registers.worked_by(worker.thread().clone());
        let serve = thread::Builder::new().name("socket".into());
        let accepting = serve.spawn_scoped(scope, || {
            accept(&listener, stop.as_fd().try_clone_to_owned(), &shared, &settings)
        });
        let result = match accepting {
            Ok(_) => Control { shared: &shared, replies }.run(requests),
            Err(error) => Err(error.into()),
        };
        shared.registers.tell(Event::Stop);
        // It can't fail: nobody else writes to it.
        let _ = rustix::io::write(&stop, &1u64.to_ne_bytes());
        shared.client.hang_up();
        result
    })
}

fn check(settings: &Settings) -> Result<(), Error> {
    let Settings { disk_bytes, queues, entries, vectors, .. } = settings;
    let wrong = if *disk_bytes == 0 || disk_bytes % nvme::PAGE != 0 {
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
    Err(Error::Settings(wrong))
}

/// Serves one client after the other, until told to stop.
fn accept(
    listener: &UnixListener,
    stop: std::io::Result<OwnedFd>,
    shared: &Shared,
    settings: &Settings,
) {
    let Ok(stop) = stop else { return };
    let Shared { registers, memory, interrupts, client, .. } = shared;
    let mut device = Device::new(
        Arc::clone(memory),
        Arc::clone(interrupts),
        Arc::clone(registers),
        settings.vectors,
    );
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
        match server::serve(stream, client, &mut device) {
            Ok(()) => tracing::info!("the client is gone"),
            Err(error) => tracing::error!(%error, "the client is given up"),
        }
        device.abandon();
    }
}

/// Takes requests and answers them.
struct Control<'a, W> {
    shared: &'a Shared,
    replies: W,
}

impl<W: Write> Control<'_, W> {
    fn run(&mut self, mut requests: impl BufRead) -> Result<(), Error> {
        self.say(&Reply::Listening)?;
        let mut line = String::new();
        loop {
            line.clear();
            if requests.by_ref().take(MAX_LINE).read_line(&mut line)? == 0 {
                return Ok(());
            }
            match serde_json::from_str(&line) {
                Ok(Request::Quit) => return self.say(&Reply::Bye),
                Ok(request) => {
                    let reply = self.answer(request);
                    self.say(&reply)?;
                }
                Err(error) => {
                    self.say(&Reply::Failed { what: format!("not a request: {error}") })?;
                }
            }
        }
    }

    fn say(&mut self, reply: &Reply) -> Result<(), Error> {
        let mut line = serde_json::to_vec(reply).map_err(std::io::Error::from)?;
        line.push(b'\n');
        self.replies.write_all(&line)?;
        Ok(self.replies.flush()?)
    }

    fn answer(&self, request: Request) -> Reply {
        let Shared { memory, tally, .. } = self.shared;
        let tally = || tally.lock().unwrap_or_else(PoisonError::into_inner);
        match request {
            Request::Begin => {
                *tally() = Tally::default();
                memory.begin();
                Reply::Begun
            }
            Request::End => {
                let mut counts: ProbeCounts = memory.counted();
                tally().add_to(&mut counts);
                Reply::Counted { counts: Box::new(counts) }
            }
            Request::Shadow => Reply::Shadow { mappings: memory.mappings() },
            Request::Compare { root, bus, devfn } => match memory.compare(root, bus, devfn) {
                Ok((tables, coherence)) => Reply::Compared { tables, coherence },
                Err(what) => Reply::Failed { what },
            },
            Request::Attack { kind } => self.attack(kind),
            Request::Quit => Reply::Bye,
        }
    }

    fn attack(&self, kind: Attack) -> Reply {
        let (done, outcome) = mpsc::sync_channel(1);
        self.shared.registers.tell(Event::Attack { kind, done });
        match outcome.recv_timeout(ATTACK_PATIENCE) {
            Ok(Ok(outcome)) => Reply::Attacked { outcome },
            Ok(Err(what)) => Reply::Failed { what },
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

/// The socket's name, which goes with its listener.
struct SocketFile<'a>(&'a Path);

impl Drop for SocketFile<'_> {
    fn drop(&mut self) {
        // It may be gone with its directory.
        let _ = std::fs::remove_file(self.0);
    }
}
