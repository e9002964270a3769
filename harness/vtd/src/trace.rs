//! QEMU's `vtd_*` trace events.

use dmarig_viommu::{
    mode::Settings,
    trace::{AddressSpace, PageRange, TraceEvent, TraceFacts},
};

pub(crate) const FACTS: TraceFacts =
    TraceFacts { first_event: "vtd_inv_qi_enable", fault_events: &["vtd_dmar_fault"] };

const COUNTING_EVENTS: &[&str] = &[
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

/// Reports each descriptor once more, by its type.
const DESCRIPTOR: &str = "vtd_inv_desc";

pub(crate) fn counting_events(settings: &Settings) -> Vec<&'static str> {
    let mut events = COUNTING_EVENTS.to_vec();
    // The only event of device-IOTLB and PASID-based invalidations (which flush first-stage tables),
    // and too long a stream to have without them. QEMU declares events of PASID-based invalidations,
    // but does not emit them.
    if settings.page_tables.is_scalable() || settings.device_iotlb {
        events.push(DESCRIPTOR);
    }
    events
}

pub(crate) fn event<'a>(name: &[u8], rest: &'a [u8]) -> Option<TraceEvent<'a>> {
    Some(match name {
        b"vtd_inv_desc_iotlb_pages" => page_selective(rest),
        b"vtd_inv_desc_iotlb_domain" => domain_selective(rest),
        b"vtd_inv_desc_iotlb_global" => TraceEvent::Global,
        b"vtd_inv_desc_wait_sw" => TraceEvent::Wait,
        b"vtd_inv_desc" => return descriptor(rest),
        b"vtd_page_walk_level" => TraceEvent::WalkLevel,
        b"vtd_page_walk_one" => TraceEvent::WalkEntry,
        b"vtd_page_walk_one_skip_map" | b"vtd_page_walk_one_skip_unmap" => {
            TraceEvent::WalkUnchanged
        }
        b"vtd_as_unmap_whole" => TraceEvent::UnmapWhole,
        b"vtd_dmar_fault" => TraceEvent::Fault(rest),
        _ => return None,
    })
}

/// `iotlb invalidate domain 0xD addr 0xA mask 0xM`
fn page_selective(rest: &[u8]) -> TraceEvent<'static> {
    let mut numbers = HexNumbers(rest);
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(domain), Some(address), Some(mask)) => TraceEvent::PageSelective(
            AddressSpace { domain: domain as u16, pasid: None },
            PageRange { address, mask: mask as u8 },
        ),
        _ => TraceEvent::UnknownPages,
    }
}

/// `iotlb invalidate whole domain 0xD`
fn domain_selective(rest: &[u8]) -> TraceEvent<'static> {
    let domain = HexNumbers(rest).next().unwrap_or(0) as u16;
    TraceEvent::DomainSelective(AddressSpace { domain, pasid: None })
}

/// `invalidate desc type T high 0xH low 0xL`, for every kind of descriptor. Most kinds have an event
/// of their own, too.
fn descriptor(rest: &[u8]) -> Option<TraceEvent<'static>> {
    let rest = rest.strip_prefix(b"invalidate desc type ")?;
    // `device`, `device-iotlb` or `device-piotlb`, by version.
    if rest.starts_with(b"dev") {
        return Some(TraceEvent::DeviceIotlb);
    }
    let Some(rest) = rest.strip_prefix(b"p-iotlb ") else {
        return Some(TraceEvent::Repeated);
    };
    let mut numbers = HexNumbers(rest);
    pasid_based(numbers.next()?, numbers.next()?)
}

/// A PASID-based IOTLB descriptor (VT-d specification, 6.5.2.4).
fn pasid_based(high: u64, low: u64) -> Option<TraceEvent<'static>> {
    const GRANULARITY: u64 = 0x30;
    const ALL_IN_PASID: u64 = 0x20;
    const PAGES_IN_PASID: u64 = 0x30;
    let pasid = (low >> 32) as u32 & 0xf_ffff;
    let space = AddressSpace { domain: (low >> 16) as u16, pasid: Some(pasid) };
    match low & GRANULARITY {
        PAGES_IN_PASID => {
            let range = PageRange { address: high & !0xfff, mask: high as u8 & 0x3f };
            Some(TraceEvent::PageSelective(space, range))
        }
        ALL_IN_PASID => Some(TraceEvent::DomainSelective(space)),
        _ => None,
    }
}

/// The hexadecimal numbers in a line.
struct HexNumbers<'a>(&'a [u8]);

impl Iterator for HexNumbers<'_> {
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

    const fn pages(domain: u16, pasid: Option<u32>, address: u64, mask: u8) -> TraceEvent<'static> {
        TraceEvent::PageSelective(AddressSpace { domain, pasid }, PageRange { address, mask })
    }

    #[test]
    fn decodes_each_event() {
        let domain = |pasid| TraceEvent::DomainSelective(AddressSpace { domain: 2, pasid });
        let fault = "sid 0x18 fault 5 addr 0xdead000 write 1";
        // PASID-based ones as QEMU 11.1 writes them.
        for (line, expected) in [
            (
                "vtd_inv_desc_iotlb_pages iotlb invalidate domain 0x2 addr 0xfffe0000 mask 0x4",
                Some(pages(2, None, 0xfffe_0000, 4)),
            ),
            ("vtd_inv_desc_iotlb_pages iotlb", Some(TraceEvent::UnknownPages)),
            ("vtd_inv_desc_iotlb_domain iotlb invalidate whole domain 0x2", Some(domain(None))),
            ("vtd_inv_desc_iotlb_global iotlb invalidate global", Some(TraceEvent::Global)),
            (
                "vtd_inv_desc_wait_sw wait invalidate status write addr 0x1 data 0x2",
                Some(TraceEvent::Wait),
            ),
            (
                "vtd_inv_desc invalidate desc type p-iotlb high 0x1000 low 0x20036",
                Some(pages(2, Some(0), 0x1000, 0)),
            ),
            (
                "vtd_inv_desc invalidate desc type p-iotlb high 0x1000 low 0x100020036",
                Some(pages(2, Some(1), 0x1000, 0)),
            ),
            (
                "vtd_inv_desc invalidate desc type p-iotlb high 0x0 low 0x20026",
                Some(domain(Some(0))),
            ),
            ("vtd_inv_desc invalidate desc type p-iotlb high 0x0 low 0x20006", None),
            (
                "vtd_inv_desc invalidate desc type iotlb high 0xfffe0004 low 0x200f2",
                Some(TraceEvent::Repeated),
            ),
            (
                "vtd_inv_desc invalidate desc type device high 0x1 low 0x3",
                Some(TraceEvent::DeviceIotlb),
            ),
            ("vtd_inv_desc something else", None),
            ("vtd_page_walk_level x", Some(TraceEvent::WalkLevel)),
            ("vtd_page_walk_one x", Some(TraceEvent::WalkEntry)),
            ("vtd_page_walk_one_skip_map x", Some(TraceEvent::WalkUnchanged)),
            ("vtd_page_walk_one_skip_unmap x", Some(TraceEvent::WalkUnchanged)),
            ("vtd_as_unmap_whole x", Some(TraceEvent::UnmapWhole)),
            (
                "vtd_dmar_fault sid 0x18 fault 5 addr 0xdead000 write 1",
                Some(TraceEvent::Fault(fault.as_bytes())),
            ),
            ("nvme_io x", None),
        ] {
            let (name, rest) = line.split_once(' ').unwrap();
            assert_eq!(event(name.as_bytes(), rest.as_bytes()), expected, "{line}");
        }
    }
}
