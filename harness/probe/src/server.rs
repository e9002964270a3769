//! The server's side of vfio-user: one client at a time, its commands answered in order.
//!
//! The socket's thread answers every message itself and waits for nothing but, rarely, the controller's
//! reset. When it has answered all messages, it also executes short commands. Before it sleeps it polls
//! for more work, for as long as that was lately worth it. Replies to commands of the server (DMA
//! through the client) are distinguished from commands by their type.

use std::{
    collections::HashMap,
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Sender},
    },
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags},
};

use crate::{
    counting::Profile,
    device::Device,
    nvme::Engine,
    protocol::{
        self, Command, DmaMap, DmaUnmap, HEADER_BYTES, Header, MAX_FDS, MAX_MESSAGE_BYTES, Writer,
        command,
    },
};

/// Time that the client gets for DMA. QEMU waits 5 s for the probe, too.
const DMA_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of one read; many small messages come in one.
const READ_BYTES: usize = 64 << 10;

/// Longest polling for work before sleeping: the time of an emulated guest between two bursts of 32
/// requests.
const MAX_POLLING: Duration = Duration::from_millis(2);
/// Shortest polling, after a sleep that was in vain.
const MIN_POLLING: Duration = Duration::from_micros(10);

/// If yielding takes longer than this, more threads have work than there are processors, and polling
/// is at their cost.
const CROWDED: Duration = Duration::from_micros(300);

/// Why a connection was closed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket failed.
    #[error("the vfio-user socket: {0}")]
    Socket(#[from] Errno),
    /// The bytes can't be a message.
    #[error("not a vfio-user message: {0}")]
    Stream(Errno),
}

/// Why DMA through the client failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DmaError {
    /// The client refused it.
    #[error("the client refused it: {0}")]
    Refused(Errno),
    /// There is no client, or it did not answer.
    #[error("the client did not answer")]
    NoAnswer,
}

/// The body of the client's reply, or its error.
type Answer = Result<Vec<u8>, Errno>;

/// The connection to the client, for commands of the server.
#[derive(Debug, Default)]
pub struct Client {
    outgoing: Mutex<Outgoing>,
    waiting: Mutex<HashMap<u16, Sender<Answer>>>,
}

#[derive(Debug, Default)]
struct Outgoing {
    stream: Option<UnixStream>,
    writer: Writer,
    next: u16,
}

impl Client {
    /// Makes the client read memory for the device, through its own IOMMU.
    ///
    /// # Errors
    /// [`DmaError`]
    pub fn dma_read(&self, iova: u64, size: u32) -> Result<(), DmaError> {
        self.request(|writer, id| writer.dma_read(id, iova, size)).map(drop)
    }

    /// Makes the client write memory for the device, through its own IOMMU.
    ///
    /// # Errors
    /// [`DmaError`]
    pub fn dma_write(&self, iova: u64, data: &[u8]) -> Result<(), DmaError> {
        self.request(|writer, id| writer.dma_write(id, iova, data)).map(drop)
    }

