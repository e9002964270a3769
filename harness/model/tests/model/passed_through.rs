//! Verdicts on devices that are passed through.

use dmarig_model::{
    axes::{
        Passthrough::{Host, Nested, Probe},
        Policy::{Lazy, Passthrough as Identity, Strict},
        Toggle::{Off, On},
    },
    coherence::{Coherence, Mapping, TablesSource},
    log::provoked,
    observation::{Check, End, KernelLog, LogSource, Observation, Outcome, Outer},
    probe::{Attack, AttackOutcome, ProbeCounts},
};

use crate::seen::{Guest, Profile, fault_flood, records};

fn probed() -> Guest {
    Guest::new("6.1.176", On, Lazy).warned().with(|axes| axes.passthrough = Probe)
}

fn counts(observation: &mut Observation) -> &mut ProbeCounts {
    observation.windows[0].probe.as_mut().unwrap()
}

/// The check of that name does not hold, and the cell comes out so.
#[track_caller]
fn spoilt(outcome: Outcome, check: &str, spoil: impl FnOnce(&mut Observation)) {
    let verdict = probed().judged(spoil);
    assert_eq!(verdict.outcome, outcome, "{:?}", verdict.reasons);
    let found = verdict.checks.iter().find(|found| found.name == check).expect(check);
    assert_ne!(found.held, Some(true), "{found:?}");
}

#[test]
fn a_sound_kernel_passes() {
    probed().passes();
    probed().with(|axes| axes.policy = Strict).passes();
    let identity = Guest::new("6.1.176", On, Identity).warned().shows("identity", Profile::Nothing);
    identity.with(|axes| axes.passthrough = Probe).passes();
}

#[test]
fn what_the_device_saw_is_judged() {
    use Outcome::{Errored, Failed};
    spoilt(Failed, "device", |seen| counts(seen).corrupt = 1);
    spoilt(Failed, "device", |seen| counts(seen).faults = 1);
    spoilt(Failed, "device", |seen| counts(seen).exposed = 1);
    spoilt(Failed, "device", |seen| {
        counts(seen).failed.insert("0/2".into(), 1);
    });
    spoilt(Failed, "stale-requests", |seen| counts(seen).stale.as_mut().unwrap().stale = 1);
    spoilt(Failed, "leaked-requests", |seen| counts(seen).stale.as_mut().unwrap().never = 1);
    spoilt(Failed, "page-walk-in-vain-per-unmap", |seen| {
        seen.windows[0].trace.as_mut().unwrap().page_walk_in_vain = 100_000;
    });
    spoilt(Errored, "device", |seen| seen.windows[0].probe = None);
    spoilt(Errored, "stale-requests", |seen| counts(seen).stale = None);
}

#[test]
fn live_mappings_that_are_not_there_are_an_error() {
    let held = |live_before| {
        let guest = probed().with(|axes| axes.live_mappings = 1000);
        guest.judged(|seen| counts(seen).live_before = live_before).outcome
    };
    assert_eq!(held(1022), Outcome::Passed);
    assert_eq!(held(22), Outcome::Errored);
}

#[test]
fn without_caching_mode_qemu_has_to_refuse() {
    let died = |stderr: &str| End::QemuDied { status: "exit code 1".into(), stderr: stderr.into() };
    let refused = |end: End| {
        let guest = Guest::new("6.1.176", Off, Lazy).with(|axes| axes.passthrough = Host);
        guest.judged(|seen| seen.end = end).outcome
    };
    for words in [
        "qemu: -device vfio-pci: We need to set caching-mode=on for intel-iommu to enable device assignment with IOMMU protection.",
        "Device assignment is not allowed without enabling caching-mode=on for Intel IOMMU.",
        "qemu: device 01.01.0 requires caching mode",
    ] {
        assert_eq!(refused(died(words)), Outcome::Passed, "{words}");
    }
    // Mapped one to one there is nothing to shadow: a device in another process then just runs.
    let identity = Guest::new("6.1.176", Off, Identity).shows("identity", Profile::Nothing);
    identity.with(|axes| axes.passthrough = Probe).passes();
    assert_eq!(refused(died("qemu: no such device")), Outcome::Errored);
    assert_eq!(refused(End::Completed), Outcome::Failed);
}

