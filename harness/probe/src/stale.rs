//! Tracks the buffers of finished requests: mappings that outlive them are stale.
//!
//! A request *owns* the mappings of its data that were made after the previous request with the same
//! tag on the same queue arrived. The kernel maps a request's buffers once it has the tag, and unmaps
//! them before it frees the tag. So it owns whatever is mapped for it, and never owns what lives
//! longer by nature (identity mappings, pools, queues, the host memory buffer).
//!
//! When a tag is used again, the kernel has certainly finished with the earlier request. If a mapping
//! that it owned still lives, the device can reach memory that the kernel has handed to somebody
//! else: the request is *stale*. Time plays no part in this.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
};

use dmarig_model::probe::{Spread, Stale};
use hdrhistogram::Histogram;

use crate::{
    counting::MAX_LINES,
    range::Range,
    shadow::{MapId, Mapping, Piece, Shadow},
};

/// Linux keeps a generation in the upper 4 bits of an identifier from 5.14 on (`nvme_cid`,
/// drivers/nvme/host/nvme.h); before, they are 0, since no queue has more than 1024 entries.
const TAG_MASK: u16 = 0xfff;
/// Most mappings that are tracked at a time; requests beyond are not tracked.
const MAX_TRACKED: usize = 1 << 20;
/// Ranges of unmapped buffers that are kept: more than are mapped for a full queue of small
/// requests, since addresses are used again at once.
const RECENTLY_UNMAPPED: usize = 1024;

/// A request in flight, and the mappings that it owns.
#[derive(Debug, Default)]
pub struct TrackedRequest {
    queue: u16,
    identifier: u16,
    /// The newest mapping that it can't own; `None` if it is not tracked.
    since: Option<MapId>,
    window: u64,
    owned: Vec<OwnedMapping>,
}

#[derive(Debug, Clone, Copy)]
struct OwnedMapping {
    iova: u64,
    size: u64,
    id: MapId,
}

impl TrackedRequest {
    /// A request that is not tracked.
    #[must_use]
    pub fn untracked() -> Self {
        Self::default()
    }

    /// Whether a mapping was made for this request.
    pub(crate) fn owns(&self, piece: &Piece) -> bool {
        self.since.is_some_and(|since| piece.id > since)
    }

    /// Records a mapping that its data is in.
    pub(crate) fn add_mapping(&mut self, piece: &Piece) {
        if self.owns(piece) && self.owned.last().is_none_or(|last| last.id != piece.id) {
            self.owned.push(OwnedMapping { iova: piece.iova, size: piece.mapped, id: piece.id });
        }
    }

    pub(crate) fn is_tracked(&self) -> bool {
        self.since.is_some()
    }
}

/// A finished request that owns live mappings.
#[derive(Debug)]
struct FinishedRequest {
    queue: u16,
    identifier: u16,
    number: u64,
    finished_ns: u64,
    /// Requests that had been submitted when it was finished.
    submitted: u64,
    owned: Box<[OwnedMapping]>,
    /// Number of owned mappings that live.
    live: usize,
}

#[derive(Debug, Default)]
struct TagState {
    /// The newest mapping when the tag was last used.
    newest: MapId,
    /// The finished request that had the tag: slot and number.
    finished: Option<(usize, u64)>,
}

/// Slots in [`StaleTracker::slots`] of the requests that own a mapping.
#[derive(Debug)]
enum Owners {
    One(usize),
    Several(Vec<usize>),
}

/// Tracks finished requests and the mappings that they own.
#[derive(Debug, Default)]
pub(crate) struct StaleTracker {
    enabled: bool,
    queues: HashMap<u16, MapId>,
    tags: HashMap<(u16, u16), TagState>,
    slots: Vec<Option<FinishedRequest>>,
    free_slots: Vec<usize>,
    mappings: HashMap<MapId, Owners, BuildHasherDefault<IdHasher>>,
    window: u64,
    next_number: u64,
    submitted: u64,
    live_bytes: u64,
    recently_unmapped: VecDeque<Range>,
    statistics: Statistics,
}

