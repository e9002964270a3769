//! Admin commands (NVM Express 1.4, 5).

use super::{
    Command, PAGE, Status,
    controller::{Completion, Controller},
    queue::{CompletionQueue, SubmissionQueue},
};

const DELETE_SUBMISSION_QUEUE: u8 = 0x00;
const CREATE_SUBMISSION_QUEUE: u8 = 0x01;
const GET_LOG_PAGE: u8 = 0x02;
const DELETE_COMPLETION_QUEUE: u8 = 0x04;
const CREATE_COMPLETION_QUEUE: u8 = 0x05;
const IDENTIFY: u8 = 0x06;
const ABORT: u8 = 0x08;
const SET_FEATURES: u8 = 0x09;
const GET_FEATURES: u8 = 0x0a;
const EVENT_REQUEST: u8 = 0x0c;
const DOORBELL_BUFFERS: u8 = 0x7c;

impl Controller {
    /// Executes an admin command; returns result and status, or `None` if it completes later.
    pub(super) fn admin(&mut self, command: &Command) -> Option<(u32, Status)> {
        let result = if command.flags & 0xc3 != 0 {
            Err(Status::INVALID_FIELD)
        } else {
            match command.opcode {
                DELETE_SUBMISSION_QUEUE => self.delete_submission_queue(command).map(|()| 0),
                CREATE_SUBMISSION_QUEUE => self.create_submission_queue(command).map(|()| 0),
                GET_LOG_PAGE => self.get_log_page(command).map(|()| 0),
                DELETE_COMPLETION_QUEUE => self.delete_completion_queue(command).map(|()| 0),
                CREATE_COMPLETION_QUEUE => self.create_completion_queue(command).map(|()| 0),
                IDENTIFY => self.identify(command).map(|()| 0),
                ABORT => Ok(self.abort_command(command)),
                SET_FEATURES => self.set_features(command),
                GET_FEATURES => self.get_features(command),
                EVENT_REQUEST => match self.logs.request(command.identifier.get()) {
                    Ok(()) => return None,
                    Err(status) => Err(status),
                },
                DOORBELL_BUFFERS => self.configure_doorbells(command).map(|()| 0),
                _ => Err(Status::INVALID_OPCODE),
            }
        };
        Some(match result {
            Ok(result) => (result, Status::SUCCESS),
            Err(status) => (0, status),
        })
    }

    /// Identifier and entries of a queue that is to be created.
    fn new_queue(&self, command: &Command, taken: bool) -> Result<(u16, u32), Status> {
        let id = (command.dword(10) & 0xffff) as u16;
        let size = (command.dword(10) >> 16) + 1;
        if id == 0 || id > self.settings.queues || taken {
            return Err(Status::INVALID_QUEUE);
        }
        if !(2..=u32::from(self.settings.entries)).contains(&size) {
            return Err(Status::INVALID_QUEUE_SIZE);
        }
        if !command.prp1.get().is_multiple_of(PAGE) {
            return Err(Status::PRP_OFFSET);
        }
        // Contiguous queues alone, as CAP says.
        if command.dword(11) & 1 == 0 {
            return Err(Status::INVALID_FIELD);
        }
        Ok((id, size))
    }

    fn exists<T>(queues: &[Option<T>], command: &Command) -> bool {
        let id = (command.dword(10) & 0xffff) as usize;
        queues.get(id).is_some_and(Option::is_some)
    }

    fn create_completion_queue(&mut self, command: &Command) -> Result<(), Status> {
        let (id, size) = self.new_queue(command, Self::exists(&self.completions, command))?;
        // Entries of 16 bytes, set in CC before (3.1.5).
        if self.cc >> 20 & 0xf != 4 {
            return Err(Status::INVALID_QUEUE_SIZE);
        }
        let vector = (command.dword(11) >> 16) as u16;
        if vector >= self.settings.vectors {
            return Err(Status::INVALID_VECTOR);
        }
        let interrupts_enabled = command.dword(11) & 2 != 0;
        let vector = if interrupts_enabled { Some(vector) } else { None };
        self.completions[usize::from(id)] =
            Some(CompletionQueue::new(command.prp1.get(), size, vector));
        self.created(id, command)
    }

    fn create_submission_queue(&mut self, command: &Command) -> Result<(), Status> {
        let (id, size) = self.new_queue(command, Self::exists(&self.submissions, command))?;
        // Entries of 64 bytes, set in CC before (3.1.5).
        if self.cc >> 16 & 0xf != 6 {
            return Err(Status::INVALID_QUEUE_SIZE);
        }
        let completion = (command.dword(11) >> 16) as u16;
        if completion == 0 || completion > self.settings.queues {
            return Err(Status::INVALID_QUEUE);
        }
        let users = self.completions[usize::from(completion)].as_mut();
        users.ok_or(Status::INVALID_COMPLETION_QUEUE)?.users += 1;
        self.submissions[usize::from(id)] =
            Some(SubmissionQueue::new(completion, command.prp1.get(), size));
        self.memory.queue_created(id);
        self.created(id, command)
    }

    fn created(&mut self, id: u16, command: &Command) -> Result<(), Status> {
        let initialized = self.initialize_doorbells(usize::from(id));
        initialized.map_err(|fault| self.data_fault(0, command, &fault))
    }

    fn delete_submission_queue(&mut self, command: &Command) -> Result<(), Status> {
        let id = (command.dword(10) & 0xffff) as u16;
        if id == 0 || !Self::exists(&self.submissions, command) {
            return Err(Status::INVALID_QUEUE);
        }
        self.abort_where(Status::QUEUE_DELETED, |completion| completion.queue == id);
        if let Some(queue) = self.submissions[usize::from(id)].take()
            && let Some(completion) = self.completions[usize::from(queue.completion)].as_mut()
        {
            completion.users -= 1;
        }
        Ok(())
    }

    fn delete_completion_queue(&mut self, command: &Command) -> Result<(), Status> {
        let id = (command.dword(10) & 0xffff) as usize;
        if id == 0 || !Self::exists(&self.completions, command) {
            return Err(Status::INVALID_QUEUE);
        }
        if self.completions[id].as_ref().is_some_and(|queue| queue.users > 0) {
            return Err(Status::INVALID_DELETION);
        }
        self.completions[id] = None;
        Ok(())
    }

    /// Bit 0 of the answer says that the command was *not* aborted (5.1).
    fn abort_command(&mut self, command: &Command) -> u32 {
        let (queue, identifier) =
            ((command.dword(10) & 0xffff) as u16, (command.dword(10) >> 16) as u16);
        if queue == 0 && self.logs.abort(identifier) {
            let status = Status::ABORT_REQUESTED;
            self.complete(Completion::untracked(queue, identifier, 0, status));
            return 0;
        }
        u32::from(!self.abort(queue, identifier))
    }
}
