//! Fault reasons in words: what the hardware found, and what that mostly means. By the VT-d
//! specification, section 7.1.3 (legacy mode), 7.1.3.1 (scalable mode) and 5.1.4.1 (interrupts).

/// What a reason says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reason {
    /// What the hardware found.
    pub(super) found: &'static str,
    /// What that mostly comes from.
    pub(super) mostly: &'static str,
}

const UNMAPPED: &str = "the device used an address that was never mapped for it, or is no longer: a driver \
     that unmaps too early, a device that goes on after its request is over or was set up by the \
     firmware (see RMRR lines), or a stale translation that was invalidated";
const TABLES: &str = "the tables are broken: the driver or memory corruption, not the device";
const OUTSIDE: &str = "the device is not attached to a domain: it does DMA before its driver has it, after it \
     lost it, or under the requester id of another function";
const INTERRUPTS: &str =
    "an interrupt that no driver has set up: one that was torn down early, or a spoofed one";

/// What a VT-d fault reason says; `None` for numbers that the specification does not give away.
pub(super) const fn reason(number: u8) -> Option<Reason> {
    let (found, mostly) = match number {
        0x01 => ("root entry not present", OUTSIDE),
        0x02 => ("context entry not present", OUTSIDE),
        0x03 => ("context entry programmed wrong", TABLES),
        0x04 => (
            "address beyond the guest address width",
            "the device used an address wider than the IOMMU translates: aw-bits, or the device's DMA mask",
        ),
        0x05 => ("write where writing is not allowed, or nothing is mapped", UNMAPPED),
        0x06 => ("read where reading is not allowed, or nothing is mapped", UNMAPPED),
        0x07 => ("next page table could not be read", TABLES),
        0x08 => ("root table could not be read", TABLES),
        0x09 => ("context table could not be read", TABLES),
        0x0a => ("reserved bits set in the root entry", TABLES),
        0x0b => ("reserved bits set in the context entry", TABLES),
        0x0c => ("reserved bits set in a page table entry", TABLES),
        0x0d => (
            "a translation request (ATS) where the context entry forbids them",
            "ATS is on in the device and off in the IOMMU",
        ),
        0x20 => ("reserved bits set in an interrupt request", INTERRUPTS),
        0x21 => ("interrupt index beyond the remapping table", INTERRUPTS),
        0x22 => ("interrupt remapping entry not present", INTERRUPTS),
        0x23 => ("interrupt remapping table could not be read", TABLES),
        0x24 => ("reserved bits set in an interrupt remapping entry", TABLES),
        0x25 => (
            "interrupt in the old format, which is blocked",
            "a device or firmware that sends interrupts without remapping",
        ),
        0x26 => (
            "interrupt from another source than its entry names",
            "a device behind a bridge that sends under another requester id",
        ),
        0x30..=0x3f => ("scalable mode: the root entry", OUTSIDE),
        0x40..=0x4f => ("scalable mode: the context entry", OUTSIDE),
        0x50..=0x57 => ("scalable mode: the PASID directory entry", OUTSIDE),
        0x58..=0x6f => ("scalable mode: the PASID table entry", OUTSIDE),
        0x70..=0x77 => ("scalable mode: a first-stage table entry", UNMAPPED),
        0x78..=0x7f => ("scalable mode: a second-stage table entry", UNMAPPED),
        0x80..=0x8f => ("scalable mode: the address, or the right to it", UNMAPPED),
        0x90..=0x9f => ("scalable mode: a request of a kind that is not allowed", OUTSIDE),
        _ => return None,
    };
    Some(Reason { found, mostly })
}
