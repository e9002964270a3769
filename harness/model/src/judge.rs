//! The verdict on one cell: a pure function of its case and of what was seen of it.
//!
//! A verdict passes only what was judged. What could not be judged is told apart: where the guest
//! gave nothing to divide by, that is a failure; where the rig did not see all (log records that
//! were overwritten, no counts), the cell is an error, and nothing is said of the kernel.

use crate::{
    case::{Case, Workload},
    expect::{MetricBound, Presence, Rule, decide, last_of_each},
    log::{Finding, LogFacts, LogKind, read_but},
    measure::{Counted, NoCount, metric},
    metrics,
    observation::{Check, End, Observation, Outcome, Verdict, WindowKind},
    text::shown,
    value::Bound,
    version::Version,
    windows::{Side, Windows},
};

mod passed_through;
mod proof;
mod ratio;

pub use passed_through::attacks_of;
pub(crate) use proof::group_types;
pub use ratio::{Estimator, Interval, judge_ratios};

/// Rule named by checks that every cell has.
const ALWAYS: &str = "every cell";

/// Lines of evidence that one check shows.
const MAX_EVIDENCE: usize = 8;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Yes,
    No,
    /// The guest gave nothing to judge by: a failure.
    NotJudged,
    /// The rig did not see it: an error.
    NotSeen,
    /// It could not be judged and need not be.
    LetPass,
}

/// A check with how it came out, and what its failure means.
struct Judged {
    check: Check,
    held: Held,
    because: Option<String>,
}

impl Judged {
    fn new(name: &str, rule: &str, held: Held, expected: String, found: String) -> Self {
        let known = match held {
            Held::Yes => Some(true),
            Held::No => Some(false),
            Held::NotJudged | Held::NotSeen | Held::LetPass => None,
        };
        let check = Check {
            name: name.to_owned(),
            rule: rule.to_owned(),
            expected,
            found,
            held: known,
            evidence: Vec::new(),
        };
        Self { check, held, because: None }
    }

    /// A check that a rule asked for.
    fn by(rule: &Rule, name: &str, held: Held, expected: String, found: String) -> Self {
        Self { because: rule.because.clone(), ..Self::new(name, &rule.name, held, expected, found) }
    }

    fn with(mut self, evidence: impl IntoIterator<Item = String>) -> Self {
        self.check.evidence.extend(evidence.into_iter().take(MAX_EVIDENCE));
        self
    }

    /// Why the cell did not pass, on a line.
    fn reason(&self) -> Option<String> {
        let Check { name, expected, found, .. } = &self.check;
        let what = match self.held {
            Held::Yes | Held::LetPass => return None,
            Held::No => format!("{name}: {found}, expected {expected}"),
            Held::NotJudged | Held::NotSeen => {
                format!("{name}: could not be judged: {found}, expected {expected}")
            }
        };
        // What a failure means says nothing of what was not seen.
        match self.because.as_ref().filter(|_| self.held == Held::No) {
            Some(because) => Some(format!("{what}: {because}")),
            None => Some(what),
        }
    }
}

/// Judges a cell. Ratios to other cells are judged by [`judge_ratios`].
#[must_use]
pub fn judge(case: &Case, observation: &Observation) -> Verdict {
    // Faults have a check of their own, because a case may expect some.
    let facts = read_but(&observation.log.records, |kind, text| {
        kind != LogKind::DmaFault && allowed(case, kind, text)
    });
    if let Some(verdict) = passed_through::refusal(observation) {
        return verdict;
    }
    if let Some(outcome) = outcome_of_end(&observation.end, &facts) {
        return ended(&observation.end, outcome, &facts);
    }
    let mut wrong = proof::mismatches(observation, &facts);
    wrong.extend(passed_through::not_held(observation));
    let mut judged = vec![log_check(&facts), behind_iommu(observation), integrity(observation)];
    judged.extend(passed_through::device(observation));
    judged.extend(passed_through::attacks(case, observation));
    judged.extend(passed_through::coherence(observation));
    judged.extend(passed_through::outer(observation));
    let kernel = kernel_version(observation);
    let mut axes = observation.axes.clone();
    // Conditions speak of what the guest ran on.
    axes.accelerator = observation.setup.accelerator;
    let qemu = observation.setup.qemu_version.parse().ok();
    let rules = case.applying_rules(&axes, kernel, qemu);
    judged.extend(warning(&rules, observation, &facts));
    judged.extend(groups(&rules, observation));
    judged.push(faults(&rules, observation, &facts));
    judged.push(lost(&rules, observation));
    judged.extend(windows(case, observation));
    judged.extend(counts(&rules, case, observation));
    judged.extend(bounds(&rules, observation));
    // What a missing warning or invalidation means is said of a kernel whose IOMMU is in use.
    if judged
        .iter()
        .any(|judged| judged.check.name == metrics::BEHIND_IOMMU && judged.held == Held::No)
    {
        judged.iter_mut().for_each(|judged| judged.because = None);
    }
    if kernel.is_none() {
        let found = "the guest did not report its kernel".to_owned();
        judged.push(Judged::new(
            metrics::KERNEL,
            ALWAYS,
            Held::NotSeen,
            "a version".to_owned(),
            found,
        ));
    }
    verdict(wrong, judged)
}

