//! What a QEMU can do, as it told itself, and what it therefore can't be asked for.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    axes::{Axes, Device, Passthrough, ScalableMode, Toggle},
    version::Version,
};

/// Versions before this one lack something that every cell needs.
pub const OLDEST: Version = Version::new(6, 2, 0);

/// QEMU's client of a device in another process.
pub(crate) const VFIO_USER: &str = "vfio-user-pci";

/// A QEMU binary and what it told of itself over QMP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qemu {
    /// Its name on the QEMU axis.
    pub name: String,
    /// The binary.
    pub path: String,
    /// SHA-256 of the binary; empty where it could not be read.
    pub sha256: String,
    /// Its version.
    pub version: Version,
    /// Its version with the distributor's suffix.
    pub full_version: String,
    /// Device types it has, of those that a cell may want.
    pub devices: BTreeSet<String>,
    /// Properties of its `intel-iommu`, with their defaults.
    pub iommu: BTreeMap<String, serde_json::Value>,
    /// Accelerators built in.
    pub accelerators: BTreeSet<String>,
    /// Whether it can lock itself into a sandbox.
    pub sandbox: bool,
}

impl Qemu {
    /// The device's type name in QEMU.
    #[must_use]
    pub const fn device_type(device: Device) -> &'static str {
        match device {
            Device::Nvme => "nvme",
            Device::VirtioBlk => "virtio-blk-pci",
            Device::E1000e => "e1000e",
            Device::VirtioNet => "virtio-net-pci",
        }
    }

    /// The name that this version gives to a property, or `None` where it has none.
    fn property(&self, names: &[&'static str]) -> Option<&'static str> {
        names.iter().copied().find(|name| self.iommu.contains_key(*name))
    }

    /// The `intel-iommu` device with the properties that `axes` ask for.
    ///
    /// # Errors
    /// What this QEMU lacks, as the reason to skip the cell.
    pub fn iommu_device(&self, axes: &Axes) -> Result<String, String> {
        if self.iommu.is_empty() {
            return Err(self.lacks("an intel-iommu device"));
        }
        let mut device = String::from("intel-iommu,id=viommu,intremap=on");
        let mut set = |name: &str, value: &dyn std::fmt::Display| {
            device.push_str(&format!(",{name}={value}"));
        };
        set("caching-mode", &axes.caching_mode);
        match (self.property(&["pt"]), axes.pt) {
            (Some(name), value) => set(name, &value),
            (None, Toggle::On) => {}
            (None, Toggle::Off) => return Err(self.lacks("the property intel-iommu.pt")),
        }
        let scalable = self.property(&["scalable-mode", "x-scalable-mode"]);
        let first_stage = self.property(&["fsts", "x-flts"]);
        let mut aw_bits = axes.aw_bits;
        match (axes.scalable_mode, scalable, first_stage) {
            (ScalableMode::Off, ..) => {}
            (_, None, _) => return Err(self.lacks("scalable mode")),
            (ScalableMode::SecondStage, Some(name), stage) => {
                set(name, &"on");
                if let Some(stage) = stage {
                    set(stage, &"off");
                }
            }
            (ScalableMode::FirstStage, Some(_), None) => {
                return Err(self.lacks("first-stage tables"));
            }
            (ScalableMode::FirstStage, Some(name), Some(stage)) => {
                set(name, &"on");
                set(stage, &"on");
                // QEMU refuses first-stage tables of any other width.
                aw_bits = aw_bits.or(Some(48));
                if aw_bits != Some(48) {
                    return Err("first-stage tables are 48 bits wide, not fewer".to_owned());
                }
            }
        }
        match (self.property(&["device-iotlb"]), axes.device_iotlb) {
            (Some(name), Toggle::On) => set(name, &"on"),
            (None, Toggle::On) => return Err(self.lacks("a device IOTLB")),
            (_, Toggle::Off) => {}
        }
        match (self.property(&["aw-bits"]), aw_bits) {
            (Some(name), Some(bits)) => set(name, &bits),
            (None, Some(_)) => return Err(self.lacks("the property intel-iommu.aw-bits")),
            (_, None) => {}
        }
        Ok(device)
    }

    /// The properties of `intel-iommu` that prove what a cell asked for, of those that this version
    /// has: what is read back from a guest.
    #[must_use]
    pub fn proving_properties(&self) -> Vec<String> {
        const PROVING: &[&str] = &[
            "aw-bits",
            "caching-mode",
            "device-iotlb",
            "fsts",
            "pt",
            "scalable-mode",
            "x-flts",
            "x-scalable-mode",
        ];
        let has = |name: &&&str| self.iommu.contains_key(**name);
        PROVING.iter().filter(has).map(|name| (*name).to_owned()).collect()
    }

    /// Why this QEMU can't run a cell with `axes` at all.
    #[must_use]
    pub fn refuses(&self, axes: &Axes) -> Option<String> {
        if self.version < OLDEST {
            return Some(format!(
                "QEMU {} is too old: dmarig needs {OLDEST} or later",
                self.version
            ));
        }
        if axes.passthrough != Passthrough::None && axes.device != Device::Nvme {
            return Some(format!("only an NVMe controller is passed through, not {}", axes.device));
        }
        let device = match axes.passthrough {
            // What runs in an outer guest is not this QEMU's to have.
            Passthrough::None | Passthrough::Nested => Self::device_type(axes.device),
            Passthrough::Probe => VFIO_USER,
            Passthrough::Host => "vfio-pci",
        };
        let hint = match axes.passthrough {
            Passthrough::Probe => {
                "; QEMU 10.2 and later have it: `dmarig images fetch qemu` brings one for --qemu qemu"
            }
            _ => "",
        };
        let lacks = || format!("{}{hint}", self.lacks(&format!("the device {device}")));
        (!self.devices.contains(device)).then(lacks)
    }

    fn lacks(&self, what: &str) -> String {
        format!("QEMU {} ({}) has not {what}", self.version, self.name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn qemu(version: &str, properties: &[&str]) -> Qemu {
        Qemu {
            name: "qemu-system-x86_64".into(),
            path: "/usr/bin/qemu-system-x86_64".into(),
            sha256: String::new(),
            version: version.parse().unwrap(),
            full_version: version.into(),
            devices: Device::ALL
                .iter()
                .map(|device| Qemu::device_type(*device))
                .chain([VFIO_USER, "vfio-pci"])
                .map(str::to_owned)
                .collect(),
            iommu: properties.iter().map(|name| ((*name).into(), true.into())).collect(),
            accelerators: ["kvm".into(), "tcg".into()].into(),
            sandbox: true,
        }
    }

    pub(crate) const V7_2: &[&str] =
        &["caching-mode", "pt", "device-iotlb", "aw-bits", "x-scalable-mode", "intremap"];
    pub(crate) const V11_1: &[&str] =
        &["caching-mode", "device-iotlb", "aw-bits", "scalable-mode", "fsts", "intremap"];

    #[track_caller]
    fn check(qemu: &Qemu, axes: Axes, expected: Result<&str, &str>) {
        let found = qemu.iommu_device(&axes);
        let found = found.as_ref().map(String::as_str).map_err(String::as_str);
        assert_eq!(found, expected);
    }

    #[test]
    fn properties_take_the_names_of_their_version() {
        let sm = |scalable_mode| Axes { scalable_mode, ..Axes::default() };
        let (old, new) = (qemu("7.2.22", V7_2), qemu("11.1.3", V11_1));
        let common = "intel-iommu,id=viommu,intremap=on,caching-mode=off";
        check(&old, Axes::default(), Ok(&format!("{common},pt=on")));
        check(&new, Axes::default(), Ok(common));
        check(
            &old,
            sm(ScalableMode::SecondStage),
            Ok(&format!("{common},pt=on,x-scalable-mode=on")),
        );
        check(
            &new,
            sm(ScalableMode::FirstStage),
            Ok(&format!("{common},scalable-mode=on,fsts=on,aw-bits=48")),
        );
    }

    #[test]
    fn what_a_version_lacks_is_the_reason_to_skip() {
        let no_pt = Axes { pt: Toggle::Off, ..Axes::default() };
        check(
            &qemu("11.1.3", V11_1),
            no_pt,
            Err("QEMU 11.1.3 (qemu-system-x86_64) has not the property intel-iommu.pt"),
        );
        let first = Axes { scalable_mode: ScalableMode::FirstStage, ..Axes::default() };
        check(
            &qemu("7.2.22", V7_2),
            first,
            Err("QEMU 7.2.22 (qemu-system-x86_64) has not first-stage tables"),
        );
        check(
            &qemu("7.2.22", &[]),
            Axes::default(),
            Err("QEMU 7.2.22 (qemu-system-x86_64) has not an intel-iommu device"),
        );
    }
}
