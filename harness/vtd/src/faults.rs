//! Fault reasons in words: what the hardware found, and the usual cause. By the VT-d
//! specification, section 7.1.3 (legacy mode), 7.1.3.1 (scalable mode) and 5.1.4.1 (interrupts).

use dmarig_viommu::log::FaultReason;

const UNMAPPED: &str = "the device used an address that was never mapped for it, or is no longer: a driver \
     that unmaps too early, a device that goes on after its request is over or was set up by the \
     firmware (see RMRR lines), or a stale translation that was invalidated";
const TABLES: &str = "the tables are broken: the driver or memory corruption, not the device";
const OUTSIDE: &str = "the device is not attached to a domain: it does DMA before its driver has it, after it \
     lost it, or under the requester id of another function";
const WIDE: &str =
    "the device used an address wider than the IOMMU translates: aw-bits, or the device's DMA mask";
const ATS: &str = "ATS is on in the device and off in the IOMMU";
const PAGE_REQUESTS: &str = "page requests are on in the device and off in the IOMMU";
const PASIDS: &str =
    "PASIDs are on in the device and off in the IOMMU, or it uses one that it was not given";
const RIGHTS: &str = "the device asks for more rights with its PASID than it was given";
const NESTED: &str =
    "the hypervisor has not mapped the memory in which the guest's tables are, or not for writing";
const INTERRUPTS: &str =
    "an interrupt that no driver has set up: one that was torn down early, or a spoofed one";

/// What a fault reason means; `None` for a number that the specification does not assign.
pub(crate) fn reason(number: u8) -> Option<FaultReason> {
    let (found, usual_cause) = legacy_or_interrupt(number).or_else(|| scalable(number))?;
    Some(FaultReason { found, usual_cause, is_unmapped: usual_cause == UNMAPPED })
}

/// What the hardware found, and the usual cause, in legacy mode and for interrupts.
const fn legacy_or_interrupt(number: u8) -> Option<(&'static str, &'static str)> {
    Some(match number {
        0x01 | 0x39 => ("root entry not present", OUTSIDE),
        0x02 | 0x41 => ("context entry not present", OUTSIDE),
        0x03 | 0x43 => ("context entry programmed wrong", TABLES),
        0x04 => ("address beyond the guest address width", WIDE),
        0x05 => ("write where writing is not allowed, or nothing is mapped", UNMAPPED),
        0x06 => ("read where reading is not allowed, or nothing is mapped", UNMAPPED),
        0x07 => ("next page table could not be read", TABLES),
        0x08 => ("root table could not be read", TABLES),
        0x09 => ("context table could not be read", TABLES),
        0x0a | 0x3a => ("reserved bits set in the root entry", TABLES),
        0x0b | 0x42 => ("reserved bits set in the context entry", TABLES),
        0x0c => ("reserved bits set in a page table entry", TABLES),
        0x0d | 0x44 => ("a translation request (ATS) where the context entry forbids them", ATS),
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
        _ => return None,
    })
}

/// The same for the reasons that only scalable mode has.
const fn scalable(number: u8) -> Option<(&'static str, &'static str)> {
    Some(match number {
        0x30 => ("root table address not valid", TABLES),
        0x31 => ("request with a PASID where the root table is not of scalable mode", PASIDS),
        0x32 => ("page request where the root table is not of scalable mode", PAGE_REQUESTS),
        0x38 => ("root entry could not be read", TABLES),
        0x40 => ("context entry could not be read", TABLES),
        0x45 => ("request with a PASID where the context entry forbids them", PASIDS),
        0x46 => ("PASID beyond those of the context entry", PASIDS),
        0x47 => ("page request where the context entry forbids them", PAGE_REQUESTS),
        0x48 => ("context entry with a PASID for plain requests that is not valid", TABLES),
        0x50 => ("PASID directory entry could not be read", TABLES),
        0x51 => ("PASID directory entry not present", OUTSIDE),
        0x52 => ("reserved bits set in the PASID directory entry", TABLES),
        0x58 => ("PASID table entry could not be read", TABLES),
        0x59 => ("PASID table entry not present", OUTSIDE),
        0x5a => ("reserved bits set in the PASID table entry", TABLES),
        0x5b => ("PASID table entry programmed wrong", TABLES),
        0x5c => ("request to execute where the PASID table entry forbids it", RIGHTS),
        0x5d => ("supervisor's request where the PASID table entry forbids it", RIGHTS),
        0x70 => ("first-stage table entry could not be read", TABLES),
        0x71 => ("first-stage table entry not present", UNMAPPED),
        0x72 => ("reserved bits set in a first-stage table entry", TABLES),
        0x73 => ("top first-stage table could not be read", TABLES),
        0x74 => ("first-stage table entry points beyond the address width", TABLES),
        0x75 => ("top first-stage table not readable in the second stage", NESTED),
        0x76 => ("first-stage table not readable in the second stage", NESTED),
        0x77 => ("first-stage table not writable in the second stage", NESTED),
        0x78 => ("second-stage table entry could not be read", TABLES),
        0x79 => {
            ("access that the second-stage table entry forbids, or nothing is mapped", UNMAPPED)
        }
        0x7a => ("reserved bits set in a second-stage table entry", TABLES),
        0x7b => ("second-stage table address not valid", TABLES),
        0x7c => ("accessed or dirty bit of a second-stage table entry can't be set", TABLES),
        0x80 => ("address that is not canonical", WIDE),
        0x81 => ("user's request to a page of the supervisor's", RIGHTS),
        0x82 => ("request to execute where executing is not allowed", RIGHTS),
        0x83 => ("address beyond the width of the hardware", WIDE),
        0x84 => ("address beyond the width of the second stage", WIDE),
        0x85 => ("write where writing is not allowed, or nothing is mapped", UNMAPPED),
        0x86 => ("read where reading is not allowed, or nothing is mapped", UNMAPPED),
        0x87 => (
            "address in the range of interrupts",
            "a DMA address of 0xfeexxxxx, which is for interrupts alone",
        ),
        0x90 => ("accessed or dirty bit of a first-stage table entry can't be set", TABLES),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_which_reasons_mean_that_nothing_is_mapped() {
        for (number, expected) in [
            (0x05, Some(true)),
            (0x06, Some(true)),
            (0x71, Some(true)),
            (0x79, Some(true)),
            (0x0c, Some(false)),
            (0x22, Some(false)),
            (0x00, None),
            (0xff, None),
        ] {
            assert_eq!(reason(number).map(|reason| reason.is_unmapped), expected, "{number:#x}");
        }
    }
}
