//! The controller's state, and the way of a command through it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use dmarig_model::probe::{ProbeCounts, Settings};

use super::{
    BLOCK, Command, PAGE, Status,
    doorbells::DoorbellBuffers,
    features::Features,
    log_page::Logs,
    prp::{self, Prp},
    queue::{CompletionQueue, Entry, SubmissionQueue},
    registers::{ENABLE, FATAL, READY, Registers, SHUT_DOWN},
};
use crate::{
    follow::Request,
    irqs::Interrupts,
    memory::{Fault, Memory, Range},
    store::Store,
};

/// Names of the I/O commands that are counted.
pub(super) const COMMANDS: [&str; 5] =
    ["read", "write", "flush", "write-zeroes", "dataset-management"];

/// What is counted of commands.
#[derive(Debug, Default)]
pub struct Tally {
    pub(super) commands: [u64; COMMANDS.len()],
    pub(super) failed: BTreeMap<(u8, u8), u64>,
    pub(super) to_guest: u64,
    pub(super) from_guest: u64,
    pub(super) corrupt: u64,
    pub(super) corrupt_lines: Vec<String>,
}

impl Tally {
    /// Adds it to what was counted elsewhere.
    pub fn add_to(&self, counts: &mut ProbeCounts) {
        let named = COMMANDS.into_iter().zip(self.commands).filter(|(_, count)| *count > 0);
        counts.commands = named.map(|(name, count)| (name.to_owned(), count)).collect();
        let failed = self.failed.iter();
        counts.failed =
            failed.map(|((kind, code), count)| (format!("{kind:x}/{code:02x}"), *count)).collect();
        counts.to_guest_bytes = self.to_guest;
        counts.from_guest_bytes = self.from_guest;
        counts.corrupt = self.corrupt;
        counts.corrupt_lines.clone_from(&self.corrupt_lines);
    }
}

/// A command that was carried out and isn't completed.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) queue: u16,
    pub(super) identifier: u16,
    pub(super) result: u32,
    pub(super) status: Status,
    pub(super) request: Request,
}

/// One whose time has not come: time and number decide, earliest first.
#[derive(Debug)]
struct Later {
    due: Instant,
    number: u64,
    done: Done,
}

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.number) == (other.due, other.number)
    }
}

impl Eq for Later {}

impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Later {
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
    /// Whether the latest transfer was of many pages.
    pub(super) large: bool,
    later: BinaryHeap<Reverse<Later>>,
    held: Vec<Done>,
    number: u64,
    /// Buffers that are used again and again.
    pub(super) ranges: Vec<Range>,
    pub(super) data: Vec<u8>,
    pub(super) doorbells: Vec<u8>,
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
            later: BinaryHeap::new(),
            held: Vec::new(),
            number: 0,
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

    /// CC was written (3.1.5).
    pub(super) fn configure(&mut self, cc: u32) {
        let was = std::mem::replace(&mut self.cc, cc);
        if cc & ENABLE != 0 && was & ENABLE == 0 {
            self.enable();
        } else if cc & ENABLE == 0 && was & ENABLE != 0 {
            self.stop();
            self.registers.csts.store(0, Ordering::SeqCst);
        }
        let csts = &self.registers.csts;
        if cc >> 14 & 3 != 0 && was >> 14 & 3 == 0 {
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
        // NVM commands, pages of 4 KiB, round robin: nothing else was offered.
        let offered = self.cc >> 4 & 0x3ff == 0;
        if !offered || sizes.iter().any(|size| *size < 2) {
            tracing::warn!(cc = self.cc, aqa, "enabled in a way that was not offered");
            self.fail();
            return;
        }
        tracing::info!(cc = self.cc, "enabled");
        self.submissions[0] = Some(SubmissionQueue::new(0, asq, sizes[0]));
        self.completions[0] = Some(CompletionQueue::new(acq, sizes[1], Some(0)));
        self.registers.csts.store(READY, Ordering::SeqCst);
    }

    /// Lets go of everything that is under way, and of all queues.
    fn stop(&mut self) {
        self.registers.silence();
        self.submissions.iter_mut().for_each(|queue| *queue = None);
        self.completions.iter_mut().for_each(|queue| *queue = None);
        self.later.clear();
        self.held.clear();
        self.buffers = None;
        self.features = Features::new(&self.settings);
        self.logs.restart();
    }

    /// Starts anew, as at power-on; the namespace keeps its data.
    pub(super) fn reset(&mut self) {
        self.stop();
        self.cc = 0;
        self.registers.csts.store(0, Ordering::SeqCst);
        self.registers.aqa.store(0, Ordering::SeqCst);
        self.registers.asq.store(0, Ordering::SeqCst);
        self.registers.acq.store(0, Ordering::SeqCst);
    }

    /// Fails for good: only a reset helps.
    pub(super) fn fail(&mut self) {
        self.registers.csts.fetch_or(FATAL, Ordering::SeqCst);
    }

    pub(super) fn is_running(&self) -> bool {
        self.registers.ready()
    }

    /// A doorbell was written (3.1.24, 3.1.25).
    pub(super) fn rung(&mut self, doorbell: usize, value: u32) {
        if !self.is_running() {
            return;
        }
        let queue = doorbell / 2;
        let (submissions, completions) = (&mut self.submissions, &mut self.completions);
        // It has come by post, and may be older than the one in memory, which is looked at next.
        let told = |queue: usize| queue > 0 && self.buffers.is_some();
        let known = if doorbell.is_multiple_of(2) {
            submissions[queue].as_mut().map(|ring| told(queue) || ring.ring(value))
        } else {
            completions[queue].as_mut().map(|ring| told(queue) || ring.ring(value))
        };
        match known {
            Some(true) => {}
            Some(false) => self.logs.invalid_doorbell_value(queue as u16),
            None => self.logs.invalid_doorbell(),
        }
    }

    /// A queue can't be reached: nothing can be told any more.
    pub(super) fn queue_fault(&mut self, queue: u16, fault: &Fault) {
        tracing::warn!(queue, %fault, "a queue can't be reached");
        self.memory.count_fault(&format!("queue {queue}"), fault);
        self.fail();
    }

    /// Fetches and carries out what has come on one queue, up to a batch. Says whether anything
    /// had.
    pub(super) fn serve(&mut self, queue: usize) -> bool {
        let Some(submission) = self.submissions[queue].as_mut() else { return false };
        if submission.is_empty() || !self.registers.ready() {
            return false;
        }
        // A host that doesn't look at completions gets no more of them.
        let completion = usize::from(submission.completion);
        self.flush(completion);
        let behind = self.completions[completion].as_ref().is_none_or(CompletionQueue::is_behind);
        let Some(submission) = self.submissions[queue].as_mut() else { return false };
        if behind {
            return false;
        }
        let mut commands = std::mem::take(&mut self.commands);
        commands.clear();
        if let Err(fault) = submission.fetch(&self.memory, &mut commands) {
            self.queue_fault(queue as u16, &fault);
        }
        let any = !commands.is_empty();
        for command in &commands {
            self.begin(queue as u16, command);
        }
        self.commands = commands;
        any
    }

    /// Whether a command waits to be fetched and can be.
    pub(super) fn has_work(&self) -> bool {
        let waits = |queue: &SubmissionQueue| {
            let completion = self.completions[usize::from(queue.completion)].as_ref();
            !queue.is_empty() && completion.is_some_and(|queue| !queue.is_full())
        };
        self.registers.ready() && self.submissions.iter().flatten().any(waits)
    }

    fn begin(&mut self, queue: u16, command: &Command) {
        let identifier = command.identifier;
        let Some(submission) = self.submissions[usize::from(queue)].as_mut() else { return };
        if !submission.begin(identifier) {
            let status = Status::IDENTIFIER_CONFLICT;
            let request = Request::unfollowed();
            return self.complete(Done { queue, identifier, result: 0, status, request });
        }
        if queue == 0 {
            // No answer yet: an event request that waits for its event.
            if let Some((result, status)) = self.admin(command) {
                let request = Request::unfollowed();
                self.complete(Done { queue, identifier, result, status, request });
            }
            return;
        }
        let mut request = self.memory.submitted(queue, identifier);
        let status = self.io(queue, command, &mut request);
        self.schedule(Done { queue, identifier, result: 0, status, request });
    }

    fn schedule(&mut self, done: Done) {
        if self.settings.latency_us > 0 {
            self.number += 1;
            let due = Instant::now() + Duration::from_micros(self.settings.latency_us);
            self.later.push(Reverse(Later { due, number: self.number, done }));
        } else {
            self.hold(done);
        }
    }

    fn hold(&mut self, done: Done) {
        if self.settings.hold_back <= 1 {
            return self.complete(done);
        }
        self.held.push(done);
        if self.held.len() >= self.settings.hold_back as usize {
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        for done in std::mem::take(&mut self.held) {
            self.complete(done);
        }
    }

    /// Completes what is due. Where nothing is left to be fetched (`idle`) or to become due, what
    /// was held back goes too. Answers when the next one is due.
    pub(super) fn ripen(&mut self, idle: bool) -> Option<Instant> {
        while let Some(Reverse(later)) = self.later.peek()
            && later.due <= Instant::now()
        {
            if let Some(Reverse(later)) = self.later.pop() {
                self.hold(later.done);
            }
        }
        let next = self.later.peek().map(|Reverse(later)| later.due);
        if idle && next.is_none() {
            self.let_go();
        }
        next
    }

    pub(super) fn complete(&mut self, done: Done) {
        let Done { queue, identifier, result, status, request } = done;
        // Its queue may have gone meanwhile, and then nobody is told.
        let Some(submission) = self.submissions[usize::from(queue)].as_mut() else { return };
        submission.end(identifier);
        let entry = Entry { result, queue, head: submission.head(), identifier, status };
        let completion = usize::from(submission.completion);
        if status != Status::SUCCESS {
            tracing::debug!(queue, identifier, ?status, "failed");
            *self.tally().failed.entry((status.kind, status.code)).or_default() += 1;
        }
        self.memory.finished(request);
        if let Some(completion) = self.completions[completion].as_mut() {
            completion.post(entry);
        }
    }

    /// Writes completions of one queue for the host to see.
    fn flush(&mut self, queue: usize) {
        let Some(completion) = self.completions[queue].as_mut() else { return };
        if let Err(fault) = completion.flush(&self.memory) {
            self.queue_fault(queue as u16, &fault);
        }
    }

    /// Aborts a command that is done and not completed (5.1); says whether there was one.
    pub(super) fn abort(&mut self, queue: u16, identifier: u16) -> bool {
        self.abort_where(Status::ABORT_REQUESTED, |done| {
            (done.queue, done.identifier) == (queue, identifier)
        })
    }

    pub(super) fn abort_where(&mut self, status: Status, which: impl Fn(&Done) -> bool) -> bool {
        let held = std::mem::take(&mut self.held).into_iter();
        let later = std::mem::take(&mut self.later).into_vec().into_iter();
        let (hit, held): (Vec<_>, Vec<_>) = held.partition(&which);
        let (later_hit, later): (Vec<_>, Vec<_>) =
            later.partition(|Reverse(later)| which(&later.done));
        self.held = held;
        self.later = later.into();
        let all = hit.into_iter().chain(later_hit.into_iter().map(|Reverse(later)| later.done));
        let all: Vec<_> = all.collect();
        let any = !all.is_empty();
        all.into_iter().for_each(|done| self.complete(Done { status, ..done }));
        any
    }

    /// Completes event requests for which there is an event.
    pub(super) fn report_events(&mut self) {
        while let Some((identifier, result)) = self.logs.next_event(self.features.events) {
            let (status, request) = (Status::SUCCESS, Request::unfollowed());
            self.complete(Done { queue: 0, identifier, result, status, request });
        }
    }

    /// Shows the host what is completed, and raises interrupts for queues with news.
    pub(super) fn interrupt(&mut self) {
        for queue in 0..self.completions.len() {
            if self.registers.ready() {
                self.flush(queue);
            }
        }
        for queue in self.completions.iter_mut().flatten() {
            if std::mem::take(&mut queue.news)
                && let Some(vector) = queue.vector
            {
                self.interrupts.raise(vector);
            }
        }
    }

    /// Sends data to the host, at most as much as it asked for; the rest of that is zeros.
    pub(super) fn answer(
        &mut self,
        command: &Command,
        data: &[u8],
        size: u64,
    ) -> Result<(), Status> {
        let mut whole = data.to_vec();
        whole.resize(size as usize, 0);
        self.find(0, command, size)?;
        let mut request = Request::unfollowed();
        let sent = self.memory.scatter(&self.ranges, &whole, &mut request);
        sent.map_err(|fault| self.data_fault(0, command, &fault))
    }

    /// Finds a command's data.
    pub(super) fn find(&mut self, queue: u16, command: &Command, size: u64) -> Result<(), Status> {
        let mut ranges = std::mem::take(&mut self.ranges);
        let read = |iova, buffer: &mut [u8]| self.memory.read(iova, buffer);
        let walked = prp::walk(command.prp1, command.prp2, size, read, &mut ranges);
        self.ranges = ranges;
        walked.map_err(|wrong| match wrong {
            Prp::Wrong(status) => status,
            Prp::Fault(fault) => self.data_fault(queue, command, &fault),
        })
    }

    pub(super) fn data_fault(&self, queue: u16, command: &Command, fault: &Fault) -> Status {
        let Command { opcode, identifier, .. } = command;
        tracing::warn!(queue, opcode, identifier, %fault, "data can't be reached");
        let who = format!("queue {queue}, command {identifier:#06x}, opcode {opcode:#04x}");
        self.memory.count_fault(&who, fault);
        Status::TRANSFER_ERROR
    }

    /// Pages that a host memory buffer is to have.
    pub(super) fn host_memory_pages(&self) -> u32 {
        u32::try_from(self.settings.host_memory_bytes / PAGE).unwrap_or(u32::MAX)
    }
}
