//! The controller's thread.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use super::{
    controller::{Controller, Tally},
    registers::{Event, Registers},
};
use crate::{attack::Attacks, irqs::Interrupts, memory::Memory, server::Client};

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
pub fn work(mut controller: Controller, shared: &Shared) {
    let Shared { registers, memory, client, .. } = shared;
    registers.worked_by(thread::current());
    let mut attacks = Attacks::new(Arc::clone(memory), Arc::clone(client));
    loop {
        for event in registers.take_events() {
            match event {
                Event::Stop => return,
                Event::Configure { cc, done } => {
                    controller.configure(cc);
                    // Who waited may have given up.
                    let _ = done.send(());
                }
                Event::Reset { done } => {
                    controller.reset();
                    let _ = done.send(());
                }
                Event::NoDoorbell => controller.no_doorbell(),
                Event::Attack { kind, done } if controller.is_running() => {
                    attacks.begin(kind, done);
                }
                Event::Attack { done, .. } => {
                    let _ = done.send(Err("the guest has not enabled the controller".to_owned()));
                }
            }
        }
        registers.take_rung(|doorbell, value| controller.rung(doorbell, value));
        let busy = controller.round(|| attacks.try_now());
        let next = earliest(controller.ripen(!busy), attacks.deadline());
        controller.report_events();
        controller.interrupt();
        attacks.try_now();
        if !busy {
            rest(next);
        }
    }
}

/// Waits until there is something to do.
fn rest(until: Option<Instant>) {
    match until {
        None => thread::park(),
        Some(until) => {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                thread::park_timeout(left);
            }
        }
    }
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

impl Controller {
    fn no_doorbell(&mut self) {
        if self.is_running() {
            self.logs.invalid_doorbell();
        }
    }

    /// Serves each queue in turn; `between` runs when commands were carried out and, where they
    /// are held back, not completed. Says whether there may be more.
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
