//! Log pages and asynchronous events (NVM Express 1.4, 5.2 and 5.14).

use std::collections::VecDeque;

use zerocopy::{
    Immutable, IntoBytes,
    little_endian::{U16, U64},
};

use super::{Command, Status, controller::Controller, identify::EVENT_LIMIT, prp::MAX_TRANSFER};

const ERRORS: u8 = 0x01;
const HEALTH: u8 = 0x02;
const FIRMWARE: u8 = 0x03;
const CHANGED_NAMESPACES: u8 = 0x04;
const EFFECTS: u8 = 0x05;
/// Entries of the error log.
const MAX_ERRORS: usize = 64;

/// Errors that occurred, and event requests that wait for one.
#[derive(Debug, Default)]
pub(super) struct Logs {
    requests: VecDeque<u16>,
    events: VecDeque<DoorbellError>,
    /// Whether an error event was reported and its log page not yet read; until then, none is
    /// reported.
    masked: bool,
    errors: VecDeque<ErrorEntry>,
    error_count: u64,
}

/// An error that the host is told by an event, with its number there.
#[derive(Debug, Clone, Copy)]
enum DoorbellError {
    NoDoorbell = 0,
    InvalidValue = 1,
}

/// An entry of the error log.
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct ErrorEntry {
    number: U64,
    queue: U16,
    identifier: U16,
    rest: [u8; 52],
}

impl Logs {
    /// Discards requests and events of before a reset.
    pub(super) fn restart(&mut self) {
        self.requests.clear();
        self.events.clear();
        self.masked = false;
    }

    pub(super) fn request(&mut self, identifier: u16) -> Result<(), Status> {
        if self.requests.len() > usize::from(EVENT_LIMIT) {
            return Err(Status::EVENT_LIMIT);
        }
        self.requests.push_back(identifier);
        Ok(())
    }

    /// Removes a waiting event request; returns whether there was one.
    pub(super) fn abort(&mut self, identifier: u16) -> bool {
        let at = self.requests.iter().position(|request| *request == identifier);
        at.is_some_and(|at| self.requests.remove(at).is_some())
    }

    pub(super) fn invalid_doorbell(&mut self) {
        self.record_error(DoorbellError::NoDoorbell, 0xffff);
    }

    pub(super) fn invalid_doorbell_value(&mut self, queue: u16) {
        self.record_error(DoorbellError::InvalidValue, queue);
    }

    fn record_error(&mut self, error: DoorbellError, queue: u16) {
        tracing::warn!(?error, queue, "an invalid write of a doorbell");
        self.error_count += 1;
        self.errors.push_front(ErrorEntry {
            number: self.error_count.into(),
            queue: queue.into(),
            // The error belongs to no command.
            identifier: u16::MAX.into(),
            rest: [0; 52],
        });
        self.errors.truncate(MAX_ERRORS);
        // As many as can be reported; the log page has the rest.
        if self.events.len() <= usize::from(EVENT_LIMIT) {
            self.events.push_back(error);
        }
    }

    /// A request and the event that completes it. Errors are always reported; the events that the
    /// host can enable don't occur here.
    pub(super) fn next_event(&mut self) -> Option<(u16, u32)> {
        if self.masked || self.events.is_empty() {
            return None;
        }
        let identifier = self.requests.pop_front()?;
        let error = self.events.pop_front()?;
        self.masked = true;
        // Type 0 is an error; the log page has details.
        Some((identifier, (error as u32) << 8 | u32::from(ERRORS) << 16))
    }

    fn page(&self, page: u8) -> Option<Vec<u8>> {
        Some(match page {
            ERRORS => self.errors.iter().flat_map(IntoBytes::as_bytes).copied().collect(),
            HEALTH => health(self.error_count),
            FIRMWARE => {
                let mut data = vec![0; 512];
                data[0] = 1;
                let revision = format!("{:<8.8}", env!("CARGO_PKG_VERSION"));
                data[8..16].copy_from_slice(revision.as_bytes());
                data
            }
            CHANGED_NAMESPACES => vec![0; 4096],
            EFFECTS => effects(),
            _ => return None,
        })
    }
}

impl Controller {
    pub(super) fn get_log_page(&mut self, command: &Command) -> Result<(), Status> {
        let page = (command.dword(10) & 0xff) as u8;
        let dwords =
            u64::from(command.dword(10) >> 16) | u64::from(command.dword(11) & 0xffff) << 16;
        let size = (dwords + 1) * 4;
        let offset = command.qword(12);
        let data = self.logs.page(page).ok_or(Status::INVALID_LOG_PAGE)?;
        if size > MAX_TRANSFER || !offset.is_multiple_of(4) || offset > data.len().max(4096) as u64
        {
            return Err(Status::INVALID_FIELD);
        }
        let rest = data.get(offset as usize..).unwrap_or_default();
        let rest = &rest[..rest.len().min(size as usize)];
        self.answer(command, rest, size)?;
        // "Retain asynchronous event" keeps the event's log page unread.
        if page == ERRORS && command.dword(10) >> 15 & 1 == 0 {
            self.logs.masked = false;
        }
        Ok(())
    }
}

fn health(errors: u64) -> Vec<u8> {
    let mut data = vec![0; 512];
    // 300 K; all spare blocks are left.
    data[1..3].copy_from_slice(&300u16.to_le_bytes());
    data[3..5].copy_from_slice(&[100, 10]);
    data[176..184].copy_from_slice(&errors.to_le_bytes());
    data
}

fn effects() -> Vec<u8> {
    let mut data = vec![0; 4096];
    // Supported: delete and create queues, log pages, identify, abort, features, event requests, doorbells.
    for opcode in [0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0a, 0x0c, 0x7c] {
        data[opcode * 4] = 1;
    }
    // Supported: flush, read; and those that change what blocks hold.
    for (opcode, effect) in [(0x00, 1), (0x01, 3), (0x02, 1), (0x08, 3), (0x09, 3)] {
        data[1024 + opcode * 4] = effect;
    }
    data
}
