//! What the Intel driver writes to the kernel log. Its patterns are in `data/log-patterns.yaml`.

use std::sync::LazyLock;

use dmarig_viommu::{
    log::{
        Access, Advice, BootFact, DmaFault, FindingKind, FindingPattern, LogFact, WarningSpelling,
    },
    version::VersionRange,
};
use regex::{Captures, Regex};
use serde::Deserialize;

pub(crate) const PREFIXES: &[&str] = &["DMAR: ", "DMAR-IR: "];

pub(crate) const ADVICE: Advice = Advice {
    unknown_prefix: "lines have an unknown prefix before `DMAR: ` and were not read",
    disabled: "`DMAR: IOMMU disabled`: turned off on the command line",
    no_firmware_table: "the firmware has no DMAR table",
    firmware_table_unused: "the firmware has a DMAR table, and nothing turned the IOMMU on",
    not_started: "the IOMMU was requested (`DMAR: IOMMU enabled`), but the driver never reported that it \
                  is up",
    remove_off_words: "boot without `intel_iommu=off` or `iommu=off`",
    turn_on: "the firmware offers an IOMMU: `intel_iommu=on` on the kernel's command line turns it on",
    turn_on_in_firmware: "the firmware has no DMAR table: turn VT-d on in its setup (QEMU: `-device \
                          intel-iommu`)",
    other_vendor: "this is a machine with AMD's IOMMU (AMD-Vi): nothing here speaks of the Intel \
                   driver",
    strict_by_option: "strict, as `intel_iommu=strict` asks",
    use_strict: "without it unmaps are batched, and each batch has the hypervisor walk whole page \
                 tables: boot with `iommu.strict=1` (before 5.15: `intel_iommu=on,strict`) until it \
                 is mended",
    ignores_iommu_strict: "the Intel driver of this kernel does not look at `iommu.strict` (from \
                           {since} on it does): `intel_iommu=on,strict` is its word for that",
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpellingText {
    text: String,
    kernels: VersionRange,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct FactTexts {
    enabled: String,
    registers: String,
    invalidation: String,
    interrupt_remapping: String,
    success: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum KindText {
    Fault,
    InvalidationError,
    DriverError,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FindingTexts {
    kind: KindText,
    r#match: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PatternFile {
    warning: Vec<SpellingText>,
    facts: FactTexts,
    faults: Vec<String>,
    findings: Vec<FindingTexts>,
}

/// The patterns, compiled once.
struct Patterns {
    warning: Regex,
    spellings: Vec<WarningSpelling>,
    enabled: Regex,
    registers: Regex,
    invalidation: Regex,
    interrupt_remapping: Regex,
    success: Regex,
    faults: Vec<Regex>,
    findings: Vec<FindingPattern>,
    firmware_table: Regex,
    suppressed: Regex,
}

/// Compiles an expression of this crate.
fn regex(text: &str) -> Regex {
    // The tests compile all of them.
    Regex::new(text).expect("a pattern of this crate is valid")
}

static PATTERNS: LazyLock<Patterns> = LazyLock::new(|| {
    let file: PatternFile = serde_yaml::from_str(include_str!("../data/log-patterns.yaml"))
        .expect("data/log-patterns.yaml is valid");
    let sentences: Vec<String> =
        file.warning.iter().map(|spelling| regex::escape(&spelling.text)).collect();
    // A format without a newline lets the next line run on, so a sentence may be glued to what is
    // before and behind it. In both places a blank would make it a quotation, or another sentence.
    let warning = format!(
        r"^(?:DMAR: .*[^\s:])?DMAR: (?:{})(?:$|[\n\[A-Z]|(?:iommu|pci|ioapic|smpboot)\b)",
        sentences.join("|")
    );
    let spelling = |SpellingText { text, kernels }: SpellingText| WarningSpelling { text, kernels };
    let finding = |texts: FindingTexts| FindingPattern {
        kind: match texts.kind {
            KindText::Fault => FindingKind::Fault,
            KindText::InvalidationError => FindingKind::InvalidationError,
            KindText::DriverError => FindingKind::DriverError,
        },
        matches: texts.r#match,
    };
    Patterns {
        warning: regex(&warning),
        spellings: file.warning.into_iter().map(spelling).collect(),
        enabled: regex(&file.facts.enabled),
        registers: regex(&file.facts.registers),
        invalidation: regex(&file.facts.invalidation),
        interrupt_remapping: regex(&file.facts.interrupt_remapping),
        success: regex(&file.facts.success),
        faults: file.faults.iter().map(|text| regex(text)).collect(),
        findings: file.findings.into_iter().map(finding).collect(),
        firmware_table: regex(
            r"^ACPI: DMAR 0x[0-9A-Fa-f]+ [0-9A-Fa-f]+ \(v\d+ *(?<oem>.{0,40}?) *[0-9A-Fa-f]{8} ",
        ),
        suppressed: regex(r"^dmar_fault: (\d+) callbacks suppressed"),
    }
});

pub(crate) fn warning_spellings() -> &'static [WarningSpelling] {
    &PATTERNS.spellings
}

pub(crate) fn findings() -> &'static [FindingPattern] {
    &PATTERNS.findings
}

pub(crate) fn facts(line: &str) -> Vec<LogFact> {
    let mut facts = Vec::new();
    if !["DMAR", "dmar: ", "IOMMU"].iter().any(|word| line.contains(word)) {
        return facts;
    }
    let patterns = &*PATTERNS;
    if patterns.warning.is_match(line) {
        facts.push(LogFact::Warning);
    }
    if let Some(found) = patterns.registers.captures(line) {
        let register = |name| u64::from_str_radix(&found[name], 16).ok();
        let (cap, ecap) = (register("cap"), register("ecap"));
        facts.push(LogFact::UnitRegisters { unit: found["unit"].to_owned(), cap, ecap });
    } else if let Some(found) = patterns.invalidation.captures(line) {
        let (unit, method) = (found["unit"].to_owned(), found["how"].to_owned());
        facts.push(LogFact::UnitInvalidation { unit, method });
    } else if let Some(found) = patterns.interrupt_remapping.captures(line) {
        facts.push(LogFact::InterruptRemapping(found[1].to_owned()));
    } else if patterns.enabled.is_match(line) {
        facts.push(LogFact::Enabled);
    } else if patterns.success.is_match(line) {
        facts.push(LogFact::Started);
    }
    facts
}

pub(crate) fn fault(line: &str) -> Option<DmaFault> {
    // All patterns begin in this way, and most lines do not.
    if !line.starts_with("DMAR: [") {
        return None;
    }
    let found = PATTERNS.faults.iter().find_map(|pattern| pattern.captures(line))?;
    Some(decode_fault(&found))
}

fn decode_fault(found: &Captures<'_>) -> DmaFault {
    let text = |name| found.name(name).map_or("", |group| group.as_str());
    let hex = |name| u64::from_str_radix(text(name), 16).ok();
    let reason = hex("hex").or_else(|| text("decimal").parse().ok());
    DmaFault {
        access: match text("what") {
            "DMA Read" => Access::Read,
            "DMA Write" => Access::Write,
            _ => Access::Interrupt,
        },
        device: text("device").to_owned(),
        // 5.10 prints all ones if there is none.
        pasid: hex("pasid")
            .and_then(|pasid| u32::try_from(pasid).ok())
            .filter(|pasid| *pasid != u32::MAX),
        address: hex("address").unwrap_or_default(),
        reason: reason.and_then(|reason| u8::try_from(reason).ok()).unwrap_or(u8::MAX),
        text: text("why").to_owned(),
    }
}

pub(crate) fn boot_facts(line: &str) -> Vec<BootFact> {
    let mut facts = Vec::new();
    if line.starts_with("ACPI: ") {
        let found = PATTERNS.firmware_table.captures(line);
        facts.extend(found.map(|found| BootFact::FirmwareTable(found["oem"].trim().to_owned())));
        return facts;
    }
    if let Some(found) = PATTERNS.suppressed.captures(line) {
        facts.push(BootFact::FaultsSuppressed(found[1].parse().unwrap_or(0)));
        return facts;
    }
    let Some(rest) = line.strip_prefix("DMAR: ").or_else(|| line.strip_prefix("PCI-DMA: ")) else {
        return facts;
    };
    // Anywhere in it, because a line without a newline may have run into this one.
    if rest.contains("Intel(R) Virtualization Technology for Directed I/O") {
        facts.push(BootFact::Started);
    }
    if rest.contains("sing Queued invalidation") || rest.contains("sing Register based") {
        facts.push(BootFact::InvalidationChosen);
    }
    if rest == "IOMMU disabled" {
        facts.push(BootFact::Disabled);
    }
    if rest.contains("force enabled due to platform opt in") {
        facts.push(BootFact::PlatformOptIn);
    }
    if rest == "Disable batched IOTLB flush" {
        facts.push(BootFact::StrictOption);
    }
    let requests = ["Intel-IOMMU: scalable mode supported", "Enable scalable mode if"];
    if requests.iter().any(|text| rest.starts_with(text)) {
        facts.push(BootFact::ScalableRequested);
    }
    let refusals = ["VT-d Scalable Mode not enabled", "Scalable mode is disallowed"];
    if refusals.iter().any(|text| rest.starts_with(text)) {
        facts.push(BootFact::ScalableOff);
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_facts_in_lines() {
        let registers = |cap, ecap| LogFact::UnitRegisters {
            unit: "0".to_owned(),
            cap: Some(cap),
            ecap: Some(ecap),
        };
        let queued =
            || LogFact::UnitInvalidation { unit: "0".to_owned(), method: "Queued".to_owned() };
        for (line, expected) in [
            ("DMAR: IOMMU enabled", vec![LogFact::Enabled]),
            (
                "DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap d2008c22260286 ecap f00f4a",
                vec![registers(0x00d2_008c_2226_0286, 0xf0_0f4a)],
            ),
            ("dmar: IOMMU 0: reg_base_addr fed90000 ver 1:0 cap 1 ecap 2", vec![registers(1, 2)]),
            ("DMAR: dmar0: Using Queued invalidation", vec![queued()]),
            ("DMAR: IOMMU batching disallowed due to virtualization", vec![LogFact::Warning]),
            ("DMAR: Intel(R) Virtualization Technology for Directed I/O", vec![LogFact::Started]),
            (
                "DMAR-IR: Enabled IRQ remapping in x2apic mode",
                vec![LogFact::InterruptRemapping("x2apic".to_owned())],
            ),
            ("DMAR: Disable batched IOTLB flush", vec![]),
            ("AMD-Vi: IOMMU batching disallowed due to virtualization", vec![]),
        ] {
            assert_eq!(facts(line), expected, "{line}");
        }
    }

    #[test]
    fn finds_facts_about_the_start_in_lines() {
        for (line, expected) in [
            ("DMAR: IOMMU disabled", Some(BootFact::Disabled)),
            ("DMAR: Disable batched IOTLB flush", Some(BootFact::StrictOption)),
            (
                "PCI-DMA: Intel(R) Virtualization Technology for Directed I/O",
                Some(BootFact::Started),
            ),
            ("dmar_fault: 12 callbacks suppressed", Some(BootFact::FaultsSuppressed(12))),
            (
                "ACPI: DMAR 0x000000001FFE2000 000050 (v01 BOCHS  BXPC     00000001 BXPC 00000001)",
                Some(BootFact::FirmwareTable("BOCHS  BXPC".to_owned())),
            ),
            ("DMAR: Host address width 39", None),
        ] {
            assert_eq!(boot_facts(line), Vec::from_iter(expected), "{line}");
        }
    }

    #[test]
    fn decodes_faults_of_each_form() {
        let new = "DMAR: [DMA Read NO_PASID] Request device [00:03.0] fault addr 0xfffff000 \
                   [fault reason 0x06] PTE Read access is not set";
        let old = "DMAR: [DMA Write] Request device [00:03.0] PASID ffffffff fault addr fffff000 \
                   [fault reason 05] PTE Write access is not set";
        let interrupt = "DMAR: [INTR-REMAP] Request device [00:03.0] fault index 0x10 \
                         [fault reason 0x22] Present field in the IRTE entry is clear";
        for (line, access, address, reason) in [
            (new, Access::Read, 0xffff_f000, 6),
            (old, Access::Write, 0xffff_f000, 5),
            (interrupt, Access::Interrupt, 0x10, 0x22),
        ] {
            let fault = fault(line).unwrap();
            assert_eq!((fault.access, fault.address, fault.reason), (access, address, reason));
            assert_eq!((fault.device.as_str(), fault.pasid), ("00:03.0", None));
        }
    }

    #[test]
    fn patterns_of_findings_compile() {
        for pattern in findings() {
            for text in &pattern.matches {
                assert!(Regex::new(text).is_ok(), "{text}");
            }
        }
    }
}
