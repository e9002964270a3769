//! The real probe behind a relay, which breaks the vfio-user protocol once a window has begun, by the fault
//! that its file name names. For real QEMUs.

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

use dmarig_fake_qemu::{PROBE_LAST_WORDS, RelayFault, Role};
use dmarig_model::probe::{Reply, Request};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Messages that still go through once a window has begun: the device is in full use then.
const LEFT: usize = 50;
const HEADER: usize = 16;

static WINDOW: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let fault = RelayFault::of_this_process();
    eprintln!("{PROBE_LAST_WORDS}");
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
fn answer(fault: RelayFault, mut device: UnixStream, mut qemu: &UnixStream) {
    let mut left = LEFT;
    loop {
        let mut message = vec![0; HEADER];
        if device.read_exact(&mut message).is_err() {
            return;
        }
        let size = u32::from_le_bytes(message[4..8].try_into().unwrap()) as usize;
        message.resize(size, 0);
        device.read_exact(&mut message[HEADER..]).expect("a whole message");
        if fault != RelayFault::None && WINDOW.load(Ordering::SeqCst) {
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
fn fail(fault: RelayFault, message: &mut Vec<u8>, mut qemu: &UnixStream) {
    let mut size = |size: usize| message[4..8].copy_from_slice(&(size as u32).to_le_bytes());
    match fault {
        RelayFault::None => {}
        RelayFault::BadHeader => message.fill(0xff),
        RelayFault::BadSize => size(HEADER - 1),
        RelayFault::Truncates => {
            size(HEADER + 24);
            message.truncate(HEADER);
        }
        RelayFault::AnswersNothing => message[0] ^= 0x80,
        RelayFault::TooLarge => {
            size(1 << 20);
            message.resize(1 << 20, 0x5a);
        }
        RelayFault::Endless => {
            message[0] ^= 0x80;
            while qemu.write_all(message).is_ok() {}
        }
        RelayFault::Stalls => loop {
            std::thread::park();
        },
        RelayFault::Drops => {
            let _ = qemu.shutdown(std::net::Shutdown::Both);
        }
        RelayFault::Dies => std::process::exit(7),
    }
}