/// The kernel's version: by its banner, else by its release.
#[must_use]
pub fn kernel_version(observation: &Observation) -> Option<Version> {
    let banner = observation.guest.as_ref().and_then(|guest| Version::from_banner(&guest.version));
    banner.or_else(|| observation.release.as_ref()?.parse().ok())
}

fn verdict(wrong: Vec<String>, judged: Vec<Judged>) -> Verdict {
    let any = |held| judged.iter().any(|judged| judged.held == held);
    let outcome = if !wrong.is_empty() {
        // Whatever else was seen is not of the guest that was asked for.
        Outcome::Errored
    } else if any(Held::No) || any(Held::NotJudged) {
        Outcome::Failed
    } else if any(Held::NotSeen) {
        Outcome::Errored
    } else {
        Outcome::Passed
    };
    let mut reasons = wrong;
    reasons.extend(judged.iter().filter_map(Judged::reason));
    let checks = judged.into_iter().map(|judged| judged.check).collect();
    Verdict { outcome, reasons, checks }
}

/// The outcome where the cell did not come to its planned end. A kernel that broke down explains
/// an agent that failed or fell silent; without that they are the rig's fault.
fn outcome_of_end(end: &End, facts: &LogFacts) -> Option<Outcome> {
    let crashed = facts.count(LogKind::is_crash) > 0;
    Some(match end {
        End::Completed => return None,
        End::Skipped { .. } => Outcome::Skipped,
        End::Panicked { .. } | End::WentDown { .. } => Outcome::Failed,
        End::TimedOut { .. } => Outcome::TimedOut,
        End::AgentFailed { .. } | End::ChannelBroken { .. } if crashed => Outcome::Failed,
        End::AgentFailed { .. }
        | End::ChannelBroken { .. }
        | End::QemuDied { .. }
        | End::HostFault { .. }
        | End::Interrupted => Outcome::Errored,
    })
}

fn ended(end: &End, outcome: Outcome, facts: &LogFacts) -> Verdict {
    let mut verdict = Verdict { outcome, reasons: vec![end.in_words()], checks: Vec::new() };
    if outcome != Outcome::Skipped && !facts.findings.is_empty() {
        let log = log_check(facts);
        verdict.reasons.extend(log.reason());
        verdict.checks.push(log.check);
    }
    verdict
}

fn allowed(case: &Case, kind: LogKind, text: &str) -> bool {
    case.allow.iter().any(|allow| {
        allow.kind == kind && allow.pattern.as_ref().is_none_or(|pattern| pattern.0.is_match(text))
    })
}

fn log_check(facts: &LogFacts) -> Judged {
    let findings: Vec<&Finding> =
        facts.findings.iter().filter(|finding| finding.kind != LogKind::DmaFault).collect();
    let held = if findings.is_empty() { Held::Yes } else { Held::No };
    let found = match &*findings {
        [] => "nothing".to_owned(),
        [one] => format!("{}: {}", one.kind.name(), one.seen.line),
        [first, ..] => {
            let more = facts.count(|kind| kind != LogKind::DmaFault) - 1;
            format!("{}: {} (and {more} more)", first.kind.name(), first.seen.line)
        }
    };
    let lines = findings.iter().flat_map(|finding| {
        std::iter::once(finding.seen.line.clone()).chain(finding.context.iter().take(2).cloned())
    });
    Judged::new(
        metrics::LOG,
        ALWAYS,
        held,
        "nothing suspicious in the kernel log".to_owned(),
        found,
    )
    .with(lines)
}

