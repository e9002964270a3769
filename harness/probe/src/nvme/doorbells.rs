//! Doorbells in the host's memory (NVM Express 1.4, 5.7 and 7.13).
//!
//! The host writes a queue's new tail or head there and rings the real doorbell only where that
//! passes the value that the controller has last asked to be told of. So a controller that looks by
//! itself costs the guest no exit. Linux's drivers use them from 4.12 on, for any queue but the
//! admin queue's.

use std::sync::atomic::{Ordering, fence};

use super::{Command, PAGE, Status, controller::Controller};
use crate::memory::{Fault, Memory};

/// Bytes of a queue pair's two doorbells.
const PAIR: usize = 8;

/// Where they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct DoorbellBuffers {
    shadow: u64,
    events: u64,
}

impl DoorbellBuffers {
    /// Asks to be told when the value of a queue's doorbell passes `value`.
    fn ask(&self, memory: &Memory, at: u64, value: u32) -> Result<(), Fault> {
        memory.write(self.events.wrapping_add(at), &value.to_le_bytes())
    }

    /// Sets both to the value that the controller knows: what was there is of another life.
    fn adopt(&self, memory: &Memory, at: u64, value: u32) -> Result<(), Fault> {
        memory.write(self.shadow.wrapping_add(at), &value.to_le_bytes())?;
        self.ask(memory, at, value)
    }
}

fn submission_at(queue: usize) -> u64 {
    (queue * PAIR) as u64
}

fn completion_at(queue: usize) -> u64 {
    submission_at(queue) + 4
}

impl Controller {
    /// The host says where its doorbells are.
    pub(super) fn configure_doorbells(&mut self, command: &Command) -> Result<(), Status> {
        let (shadow, events) = (command.prp1, command.prp2);
        if !shadow.is_multiple_of(PAGE) || !events.is_multiple_of(PAGE) {
            return Err(Status::INVALID_FIELD);
        }
        let buffers = DoorbellBuffers { shadow, events };
        self.buffers = Some(buffers);
        let queues = 1..self.submissions.len();
        let adopted = queues.into_iter().try_for_each(|queue| self.adopt_doorbells(queue));
        adopted.map_err(|fault| {
            self.buffers = None;
            self.data_fault(0, command, &fault)
        })
    }

    /// Prepares the doorbells in memory of the queues of a number, as far as there are any.
    pub(super) fn adopt_doorbells(&mut self, queue: usize) -> Result<(), Fault> {
        let Some(buffers) = self.buffers else { return Ok(()) };
        if let Some(submission) = &mut self.submissions[queue] {
            let tail = submission.tail();
            buffers.adopt(&self.memory, submission_at(queue), tail)?;
            (submission.seen, submission.asked) = (tail, tail);
        }
        if let Some(completion) = &mut self.completions[queue] {
            let head = completion.head();
            buffers.adopt(&self.memory, completion_at(queue), head)?;
            (completion.seen, completion.asked) = (head, head);
        }
        Ok(())
    }

    /// Whether the host's doorbells are in memory.
    pub(super) fn has_doorbell_buffers(&self) -> bool {
        self.buffers.is_some()
    }

    /// Takes what the host has written to its doorbells in memory.
    pub(super) fn look_at_doorbells(&mut self) {
        let Some(buffers) = self.buffers else { return };
        if !self.is_running() {
            return;
        }
        let mut bytes = std::mem::take(&mut self.doorbells);
        bytes.resize(self.submissions.len() * PAIR, 0);
        let read = self.memory.read(buffers.shadow, &mut bytes);
        match read {
            Ok(()) => self.take_doorbells(&bytes),
            Err(fault) => self.queue_fault(0, &fault),
        }
        self.doorbells = bytes;
    }

    fn take_doorbells(&mut self, bytes: &[u8]) {
        for (queue, pair) in bytes.as_chunks::<PAIR>().0.iter().enumerate().skip(1) {
            let [tail, head] = [0, 4]
                .map(|at| u32::from_le_bytes([pair[at], pair[at + 1], pair[at + 2], pair[at + 3]]));
            let mut possible = true;
            if let Some(submission) = &mut self.submissions[queue]
                && std::mem::replace(&mut submission.seen, tail) != tail
            {
                possible = submission.ring(tail);
            }
            if let Some(completion) = &mut self.completions[queue]
                && std::mem::replace(&mut completion.seen, head) != head
            {
                possible &= completion.ring(head);
            }
            if !possible {
                self.logs.invalid_doorbell_value(queue as u16);
            }
        }
    }

    /// Has the host ring for whatever comes next. Says whether something has come meanwhile, which
    /// it may not have rung for.
    pub(super) fn arm_doorbells(&mut self) -> bool {
        let Some(buffers) = self.buffers else { return false };
        if !self.is_running() {
            return false;
        }
        let mut fault = None;
        let mut asked = false;
        for queue in 1..self.submissions.len() {
            if let Some(submission) = &mut self.submissions[queue]
                && submission.asked != submission.tail()
            {
                submission.asked = submission.tail();
                asked = true;
                let at = submission_at(queue);
                fault = fault.or(buffers.ask(&self.memory, at, submission.asked).err());
            }
            // Completions that were taken are news only where there is no room for more.
            if let Some(completion) = &mut self.completions[queue]
                && completion.is_behind()
                && completion.asked != completion.head()
            {
                completion.asked = completion.head();
                asked = true;
                let at = completion_at(queue);
                fault = fault.or(buffers.ask(&self.memory, at, completion.asked).err());
            }
        }
        if let Some(fault) = fault {
            self.queue_fault(0, &fault);
            return false;
        }
        if !asked {
            return false;
        }
        // The host writes its doorbell and then reads what was asked for; this is the other half.
        fence(Ordering::SeqCst);
        self.look_at_doorbells();
        self.has_work()
    }
}
