//! Shares the controller's work between its own thread and the socket's.
//!
//! Doorbells come over the socket. To wake another thread costs more than to execute a short command,
//! so the socket's thread executes short commands itself after it has answered all messages. Work that
//! is long, delayed or has to wait is left to the controller's thread.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, TryLockError,
    atomic::{AtomicBool, Ordering},
};

use super::{Controller, Registers};

/// Turns that the socket's thread takes at a time: each has up to a batch of commands per queue.
const TURNS: usize = 4;

/// The controller, shared by two threads.
#[derive(Debug)]
pub struct Engine {
    controller: Mutex<Controller>,
    registers: Arc<Registers>,
    /// Whether the host's doorbells are in memory and must be polled.
    has_doorbell_buffers: AtomicBool,
    /// Whether only the controller's own thread may do its work.
    reserved: AtomicBool,
}

impl Engine {
    /// Shares a controller with these registers.
    #[must_use]
    pub fn new(controller: Controller, registers: Arc<Registers>) -> Self {
        Self {
            controller: Mutex::new(controller),
            registers,
            has_doorbell_buffers: AtomicBool::new(false),
            reserved: AtomicBool::new(false),
        }
    }

    /// Executes short commands, if no other thread does. Returns whether there were any. Never waits.
    pub fn run_short_commands(&self) -> bool {
        if !self.registers.has_doorbells() && !self.has_doorbell_buffers.load(Ordering::SeqCst) {
            return false;
        }
        let Some(mut controller) = self.try_lock() else { return false };
        let mut any = false;
        for turn in 0..TURNS {
            let (busy, due) = controller.timed_turn(|| ());
            any |= busy;
            if due.is_some() || (busy && (controller.large || turn + 1 == TURNS)) {
                self.hand_over(controller);
                return any;
            }
            if !busy {
                break;
            }
        }
        self.publish(&controller);
        any
    }

    /// Makes the host write the register for its next command, before the socket's thread sleeps.
    /// Returns whether there is work to do first.
    pub fn arm_doorbells(&self) -> bool {
        if !self.has_doorbell_buffers.load(Ordering::SeqCst) {
            return false;
        }
        let Some(mut controller) = self.try_lock() else { return false };
        controller.arm_doorbells()
    }

    /// Locks the controller for its own thread.
    pub(super) fn lock(&self) -> MutexGuard<'_, Controller> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets whether only the controller's own thread may do its work.
    pub(super) fn reserve(&self, reserved: bool) {
        self.reserved.store(reserved, Ordering::SeqCst);
    }

    /// Publishes the state that is read without a lock.
    pub(super) fn publish(&self, controller: &Controller) {
        self.has_doorbell_buffers.store(controller.has_doorbell_buffers(), Ordering::SeqCst);
    }

    /// Locks the controller, unless the other thread does or should do its work, which is woken then.
    fn try_lock(&self) -> Option<MutexGuard<'_, Controller>> {
        // Events that came before a doorbell are handled before it.
        if !self.reserved.load(Ordering::SeqCst) && !self.registers.has_events() {
            match self.controller.try_lock() {
                Ok(controller) => return Some(controller),
                Err(TryLockError::Poisoned(_) | TryLockError::WouldBlock) => {}
            }
        }
        self.registers.wake();
        None
    }

    /// Leaves the rest of the work to the controller's own thread.
    fn hand_over(&self, controller: MutexGuard<'_, Controller>) {
        self.publish(&controller);
        drop(controller);
        self.registers.wake();
    }
}
