//! What is odd in a log, what is worth knowing besides, and what to do next.

use crate::{
    axes::{Policy, ScalableMode},
    judge::turned_off,
    kernel::HEEDS_IOMMU_STRICT,
    log::{LogFacts, LogKind, warning_spellings},
    observation::Registers,
    version::Version,
};

use super::{Analysis, Power, Presence, boot::Boot, expected::asked_policy, reasons};

/// The first kernels of each series with commit 29b32839725f, where that is known.
const FIXED_SERIES: (Version, Version) = (Version::new(5, 10, 14), Version::new(5, 11, 0));

/// Splats that are told in full; more of them say nothing new.
const TOLD: usize = 5;

/// Fills in what is odd, the notes and the hints, in a log of which so many records are missing.
pub(super) fn judge(analysis: &mut Analysis, boot: &Boot, facts: &LogFacts, lost: u64) {
    power(analysis, boot, facts);
    warning(analysis, boot, facts);
    policy(analysis, boot, facts);
    units(analysis, boot, facts);
    let least = if lost > 0 { "at least " } else { "" };
    faults(analysis, boot, facts, least);
    splats(analysis, facts, least);
}

fn power(analysis: &mut Analysis, boot: &Boot, facts: &LogFacts) {
    if analysis.iommu.power == Power::On {
        return;
    }
    let words = boot.command_line.as_deref();
    if facts.enabled && boot.success_at.is_none() && boot.started() {
        analysis.odd.push(
            "the IOMMU was asked for (`DMAR: IOMMU enabled`), and the driver never said that it is up"
                .to_owned(),
        );
    }
    match words {
        Some(words) if turned_off(words) => {
            analysis.hints.push("boot without `intel_iommu=off` or `iommu=off`".to_owned());
        }
        _ if boot.amd => analysis.hints.push(
            "this is a machine with AMD's IOMMU (AMD-Vi): nothing here speaks of the Intel driver"
                .to_owned(),
        ),
        _ if boot.dmar_table.is_some() && !facts.enabled => analysis.hints.push(
            "the firmware offers an IOMMU: `intel_iommu=on` on the kernel's command line turns it on"
                .to_owned(),
        ),
        _ if boot.tables && boot.dmar_table.is_none() => analysis.hints.push(
            "the firmware has no DMAR table: turn VT-d on in its setup (QEMU: `-device intel-iommu`)"
                .to_owned(),
        ),
        _ => {}
    }
    if analysis.iommu.power == Power::Untold && !boot.amd {
        analysis.hints.push(
            "take the log from its start: `journalctl -k -b`, or `dmesg` right after boot with \
             `log_buf_len=16M`"
                .to_owned(),
        );
    }
}

fn warning(analysis: &mut Analysis, boot: &Boot, facts: &LogFacts) {
    let version = boot.version();
    if let (Some(version), Some(seen)) = (version, facts.warnings.first()) {
        let spelling = warning_spellings().find(|(text, _)| seen.line.contains(text));
        if let Some((text, kernels)) = spelling.filter(|(_, kernels)| !kernels.contains(version)) {
            analysis.odd.push(format!(
                "`{text}` is the wording of kernels {kernels}, and this one says it is {version}"
            ));
        }
    }
    let warning = &analysis.warning;
    let (Some(present), Some(expected)) = (warning.present, warning.expected) else { return };
    if present == (expected == Presence::Present) {
        return;
    }
    let state = if present { "there, and should not be" } else { "not there, and should be" };
    let because = warning.because.as_deref().map_or_else(String::new, |why| format!(": {why}"));
    analysis.odd.push(format!("the warning is {state} (`{}`){because}", warning.rule));
    if !present && version.is_some_and(|version| version < FIXED_SERIES.1) {
        let (in_5_10, mainline) = FIXED_SERIES;
        analysis.hints.push(format!(
            "commit 29b32839725f is in {mainline} and in {in_5_10}; older series may have it as a \
             backport: compare with the newest stable kernel of this one"
        ));
    }
    if !present {
        analysis.hints.push(
            "without it unmaps are batched, and each batch has the hypervisor walk whole page tables: \
             boot with `iommu.strict=1` (before 5.15: `intel_iommu=on,strict`) until it is mended"
                .to_owned(),
        );
    }
}

