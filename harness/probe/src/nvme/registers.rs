//! The controller's registers: written by the socket's thread, applied by the controller's.
//!
//! The write of a doorbell is a store for the socket's thread. It waits a little while for changes of
//! the controller's state: some kernels read CSTS once and then sleep for 100 ms.

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
use zerocopy::{
    FromBytes, Immutable, IntoBytes,
    little_endian::{U32, U64},
};

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

/// Work for the controller's thread besides doorbells.
#[derive(Debug)]
pub enum Event {
    /// CC has a new value.
    Configure {
        /// The value.
        cc: u32,
        /// Notified when it has taken effect.
        done: SyncSender<()>,
    },
    /// A doorbell that doesn't exist was written.
    NoDoorbell,
    /// Everything is to be reset.
    Reset {
        /// Notified when it is.
        done: SyncSender<()>,
    },
    /// No work: shows that the thread still takes its turns.
    Turn {
        /// Notified in the next turn.
        done: SyncSender<()>,
    },
    /// DMA that must fault.
    Attack {
        /// The kind.
        kind: Attack,
        /// Receives the outcome.
        done: SyncSender<Result<AttackOutcome, NotEnabled>>,
    },
    /// The thread is to end.
    Stop,
}

/// An attack is impossible because the guest has not enabled the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the guest has not enabled the controller")]
pub struct NotEnabled;