#[test]
fn only_the_attacked_pages_faults_are_the_attacks() {
    let line = |address: &str| {
        format!(
            "DMAR: [DMA Read NO_PASID] Request device [00:01.0] fault addr 0x{address} [fault reason 0x06] PTE Read access is not set"
        )
    };
    let records = records(&["fffef000", "ffff0000", "2a00000000"].map(line).join("\n"));
    let outcome = |iova| AttackOutcome {
        kind: Attack::PastTheEnd,
        iova,
        size: 8,
        shadow_let_through: false,
        hypervisor_let_through: Some(false),
    };
    assert_eq!(provoked(&records, &outcome(Some(0xfffe_fffc))), 2);
    assert_eq!(provoked(&records, &outcome(Some(0xffff_1000))), 0);
    assert_eq!(provoked(&records, &outcome(None)), 0);
    let flood = crate::seen::records(&fault_flood(150));
    assert_eq!(provoked(&flood, &outcome(Some(0xdea_d000))), 150);
}

#[test]
fn a_control_that_shows_nothing_does_not_blame_the_kernel() {
    let outcome = |name: &str| {
        let mut verdict = probed().judged(|_| ());
        verdict.add(Check {
            name: name.to_owned(),
            rule: "growth".to_owned(),
            expected: "at least 1".to_owned(),
            found: "0".to_owned(),
            held: Some(false),
            evidence: Vec::new(),
        });
        verdict.outcome
    };
    assert_eq!(outcome("control/page-walk-in-vain-per-unmap-growth"), Outcome::Errored);
    assert_eq!(outcome("page-walk-in-vain-per-unmap-growth"), Outcome::Failed);
}

#[test]
fn mappings_that_are_not_the_tables_are_the_kernels_fault() {
    let page = Mapping { iova: 0xffff_0000, size: 4096, offset: 0x1000, read: true, write: true };
    let compared = |tables: &[Mapping], shadow: &[Mapping]| {
        let found = Coherence::of(TablesSource::Memory, tables, shadow, 1);
        move |seen: &mut Observation| seen.windows[0].coherence = vec![found]
    };
    assert_eq!(probed().judged(compared(&[page], &[page])).outcome, Outcome::Passed);
    spoilt(Outcome::Failed, "coherence", compared(&[page], &[]));
    spoilt(Outcome::Failed, "coherence", compared(&[], &[page]));
    let verdict = probed().judged(compared(&[], &[page]));
    let check = verdict.checks.iter().find(|check| check.name == "coherence").unwrap();
    let line = "for the device, not in the tables: 0x1000 bytes at 0xffff0000, memory 0x1000, rw";
    assert_eq!(check.evidence, [line]);
}

#[test]
fn what_the_outer_guests_iommu_stops_is_told() {
    let fault = "DMAR: [DMA Write NO_PASID] Request device [00:01.0] fault addr 0x1000 [fault reason 0x05] PTE Write access is not set";
    let nested = |log: &str| {
        let guest = probed().with(|axes| axes.passthrough = Nested);
        guest.judged(|seen| {
            seen.outer = Some(Box::new(Outer {
                axes: seen.axes.clone(),
                setup: seen.setup.clone(),
                release: Some("6.12.107".into()),
                log: KernelLog { source: LogSource::Kmsg, records: records(log), lost: 0 },
                output: String::new(),
                phases: Vec::new(),
            }));
        })
    };
    assert_eq!(nested("VFIO - User Level meta-driver version: 0.3").outcome, Outcome::Passed);
    let verdict = nested(fault);
    assert_eq!(verdict.outcome, Outcome::Failed);
    assert!(verdict.reasons[0].starts_with("outer-guest: a line of trouble"), "{verdict:?}");
}
