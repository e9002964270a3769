//! Which frames are under way.

use std::collections::{BTreeMap, BTreeSet};

/// Frames that were sent, each with a note (when), until they arrive or are given up.
#[derive(Debug)]
pub(crate) struct Window<T> {
    limit: usize,
    next: u64,
    under_way: BTreeMap<u64, T>,
    lost: BTreeSet<u64>,
}

/// What the arrival of a frame means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival<T> {
    /// It was under way.
    Expected(T),
    /// It had been given up: it is not lost after all.
    Late,
    /// It had arrived before.
    Duplicate,
    /// It was never sent.
    Unsent,
}

impl<T> Window<T> {
    /// A window of so many frames.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, next: 0, under_way: BTreeMap::new(), lost: BTreeSet::new() }
    }

    /// The number of the next frame; `None` while as many as may be are under way.
    pub(crate) fn next(&self) -> Option<u64> {
        (self.under_way.len() < self.limit).then_some(self.next)
    }

    /// Notes that the next frame was sent.
    pub(crate) fn sent(&mut self, note: T) {
        self.under_way.insert(self.next, note);
        self.next += 1;
    }

    /// Notes that a frame arrived.
    pub(crate) fn arrived(&mut self, sequence: u64) -> Arrival<T> {
        match self.under_way.remove(&sequence) {
            Some(note) => Arrival::Expected(note),
            None if self.lost.remove(&sequence) => Arrival::Late,
            None if sequence < self.next => Arrival::Duplicate,
            None => Arrival::Unsent,
        }
    }

    /// Gives up what is under way; says how many and the first of them.
    pub(crate) fn give_up(&mut self) -> Option<(usize, u64)> {
        let first = *self.under_way.keys().next()?;
        let count = self.under_way.len();
        self.lost.extend(std::mem::take(&mut self.under_way).into_keys());
        Some((count, first))
    }

    /// Whether nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
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
    fn frames_come_and_go() {
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
