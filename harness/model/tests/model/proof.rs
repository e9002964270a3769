//! The proof that a guest ran what was asked for.

use dmarig_model::{
    axes::{
        Accelerator,
        Policy::{Lazy, Strict},
        ScalableMode,
        Toggle::On,
    },
    observation::{Observation, Outcome, Verdict},
};
use serde_json::json;

use crate::seen::{Guest, records};

/// A guest that does what the commit under test asks for.
fn sound() -> Guest {
    Guest::new("6.1.176", On, Lazy).warned()
}

#[track_caller]
fn errors(verdict: &Verdict, reason: &str) {
    assert_eq!((verdict.outcome, &*verdict.reasons), (Outcome::Errored, &[reason.to_owned()][..]));
}

#[test]
fn what_was_not_asked_for_is_an_error() {
    errors(
        &sound().judged(|seen| drop(seen.qom.insert("caching-mode".to_owned(), json!(false)))),
        "not what you asked for: caching-mode is off, not on (QEMU's properties)",
    );
    errors(
        &sound().judged(|seen| seen.registers.as_mut().unwrap().cap &= !(1 << 7)),
        "not what you asked for: caching-mode is off, not on (registers read by the hypervisor)",
    );
    errors(
        &sound().judged(|seen| {
            let iommus = &mut seen.guest.as_mut().unwrap().iommus;
            iommus.get_mut("dmar0").unwrap().cap = Some("d2008c22260206".to_owned());
        }),
        "not what you asked for: caching-mode is off, not on (registers as the guest sees them)",
    );
    errors(
        &sound().judged(|seen| seen.guest.as_mut().unwrap().cpus = 2),
        "not what you asked for: smp is 2, not 1 (the guest)",
    );
    errors(
        &sound().judged(|seen| seen.guest.as_mut().unwrap().memory_kib = 1_000_000),
        "not what you asked for: memory is 1000000 KiB, not near 512MiB (the guest)",
    );
    errors(
        &sound().judged(|seen| seen.guest.as_mut().unwrap().cmdline.push_str(" iommu=pt")),
        "not what you asked for: policy on the kernel's command line is passthrough, not lazy (the guest)",
    );
    for word in ["intel_iommu=off", "intel_iommu=strict,off", "iommu=off"] {
        let verdict = sound().judged(|seen| {
            let cmdline = &mut seen.guest.as_mut().unwrap().cmdline;
            cmdline.push_str(&format!(" {word}"));
        });
        assert_eq!(verdict.outcome, Outcome::Errored, "{word}");
        let off = "not what you asked for: the IOMMU is turned off on the kernel's command line (the guest)";
        assert_eq!(verdict.reasons.first().map(String::as_str), Some(off), "{word}");
    }
    // What comes last goes.
    let verdict = sound().judged(|seen| {
        let cmdline = &mut seen.guest.as_mut().unwrap().cmdline;
        *cmdline = format!("intel_iommu=off {cmdline} intel_iommu=on");
    });
    assert_eq!(verdict.outcome, Outcome::Passed, "{:?}", verdict.reasons);
    errors(
        &sound().with(|axes| axes.accelerator = Accelerator::Kvm).judged(|_| ()),
        "not what you asked for: accelerator is tcg, not kvm (QEMU)",
    );
    for (bit, what) in [
        (6, "pt is off, not on"),
        (2, "device-iotlb is on, not off"),
        (43, "scalable-mode is second-stage, not off"),
    ] {
        errors(
            &sound().judged(|seen| seen.registers.as_mut().unwrap().ecap ^= 1 << bit),
            &format!("not what you asked for: {what} (registers read by the hypervisor)"),
        );
    }
    let aw = sound().with(|axes| axes.aw_bits = Some(48));
    aw.passes();
    errors(
        &aw.judged(|seen| seen.registers.as_mut().unwrap().cap ^= 1 << 17),
        "not what you asked for: aw-bits is 46, not 48 (registers read by the hypervisor)",
    );
}

#[test]
fn a_side_that_is_silent_proves_nothing() {
    errors(
        &sound().judged(|seen| seen.qom.clear()),
        "not proved: QEMU's properties could not be read",
    );
    errors(
        &sound().judged(|seen| seen.registers = None),
        "not proved: registers read by the hypervisor could not be read",
    );
    let no_sysfs = |seen: &mut Observation| seen.guest.as_mut().unwrap().iommus.clear();
    errors(
        &sound().judged(no_sysfs),
        "not proved: registers as the guest sees them could not be read",
    );
    // What the kernel printed of its registers does as well.
    let verdict = sound().judged(|seen| {
        no_sysfs(seen);
        let line = "DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap d2008c22260286 ecap f00f4a";
        seen.log.records.extend(records(line));
    });
    assert_eq!(verdict.outcome, Outcome::Passed);
}

#[test]
fn qemu_11_has_other_names() {
    let first = sound().with(|axes| axes.scalable_mode = ScalableMode::FirstStage);
    for guest in [sound(), first] {
        let verdict = guest.judged(|seen| {
            for (old, new) in
                [("pt", None), ("x-scalable-mode", Some("scalable-mode")), ("x-flts", Some("fsts"))]
            {
                let value = seen.qom.remove(old).unwrap();
                new.map(|new| seen.qom.insert(new.to_owned(), value));
            }
        });
        assert_eq!(verdict.outcome, Outcome::Passed, "{:?}", verdict.reasons);
    }
}

#[test]
fn a_word_that_the_kernel_does_not_know_proves_nothing() {
    errors(
        &Guest::new("5.10.262", On, Strict).judged(|seen| {
            seen.guest.as_mut().unwrap().cmdline = "intel_iommu=on iommu.strict=1".to_owned();
        }),
        "not what you asked for: policy on the kernel's command line is lazy, not strict (the guest)",
    );
}
