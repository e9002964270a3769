//! The axes that a cell varies, and the values they take.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A value that an axis does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no value of {axis}: it takes {allowed}")]
pub struct BadValue {
    /// The axis' name as in a case file.
    pub axis: &'static str,
    /// What was given.
    pub given: String,
    /// What would have been right.
    pub allowed: String,
}

/// Defines an axis' values once: its names in files, on the command line and in reports.
macro_rules! axis_values {
    ($(#[$doc:meta])* $name:ident, $axis:literal: $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant),+
        }


        impl $name {
            /// Every value, in the order in which cells are laid out.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $name {
            type Err = BadValue;

            fn from_str(text: &str) -> Result<Self, BadValue> {
                Self::ALL.iter().copied().find(|value| value.name() == text).ok_or_else(|| BadValue {
                    axis: $axis,
                    given: text.to_owned(),
                    allowed: Self::ALL.iter().map(|value| value.name()).collect::<Vec<_>>().join(", "),
                })
            }
        }
    };
}

axis_values! {
    /// Something that is off or on.
    Toggle, "an on/off axis":
    /// Off.
    #[default] Off = "off",
    /// On.
    On = "on",
}

axis_values! {
    /// How the kernel is asked to invalidate the IOTLB after an unmap.
    Policy, "policy":
    /// Batched: unmaps wait in a flush queue (the kernel's default).
    #[default] Lazy = "lazy",
    /// Each unmap is flushed before its IOVA can be used again.
    Strict = "strict",
    /// Devices are mapped one to one: nothing is invalidated.
    Passthrough = "passthrough",
}

axis_values! {
    /// The device that does the DMA.
    Device, "device":
    /// QEMU's NVMe controller.
    #[default] Nvme = "nvme",
    /// virtio-blk with `iommu_platform=on`.
    VirtioBlk = "virtio-blk",
    /// Two e1000e network interfaces joined inside QEMU.
    E1000e = "e1000e",
    /// Two virtio-net interfaces with `iommu_platform=on`, joined inside QEMU.
    VirtioNet = "virtio-net",
}

axis_values! {
    /// What passes the device through to the guest, so that a hypervisor shadows its page tables.
    Passthrough, "passthrough":
    /// Nothing: QEMU emulates the device, and keeps no shadow.
    #[default] None = "none",
    /// A software NVMe controller over vfio-user, which sees each mapping come and go.
    Probe = "probe",
    /// The kernel's VFIO in an outer guest, with that guest's emulated device.
    Nested = "nested",
    /// The kernel's VFIO on this host, with a device of its own.
    Host = "host",
}

axis_values! {
    /// VT-d scalable mode and the kind of page table that it offers.
    ScalableMode, "scalable-mode":
    /// Legacy mode.
    #[default] Off = "off",
    /// Scalable mode with second-stage tables.
    SecondStage = "second-stage",
    /// Scalable mode with first-stage tables.
    FirstStage = "first-stage",
}

axis_values! {
    /// What runs the guest's instructions.
    Accelerator, "accelerator":
    /// KVM if a guest is seen to run under it, TCG otherwise.
    #[default] Auto = "auto",
    /// The kernel's virtual machine.
    Kvm = "kvm",
    /// QEMU's translator.
    Tcg = "tcg",
}

impl Device {
    /// Whether it is a pair of network interfaces rather than a disk.
    #[must_use]
    pub const fn is_network(self) -> bool {
        matches!(self, Self::E1000e | Self::VirtioNet)
    }

    /// The same device in the agent's words.
    #[must_use]
    pub const fn wire(self) -> dmarig_wire::Device {
        match self {
            Self::Nvme => dmarig_wire::Device::Nvme,
            Self::VirtioBlk => dmarig_wire::Device::VirtioBlk,
            Self::E1000e => dmarig_wire::Device::E1000e,
            Self::VirtioNet => dmarig_wire::Device::VirtioNet,
        }
    }
}

/// The QEMU that is taken where none is named, found on the `PATH`.
pub const DEFAULT_QEMU: &str = "qemu-system-x86_64";

