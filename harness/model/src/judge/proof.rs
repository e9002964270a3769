//! The proof that a guest ran what was asked for, from three sides: QEMU's properties, the IOMMU's
//! registers as the hypervisor reads them, and the guest's own view.

use dmarig_wire::Environment;
use serde_json::Value;

use crate::{
    axes::{Accelerator, Axes, Policy, ScalableMode, Toggle},
    kernel::HEEDS_IOMMU_STRICT,
    log::LogFacts,
    observation::{Observation, Registers},
    text::shown,
    version::Version,
};

use super::kernel_version;

/// A bit of a register.
const fn bit(register: u64, bit: u32) -> bool {
    register >> bit & 1 == 1
}

impl Registers {
    /// CAP.CM: caching mode.
    #[must_use]
    pub const fn caching_mode(self) -> bool {
        bit(self.cap, 7)
    }

    /// CAP.MGAW: width of guest addresses, in bits.
    #[must_use]
    pub const fn address_width(self) -> u64 {
        (self.cap >> 16 & 0x3f) + 1
    }

    /// CAP.PSI: whether it can invalidate by page.
    #[must_use]
    pub const fn page_selective(self) -> bool {
        bit(self.cap, 39)
    }

    /// CAP.MAMV: log2 of the most pages that one page-selective invalidation covers.
    #[must_use]
    pub const fn max_address_mask(self) -> u64 {
        self.cap >> 48 & 0x3f
    }

    /// ECAP.DT: device IOTLB.
    #[must_use]
    pub const fn device_iotlb(self) -> bool {
        bit(self.ecap, 2)
    }

    /// ECAP.PT: pass-through.
    #[must_use]
    pub const fn pass_through(self) -> bool {
        bit(self.ecap, 6)
    }

    /// ECAP.SMTS: scalable mode, and with which tables.
    #[must_use]
    pub const fn scalable_mode(self) -> ScalableMode {
        match (bit(self.ecap, 43), bit(self.ecap, 47)) {
            (false, _) => ScalableMode::Off,
            (true, false) => ScalableMode::SecondStage,
            (true, true) => ScalableMode::FirstStage,
        }
    }

    /// Each thing that was asked for and is not there, as `caching-mode is off`.
    fn differences(self, axes: &Axes) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut toggle = |name: &str, asked: Toggle, got: bool| {
            if (asked == Toggle::On) != got {
                wrong.push(format!("{name} is {}, not {asked}", if got { "on" } else { "off" }));
            }
        };
        toggle("caching-mode", axes.caching_mode, self.caching_mode());
        toggle("pt", axes.pt, self.pass_through());
        toggle("device-iotlb", axes.device_iotlb, self.device_iotlb());
        if self.scalable_mode() != axes.scalable_mode {
            wrong.push(format!(
                "scalable-mode is {}, not {}",
                self.scalable_mode(),
                axes.scalable_mode
            ));
        }
        if let Some(asked) = axes.aw_bits.filter(|bits| u64::from(*bits) != self.address_width()) {
            wrong.push(format!("aw-bits is {}, not {asked}", self.address_width()));
        }
        wrong
    }
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
    side("registers read by the hypervisor", observation.registers.map(|r| r.differences(axes)));
    let guest = observation.guest.as_ref();
    let seen = guest.and_then(|guest| guest_registers(guest, facts));
    side("registers as the guest sees them", seen.map(|registers| registers.differences(axes)));
    side("the guest", guest.map(|guest| shape(guest, axes, kernel_version(observation))));
    let used = observation.setup.accelerator;
    if axes.accelerator != Accelerator::Auto && axes.accelerator != used {
        side("QEMU", Some(vec![format!("accelerator is {used}, not {}", axes.accelerator)]));
    }
    wrong
}

