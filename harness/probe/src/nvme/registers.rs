//! The controller's registers: written by the socket's thread, worked on by the controller's.
//!
//! A doorbell costs the socket's thread a store, until it does what was rung for. What changes the controller's state
//! is waited for, for a little while: some kernels look once and then sleep for 100 ms.

use std::{
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
        mpsc::{self, SyncSender},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use dmarig_model::probe::{Attack, AttackOutcome};

use super::VERSION;

const INTMC: u64 = 0x10;
const CC: u64 = 0x14;
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;
const DOORBELLS: u64 = 0x1000;
/// Longest that a write of CC keeps the socket waiting.
const SETTLE: Duration = Duration::from_millis(200);

/// CSTS: ready.
pub(super) const READY: u32 = 1;
/// CSTS: the controller has failed.
pub(super) const FATAL: u32 = 1 << 1;
/// CSTS: shutdown is complete.
pub(super) const SHUT_DOWN: u32 = 2 << 2;
/// CC: enabled.
pub(super) const ENABLE: u32 = 1;

/// Something that the controller's thread is to do, besides what doorbells tell it.
#[derive(Debug)]
pub enum Event {
    /// CC has a new value.
    Configure {
        /// It.
        cc: u32,
        /// Told when it has taken effect.
        done: SyncSender<()>,
    },
    /// A doorbell that doesn't exist was written.
    NoDoorbell,
    /// Everything starts anew.
    Reset {
        /// Told when it has.
        done: SyncSender<()>,
    },
    /// Nothing but to say that its turn has come.
    Turn {
        /// Told so.
        done: SyncSender<()>,
    },
    /// DMA that must fault.
    Attack {
        /// Which.
        kind: Attack,
        /// Told what became of it, or why it wasn't possible.
        done: SyncSender<Result<AttackOutcome, String>>,
    },
    /// The end.
    Stop,
}

/// The registers.
#[derive(Debug)]
pub struct Registers {
    capabilities: u64,
    cc: AtomicU32,
    pub(super) csts: AtomicU32,
    pub(super) aqa: AtomicU32,
    pub(super) asq: AtomicU64,
    pub(super) acq: AtomicU64,
    doorbells: Vec<AtomicU32>,
    /// A bit for each doorbell that was written.
    rung: Vec<AtomicU64>,
    /// What there is to do; `None` when nobody does anything any more.
    events: Mutex<Option<Vec<Event>>>,
    waiting: AtomicBool,
    worker: OnceLock<Thread>,
    /// Whether it was woken.
    woken: AtomicBool,
}

impl Registers {
    /// Registers with doorbells for the admin queues and so many pairs of I/O queues, of so many
    /// entries at most.
    #[must_use]
    pub fn new(queues: u16, entries: u16) -> Self {
        let doorbells = 2 * (usize::from(queues) + 1);
        Self {
            capabilities: capabilities(entries),
            cc: AtomicU32::new(0),
            csts: AtomicU32::new(0),
            aqa: AtomicU32::new(0),
            asq: AtomicU64::new(0),
            acq: AtomicU64::new(0),
            doorbells: (0..doorbells).map(|_| AtomicU32::new(0)).collect(),
            rung: (0..doorbells.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            events: Mutex::new(Some(Vec::new())),
            waiting: AtomicBool::new(false),
            worker: OnceLock::new(),
            woken: AtomicBool::new(false),
        }
    }

    /// Reads bytes; what isn't a register is zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let mut bytes = [0u8; 0x40];
        let csts = self.csts.load(Ordering::SeqCst);
        let cc = self.cc.load(Ordering::SeqCst);
        bytes[0x00..0x08].copy_from_slice(&self.capabilities.to_le_bytes());
        bytes[0x08..0x0c].copy_from_slice(&VERSION.to_le_bytes());
        bytes[0x14..0x18].copy_from_slice(&cc.to_le_bytes());
        bytes[0x1c..0x20].copy_from_slice(&csts.to_le_bytes());
        bytes[0x24..0x28].copy_from_slice(&self.aqa.load(Ordering::SeqCst).to_le_bytes());
        bytes[0x28..0x30].copy_from_slice(&self.asq.load(Ordering::SeqCst).to_le_bytes());
        bytes[0x30..0x38].copy_from_slice(&self.acq.load(Ordering::SeqCst).to_le_bytes());
        data.fill(0);
        let bytes = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let count = bytes.len().min(data.len());
        data[..count].copy_from_slice(&bytes[..count]);
    }

    /// Writes bytes, dword by dword. Anything but whole dwords is ignored, and so are registers that
    /// can't be written.
    pub fn write(&self, offset: u64, data: &[u8]) {
        if !offset.is_multiple_of(4) || !data.len().is_multiple_of(4) {
            return;
        }
        for (at, dword) in (offset..).step_by(4).zip(data.chunks_exact(4)) {
            self.write_dword(at, u32::from_le_bytes(dword.try_into().unwrap_or_default()));
        }
    }

    fn write_dword(&self, offset: u64, value: u32) {
        match offset {
            CC => {
                self.cc.store(value, Ordering::SeqCst);
                let (done, settled) = mpsc::sync_channel(1);
                self.tell(Event::Configure { cc: value, done });
                if self.worker.get().is_some() {
                    // Late is no error: CSTS tells when it is done.
                    let _ = settled.recv_timeout(SETTLE);
                }
            }
            // Interrupt masks are for pin-based interrupts.
            ..=INTMC => {}
            AQA => self.aqa.store(value & 0x0fff_0fff, Ordering::SeqCst),
            ASQ | ACQ => self.base(offset).fetch_and_or(!0xffff_ffff, value & !0xfff),
            0x2c | 0x34 => {
                self.base(offset - 4).fetch_and_or(0xffff_ffff, u64::from(value) << 32);
            }
            DOORBELLS.. => self.ring(((offset - DOORBELLS) / 4) as usize, value),
            _ => {}
        }
    }

    fn base(&self, offset: u64) -> Base<'_> {
        Base(if offset == ASQ { &self.asq } else { &self.acq })
    }

    fn ring(&self, index: usize, value: u32) {
        let Some(doorbell) = self.doorbells.get(index) else {
            return self.tell(Event::NoDoorbell);
        };
        doorbell.store(value, Ordering::SeqCst);
        self.rung[index / 64].fetch_or(1 << (index % 64), Ordering::SeqCst);
    }

    /// Whether a doorbell was written and nobody has taken that yet.
    pub(super) fn is_rung(&self) -> bool {
        self.rung.iter().any(|bits| bits.load(Ordering::SeqCst) != 0)
    }

    /// Starts anew, and returns when that is done.
    pub fn reset(&self) {
        self.cc.store(0, Ordering::SeqCst);
        let (done, settled) = mpsc::sync_channel(1);
        self.tell(Event::Reset { done });
        if self.worker.get().is_some() {
            // An error is the worker's end: there is nothing left to be reset.
            let _ = settled.recv();
        }
    }

    /// Gives the controller's thread something to do.
    pub fn tell(&self, event: Event) {
        let mut guard = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        // Dropped, an event tells those who wait for it that it won't come.
        let Some(events) = guard.as_mut() else { return };
        // A guest can write to nowhere as often as it likes; once is enough to know.
        if matches!(event, Event::NoDoorbell)
            && events.iter().any(|other| matches!(other, Event::NoDoorbell))
        {
            return;
        }
        events.push(event);
        self.waiting.store(true, Ordering::SeqCst);
        drop(guard);
        self.wake();
    }

    /// Says which thread is the controller's.
    pub fn worked_by(&self, thread: Thread) {
        // There is only one.
        let _ = self.worker.set(thread);
    }

    /// Has the controller's thread look what there is to do.
    pub(super) fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        if let Some(worker) = self.worker.get() {
            worker.unpark();
        }
    }

    /// Forgets that the controller's thread was woken: it is about to look at everything.
    pub(super) fn is_awake(&self) {
        self.woken.store(false, Ordering::SeqCst);
    }

    /// Puts the controller's thread to sleep, until `until` at the latest; not where it was woken since
    /// [`Registers::is_awake`]. A thread's own token does not tell that: whatever else it waits for, a
    /// channel say, parks it too and takes the token.
    pub(super) fn rest(&self, until: Option<Instant>) {
        if self.woken.load(Ordering::SeqCst) {
            return;
        }
        match until {
            None => thread::park(),
            Some(until) => thread::park_timeout(until.saturating_duration_since(Instant::now())),
        }
    }

    /// Whether there is anything to do besides what doorbells tell.
    pub(super) fn has_events(&self) -> bool {
        self.waiting.load(Ordering::SeqCst)
    }

    /// What there is to do.
    pub(super) fn take_events(&self) -> Vec<Event> {
        if !self.waiting.swap(false, Ordering::SeqCst) {
            return Vec::new();
        }
        let mut guard = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        guard.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Does nothing from now on.
    pub(super) fn close(&self) {
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Doorbells that were written, with their latest values.
    pub(super) fn take_rung(&self, mut rung: impl FnMut(usize, u32)) {
        for (word, bits) in self.rung.iter().enumerate() {
            if bits.load(Ordering::SeqCst) == 0 {
                continue;
            }
            let mut left = bits.swap(0, Ordering::SeqCst);
            while left != 0 {
                let index = word * 64 + left.trailing_zeros() as usize;
                left &= left - 1;
                rung(index, self.doorbells[index].load(Ordering::SeqCst));
            }
        }
    }

    /// Forgets doorbells that were written.
    pub(super) fn silence(&self) {
        self.rung.iter().for_each(|bits| bits.store(0, Ordering::SeqCst));
    }

    /// Whether the controller is ready for commands.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.csts.load(Ordering::SeqCst) & (READY | FATAL) == READY
    }
}

/// A queue's base address, written in halves.
struct Base<'a>(&'a AtomicU64);

impl Base<'_> {
    fn fetch_and_or(&self, keep: u64, value: impl Into<u64>) {
        let value = value.into();
        let new = self.0.load(Ordering::SeqCst) & keep | value;
        // One thread writes.
        self.0.store(new, Ordering::SeqCst);
    }
}

fn capabilities(entries: u16) -> u64 {
    let entries = u64::from(entries.saturating_sub(1));
    // Queues are contiguous; 20 s for a change of CC; NVM commands; pages of 4 KiB alone.
    entries | 1 << 16 | 40 << 24 | 1 << 37
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_woken_does_not_sleep_though_something_else_took_the_token() {
        let registers = Registers::new(1, 16);
        registers.worked_by(thread::current());
        registers.is_awake();
        registers.wake();
        thread::park();
        // Forever, if that was lost.
        registers.rest(None);
        registers.is_awake();
        registers.rest(Some(Instant::now()));
    }
}
