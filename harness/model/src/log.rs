//! What a kernel log says: patterns of the kernel itself are in `data/log-patterns.yaml`, those of a
//! driver are its virtual IOMMU's.

use std::{collections::BTreeMap, sync::LazyLock};

use dmarig_viommu::{
    log::{Access, FindingKind, FindingPattern, LogFact, WarningSpelling},
    tables::PAGE_BYTES,
};
use dmarig_wire::LogRecord;
use regex::RegexSet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    pattern::Pattern,
    probe::AttackOutcome,
    text::{message, shown},
    viommu::VIOMMUS,
    yaml_de::read as read_tree,
    yaml_tree::Part,
};

/// Lines of one kind that are kept; a log that repeats itself says nothing new after these. Each kind
/// has its own, so that a flood of faults hides no crash behind it.
const MAX_OF_KIND: usize = 100;

/// Lines after a finding that are kept with it.
const CONTEXT: usize = 4;

/// Most IOMMUs of one log; machines have a dozen.
const MAX_UNITS: usize = 256;

/// Records around a finding within which a call trace belongs to it.
const TRACE_NEAR: usize = 64;

/// Kinds of findings in a kernel log.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum LogKind {
    /// A DMA or interrupt remapping fault.
    DmaFault,
    /// An error of the invalidation queue.
    InvalidationError,
    /// KASAN, KCSAN, KMSAN, KFENCE or UBSAN.
    Sanitizer,
    /// A CPU or work queue that does not schedule.
    SoftLockup,
    /// A CPU that takes no interrupts.
    HardLockup,
    /// A grace period that does not end.
    RcuStall,
    /// A task that sleeps for too long.
    HungTask,
    /// Incorrect locking.
    Lockdep,
    /// Sleeping in atomic context.
    SchedulingWhileAtomic,
    /// A corrupt list or reference count.
    ListCorruption,
    /// A general protection fault.
    GeneralProtection,
    /// An Oops.
    Oops,
    /// `BUG:`
    Bug,
    /// A panic.
    Panic,
    /// `WARNING:`
    Warning,
    /// Incorrect use of the DMA API.
    DmaApi,
    /// Bounce buffers in use.
    Swiotlb,
    /// An error of the IOMMU driver.
    DmarError,
    /// An error of an NVMe controller.
    Nvme,
    /// A block request that failed.
    IoError,
    /// An error of a network interface.
    Network,
    /// An error of another device.
    Device,
    /// Lack of memory, or faulty memory.
    Memory,
    /// A call trace that no other finding explains.
    CallTrace,
}

impl LogKind {
    /// Its name in case files and reports.
    #[must_use]
    pub fn name(self) -> String {
        // The serialized name is the only list of names.
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            _ => format!("{self:?}"),
        }
    }

    /// Whether the kernel itself broke down, so that what failed around it is explained.
    #[must_use]
    pub const fn is_crash(self) -> bool {
        matches!(
            self,
            Self::Sanitizer
                | Self::SoftLockup
                | Self::HardLockup
                | Self::HungTask
                | Self::ListCorruption
                | Self::GeneralProtection
                | Self::Oops
                | Self::Bug
                | Self::Panic
        )
    }
}

/// A line that was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Index of its record.
    pub record: usize,
    /// It, with its time stamp, escaped.
    pub line: String,
}

/// A DMA fault as the kernel reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where it stands.
    pub seen: LogLine,
    /// What the device was at.
    pub access: Access,
    /// The device, as printed: `00:03.0` or `0000:00:03.0`.
    pub device: String,
    /// PASID, where one was given.
    pub pasid: Option<u32>,
    /// Address (of an interrupt: index) that it used.
    pub address: u64,
    /// The number of the reason.
    pub reason: u8,
    /// The kernel's words for the reason.
    pub why: String,
}

/// Something that a kernel log must not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Kind of the finding.
    pub kind: LogKind,
    /// The line.
    pub seen: LogLine,
    /// The record's text as it was, for an allow-list's pattern.
    pub text: String,
    /// The next few lines, escaped.
    pub context: Vec<String>,
}

/// One IOMMU of several, as the log tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// Capability register.
    pub cap: Option<u64>,
    /// Extended capability register.
    pub ecap: Option<u64>,
    /// `Queued` or `Register based`.
    pub invalidation: Option<String>,
}

/// What a kernel log says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogFacts {
    /// Each time it says that batching is off because the IOMMU is virtual.
    pub warnings: Vec<LogLine>,
    /// `Translated` or `Passthrough`.
    pub default_domain: Option<String>,
    /// `lazy` or `strict`, as printed before the driver had its say.
    pub policy: Option<String>,
    /// The line of that.
    pub policy_line: Option<LogLine>,
    /// Whether the command line turned the IOMMU on, by the driver's line.
    pub enabled: bool,
    /// Whether the driver said that it is up.
    pub success: bool,
    /// Each IOMMU that the log names, by its number. At most 256.
    pub units: BTreeMap<u32, Unit>,
    /// Capability register of the first one, as printed at boot.
    pub cap: Option<u64>,
    /// Extended capability register of the first one, as printed at boot.
    pub ecap: Option<u64>,
    /// `Queued` or `Register based`, of the first one.
    pub invalidation: Option<String>,
    /// `xapic` or `x2apic`.
    pub interrupt_remapping: Option<String>,
    /// The first 100 DMA faults.
    pub faults: Vec<Fault>,
    /// How many there are.
    pub fault_count: u64,
    /// What must not be there, at most 100 of each kind.
    pub findings: Vec<Finding>,
    /// How many of each kind there are, with those that are not kept.
    pub counts: BTreeMap<LogKind, u64>,
}

