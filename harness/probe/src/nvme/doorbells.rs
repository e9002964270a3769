//! Doorbells in the host's memory (NVM Express 1.4, 5.7 and 7.13).
//!
//! The host writes a queue's new tail or head there, and writes the register only if that passes the
//! event index that the controller has set. So a controller that polls costs the guest no exit.
//! Linux's drivers use them from 4.12 on, for any queue but the admin queue's.

use std::sync::atomic::{Ordering, fence};

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, little_endian::U32};

use super::{Command, PAGE, Status, controller::Controller};
use crate::memory::{Fault, Memory};

/// Doorbells of a pair of queues.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct DoorbellPair {
    submission_tail: U32,
    completion_head: U32,
}

/// Addresses of doorbells and event indices in the host's memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct DoorbellBuffers {
    shadow: u64,
    events: u64,
}

impl DoorbellBuffers {
    /// Sets the event index of a queue's doorbell.
    fn set_event_index(&self, memory: &Memory, at: u64, value: u32) -> Result<(), Fault> {
        memory.write(self.events.wrapping_add(at), &value.to_le_bytes())
    }

    /// Sets doorbell and event index to the controller's value: the old contents mean nothing.
    fn initialize(&self, memory: &Memory, at: u64, value: u32) -> Result<(), Fault> {
        memory.write(self.shadow.wrapping_add(at), &value.to_le_bytes())?;
        self.set_event_index(memory, at, value)
    }
}

fn submission_at(queue: usize) -> u64 {
    (queue * size_of::<DoorbellPair>()) as u64
}

fn completion_at(queue: usize) -> u64 {
    submission_at(queue) + 4
}

impl Controller {
    /// Doorbell Buffer Config: takes the addresses of the host's doorbells.
    pub(super) fn configure_doorbells(&mut self, command: &Command) -> Result<(), Status> {
        let (shadow, events) = (command.prp1.get(), command.prp2.get());
        if !shadow.is_multiple_of(PAGE) || !events.is_multiple_of(PAGE) {
            return Err(Status::INVALID_FIELD);
        }
        let buffers = DoorbellBuffers { shadow, events };
        self.buffers = Some(buffers);
        let queues = 1..self.submissions.len();
        let result = queues.into_iter().try_for_each(|queue| self.initialize_doorbells(queue));
        result.map_err(|fault| {
            self.buffers = None;
            self.data_fault(0, command, &fault)
        })
    }

    /// Initializes the doorbells in memory of the queues with this number, as far as they exist.
    pub(super) fn initialize_doorbells(&mut self, queue: usize) -> Result<(), Fault> {
        let Some(buffers) = self.buffers else { return Ok(()) };
        if let Some(submission) = &mut self.submissions[queue] {
            let tail = submission.tail();
            buffers.initialize(&self.memory, submission_at(queue), tail)?;
            (submission.last_doorbell, submission.event_index) = (tail, tail);
        }
        if let Some(completion) = &mut self.completions[queue] {
            let head = completion.head();
            buffers.initialize(&self.memory, completion_at(queue), head)?;
            (completion.last_doorbell, completion.event_index) = (head, head);
        }
        Ok(())
    }

    /// Whether the host's doorbells are in memory.
    pub(super) fn has_doorbell_buffers(&self) -> bool {
        self.buffers.is_some()
    }

    /// Reads the host's doorbells in memory.
    pub(super) fn poll_doorbells(&mut self) {
        let Some(buffers) = self.buffers else { return };
        if !self.is_running() {
            return;
        }
        let mut pairs = std::mem::take(&mut self.doorbells);
        pairs.resize(self.submissions.len(), DoorbellPair::new_zeroed());
        match self.memory.read(buffers.shadow, pairs.as_mut_bytes()) {
            Ok(()) => self.update_queues(&pairs),
            Err(fault) => self.queue_fault(0, &fault),
        }
        self.doorbells = pairs;
    }

    fn update_queues(&mut self, pairs: &[DoorbellPair]) {
        for (queue, pair) in pairs.iter().enumerate().skip(1) {
            let (tail, head) = (pair.submission_tail.get(), pair.completion_head.get());
            let mut valid = true;
            if let Some(submission) = &mut self.submissions[queue]
                && std::mem::replace(&mut submission.last_doorbell, tail) != tail
            {
                valid = submission.set_tail(tail);
            }
            if let Some(completion) = &mut self.completions[queue]
                && std::mem::replace(&mut completion.last_doorbell, head) != head
            {
                valid &= completion.set_head(head);
            }
            if !valid {
                self.logs.invalid_doorbell_value(queue as u16);
            }
        }
    }

    /// Makes the host write the register for its next command. Returns whether a command came
    /// meanwhile, for which it may not have written the register.
    pub(super) fn arm_doorbells(&mut self) -> bool {
        let Some(buffers) = self.buffers else { return false };
        if !self.is_running() {
            return false;
        }
        let mut fault = None;
        let mut changed = false;
        for queue in 1..self.submissions.len() {
            if let Some(submission) = &mut self.submissions[queue]
                && submission.event_index != submission.tail()
            {
                submission.event_index = submission.tail();
                changed = true;
                let at = submission_at(queue);
                let set = buffers.set_event_index(&self.memory, at, submission.event_index);
                fault = fault.or(set.err());
            }
            // The host's progress with completions matters only if there is no room for more.
            if let Some(completion) = &mut self.completions[queue]
                && completion.has_waiting()
                && completion.event_index != completion.head()
            {
                completion.event_index = completion.head();
                changed = true;
                let at = completion_at(queue);
                let set = buffers.set_event_index(&self.memory, at, completion.event_index);
                fault = fault.or(set.err());
            }
        }
        if let Some(fault) = fault {
            self.queue_fault(0, &fault);
            return false;
        }
        if !changed {
            return false;
        }
        // The host writes its doorbell and then reads the event index; this is the other half.
        fence(Ordering::SeqCst);
        self.poll_doorbells();
        self.has_work()
    }
}
