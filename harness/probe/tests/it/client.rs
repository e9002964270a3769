//! A client of vfio-user that behaves as QEMU does, over a probe in this process.

use std::{
    fs::File,
    io::{BufRead, BufReader, IoSlice, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{fs::FileExt, net::UnixStream},
    },
    thread::JoinHandle,
    time::Duration,
};

use dmarig_model::probe::{ProbeCounts, Reply, Request, Settings};
use dmarig_probe::{Error, protocol::command};
use rustix::{
    fs::MemfdFlags,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags},
};

/// Longest that a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of the guest's memory.
pub(crate) const RAM: u64 = 16 << 20;

/// A message from the probe.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) id: u16,
    pub(crate) command: u16,
    pub(crate) flags: u32,
    pub(crate) error: u32,
    pub(crate) body: Vec<u8>,
}

/// A probe, its control channel and a client that is connected to it.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    pub(crate) ram: File,
    control: UnixStream,
    replies: BufReader<UnixStream>,
    probe: Option<JoinHandle<Result<(), Error>>>,
    _directory: tempfile::TempDir,
    next: u16,
}

impl Client {
    /// A client that has not yet said a word.
    pub(crate) fn silent(settings: Settings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("probe.sock");
        let (control, theirs) = UnixStream::pair().unwrap();
        let replies = BufReader::new(control.try_clone().unwrap());
        let socket = path.clone();
        let probe = std::thread::spawn(move || {
            let output = theirs.try_clone().unwrap();
            dmarig_probe::run(&socket, settings, BufReader::new(theirs), output)
        });
        let mut replies = replies;
        let mut line = String::new();
        replies.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), r#"{"is":"listening"}"#);
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let ram = File::from(rustix::fs::memfd_create("ram", MemfdFlags::CLOEXEC).unwrap());
        ram.set_len(RAM).unwrap();
        let probe = Some(probe);
        Self { stream, ram, control, replies, probe, _directory: directory, next: 0 }
    }

    /// A client that has negotiated a version.
    pub(crate) fn new(settings: Settings) -> Self {
        let mut client = Self::silent(settings);
        let capabilities = br#"{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576,"migration":{"pgsize":4096},"write_multiple":true}}"#;
        let body = [&[0, 0, 0, 0][..], capabilities, &[0]].concat();
        let version = client.call(command::VERSION, &body, &[]).unwrap();
        assert_eq!(version[..4], [0, 0, 0, 0]);
        assert_eq!(version.last(), Some(&0));
        client
    }

    /// Sends a message as it is.
    pub(crate) fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let parts = [IoSlice::new(bytes)];
        let sent = rustix::net::sendmsg(&self.stream, &parts, &mut control, SendFlags::empty());
        assert_eq!(sent.unwrap(), bytes.len());
    }

    /// Sends a command, and nothing comes back.
    pub(crate) fn post(
        &mut self,
        command: u16,
        body: &[u8],
        flags: u32,
        fds: &[BorrowedFd<'_>],
    ) -> u16 {
        self.next = self.next.wrapping_add(1);
        let size = 16 + body.len() as u32;
        let mut bytes = Vec::new();
        bytes.extend(self.next.to_le_bytes());
        bytes.extend(command.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        self.send(&bytes, fds);
        self.next
    }

    /// Sends a command and takes the reply's body, or its errno.
    pub(crate) fn call(
        &mut self,
        command: u16,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<Vec<u8>, u32> {
        let id = self.post(command, body, 0, fds);
        let reply = self.receive();
        assert_eq!((reply.id, reply.command, reply.flags & 0xf), (id, command, 1));
        if reply.flags & 0x20 != 0 {
            assert_ne!(reply.error, 0, "QEMU takes an errno of 0 for success");
            return Err(reply.error);
        }
        Ok(reply.body)
    }

    pub(crate) fn receive(&mut self) -> Message {
        let mut header = [0; 16];
        self.stream.read_exact(&mut header).unwrap();
        let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let mut body = vec![0; u32_at(4) as usize - 16];
        self.stream.read_exact(&mut body).unwrap();
        Message {
            id: u16::from_le_bytes([header[0], header[1]]),
            command: u16::from_le_bytes([header[2], header[3]]),
            flags: u32_at(8),
            error: u32_at(12),
            body,
        }
    }

    /// Answers a command of the probe.
    pub(crate) fn reply(&self, to: &Message, error: u32, body: &[u8]) {
        let flags = if error == 0 { 1u32 } else { 0x21 };
        let mut bytes = Vec::new();
        bytes.extend(to.id.to_le_bytes());
        bytes.extend(to.command.to_le_bytes());
        bytes.extend((16 + body.len() as u32).to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(error.to_le_bytes());
        bytes.extend(body);
        self.send(&bytes, &[]);
    }

    /// Maps a piece of RAM; `flags` are 1 to read and 2 to write.
    pub(crate) fn map(&mut self, iova: u64, size: u64, offset: u64, flags: u32) -> Result<(), u32> {
        let ram = self.ram.try_clone().unwrap();
        self.call(command::DMA_MAP, &map_body(iova, size, offset, flags), &[ram.as_fd()])
            .map(|body| assert!(body.is_empty()))
    }

    pub(crate) fn unmap(&mut self, iova: u64, size: u64) -> Result<(), u32> {
        let body = [u32s(&[24, 0]), u64s(&[iova, size])].concat();
        self.call(command::DMA_UNMAP, &body, &[]).map(|reply| assert_eq!(reply, body))
    }

    pub(crate) fn read_region(
        &mut self,
        region: u32,
        offset: u64,
        count: u32,
    ) -> Result<Vec<u8>, u32> {
        let body = [u64s(&[offset]), u32s(&[region, count])].concat();
        let reply = self.call(command::REGION_READ, &body, &[])?;
        assert_eq!(reply[..16], body);
        Ok(reply[16..].to_vec())
    }

    pub(crate) fn write_region(
        &mut self,
        region: u32,
        offset: u64,
        data: &[u8],
    ) -> Result<(), u32> {
        let head = [u64s(&[offset]), u32s(&[region, data.len() as u32])].concat();
        let reply = self.call(command::REGION_WRITE, &[&head[..], data].concat(), &[])?;
        assert_eq!(reply, head);
        Ok(())
    }

    /// A posted write, as QEMU's to a BAR are.
    pub(crate) fn post_region(&mut self, region: u32, offset: u64, data: &[u8]) {
        let head = [u64s(&[offset]), u32s(&[region, data.len() as u32])].concat();
        self.post(command::REGION_WRITE, &[&head[..], data].concat(), 0x10, &[]);
    }

    /// Binds MSI-X vectors from `start` on; no descriptors unbind as many as `count`.
    pub(crate) fn set_irqs(
        &mut self,
        flags: u32,
        start: u32,
        count: u32,
        fds: &[OwnedFd],
    ) -> Result<(), u32> {
        let body = u32s(&[20, flags, 2, start, count]);
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        self.call(command::SET_IRQS, &body, &fds).map(|body| assert!(body.is_empty()))
    }

    pub(crate) fn ram(&self, offset: u64, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.ram.read_exact_at(&mut bytes, offset).unwrap();
        bytes
    }

    pub(crate) fn set_ram(&self, offset: u64, bytes: &[u8]) {
        self.ram.write_all_at(bytes, offset).unwrap();
    }

    /// Asks the probe something over its control channel.
    pub(crate) fn ask(&mut self, request: &Request) -> Reply {
        self.ask_first(request);
        self.answer()
    }

    pub(crate) fn ask_first(&mut self, request: &Request) {
        writeln!(self.control, "{}", serde_json::to_string(request).unwrap()).unwrap();
    }

    pub(crate) fn answer(&mut self) -> Reply {
        let mut line = String::new();
        self.replies.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) fn counts(&mut self) -> ProbeCounts {
        match self.ask(&Request::End) {
            Reply::Counted { counts } => *counts,
            other => panic!("{other:?}"),
        }
    }

    /// Ends the probe, which must take it well.
    pub(crate) fn quit(mut self) {
        assert_eq!(self.ask(&Request::Quit), Reply::Bye);
        self.probe.take().unwrap().join().unwrap().unwrap();
    }
}

pub(crate) fn map_body(iova: u64, size: u64, offset: u64, flags: u32) -> Vec<u8> {
    [u32s(&[32, flags]), u64s(&[offset, iova, size])].concat()
}

pub(crate) fn u32s(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(crate) fn u64s(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