#[derive(Debug)]
struct Statistics {
    stale: Stale,
    ns: Histogram<u64>,
    later_requests: Histogram<u64>,
}

impl Default for Statistics {
    fn default() -> Self {
        // It grows by itself, so what it starts with is only the precision of three digits.
        let histogram = || Histogram::new(3).expect("three digits are within its limits");
        Self { stale: Stale::default(), ns: histogram(), later_requests: histogram() }
    }
}

impl StaleTracker {
    pub(crate) fn new(enabled: bool) -> Self {
        Self { enabled, ..Self::default() }
    }

    /// Begins a window: requests that arrived before are not counted in it.
    pub(crate) fn begin_window(&mut self) {
        self.drop_requests();
        self.window += 1;
        self.statistics = Statistics::default();
    }

    /// Discards everything known of a client that disconnected.
    pub(crate) fn clear(&mut self) {
        self.drop_requests();
        self.queues.clear();
        self.tags.clear();
        self.recently_unmapped.clear();
    }

    fn drop_requests(&mut self) {
        self.tags.values_mut().for_each(|tag| tag.finished = None);
        self.slots.clear();
        self.free_slots.clear();
        self.mappings.clear();
        self.live_bytes = 0;
    }

    pub(crate) fn queue_created(&mut self, queue: u16, newest: MapId) {
        self.queues.insert(queue, newest);
        self.tags.retain(|(tag_queue, _), _| *tag_queue != queue);
    }

    /// Starts to track a request that arrived; `reachable` tries to read at an address.
    pub(crate) fn request_submitted(
        &mut self,
        queue: u16,
        identifier: u16,
        shadow: &Shadow,
        reachable: impl FnMut(u64) -> bool,
    ) -> TrackedRequest {
        self.submitted += 1;
        if !self.enabled {
            return TrackedRequest::untracked();
        }
        let first = self.queues.get(&queue).copied().unwrap_or_default();
        let unused = TagState { newest: first, finished: None };
        let tag = self.tags.entry((queue, identifier & TAG_MASK)).or_insert(unused);
        let since = std::mem::replace(&mut tag.newest, shadow.newest());
        if let Some((slot, number)) = tag.finished.take() {
            self.check_stale(slot, number, shadow, reachable);
        }
        let (since, window) = (Some(since), self.window);
        TrackedRequest { queue, identifier, since, window, owned: Vec::new() }
    }

    /// Counts a finished request as stale if one of its mappings lives: the kernel has certainly
    /// finished with it.
    fn check_stale(
        &mut self,
        slot: usize,
        number: u64,
        shadow: &Shadow,
        mut reachable: impl FnMut(u64) -> bool,
    ) {
        let Some(Some(finished)) = self.slots.get(slot) else { return };
        if finished.number != number {
            return;
        }
        let is_live = |mapping: &&OwnedMapping| shadow.lives(mapping.iova, mapping.id);
        let mut live = finished.owned.iter().filter(is_live).peekable();
        if live.peek().is_some() {
            self.statistics.stale.stale += 1;
            self.statistics.stale.reachable +=
                u64::from(live.any(|mapping| reachable(mapping.iova)));
        }
    }

