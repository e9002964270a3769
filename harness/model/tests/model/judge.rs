//! Verdicts: each row of what kernels are known to do, each way to be wrong, each way to end.

use dmarig_model::{
    axes::{
        Device,
        Policy::{self, Lazy, Passthrough, Strict},
        ScalableMode,
        Toggle::{self, Off, On},
    },
    case::Case,
    judge::judge,
    measure::{DmaSource, dma_ops},
    observation::{End, LogSource, Observation, Outcome, Verdict},
};
use dmarig_wire::{DmaCounts, Interface};

use crate::seen::{Guest, OPS, Profile, case_for, fault_flood, records};

pub(crate) fn guest(kernel: &'static str, caching_mode: Toggle, policy: Policy) -> Guest {
    Guest::new(kernel, caching_mode, policy)
}

/// A guest that does what the commit under test asks for.
pub(crate) fn sound() -> Guest {
    guest("6.1.176", On, Lazy).warned()
}

#[track_caller]
fn errors(verdict: &Verdict, reason: &str) {
    assert_eq!((verdict.outcome, &*verdict.reasons), (Outcome::Errored, &[reason.to_owned()][..]));
}

#[test]
fn kernels_that_do_what_they_do_pass() {
    use Profile::{Batched, Nothing};
    // 5.10: sysfs knows no DMA-FQ, and nothing is said where strict was asked for.
    guest("5.10.262", On, Lazy).warned().passes();
    guest("5.10.262", On, Strict).passes();
    guest("5.10.262", On, Passthrough).warned().shows("identity", Nothing).passes();
    guest("5.10.262", Off, Lazy).shows("DMA", Batched).passes();
    guest("5.10.262", Off, Strict).passes();
    guest("5.10.262", Off, Passthrough).shows("identity", Nothing).passes();
    for kernel in ["5.15.1", "6.1.176", "6.12.107", "7.3.4"] {
        guest(kernel, On, Lazy).warned().passes();
        guest(kernel, On, Strict).warned().passes();
        guest(kernel, On, Passthrough).warned().shows("identity", Nothing).passes();
        guest(kernel, Off, Lazy).shows("DMA-FQ", Batched).passes();
        guest(kernel, Off, Strict).passes();
        guest(kernel, Off, Passthrough).shows("identity", Nothing).passes();
    }
}

#[test]
fn scalable_mode_passes_as_it_should() {
    let mode = |guest: Guest, mode| guest.with(|axes| axes.scalable_mode = mode);
    let second = ScalableMode::SecondStage;
    let first = ScalableMode::FirstStage;
    for kernel in ["6.12.107", "7.3.4"] {
        mode(guest(kernel, On, Lazy).warned(), second).passes();
        mode(guest(kernel, On, Lazy).shows("DMA-FQ", Profile::Batched), first).passes();
        mode(guest(kernel, On, Lazy).warned(), first).fails(&[
            "warning",
            "group-type",
            "psi",
            "dsi-per-1000-unmaps",
        ]);
        mode(guest(kernel, On, Strict), first).passes();
    }
    mode(guest("5.10.262", On, Lazy).warned(), first).passes();
    mode(guest("5.10.262", On, Lazy).warned().shows("DMA", Profile::Batched), first)
        .fails(&["dsi", "psi-per-unmap"]);
    // Stable kernels differ here.
    mode(guest("6.1.176", On, Lazy).warned(), first).passes();
    mode(guest("6.1.176", On, Lazy).shows("DMA-FQ", Profile::Batched), first).passes();
}

#[test]
fn without_pass_through_domains_are_strict_from_6_12_on() {
    let off = |guest: Guest| guest.with(|axes| axes.pt = Off);
    off(guest("6.1.176", Off, Lazy).shows("DMA-FQ", Profile::Batched)).passes();
    off(guest("6.1.176", Off, Passthrough).shows("identity", Profile::Nothing)).passes();
    for kernel in ["6.12.107", "7.3.4"] {
        off(guest(kernel, Off, Lazy)).passes();
        off(guest(kernel, Off, Passthrough)).passes();
        off(guest(kernel, On, Passthrough).warned()).passes();
        off(guest(kernel, Off, Lazy).shows("DMA-FQ", Profile::Batched)).fails(&[
            "group-type",
            "dsi",
            "psi-per-unmap",
        ]);
    }
}