/// QEMU's side, under the names that its versions have for one thing.
fn properties(observation: &Observation) -> Option<Vec<String>> {
    let (qom, axes) = (&observation.qom, &observation.axes);
    // Text, because QMP and HMP differ in how they give a boolean.
    let text = |names: &[&str]| {
        names.iter().find_map(|name| qom.get(*name)).map(|value| match value {
            Value::Bool(true) => "on".to_owned(),
            Value::Bool(false) => "off".to_owned(),
            Value::String(text) => shown(text),
            other => other.to_string(),
        })
    };
    let caching_mode = text(&["caching-mode"])?;
    let mut wrong = Vec::new();
    let mut check = |name: &str, asked: &str, got: &str| {
        if asked != got {
            wrong.push(format!("{name} is {got}, not {asked}"));
        }
    };
    check("caching-mode", axes.caching_mode.name(), &caching_mode);
    // QEMU 11 has no `pt` any more and always offers it.
    check("pt", axes.pt.name(), &text(&["pt"]).unwrap_or_else(|| "on".to_owned()));
    let off = || "off".to_owned();
    check("device-iotlb", axes.device_iotlb.name(), &text(&["device-iotlb"]).unwrap_or_else(off));
    let scalable = text(&["scalable-mode", "x-scalable-mode"]).unwrap_or_else(off) == "on";
    let first = text(&["fsts", "x-flts"]).unwrap_or_else(off) == "on";
    let got = match (scalable, first) {
        (false, _) => ScalableMode::Off,
        (true, false) => ScalableMode::SecondStage,
        (true, true) => ScalableMode::FirstStage,
    };
    check("scalable-mode", axes.scalable_mode.name(), got.name());
    if let Some(bits) = axes.aw_bits {
        check(
            "aw-bits",
            &bits.to_string(),
            &text(&["aw-bits"]).unwrap_or_else(|| "unknown".to_owned()),
        );
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
    if turned_off(&guest.cmdline) {
        wrong.push("the IOMMU is turned off on the kernel's command line".to_owned());
    }
    let policy = policy_of(&guest.cmdline, kernel);
    if policy != axes.policy {
        wrong.push(format!("policy on the kernel's command line is {policy}, not {}", axes.policy));
    }
    wrong
}

/// Whether a kernel command line turns the IOMMU off. What comes last goes.
pub(crate) fn turned_off(cmdline: &str) -> bool {
    let (mut driver, mut all) = (false, false);
    for word in cmdline.split_ascii_whitespace() {
        match word.split_once('=') {
            Some(("intel_iommu", values)) => {
                for value in values.split(',') {
                    match value {
                        "on" => driver = false,
                        "off" => driver = true,
                        _ => {}
                    }
                }
            }
            Some(("iommu", values)) if values.split(',').any(|value| value == "off") => all = true,
            _ => {}
        }
    }
    driver || all
}

/// The policy that a kernel command line asks for, in that kernel's words: before 5.15 the Intel
/// driver does not look at `iommu.strict`.
pub(crate) fn policy_of(cmdline: &str, kernel: Option<Version>) -> Policy {
    let heeds_strict = kernel.is_none_or(|kernel| kernel >= HEEDS_IOMMU_STRICT);
    let mut policy = Policy::Lazy;
    let mut passthrough = false;
    for word in cmdline.split_ascii_whitespace() {
        match word.split_once('=') {
            Some(("iommu.passthrough", value)) => passthrough = matches!(value, "1" | "on" | "y"),
            Some(("iommu", values)) => {
                for value in values.split(',') {
                    match value {
                        "pt" => passthrough = true,
                        "nopt" => passthrough = false,
                        _ => {}
                    }
                }
            }
            Some(("iommu.strict", value)) if heeds_strict => {
                let strict = matches!(value, "1" | "on" | "y");
                policy = if strict { Policy::Strict } else { Policy::Lazy };
            }
            Some(("intel_iommu", values)) if values.split(',').any(|value| value == "strict") => {
                policy = Policy::Strict;
            }
            _ => {}
        }
    }
    if passthrough { Policy::Passthrough } else { policy }
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
