//! What a kernel log from anywhere says of the IOMMU, judged by the table of expectations as far as the
//! log tells what it depends on.

mod anomalies;
mod boot;
mod expected;
mod json;
mod normalize;
mod split_boots;
mod translation_mode;

use std::{collections::BTreeMap, sync::LazyLock};

use dmarig_viommu::{Viommu, mode::Registers};
use dmarig_wire::LogRecord;
use regex::Regex;
use serde::Serialize;

pub use crate::expect::Presence;
use crate::{
    log::{LogFacts, LogKind, read},
    text::{message, shown},
    viommu,
};

use self::{
    boot::Boot,
    expected::{Expected, warning},
    normalize::Normalized,
    split_boots::split_boots,
};

/// Version of [`Analysis`] as JSON.
pub const ANALYSIS_SCHEMA: u32 = 1;

/// What one boot's log says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Analysis {
    /// [`ANALYSIS_SCHEMA`]
    pub schema: u32,
    /// Lines of it in the log: first and last.
    pub lines: (u64, u64),
    /// Whether anything in it is a kernel's.
    pub kernel_log: bool,
    /// The kernel.
    pub kernel: KernelFound,
    /// Its command line, escaped.
    pub command_line: Option<String>,
    /// Whether the IOMMU is on.
    pub iommu: Iommu,
    /// Each IOMMU of the machine.
    pub units: Vec<UnitFound>,
    /// How devices are mapped.
    pub mode: Mode,
    /// The warning that batching is off because the IOMMU is virtual.
    pub warning: WarningFound,
    /// `xapic` or `x2apic`, where interrupts are remapped.
    pub interrupt_remapping: Option<String>,
    /// Devices of each IOMMU group.
    pub groups: BTreeMap<u32, Vec<String>>,
    /// DMA faults.
    pub faults: FaultsFound,
    /// Lines that must not be there, at most 100 of each kind.
    pub splats: Vec<Splat>,
    /// What is not as it should be.
    pub odd: Vec<String>,
    /// What is worth knowing, and no fault.
    pub notes: Vec<String>,
    /// What to do next.
    pub hints: Vec<String>,
}

/// A kernel as its log names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct KernelFound {
    /// `uname -r`, escaped; null where no line tells.
    pub release: Option<String>,
    /// Its version with the patch level.
    pub version: Option<String>,
    /// Why the version may not tell what the kernel does.
    pub doubt: Option<String>,
    /// Whether the log begins with the kernel's first line and has none left out.
    pub complete: bool,
}

/// Whether an IOMMU is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// It is.
    On,
    /// It is not.
    Off,
    /// The log does not tell.
    Untold,
}

/// Whether the IOMMU is on, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Iommu {
    /// Whether it is.
    pub power: Power,
    /// How that is known.
    pub why: String,
}

/// One IOMMU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct UnitFound {
    /// Its name in the log.
    pub name: String,
    /// Capability register, in hexadecimal.
    pub cap: Option<String>,
    /// Extended capability register, in hexadecimal.
    pub ecap: Option<String>,
    /// CAP.CM
    pub caching_mode: Option<bool>,
    /// What it offers, each in a few words.
    pub offers: Vec<String>,
    /// `Queued` or `Register based`.
    pub invalidation: Option<String>,
}

/// How devices are mapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Mode {
    /// `Translated` or `Passthrough`.
    pub default_domain: Option<String>,
    /// Whether the command line chose it.
    pub chosen_by_user: bool,
    /// `lazy` or `strict`, as the kernel says it before the driver has its say.
    pub policy_line: Option<String>,
    /// What to make of that, for a person.
    pub policy: String,
}

/// The warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct WarningFound {
    /// Whether it is there; null where the log does not have the place at which it stands.
    pub present: Option<bool>,
    /// What the table of expectations says; null where that depends on what the log does not tell.
    pub expected: Option<Presence>,
    /// The rule that says so.
    pub rule: String,
    /// What it means if it does not hold.
    pub because: Option<String>,
    /// Why presence or expectation are not told.
    pub untold: Vec<String>,
    /// The lines, escaped.
    pub lines: Vec<String>,
}

/// DMA faults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FaultsFound {
    /// Lines of them.
    pub told: u64,
    /// Those that a rate limit swallowed, as far as the kernel counts them.
    pub suppressed: u64,
    /// By device, the one with most first.
    pub devices: Vec<DeviceFaults>,
}