#[test]
fn kernels_without_the_fix_fail() {
    // Nothing is logged, and unmaps are batched.
    let reverted = |kernel| guest(kernel, On, Lazy);
    reverted("5.10.262").shows("DMA", Profile::Batched).fails(&["warning", "dsi", "psi-per-unmap"]);
    reverted("5.10.13").shows("DMA", Profile::Batched).fails(&["warning", "dsi", "psi-per-unmap"]);
    reverted("7.3.4").shows("DMA-FQ", Profile::Batched).fails(&[
        "warning",
        "group-type",
        "dsi",
        "psi-per-unmap",
    ]);
    let verdict = reverted("5.10.262").shows("DMA", Profile::Batched).judged(|_| ());
    assert_eq!(
        verdict.reasons,
        [
            "warning: absent, expected present: the kernel keeps batching with caching mode on (commit 29b32839725f turns it off)",
            "dsi: 9, expected exactly 0: with caching mode on each unmap is one page-selective invalidation (commit 29b32839725f)",
            "psi-per-unmap: 0, expected exactly 1: with caching mode on each unmap is one page-selective invalidation (commit 29b32839725f)",
        ]
    );
    assert_eq!(
        verdict.checks.iter().find(|check| check.name == "dsi").unwrap().evidence,
        [
            "PSI 400 (400 opening, 0 closing), DSI 9, global 0; 400 maps, 400 unmaps (the kernel's tracepoints)"
        ]
    );
}

#[test]
fn seeded_bugs_fail() {
    // The warning without its effect.
    guest("5.10.262", On, Lazy)
        .warned()
        .shows("DMA", Profile::Batched)
        .fails(&["dsi", "psi-per-unmap"]);
    // Strict on every machine.
    guest("5.10.262", Off, Lazy).fails(&["psi", "dsi-per-1000-unmaps"]);
    guest("6.1.176", Off, Lazy).fails(&["group-type", "psi", "dsi-per-1000-unmaps"]);
    // An unmap that flushes nothing: only maps are left.
    let counts = |psi, opening, closing, dsi| {
        move |seen: &mut Observation| {
            let trace = seen.windows[0].trace.as_mut().unwrap();
            (trace.psi, trace.psi_opening, trace.psi_closing, trace.dsi) =
                (psi, opening, closing, dsi);
        }
    };
    for (spoil, failed) in [
        (counts(OPS, OPS / 2, OPS / 2, 0), &["psi-per-unmap", "psi-per-map"][..]),
        (counts(OPS, OPS, 0, 0), &["psi-per-unmap"]),
        // A domain flush for each unmap.
        (counts(OPS, OPS, 0, OPS), &["dsi", "psi-per-unmap"]),
        // One flush too many, one too few.
        (counts(2 * OPS + 1, OPS, OPS + 1, 0), &["psi-per-unmap"]),
        (counts(2 * OPS - 1, OPS - 1, OPS, 0), &["psi-per-map"]),
    ] {
        let verdict = guest("5.10.262", On, Strict).judged(spoil);
        let wrong: Vec<&str> = verdict
            .checks
            .iter()
            .filter(|check| check.held == Some(false))
            .map(|check| &*check.name)
            .collect();
        assert_eq!((verdict.outcome, &*wrong), (Outcome::Failed, failed));
    }
    // With caching mode off an unmap that flushes nothing leaves nothing.
    let verdict = guest("5.10.262", Off, Strict).judged(counts(0, 0, 0, 0));
    assert_eq!(verdict.outcome, Outcome::Failed);
    // Lazy that never flushes at all.
    let verdict =
        guest("5.10.262", Off, Lazy).shows("DMA", Profile::Batched).judged(counts(0, 0, 0, 0));
    assert_eq!(
        verdict.reasons,
        [
            "dsi-per-1000-unmaps: 0, expected 1 to 1000: batched unmaps are flushed by domain, not one by one"
        ]
    );
}

