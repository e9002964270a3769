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

    /// Makes bytes zeros, and gives up the memory of whole pages.
    pub(crate) fn zero(&mut self, offset: u64, size: u64) {
        let end = offset.saturating_add(size).min(self.bytes);
        let mut at = offset;
        while at < end {
            let page = at / PAGE as u64;
            let until = ((page + 1) * PAGE as u64).min(end);
            if until - at == PAGE as u64 {
                self.pages.remove(&page);
            } else if let Some(data) = self.pages.get_mut(&page) {
                let within = (at % PAGE as u64) as usize;
                data[within..within + (until - at) as usize].fill(0);
            }
            at = until;
            // A disk that is mostly empty has not much to be gone through.
            if self.pages.is_empty() {
                return;
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