/// Registers from the start of BAR 0.
#[derive(Debug, IntoBytes, Immutable)]
#[repr(C)]
struct RegisterFile {
    capabilities: U64,
    version: U32,
    interrupt_masks: [U32; 2],
    cc: U32,
    reserved: U32,
    csts: U32,
    subsystem_reset: U32,
    aqa: U32,
    asq: U64,
    acq: U64,
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
    written: Vec<AtomicU64>,
    /// Events that wait; `None` after the controller's thread has ended.
    events: Mutex<Option<Vec<Event>>>,
    has_events: AtomicBool,
    worker: OnceLock<Thread>,
    /// Whether the worker was woken.
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
            written: (0..doorbells.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            events: Mutex::new(Some(Vec::new())),
            has_events: AtomicBool::new(false),
            worker: OnceLock::new(),
            woken: AtomicBool::new(false),
        }
    }

    /// Reads bytes; addresses without a register are zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let registers = RegisterFile {
            capabilities: self.capabilities.into(),
            version: VERSION.into(),
            interrupt_masks: [U32::ZERO; 2],
            csts: self.csts.load(Ordering::SeqCst).into(),
            cc: self.cc.load(Ordering::SeqCst).into(),
            reserved: U32::ZERO,
            subsystem_reset: U32::ZERO,
            aqa: self.aqa.load(Ordering::SeqCst).into(),
            asq: self.asq.load(Ordering::SeqCst).into(),
            acq: self.acq.load(Ordering::SeqCst).into(),
        };
        data.fill(0);
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = registers.as_bytes().get(offset..).unwrap_or_default();
        let count = bytes.len().min(data.len());
        data[..count].copy_from_slice(&bytes[..count]);
    }

    /// Writes bytes, dword by dword. Anything but whole dwords is ignored, and so are registers that
    /// can't be written.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let Ok(dwords) = <[U32]>::ref_from_bytes(data) else { return };
        if !offset.is_multiple_of(4) {
            return;
        }
        for (at, dword) in (offset..).step_by(4).zip(dwords) {
            self.write_dword(at, dword.get());
        }
    }

    fn write_dword(&self, offset: u64, value: u32) {
        match offset {
            CC => {
                self.cc.store(value, Ordering::SeqCst);
                let (done, settled) = mpsc::sync_channel(1);
                self.post(Event::Configure { cc: value, done });
                if self.worker.get().is_some() {
                    // A timeout is no error: CSTS shows when it is done.
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
            DOORBELLS.. => self.write_doorbell(((offset - DOORBELLS) / 4) as usize, value),
            _ => {}
        }
    }

    fn base(&self, offset: u64) -> Base<'_> {
        Base(if offset == ASQ { &self.asq } else { &self.acq })
    }

    fn write_doorbell(&self, index: usize, value: u32) {
        let Some(doorbell) = self.doorbells.get(index) else {
            return self.post(Event::NoDoorbell);
        };
        doorbell.store(value, Ordering::SeqCst);
        self.written[index / 64].fetch_or(1 << (index % 64), Ordering::SeqCst);
    }

    /// Whether a doorbell was written and not yet applied.
    pub(super) fn has_doorbells(&self) -> bool {
        self.written.iter().any(|bits| bits.load(Ordering::SeqCst) != 0)
    }

    /// Resets the controller, and returns when that is done.
    pub fn reset(&self) {
        self.cc.store(0, Ordering::SeqCst);
        let (done, settled) = mpsc::sync_channel(1);
        self.post(Event::Reset { done });
        if self.worker.get().is_some() {
            // An error means that the worker has ended: there is nothing left to be reset.
            let _ = settled.recv();
        }
    }

    /// Queues an event for the controller's thread and wakes it.
    pub fn post(&self, event: Event) {
        let mut guard = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        // A dropped event notifies those who wait for it.
        let Some(events) = guard.as_mut() else { return };
        // A guest can write to missing doorbells as often as it likes; one event is enough.
        if matches!(event, Event::NoDoorbell)
            && events.iter().any(|other| matches!(other, Event::NoDoorbell))
        {
            return;
        }
        events.push(event);
        self.has_events.store(true, Ordering::SeqCst);
        drop(guard);
        self.wake();
    }

    /// Sets the controller's thread.
    pub fn set_worker(&self, thread: Thread) {
        // There is only one.
        let _ = self.worker.set(thread);
    }

    /// Wakes the controller's thread.
    pub(super) fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        if let Some(worker) = self.worker.get() {
            worker.unpark();
        }
    }

    /// Clears the note that the controller's thread was woken: it is about to check for all work.
    pub(super) fn clear_woken(&self) {
        self.woken.store(false, Ordering::SeqCst);
    }

    /// Parks the controller's thread, until `until` at the latest; returns at once if it was woken since
    /// [`Registers::clear_woken`]. The thread's own token is not enough: other waits, of a channel for
    /// example, park the thread too and consume the token.
    pub(super) fn sleep(&self, until: Option<Instant>) {
        if self.woken.load(Ordering::SeqCst) {
            return;
        }
        match until {
            None => thread::park(),
            Some(until) => thread::park_timeout(until.saturating_duration_since(Instant::now())),
        }
    }

    /// Whether events wait.
    pub(super) fn has_events(&self) -> bool {
        self.has_events.load(Ordering::SeqCst)
    }

    /// Takes the events that wait.
    pub(super) fn take_events(&self) -> Vec<Event> {
        if !self.has_events.swap(false, Ordering::SeqCst) {
            return Vec::new();
        }
        let mut guard = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        guard.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Drops all events from now on.
    pub(super) fn close(&self) {
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Takes the doorbells that were written, with their latest values.
    pub(super) fn take_doorbells(&self, mut apply: impl FnMut(usize, u32)) {
        for (word, bits) in self.written.iter().enumerate() {
            if bits.load(Ordering::SeqCst) == 0 {
                continue;
            }
            let mut remaining = bits.swap(0, Ordering::SeqCst);
            while remaining != 0 {
                let index = word * 64 + remaining.trailing_zeros() as usize;
                remaining &= remaining - 1;
                apply(index, self.doorbells[index].load(Ordering::SeqCst));
            }
        }
    }

    /// Discards doorbells that were written.
    pub(super) fn clear_doorbells(&self) {
        self.written.iter().for_each(|bits| bits.store(0, Ordering::SeqCst));
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
    fn wakes_up_even_if_another_wait_consumed_the_token() {
        let registers = Registers::new(1, 16);
        registers.set_worker(thread::current());
        registers.clear_woken();
        registers.wake();
        thread::park();
        // It would sleep forever if the wake-up was lost.
        registers.sleep(None);
        registers.clear_woken();
        registers.sleep(Some(Instant::now()));
    }
}