#[test]
fn a_warning_that_must_not_be_there_fails() {
    guest("6.1.176", Off, Lazy).warned().shows("DMA-FQ", Profile::Batched).fails(&["warning"]);
    guest("5.10.262", On, Strict).warned().fails(&["warning"]);
}

#[test]
fn the_log_fails_a_cell_unless_it_is_allowed() {
    let spoil =
        |line: &'static str| move |seen: &mut Observation| seen.log.records.extend(records(line));
    let verdict = sound().judged(spoil("BUG: unable to handle page fault\nIP: x"));
    assert_eq!(verdict.outcome, Outcome::Failed);
    assert_eq!(
        verdict.reasons,
        [
            "log: bug: [    0.001000] BUG: unable to handle page fault, expected nothing suspicious in the kernel log"
        ]
    );
    assert_eq!(verdict.checks[0].evidence.len(), 2);
    let mut seen = sound().observe();
    spoil("software IO TLB: bounce: out of memory")(&mut seen);
    let allow = |text: &str| {
        Case::parse(
            "a.yaml",
            &format!("case: made-up\nworkload: {{block: {{}}}}\nallow: [{text}]\n"),
        )
        .unwrap()
    };
    assert_eq!(
        judge(&allow("{kind: swiotlb, pattern: bounce, why: known}"), &seen).outcome,
        Outcome::Passed
    );
    assert_eq!(
        judge(&allow("{kind: swiotlb, pattern: pounce, why: known}"), &seen).outcome,
        Outcome::Failed
    );
    assert_eq!(judge(&allow("{kind: bug, why: known}"), &seen).outcome, Outcome::Failed);
}

#[test]
fn a_crash_behind_a_flood_of_what_is_allowed_fails_a_cell() {
    let case = |rest: &str| {
        let text = format!("case: made-up\nworkload: {{block: {{}}}}\n{rest}\n");
        Case::parse("a.yaml", &text).unwrap()
    };
    let judged = |case: &Case, log: &str| {
        let mut seen = sound().observe();
        seen.log.records.extend(records(log));
        judge(case, &seen)
    };
    let crash = "BUG: KASAN: use-after-free in intel_unmap+0x1/0x2";
    let faults = case("expect: [{name: faulty, faults: {min: 1}}]");
    assert_eq!(judged(&faults, &fault_flood(60)).outcome, Outcome::Passed);
    let verdict = judged(&faults, &(fault_flood(60) + crash));
    assert_eq!(verdict.outcome, Outcome::Failed);
    assert!(verdict.reasons[0].starts_with("log: sanitizer: "), "{:?}", verdict.reasons);
    // Those of the same kind, too, and all of them are counted.
    let known = case("allow: [{kind: warning, pattern: known, why: x}]");
    let flood = "WARNING: known\n".repeat(150);
    assert_eq!(judged(&known, &flood).outcome, Outcome::Passed);
    let verdict = judged(&known, &(flood + &"WARNING: x\n".repeat(150)));
    assert_eq!(verdict.outcome, Outcome::Failed);
    assert!(verdict.reasons[0].contains("(and 149 more)"), "{:?}", verdict.reasons);
    let verdict = judged(&known, &fault_flood(150));
    assert!(verdict.reasons[0].starts_with("faults: 150 "), "{:?}", verdict.reasons);
}

#[test]
fn faults_fail_a_cell_wherever_they_are_seen() {
    let line = "DMAR: [DMA Read NO_PASID] Request device [00:03.0] fault addr 0xdead000 [fault reason 0x06] PTE Read access is not set";
    let verdict = sound().judged(|seen| seen.log.records.extend(records(line)));
    assert_eq!(
        verdict.reasons,
        ["faults: 1 (first: Read by 00:03.0 at 0xdead000, reason 0x6), expected exactly 0"]
    );
    let verdict = sound().judged(|seen| seen.windows[0].trace.as_mut().unwrap().faults = 3);
    assert_eq!(verdict.reasons, ["faults: 3, expected exactly 0"]);
    let verdict = sound()
        .judged(|seen| seen.log.records.extend(records("DMAR: DRHD: handling fault status reg 2")));
    assert_eq!(verdict.reasons, ["faults: 1, expected exactly 0"]);
}