impl FaultsFound {
    /// Whether there are any, printed or not. Their sum may be more than a number holds: a log can be forged.
    fn any(&self) -> bool {
        self.told > 0 || self.suppressed > 0
    }
}

/// Faults of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeviceFaults {
    /// Its address as printed.
    pub device: String,
    /// How many.
    pub count: u64,
    /// `read`, `write`, `interrupt`, each with its count.
    pub accesses: BTreeMap<&'static str, u64>,
    /// Lowest and highest address, in hexadecimal.
    pub addresses: (String, String),
    /// By reason.
    pub reasons: Vec<ReasonFound>,
    /// The first one's line, escaped.
    pub first: String,
}

/// A fault reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReasonFound {
    /// Its number.
    pub number: u8,
    /// How many.
    pub count: u64,
    /// The kernel's words, escaped.
    pub says: String,
    /// What the hardware found.
    pub found: Option<&'static str>,
    /// What that mostly comes from.
    pub mostly: Option<&'static str>,
}

/// A line that must not be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Splat {
    /// Kind of the finding.
    pub kind: LogKind,
    /// Its line in the log, from 1.
    pub at: u64,
    /// It, escaped.
    pub line: String,
    /// The next few, escaped.
    pub context: Vec<String>,
}

/// Reads a log as text in any of the forms in which people pass one on, boot by boot.
#[must_use]
pub fn analyze(bytes: &[u8]) -> Vec<Analysis> {
    of_normalized(&normalize::normalize(bytes))
}

fn of_normalized(log: &Normalized) -> Vec<Analysis> {
    let boots = split_boots(&log.records);
    let begins = |boot: &&[LogRecord]| boot.first().is_some_and(|it| it.seq <= log.whole_until);
    let with_gap = boots.iter().rposition(begins).filter(|_| log.left_out > 0);
    let of_boot = |(at, boot): (usize, &&[LogRecord])| {
        let mut found = if with_gap == Some(at) {
            let whole = boot.partition_point(|record| record.seq <= log.whole_until);
            let mut found = of_records_with(boot, Gap { lost: log.left_out, whole });
            found.notes.insert(
                0,
                format!(
                    "{} lines in the middle of the log were left out: it is too long",
                    log.left_out
                ),
            );
            found
        } else {
            of_records_with(boot, Gap { lost: 0, whole: boot.len() })
        };
        let last = boot.last().map_or(0, |record| record.seq);
        found.kernel_log |= log.kernels_from.is_some_and(|line| line <= last);
        found
    };
    let mut found: Vec<Analysis> = boots.iter().enumerate().map(of_boot).collect();
    // What stands before the first boot is firmware's, unless anything in it is a kernel's.
    if found.len() > 1 && !found[0].kernel_log {
        found.remove(0);
    }
    if let Some(first) = found.first_mut() {
        of_lines(first, log);
    }
    found
}

/// What is to be said of a whole log's lines.
fn of_lines(analysis: &mut Analysis, log: &Normalized) {
    if log.foreign > 0 {
        analysis.notes.push(format!("{} lines of other programs were left out", log.foreign));
    }
    if let [first, ..] = &*log.broken {
        analysis.kernel_log = true;
        analysis.odd.push(format!(
            "{} messages in JSON are broken, and were not read (the first is line {first})",
            log.broken.len()
        ));
    }
    if let [first, ..] = &*log.unread {
        analysis.kernel_log = true;
        analysis.odd.push(format!(
            "{} {} (the first is line {first})",
            log.unread.len(),
            viommu::in_log(&log.records).advice().unknown_prefix
        ));
        analysis.hints.push(
            "pass the log on as `dmesg` or `journalctl -k -o short-monotonic` prints it".to_owned(),
        );
    }
}

/// Reads the records of one boot, of which `lost` others are missing.
#[must_use]
pub fn of_records(records: &[LogRecord], lost: u64) -> Analysis {
    let whole = if lost == 0 { records.len() } else { 0 };
    let mut analysis = of_records_with(records, Gap { lost, whole });
    // In a recorded log each stamp is the kernel's, in one from anywhere it may be another program's.
    analysis.kernel_log |= records.iter().any(|record| record.time_us > 0);
    if lost > 0 {
        analysis.notes.insert(0, format!("{lost} records of the log are missing"));
    }
    analysis
}