fn behind_iommu(observation: &Observation) -> Judged {
    let expected = "each device under test behind the IOMMU".to_owned();
    let targets = observation.guest.as_ref().map_or(&[][..], |guest| &guest.targets);
    let outside: Vec<String> = targets
        .iter()
        .filter(|target| target.group.is_none())
        .map(|target| shown(&target.address))
        .collect();
    let (held, found) = if observation.guest.is_none() {
        (Held::NotSeen, "the guest never described itself".to_owned())
    } else if targets.is_empty() {
        (Held::No, format!("the guest's kernel has no {}", observation.axes.device))
    } else if outside.is_empty() {
        (Held::Yes, format!("{} of them", targets.len()))
    } else {
        (Held::No, format!("{} in no IOMMU group", outside.join(", ")))
    };
    Judged::new(metrics::BEHIND_IOMMU, ALWAYS, held, expected, found)
}

fn integrity(observation: &Observation) -> Judged {
    let reports = || observation.windows.iter().map(|window| &window.report);
    let corrupt: u64 = reports().map(|report| report.corrupt).sum();
    let errors: u64 = reports().map(|report| report.errors).sum();
    let exits: Vec<String> = reports()
        .filter_map(|report| report.exit)
        .filter(|exit| *exit != dmarig_wire::Exit::Code(0))
        .map(|exit| match exit {
            dmarig_wire::Exit::Code(code) => format!("the program ended with exit code {code}"),
            dmarig_wire::Exit::Signal(signal) => format!("signal {signal} ended the program"),
            dmarig_wire::Exit::Unknown => "the program ended nobody knows how".to_owned(),
        })
        .collect();
    let mut found = Vec::new();
    if corrupt > 0 {
        found.push(format!("{corrupt} integrity failures"));
    }
    if errors > 0 {
        found.push(format!("{errors} failed operations"));
    }
    found.extend(exits);
    let held = if found.is_empty() { Held::Yes } else { Held::No };
    let problems =
        reports().flat_map(|report| &report.problems).map(|problem| shown(&problem.what));
    if let (Held::No, Some(first)) = (held, problems.clone().next()) {
        found.push(format!("first: {first}"));
    }
    let found = if held == Held::Yes { "all as written".to_owned() } else { found.join(", ") };
    let expected = "every byte as written and no failed operation".to_owned();
    Judged::new(metrics::INTEGRITY, ALWAYS, held, expected, found).with(problems)
}

fn warning(rules: &[&Rule], observation: &Observation, facts: &LogFacts) -> Option<Judged> {
    let (rule, presence) = decide(rules, |rule| rule.warning)?;
    let (present, lost) = (!facts.warnings.is_empty(), observation.log.lost);
    let expected = match presence {
        Presence::Present => "present",
        Presence::Absent => "absent",
        Presence::Any => return None,
    };
    // A record that was overwritten may have been the warning.
    let times = facts.warnings.len();
    let (held, found) = if times > 1 && presence == Presence::Present {
        // Kernels say it once, by a flag or by the policy that it leaves behind.
        (Held::No, format!("present {times} times"))
    } else if !present && lost > 0 {
        (Held::NotSeen, format!("not in what is left of the log ({lost} records lost)"))
    } else if present == (presence == Presence::Present) {
        (Held::Yes, expected.to_owned())
    } else {
        (Held::No, if present { "present" } else { "absent" }.to_owned())
    };
    let lines = facts.warnings.iter().map(|seen| seen.line.clone());
    let policy = facts.policy_line.iter().map(|seen| seen.line.clone());
    Some(
        Judged::by(rule, metrics::WARNING, held, expected.to_owned(), found)
            .with(lines.chain(policy)),
    )
}

