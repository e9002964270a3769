//! The frames in flight.

use std::collections::{BTreeMap, BTreeSet};

/// Frames that were sent, each with a note (its time), until they arrive or are given up.
#[derive(Debug)]
pub(crate) struct Window<T> {
    limit: usize,
    next: u64,
    in_flight: BTreeMap<u64, T>,
    lost: BTreeSet<u64>,
}

/// How a frame arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival<T> {
    /// It was in flight.
    Expected(T),
    /// It had been given up: it is not lost after all.
    Late,
    /// It had arrived before.
    Duplicate,
    /// It was never sent.
    Unsent,
}

impl<T> Window<T> {
    /// A window of `limit` frames.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, next: 0, in_flight: BTreeMap::new(), lost: BTreeSet::new() }
    }

    /// The number of the next frame; `None` while the window is full.
    pub(crate) fn next(&self) -> Option<u64> {
        if self.in_flight.len() < self.limit { Some(self.next) } else { None }
    }

    /// Records that the next frame was sent.
    pub(crate) fn sent(&mut self, note: T) {
        self.in_flight.insert(self.next, note);
        self.next += 1;
    }

    /// Records that a frame arrived.
    pub(crate) fn arrived(&mut self, sequence: u64) -> Arrival<T> {
        match self.in_flight.remove(&sequence) {
            Some(note) => Arrival::Expected(note),
            None if self.lost.remove(&sequence) => Arrival::Late,
            None if sequence < self.next => Arrival::Duplicate,
            None => Arrival::Unsent,
        }
    }

    /// Gives up all frames in flight; returns their number and the first of them.
    pub(crate) fn give_up(&mut self) -> Option<(usize, u64)> {
        let first = *self.in_flight.keys().next()?;
        let count = self.in_flight.len();
        self.lost.extend(std::mem::take(&mut self.in_flight).into_keys());
        Some((count, first))
    }

    /// Whether no frame is in flight.
    pub(crate) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// How many frames are lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracks_frames_from_sending_to_arrival() {
        let mut window = Window::new(2);
        assert_eq!(window.next(), Some(0));
        window.sent('a');
        window.sent('b');
        assert_eq!(window.next(), None);
        assert_eq!(window.arrived(1), Arrival::Expected('b'));
        assert_eq!(window.arrived(1), Arrival::Duplicate);
        assert_eq!(window.arrived(2), Arrival::Unsent);
        assert_eq!(window.next(), Some(2));
        window.sent('c');
        assert_eq!(window.give_up(), Some((2, 0)));
        assert_eq!((window.lost(), window.is_empty()), (2, true));
        assert_eq!(window.arrived(2), Arrival::Late);
        assert_eq!(window.lost(), 1);
        assert_eq!(window.give_up(), None);
    }
}
