//! The proof that a guest ran what was asked for, from three sides: QEMU's properties, the IOMMU's
//! registers as the hypervisor reads them, and the guest's own view.

use dmarig_viommu::mode::Registers;
use dmarig_wire::Environment;

use crate::{
    axes::{Accelerator, Axes, Policy, ScalableMode, Toggle},
    log::LogFacts,
    observation::Observation,
    text::shown,
    version::Version,
    viommu,
};

use super::kernel_version;

/// Each setting that was requested and is not in the registers, as `caching-mode is off`.
fn differences(registers: Registers, axes: &Axes) -> Vec<String> {
    let found = viommu::for_axes(axes).capabilities(registers);
    let mut wrong = Vec::new();
    let mut toggle = |name: &str, asked: Toggle, got: bool| {
        if (asked == Toggle::On) != got {
            wrong.push(format!("{name} is {}, not {asked}", if got { "on" } else { "off" }));
        }
    };
    toggle("caching-mode", axes.caching_mode, found.caching_mode);
    toggle("pt", axes.pt, found.pass_through);
    toggle("device-iotlb", axes.device_iotlb, found.device_iotlb);
    let scalable_mode = ScalableMode::from(found.page_tables);
    if scalable_mode != axes.scalable_mode {
        wrong.push(format!("scalable-mode is {scalable_mode}, not {}", axes.scalable_mode));
    }
    if let Some(asked) = axes.aw_bits.filter(|bits| u64::from(*bits) != found.address_bits) {
        wrong.push(format!("aw-bits is {}, not {asked}", found.address_bits));
    }
    wrong
}

/// What is not as it was asked for, or was not proved, each on a line; empty where all is.
pub(super) fn mismatches(observation: &Observation, facts: &LogFacts) -> Vec<String> {
    let mut wrong = Vec::new();
    let axes = &observation.axes;
    let mut side = |who: &str, found: Option<Vec<String>>| match found {
        None => wrong.push(format!("not proved: {who} could not be read")),
        Some(found) => {
            wrong
                .extend(found.iter().map(|what| format!("not what you asked for: {what} ({who})")));
        }
    };
    side("QEMU's properties", properties(observation));
    side(
        "registers read by the hypervisor",
        observation.registers.map(|registers| differences(registers, axes)),
    );
    let guest = observation.guest.as_ref();
    let seen = guest.and_then(|guest| guest_registers(guest, facts));
    side("registers as the guest sees them", seen.map(|registers| differences(registers, axes)));
    side("the guest", guest.map(|guest| shape(guest, axes, kernel_version(observation))));
    let used = observation.setup.accelerator;
    if axes.accelerator != Accelerator::Auto && axes.accelerator != used {
        side("QEMU", Some(vec![format!("accelerator is {used}, not {}", axes.accelerator)]));
    }
    wrong
}

/// QEMU's side.
fn properties(observation: &Observation) -> Option<Vec<String>> {
    let axes = &observation.axes;
    let found = viommu::for_axes(axes).reported_mode(&observation.qom)?;
    let mut wrong = Vec::new();
    let mut check = |name: &str, asked: &str, got: &str| {
        if asked != got {
            wrong.push(format!("{name} is {}, not {asked}", shown(got)));
        }
    };
    check("caching-mode", axes.caching_mode.name(), &found.caching_mode);
    check("pt", axes.pt.name(), &found.pass_through);
    check("device-iotlb", axes.device_iotlb.name(), &found.device_iotlb);
    let scalable_mode = ScalableMode::from(found.page_tables);
    check("scalable-mode", axes.scalable_mode.name(), scalable_mode.name());
    if let Some(bits) = axes.aw_bits {
        let got = found.address_bits.as_deref().unwrap_or("unknown");
        check("aw-bits", &bits.to_string(), got);
    }
    Some(wrong)
}

/// The guest's registers: from sysfs, or from the line that the kernel prints of them at boot.
fn guest_registers(guest: &Environment, facts: &LogFacts) -> Option<Registers> {
    let hex = |text: &Option<String>| u64::from_str_radix(text.as_ref()?.trim(), 16).ok();
    let sysfs = guest.iommus.values().find_map(|iommu| Some((hex(&iommu.cap)?, hex(&iommu.ecap)?)));
    let (cap, ecap) = sysfs.or(facts.cap.zip(facts.ecap))?;
    Some(Registers { cap, ecap })
}

/// The guest's size and command line.
fn shape(guest: &Environment, axes: &Axes, kernel: Option<Version>) -> Vec<String> {
    let mut wrong = Vec::new();
    if guest.cpus != axes.smp {
        wrong.push(format!("smp is {}, not {}", guest.cpus, axes.smp));
    }
    // The kernel keeps some for itself: its image, the memory map, a sanitizer's shadow of an
    // eighth.
    let asked = u64::from(axes.memory_mib) * 1024;
    if !(asked / 2..=asked).contains(&guest.memory_kib) {
        wrong.push(format!("memory is {} KiB, not near {}MiB", guest.memory_kib, axes.memory_mib));
    }
    let requested = viommu::for_axes(axes).read_command_line(&guest.cmdline, kernel);
    if requested.off {
        wrong.push("the IOMMU is turned off on the kernel's command line".to_owned());
    }
    let policy = Policy::from(requested.policy);
    if policy != axes.policy {
        wrong.push(format!("policy on the kernel's command line is {policy}, not {}", axes.policy));
    }
    wrong
}

/// The type of each device's group; devices in no group are left out.
pub(crate) fn group_types(guest: &Environment) -> Vec<(String, Option<String>)> {
    let of = |number: u32| guest.groups.iter().find(|group| group.number == number);
    guest
        .targets
        .iter()
        .filter_map(|target| {
            let kind = of(target.group?).and_then(|group| group.kind.clone());
            Some((target.address.clone(), kind))
        })
        .collect()
}
