//! The controller's thread.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use super::{
    controller::Controller,
    engine::Engine,
    registers::{Event, NotEnabled, Registers},
    tally::Tally,
};
use crate::{attack::Attacks, counting::Profile, irqs::Interrupts, memory::Memory, server::Client};

/// What the controller shares with the other threads.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Its registers.
    pub registers: Arc<Registers>,
    /// Memory of the guest.
    pub memory: Arc<Memory>,
    /// Its interrupts.
    pub interrupts: Arc<Interrupts>,
    /// Counts of commands.
    pub tally: Arc<Mutex<Tally>>,
    /// The way to the client.
    pub client: Arc<Client>,
}

/// Does the controller's work until [`Event::Stop`].
pub fn work(engine: &Engine, shared: &Shared) {
    let Shared { registers, memory, client, .. } = shared;
    let mut attacks = Attacks::new(Arc::clone(memory), Arc::clone(client));
    loop {
        registers.clear_woken();
        let mut controller = engine.lock();
        for event in registers.take_events() {
            if let Event::Stop = event {
                return registers.close();
            }
            controller.handle(event, &mut attacks);
        }
        // An attack needs a moment in which commands are executed and not completed.
        engine.reserve(attacks.deadline().is_some());
        let (busy, due) = controller.timed_turn(|| attacks.try_now());
        attacks.try_now();
        let next = earliest(due, attacks.deadline());
        let more = busy || controller.arm_doorbells();
        engine.publish(&controller);
        drop(controller);
        if !more {
            registers.sleep(next);
        }
    }
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

impl Controller {
    fn handle(&mut self, event: Event, attacks: &mut Attacks) {
        // The receiver of an answer may have given up.
        match event {
            Event::Configure { cc, done } => {
                self.configure(cc);
                let _ = done.send(());
            }
            Event::Reset { done } => {
                self.reset();
                let _ = done.send(());
            }
            Event::Turn { done } => {
                let _ = done.send(());
            }
            Event::NoDoorbell => self.report_missing_doorbell(),
            Event::Attack { kind, done } if self.is_running() => attacks.begin(kind, done),
            Event::Attack { done, .. } => {
                let _ = done.send(Err(NotEnabled));
            }
            Event::Stop => {}
        }
    }

    fn report_missing_doorbell(&mut self) {
        if self.is_running() {
            self.logs.invalid_doorbell();
        }
    }

    /// Takes one turn on the caller's thread, if there is no other: applies registers and doorbells,
    /// executes commands and completes them. Returns whether there may be more to do.
    pub fn step(&mut self) -> bool {
        for event in self.registers.take_events() {
            match event {
                Event::Configure { cc, .. } => self.configure(cc),
                Event::Reset { .. } => self.reset(),
                Event::NoDoorbell => self.report_missing_doorbell(),
                Event::Attack { .. } | Event::Turn { .. } | Event::Stop => {}
            }
        }
        self.turn(|| ()).0 || self.arm_doorbells()
    }

    /// Takes a turn and adds its time to the profile if it had work.
    pub(super) fn timed_turn(&mut self, between: impl FnMut()) -> (bool, Option<Instant>) {
        let began = Instant::now();
        let (busy, due) = self.turn(between);
        if busy {
            Profile::add_time(&self.memory.profile().command_ns, began);
        }
        (busy, due)
    }

    /// Applies doorbells, executes commands and completes them; `between` runs when commands were
    /// executed and, if they are held back, not completed. Returns whether there may be more, and
    /// when the next completion is due.
    pub(super) fn turn(&mut self, between: impl FnMut()) -> (bool, Option<Instant>) {
        let registers = Arc::clone(&self.registers);
        registers.take_doorbells(|doorbell, value| self.doorbell_written(doorbell, value));
        self.poll_doorbells();
        let busy = self.serve_queues(between);
        let due = self.complete_due(!busy);
        self.report_events();
        self.interrupt();
        (busy, due)
    }

    /// Serves each queue in turn.
    fn serve_queues(&mut self, mut between: impl FnMut()) -> bool {
        let mut busy = false;
        for queue in 0..self.submissions.len() {
            if self.serve(queue) {
                busy = true;
                between();
            }
        }
        busy
    }
}