fn groups(rules: &[&Rule], observation: &Observation) -> Vec<Judged> {
    let before = decide(rules, |rule| (!rule.group_type.is_empty()).then_some(&*rule.group_type));
    let after = decide(rules, |rule| {
        (!rule.group_type_after.is_empty()).then_some(&*rule.group_type_after)
    });
    let sides = [
        (metrics::GROUP_TYPE, before, &observation.guest),
        (metrics::GROUP_TYPE_AFTER, after, &observation.guest_after),
    ];
    let check = |(name, decided, guest): (&str, Option<(&Rule, &[String])>, &Option<_>)| {
        let (rule, types) = decided?;
        let expected = types.join(" or ");
        let Some(guest) = guest else {
            let found = "the guest did not report it".to_owned();
            return Some(Judged::by(rule, name, Held::NotSeen, expected, found));
        };
        let kinds = group_types(guest);
        let mut distinct: Vec<String> = kinds
            .iter()
            .map(|(_, kind)| kind.clone().unwrap_or_else(|| "unknown".to_owned()))
            .collect();
        distinct.sort();
        distinct.dedup();
        // A device in no group has a check of its own.
        let held = if kinds.is_empty() {
            Held::LetPass
        } else if kinds.iter().any(|(_, kind)| kind.is_none()) {
            Held::NotSeen
        } else if distinct.iter().all(|kind| types.contains(kind)) {
            Held::Yes
        } else {
            Held::No
        };
        let lines = kinds.iter().map(|(device, kind)| {
            format!("{}: {}", shown(device), shown(kind.as_deref().unwrap_or("no type in sysfs")))
        });
        let found = shown(&distinct.join(", "));
        Some(Judged::by(rule, name, held, expected, found).with(lines))
    };
    sides.into_iter().filter_map(check).collect()
}

fn faults(rules: &[&Rule], observation: &Observation, facts: &LogFacts) -> Judged {
    let none = Bound::exactly(0.0);
    let decided = decide(rules, |rule| rule.bound(metrics::FAULTS));
    let bound = decided.map_or(none, |(_, bound)| bound);
    let traced: Vec<_> =
        observation.windows.iter().filter_map(|window| window.trace.as_ref()).collect();
    let in_trace: u64 = traced.iter().map(|trace| trace.faults).sum();
    // The kernel limits the rate of its lines, and repeats some of the hypervisor's faults. Where
    // only its interrupt's line is left, that was one fault at least.
    let is_fault = |finding: &&Finding| finding.kind == LogKind::DmaFault;
    let handled = u64::from(facts.findings.iter().any(|finding| is_fault(&finding)));
    let provoked: u64 = observation.attacks.iter().map(|attacked| attacked.guest_faults).sum();
    let in_log = facts.fault_count.max(handled).saturating_sub(provoked);
    let count = in_trace.max(in_log);
    let held = if bound.holds(count as f64) { Held::Yes } else { Held::No };
    let found = match facts.faults.first() {
        Some(fault) => format!(
            "{count} (first: {:?} by {} at {:#x}, reason {:#x})",
            fault.access,
            shown(&fault.device),
            fault.address,
            fault.reason
        ),
        None => count.to_string(),
    };
    let lines = facts.findings.iter().filter(is_fault).map(|finding| finding.seen.line.clone());
    let traced = traced.iter().flat_map(|trace| &trace.fault_lines).map(|line| shown(line));
    let expected = bound.to_string();
    match decided {
        Some((rule, _)) => Judged::by(rule, metrics::FAULTS, held, expected, found),
        None => Judged::new(metrics::FAULTS, ALWAYS, held, expected, found),
    }
    .with(lines.chain(traced))
}

fn lost(rules: &[&Rule], observation: &Observation) -> Judged {
    let decided = decide(rules, |rule| rule.bound(metrics::LOST));
    let bound = decided.map_or(Bound::exactly(0.0), |(_, bound)| bound);
    let count: u64 = observation.windows.iter().map(|window| window.report.lost).sum();
    let held = if bound.holds(count as f64) { Held::Yes } else { Held::No };
    let (expected, found) = (bound.to_string(), count.to_string());
    match decided {
        Some((rule, _)) => Judged::by(rule, metrics::LOST, held, expected, found),
        None => Judged::new(metrics::LOST, ALWAYS, held, expected, found),
    }
}

