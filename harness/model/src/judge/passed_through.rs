//! What is judged of cells whose device is passed through.

use crate::{
    axes::{Axes, Passthrough, Policy, Toggle},
    case::Case,
    coherence::Mapping,
    judge::{ALWAYS, Held, Judged},
    log::read,
    observation::{End, Observation, Outcome, Verdict},
    probe::{Attack, ProbeCounts},
    text::{shown, shown_end},
    viommu,
};

/// The verdict on a device that is passed through although caching mode is off: QEMU has to refuse
/// it. `None` where that is not asked, or something else is in the way.
pub(super) fn refusal(observation: &Observation) -> Option<Verdict> {
    let axes = &observation.axes;
    if axes.passthrough == Passthrough::None || axes.caching_mode == Toggle::On {
        return None;
    }
    let expected = "QEMU's refusal of a passed-through device without caching mode".to_owned();
    let (held, found) = match &observation.end {
        End::QemuDied { status, stderr } => {
            let refusals = viommu::for_axes(axes).qemu().passthrough_refusals;
            let line =
                stderr.lines().find(|line| refusals.iter().any(|words| line.contains(words)));
            (Held::Yes, format!("{} ({})", shown(line?), shown(status)))
        }
        // A device in another process is looked at when translation is turned on, and mapped one to
        // one it never is: there is nothing to shadow, and nothing to refuse.
        End::Completed
            if axes.passthrough == Passthrough::Probe && axes.policy == Policy::Passthrough =>
        {
            return None;
        }
        End::Completed => {
            let words = shown_end(&observation.qemu_stderr);
            let words = if words.is_empty() { "nothing".to_owned() } else { words };
            (Held::No, format!("it ran; QEMU printed {words}"))
        }
        _ => return None,
    };
    let judged = Judged::new("refusal", ALWAYS, held, expected, found);
    Some(Verdict {
        outcome: if held == Held::Yes { Outcome::Passed } else { Outcome::Failed },
        reasons: judged.reason().into_iter().collect(),
        checks: vec![judged.check],
    })
}

/// What was asked for and the device did not see, as the reason that nothing is said of the kernel.
pub(super) fn not_held(observation: &Observation) -> Option<String> {
    let asked = u64::from(observation.axes.live_mappings);
    let counts = observation.windows.iter().filter_map(|window| window.probe.as_ref());
    let least = counts.map(|counts| counts.live_before).min()?;
    (least < asked).then(|| {
        format!(
            "not what you asked for: live-mappings is {least}, not {asked} (the device; the guest's \
             log tells why its driver made no larger host memory buffer)"
        )
    })
}

/// What the device itself saw: data that arrived as it was sent, and mappings for all it touched.
pub(super) fn device(observation: &Observation) -> Option<Judged> {
    let counts = || observation.windows.iter().filter_map(|window| window.probe.as_ref());
    if observation.axes.passthrough != Passthrough::Probe || observation.windows.is_empty() {
        return None;
    }
    let expected = "all as the workload sent it, within mappings that allow no more".to_owned();
    if counts().next().is_none() {
        let found = "the probe was never asked".to_owned();
        return Some(Judged::new("device", ALWAYS, Held::NotSeen, expected, found));
    }
    let mut found = Vec::new();
    let sum = |of: fn(&ProbeCounts) -> u64| counts().map(of).sum::<u64>();
    let (corrupt, faults) = (sum(|counts| counts.corrupt), sum(|counts| counts.faults));
    let exposed = sum(|counts| counts.exposed);
    if exposed > 0 {
        found.push(format!("{exposed} buffers that it only reads could be written"));
    }
    if corrupt > 0 {
        found.push(format!("{corrupt} corrupt sectors"));
    }
    if faults > 0 {
        found.push(format!("{faults} accesses outside of mappings"));
    }
    for (status, count) in counts().flat_map(|counts| &counts.failed) {
        found.push(format!("{count} commands failed with {}", shown(status)));
    }
    let lines = counts().flat_map(|counts| {
        counts.corrupt_lines.iter().chain(&counts.fault_lines).chain(&counts.exposed_lines)
    });
    let held = if found.is_empty() { Held::Yes } else { Held::No };
    let found = if found.is_empty() { "so it was".to_owned() } else { found.join(", ") };
    Some(Judged::new("device", ALWAYS, held, expected, found).with(lines.map(|line| shown(line))))
}