#[test]
fn integrity_fails_a_cell() {
    let verdict = sound().judged(|seen| {
        let report = &mut seen.windows[0].report;
        report.corrupt = 1;
        report
            .problems
            .push(dmarig_wire::Problem { corrupt: true, what: "block 7\x1b: wrong".to_owned() });
    });
    assert_eq!(
        verdict.reasons,
        [
            "integrity: 1 integrity failures, first: block 7\\u{1b}: wrong, expected every byte as written and no failed operation"
        ]
    );
    let verdict = sound().judged(|seen| seen.windows[0].report.lost = 2);
    assert_eq!(verdict.reasons, ["lost: 2, expected exactly 0"]);
    let on = |qemu: &str, lost| {
        let nic = sound().with(|axes| axes.device = Device::VirtioNet);
        let verdict = nic.judged(|seen| {
            seen.setup.qemu_version = qemu.to_owned();
            seen.windows[0].report.lost = lost;
        });
        verdict.reasons.iter().any(|reason| reason.starts_with("lost"))
    };
    assert!(on("7.2.22", 2) && on("11.1.3", 2) && on("10.0.13", 5), "a frame is lost by the guest");
    assert!(!on("10.0.13", 2), "this QEMU loses some by itself");
    let verdict =
        sound().judged(|seen| seen.windows[0].report.exit = Some(dmarig_wire::Exit::Signal(9)));
    assert_eq!(verdict.outcome, Outcome::Failed);
}

#[test]
fn a_device_beside_the_iommu_fails() {
    let verdict = sound().judged(|seen| seen.guest.as_mut().unwrap().targets[0].group = None);
    assert_eq!(
        verdict.reasons,
        [
            "behind-iommu: 0000:00:03.0 in no IOMMU group, expected each device under test behind the IOMMU"
        ]
    );
    let verdict = sound().judged(|seen| seen.guest.as_mut().unwrap().targets.clear());
    assert_eq!(verdict.outcome, Outcome::Failed);
}

#[test]
fn what_was_not_seen_is_an_error_and_no_failure() {
    let quiet = guest("6.1.176", Off, Lazy).shows("DMA-FQ", Profile::Batched);
    errors(
        &quiet.judged(|seen| seen.log.lost = 5),
        "warning: could not be judged: not in what is left of the log (5 records lost), expected absent",
    );
    // It was seen, so nothing that was lost matters.
    assert_eq!(sound().judged(|seen| seen.log.lost = 5).outcome, Outcome::Passed);
    let verdict = sound().judged(|seen| seen.windows.clear());
    assert_eq!(verdict.outcome, Outcome::Errored);
    assert_eq!(
        verdict.reasons[0],
        "windows: could not be judged: 0 counting, 0 timing, expected 1 counting, 0 timing"
    );
    let verdict = sound().judged(|seen| seen.windows[0].dma.as_mut().unwrap().events.clear());
    assert_eq!(verdict.outcome, Outcome::Failed);
    assert_eq!(
        verdict.reasons,
        [
            "psi-per-unmap: could not be judged: nothing was unmapped, expected exactly 1",
            "psi-per-map: could not be judged: nothing was unmapped, expected exactly 1",
        ]
    );
}

