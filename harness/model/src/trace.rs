//! QEMU's trace events as text lines, counted as they stream by.

use std::collections::{HashMap, HashSet};

use dmarig_viommu::{
    Viommu,
    trace::{AddressSpace, PageRange, TraceEvent},
};

use crate::observation::TraceCounts;

/// Ranges that are kept track of at once: far more than any workload maps, and a few MiB.
const MAX_OPEN: usize = 1 << 18;
/// A line longer than this is no trace event.
const MAX_LINE: usize = 4096;
/// Lines of faults that are kept.
const MAX_FAULT_LINES: usize = 32;

/// A line that the rig itself wrote into the stream, to know how far it has been read.
pub const MARK: &str = "dmarig-mark ";

/// Counts the lines of a trace stream.
#[derive(Debug)]
pub struct TraceCounter {
    viommu: &'static dyn Viommu,
    counts: TraceCounts,
    /// Ranges that are open in each address space.
    open: HashMap<AddressSpace, HashSet<PageRange>>,
    open_total: usize,
    /// Ranges that were opened in this window.
    seen: HashSet<(AddressSpace, PageRange)>,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    windows: Vec<(u64, TraceCounts)>,
}

impl TraceCounter {
    /// A counter of the events of one virtual IOMMU.
    #[must_use]
    pub fn new(viommu: &'static dyn Viommu) -> Self {
        Self {
            viommu,
            counts: TraceCounts::default(),
            open: HashMap::new(),
            open_total: 0,
            seen: HashSet::new(),
            partial: Vec::new(),
            windows: Vec::new(),
        }
    }

