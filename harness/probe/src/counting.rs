//! Counters of the probe's own work, and the limit of lines in its reports.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// Most lines of one kind in a report.
pub(crate) const MAX_LINES: usize = 8;

/// Counts and times of the probe's own work, without those of the shadow.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    pub(crate) messages: AtomicU64,
    /// Time spent on messages, the shadow included.
    pub(crate) socket_ns: AtomicU64,
    pub(crate) command_ns: AtomicU64,
    pub(crate) sleeps: AtomicU64,
}

impl Profile {
    /// Adds to a counter.
    pub(crate) fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }

    /// Adds the time since `began` to a counter.
    pub(crate) fn add_time(counter: &AtomicU64, began: Instant) {
        Self::add(counter, u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    /// All counters.
    pub(crate) fn all(&self) -> [&AtomicU64; 4] {
        [&self.messages, &self.socket_ns, &self.command_ns, &self.sleeps]
    }
}