impl LogFacts {
    /// How many lines of such kinds there are that must not be there.
    #[must_use]
    pub fn count(&self, wanted: impl Fn(LogKind) -> bool) -> u64 {
        self.counts.iter().filter(|(kind, _)| wanted(**kind)).map(|(_, count)| count).sum()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct FactPatterns {
    default_domain: Pattern,
    policy: Pattern,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FindingPatterns {
    kind: LogKind,
    r#match: Vec<String>,
    #[serde(default)]
    except: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PatternFile {
    facts: FactPatterns,
    findings: Vec<FindingPatterns>,
}

/// The patterns, compiled once.
struct Patterns {
    facts: FactPatterns,
    findings: RegexSet,
    /// The kind of each pattern in `findings`, and what takes it back.
    kinds: Vec<(LogKind, RegexSet)>,
}

static PATTERNS: LazyLock<Patterns> =
    LazyLock::new(|| compile(include_str!("../data/log-patterns.yaml")));

/// Compiles the built-in patterns.
///
/// # Panics
/// If they are invalid, which a unit test excludes.
fn compile(text: &str) -> Patterns {
    let root = Part::parse(text).expect("the patterns are YAML");
    let file: PatternFile = match read_tree(&root) {
        (Some(file), mistakes) if mistakes.is_empty() => file,
        (_, mistakes) => panic!("{mistakes:?}"),
    };
    let set = |patterns: &[String]| RegexSet::new(patterns).expect("the patterns are valid");
    let mut all = Vec::new();
    let mut kinds = Vec::new();
    let mut findings = file.findings;
    findings.extend(VIOMMUS.iter().flat_map(|viommu| viommu.findings()).map(driver_patterns));
    // The first kind that fits a line is its kind; they are declared in that order.
    findings.sort_by_key(|finding| finding.kind);
    for finding in &findings {
        let except = set(&finding.except);
        kinds.extend(finding.r#match.iter().map(|_| (finding.kind, except.clone())));
        all.extend(finding.r#match.iter().cloned());
    }
    Patterns { facts: file.facts, findings: set(&all), kinds }
}

/// Patterns of a driver as those of the file.
fn driver_patterns(pattern: &FindingPattern) -> FindingPatterns {
    FindingPatterns {
        kind: match pattern.kind {
            FindingKind::Fault => LogKind::DmaFault,
            FindingKind::InvalidationError => LogKind::InvalidationError,
            FindingKind::DriverError => LogKind::DmarError,
        },
        r#match: pattern.matches.clone(),
        except: Vec::new(),
    }
}

/// Known spellings of the warning, each with the kernels that print it.
pub fn warning_spellings() -> impl Iterator<Item = &'static WarningSpelling> {
    VIOMMUS.iter().flat_map(|viommu| viommu.warning_spellings())
}

/// The known spelling that stands in a line.
pub(crate) fn warning_spelling(line: &str) -> Option<&'static WarningSpelling> {
    warning_spellings().find(|spelling| line.contains(&spelling.text))
}

/// A record as a person reads it.
pub(crate) fn line(record: &LogRecord) -> String {
    let message = message(&record.text);
    let us = record.time_us;
    if message.len() == record.text.len() && us > 0 {
        format!("[{:>5}.{:06}] {}", us / 1_000_000, us % 1_000_000, shown(message))
    } else {
        shown(&record.text)
    }
}

/// Reads a kernel log, from `/dev/kmsg` or from a console.
#[must_use]
pub fn read(records: &[LogRecord]) -> LogFacts {
    read_but(records, |_, _| false)
}

/// Reads a kernel log in which lines of a kind and a text may be there. They neither count nor take the
/// place of others of their kind.
pub(crate) fn read_but(records: &[LogRecord], allowed: impl Fn(LogKind, &str) -> bool) -> LogFacts {
    let mut facts = LogFacts::default();
    let mut last_finding = None;
    // A cut-here line stands before the splat that explains it, so it waits for that.
    let mut waiting: Option<(usize, &str)> = None;
    for (index, record) in records.iter().enumerate() {
        // Continuation lines of one record follow a newline.
        for text in message(&record.text).split('\n') {
            fact(&mut facts, text, index, record);
            let Some(kind) = finding(text) else { continue };
            let trace = kind == LogKind::CallTrace;
            if trace && last_finding.is_some_and(|last| index - last <= TRACE_NEAR) {
                continue;
            }
            last_finding = Some(index);
            if let Some((at, cut)) = waiting.take()
                && index - at >= TRACE_NEAR
            {
                keep(&mut facts, records, LogKind::CallTrace, at, cut);
            }
            if allowed(kind, text) {
                continue;
            }
            if trace {
                waiting = Some((index, text));
            } else {
                keep(&mut facts, records, kind, index, text);
            }
        }
    }
    if let Some((at, cut)) = waiting {
        keep(&mut facts, records, LogKind::CallTrace, at, cut);
    }
    facts
}

/// Counts a finding, and keeps it where there are few of its kind.
fn keep(facts: &mut LogFacts, records: &[LogRecord], kind: LogKind, at: usize, text: &str) {
    let count = facts.counts.entry(kind).or_default();
    *count += 1;
    if *count <= MAX_OF_KIND as u64 {
        facts.findings.push(Finding {
            kind,
            seen: LogLine { record: at, line: line(&records[at]) },
            text: text.to_owned(),
            context: records[at + 1..].iter().take(CONTEXT).map(line).collect(),
        });
    }
}

fn finding(text: &str) -> Option<LogKind> {
    let patterns = &*PATTERNS;
    patterns
        .findings
        .matches(text)
        .into_iter()
        .map(|index| &patterns.kinds[index])
        .find(|(_, except)| !except.is_match(text))
        .map(|(kind, _)| *kind)
}

fn fact(facts: &mut LogFacts, text: &str, index: usize, record: &LogRecord) {
    let patterns = &*PATTERNS;
    let seen = || LogLine { record: index, line: line(record) };
    let word = |pattern: &Pattern| {
        pattern.0.captures(text).and_then(|found| Some(found.get(1)?.as_str().to_owned()))
    };
    if text.starts_with("iommu: ") {
        if let Some(kind) = word(&patterns.facts.default_domain) {
            facts.default_domain = Some(kind);
        } else if let Some(mode) = word(&patterns.facts.policy) {
            facts.policy = Some(mode);
            facts.policy_line = Some(seen());
        }
    }
    for viommu in VIOMMUS {
        for fact in viommu.log_facts(text) {
            if fact == LogFact::Warning && facts.warnings.len() < MAX_OF_KIND {
                facts.warnings.push(seen());
            }
            driver_fact(facts, fact);
        }
    }
    if let Some(fault) = fault_in(text, index, record) {
        facts.fault_count += 1;
        if facts.faults.len() < MAX_OF_KIND {
            facts.faults.push(fault);
        }
    }
}

fn driver_fact(facts: &mut LogFacts, fact: LogFact) {
    match fact {
        LogFact::Warning => {}
        LogFact::Enabled => facts.enabled = true,
        LogFact::Started => facts.success = true,
        LogFact::UnitRegisters { unit: number, cap, ecap } => {
            if let Some(unit) = unit(facts, &number) {
                (unit.cap, unit.ecap) = (cap, ecap);
            }
            facts.cap = facts.cap.or(cap);
            facts.ecap = facts.ecap.or(ecap);
        }
        LogFact::UnitInvalidation { unit: number, method } => {
            facts.invalidation.get_or_insert_with(|| method.clone());
            if let Some(unit) = unit(facts, &number) {
                unit.invalidation = Some(method);
            }
        }
        LogFact::InterruptRemapping(mode) => facts.interrupt_remapping = Some(mode),
    }
}

/// The IOMMU of that number, unless there are too many of them to be true.
fn unit<'a>(facts: &'a mut LogFacts, number: &str) -> Option<&'a mut Unit> {
    let number = number.parse().ok()?;
    let room = facts.units.len() < MAX_UNITS || facts.units.contains_key(&number);
    room.then(|| facts.units.entry(number).or_default())
}

/// The DMA fault that a line of a record reports.
pub(crate) fn fault_in(text: &str, index: usize, record: &LogRecord) -> Option<Fault> {
    let fault = VIOMMUS.iter().find_map(|viommu| viommu.fault(text))?;
    Some(Fault {
        seen: LogLine { record: index, line: line(record) },
        access: fault.access,
        device: fault.device,
        pasid: fault.pasid,
        address: fault.address,
        reason: fault.reason,
        why: shown(&fault.text),
    })
}

/// Faults among these records that an attack explains: those at a page that it tried for. Any other
/// is the guest's own.
#[must_use]
pub fn provoked(records: &[LogRecord], attack: &AttackOutcome) -> u64 {
    let Some(first) = attack.iova else { return 0 };
    let page = |address: u64| address / PAGE_BYTES;
    let tried = page(first)..=page(first.saturating_add(attack.size.saturating_sub(1)));
    let lines = |(index, record): (usize, _)| {
        let record: &LogRecord = record;
        message(&record.text).split('\n').filter_map(move |text| fault_in(text, index, record))
    };
    let faults = records.iter().enumerate().flat_map(lines);
    faults.filter(|fault| tried.contains(&page(fault.address))).count() as u64
}
