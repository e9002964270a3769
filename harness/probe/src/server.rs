//! The server's side of vfio-user: one client at a time, its commands answered in order.
//!
//! The socket's thread answers everything by itself and waits for nothing but, rarely, the
//! controller's reset. When it has answered all that has come, it carries short commands out too, and
//! before it sleeps it looks for more for as long as that has lately been worth it. Replies to commands of ours (DMA
//! through the client) are told from commands by their type.

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
    device::Device,
    memory::Spent,
    nvme::Engine,
    protocol::{self, Command, HEADER_BYTES, Header, MAX_FDS, MAX_MESSAGE_BYTES, Writer, command},
};

/// Longest that the client may take for DMA. QEMU gives up on us after 5 s, too.
const DMA_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that are asked for at a time; many small messages come in one call.
const CHUNK: usize = 64 << 10;

/// Longest that work is looked for before sleeping: what an emulated guest takes between two bursts of
/// 32 requests.
const MAX_WATCH: Duration = Duration::from_millis(2);
/// Shortest, where it was worth it.
const MIN_WATCH: Duration = Duration::from_micros(10);

/// Where to let others run takes longer than this, there are more threads with work than processors,
/// and looking for some is at their cost.
const CROWDED: Duration = Duration::from_micros(300);

/// Why a client was given up.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket failed.
    #[error("the vfio-user socket: {0}")]
    Socket(#[from] Errno),
    /// What came can't be a message.
    #[error("not a vfio-user message: {0}")]
    Stream(Errno),
}

/// Why DMA through the client was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DmaError {
    /// The client refused it.
    #[error("the client refused it: {0}")]
    Refused(Errno),
    /// There is no client, or it didn't answer.
    #[error("the client did not answer")]
    NoAnswer,
}

/// What comes back from the client: a body, or why not.
type Answer = Result<Vec<u8>, Errno>;

