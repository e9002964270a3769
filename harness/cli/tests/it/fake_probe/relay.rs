//! A probe that serves its device well, until it is made to fail: the real one, behind a relay that
//! breaks the protocol once a window has begun. For real QEMUs.

use std::{
    io::{BufRead, BufReader, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use clap::ValueEnum;
use dmarig_model::probe::{Reply, Request};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::LAST_WORDS;
use crate::fake_qemu::{file_name, of_this_process};

const PREFIX: &str = "relayed-probe-";
/// Messages that still go through once a window has begun: the device is in full use then.
const LEFT: usize = 50;
const HEADER: usize = 16;

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// Not at all.
    None,
    /// Sends a header that is none.
    BadHeader,
    /// Sends a header that claims less than a header.
    BadSize,
    /// Sends a reply that has fewer bytes than it claims, and goes on.
    Truncates,
    /// Answers what nobody asked.
    AnswersNothing,
    /// Answers with more than there is room for.
    TooLarge,
    /// Answers without end.
    Endless,
    /// Says nothing more to QEMU.
    Stalls,
    /// Closes the socket.
    Drops,
    /// Dies.
    Dies,
}

impl Fault {
    /// The name of a probe that fails so.
    pub(crate) fn file_name(self) -> String {
        file_name(PREFIX, &self)
    }

    /// The fault that this process is to have, if it is none of the tests.
    pub(crate) fn of_this_process() -> Option<Self> {
        of_this_process(PREFIX)
    }
}

static WINDOW: AtomicBool = AtomicBool::new(false);

/// Serves the rig and QEMU to the end.
pub(crate) fn play(fault: Fault) -> ExitCode {
    eprintln!("{LAST_WORDS}");
    let words: Vec<String> = std::env::args().collect();
    let settings = serde_json::from_str(&words[4]).expect("settings");
    let listener = UnixListener::bind(&words[2]).expect("the socket can be made");
    let inner = Path::new("inner.sock");
    let (requests, ask) = std::io::pipe().expect("a pipe");
    let (replies, told) = std::io::pipe().expect("a pipe");
    std::thread::spawn(move || {
        let (qemu, _) = listener.accept().expect("QEMU comes");
        let device = UnixStream::connect(inner).expect("the probe listens");
        let (from, to) = (qemu.try_clone().unwrap(), device.try_clone().unwrap());
        std::thread::spawn(move || pass_on(&from, &to));
        answer(fault, device, &qemu);
    });
    std::thread::spawn(move || say(BufReader::new(replies)));
    std::thread::spawn(move || hear(ask));
    dmarig_probe::run(inner, settings, BufReader::new(requests), told).expect("it serves");
    ExitCode::SUCCESS
}

/// What the rig asks, to the probe.
fn hear(mut ask: impl Write) {
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("the rig writes text");
        if matches!(serde_json::from_str(&line), Ok(Request::Begin)) {
            WINDOW.store(true, Ordering::SeqCst);
        }
        writeln!(ask, "{line}").expect("the probe reads");
    }
}

/// What the probe says, to the rig; but not what it says of its QEMU, which is here.
fn say(replies: impl BufRead) {
    for line in replies.lines().map_while(Result::ok) {
        if !matches!(serde_json::from_str(&line), Ok(Reply::Lost { .. })) {
            let mut out = std::io::stdout().lock();
            // The rig may have gone.
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
    }
}

/// All that QEMU sends, with its descriptors.
fn pass_on(from: &UnixStream, to: &UnixStream) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let got = rustix::net::recvmsg(from, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC);
        let count = got.map_or(0, |got| got.bytes);
        let fds: Vec<OwnedFd> = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        if count == 0 {
            let _ = to.shutdown(std::net::Shutdown::Both);
            return;
        }
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        let parts = [IoSlice::new(&bytes[..count])];
        let sent = rustix::net::sendmsg(to, &parts, &mut control, SendFlags::NOSIGNAL);
        // A short message of QEMU's is one piece for the socket, too.
        assert!(sent.is_ok_and(|sent| sent == count), "the probe takes what QEMU sends");
    }
}

/// The probe's messages, to QEMU, until the fault's time has come.
fn answer(fault: Fault, mut device: UnixStream, mut qemu: &UnixStream) {
    let mut left = LEFT;
    loop {
        let mut message = vec![0; HEADER];
        if device.read_exact(&mut message).is_err() {
            return;
        }
        let size = u32::from_le_bytes(message[4..8].try_into().unwrap()) as usize;
        message.resize(size, 0);
        device.read_exact(&mut message[HEADER..]).expect("a whole message");
        if fault != Fault::None && WINDOW.load(Ordering::SeqCst) {
            left = left.saturating_sub(1);
            if left == 1 {
                fail(fault, &mut message, qemu);
            }
        }
        if qemu.write_all(&message).is_err() {
            return;
        }
    }
}

/// Fails; what is left of `message` is still sent.
fn fail(fault: Fault, message: &mut Vec<u8>, mut qemu: &UnixStream) {
    let mut size = |size: usize| message[4..8].copy_from_slice(&(size as u32).to_le_bytes());
    match fault {
        Fault::None => {}
        Fault::BadHeader => message.fill(0xff),
        Fault::BadSize => size(HEADER - 1),
        Fault::Truncates => {
            size(HEADER + 24);
            message.truncate(HEADER);
        }
        Fault::AnswersNothing => message[0] ^= 0x80,
        Fault::TooLarge => {
            size(1 << 20);
            message.resize(1 << 20, 0x5a);
        }
        Fault::Endless => {
            message[0] ^= 0x80;
            while qemu.write_all(message).is_ok() {}
        }
        Fault::Stalls => loop {
            std::thread::park();
        },
        Fault::Drops => {
            let _ = qemu.shutdown(std::net::Shutdown::Both);
        }
        Fault::Dies => std::process::exit(7),
    }
}