    /// Takes what was read; a line may be split over two calls.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            if self.partial.is_empty() {
                self.line(line);
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                self.line(&whole);
                whole.clear();
                self.partial = whole;
            }
            bytes = rest;
        }
        if self.partial.len() + bytes.len() > MAX_LINE {
            self.partial.clear();
            self.counts.unknown += 1;
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    /// What stood between the marks that have come since the last call: the number of the mark
    /// that ended each stretch, and its counts.
    pub fn windows(&mut self) -> impl Iterator<Item = (u64, TraceCounts)> + '_ {
        self.windows.drain(..)
    }

    fn end_window(&mut self, mark: &[u8]) {
        let number = std::str::from_utf8(mark).ok().and_then(|text| text.trim().parse().ok());
        self.open.clear();
        self.open_total = 0;
        self.seen.clear();
        let counts = std::mem::take(&mut self.counts);
        match number {
            Some(number) => self.windows.push((number, counts)),
            // Only the rig writes marks; a damaged one means that the stream is.
            None => self.counts.unknown += 1,
        }
    }

    fn line(&mut self, line: &[u8]) {
        if let Some(number) = line.strip_prefix(MARK.as_bytes()) {
            return self.end_window(number);
        }
        self.counts.lines += 1;
        // With `-msg timestamp=on`, and in some versions always, `PID@TIME:` stands before the name.
        let start = line.iter().position(|byte| *byte == b':' || *byte == b' ');
        let line = match start {
            Some(at) if line[at] == b':' && line[..at].contains(&b'@') => &line[at + 1..],
            _ => line,
        };
        let (name, rest) = match line.iter().position(|byte| *byte == b' ') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &[][..]),
        };
        match self.viommu.trace_event(name, rest) {
            Some(event) => self.count(event),
            None => self.counts.unknown += 1,
        }
    }

    fn count(&mut self, event: TraceEvent<'_>) {
        let counts = &mut self.counts;
        match event {
            TraceEvent::PageSelective(space, range) => self.pages(space, range),
            TraceEvent::UnknownPages => {
                counts.psi += 1;
                counts.psi_unattributed += 1;
            }
            TraceEvent::DomainSelective(space) => self.whole(space),
            TraceEvent::Global => {
                counts.global += 1;
                self.open.clear();
                self.open_total = 0;
            }
            TraceEvent::Wait => counts.wait += 1,
            TraceEvent::DeviceIotlb => counts.device_iotlb += 1,
            TraceEvent::WalkLevel => counts.page_walk_levels += 1,
            TraceEvent::WalkEntry => counts.page_walk_entries += 1,
            TraceEvent::WalkUnchanged => counts.page_walk_in_vain += 1,
            TraceEvent::UnmapWhole => counts.unmap_whole += 1,
            TraceEvent::Fault(line) => {
                counts.faults += 1;
                if counts.fault_lines.len() < MAX_FAULT_LINES {
                    counts.fault_lines.push(String::from_utf8_lossy(line).into_owned());
                }
            }
            TraceEvent::Repeated => {}
        }
    }

    fn pages(&mut self, space: AddressSpace, range: PageRange) {
        self.counts.psi += 1;
        let open = self.open.entry(space).or_default();
        if open.remove(&range) {
            self.open_total -= 1;
            self.counts.psi_closing += 1;
        } else if self.open_total < MAX_OPEN {
            open.insert(range);
            self.open_total += 1;
            self.counts.psi_opening += 1;
            self.counts.psi_open_at_most = self.counts.psi_open_at_most.max(self.open_total as u64);
            if self.seen.len() < MAX_OPEN && self.seen.insert((space, range)) {
                self.counts.psi_new += 1;
            }
        } else {
            self.counts.psi_unattributed += 1;
        }
    }

    fn whole(&mut self, space: AddressSpace) {
        self.counts.dsi += 1;
        if let Some(open) = self.open.remove(&space) {
            self.open_total -= open.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::viommu::VIOMMUS;

    const STRICT: &str = "\
vtd_inv_desc_iotlb_pages iotlb invalidate domain 0x2 addr 0xfffe0000 mask 0x4
vtd_inv_desc_wait_sw wait invalidate status write addr 0x1 data 0x2
vtd_inv_desc_iotlb_pages iotlb invalidate domain 0x2 addr 0xfffe0000 mask 0x4
4711@1700000000.123456:vtd_inv_desc_iotlb_pages iotlb invalidate domain 0x2 addr 0xfffe0000 mask 0x4
";

    #[track_caller]
    fn count(text: &str, step: usize) -> TraceCounts {
        let mut counter = TraceCounter::new(VIOMMUS[0]);
        for chunk in text.as_bytes().chunks(step) {
            counter.push(chunk);
        }
        counter.push(b"dmarig-mark 7\n");
        let (mark, counts) = counter.windows().next().unwrap();
        assert_eq!(mark, 7);
        counts
    }

    #[test]
    fn a_line_counts_once_however_it_is_split() {
        for step in 1..60 {
            let counts = count(STRICT, step);
            assert_eq!((counts.psi, counts.wait, counts.unknown), (3, 1, 0), "step {step}");
            assert_eq!((counts.psi_opening, counts.psi_closing), (2, 1), "step {step}");
        }
    }

    #[test]
    fn a_domain_flush_closes_what_its_domain_had_open() {
        let line = "vtd_inv_desc_iotlb_pages iotlb invalidate domain 0x2 addr 0x1000 mask 0x0\n";
        let other = line.replace("0x2", "0x3");
        let flush = "vtd_inv_desc_iotlb_domain iotlb invalidate whole domain 0x2\n";
        let counts = count(&[line, &other, flush, line, &other].concat(), 4096);
        assert_eq!((counts.dsi, counts.psi_opening, counts.psi_closing), (1, 3, 1));
    }

    #[test]
    fn pasid_based_ones_are_told_apart_by_pasid() {
        // As QEMU 11.1 writes them: addr 0x1000 in PASID 0 of domain 2, then in PASID 1.
        let line = "vtd_inv_desc invalidate desc type p-iotlb high 0x1000 low 0x20036\n";
        let other = line.replace("low 0x20036", "low 0x100020036");
        let counts = count(&[line, &other, line].concat(), 4096);
        assert_eq!((counts.psi, counts.psi_opening, counts.psi_closing), (3, 2, 1));
        assert_eq!(counts.unknown, 0);
    }

    #[test]
    fn a_flush_of_a_pasid_is_one_of_a_domain() {
        let line = "vtd_inv_desc invalidate desc type p-iotlb high 0x0 low 0x20026\n";
        let counts = count(line, 4096);
        assert_eq!((counts.dsi, counts.psi, counts.unknown), (1, 0, 0));
    }

    #[test]
    fn descriptors_with_an_event_of_their_own_count_once() {
        let text = "\
vtd_inv_desc invalidate desc type iotlb high 0xfffe0004 low 0x200f2
vtd_inv_desc_iotlb_pages iotlb invalidate domain 0x2 addr 0xfffe0000 mask 0x4
vtd_inv_desc invalidate desc type wait high 0x1 low 0x200000025
vtd_inv_desc_wait_sw wait invalidate status write addr 0x1 data 0x2
vtd_inv_desc invalidate desc type device high 0x1 low 0x3
";
        let counts = count(text, 4096);
        assert_eq!((counts.psi, counts.wait, counts.device_iotlb, counts.unknown), (1, 1, 1, 0));
    }

    #[test]
    fn faults_keep_their_lines_up_to_a_bound() {
        let line = "vtd_dmar_fault sid 0x18 fault 5 addr 0xdead000 write 1\n";
        let counts = count(&line.repeat(100), 100);
        assert_eq!((counts.faults, counts.fault_lines.len()), (100, MAX_FAULT_LINES));
    }

    #[test]
    fn an_endless_line_takes_no_memory() {
        let mut counter = TraceCounter::new(VIOMMUS[0]);
        for _ in 0..1000 {
            counter.push(&[b'x'; 4096]);
        }
        assert!(counter.partial.capacity() <= 2 * MAX_LINE);
        counter.push(b"\ndmarig-mark 1\n");
        assert!(counter.windows().next().unwrap().1.unknown > 0);
    }

    #[test]
    fn a_mark_ends_a_window_exactly() {
        let line = "vtd_inv_desc_iotlb_global iotlb invalidate global\n";
        let text = [line, "dmarig-mark 1\n", line, line, "dmarig-mark 2\n", line].concat();
        let mut counter = TraceCounter::new(VIOMMUS[0]);
        counter.push(text.as_bytes());
        let windows: Vec<_> =
            counter.windows().map(|(mark, counts)| (mark, counts.global)).collect();
        assert_eq!(windows, [(1, 1), (2, 2)]);
    }
}
