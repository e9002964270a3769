//! Registers: where they are, and the capability registers decoded and in words. Fields by the VT-d
//! specification, sections 11.4.2 (CAP) and 11.4.3 (ECAP).

use dmarig_viommu::{
    RegisterAddresses,
    mode::{Capabilities, PageTables, Registers},
};

/// Physical address of the registers in QEMU's q35 machine.
const BASE: u64 = 0xfed9_0000;

/// Offsets by the VT-d specification, chapter "Register Descriptions".
pub(crate) const ADDRESSES: RegisterAddresses = RegisterAddresses {
    capability: BASE + 0x08,
    extended_capability: BASE + 0x10,
    table_root: BASE + 0x20,
};

const fn bit(register: u64, bit: u32) -> bool {
    register >> bit & 1 == 1
}

pub(crate) const fn capabilities(registers: Registers) -> Capabilities {
    let Registers { cap, ecap } = registers;
    Capabilities {
        // CAP.CM
        caching_mode: bit(cap, 7),
        // ECAP.PT
        pass_through: bit(ecap, 6),
        // ECAP.DT
        device_iotlb: bit(ecap, 2),
        // ECAP.SMTS and ECAP.FSTS
        page_tables: match (bit(ecap, 43), bit(ecap, 47)) {
            (false, _) => PageTables::Legacy,
            (true, false) => PageTables::SecondStage,
            (true, true) => PageTables::FirstStage,
        },
        // CAP.MGAW
        address_bits: field(cap, 16, 6) + 1,
        // CAP.PSI
        page_selective: bit(cap, 39),
        // ECAP.QI
        queued_invalidation: bit(ecap, 1),
        // ECAP.IR
        interrupt_remapping: bit(ecap, 3),
    }
}

const fn field(register: u64, low: u32, bits: u32) -> u64 {
    register >> low & ((1 << bits) - 1)
}

/// Flags of CAP: bit and what it offers.
const CAP: &[(u32, &str)] = &[
    (4, "needs its write buffer flushed"),
    (54, "drains writes"),
    (55, "drains reads"),
    (56, "1 GiB first-stage pages"),
    (59, "posted interrupts"),
    (60, "5-level first-stage tables"),
];

/// Flags of ECAP.
const ECAP: &[(u32, &str)] = &[
    (0, "coherent table walks"),
    (1, "queued invalidation"),
    (2, "device IOTLB (ATS)"),
    (3, "interrupt remapping"),
    (4, "x2APIC ids (EIM)"),
    (6, "pass-through (PT)"),
    (7, "snoop control"),
    (26, "nested translation"),
    (29, "page requests"),
    (40, "PASID"),
    (43, "scalable mode (SMTS)"),
    (45, "access and dirty bits in second-stage tables"),
    (46, "second-stage tables (SSTS)"),
    (47, "first-stage tables (FSTS)"),
];

/// What a unit offers, each in a few words.
pub(crate) fn words(registers: Registers) -> Vec<String> {
    let Registers { cap, ecap } = registers;
    let capabilities = capabilities(registers);
    let set = |register: u64, flags: &'static [(u32, &str)]| {
        flags.iter().filter(move |(bit, _)| register >> bit & 1 == 1).map(|(_, word)| *word)
    };
    let caching =
        if capabilities.caching_mode { "caching mode on (CM)" } else { "caching mode off" };
    let mut words = vec![caching.to_owned()];
    words.push(if capabilities.page_selective {
        // CAP.MAMV: log2 of the most pages that one invalidation covers.
        let mask = field(cap, 48, 6);
        format!("page-selective invalidation (PSI), up to {} at once (MAMV {mask})", range(mask))
    } else {
        "no page-selective invalidation: each unmap flushes a domain".to_owned()
    });
    words.push(format!("{} domains", 1u64 << (4 + 2 * field(cap, 0, 3))));
    words.push(format!("{}-bit guest addresses", capabilities.address_bits));
    let levels = [(1, "3"), (2, "4"), (3, "5")];
    let levels: Vec<&str> = levels
        .iter()
        .filter(|(bit, _)| field(cap, 8, 5) >> bit & 1 == 1)
        .map(|(_, levels)| *levels)
        .collect();
    words.push(format!("tables of {} levels", join_or_none(&levels)));
    let pages = [(34, "2 MiB"), (35, "1 GiB")];
    let pages: Vec<&str> =
        pages.iter().filter(|(bit, _)| cap >> bit & 1 == 1).map(|(_, size)| *size).collect();
    words.push(format!("superpages: {}", join_or_none(&pages)));
    words.extend(set(cap, CAP).map(str::to_owned));
    words.extend(set(ecap, ECAP).map(str::to_owned));
    if capabilities.page_tables.is_scalable() {
        words.push(format!("PASIDs of {} bits", field(ecap, 35, 5) + 1));
    }
    words
}

fn join_or_none(words: &[&str]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// The bytes that an address mask of so many bits of pages covers.
fn range(mask: u64) -> String {
    // Six bits of mask and twelve of page: up to 2^75.
    match mask + 12 {
        bits @ 0..20 => format!("{} KiB", 1u64 << (bits - 10)),
        bits @ 20..30 => format!("{} MiB", 1u64 << (bits - 20)),
        bits @ 30..40 => format!("{} GiB", 1u64 << (bits - 30)),
        bits => format!("2^{bits} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_the_registers_of_qemu() {
        let words = words(Registers { cap: 0x00d2_008c_2226_0286, ecap: 0xf0_0f4a });
        for word in [
            "caching mode on (CM)",
            "page-selective invalidation (PSI), up to 1 GiB at once (MAMV 18)",
            "65536 domains",
            "39-bit guest addresses",
            "tables of 3 levels",
            "superpages: 2 MiB, 1 GiB",
            "queued invalidation",
            "interrupt remapping",
            "pass-through (PT)",
        ] {
            assert!(words.iter().any(|described| described == word), "no `{word}` in {words:?}");
        }
        assert!(
            !words
                .iter()
                .any(|described| { described.contains("ATS") || described.contains("scalable") })
        );
    }

    #[test]
    fn describes_any_value() {
        for bits in [0, u64::MAX, 1 << 48, 0x3f << 48] {
            assert!(words(Registers { cap: bits, ecap: bits }).len() >= 6);
        }
        assert_eq!(range(0), "4 KiB");
        assert_eq!(range(9), "2 MiB");
        assert_eq!(range(63), "2^75 bytes");
    }
}