fn policy(analysis: &mut Analysis, boot: &Boot, facts: &LogFacts) {
    let version = boot.version();
    let words = boot.command_line.as_deref().unwrap_or_default();
    let strict_asked = words.split_ascii_whitespace().any(|word| word.starts_with("iommu.strict="));
    if strict_asked && version.is_some_and(|version| version < HEEDS_IOMMU_STRICT) {
        analysis.notes.push(format!(
            "the Intel driver of this kernel does not look at `iommu.strict` (from {HEEDS_IOMMU_STRICT} on it \
             does): `intel_iommu=on,strict` is its word for that"
        ));
    }
    let asked = asked_policy(boot, facts);
    if asked == Some(Policy::Strict)
        && facts.policy.as_deref() == Some("lazy")
        && version.is_some_and(|v| v >= HEEDS_IOMMU_STRICT)
    {
        analysis
            .odd
            .push("strict was asked for, and the kernel's policy line says lazy".to_owned());
    }
}

fn units(analysis: &mut Analysis, boot: &Boot, facts: &LogFacts) {
    let told: Vec<(u32, Registers)> = facts
        .units
        .iter()
        .filter_map(|(number, unit)| {
            Some((*number, Registers { cap: unit.cap?, ecap: unit.ecap? }))
        })
        .collect();
    let on = told.iter().filter(|(_, registers)| registers.caching_mode()).count();
    if on > 0 && on < told.len() {
        analysis.odd.push(format!(
            "{on} of {} units have caching mode on; one is enough for the kernel to turn batching off for all",
            told.len()
        ));
    }
    if on > 0 && told.iter().any(|(_, r)| r.caching_mode() && !r.page_selective()) {
        analysis.odd.push(
            "caching mode without page-selective invalidation: each unmap makes the hypervisor walk a whole domain"
                .to_owned(),
        );
    }
    for (number, unit) in &facts.units {
        let queued = unit.ecap.is_some_and(|ecap| ecap >> 1 & 1 == 1);
        if queued && unit.invalidation.as_deref() == Some("Register based") {
            analysis.odd.push(format!(
                "dmar{number} offers queued invalidation, and the kernel uses registers, one request at a time"
            ));
        }
    }
    let remaps = told.iter().any(|(_, registers)| registers.ecap >> 3 & 1 == 1);
    let covered = boot.success_at.is_some() && analysis.kernel.complete;
    if remaps && covered && facts.interrupt_remapping.is_none() {
        analysis.notes.push(
            "interrupt remapping is offered, and the log does not say that it is on".to_owned(),
        );
    }
    if boot.scalable_option
        && told.iter().all(|(_, r)| r.scalable_mode() == ScalableMode::Off)
        && !told.is_empty()
    {
        analysis.notes.push("scalable mode was asked for, and no unit offers it".to_owned());
    }
}

fn faults(analysis: &mut Analysis, boot: &Boot, facts: &LogFacts, least: &str) {
    let faults = &analysis.faults;
    if !faults.any() {
        let lines = facts.count(|kind| kind == LogKind::DmaFault);
        if lines > 0 {
            analysis.odd.push(format!("{least}{lines} lines of DMA faults that name no device"));
        }
        return;
    }
    let who: Vec<&str> = faults.devices.iter().take(TOLD).map(|of| of.device.as_str()).collect();
    let more = faults.devices.len().saturating_sub(TOLD);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let swallowed = match faults.suppressed {
        0 => String::new(),
        number => format!(", and {number} more that the kernel did not print"),
    };
    analysis.odd.push(format!(
        "{least}{} DMA faults of {}{more}{swallowed}",
        faults.told,
        who.join(", ")
    ));
    let lspci = faults.devices.first().map(|of| of.device.clone());
    if let Some(device) = lspci {
        analysis.hints.push(format!(
            "`lspci -nnk -s {device}` tells what {device} is and whose driver it has"
        ));
    }
    if boot.faults.values().any(|of| of.reasons.keys().any(|reason| reasons::is_unmapped(*reason)))
    {
        analysis.hints.push(
            "`iommu.strict=1` tells a use after unmap from a wrong address: with it the fault comes at once, \
             beside the unmap; the driver's own log around the first fault says the rest"
                .to_owned(),
        );
    }
}

fn splats(analysis: &mut Analysis, facts: &LogFacts, least: &str) {
    // Faults have been told with their devices.
    let kinds = analysis.splats.iter().filter(|splat| splat.kind != LogKind::DmaFault);
    let told: Vec<String> = kinds
        .take(TOLD)
        .map(|splat| format!("{}: line {}: {}", splat.kind.name(), splat.at, splat.line))
        .collect();
    // More than are kept of each kind.
    let more = facts.count(|kind| kind != LogKind::DmaFault) - told.len() as u64;
    analysis.odd.extend(told);
    if more > 0 {
        analysis.odd.push(format!("{least}{more} more lines that should not be there"));
    }
}