    /// Tracks the mappings of a request whose completion the guest is about to see.
    pub(crate) fn request_finished(
        &mut self,
        request: TrackedRequest,
        shadow: &Shadow,
        now_ns: u64,
    ) {
        if request.window != self.window || request.owned.is_empty() {
            return;
        }
        let mut owned = request.owned;
        owned.retain(|mapping| shadow.lives(mapping.iova, mapping.id));
        if owned.len() + self.mappings.len() > MAX_TRACKED {
            return;
        }
        self.statistics.stale.requests += 1;
        if owned.is_empty() {
            // The guest unmapped its buffers too early; nobody can reach them.
            self.statistics.record(0, 0);
            return;
        }
        self.next_number += 1;
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        for mapping in &owned {
            self.live_bytes = self.live_bytes.saturating_add(mapping.size);
            match self.mappings.entry(mapping.id) {
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(Owners::One(slot));
                }
                std::collections::hash_map::Entry::Occupied(mut entry) => match entry.get_mut() {
                    Owners::One(other) => {
                        let both = vec![*other, slot];
                        entry.insert(Owners::Several(both));
                    }
                    Owners::Several(slots) => slots.push(slot),
                },
            }
        }
        self.statistics.stale.most_bytes = self.statistics.stale.most_bytes.max(self.live_bytes);
        if let Some(tag) = self.tags.get_mut(&(request.queue, request.identifier & TAG_MASK)) {
            tag.finished = Some((slot, self.next_number));
        }
        self.slots[slot] = Some(FinishedRequest {
            queue: request.queue,
            identifier: request.identifier,
            number: self.next_number,
            finished_ns: now_ns,
            submitted: self.submitted,
            live: owned.len(),
            owned: owned.into(),
        });
    }

    /// Updates the owners of a mapping that was removed.
    pub(crate) fn mapping_removed(&mut self, mapping: &Mapping, now_ns: u64) {
        if self.mappings.is_empty() {
            return;
        }
        let Some(owners) = self.mappings.remove(&mapping.id) else { return };
        if self.recently_unmapped.len() == RECENTLY_UNMAPPED {
            self.recently_unmapped.pop_back();
        }
        self.recently_unmapped.push_front(Range { iova: mapping.iova, size: mapping.size });
        match owners {
            Owners::One(slot) => self.owner_lost_mapping(slot, mapping.size, now_ns),
            Owners::Several(slots) => {
                for slot in slots {
                    self.owner_lost_mapping(slot, mapping.size, now_ns);
                }
            }
        }
    }

    fn owner_lost_mapping(&mut self, index: usize, size: u64, now_ns: u64) {
        self.live_bytes = self.live_bytes.saturating_sub(size);
        let Some(slot @ Some(_)) = self.slots.get_mut(index) else { return };
        let Some(finished) = slot else { return };
        finished.live -= 1;
        if finished.live == 0 {
            let ns = now_ns.saturating_sub(finished.finished_ns);
            self.statistics.record(ns, self.submitted - finished.submitted);
            *slot = None;
            self.free_slots.push(index);
        }
    }

    pub(crate) fn recently_unmapped(&self) -> impl Iterator<Item = Range> {
        self.recently_unmapped.iter().copied()
    }

    /// The counts of this window; `None` if nothing is tracked.
    pub(crate) fn counts(&self, shadow: &Shadow, now_ns: u64) -> Option<Stale> {
        if !self.enabled {
            return None;
        }
        let mut stale = self.statistics.stale.clone();
        for finished in self.slots.iter().flatten() {
            stale.never += 1;
            if stale.never_lines.len() < MAX_LINES {
                stale.never_lines.push(finished.line(shadow, now_ns));
            }
        }
        stale.ns = spread(&self.statistics.ns);
        stale.later_requests = spread(&self.statistics.later_requests);
        Some(stale)
    }
}

impl Statistics {
    fn record(&mut self, ns: u64, later_requests: u64) {
        // A histogram that may grow takes every value.
        let _ = self.ns.record(ns);
        let _ = self.later_requests.record(later_requests);
    }
}

impl FinishedRequest {
    fn line(&self, shadow: &Shadow, now_ns: u64) -> String {
        let mut live = self.owned.iter().filter(|mapping| shadow.lives(mapping.iova, mapping.id));
        let first = live.next().map_or(0, |mapping| mapping.iova);
        format!(
            "queue {}, command {:#06x}: {} of {} mappings live {} us after its end, the first at {first:#x}",
            self.queue,
            self.identifier,
            self.live,
            self.owned.len(),
            now_ns.saturating_sub(self.finished_ns) / 1000,
        )
    }
}

fn spread(histogram: &Histogram<u64>) -> Option<Spread> {
    if histogram.is_empty() {
        return None;
    }
    Some(Spread {
        p50: histogram.value_at_quantile(0.5),
        p99: histogram.value_at_quantile(0.99),
        max: histogram.max(),
    })
}

/// Hashes identities. They are consecutive numbers that nobody can choose, so spreading them is
/// enough.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
