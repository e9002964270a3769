//! What becomes of the buffers of finished requests: the attacker's memory.
//!
//! A request's *own* mappings are those of its data that were made after the request before it with
//! the same tag on the same queue had arrived. The kernel maps a request's buffers once it has the
//! tag, and unmaps them before it gives the tag back, so what it maps for a request is always its
//! own in this sense, and what lives longer by nature (identity mappings, pools, queues, the host
//! memory buffer) never is.
//!
//! When a tag comes again, the kernel has certainly given the earlier request back. If one of that
//! one's own mappings lives then, the device can still reach memory that the kernel has handed to
//! somebody else: the request is *stale*. Nothing here is judged by time.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
};

use dmarig_model::probe::{Spread, Stale};
use hdrhistogram::Histogram;

use crate::{
    memory::{MAX_LINES, Range},
    shadow::{MapId, Mapping, Piece, Shadow},
};

/// Linux keeps a generation in the upper 4 bits of an identifier from 5.14 on (`nvme_cid`,
/// drivers/nvme/host/nvme.h); before, they are 0, since no queue has more than 1024 entries.
const TAG_MASK: u16 = 0xfff;
/// Most mappings that are followed at a time; requests beyond are not followed.
const MAX_FOLLOWED: usize = 1 << 20;
/// Ranges of unmapped buffers that are remembered; more than are mapped for a full queue of small
/// requests, since addresses are used again at once.
const LATELY: usize = 1024;

/// A request that is under way, and the mappings that are its own.
#[derive(Debug, Default)]
pub struct Request {
    queue: u16,
    identifier: u16,
    /// The newest mapping that can't be its own; `None` where nobody follows.
    since: Option<MapId>,
    window: u64,
    own: Vec<Owned>,
}

#[derive(Debug, Clone, Copy)]
struct Owned {
    iova: u64,
    size: u64,
    id: MapId,
}

impl Request {
    /// A request that nobody follows.
    #[must_use]
    pub fn unfollowed() -> Self {
        Self::default()
    }

    /// Whether a mapping was made for this request.
    pub(crate) fn owns(&self, piece: &Piece) -> bool {
        self.since.is_some_and(|since| piece.id > since)
    }

    /// Notes a mapping that its data is in.
    pub(crate) fn uses(&mut self, piece: &Piece) {
        if self.owns(piece) && self.own.last().is_none_or(|last| last.id != piece.id) {
            self.own.push(Owned { iova: piece.iova, size: piece.mapped, id: piece.id });
        }
    }

    pub(crate) fn is_followed(&self) -> bool {
        self.since.is_some()
    }
}

/// A finished request, some of whose own mappings live.
#[derive(Debug)]
struct Finished {
    queue: u16,
    identifier: u16,
    number: u64,
    at_ns: u64,
    /// Requests that had been submitted when it was finished.
    submitted: u64,
    own: Box<[Owned]>,
    left: usize,
}

#[derive(Debug, Default)]
struct Tag {
    /// The newest mapping when it was last used.
    newest: MapId,
    /// The finished request that had it: place and number.
    finished: Option<(usize, u64)>,
}

/// Places in [`Follow::places`] of those that wait for a mapping to go.
#[derive(Debug)]
enum Waiting {
    One(usize),
    Several(Vec<usize>),
}

/// All that is known of buffers.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    on: bool,
    queues: HashMap<u16, MapId>,
    tags: HashMap<(u16, u16), Tag>,
    places: Vec<Option<Finished>>,
    free: Vec<usize>,
    mappings: HashMap<MapId, Waiting, BuildHasherDefault<IdHasher>>,
    window: u64,
    numbers: u64,
    submitted: u64,
    bytes: u64,
    lately: VecDeque<Range>,
    stats: Stats,
}

#[derive(Debug)]
struct Stats {
    stale: Stale,
    ns: Histogram<u64>,
    later: Histogram<u64>,
}

impl Default for Stats {
    fn default() -> Self {
        // It grows by itself, so what it starts with is only the precision of three digits.
        let histogram = || Histogram::new(3).expect("three digits are within its limits");
        Self { stale: Stale::default(), ns: histogram(), later: histogram() }
    }
}

impl Follow {
    pub(crate) fn new(on: bool) -> Self {
        Self { on, ..Self::default() }
    }

    /// Begins a window: requests that arrived before are not counted in it.
    pub(crate) fn begin(&mut self) {
        self.drop_requests();
        self.window += 1;
        self.stats = Stats::default();
    }

    /// Forgets a client.
    pub(crate) fn forget(&mut self) {
        self.drop_requests();
        self.queues.clear();
        self.tags.clear();
        self.lately.clear();
    }

    fn drop_requests(&mut self) {
        self.tags.values_mut().for_each(|tag| tag.finished = None);
        self.places.clear();
        self.free.clear();
        self.mappings.clear();
        self.bytes = 0;
    }

    pub(crate) fn queue_created(&mut self, queue: u16, newest: MapId) {
        self.queues.insert(queue, newest);
        self.tags.retain(|(of, _), _| *of != queue);
    }

    /// A request arrives; `reachable` tries to read at an address.
    pub(crate) fn submitted(
        &mut self,
        queue: u16,
        identifier: u16,
        shadow: &Shadow,
        reachable: impl FnMut(u64) -> bool,
    ) -> Request {
        self.submitted += 1;
        if !self.on {
            return Request::unfollowed();
        }
        let first = self.queues.get(&queue).copied().unwrap_or_default();
        let fresh = || Tag { newest: first, finished: None };
        let tag = self.tags.entry((queue, identifier & TAG_MASK)).or_insert_with(fresh);
        let since = std::mem::replace(&mut tag.newest, shadow.newest());
        if let Some((place, number)) = tag.finished.take() {
            self.prove(place, number, shadow, reachable);
        }
        Request { queue, identifier, since: Some(since), window: self.window, own: Vec::new() }
    }