    /// Closes the connection, so that [`serve`] returns.
    pub fn disconnect(&self) {
        if let Some(stream) = &self.outgoing().stream {
            // It may be gone already.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    fn request(
        &self,
        message: impl FnOnce(&mut Writer, u16) -> &[u8],
    ) -> Result<Vec<u8>, DmaError> {
        let (id, answer) = {
            let mut outgoing = self.outgoing();
            let Outgoing { stream, writer, next } = &mut *outgoing;
            let stream = stream.as_ref().ok_or(DmaError::NoAnswer)?;
            *next = next.wrapping_add(1);
            let (sender, answer) = mpsc::channel();
            self.waiting().insert(*next, sender);
            if send(stream, message(writer, *next)).is_err() {
                self.waiting().remove(next);
                return Err(DmaError::NoAnswer);
            }
            (*next, answer)
        };
        let received = answer.recv_timeout(DMA_TIMEOUT);
        self.waiting().remove(&id);
        match received {
            Ok(answer) => answer.map_err(DmaError::Refused),
            Err(_) => Err(DmaError::NoAnswer),
        }
    }

    fn deliver_reply(&self, header: &Header, body: &[u8]) {
        match self.waiting().remove(&header.id.get()) {
            Some(sender) => {
                // The receiver may have given up.
                let _ = sender.send(header.failed().map_or_else(|| Ok(body.to_vec()), Err));
            }
            None => tracing::warn!(?header, "a reply to nothing"),
        }
    }

    fn reply(&self, message: impl FnOnce(&mut Writer) -> &[u8]) -> Result<(), Errno> {
        let mut outgoing = self.outgoing();
        let Outgoing { stream, writer, .. } = &mut *outgoing;
        stream.as_ref().map_or(Ok(()), |stream| send(stream, message(writer)))
    }

    fn outgoing(&self) -> std::sync::MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u16, Sender<Answer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves one client until it disconnects.
///
/// # Errors
/// [`ServeError`], after which the connection is closed.
pub fn serve(
    stream: UnixStream,
    client: &Arc<Client>,
    device: &mut Device,
    engine: &Engine,
) -> Result<(), ServeError> {
    let writing = stream
        .try_clone()
        .map_err(|error| ServeError::Socket(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    client.outgoing().stream = Some(writing);
    let result = Connection { client, device, engine, negotiated: false, minor: 0 }.run(&stream);
    client.outgoing().stream = None;
    client.waiting().clear();
    result
}

struct Connection<'a> {
    client: &'a Client,
    device: &'a mut Device,
    engine: &'a Engine,
    negotiated: bool,
    minor: u16,
}

impl Connection<'_> {
    fn run(&mut self, stream: &UnixStream) -> Result<(), ServeError> {
        let mut input = Input::default();
        let mut polling = Polling::default();
        while self.wait_for_input(stream, &mut input, &mut polling)? {
            while let Some((header, end)) = input.message()? {
                let began = Instant::now();
                let fds = input.take_fds();
                let body = &input.bytes[input.start + HEADER_BYTES..end];
                if header.is_reply() {
                    self.client.deliver_reply(&header, body);
                } else {
                    self.answer(&header, body, fds)?;
                }
                input.start = end;
                let profile = self.device.memory.profile();
                Profile::add(&profile.messages, 1);
                if matches!(header.command.get(), command::DMA_MAP | command::DMA_UNMAP) {
                    Profile::add_time(&profile.socket_ns, began);
                }
            }
        }
        Ok(())
    }

    /// Reads from the socket, at least a byte, and executes short commands meanwhile. `false` at the
    /// socket's end.
    fn wait_for_input(
        &mut self,
        stream: &UnixStream,
        input: &mut Input,
        polling: &mut Polling,
    ) -> Result<bool, ServeError> {
        let mut since = Instant::now();
        loop {
            let had_commands = self.engine.run_short_commands();
            let began = Instant::now();
            if let Some(more) = input.fill(stream, RecvFlags::DONTWAIT)? {
                Profile::add_time(&self.device.memory.profile().socket_ns, began);
                return Ok(more);
            }
            if had_commands {
                since = Instant::now();
            } else if since.elapsed() < polling.limit {
                polling.yield_once();
            } else if !self.engine.arm_doorbells() {
                break;
            }
        }
        Profile::add(&self.device.memory.profile().sleeps, 1);
        let slept = Instant::now();
        loop {
            if let Some(more) = input.fill(stream, RecvFlags::empty())? {
                polling.adjust(slept.elapsed());
                return Ok(more);
            }
        }
    }

    fn answer(&mut self, header: &Header, body: &[u8], fds: Vec<OwnedFd>) -> Result<(), Errno> {
        let command = protocol::decode(header, body).and_then(|command| {
            // The version is negotiated first, and once.
            let is_version = matches!(command, Command::Version(_));
            if is_version == self.negotiated { Err(Errno::INVAL) } else { Ok(command) }
        });
        let result = command.and_then(|command| self.execute(header, command, fds));
        match result {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::debug!(?header, %error, "refused");
                if header.wants_no_reply() {
                    return Ok(());
                }
                self.client.reply(|writer| writer.failure(header, error))
            }
        }
    }

    /// Executes a command and replies; if it returns an error, no reply was sent.
    fn execute(
        &mut self,
        header: &Header,
        command: Command<'_>,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Errno> {
        match command {
            Command::Version(theirs) => {
                if theirs.major != 0 {
                    return Err(Errno::PROTONOSUPPORT);
                }
                self.negotiated = true;
                self.minor = theirs.minor.min(1);
                let minor = self.minor;
                self.reply(header, |writer| writer.version(header, minor))
            }
            Command::DmaMap(map) => {
                self.map(&map, fds)?;
                self.reply(header, |writer| writer.reply(header))
            }
            Command::DmaUnmap(unmap) => {
                self.unmap(&unmap)?;
                self.reply(header, |writer| writer.unmapped(header, &unmap))
            }
            Command::DeviceInfo => {
                let (flags, regions, irqs) = self.device.info();
                self.reply(header, |writer| writer.device_info(header, flags, regions, irqs))
            }
            Command::RegionInfo { index } => {
                let (flags, size) = self.device.region(index)?;
                self.reply(header, |writer| writer.region_info(header, index, flags, size))
            }
            Command::IrqInfo { index } => {
                let (flags, count) = self.device.irq(index)?;
                self.reply(header, |writer| writer.irq_info(header, index, flags, count))
            }
            Command::SetIrqs(set) => {
                self.device.interrupts.set(&set, fds)?;
                self.reply(header, |writer| writer.reply(header))
            }
            Command::RegionRead { offset, region, count } => {
                let data = self.device.read(region, offset, count)?;
                self.reply(header, |writer| writer.region_read(header, offset, region, &data))
            }
            Command::RegionWrite { offset, region, data } => {
                self.device.write(region, offset, data)?;
                let count = data.len() as u32;
                self.reply(header, |writer| writer.region_written(header, offset, region, count))
            }
            Command::Reset => {
                self.device.reset();
                self.reply(header, |writer| writer.reply(header))
            }
        }
    }

    fn map(&self, map: &DmaMap, mut fds: Vec<OwnedFd>) -> Result<(), Errno> {
        if fds.len() > 1 {
            return Err(Errno::INVAL);
        }
        self.device.memory.map(map, fds.pop())
    }

    fn unmap(&self, unmap: &DmaUnmap) -> Result<(), Errno> {
        if unmap.all {
            self.device.memory.unmap_all();
            return Ok(());
        }
        self.device.memory.unmap(unmap.iova, unmap.size)
    }

    fn reply(
        &self,
        header: &Header,
        message: impl FnOnce(&mut Writer) -> &[u8],
    ) -> Result<(), Errno> {
        if header.wants_no_reply() { Ok(()) } else { self.client.reply(message) }
    }
}

/// How long to poll for work before sleeping: longer while sleeps are short.
#[derive(Debug, Default)]
struct Polling {
    limit: Duration,
}

impl Polling {
    fn yield_once(&mut self) {
        let began = Instant::now();
        std::thread::yield_now();
        if began.elapsed() > CROWDED {
            self.limit = Duration::ZERO;
        }
    }