/// Every setting of one cell.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct Axes {
    /// Whether the virtual IOMMU reports caching mode.
    pub caching_mode: Toggle,
    /// Invalidation policy that the kernel is asked for.
    pub policy: Policy,
    /// The device that does the DMA.
    pub device: Device,
    /// What passes it through.
    #[serde(default)]
    pub passthrough: Passthrough,
    /// Mappings of a page each that the device's driver keeps for as long as it runs.
    #[serde(default)]
    pub live_mappings: u32,
    /// Whether the virtual IOMMU offers pass-through translation (ECAP.PT).
    pub pt: Toggle,
    /// Scalable mode.
    pub scalable_mode: ScalableMode,
    /// Whether the virtual IOMMU offers a device IOTLB (ATS).
    pub device_iotlb: Toggle,
    /// Address width of the virtual IOMMU, in bits; `None` for QEMU's own default.
    pub aw_bits: Option<u8>,
    /// CPUs of the guest.
    pub smp: u32,
    /// Memory of the guest, in MiB.
    pub memory_mib: u32,
    /// Name of the kernel under test.
    pub kernel: String,
    /// Name of the QEMU binary.
    pub qemu: String,
    /// Accelerator asked for.
    pub accelerator: Accelerator,
}

impl Default for Axes {
    fn default() -> Self {
        Self {
            caching_mode: Toggle::Off,
            policy: Policy::Lazy,
            device: Device::Nvme,
            passthrough: Passthrough::None,
            live_mappings: 0,
            pt: Toggle::On,
            scalable_mode: ScalableMode::Off,
            device_iotlb: Toggle::Off,
            aw_bits: None,
            smp: 1,
            memory_mib: 512,
            kernel: String::new(),
            qemu: DEFAULT_QEMU.to_owned(),
            accelerator: Accelerator::Auto,
        }
    }
}

/// The name of an axis.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Axis {
    /// [`Axes::caching_mode`]
    CachingMode,
    /// [`Axes::policy`]
    Policy,
    /// [`Axes::device`]
    Device,
    /// [`Axes::passthrough`]
    Passthrough,
    /// [`Axes::live_mappings`]
    LiveMappings,
    /// [`Axes::pt`]
    Pt,
    /// [`Axes::scalable_mode`]
    ScalableMode,
    /// [`Axes::device_iotlb`]
    DeviceIotlb,
    /// [`Axes::aw_bits`]
    AwBits,
    /// [`Axes::smp`]
    Smp,
    /// [`Axes::memory_mib`]
    Memory,
    /// [`Axes::accelerator`]
    Accelerator,
    /// [`Axes::qemu`]
    Qemu,
    /// [`Axes::kernel`]
    Kernel,
}

impl Axis {
    /// Every axis, in the order in which a cell's id names them.
    pub const ALL: [Self; 14] = [
        Self::CachingMode,
        Self::Policy,
        Self::Device,
        Self::Passthrough,
        Self::LiveMappings,
        Self::Pt,
        Self::ScalableMode,
        Self::DeviceIotlb,
        Self::AwBits,
        Self::Smp,
        Self::Memory,
        Self::Accelerator,
        Self::Qemu,
        Self::Kernel,
    ];

    /// Its name in case files, ids and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CachingMode => "caching-mode",
            Self::Policy => "policy",
            Self::Device => "device",
            Self::Passthrough => "passthrough",
            Self::LiveMappings => "live-mappings",
            Self::Pt => "pt",
            Self::ScalableMode => "scalable-mode",
            Self::DeviceIotlb => "device-iotlb",
            Self::AwBits => "aw-bits",
            Self::Smp => "smp",
            Self::Memory => "memory",
            Self::Accelerator => "accelerator",
            Self::Qemu => "qemu",
            Self::Kernel => "kernel",
        }
    }

    /// This axis' value in `axes`, as text.
    #[must_use]
    pub fn value(self, axes: &Axes) -> String {
        match self {
            Self::CachingMode => axes.caching_mode.to_string(),
            Self::Policy => axes.policy.to_string(),
            Self::Device => axes.device.to_string(),
            Self::Passthrough => axes.passthrough.to_string(),
            Self::LiveMappings => axes.live_mappings.to_string(),
            Self::Pt => axes.pt.to_string(),
            Self::ScalableMode => axes.scalable_mode.to_string(),
            Self::DeviceIotlb => axes.device_iotlb.to_string(),
            Self::AwBits => {
                axes.aw_bits.map_or_else(|| "default".to_owned(), |bits| bits.to_string())
            }
            Self::Smp => axes.smp.to_string(),
            Self::Memory => axes.memory_mib.to_string(),
            Self::Accelerator => axes.accelerator.to_string(),
            Self::Qemu => axes.qemu.clone(),
            Self::Kernel => axes.kernel.clone(),
        }
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_back_from_its_name() {
        for device in Device::ALL {
            assert_eq!(device.name().parse(), Ok(*device));
        }
    }

    #[test]
    fn a_bad_value_is_told_the_right_ones() {
        let error = "layz".parse::<Policy>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`layz` is no value of policy: it takes lazy, strict, passthrough"
        );
    }
}
