//! The axes that a cell varies, and the values they take.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::{AwBits, Size};

/// A value that an axis does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {axis} `{given}`: expected one of {allowed}")]
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
    /// Off or on.
    Toggle, "an on/off axis":
    /// Off.
    #[default] Off = "off",
    /// On.
    On = "on",
}

axis_values! {
    /// Invalidation of the IOTLB after an unmap.
    Policy, "policy":
    /// Batched: unmaps wait in a flush queue. This is the kernel's default.
    #[default] Lazy = "lazy",
    /// Each unmap is flushed before its IOVA can be reused.
    Strict = "strict",
    /// Devices use an identity mapping; nothing is invalidated.
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
    /// How the device is passed through to the guest. With passthrough, a hypervisor shadows the
    /// guest's page tables.
    Passthrough, "passthrough":
    /// No passthrough: QEMU emulates the device and shadows nothing.
    #[default] None = "none",
    /// A software NVMe controller over vfio-user, which observes every mapping.
    Probe = "probe",
    /// VFIO of the kernel of an outer guest, with an emulated device of that guest.
    Nested = "nested",
    /// VFIO of this host's kernel, with a device of the host.
    Host = "host",
}

axis_values! {
    /// VT-d scalable mode and its kind of page tables.
    ScalableMode, "scalable-mode":
    /// Legacy mode.
    #[default] Off = "off",
    /// Scalable mode with second-stage tables.
    SecondStage = "second-stage",
    /// Scalable mode with first-stage tables.
    FirstStage = "first-stage",
}

