//! The controller's state, and the path of a command through it.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use dmarig_model::probe::Settings;
use zerocopy::little_endian::U32;

use super::{
    BLOCK, Command, PAGE, Status,
    doorbells::{DoorbellBuffers, DoorbellPair},
    features::Features,
    log_page::Logs,
    prp::{self, PrpError},
    queue::{CompletionEntry, CompletionQueue, SubmissionQueue},
    registers::{ENABLE, FATAL, READY, Registers, SHUT_DOWN},
    tally::Tally,
};
use crate::{
    irqs::Interrupts,
    memory::{Fault, Memory},
    range::Range,
    stale::TrackedRequest,
    store::Store,
};

/// The completion of a command that was executed.
#[derive(Debug)]
pub(super) struct Completion {
    pub(super) queue: u16,
    pub(super) identifier: u16,
    pub(super) result: u32,
    pub(super) status: Status,
    pub(super) request: TrackedRequest,
}

impl Completion {
    /// A completion whose data is not tracked.
    pub(super) fn untracked(queue: u16, identifier: u16, result: u32, status: Status) -> Self {
        Self { queue, identifier, result, status, request: TrackedRequest::untracked() }
    }
}

/// A completion that is due later. They are ordered by time and number.
#[derive(Debug)]
struct DelayedCompletion {
    due: Instant,
    number: u64,
    completion: Completion,
}

impl PartialEq for DelayedCompletion {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.number) == (other.due, other.number)
    }
}

impl Eq for DelayedCompletion {}

