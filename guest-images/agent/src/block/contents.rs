//! What the agent knows a disk to hold, page by page.

use std::{collections::BTreeMap, ops::Range};

use dmarig_pattern::{self as pattern, Stamp, Wrong};

/// Contents are known by pages of this many bytes, so that a job with another block size can
/// check what an earlier one wrote.
pub(crate) const PAGE: u64 = 4096;
const PAGE_WORDS: usize = PAGE as usize / 8;

/// The state of one page that isn't as the disk came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Written(Stamp),
    /// A write to it failed: it may hold what was there before, the new data, or a part of both.
    Uncertain,
}

/// What a disk, or a part of it, holds; pages not in it are as the disk came. Its memory grows with
/// the pages that are written, not with the disk.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pages: BTreeMap<u64, Page>,
    /// Whether the disk came with nobody knows what, and not with zeros.
    pub(crate) used: bool,
}

impl Contents {
    /// Takes out the pages in a range of byte addresses.
    pub(crate) fn take(&mut self, bytes: Range<u64>) -> Self {
        let mut taken = self.pages.split_off(&(bytes.start / PAGE));
        let mut behind = taken.split_off(&bytes.end.div_ceil(PAGE));
        self.pages.append(&mut behind);
        Self { pages: taken, used: self.used }
    }

    /// Puts pages back that were taken.
    pub(crate) fn put(&mut self, mut other: Self) {
        self.pages.append(&mut other.pages);
    }

    /// Notes that a write is done.
    pub(crate) fn written(&mut self, bytes: Range<u64>, stamp: Stamp) {
        self.set(bytes, Page::Written(stamp));
    }

    /// Notes that a write failed.
    pub(crate) fn uncertain(&mut self, bytes: Range<u64>) {
        self.set(bytes, Page::Uncertain);
    }

    fn set(&mut self, bytes: Range<u64>, page: Page) {
        self.pages.extend((bytes.start / PAGE..bytes.end / PAGE).map(|number| (number, page)));
    }

    /// Checks every byte that was read from an address; the first page that is wrong is explained.
    pub(crate) fn check(&self, words: &[u64], address: u64) -> Result<(), Wrong> {
        for (index, page) in words.chunks_exact(PAGE_WORDS).enumerate() {
            let offset = index as u64 * PAGE;
            let at = address + offset;
            let (right, expected) = match self.pages.get(&(at / PAGE)) {
                Some(Page::Uncertain) => (true, None),
                Some(Page::Written(stamp)) => (stamp.holds(page, at), Some(*stamp)),
                None => (self.used || pattern::is_zero(page), None),
            };
            if !right && let Some(wrong) = pattern::explain(page, at, expected) {
                return Err(Wrong { at: wrong.at + offset as usize, ..wrong });
            }
        }
        Ok(())
    }

    /// The write that a page at an address should come from.
    pub(crate) fn stamp(&self, address: u64) -> Option<Stamp> {
        match self.pages.get(&(address / PAGE))? {
            Page::Written(stamp) => Some(*stamp),
            Page::Uncertain => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_taken_and_put_back() {
        let stamp = Stamp { seed: 1, generation: 1 };
        let mut all = Contents::default();
        all.written(0..8 * PAGE, stamp);
        let middle = all.take(2 * PAGE..5 * PAGE);
        assert_eq!(middle.pages.keys().copied().collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(all.pages.len(), 5);
        all.put(middle);
        assert!(all.pages.keys().copied().eq(0..8));
    }

    #[test]
    fn pages_are_checked_by_their_own_writes() {
        let (old, new) = (Stamp { seed: 1, generation: 1 }, Stamp { seed: 2, generation: 9 });
        let mut contents = Contents::default();
        contents.written(0..2 * PAGE, old);
        contents.written(PAGE..2 * PAGE, new);
        let mut words = vec![0; 4 * PAGE_WORDS];
        old.fill(&mut words[..PAGE_WORDS], 0);
        new.fill(&mut words[PAGE_WORDS..2 * PAGE_WORDS], PAGE);
        assert_eq!(contents.check(&words, 0), Ok(()));

        words[3 * PAGE_WORDS + 2] = 1 << 8;
        let wrong = contents.check(&words, 0).unwrap_err();
        assert_eq!((wrong.at, wrong.expected, wrong.found), (3 * 4096 + 17, 0, 1));
        contents.uncertain(3 * PAGE..4 * PAGE);
        assert_eq!(contents.check(&words, 0), Ok(()));

        words[PAGE_WORDS] = 0;
        assert_eq!(contents.check(&words, 0).unwrap_err().at, 4096);
    }

    #[test]
    fn of_a_used_disk_only_what_was_written_is_known() {
        let mut contents = Contents { used: true, ..Contents::default() };
        contents.written(0..PAGE, Stamp { seed: 1, generation: 1 });
        let strange = vec![0xfeed; PAGE_WORDS];
        assert_eq!(contents.take(PAGE..2 * PAGE).check(&strange, PAGE), Ok(()));
        assert!(contents.check(&strange, 0).is_err());
    }
}
