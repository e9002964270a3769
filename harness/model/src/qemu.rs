//! What a QEMU can do, as it told itself, and what it therefore can't be asked for.

use std::collections::{BTreeMap, BTreeSet};

use dmarig_viommu::{mode::Settings, qemu::Unsupported};
use serde::{Deserialize, Serialize};

use crate::{
    axes::{Axes, Device, Passthrough},
    skip::SkipReason,
    version::Version,
    viommu::{self, VIOMMUS},
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
    /// Properties of its virtual IOMMU's device, with their defaults.
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

    /// The virtual IOMMU's device with the properties that `axes` ask for.
    ///
    /// # Errors
    /// [`SkipReason`]
    pub fn iommu_device(&self, axes: &Axes) -> Result<String, SkipReason> {
        let device = viommu::for_axes(axes).qemu_device(&self.iommu, &Settings::from(axes));
        device.map_err(|reason| match reason {
            Unsupported::Missing(what) => self.lacks(what.to_owned()),
            Unsupported::Conflict(reason) => SkipReason::Settings(reason),
        })
    }

    /// The properties of the virtual IOMMU's device that prove what a cell requested, of those that
    /// this version has. They are read back from a guest.
    #[must_use]
    pub fn proving_properties(&self) -> Vec<String> {
        let all = VIOMMUS.iter().flat_map(|viommu| viommu.qemu().proving_properties);
        let own = all.filter(|name| self.iommu.contains_key(**name));
        own.map(|name| (*name).to_owned()).collect()
    }

    /// The reason why this QEMU cannot run a cell with `axes`, if there is one.
    #[must_use]
    pub fn refuses(&self, axes: &Axes) -> Option<SkipReason> {
        if self.version < OLDEST {
            return Some(SkipReason::OldQemu { version: self.version, oldest: OLDEST });
        }
        if axes.passthrough != Passthrough::None && axes.device != Device::Nvme {
            return Some(SkipReason::Device(axes.device));
        }
        let device = match axes.passthrough {
            // What runs in an outer guest is not this QEMU's to have.
            Passthrough::None | Passthrough::Nested => Self::device_type(axes.device),
            Passthrough::Probe => VFIO_USER,
            Passthrough::Host => "vfio-pci",
        };
        if self.devices.contains(device) {
            return None;
        }
        let hint = match axes.passthrough {
            Passthrough::Probe => {
                "; QEMU 10.2 and later have it: run `dmarig images fetch qemu`, then use --qemu qemu"
            }
            _ => "",
        };
        Some(self.lacks(format!("the device {device}{hint}")))
    }

    fn lacks(&self, what: String) -> SkipReason {
        SkipReason::Qemu { version: self.version, name: self.name.clone(), what }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::axes::{ScalableMode, Toggle};

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

    #[test]
    fn names_the_qemu_that_lacks_something() {
        let no_pt = Axes { pt: Toggle::Off, ..Axes::default() };
        let narrow =
            Axes { scalable_mode: ScalableMode::FirstStage, aw_bits: Some(39), ..Axes::default() };
        let qemu = qemu("11.1.3", V11_1);
        let missing = SkipReason::Qemu {
            version: qemu.version,
            name: "qemu-system-x86_64".to_owned(),
            what: "the property intel-iommu.pt".to_owned(),
        };
        assert_eq!(qemu.iommu_device(&no_pt), Err(missing));
        assert!(matches!(qemu.iommu_device(&narrow), Err(SkipReason::Settings(_))));
    }
}
