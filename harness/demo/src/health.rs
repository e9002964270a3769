//! The cells of a synthetic night that are judged and not timed, for the dashboard's matrix of
//! checks.

use dmarig_model::{
    axes::{Axes, Device, Passthrough, Policy, Toggle},
    observation::Outcome,
};

use super::{KERNEL, REFERENCE, Year, build, environment, group_type, release};
use dmarig_history::{CellEntry, CellKey, CheckTallies, Tally, variant};

/// The judged kernels.
const KERNELS: [&str; 4] = ["debian-5.10", "debian-6.1", REFERENCE, KERNEL];
/// The first night with stale buffers.
const STALE_FROM: u32 = super::SYNTHETIC_NIGHTS - 6;
/// Checks of every cell.
const COMMON_CHECKS: [&str; 8] =
    ["log", "behind-iommu", "integrity", "faults", "lost", "warning", "group-type", "global"];

/// Names of the checks of a cell with these axes.
pub(super) fn checks(axes: &Axes) -> Vec<&'static str> {
    let (on, probe) = (axes.caching_mode == Toggle::On, axes.passthrough == Passthrough::Probe);
    let mut checks = COMMON_CHECKS.to_vec();
    checks.extend_from_slice(match (axes.policy, on) {
        (Policy::Passthrough, _) => &["psi", "dsi"][..],
        (Policy::Lazy, false) => &["psi", "dsi-per-1000-unmaps"],
        (Policy::Strict, false) => &["psi-per-unmap", "dsi"],
        (_, true) => &["psi-per-unmap", "dsi", "psi-per-map", "new-ranges-per-unmap"],
    });
    if axes.device_iotlb == Toggle::On {
        checks.push("device-iotlb-per-unmap");
    }
    if probe {
        checks.extend(["device", "coherence", "stale-requests", "leaked-requests"]);
        checks.push("page-walk-in-vain-per-unmap");
    }
    checks
}

/// The results of checks, of which `broken` failed.
pub(super) fn tallies(checks: &[&str], broken: &[String]) -> CheckTallies {
    let tally = |name: &&str| {
        let mut tally = Tally::default();
        tally.count(Some(!broken.iter().any(|broken| broken == name)));
        ((*name).to_owned(), tally)
    };
    checks.iter().map(tally).collect()
}

/// The cells of all cases: the name of the case, and the axes.
fn cases() -> Vec<(&'static str, Axes)> {
    let axes = |caching_mode, policy| Axes { caching_mode, policy, ..Axes::default() };
    let (off, on) = (Toggle::Off, Toggle::On);
    let mut all = Vec::new();
    for mode in [off, on] {
        for policy in [Policy::Lazy, Policy::Strict, Policy::Passthrough] {
            all.push(("smoke", axes(mode, policy)));
        }
        for device in [Device::E1000e, Device::VirtioNet] {
            all.push(("full", Axes { device, ..axes(mode, Policy::Lazy) }));
        }
        let (device, device_iotlb) = (Device::VirtioBlk, on);
        all.push(("full", Axes { device, device_iotlb, ..axes(mode, Policy::Strict) }));
    }
    let probe = |policy| Axes { passthrough: Passthrough::Probe, ..axes(on, policy) };
    all.push(("passthrough", probe(Policy::Lazy)));
    all.push(("passthrough", probe(Policy::Strict)));
    all.push(("attacks", probe(Policy::Strict)));
    all.push(("nested", Axes { passthrough: Passthrough::Nested, ..axes(on, Policy::Lazy) }));
    all
}

/// Checks that fail in a cell of the kernel in development.
fn broken(case: &str, axes: &Axes, night: u32, batches: bool) -> Vec<String> {
    let mut broken = Vec::new();
    let shadowed = axes.caching_mode == Toggle::On && axes.policy == Policy::Lazy;
    if batches && shadowed {
        broken.extend(["dsi", "group-type", "psi-per-unmap", "warning"]);
    }
    if night >= STALE_FROM && case == "passthrough" && shadowed {
        broken.extend(["coherence", "stale-requests"]);
    }
    broken.sort_unstable();
    broken.into_iter().map(str::to_owned).collect()
}

/// The cells of a night, numbered from `first`. With `batches`, the kernel in development batches
/// again.
pub(super) fn cells(year: &Year, night: u32, first: u32, batches: bool) -> Vec<CellEntry> {
    let each = cases().into_iter().flat_map(|case| KERNELS.map(|kernel| (case.clone(), kernel)));
    let numbered = (first..).zip(each);
    numbered
        .map(|(number, (case, kernel))| cell(year, night, number, &case, kernel, batches))
        .collect()
}

fn cell(
    year: &Year,
    night: u32,
    number: u32,
    (case, axes): &(&str, Axes),
    kernel: &str,
    batches: bool,
) -> CellEntry {
    let new = kernel == KERNEL;
    let place =
        CellKey { case: (*case).to_owned(), variant: variant(axes), kernel: kernel.to_owned() };
    let skipped = *case == "nested" && kernel == KERNELS[0];
    let checks = if new { broken(case, axes, night, batches) } else { Vec::new() };
    let mut names = checks_of(case, axes);
    if skipped {
        names.clear();
    }
    let mut judged = tallies(&names, &checks);
    if kernel == KERNELS[0] {
        // The old kernel does not report what is compared.
        if let Some(tally) = judged.get_mut("coherence") {
            *tally = Tally { unjudged: 1, ..Tally::default() };
        }
    }
    let (outcome, reasons) = match (skipped, checks.is_empty()) {
        (true, _) => (Outcome::Skipped, vec!["the kernel lacks VFIO (made up)".to_owned()]),
        (false, true) => (Outcome::Passed, Vec::new()),
        (false, false) => {
            let reason = |name: &String| format!("{name}: not as expected (made up)");
            (Outcome::Failed, checks.iter().map(reason).collect())
        }
    };
    let on = axes.caching_mode == Toggle::On;
    let batching = new && batches;
    let (release, group_type, warning) = match skipped {
        true => (None, None, None),
        false => (
            Some(release(kernel, night)),
            Some(group_type(axes, batching).to_owned()),
            Some(on && axes.policy == Policy::Lazy && !batching),
        ),
    };
    CellEntry {
        number,
        id: format!("{case}/{},kernel={kernel}", place.variant),
        place,
        outcome,
        reasons,
        checks,
        judged: Some(judged),
        release,
        group_type,
        warning,
        duration_us: 9_000_000 + u64::from(number) * 10_000,
        environment: environment(),
        build: build(year.seed, kernel, night),
    }
}

fn checks_of(case: &str, axes: &Axes) -> Vec<&'static str> {
    let mut names = checks(axes);
    if case == "attacks" {
        let attacks = ["attack-after-unmap", "attack-past-the-end", "attack-read-only"];
        names.extend(attacks);
        names.push("attack-unmapped");
    }
    names
}