    /// The kernel has certainly given a request back: none of its own mappings should live.
    fn prove(
        &mut self,
        place: usize,
        number: u64,
        shadow: &Shadow,
        mut reachable: impl FnMut(u64) -> bool,
    ) {
        let Some(Some(finished)) = self.places.get(place) else { return };
        if finished.number != number {
            return;
        }
        let mut live = finished.own.iter().filter(|own| shadow.lives(own.iova, own.id)).peekable();
        if live.peek().is_some() {
            self.stats.stale.stale += 1;
            self.stats.stale.reachable += u64::from(live.any(|own| reachable(own.iova)));
        }
    }

    /// The guest is about to learn that a request is finished.
    pub(crate) fn finished(&mut self, request: Request, shadow: &Shadow, now_ns: u64) {
        if request.window != self.window || request.own.is_empty() {
            return;
        }
        let mut own = request.own;
        own.retain(|own| shadow.lives(own.iova, own.id));
        if own.len() + self.mappings.len() > MAX_FOLLOWED {
            return;
        }
        self.stats.stale.requests += 1;
        if own.is_empty() {
            // The guest took its buffers back too early; they are within nobody's reach.
            self.stats.gone(0, 0);
            return;
        }
        self.numbers += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        for own in &own {
            self.bytes = self.bytes.saturating_add(own.size);
            match self.mappings.entry(own.id) {
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(Waiting::One(place));
                }
                std::collections::hash_map::Entry::Occupied(mut entry) => match entry.get_mut() {
                    Waiting::One(other) => {
                        let both = vec![*other, place];
                        entry.insert(Waiting::Several(both));
                    }
                    Waiting::Several(places) => places.push(place),
                },
            }
        }
        self.stats.stale.most_bytes = self.stats.stale.most_bytes.max(self.bytes);
        if let Some(tag) = self.tags.get_mut(&(request.queue, request.identifier & TAG_MASK)) {
            tag.finished = Some((place, self.numbers));
        }
        self.places[place] = Some(Finished {
            queue: request.queue,
            identifier: request.identifier,
            number: self.numbers,
            at_ns: now_ns,
            submitted: self.submitted,
            left: own.len(),
            own: own.into(),
        });
    }

    /// A mapping is gone.
    pub(crate) fn gone(&mut self, mapping: &Mapping, now_ns: u64) {
        if self.mappings.is_empty() {
            return;
        }
        let Some(waiting) = self.mappings.remove(&mapping.id) else { return };
        if self.lately.len() == LATELY {
            self.lately.pop_back();
        }
        self.lately.push_front(Range { iova: mapping.iova, size: mapping.size });
        match waiting {
            Waiting::One(place) => self.one_gone(place, mapping.size, now_ns),
            Waiting::Several(places) => {
                places.into_iter().for_each(|place| self.one_gone(place, mapping.size, now_ns));
            }
        }
    }

    fn one_gone(&mut self, place: usize, size: u64, now_ns: u64) {
        self.bytes = self.bytes.saturating_sub(size);
        let Some(slot @ Some(_)) = self.places.get_mut(place) else { return };
        let Some(finished) = slot else { return };
        finished.left -= 1;
        if finished.left == 0 {
            let ns = now_ns.saturating_sub(finished.at_ns);
            self.stats.gone(ns, self.submitted - finished.submitted);
            *slot = None;
            self.free.push(place);
        }
    }

    pub(crate) fn lately_unmapped(&self) -> impl Iterator<Item = Range> {
        self.lately.iter().copied()
    }

    /// What was counted; `None` where nobody follows.
    pub(crate) fn counted(&self, shadow: &Shadow, now_ns: u64) -> Option<Stale> {
        if !self.on {
            return None;
        }
        let mut stale = self.stats.stale.clone();
        for finished in self.places.iter().flatten() {
            stale.never += 1;
            if stale.never_lines.len() < MAX_LINES {
                stale.never_lines.push(finished.line(shadow, now_ns));
            }
        }
        stale.ns = spread(&self.stats.ns);
        stale.later_requests = spread(&self.stats.later);
        Some(stale)
    }
}

impl Stats {
    fn gone(&mut self, ns: u64, later: u64) {
        // A histogram that may grow takes every value.
        let _ = self.ns.record(ns);
        let _ = self.later.record(later);
    }
}

impl Finished {
    fn line(&self, shadow: &Shadow, now_ns: u64) -> String {
        let mut live = self.own.iter().filter(|own| shadow.lives(own.iova, own.id));
        let first = live.next().map_or(0, |own| own.iova);
        format!(
            "queue {}, command {:#06x}: {} of {} mappings live {} us after its end, the first at {first:#x}",
            self.queue,
            self.identifier,
            self.left,
            self.own.len(),
            now_ns.saturating_sub(self.at_ns) / 1000,
        )
    }
}

fn spread(histogram: &Histogram<u64>) -> Option<Spread> {
    (!histogram.is_empty()).then(|| Spread {
        p50: histogram.value_at_quantile(0.5),
        p99: histogram.value_at_quantile(0.99),
        max: histogram.max(),
    })
}

/// Identities are consecutive numbers that nobody can choose, so spreading them is enough.
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
