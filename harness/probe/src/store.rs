//! The namespace's data: what was written, page by page; the rest is zeros.

use std::collections::HashMap;

const PAGE: usize = 4096;

/// Contents of a disk. Its memory grows with what is written, not with the disk.
#[derive(Debug)]
pub(crate) struct Store {
    pages: HashMap<u64, Box<[u8; PAGE]>>,
    bytes: u64,
}

impl Store {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { pages: HashMap::new(), bytes }
    }

    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        for (page, within, part) in parts(offset, data.len()) {
            let to = &mut data[part];
            match self.pages.get(&page) {
                Some(page) => to.copy_from_slice(&page[within..within + to.len()]),
                None => to.fill(0),
            }
        }
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        for (page, within, part) in parts(offset, data.len()) {
            if (page * PAGE as u64) < self.bytes {
                let to = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE]));
                to[within..within + part.len()].copy_from_slice(&data[part]);
            }
        }
    }

    /// Makes bytes zeros, and gives up the memory of whole pages. It takes as long as the range has
    /// pages, or as there are pages that were written, whichever is less.
    pub(crate) fn zero(&mut self, offset: u64, size: u64) {
        let end = offset.saturating_add(size).min(self.bytes);
        let size = PAGE as u64;
        let range = offset / size..end.div_ceil(size);
        let few = range.end.saturating_sub(range.start) <= self.pages.len() as u64;
        let pages: Vec<u64> = if few {
            range.collect()
        } else {
            self.pages.keys().copied().filter(|page| range.contains(page)).collect()
        };
        for page in pages {
            let first = page * size;
            let (from, until) = (offset.max(first), end.min(first + size));
            if until - from == size {
                self.pages.remove(&page);
            } else if let Some(data) = self.pages.get_mut(&page) {
                data[(from - first) as usize..(until - first) as usize].fill(0);
            }
        }
    }
}

/// A range by pages: the page's number, where in it, and which part of the range it is.
fn parts(offset: u64, size: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == size {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PAGE as u64) as usize;
        let from = done;
        done += (PAGE - within).min(size - done);
        Some((at / PAGE as u64, within, from..done))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_was_written_until_it_is_zeroed() {
        let mut store = Store::new(1 << 40);
        let data: Vec<u8> = (0..3 * PAGE).map(|at| at as u8 | 1).collect();
        store.write(1000, &data);
        let mut read = vec![0; data.len()];
        store.read(1000, &mut read);
        assert_eq!(read, data);
        assert_eq!(store.pages.len(), 4);
        // Two whole pages, and a part of the last.
        store.zero(PAGE as u64, 2 * PAGE as u64 + 500);
        assert_eq!(store.pages.len(), 2);
        store.zero(1 << 39, 1 << 20);
        store.zero(500, 0);
        store.read(1000, &mut read);
        let left: Vec<_> = (0..read.len()).filter(|at| read[*at] != 0).collect();
        assert!(left.into_iter().eq((0..PAGE - 1000).chain(3 * PAGE - 500..3 * PAGE)));
        store.zero(0, u64::MAX);
        assert!(store.pages.is_empty());
    }
}