/// What is missing of a log.
#[derive(Debug, Clone, Copy)]
struct Gap {
    /// Records that are missing.
    lost: u64,
    /// Records from its start on among which none is missing.
    whole: usize,
}

fn of_records_with(records: &[LogRecord], gap: Gap) -> Analysis {
    let facts = read(records);
    let boot = boot::read(records);
    let first =
        records.iter().take(50).any(|record| message(&record.text).starts_with("Linux version "));
    let line = |record: Option<&LogRecord>| record.map_or(0, |record| record.seq);
    let viommu = viommu::in_log(records);
    let iommu = iommu(&boot, &facts, viommu);
    let mut analysis = Analysis {
        schema: ANALYSIS_SCHEMA,
        lines: (line(records.first()), line(records.last())),
        kernel_log: false,
        kernel: kernel(&boot, first && gap.lost == 0),
        command_line: boot.command_line.as_deref().map(shown),
        units: units(&facts, viommu),
        mode: translation_mode::translation_mode(viommu, &boot, &facts, iommu.power),
        iommu,
        warning: warning_found(viommu, &boot, &facts, gap.whole),
        // Of words that a pattern took, some have signs in them that nobody sees.
        interrupt_remapping: facts.interrupt_remapping.as_deref().map(shown),
        groups: boot.groups.clone(),
        faults: faults(&boot, viommu),
        splats: splats(&facts, records),
        odd: Vec::new(),
        notes: Vec::new(),
        hints: Vec::new(),
    };
    let of_driver = |record: &LogRecord| {
        let text = message(&record.text);
        viommu.log_prefixes().iter().any(|prefix| text.starts_with(prefix))
    };
    analysis.kernel_log = speaks(&analysis, &facts) || records.iter().any(of_driver);
    anomalies::judge(&mut analysis, viommu, &boot, &facts, gap.lost);
    analysis
}

/// Whether anything that was found is a kernel's word. `WARNING: ` is compilers' and linkers' as well, but
/// for the place in the kernel.
fn speaks(found: &Analysis, facts: &LogFacts) -> bool {
    static WARNING: LazyLock<Regex> = LazyLock::new(|| {
        // With the CPU first until 6.18; without the file where the kernel was built without it.
        Regex::new(r"^WARNING: (?:CPU: \d+ PID: \d+ |\S+:\d+ )?at .*\+0x[0-9a-f]+/0x[0-9a-f]")
            .expect("a pattern of ours")
    });
    found.kernel.release.is_some()
        || found.iommu.power != Power::Untold
        || found.command_line.is_some()
        || found.mode.default_domain.is_some()
        || !found.groups.is_empty()
        || !found.units.is_empty()
        || found.warning.present.is_some()
        || found.faults.any()
        || facts
            .findings
            .iter()
            .any(|finding| finding.kind != LogKind::Warning || WARNING.is_match(&finding.text))
}

fn kernel(boot: &Boot, complete: bool) -> KernelFound {
    let kernel = boot.kernel.as_ref();
    KernelFound {
        release: kernel.map(|kernel| kernel.release.clone()),
        version: kernel.and_then(|kernel| Some(kernel.version?.to_string())),
        doubt: kernel.and_then(|kernel| match kernel.doubt {
            None if kernel.from_splat => Some("it is known from a call trace alone".to_owned()),
            doubt => doubt.map(str::to_owned),
        }),
        complete,
    }
}

fn iommu(boot: &Boot, facts: &LogFacts, viommu: &dyn Viommu) -> Iommu {
    let advice = viommu.advice();
    let turned_off = |text: &str| viommu.read_command_line(text, None).off;
    let by = match (facts.enabled, boot.opted_in) {
        (true, _) => "asked for on the command line",
        (_, true) => "the platform asked for it",
        _ => "on by the kernel's configuration",
    };
    let (power, why) = if facts.success || boot.success_at.is_some() {
        (Power::On, by.to_owned())
    } else if facts.invalidation.is_some() {
        (Power::On, format!("{by}; the log ends before the driver reports that it is up"))
    } else if !boot.faults.is_empty() && !boot.amd {
        (Power::On, "it reports faults".to_owned())
    } else if boot.disabled {
        (Power::Off, advice.disabled.to_owned())
    } else if boot.command_line.as_deref().is_some_and(turned_off) {
        (Power::Off, "turned off on the command line".to_owned())
    } else if boot.amd {
        (Power::Untold, "this machine has AMD's (AMD-Vi), which is not judged here".to_owned())
    } else if boot.tables && boot.firmware_table.is_none() {
        (Power::Off, advice.no_firmware_table.to_owned())
    } else if boot.firmware_table.is_some() && !facts.enabled && boot.started() {
        (Power::Off, advice.firmware_table_unused.to_owned())
    } else {
        (Power::Untold, "the log has no line about it".to_owned())
    };
    Iommu { power, why }
}

