//! Frames from one network interface to the other, each checked.

mod frame;
mod interface;
mod window;

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dmarig_wire::{Interface, NetJob, Report};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
        sockopt::set_socket_recv_buffer_size_force, sockopt::set_socket_send_buffer_size_force,
    },
};

use self::{
    frame::{ETHERTYPE, Frames},
    window::{Arrival, Window},
};
use crate::{sys, tally::Tally};

const FRAME_SIZES: std::ops::RangeInclusive<u32> = 64..=1514;
const MAX_WINDOW: u32 = 4096;
/// Bytes of a socket's buffer that a frame may take: a page and the kernel's own data.
const TRUESIZE: usize = 8192;
/// If nothing arrives for this long, the frames in flight are lost.
const SILENCE: Duration = Duration::from_secs(5);
/// After this many silences in a row the link is dead.
const MAX_SILENCES: u32 = 3;

/// Sends frames both ways between two interfaces.
///
/// # Errors
/// Where the job is not possible or the interfaces can't be used.
pub(crate) fn run(job: &NetJob, names: [&str; 2]) -> Result<Report> {
    ensure!(
        FRAME_SIZES.contains(&job.frame_size),
        "frame size {}: {FRAME_SIZES:?}",
        job.frame_size
    );
    ensure!((1..=MAX_WINDOW).contains(&job.window), "window {}: 1 to {MAX_WINDOW}", job.window);
    let interfaces @ [first, second] = interface::bring_up(names)?;
    let sockets = [open(first.index, job.window)?, open(second.index, job.window)?];
    let frames = Frames::new(job.seed, job.frame_size as usize, [first.address, second.address]);
    let tally = Tally::default();
    let window = Window::new(job.window as usize);
    let mut exchange = Exchange { job, names, sockets, frames, window, tally, scratch: Vec::new() };
    let elapsed = exchange.run()?;
    interface::take_down(interfaces)?;
    exchange.tally.lost = exchange.window.lost();
    Ok(exchange.tally.report(Interface::Packet, u64::try_from(elapsed.as_nanos())?))
}

fn open(index: u32, window: u32) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // No protocol yet: it would receive from all interfaces until it is bound to one.
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)
        .context("can't make a packet socket")?;
    let room = window as usize * TRUESIZE;
    set_socket_recv_buffer_size_force(&socket, room).context("can't size a socket")?;
    set_socket_send_buffer_size_force(&socket, room).context("can't size a socket")?;
    sys::bind_packet(&socket, ETHERTYPE, index).context("can't bind a packet socket")?;
    Ok(socket)
}

struct Exchange<'a> {
    job: &'a NetJob,
    names: [&'a str; 2],
    sockets: [OwnedFd; 2],
    frames: Frames,
    window: Window<Instant>,
    tally: Tally,
    scratch: Vec<u8>,
}

impl Exchange<'_> {
    fn run(&mut self) -> Result<Duration> {
        let begin = Instant::now();
        let mut last = begin;
        let mut silences = 0;
        let mut buffer = [0; 2048];
        while self.tally.writes < self.job.frames || !self.window.is_empty() {
            let full = self.send()?;
            if self.receive(&mut buffer)? {
                last = Instant::now();
                silences = 0;
                continue;
            }
            let deadline = last + SILENCE * (silences + 1);
            if self.wait(full, deadline)? {
                continue;
            }
            silences += 1;
            if let Some((count, first)) = self.window.give_up() {
                self.tally.add_problem(false, || {
                    format!("{count} frames did not arrive, the first is number {first}")
                });
            }
            if silences == MAX_SILENCES {
                let unsent = self.job.frames - self.tally.writes;
                self.tally
                    .count_error(|| format!("the link is dead; {unsent} frames were not sent"));
                break;
            }
        }
        Ok(last - begin)
    }

    /// Sends what the window has room for; returns the interface whose socket is full, if one is.
    fn send(&mut self) -> Result<Option<usize>> {
        while self.tally.writes < self.job.frames
            && let Some(sequence) = self.window.next()
        {
            let sender = Frames::sender(sequence);
            self.frames.make(sequence, &mut self.scratch);
            match send(&self.sockets[sender], &self.scratch, SendFlags::empty()) {
                Ok(_) => {}
                Err(Errno::AGAIN) => return Ok(Some(sender)),
                // The interface's own queue is full, which no socket becomes ready for; the
                // arrival of another frame is the sign to try again.
                Err(Errno::NOBUFS) => return Ok(None),
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("can't send frame {sequence} on {}", self.names[sender])
                    });
                }
            }
            self.window.sent(Instant::now());
            self.tally.writes += 1;
        }
        Ok(None)
    }

    /// Receives and checks all frames that have arrived; `false` if there are none.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let mut any = false;
        for receiver in 0..2 {
            loop {
                // The true length, should a frame be longer than any of ours.
                let received = recv(&self.sockets[receiver], &mut *buffer, RecvFlags::TRUNC);
                let count = match received {
                    Ok((_, count)) => count,
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR) => continue,
                    Err(error) => {
                        return Err(error)
                            .with_context(|| format!("can't receive on {}", self.names[receiver]));
                    }
                };
                any = true;
                self.check(receiver, &buffer[..count.min(buffer.len())]);
            }
        }
        Ok(any)
    }

    fn check(&mut self, receiver: usize, frame: &[u8]) {
        let name = self.names[receiver];
        let tally = &mut self.tally;
        let sequence = match self.frames.check(frame) {
            Ok(sequence) => sequence,
            Err(error) => return tally.count_corrupt(|| format!("{name}: {error}")),
        };
        if Frames::sender(sequence) == receiver {
            return tally
                .count_corrupt(|| format!("{name}: frame {sequence} came back to its sender"));
        }
        match self.window.arrived(sequence) {
            Arrival::Expected(sent) => tally.record_latency(sent.elapsed().as_nanos()),
            Arrival::Late => {}
            Arrival::Duplicate => {
                return tally.count_corrupt(|| format!("{name}: frame {sequence} arrived twice"));
            }
            Arrival::Unsent => {
                return tally.count_corrupt(|| format!("{name}: frame {sequence} was never sent"));
            }
        }
        tally.reads += 1;
        tally.bytes += frame.len() as u64;
    }

    /// Waits for something to do; `false` at the deadline.
    fn wait(&self, full: Option<usize>, deadline: Instant) -> Result<bool> {
        let mut fds = [0, 1].map(|side| {
            let out = if full == Some(side) { PollFlags::OUT } else { PollFlags::empty() };
            PollFd::new(&self.sockets[side], PollFlags::IN | out)
        });
        let remaining = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: remaining.as_secs() as i64,
            tv_nsec: remaining.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&timeout)) {
            Err(Errno::INTR) => Ok(true),
            other => Ok(other.context("can't wait for frames")? > 0),
        }
    }
}