#[test]
fn each_end_has_its_outcome() {
    let text = "x".to_owned();
    let oops = |seen: &mut Observation| {
        seen.log.source = LogSource::Console;
        seen.log.records.extend(records("Oops: 0002 [#1] SMP"));
    };
    let timed_out = End::TimedOut {
        waiting_for: "greeting".to_owned(),
        after_ms: 60_500,
        last: "\x1bboot".to_owned(),
    };
    for (end, crashed, outcome) in [
        (End::Skipped { reason: text.clone() }, false, Outcome::Skipped),
        (End::Skipped { reason: text.clone() }, true, Outcome::Skipped),
        (End::Panicked { message: text.clone() }, false, Outcome::Failed),
        (End::WentDown { reason: text.clone() }, false, Outcome::Failed),
        (timed_out.clone(), false, Outcome::TimedOut),
        (timed_out.clone(), true, Outcome::TimedOut),
        (End::QemuDied { status: text.clone(), stderr: text.clone() }, true, Outcome::Errored),
        (End::AgentFailed { what: text.clone() }, false, Outcome::Errored),
        (End::AgentFailed { what: text.clone() }, true, Outcome::Failed),
        (End::ChannelBroken { what: text.clone() }, false, Outcome::Errored),
        (End::HostFault { what: text.clone() }, true, Outcome::Errored),
        (End::Interrupted, false, Outcome::Errored),
    ] {
        let verdict = sound().judged(|seen| {
            seen.end = end.clone();
            if crashed {
                oops(seen);
            }
        });
        assert_eq!(verdict.outcome, outcome, "{end:?}");
        let listed = verdict.reasons.iter().any(|reason| reason.contains("Oops"));
        assert_eq!(listed, crashed && outcome != Outcome::Skipped, "{end:?}");
    }
    let verdict = sound().judged(|seen| seen.end = timed_out);
    assert_eq!(verdict.reasons, ["no greeting after 60.500 s; last seen: \\u{1b}boot"]);
}

#[test]
fn network_interfaces_are_judged_by_their_unmaps() {
    let nic = |policy| {
        guest("6.12.107", On, policy).warned().with(|axes| axes.device = Device::VirtioNet)
    };
    for policy in [Strict, Lazy] {
        nic(policy).passes();
        // Buffers that stay mapped.
        let verdict = nic(policy).judged(|seen| {
            let trace = seen.windows[0].trace.as_mut().unwrap();
            (trace.psi, trace.psi_opening) = (trace.psi + 512, trace.psi_opening + 512);
        });
        assert_eq!(verdict.outcome, Outcome::Passed, "{:?}", verdict.reasons);
        let verdict = nic(policy).judged(|seen| {
            seen.windows[0].dma.as_mut().unwrap().events.clear();
            seen.windows[0].report.interface = Interface::Packet;
        });
        assert_eq!(
            verdict.reasons,
            ["psi-per-unmap: could not be judged: nothing was unmapped, expected exactly 1"]
        );
    }
}

#[test]
fn a_device_iotlb_that_is_not_invalidated_fails() {
    let ats = |policy, caching_mode| {
        guest("6.1.176", caching_mode, policy).with(|axes| {
            axes.device = Device::VirtioBlk;
            axes.device_iotlb = On;
        })
    };
    let strict = ats(Strict, On).warned();
    strict.passes();
    ats(Lazy, On).warned().passes();
    let batched = ats(Lazy, Off).shows("DMA-FQ", Profile::Batched);
    batched.passes();
    let forgets = |count| {
        move |seen: &mut Observation| {
            seen.windows[0].trace.as_mut().unwrap().device_iotlb = count;
        }
    };
    for verdict in [
        strict.judged(forgets(OPS - 1)),
        strict.judged(forgets(0)),
        ats(Lazy, On).warned().judged(forgets(9)),
        batched.judged(forgets(0)),
    ] {
        assert_eq!(verdict.outcome, Outcome::Failed);
        assert_eq!(verdict.reasons.len(), 1, "{:?}", verdict.reasons);
        assert!(verdict.reasons[0].starts_with("device-iotlb-per-unmap: "));
    }
}

#[test]
fn a_rate_that_is_no_whole_number_does_not_read_as_one() {
    let verdict = guest("6.1.176", Off, Strict).judged(|seen| {
        seen.windows[0].trace.as_mut().unwrap().psi = 9_999;
        let counted = &mut seen.windows[0].dma.as_mut().unwrap().events;
        counted.values_mut().for_each(|count| *count = 10_000);
    });
    assert_eq!(
        verdict.reasons,
        [
            "psi-per-unmap: 0.9999, expected exactly 1: a strict unmap is one page-selective invalidation, no more and no fewer"
        ]
    );
}

