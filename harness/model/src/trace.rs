//! QEMU's trace events as text lines, counted as they stream by.

use std::collections::{HashMap, HashSet};

use crate::{
    axes::{Axes, ScalableMode, Toggle},
    observation::TraceCounts,
};

/// The events to switch on for a counting window.
#[must_use]
pub fn events(axes: &Axes) -> Vec<&'static str> {
    // Each descriptor once more by its type: the only sight of device-IOTLB invalidations and of
    // PASID-based ones (which first-stage tables are flushed by), and too much of a stream to have
    // where there are none. QEMU declares events of PASID-based ones and never emits them.
    let scalable = axes.scalable_mode != ScalableMode::Off;
    let descriptors = (scalable || axes.device_iotlb == Toggle::On).then_some("vtd_inv_desc");
    EVENTS.iter().copied().chain(descriptors).collect()
}

const EVENTS: &[&str] = &[
    "vtd_inv_desc_iotlb_global",
    "vtd_inv_desc_iotlb_domain",
    "vtd_inv_desc_iotlb_pages",
    "vtd_inv_desc_wait_sw",
    "vtd_page_walk_level",
    "vtd_page_walk_one",
    "vtd_page_walk_one_skip_map",
    "vtd_page_walk_one_skip_unmap",
    "vtd_as_unmap_whole",
    "vtd_dmar_fault",
];

/// Ranges that are kept track of at once: far more than any workload maps, and a few MiB.
const MAX_OPEN: usize = 1 << 18;
/// Stands for a domain's ranges outside of any PASID.
const NO_PASID: u32 = u32::MAX;
/// A line longer than this is no trace event.
const MAX_LINE: usize = 4096;
/// Lines of faults that are kept.
const MAX_FAULT_LINES: usize = 32;

/// A line that the rig itself wrote into the stream, to know how far it has been read.
pub const MARK: &str = "dmarig-mark ";

/// What is known of one domain's ranges.
type Open = HashSet<(u64, u8)>;

/// Counts the lines of a trace stream.
#[derive(Debug, Default)]
pub struct TraceCounter {
    counts: TraceCounts,
    /// By domain and PASID (none: [`NO_PASID`]).
    open: HashMap<(u16, u32), Open>,
    open_total: usize,
    /// Ranges that were opened in this window.
    seen: HashSet<(u16, u32, u64, u8)>,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    windows: Vec<(u64, TraceCounts)>,
}