fn counts(rules: &[&Rule], case: &Case, observation: &Observation) -> Vec<Judged> {
    if !case.windows.count || case.workload == Workload::Idle {
        return Vec::new();
    }
    let counted = Counted::of(observation, Side::Own);
    let unmaps = counted.as_ref().and_then(|counted| counted.dma).map(|dma| dma.unmaps);
    let check = |name: &str, rule: &Rule, bound: Bound| {
        let rate = name.contains("-per-");
        let few = rate && unmaps < rule.needs_unmaps && unmaps.is_some();
        let value = match &counted {
            Some(counted) => counted.value(name),
            None => Err(NoCount::NoData),
        };
        let program = matches!(case.workload, Workload::Exec(_));
        let (held, found) = match value {
            Ok(value) if bound.holds(value) => (Held::Yes, number(value)),
            _ if few => (Held::LetPass, "too few unmaps to judge".to_owned()),
            Ok(value) => (Held::No, number(value)),
            Err(NoCount::NoDenominator) => {
                let held = if rule.optional || program { Held::LetPass } else { Held::NotJudged };
                (held, "nothing was unmapped".to_owned())
            }
            Err(NoCount::NoData) if program => (Held::LetPass, "not counted".to_owned()),
            Err(NoCount::NoData) => (Held::NotSeen, "not counted".to_owned()),
        };
        let evidence = counted.as_ref().map(Counted::describe);
        Judged::by(rule, name, held, bound.to_string(), found).with(evidence)
    };
    metrics::counts()
        .filter_map(|count| {
            let (rule, bound) = decide(rules, |rule| rule.bound(count.name))?;
            Some(check(count.name, rule, bound))
        })
        .collect()
}

/// A count or rate, short; but what is no whole number never reads as one.
fn number(value: f64) -> String {
    let short = |places: usize| {
        let text = format!("{value:.places$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let whole = value.fract() == 0.0;
    (3..=9).map(short).find(|text| whole || text.contains('.')).unwrap_or_else(|| short(9))
}

fn bounds(rules: &[&Rule], observation: &Observation) -> Vec<Judged> {
    let accelerator = observation.setup.accelerator;
    let here = |bound: &MetricBound| {
        bound.accelerators.iter().any(|ran_on| ran_on.accelerator() == accelerator)
    };
    let all = rules.iter().flat_map(|rule| rule.bounds.iter().map(move |bound| (*rule, bound)));
    // A bound for another accelerator takes none back that is for this one.
    let (here_too, elsewhere): (Vec<_>, Vec<_>) = all.partition(|(_, bound)| here(bound));
    let deciding =
        last_of_each(elsewhere.into_iter().chain(here_too), |(_, bound)| bound.metric.as_str());
    let judged = |(rule, wanted): (&Rule, &MetricBound)| {
        let bound = Bound { min: wanted.min, max: wanted.max };
        let measured = metric(observation, Side::Own, &wanted.metric);
        let unit = measured.as_ref().map_or("", |measured| &measured.unit);
        let expected = format!("{bound} {}", shown(unit));
        let same_unit = wanted.unit.as_ref().is_none_or(|given| given == unit);
        let (held, found) = match &measured {
            _ if !here(wanted) => (Held::LetPass, format!("not judged under {accelerator}")),
            None => (Held::NotSeen, "not measured".to_owned()),
            Some(_) if !same_unit => (Held::NotSeen, format!("measured in {}", shown(unit))),
            Some(measured) => {
                let median = measured.median();
                let held = if bound.holds(median) { Held::Yes } else { Held::No };
                (held, format!("{} {}", number(median), shown(unit)))
            }
        };
        Judged::by(rule, &wanted.metric, held, expected, found)
    };
    deciding.into_iter().map(judged).collect()
}

/// Whether each window that the case asks for is there: one that is missing is the rig's fault.
fn windows(case: &Case, observation: &Observation) -> Option<Judged> {
    let Windows { count, time, .. } = case.windows;
    let of = |kind| observation.windows.iter().filter(|window| window.kind == kind).count();
    let (counting, timing) = (of(WindowKind::Counting), of(WindowKind::Timing));
    let missing = (count && counting == 0) || timing < time as usize;
    (missing && case.workload != Workload::Idle).then(|| {
        let expected = format!("{} counting, {time} timing", u8::from(count));
        let found = format!("{counting} counting, {timing} timing");
        Judged::new(metrics::WINDOWS, ALWAYS, Held::NotSeen, expected, found)
    })
}