fn units(facts: &LogFacts, viommu: &dyn Viommu) -> Vec<UnitFound> {
    let unit = |(number, unit): (&u32, &crate::log::Unit)| {
        let registers = unit.cap.zip(unit.ecap).map(|(cap, ecap)| Registers { cap, ecap });
        UnitFound {
            name: viommu.unit_name(*number),
            cap: unit.cap.map(|cap| format!("{cap:x}")),
            ecap: unit.ecap.map(|ecap| format!("{ecap:x}")),
            caching_mode: registers.map(|it| viommu.capabilities(it).caching_mode),
            offers: registers.map(|it| viommu.describe_capabilities(it)).unwrap_or_default(),
            invalidation: unit.invalidation.clone(),
        }
    };
    facts.units.iter().map(unit).collect()
}

/// The warning in a log of which the first `whole` records are there without a gap.
fn warning_found(viommu: &dyn Viommu, boot: &Boot, facts: &LogFacts, whole: usize) -> WarningFound {
    let present = !facts.warnings.is_empty();
    // It stands between the line on invalidation and the one that says that the driver is up.
    let covered = matches!(
        (boot.invalidation_at, boot.success_at),
        (Some(from), Some(to)) if from <= to && to < whole
    );
    let mut untold = Vec::new();
    if !present && !covered {
        untold.push(
            "the log does not have the whole of the driver's start, where the warning stands"
                .to_owned(),
        );
    }
    let doubt = boot.kernel.as_ref().and_then(|kernel| kernel.doubt);
    let (expected, rule, because) = match warning(viommu, boot, facts) {
        Expected::Told { presence, rule, because } if doubt.is_none() => {
            (Some(presence), rule, because)
        }
        Expected::Told { rule, .. } => {
            untold.push(format!(
                "the kernel's version does not settle it: {}",
                doubt.unwrap_or_default()
            ));
            (None, rule, None)
        }
        Expected::Depends(what) => {
            untold.push(format!("it depends on {}", what.join("; and on ")));
            (None, String::new(), None)
        }
    };
    WarningFound {
        present: (present || covered).then_some(present),
        expected,
        rule,
        because,
        untold,
        lines: facts.warnings.iter().take(4).map(|seen| seen.line.clone()).collect(),
    }
}

fn faults(boot: &Boot, viommu: &dyn Viommu) -> FaultsFound {
    let mut devices: Vec<DeviceFaults> = boot
        .faults
        .iter()
        .map(|(device, of)| DeviceFaults {
            device: device.clone(),
            count: of.count,
            accesses: of.accesses.clone(),
            addresses: (format!("{:#x}", of.addresses.0), format!("{:#x}", of.addresses.1)),
            reasons: of
                .reasons
                .iter()
                .map(|(number, (count, says))| ReasonFound {
                    number: *number,
                    count: *count,
                    says: says.clone(),
                    found: viommu.fault_reason(*number).map(|reason| reason.found),
                    mostly: viommu.fault_reason(*number).map(|reason| reason.usual_cause),
                })
                .collect(),
            first: of.first.clone(),
        })
        .collect();
    devices.sort_by_key(|of| std::cmp::Reverse(of.count));
    let told = devices.iter().map(|of| of.count).sum();
    FaultsFound { told, suppressed: boot.suppressed, devices }
}

fn splats(facts: &LogFacts, records: &[LogRecord]) -> Vec<Splat> {
    let splat = |finding: &crate::log::Finding| Splat {
        kind: finding.kind,
        at: records.get(finding.seen.record).map_or(0, |record| record.seq),
        line: finding.seen.line.clone(),
        context: finding.context.clone(),
    };
    facts.findings.iter().map(splat).collect()
}