/// The way to the client, for those who have something to ask of it.
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
    /// Asks the client to read memory for the device, by way of its own IOMMU.
    ///
    /// # Errors
    /// Where the client refuses or doesn't answer.
    pub fn dma_read(&self, iova: u64, size: u32) -> Result<(), DmaError> {
        self.ask(|writer, id| writer.dma_read(id, iova, size)).map(drop)
    }

    /// Asks the client to write memory for the device, by way of its own IOMMU.
    ///
    /// # Errors
    /// Where the client refuses or doesn't answer.
    pub fn dma_write(&self, iova: u64, data: &[u8]) -> Result<(), DmaError> {
        self.ask(|writer, id| writer.dma_write(id, iova, data)).map(drop)
    }

    /// Ends the connection, so that its thread comes back.
    pub fn hang_up(&self) {
        if let Some(stream) = &self.outgoing().stream {
            // It may be gone already.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    fn ask(&self, message: impl FnOnce(&mut Writer, u16) -> &[u8]) -> Result<Vec<u8>, DmaError> {
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
        let answered = answer.recv_timeout(DMA_PATIENCE);
        self.waiting().remove(&id);
        match answered {
            Ok(answer) => answer.map_err(DmaError::Refused),
            Err(_) => Err(DmaError::NoAnswer),
        }
    }

    fn answered(&self, header: &Header, body: &[u8]) {
        match self.waiting().remove(&header.id) {
            Some(sender) => {
                // Who asked may have given up.
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

/// Serves one client until it goes.
///
/// # Errors
/// Where the socket fails or what comes can't be understood; the connection is at its end in any
/// case.
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
        let mut watch = Watch::default();
        while self.await_more(stream, &mut input, &mut watch)? {
            while let Some((header, end)) = input.message()? {
                let began = Instant::now();
                let fds = input.fds_of_first();
                let body = &input.bytes[input.start + HEADER_BYTES..end];
                if header.is_reply() {
                    self.client.answered(&header, body);
                } else {
                    self.answer(&header, body, fds)?;
                }
                input.start = end;
                let spent = self.device.memory.spent();
                Spent::add(&spent.messages, 1);
                if matches!(header.command, command::DMA_MAP | command::DMA_UNMAP) {
                    Spent::add_time(&spent.socket_ns, began);
                }
            }
        }
        Ok(())
    }

    /// Takes what the socket has, at least a byte; meanwhile does what there is to do. `false` at
    /// the socket's end.
    fn await_more(
        &mut self,
        stream: &UnixStream,
        input: &mut Input,
        watch: &mut Watch,
    ) -> Result<bool, ServeError> {
        let mut since = Instant::now();
        loop {
            let helped = self.engine.help();
            let began = Instant::now();
            if let Some(more) = input.fill(stream, RecvFlags::DONTWAIT)? {
                Spent::add_time(&self.device.memory.spent().socket_ns, began);
                return Ok(more);
            }
            if helped {
                since = Instant::now();
            } else if since.elapsed() < watch.longest {
                watch.let_others_run();
            } else if !self.engine.arm() {
                break;
            }
        }
        Spent::add(&self.device.memory.spent().sleeps, 1);
        let slept = Instant::now();
        loop {
            if let Some(more) = input.fill(stream, RecvFlags::empty())? {
                watch.slept(slept.elapsed());
                return Ok(more);
            }
        }
    }

    fn answer(&mut self, header: &Header, body: &[u8], fds: Vec<OwnedFd>) -> Result<(), Errno> {
        let command = protocol::decode(header, body).and_then(|command| {
            // Nothing goes before the version.
            let first = matches!(command, Command::Version(_));
            if first == self.negotiated { Err(Errno::INVAL) } else { Ok(command) }
        });
        let done = command.and_then(|command| self.perform(header, command, fds));
        match done {
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

    /// Does a command and replies; what comes back as an error has not been replied to.
    fn perform(
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
                let mut fds = fds;
                if fds.len() > 1 {
                    return Err(Errno::INVAL);
                }
                self.device.memory.map(&map, fds.pop())?;
                self.reply(header, |writer| writer.reply(header))
            }
            Command::DmaUnmap(unmap) => {
                if unmap.all {
                    self.device.memory.unmap_all();
                } else {
                    self.device.memory.unmap(unmap.iova, unmap.size)?;
                }
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

    fn reply(
        &self,
        header: &Header,
        message: impl FnOnce(&mut Writer) -> &[u8],
    ) -> Result<(), Errno> {
        if header.wants_no_reply() { Ok(()) } else { self.client.reply(message) }
    }
}

/// How long to look for work before going to sleep: as long as a sleep was lately in vain.
#[derive(Debug, Default)]
struct Watch {
    longest: Duration,
}

impl Watch {
    fn let_others_run(&mut self) {
        let began = Instant::now();
        std::thread::yield_now();
        if began.elapsed() > CROWDED {
            self.longest = Duration::ZERO;
        }
    }

    fn slept(&mut self, time: Duration) {
        self.longest = if time > MAX_WATCH {
            Duration::ZERO
        } else {
            (self.longest * 2).clamp(MIN_WATCH, MAX_WATCH)
        };
    }
}

/// What has come and isn't understood yet.
#[derive(Debug, Default)]
struct Input {
    /// Room; what has come is from `start` to `end`.
    bytes: Vec<u8>,
    /// Where the next message begins.
    start: usize,
    end: usize,
    /// Descriptors that have come.
    fds: Vec<OwnedFd>,
    /// Where the message begins that they belong to.
    owner: usize,
}

impl Input {
    /// Takes what the socket has, at least a byte. `false` at its end; `None` where it has nothing and
    /// `flags` say not to wait.
    ///
    /// The kernel ends a read behind a piece that brought descriptors, and QEMU sends a message as
    /// one piece, so descriptors belong to the last message of what a read brings.
    fn fill(&mut self, stream: &UnixStream, flags: RecvFlags) -> Result<Option<bool>, ServeError> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.owner = self.owner.saturating_sub(self.start);
        (self.start, self.end) = (0, self.end - self.start);
        let room = self.wanted().max(CHUNK);
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
            // QEMU is gone without having read all that we sent.
            Err(Errno::CONNRESET) => 0,
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.end += count;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds = fds.collect();
                self.owner = self.last_begun();
            }
        }
        Ok(Some(count > 0))
    }

    /// Where the last message begins of which anything has come.
    fn last_begun(&self) -> usize {
        let mut at = self.start;
        while let Some(Ok(header)) = self.bytes[at..self.end].first_chunk().map(Header::decode)
            && at + (header.size as usize) < self.end
        {
            at += header.size as usize;
        }
        at
    }

    /// Bytes of the message that has begun, as far as that is known.
    fn wanted(&self) -> usize {
        let header = self.bytes[..self.end].first_chunk().map(Header::decode);
        header.and_then(Result::ok).map_or(0, |header| header.size as usize)
    }

    /// The next whole message: its header and its end.
    fn message(&self) -> Result<Option<(Header, usize)>, ServeError> {
        let bytes = &self.bytes[self.start..self.end];
        let Some(first) = bytes.first_chunk() else { return Ok(None) };
        let header = Header::decode(first).map_err(ServeError::Stream)?;
        let size = header.size as usize;
        debug_assert!(size <= MAX_MESSAGE_BYTES);
        Ok((bytes.len() >= size).then_some((header, self.start + size)))
    }

    /// The descriptors of the next message.
    fn fds_of_first(&mut self) -> Vec<OwnedFd> {
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
