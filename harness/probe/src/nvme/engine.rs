//! Who does the controller's work: its own thread, or the socket's where that is at hand.
//!
//! A doorbell comes over the socket. To wake another thread for it costs more than a short command
//! takes, so the socket's thread carries such commands out by itself when it has answered all that
//! has come; whatever is long, late or needs waiting for is the other thread's.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, TryLockError,
    atomic::{AtomicBool, Ordering},
};

use super::{Controller, Registers};

/// Turns that the socket's thread does in one go: each has up to a batch of commands a queue.
const TURNS: usize = 4;

/// The controller, for whoever has time for it.
#[derive(Debug)]
pub struct Engine {
    controller: Mutex<Controller>,
    registers: Arc<Registers>,
    /// Whether the host's doorbells are in memory, where they must be looked at.
    buffered: AtomicBool,
    /// Whether nobody but the controller's own thread may do anything.
    reserved: AtomicBool,
}

impl Engine {
    /// One for a controller with these registers.
    #[must_use]
    pub fn new(controller: Controller, registers: Arc<Registers>) -> Self {
        let (buffered, reserved) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { controller: Mutex::new(controller), registers, buffered, reserved }
    }

    /// Does what was rung for, if nobody else is at it. Says whether there was anything. Never waits.
    pub fn help(&self) -> bool {
        if !self.registers.is_rung() && !self.buffered.load(Ordering::SeqCst) {
            return false;
        }
        let Some(mut controller) = self.free() else { return false };
        let mut any = false;
        for turn in 0..TURNS {
            let (busy, due) = controller.timed_turn(|| ());
            any |= busy;
            if due.is_some() || (busy && (controller.large || turn + 1 == TURNS)) {
                self.left(controller);
                return any;
            }
            if !busy {
                break;
            }
        }
        self.note(&controller);
        any
    }

    /// Has the host ring for what comes next, before the socket's thread sleeps. Says whether there
    /// is something to do first.
    pub fn arm(&self) -> bool {
        if !self.buffered.load(Ordering::SeqCst) {
            return false;
        }
        let Some(mut controller) = self.free() else { return false };
        controller.arm_doorbells()
    }

    /// The controller, for its own thread.
    pub(super) fn lock(&self) -> MutexGuard<'_, Controller> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the socket's thread from the controller's work, or no longer.
    pub(super) fn reserve(&self, reserved: bool) {
        self.reserved.store(reserved, Ordering::SeqCst);
    }

    /// Notes what those who don't have the controller need to know of it.
    pub(super) fn note(&self, controller: &Controller) {
        self.buffered.store(controller.has_doorbell_buffers(), Ordering::SeqCst);
    }

    /// The controller, unless another thread does or should do its work; that one looks once more.
    fn free(&self) -> Option<MutexGuard<'_, Controller>> {
        // What came before a doorbell goes before it.
        if !self.reserved.load(Ordering::SeqCst) && !self.registers.has_events() {
            match self.controller.try_lock() {
                Ok(controller) => return Some(controller),
                Err(TryLockError::Poisoned(_) | TryLockError::WouldBlock) => {}
            }
        }
        self.registers.wake();
        None
    }

    /// Leaves the rest to the controller's own thread.
    fn left(&self, controller: MutexGuard<'_, Controller>) {
        self.note(&controller);
        drop(controller);
        self.registers.wake();
    }
}