/// That DMA which must fault did, on each side: in what the device knows of its mappings, in the
/// hypervisor, and in the guest's log.
pub(super) fn attacks(case: &Case, observation: &Observation) -> Vec<Judged> {
    let wanted = attacks_of(case, &observation.axes);
    let one = |kind: &Attack| {
        let name = format!("attack-{}", kind.name());
        let expected = "a fault for the device, the hypervisor and the guest".to_owned();
        let Some(attacked) = observation.attacks.iter().find(|seen| seen.outcome.kind == *kind)
        else {
            return Judged::new(&name, ALWAYS, Held::NotSeen, expected, "not tried".to_owned());
        };
        let outcome = &attacked.outcome;
        let Some(iova) = outcome.iova else {
            let found = "there was nothing to try it on".to_owned();
            return Judged::new(&name, ALWAYS, Held::NotSeen, expected, found);
        };
        let mut wrong = Vec::new();
        if outcome.shadow_let_through {
            wrong.push("the device's mappings allow it");
        }
        match outcome.hypervisor_let_through {
            Some(true) => wrong.push("the hypervisor let it through"),
            Some(false) if attacked.hypervisor_faults == 0 => {
                wrong.push("the hypervisor reported no fault");
            }
            Some(false) if attacked.guest_faults == 0 => wrong.push("the guest logged no fault"),
            Some(false) => {}
            None => wrong.push("the hypervisor could not be asked"),
        }
        let held = if wrong.is_empty() { Held::Yes } else { Held::No };
        let what = if wrong.is_empty() { "so it was".to_owned() } else { wrong.join(", ") };
        let found = format!("{} bytes at {iova:#x}: {what}", outcome.size);
        Judged::new(&name, ALWAYS, held, expected, found)
    };
    wanted.iter().map(one).collect()
}

/// That the device's mappings were those of the guest's page tables whenever the guest was at rest.
pub(super) fn coherence(observation: &Observation) -> Option<Judged> {
    let all: Vec<_> = observation.windows.iter().flat_map(|window| &window.coherence).collect();
    let last = all.last()?;
    let expected = "the device's mappings are those of the guest's page tables".to_owned();
    let wrong = all.iter().filter(|found| !found.holds());
    let lines = wrong.clone().flat_map(|found| {
        let line = |what: &'static str| {
            move |mapping: &Mapping| {
                let Mapping { iova, size, offset, read, write } = mapping;
                let read = if *read { "r" } else { "-" };
                let write = if *write { "w" } else { "-" };
                format!("{what}: {size:#x} bytes at {iova:#x}, memory {offset:#x}, {read}{write}")
            }
        };
        let missing = found.missing_first.iter().map(line("in the tables, not for the device"));
        missing.chain(found.extra_first.iter().map(line("for the device, not in the tables")))
    });
    let (held, found) = match wrong.clone().next() {
        None => {
            let by: Vec<&str> = all.iter().map(|found| found.source.name()).collect();
            let by = if by.contains(&"debugfs") { "memory and debugfs" } else { "memory" };
            (Held::Yes, format!("they are: {} entries ({by})", last.entries))
        }
        Some(first) => {
            let (missing, extra, source) = (first.missing, first.extra, first.source.name());
            (Held::No, format!("{missing} are missing, {extra} are left ({source})"))
        }
    };
    Some(Judged::new("coherence", ALWAYS, held, expected, found).with(lines))
}

/// What an outer guest has to say of a device that it passed through: its virtual IOMMU stands where
/// hardware would, and whatever that stops is DMA which the inner one should not have let out.
pub(super) fn outer(observation: &Observation) -> Option<Judged> {
    let outer = observation.outer.as_ref()?;
    let facts = read(&outer.log.records);
    let expected = "no DMA stopped, no trouble logged".to_owned();
    let held = if facts.findings.is_empty() { Held::Yes } else { Held::No };
    let found = match facts.count(|_| true) {
        0 => "so it was".to_owned(),
        1 => "a line of trouble".to_owned(),
        count => format!("{count} lines of trouble"),
    };
    let lines = facts.findings.iter().map(|finding| finding.seen.line.clone());
    Some(Judged::new("outer-guest", ALWAYS, held, expected, found).with(lines))
}

/// The attacks that a cell is to have: a device that is mapped one to one reaches everything.
#[must_use]
pub fn attacks_of(case: &Case, axes: &Axes) -> Vec<Attack> {
    if axes.passthrough == Passthrough::Probe && axes.policy != Policy::Passthrough {
        case.probe.attacks.clone()
    } else {
        Vec::new()
    }
}