axis_values! {
    /// The accelerator that executes the guest.
    Accelerator, "accelerator":
    /// KVM if a guest runs under it, TCG otherwise.
    #[default] Auto = "auto",
    /// The kernel's KVM.
    Kvm = "kvm",
    /// QEMU's TCG.
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

/// How the values of an axis are listed in a case file, kept in [`Axes`] and printed.
pub trait AxisValue: Sized {
    /// The type of the field of [`Axes`].
    type Field;

    /// The listed value that stands for a field's value.
    fn from_field(field: &Self::Field) -> Self;

    /// The field's value that a listed value stands for.
    fn into_field(self) -> Self::Field;

    /// A field's value as ids and reports print it.
    fn text(field: &Self::Field) -> String;
}

/// Implements [`AxisValue`] for types that are listed as they are kept.
macro_rules! kept_as_listed {
    ($($kept:ty),+ $(,)?) => {$(
        impl AxisValue for $kept {
            type Field = Self;

            fn from_field(field: &Self) -> Self {
                field.clone()
            }

            fn into_field(self) -> Self {
                self
            }

            fn text(field: &Self) -> String {
                field.to_string()
            }
        }
    )+};
}
kept_as_listed!(Toggle, Policy, Device, Passthrough, ScalableMode, Accelerator, u32, String);

impl AxisValue for AwBits {
    type Field = Option<u8>;

    fn from_field(field: &Option<u8>) -> Self {
        Self(*field)
    }

    fn into_field(self) -> Option<u8> {
        self.0
    }

    fn text(field: &Option<u8>) -> String {
        field.map_or_else(|| "default".to_owned(), |bits| bits.to_string())
    }
}

/// Memory is kept in MiB.
impl AxisValue for Size {
    type Field = u32;

    fn from_field(field: &u32) -> Self {
        Self(u64::from(*field) << 20)
    }

    fn into_field(self) -> u32 {
        u32::try_from(self.0 >> 20).unwrap_or(u32::MAX)
    }

    fn text(field: &u32) -> String {
        field.to_string()
    }
}

/// The table of axes: everything that enumerates axes is generated from its rows.
///
/// `axis_table!(callback, order)` calls the macro `callback` with the rows. The order `ids` is that of
/// ids, case files and the matrix; `fields` is that of the fields of [`Axes`]; `settings` leaves out
/// the axes that options of the command line usually give.
///
/// A row has the axis, its name, its field in [`Axes`] with the default, and its list in a case file.
/// `json` has serde attributes of the field: an axis that older records lack needs
/// `#[serde(default)]`. `shown` documents the field of the result document.
macro_rules! axis_table {
    ($callback:ident, $order:ident) => {
        $crate::axes::call_in_order! {
            $order, $callback, [
                {
                    /// Whether the virtual IOMMU reports caching mode.
                    CachingMode = "caching-mode";
                    field caching_mode: Toggle = Toggle::Off;
                    values caching_mode: Toggle;
                    json {}
                    shown {
                        /// Whether the virtual IOMMU reports caching mode.
                    }
                }
                {
                    /// Invalidation policy that the kernel command line requests.
                    Policy = "policy";
                    field policy: Policy = Policy::Lazy;
                    values policy: Policy;
                    json {}
                    shown {
                        /// Invalidation policy that the kernel was asked for.
                    }
                }
                {
                    /// The device that does the DMA.
                    Device = "device";
                    field device: Device = Device::Nvme;
                    values device: Device;
                    json {}
                    shown {
                        /// The device that did the DMA.
                    }
                }
                {
                    /// How the device is passed through to the guest. With passthrough, a hypervisor
                    /// shadows the guest's page tables.
                    Passthrough = "passthrough";
                    field passthrough: Passthrough = Passthrough::None;
                    values passthrough: Passthrough;
                    json { #[serde(default)] }
                    shown {
                        /// What passed the device through.
                    }
                }
                {
                    /// Number of mappings, of one page each, that the device's driver holds
                    /// permanently.
                    LiveMappings = "live-mappings";
                    field live_mappings: u32 = 0;
                    values live_mappings: u32;
                    json { #[serde(default)] }
                    shown {
                        /// Mappings of a page each that the device's driver was made to keep.
                    }
                }
                {
                    /// Whether the virtual IOMMU supports pass-through translation. QEMU 11 cannot
                    /// switch it off.
                    Pt = "pt";
                    field pt: Toggle = Toggle::On;
                    values pt: Toggle;
                    json {}
                    shown {
                        /// Whether the virtual IOMMU offers pass-through translation.
                    }
                }
                {
                    /// VT-d scalable mode.
                    ScalableMode = "scalable-mode";
                    field scalable_mode: ScalableMode = ScalableMode::Off;
                    values scalable_mode: ScalableMode;
                    json {}
                    shown {
                        /// Scalable mode.
                    }
                }
                {
                    /// Whether the virtual IOMMU supports a device IOTLB (ATS).
                    DeviceIotlb = "device-iotlb";
                    field device_iotlb: Toggle = Toggle::Off;
                    values device_iotlb: Toggle;
                    json {}
                    shown {
                        /// Whether the virtual IOMMU offers a device IOTLB.
                    }
                }
                {
                    /// Address width of the virtual IOMMU.
                    AwBits = "aw-bits";
                    field aw_bits: Option<u8> = None;
                    values aw_bits: AwBits;
                    json {}
                    shown {
                        /// Address width that was asked for, in bits; null for QEMU's default.
                    }
                }
                {
                    /// CPUs of the guest.
                    Smp = "smp";
                    field smp: u32 = 1;
                    values smp: u32;
                    json {}
                    shown {
                        /// CPUs.
                    }
                }
                {
                    /// Memory of the guest, in whole MiB.
                    Memory = "memory";
                    field memory_mib: u32 = 512;
                    values memory: Size;
                    json {}
                    shown {
                        /// Memory, in MiB.
                    }
                }
            ] [
                {
                    /// The accelerator.
                    Accelerator = "accelerator";
                    field accelerator: Accelerator = Accelerator::Auto;
                    values accelerator: Accelerator;
                    json {}
                    shown {}
                }
                {
                    /// Name of a QEMU. Usually given on the command line.
                    Qemu = "qemu";
                    field qemu: String = DEFAULT_QEMU.to_owned();
                    values qemu: String;
                    json {}
                    shown {}
                }
                {
                    /// Name of a kernel. Usually given on the command line.
                    Kernel = "kernel";
                    field kernel: String = String::new();
                    values kernel: String;
                    json {}
                    shown {}
                }
            ]
        }
    };
}
pub(crate) use axis_table;

/// Calls a macro with the rows of [`axis_table`] in an order.
macro_rules! call_in_order {
    (ids, $callback:ident, [$($setting:tt)*] [$($option:tt)*]) => {
        $callback! { $($setting)* $($option)* }
    };
    (fields, $callback:ident, [$($setting:tt)*] [$accelerator:tt $qemu:tt $kernel:tt]) => {
        $callback! { $($setting)* $kernel $qemu $accelerator }
    };
    (settings, $callback:ident, [$($setting:tt)*] [$($option:tt)*]) => {
        $callback! { $($setting)* }
    };
}
pub(crate) use call_in_order;

/// Defines [`Axes`].
macro_rules! define_axes {
    ($({
        $(#[$doc:meta])+
        $axis:ident = $name:literal;
        field $field:ident: $field_type:ty = $default:expr;
        values $list:ident: $value:ty;
        json { $(#[$json:meta])* }
        shown { $(#[$shown:meta])* }
    })+) => {
        /// Every setting of one cell.
        #[derive(
            Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        pub struct Axes {
            $($(#[$doc])+ $(#[$json])* pub $field: $field_type,)+
        }

        impl Default for Axes {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }
    };
}
axis_table!(define_axes, fields);

/// Defines [`Axis`].
macro_rules! define_axis {
    ($({
        $(#[$doc:meta])+
        $axis:ident = $name:literal;
        field $field:ident: $field_type:ty = $default:expr;
        values $list:ident: $value:ty;
        json { $(#[$json:meta])* }
        shown { $(#[$shown:meta])* }
    })+) => {
        /// The name of an axis.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        pub enum Axis {
            $($(#[$doc])+ #[serde(rename = $name)] $axis,)+
        }

        impl Axis {
            /// Every axis, in the order in which a cell's id names them.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$axis),+];

            /// Its name in case files, ids and reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$axis => $name,)+
                }
            }

            /// This axis' value in `axes`, as text.
            #[must_use]
            pub fn value(self, axes: &Axes) -> String {
                match self {
                    $(Self::$axis => <$value as AxisValue>::text(&axes.$field),)+
                }
            }
        }
    };
}
axis_table!(define_axis, ids);

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
            "invalid policy `layz`: expected one of lazy, strict, passthrough"
        );
    }
}
