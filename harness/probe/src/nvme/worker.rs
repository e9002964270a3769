//! The controller's thread.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use super::{
    controller::{Controller, Tally},
    engine::Engine,
    registers::{Event, Registers},
};
use crate::{
    attack::Attacks,
    irqs::Interrupts,
    memory::{Memory, Spent},
    server::Client,
};

/// What the controller shares with the other threads.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Its registers.
    pub registers: Arc<Registers>,
    /// Memory of the guest.
    pub memory: Arc<Memory>,
    /// Its interrupts.
    pub interrupts: Arc<Interrupts>,
    /// What it counts.
    pub tally: Arc<Mutex<Tally>>,
    /// The way to the client.
    pub client: Arc<Client>,
}

/// Does the controller's work until it is told to stop.
pub fn work(engine: &Engine, shared: &Shared) {
    let Shared { registers, memory, client, .. } = shared;
    let mut attacks = Attacks::new(Arc::clone(memory), Arc::clone(client));
    loop {
        registers.is_awake();
        let mut controller = engine.lock();
        for event in registers.take_events() {
            if let Event::Stop = event {
                return registers.close();
            }
            controller.happened(event, &mut attacks);
        }
        // An attack needs a moment in which commands are carried out and not completed.
        engine.reserve(attacks.deadline().is_some());
        let (busy, due) = controller.timed_turn(|| attacks.try_now());
        attacks.try_now();
        let next = earliest(due, attacks.deadline());
        let more = busy || controller.arm_doorbells();
        engine.note(&controller);
        drop(controller);
        if !more {
            registers.rest(next);
        }
    }
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

impl Controller {
    fn happened(&mut self, event: Event, attacks: &mut Attacks) {
        // Who waits for an answer may have given up.
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
            Event::NoDoorbell => self.no_doorbell(),
            Event::Attack { kind, done } if self.is_running() => attacks.begin(kind, done),
            Event::Attack { done, .. } => {
                let _ = done.send(Err("the guest has not enabled the controller".to_owned()));
            }
            Event::Stop => {}
        }
    }

    fn no_doorbell(&mut self) {
        if self.is_running() {
            self.logs.invalid_doorbell();
        }
    }

    /// One turn on the caller's thread, for those who have no other: configures, takes doorbells,
    /// carries commands out and completes them. Says whether there may be more to do.
    pub fn step(&mut self) -> bool {
        for event in self.registers.take_events() {
            match event {
                Event::Configure { cc, .. } => self.configure(cc),
                Event::Reset { .. } => self.reset(),
                Event::NoDoorbell => self.no_doorbell(),
                Event::Attack { .. } | Event::Turn { .. } | Event::Stop => {}
            }
        }
        self.turn(|| ()).0 || self.arm_doorbells()
    }

    /// A turn whose time is counted where it had anything to do.
    pub(super) fn timed_turn(&mut self, between: impl FnMut()) -> (bool, Option<Instant>) {
        let began = Instant::now();
        let (busy, due) = self.turn(between);
        if busy {
            Spent::add_time(&self.memory.spent().command_ns, began);
        }
        (busy, due)
    }

    /// Takes doorbells, carries commands out and completes them; `between` runs when commands were
    /// carried out and, where they are held back, not completed. Says whether there may be more,
    /// and when the next command is due.
    pub(super) fn turn(&mut self, between: impl FnMut()) -> (bool, Option<Instant>) {
        let registers = Arc::clone(&self.registers);
        registers.take_rung(|doorbell, value| self.rung(doorbell, value));
        self.look_at_doorbells();
        let busy = self.round(between);
        let due = self.ripen(!busy);
        self.report_events();
        self.interrupt();
        (busy, due)
    }

    /// Serves each queue in turn.
    fn round(&mut self, mut between: impl FnMut()) -> bool {
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