#[test]
fn operations_are_counted_by_the_kernel_or_else_by_request() {
    let mut window = sound().observe().windows.remove(0);
    let events = |list: &[(&str, u64)]| {
        Some(DmaCounts {
            events: list.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
        })
    };
    for (counts, maps, unmaps, source) in [
        (events(&[("iommu:map", 400), ("iommu:unmap", 400)]), 400, 400, DmaSource::Tracepoints),
        // A map tracepoint fires once per segment.
        (events(&[("iommu:map", 900), ("iommu:unmap", 400)]), 400, 400, DmaSource::Tracepoints),
        // 5.10 reports a list's unmap by both of its tracepoints.
        (
            events(&[
                ("intel_iommu:map_sg", 1600),
                ("intel_iommu:map_single", 3),
                ("intel_iommu:unmap_sg", 400),
                ("intel_iommu:unmap_single", 403),
            ]),
            403,
            403,
            DmaSource::Tracepoints,
        ),
        (
            events(&[
                ("iommu:map", 0),
                ("iommu:unmap", 0),
                ("intel_iommu:map_single", 5),
                ("intel_iommu:unmap_single", 5),
            ]),
            5,
            5,
            DmaSource::Tracepoints,
        ),
        (events(&[("iommu:map", 7)]), 7, 0, DmaSource::Tracepoints),
        (None, OPS, OPS, DmaSource::Requests),
    ] {
        window.dma = counts;
        let ops = dma_ops(&window, true).unwrap();
        assert_eq!((ops.maps, ops.unmaps, ops.source), (maps, unmaps, source));
    }
    window.report.interface = Interface::Process;
    assert_eq!(dma_ops(&window, true), None);
}

/// A network driver tells its device of new addresses when it finds the time, be that while the trace is
/// switched off: such operations need not be in it, and all others must.
#[test]
fn what_happens_while_the_trace_is_switched_needs_no_invalidation() {
    let strict = guest("6.12.1", On, Strict).warned();
    let late = |counted: u64, at_edges: u64| {
        strict.judged(move |seen: &mut Observation| {
            let window = &mut seen.windows[0];
            let events = &mut window.dma.as_mut().unwrap().events;
            events.values_mut().for_each(|count| *count += counted);
            let edges = events.keys().map(|name| (name.clone(), at_edges)).collect();
            window.dma_at_edges = Some(DmaCounts { events: edges });
        })
    };
    assert_eq!(late(9, 9).reasons, Vec::<String>::new());
    // More than what is there: the trace has them all.
    assert_eq!(late(0, 9).reasons, Vec::<String>::new());
    // Most of what there is does not happen at edges, whatever a guest says.
    for (counted, at_edges) in [(9, 0), (9, 8), (OPS, OPS), (OPS, 2 * OPS), (OPS / 4, u64::MAX)] {
        let verdict = late(counted, at_edges);
        assert!(verdict.reasons[0].starts_with("psi-per-"), "{:?}", verdict.reasons);
    }
    let evidence =
        late(9, 9).checks.iter().flat_map(|check| check.evidence.clone()).collect::<String>();
    assert!(evidence.contains("while the trace was switched"), "{evidence}");
}

#[test]
fn the_last_rule_decides() {
    let text = "case: made-up\nworkload: {block: {}}\nexpect: [{name: mine, warning: absent}, {name: theirs, when: {kernel-version: '<6'}, warning: present}]\n";
    let case = Case::parse("a.yaml", text).unwrap();
    let verdict = judge(&case, &sound().observe());
    assert_eq!(verdict.reasons, ["warning: present, expected absent"]);
    let none =
        Case::parse("a.yaml", "case: made-up\nstandard: false\nworkload: {block: {}}\n").unwrap();
    let reverted = guest("6.1.176", On, Lazy).shows("DMA-FQ", Profile::Batched).observe();
    assert_eq!(judge(&none, &reverted).outcome, Outcome::Passed);
}

#[test]
fn a_stored_observation_is_judged_the_same_again() {
    for guest in [sound(), guest("5.10.13", On, Lazy).shows("DMA", Profile::Batched)] {
        let seen = guest.observe();
        let stored = serde_json::to_string(&seen).unwrap();
        let read: Observation = serde_json::from_str(&stored).unwrap();
        let case = case_for(Device::Nvme);
        assert_eq!(judge(&case, &read), judge(&case, &seen));
    }
}
