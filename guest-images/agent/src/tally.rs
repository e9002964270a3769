//! Counts the operations of a job, for its report.

use dmarig_wire::{Interface, Latency, Problem, Report};
use hdrhistogram::Histogram;

/// Most problems that a report names; the rest are only counted.
const MAX_PROBLEMS: usize = 16;

/// Counts of a job, or of one thread of it.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Reads, or frames received, that were done whole.
    pub(crate) reads: u64,
    /// Writes, or frames sent, that were done whole.
    pub(crate) writes: u64,
    /// Bytes that they moved.
    pub(crate) bytes: u64,
    /// Operations that the kernel refused or that came back short.
    pub(crate) errors: u64,
    /// Frames that never arrived.
    pub(crate) lost: u64,
    /// Integrity failures.
    pub(crate) corrupt: u64,
    problems: Vec<Problem>,
    latency: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        // It grows by itself, so what it starts with is only the precision of three digits.
        let latency = Histogram::new(3).expect("three digits are within the histogram's limits");
        let problems = Vec::new();
        Self { reads: 0, writes: 0, bytes: 0, errors: 0, lost: 0, corrupt: 0, problems, latency }
    }
}

impl Tally {
    /// Adds the latency of one operation, in nanoseconds.
    pub(crate) fn record_latency(&mut self, nanoseconds: u128) {
        // The only error is a value over the range of a histogram that may grow: there is none.
        let _ = self.latency.record(u64::try_from(nanoseconds).unwrap_or(u64::MAX).max(1));
    }

    /// Counts an operation that failed.
    pub(crate) fn count_error(&mut self, what: impl FnOnce() -> String) {
        self.errors += 1;
        self.add_problem(false, what);
    }

    /// Counts data that was wrong.
    pub(crate) fn count_corrupt(&mut self, what: impl FnOnce() -> String) {
        self.corrupt += 1;
        self.add_problem(true, what);
    }

    /// Names a problem that is counted elsewhere.
    pub(crate) fn add_problem(&mut self, corrupt: bool, what: impl FnOnce() -> String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { corrupt, what: what() });
        }
    }

    /// Adds the counts of another thread.
    pub(crate) fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.bytes += other.bytes;
        self.errors += other.errors;
        self.lost += other.lost;
        self.corrupt += other.corrupt;
        self.problems.extend(other.problems);
        self.problems.truncate(MAX_PROBLEMS);
        let _ = self.latency.add(other.latency);
    }

    /// Makes the report.
    pub(crate) fn report(self, interface: Interface, elapsed_ns: u64) -> Report {
        Report {
            interface,
            ops: self.reads + self.writes,
            reads: self.reads,
            writes: self.writes,
            bytes: self.bytes,
            errors: self.errors,
            lost: self.lost,
            elapsed_ns,
            latency: percentiles(&self.latency),
            problems: self.problems,
            corrupt: self.corrupt,
            metrics: Vec::new(),
            exit: None,
            output: None,
        }
    }
}

fn percentiles(histogram: &Histogram<u64>) -> Option<Latency> {
    if histogram.is_empty() {
        return None;
    }
    Some(Latency {
        count: histogram.len(),
        min_ns: histogram.min(),
        max_ns: histogram.max(),
        mean_ns: histogram.mean(),
        p50_ns: histogram.value_at_quantile(0.5),
        p90_ns: histogram.value_at_quantile(0.9),
        p99_ns: histogram.value_at_quantile(0.99),
        p999_ns: histogram.value_at_quantile(0.999),
    })
}