    /// Sets the limit by the length of a sleep.
    fn adjust(&mut self, slept: Duration) {
        self.limit = if slept > MAX_POLLING {
            Duration::ZERO
        } else {
            (self.limit * 2).clamp(MIN_POLLING, MAX_POLLING)
        };
    }
}

/// Bytes that were received and not yet parsed.
#[derive(Debug, Default)]
struct Input {
    /// The buffer; received bytes are from `start` to `end`.
    bytes: Vec<u8>,
    /// Where the next message begins.
    start: usize,
    end: usize,
    /// Descriptors that were received.
    fds: Vec<OwnedFd>,
    /// Start of the message that they belong to.
    owner: usize,
}

impl Input {
    /// Reads from the socket, at least a byte. `false` at its end; `None` if it has nothing and `flags`
    /// forbid to wait.
    ///
    /// The kernel ends a read behind a piece that brought descriptors, and QEMU sends a message as
    /// one piece, so descriptors belong to the last message of what a read brings.
    fn fill(&mut self, stream: &UnixStream, flags: RecvFlags) -> Result<Option<bool>, ServeError> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.owner = self.owner.saturating_sub(self.start);
        (self.start, self.end) = (0, self.end - self.start);
        let room = self.message_bytes().max(READ_BYTES);
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut buffers = [IoSliceMut::new(&mut self.bytes[self.end..])];
            let flags = flags | RecvFlags::CMSG_CLOEXEC;
            match rustix::net::recvmsg(stream.as_fd(), &mut buffers, &mut control, flags) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        let count = match received {
            Ok(received) => received.bytes,
            // QEMU is gone and has not read everything.
            Err(Errno::CONNRESET) => 0,
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.end += count;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds = fds.collect();
                self.owner = self.last_message();
            }
        }
        Ok(Some(count > 0))
    }

    /// Start of the last message of which a byte was received.
    fn last_message(&self) -> usize {
        let mut at = self.start;
        while let Some(Ok(header)) = self.bytes[at..self.end].first_chunk().map(Header::decode)
            && at + header.message_bytes() < self.end
        {
            at += header.message_bytes();
        }
        at
    }

    /// Bytes of the message that has begun; 0 if not yet known.
    fn message_bytes(&self) -> usize {
        let header = self.bytes[..self.end].first_chunk().map(Header::decode);
        header.and_then(Result::ok).map_or(0, |header| header.message_bytes())
    }

    /// Header and end of the next complete message.
    fn message(&self) -> Result<Option<(Header, usize)>, ServeError> {
        let bytes = &self.bytes[self.start..self.end];
        let Some(first) = bytes.first_chunk() else { return Ok(None) };
        let header = Header::decode(first).map_err(ServeError::Stream)?;
        let size = header.message_bytes();
        debug_assert!(size <= MAX_MESSAGE_BYTES);
        if bytes.len() < size {
            return Ok(None);
        }
        Ok(Some((header, self.start + size)))
    }

    /// Takes the descriptors of the next message.
    fn take_fds(&mut self) -> Vec<OwnedFd> {
        if self.owner == self.start { std::mem::take(&mut self.fds) } else { Vec::new() }
    }
}

fn send(stream: &UnixStream, message: &[u8]) -> Result<(), Errno> {
    let mut rest = message;
    while !rest.is_empty() {
        match rustix::net::send(stream, rest, SendFlags::NOSIGNAL) {
            Ok(count) => rest = &rest[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