impl PartialOrd for DelayedCompletion {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for DelayedCompletion {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

/// The controller.
#[derive(Debug)]
pub struct Controller {
    pub(super) settings: Settings,
    pub(super) registers: Arc<Registers>,
    pub(super) memory: Arc<Memory>,
    interrupts: Arc<Interrupts>,
    tally: Arc<Mutex<Tally>>,
    pub(super) store: Store,
    pub(super) serial: String,
    pub(super) cc: u32,
    pub(super) submissions: Vec<Option<SubmissionQueue>>,
    pub(super) completions: Vec<Option<CompletionQueue>>,
    pub(super) features: Features,
    pub(super) logs: Logs,
    pub(super) buffers: Option<DoorbellBuffers>,
    /// Whether the last transfer had many pages.
    pub(super) large: bool,
    delayed: BinaryHeap<Reverse<DelayedCompletion>>,
    held_back: Vec<Completion>,
    next_number: u64,
    /// Buffers that are used again and again.
    pub(super) ranges: Vec<Range>,
    pub(super) data: Vec<u8>,
    pub(super) doorbells: Vec<DoorbellPair>,
    commands: Vec<Command>,
}

impl Controller {
    /// A controller that is not enabled.
    #[must_use]
    pub fn new(
        settings: Settings,
        serial: String,
        registers: Arc<Registers>,
        memory: Arc<Memory>,
        interrupts: Arc<Interrupts>,
        tally: Arc<Mutex<Tally>>,
    ) -> Self {
        let queues = usize::from(settings.queues) + 1;
        Self {
            store: Store::new(settings.disk_bytes),
            features: Features::new(&settings),
            settings,
            registers,
            memory,
            interrupts,
            tally,
            serial,
            cc: 0,
            submissions: (0..queues).map(|_| None).collect(),
            completions: (0..queues).map(|_| None).collect(),
            logs: Logs::default(),
            buffers: None,
            large: false,
            delayed: BinaryHeap::new(),
            held_back: Vec::new(),
            next_number: 0,
            ranges: Vec::new(),
            data: Vec::new(),
            doorbells: Vec::new(),
            commands: Vec::new(),
        }
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks of the namespace.
    pub(super) fn blocks(&self) -> u64 {
        self.settings.disk_bytes / BLOCK
    }

    /// Applies a new value of CC (3.1.5).
    pub(super) fn configure(&mut self, cc: u32) {
        let old = std::mem::replace(&mut self.cc, cc);
        if cc & ENABLE != 0 && old & ENABLE == 0 {
            self.enable();
        } else if cc & ENABLE == 0 && old & ENABLE != 0 {
            self.stop();
            self.registers.csts.store(0, Ordering::SeqCst);
        }
        let csts = &self.registers.csts;
        if cc >> 14 & 3 != 0 && old >> 14 & 3 == 0 {
            csts.fetch_or(SHUT_DOWN, Ordering::SeqCst);
        } else if cc >> 14 & 3 == 0 {
            csts.fetch_and(!SHUT_DOWN, Ordering::SeqCst);
        }
    }

    fn enable(&mut self) {
        self.stop();
        let aqa = self.registers.aqa.load(Ordering::SeqCst);
        let asq = self.registers.asq.load(Ordering::SeqCst);
        let acq = self.registers.acq.load(Ordering::SeqCst);
        let sizes = [(aqa & 0xfff) + 1, (aqa >> 16 & 0xfff) + 1];
        // NVM commands, pages of 4 KiB, round robin: nothing else is supported.
        let supported = self.cc >> 4 & 0x3ff == 0;
        if !supported || sizes.iter().any(|size| *size < 2) {
            tracing::warn!(cc = self.cc, aqa, "enabled in a way that is not supported");
            self.fail();
            return;
        }
        tracing::info!(cc = self.cc, "enabled");
        self.submissions[0] = Some(SubmissionQueue::new(0, asq, sizes[0]));
        self.completions[0] = Some(CompletionQueue::new(acq, sizes[1], Some(0)));
        self.registers.csts.store(READY, Ordering::SeqCst);
    }

    /// Discards all commands in flight and all queues.
    fn stop(&mut self) {
        self.registers.clear_doorbells();
        self.submissions.iter_mut().for_each(|queue| *queue = None);
        self.completions.iter_mut().for_each(|queue| *queue = None);
        self.delayed.clear();
        self.held_back.clear();
        self.buffers = None;
        self.features = Features::new(&self.settings);
        self.logs.restart();
    }

    /// Resets everything, as at power-on; the namespace keeps its data.
    pub(super) fn reset(&mut self) {
        self.stop();
        self.cc = 0;
        self.registers.csts.store(0, Ordering::SeqCst);
        self.registers.aqa.store(0, Ordering::SeqCst);
        self.registers.asq.store(0, Ordering::SeqCst);
        self.registers.acq.store(0, Ordering::SeqCst);
    }

    /// Reports a fatal error, which only a reset clears.
    pub(super) fn fail(&mut self) {
        self.registers.csts.fetch_or(FATAL, Ordering::SeqCst);
    }

    pub(super) fn is_running(&self) -> bool {
        self.registers.ready()
    }

    /// Applies a write of a doorbell register (3.1.24, 3.1.25).
    pub(super) fn doorbell_written(&mut self, doorbell: usize, value: u32) {
        if !self.is_running() {
            return;
        }
        let queue = doorbell / 2;
        // The value may be older than that in memory, which is read next.
        let is_in_memory = queue > 0 && self.buffers.is_some();
        let valid = if doorbell.is_multiple_of(2) {
            let submissions = self.submissions[queue].as_mut();
            submissions.map(|queue| is_in_memory || queue.set_tail(value))
        } else {
            let completions = self.completions[queue].as_mut();
            completions.map(|queue| is_in_memory || queue.set_head(value))
        };
        match valid {
            Some(true) => {}
            Some(false) => self.logs.invalid_doorbell_value(queue as u16),
            None => self.logs.invalid_doorbell(),
        }
    }

    /// Fails because a queue can't be accessed.
    pub(super) fn queue_fault(&mut self, queue: u16, fault: &Fault) {
        tracing::warn!(queue, %fault, "a queue can't be accessed");
        self.memory.count_fault(&format!("queue {queue}"), fault);
        self.fail();
    }

    /// Fetches and executes commands of one queue, up to a batch. Returns whether there were any.
    pub(super) fn serve(&mut self, queue: usize) -> bool {
        let Some(submission) = self.submissions[queue].as_mut() else { return false };
        if submission.is_empty() || !self.registers.ready() {
            return false;
        }
        // A host that doesn't take completions gets no more of them.
        let completion = usize::from(submission.completion);
        self.flush(completion);
        let blocked =
            self.completions[completion].as_ref().is_none_or(CompletionQueue::has_waiting);
        let Some(submission) = self.submissions[queue].as_mut() else { return false };
        if blocked {
            return false;
        }
        let mut commands = std::mem::take(&mut self.commands);
        if let Err(fault) = submission.fetch(&self.memory, &mut commands) {
            self.queue_fault(queue as u16, &fault);
        }
        let any = !commands.is_empty();
        for command in &commands {
            self.execute(queue as u16, command);
        }
        self.commands = commands;
        any
    }

    /// Whether a command can be fetched.
    pub(super) fn has_work(&self) -> bool {
        let is_ready = |queue: &SubmissionQueue| {
            let completion = self.completions[usize::from(queue.completion)].as_ref();
            !queue.is_empty() && completion.is_some_and(|queue| !queue.is_full())
        };
        self.registers.ready() && self.submissions.iter().flatten().any(is_ready)
    }

    fn execute(&mut self, queue: u16, command: &Command) {
        let identifier = command.identifier.get();
        let Some(submission) = self.submissions[usize::from(queue)].as_mut() else { return };
        if !submission.claim(identifier) {
            let status = Status::IDENTIFIER_CONFLICT;
            return self.complete(Completion::untracked(queue, identifier, 0, status));
        }
        if queue == 0 {
            // Without a result it is an event request that waits for its event.
            if let Some((result, status)) = self.admin(command) {
                self.complete(Completion::untracked(queue, identifier, result, status));
            }
            return;
        }
        let mut request = self.memory.request_submitted(queue, identifier);
        let status = self.io(queue, command, &mut request);
        self.schedule(Completion { queue, identifier, result: 0, status, request });
    }

    fn schedule(&mut self, completion: Completion) {
        if self.settings.latency_us > 0 {
            self.next_number += 1;
            let due = Instant::now() + Duration::from_micros(self.settings.latency_us);
            let delayed = DelayedCompletion { due, number: self.next_number, completion };
            self.delayed.push(Reverse(delayed));
        } else {
            self.hold_back(completion);
        }
    }

    fn hold_back(&mut self, completion: Completion) {
        if self.settings.hold_back <= 1 {
            return self.complete(completion);
        }
        self.held_back.push(completion);
        if self.held_back.len() >= self.settings.hold_back as usize {
            self.complete_held_back();
        }
    }

    fn complete_held_back(&mut self) {
        for completion in std::mem::take(&mut self.held_back) {
            self.complete(completion);
        }
    }

    /// Completes what is due; also what is held back, if nothing is left to be fetched (`idle`) or to
    /// become due. Returns when the next completion is due.
    pub(super) fn complete_due(&mut self, idle: bool) -> Option<Instant> {
        while let Some(Reverse(delayed)) = self.delayed.peek()
            && delayed.due <= Instant::now()
        {
            if let Some(Reverse(delayed)) = self.delayed.pop() {
                self.hold_back(delayed.completion);
            }
        }
        let next = self.delayed.peek().map(|Reverse(delayed)| delayed.due);
        if idle && next.is_none() {
            self.complete_held_back();
        }
        next
    }

    pub(super) fn complete(&mut self, completion: Completion) {
        let Completion { queue, identifier, result, status, request } = completion;
        // Its queue may have been deleted meanwhile.
        let Some(submission) = self.submissions[usize::from(queue)].as_mut() else { return };
        submission.release(identifier);
        let entry = CompletionEntry {
            result: result.into(),
            reserved: U32::ZERO,
            submission_head: submission.head().into(),
            submission_queue: queue.into(),
            identifier: identifier.into(),
            status: status.bits().into(),
        };
        let completion = usize::from(submission.completion);
        if status != Status::SUCCESS {
            tracing::debug!(queue, identifier, ?status, "failed");
            *self.tally().failed.entry((status.kind, status.code)).or_default() += 1;
        }
        self.memory.request_finished(request);
        if let Some(completion) = self.completions[completion].as_mut() {
            completion.post(entry);
        }
    }

    /// Writes the waiting completions of one queue to the host's memory.
    fn flush(&mut self, queue: usize) {
        let Some(completion) = self.completions[queue].as_mut() else { return };
        if let Err(fault) = completion.flush(&self.memory) {
            self.queue_fault(queue as u16, &fault);
        }
    }

    /// Aborts a command that is executed and not completed (5.1); returns whether there was one.
    pub(super) fn abort(&mut self, queue: u16, identifier: u16) -> bool {
        self.abort_where(Status::ABORT_REQUESTED, |completion| {
            (completion.queue, completion.identifier) == (queue, identifier)
        })
    }

    pub(super) fn abort_where(
        &mut self,
        status: Status,
        which: impl Fn(&Completion) -> bool,
    ) -> bool {
        let held_back = std::mem::take(&mut self.held_back).into_iter();
        let (mut aborted, held_back): (Vec<_>, Vec<_>) = held_back.partition(&which);
        self.held_back = held_back;
        for Reverse(delayed) in std::mem::take(&mut self.delayed).into_vec() {
            if which(&delayed.completion) {
                aborted.push(delayed.completion);
            } else {
                self.delayed.push(Reverse(delayed));
            }
        }
        let any = !aborted.is_empty();
        for completion in aborted {
            self.complete(Completion { status, ..completion });
        }
        any
    }

    /// Completes event requests for which there is an event.
    pub(super) fn report_events(&mut self) {
        while let Some((identifier, result)) = self.logs.next_event() {
            self.complete(Completion::untracked(0, identifier, result, Status::SUCCESS));
        }
    }

    /// Writes completions to the host's memory and raises the interrupts that are due.
    pub(super) fn interrupt(&mut self) {
        for queue in 0..self.completions.len() {
            if self.registers.ready() {
                self.flush(queue);
            }
        }
        for queue in self.completions.iter_mut().flatten() {
            if std::mem::take(&mut queue.interrupt_due)
                && let Some(vector) = queue.vector
            {
                self.interrupts.raise(vector);
            }
        }
    }

    /// Transfers `size` bytes to the host: `data` and zeros behind it.
    pub(super) fn answer(
        &mut self,
        command: &Command,
        data: &[u8],
        size: u64,
    ) -> Result<(), Status> {
        let mut whole = data.to_vec();
        whole.resize(size as usize, 0);
        self.locate_data(0, command, size)?;
        let mut request = TrackedRequest::untracked();
        let sent = self.memory.scatter(&self.ranges, &whole, &mut request);
        sent.map_err(|fault| self.data_fault(0, command, &fault))
    }

    /// Finds the ranges of a command's data.
    pub(super) fn locate_data(
        &mut self,
        queue: u16,
        command: &Command,
        size: u64,
    ) -> Result<(), Status> {
        let mut ranges = std::mem::take(&mut self.ranges);
        let read = |iova, buffer: &mut [u8]| self.memory.read(iova, buffer);
        let (prp1, prp2) = (command.prp1.get(), command.prp2.get());
        let walked = prp::walk(prp1, prp2, size, read, &mut ranges);
        self.ranges = ranges;
        walked.map_err(|error| match error {
            PrpError::Invalid(status) => status,
            PrpError::Fault(fault) => self.data_fault(queue, command, &fault),
        })
    }

    pub(super) fn data_fault(&self, queue: u16, command: &Command, fault: &Fault) -> Status {
        let (opcode, identifier) = (command.opcode, command.identifier.get());
        tracing::warn!(queue, opcode, identifier, %fault, "data can't be accessed");
        let who = format!("queue {queue}, command {identifier:#06x}, opcode {opcode:#04x}");
        self.memory.count_fault(&who, fault);
        Status::TRANSFER_ERROR
    }

    /// Pages that a host memory buffer is to have.
    pub(super) fn host_memory_pages(&self) -> u32 {
        u32::try_from(self.settings.host_memory_bytes / PAGE).unwrap_or(u32::MAX)
    }
}