impl TraceCounter {
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
        let counts = &mut self.counts;
        counts.lines += 1;
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
        match name {
            b"vtd_inv_desc_iotlb_pages" => self.page_selective(rest),
            b"vtd_inv_desc_iotlb_domain" => self.domain_selective(rest),
            b"vtd_inv_desc_iotlb_global" => {
                counts.global += 1;
                self.open.clear();
                self.open_total = 0;
            }
            b"vtd_inv_desc_wait_sw" => counts.wait += 1,
            b"vtd_inv_desc" => self.descriptor(rest),
            b"vtd_page_walk_level" => counts.page_walk_levels += 1,
            b"vtd_page_walk_one" => counts.page_walk_entries += 1,
            b"vtd_page_walk_one_skip_map" | b"vtd_page_walk_one_skip_unmap" => {
                counts.page_walk_in_vain += 1;
            }
            b"vtd_as_unmap_whole" => counts.unmap_whole += 1,
            b"vtd_dmar_fault" => {
                counts.faults += 1;
                if counts.fault_lines.len() < MAX_FAULT_LINES {
                    counts.fault_lines.push(String::from_utf8_lossy(rest).into_owned());
                }
            }
            _ => counts.unknown += 1,
        }
    }

    /// `invalidate desc type T high 0xH low 0xL`, of every kind of descriptor. Most kinds have an
    /// event of their own, too.
    fn descriptor(&mut self, rest: &[u8]) {
        let Some(rest) = rest.strip_prefix(b"invalidate desc type ") else {
            self.counts.unknown += 1;
            return;
        };
        // Any of `device`, `device-iotlb` and `device-piotlb`, by version.
        if rest.starts_with(b"dev") {
            self.counts.device_iotlb += 1;
        } else if let Some(rest) = rest.strip_prefix(b"p-iotlb ") {
            let mut numbers = Numbers(rest);
            match (numbers.next(), numbers.next()) {
                (Some(high), Some(low)) => self.pasid_based(high, low),
                _ => self.counts.unknown += 1,
            }
        }
    }

    /// A PASID-based IOTLB descriptor (VT-d specification, 6.5.2.4).
    fn pasid_based(&mut self, high: u64, low: u64) {
        const GRANULARITY: u64 = 0x30;
        const ALL_IN_PASID: u64 = 0x20;
        const PAGES_IN_PASID: u64 = 0x30;
        let domain = (low >> 16) as u16;
        let pasid = (low >> 32) as u32 & 0xf_ffff;
        match low & GRANULARITY {
            PAGES_IN_PASID => self.pages((domain, pasid), (high & !0xfff, high as u8 & 0x3f)),
            ALL_IN_PASID => self.whole((domain, pasid)),
            _ => self.counts.unknown += 1,
        }
    }

    /// `iotlb invalidate domain 0xD addr 0xA mask 0xM`
    fn page_selective(&mut self, rest: &[u8]) {
        let mut numbers = Numbers(rest);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(domain), Some(addr), Some(mask)) => {
                self.pages((domain as u16, NO_PASID), (addr, mask as u8));
            }
            _ => {
                self.counts.psi += 1;
                self.counts.psi_unattributed += 1;
            }
        }
    }

    /// `iotlb invalidate whole domain 0xD`
    fn domain_selective(&mut self, rest: &[u8]) {
        let domain = Numbers(rest).next().unwrap_or(0) as u16;
        self.whole((domain, NO_PASID));
    }

    fn pages(&mut self, of: (u16, u32), range: (u64, u8)) {
        self.counts.psi += 1;
        let open = self.open.entry(of).or_default();
        if open.remove(&range) {
            self.open_total -= 1;
            self.counts.psi_closing += 1;
        } else if self.open_total < MAX_OPEN {
            open.insert(range);
            self.open_total += 1;
            self.counts.psi_opening += 1;
            self.counts.psi_open_at_most = self.counts.psi_open_at_most.max(self.open_total as u64);
            if self.seen.len() < MAX_OPEN && self.seen.insert((of.0, of.1, range.0, range.1)) {
                self.counts.psi_new += 1;
            }
        } else {
            self.counts.psi_unattributed += 1;
        }
    }

    fn whole(&mut self, of: (u16, u32)) {
        self.counts.dsi += 1;
        if let Some(open) = self.open.remove(&of) {
            self.open_total -= open.len();
        }
    }
}

/// The hexadecimal numbers in a line.
struct Numbers<'a>(&'a [u8]);

impl Iterator for Numbers<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let at = self.0.windows(2).position(|pair| pair == b"0x")?;
        let digits = &self.0[at + 2..];
        let mut number = 0u64;
        let mut length = 0;
        for digit in digits.iter().map_while(|byte| char::from(*byte).to_digit(16)) {
            number = number << 4 | u64::from(digit);
            length += 1;
        }
        self.0 = &digits[length..];
        (length > 0).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: &str = "\
vtd_inv_desc_iotlb_pages iotlb invalidate domain 0x2 addr 0xfffe0000 mask 0x4
vtd_inv_desc_wait_sw wait invalidate status write addr 0x1 data 0x2
vtd_inv_desc_iotlb_pages iotlb invalidate domain 0x2 addr 0xfffe0000 mask 0x4
4711@1700000000.123456:vtd_inv_desc_iotlb_pages iotlb invalidate domain 0x2 addr 0xfffe0000 mask 0x4
";

    #[track_caller]
    fn count(text: &str, step: usize) -> TraceCounts {
        let mut counter = TraceCounter::default();
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
        let mut counter = TraceCounter::default();
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
        let mut counter = TraceCounter::default();
        counter.push(text.as_bytes());
        let windows: Vec<_> =
            counter.windows().map(|(mark, counts)| (mark, counts.global)).collect();
        assert_eq!(windows, [(1, 1), (2, 2)]);
    }
}
