//! The expected contents of a disk, page by page.

use std::{collections::BTreeMap, ops::Range};

use dmarig_pattern::{self as pattern, Mismatch, Stamp};

/// Contents are known by pages of this many bytes, so that a job with another block size can
/// check what an earlier one wrote.
pub(crate) const PAGE: u64 = 4096;
const PAGE_WORDS: usize = PAGE as usize / 8;

/// State of one page that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Written(Stamp),
    /// A write to it failed: it may hold what was there before, the new data, or a part of both.
    Uncertain,
}

/// Expected contents of a disk, or of a part of it; pages that are not in it were never written. Its
/// memory grows with the pages that are written, not with the disk.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pages: BTreeMap<u64, Page>,
    /// Whether pages that were never written have unknown contents instead of zeros.
    pub(crate) used: bool,
}

impl Contents {
    /// Removes the pages in a range of byte addresses and returns them.
    pub(crate) fn split_off(&mut self, bytes: Range<u64>) -> Self {
        let mut taken = self.pages.split_off(&(bytes.start / PAGE));
        let mut behind = taken.split_off(&bytes.end.div_ceil(PAGE));
        self.pages.append(&mut behind);
        Self { pages: taken, used: self.used }
    }

    /// Puts back pages that were split off.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.pages.append(&mut other.pages);
    }

    /// Records a completed write.
    pub(crate) fn record_write(&mut self, bytes: Range<u64>, stamp: Stamp) {
        self.set(bytes, Page::Written(stamp));
    }

    /// Records a failed write.
    pub(crate) fn record_failed_write(&mut self, bytes: Range<u64>) {
        self.set(bytes, Page::Uncertain);
    }

    fn set(&mut self, bytes: Range<u64>, page: Page) {
        self.pages.extend((bytes.start / PAGE..bytes.end / PAGE).map(|number| (number, page)));
    }

    /// Checks every byte that was read from an address; explains the first page that is wrong.
    pub(crate) fn check(&self, words: &[u64], address: u64) -> Result<(), Mismatch> {
        for (index, page) in words.chunks_exact(PAGE_WORDS).enumerate() {
            let offset = index as u64 * PAGE;
            let at = address + offset;
            let (is_right, expected) = match self.pages.get(&(at / PAGE)) {
                Some(Page::Uncertain) => (true, None),
                Some(Page::Written(stamp)) => (stamp.holds(page, at), Some(*stamp)),
                None => (self.used || pattern::is_zero(page), None),
            };
            if !is_right && let Some(mismatch) = pattern::explain(page, at, expected) {
                return Err(Mismatch { at: mismatch.at + offset as usize, ..mismatch });
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
    fn splits_off_and_appends_a_range() {
        let stamp = Stamp { seed: 1, generation: 1 };
        let mut all = Contents::default();
        all.record_write(0..8 * PAGE, stamp);
        let middle = all.split_off(2 * PAGE..5 * PAGE);
        assert_eq!(middle.pages.keys().copied().collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(all.pages.len(), 5);
        all.append(middle);
        assert!(all.pages.keys().copied().eq(0..8));
    }

    #[test]
    fn checks_pages_against_their_writes() {
        let (old, new) = (Stamp { seed: 1, generation: 1 }, Stamp { seed: 2, generation: 9 });
        let mut contents = Contents::default();
        contents.record_write(0..2 * PAGE, old);
        contents.record_write(PAGE..2 * PAGE, new);
        let mut words = vec![0; 4 * PAGE_WORDS];
        old.fill(&mut words[..PAGE_WORDS], 0);
        new.fill(&mut words[PAGE_WORDS..2 * PAGE_WORDS], PAGE);
        assert_eq!(contents.check(&words, 0), Ok(()));

        words[3 * PAGE_WORDS + 2] = 1 << 8;
        let wrong = contents.check(&words, 0).unwrap_err();
        assert_eq!((wrong.at, wrong.expected, wrong.found), (3 * 4096 + 17, 0, 1));
        contents.record_failed_write(3 * PAGE..4 * PAGE);
        assert_eq!(contents.check(&words, 0), Ok(()));

        words[PAGE_WORDS] = 0;
        assert_eq!(contents.check(&words, 0).unwrap_err().at, 4096);
    }

    #[test]
    fn checks_only_written_pages_of_a_used_disk() {
        let mut contents = Contents { used: true, ..Contents::default() };
        contents.record_write(0..PAGE, Stamp { seed: 1, generation: 1 });
        let strange = vec![0xfeed; PAGE_WORDS];
        assert_eq!(contents.split_off(PAGE..2 * PAGE).check(&strange, PAGE), Ok(()));
        assert!(contents.check(&strange, 0).is_err());
    }
}
