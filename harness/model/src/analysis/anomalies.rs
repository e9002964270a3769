//! What is odd in a log, what is worth knowing besides, and what to do next.

use dmarig_viommu::{
    Viommu,
    log::WarningSpelling,
    mode::{Capabilities, Registers},
};

use crate::{
    axes::Policy,
    log::{LogFacts, LogKind, Unit, warning_spelling},
    version::Version,
};

use super::{Analysis, Power, Presence, boot::Boot, expected::asked_policy};

/// The first kernels of each series with commit 29b32839725f, where that is known.
const FIXED_SERIES: (Version, Version) = (Version::new(5, 10, 14), Version::new(5, 11, 0));

/// Splats that are told in full; more of them say nothing new.
const TOLD: usize = 5;

/// Fills in what is odd, the notes and the hints, in a log of which so many records are missing.
pub(super) fn judge(
    analysis: &mut Analysis,
    viommu: &dyn Viommu,
    boot: &Boot,
    facts: &LogFacts,
    lost: u64,
) {
    power(analysis, viommu, boot, facts);
    warning(analysis, viommu, boot, facts);
    policy(analysis, viommu, boot, facts);
    units(analysis, viommu, boot, facts);
    let least = if lost > 0 { "at least " } else { "" };
    faults(analysis, viommu, boot, facts, least);
    splats(analysis, facts, least);
}

fn power(analysis: &mut Analysis, viommu: &dyn Viommu, boot: &Boot, facts: &LogFacts) {
    if analysis.iommu.power == Power::On {
        return;
    }
    let advice = viommu.advice();
    let words = boot.command_line.as_deref();
    if facts.enabled && boot.success_at.is_none() && boot.started() {
        analysis.odd.push(advice.not_started.to_owned());
    }
    match words {
        Some(words) if viommu.read_command_line(words, None).off => {
            analysis.hints.push(advice.remove_off_words.to_owned());
        }
        _ if boot.amd => analysis.hints.push(advice.other_vendor.to_owned()),
        _ if boot.firmware_table.is_some() && !facts.enabled => {
            analysis.hints.push(advice.turn_on.to_owned());
        }
        _ if boot.tables && boot.firmware_table.is_none() => {
            analysis.hints.push(advice.turn_on_in_firmware.to_owned());
        }
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

fn warning(analysis: &mut Analysis, viommu: &dyn Viommu, boot: &Boot, facts: &LogFacts) {
    let version = boot.version();
    if let (Some(version), Some(seen)) = (version, facts.warnings.first()) {
        let spelling = warning_spelling(&seen.line);
        if let Some(spelling) = spelling.filter(|known| !known.kernels.contains(version)) {
            let WarningSpelling { text, kernels } = spelling;
            analysis.odd.push(format!(
                "`{text}` is the wording of kernels {kernels}, but this one reports version {version}"
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
        analysis.hints.push(viommu.advice().use_strict.to_owned());
    }
}

fn policy(analysis: &mut Analysis, viommu: &dyn Viommu, boot: &Boot, facts: &LogFacts) {
    let version = boot.version();
    let words = boot.command_line.as_deref().unwrap_or_default();
    let strict_asked = words.split_ascii_whitespace().any(|word| word.starts_with("iommu.strict="));
    let follows_since = viommu.follows_iommu_strict_since();
    if let (Some(version), Some(since)) = (version, follows_since)
        && strict_asked
        && version < since
    {
        let advice = viommu.advice().ignores_iommu_strict;
        analysis.notes.push(advice.replace("{since}", &since.to_string()));
    }
    let asked = asked_policy(viommu, boot, facts);
    if asked == Some(Policy::Strict)
        && facts.policy.as_deref() == Some("lazy")
        && version.is_some_and(|version| follows_since.is_none_or(|since| version >= since))
    {
        analysis.odd.push("strict was requested, but the kernel's policy line has lazy".to_owned());
    }
}

fn units(analysis: &mut Analysis, viommu: &dyn Viommu, boot: &Boot, facts: &LogFacts) {
    let capabilities =
        |unit: &Unit| Some(viommu.capabilities(Registers { cap: unit.cap?, ecap: unit.ecap? }));
    let known: Vec<Capabilities> = facts.units.values().filter_map(capabilities).collect();
    let on = known.iter().filter(|unit| unit.caching_mode).count();
    if on > 0 && on < known.len() {
        analysis.odd.push(format!(
            "{on} of {} units have caching mode on; one is enough for the kernel to turn batching off for all",
            known.len()
        ));
    }
    if on > 0 && known.iter().any(|unit| unit.caching_mode && !unit.page_selective) {
        analysis.odd.push(
            "caching mode without page-selective invalidation: each unmap makes the hypervisor walk a whole domain"
                .to_owned(),
        );
    }
    for (number, unit) in &facts.units {
        let queued = capabilities(unit).is_some_and(|unit| unit.queued_invalidation);
        if queued && unit.invalidation.as_deref() == Some("Register based") {
            analysis.odd.push(format!(
                "{} offers queued invalidation, and the kernel uses registers, one request at a time",
                viommu.unit_name(*number)
            ));
        }
    }
    let remaps = known.iter().any(|unit| unit.interrupt_remapping);
    let covered = boot.success_at.is_some() && analysis.kernel.complete;
    if remaps && covered && facts.interrupt_remapping.is_none() {
        analysis.notes.push(
            "interrupt remapping is supported, but the log has no line that it is on".to_owned(),
        );
    }
    if boot.scalable_option
        && known.iter().all(|unit| !unit.page_tables.is_scalable())
        && !known.is_empty()
    {
        analysis.notes.push("scalable mode was asked for, and no unit offers it".to_owned());
    }
}

fn faults(
    analysis: &mut Analysis,
    viommu: &dyn Viommu,
    boot: &Boot,
    facts: &LogFacts,
    least: &str,
) {
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
            "`lspci -nnk -s {device}` shows what {device} is and which driver it has"
        ));
    }
    let is_unmapped =
        |number: &u8| viommu.fault_reason(*number).is_some_and(|reason| reason.is_unmapped);
    if boot.faults.values().any(|of| of.reasons.keys().any(is_unmapped)) {
        analysis.hints.push(
            "`iommu.strict=1` distinguishes a use after unmap from a wrong address: with it the fault comes at once, \
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
