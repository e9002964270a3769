//! Sets of axis values: what a case varies, what the command line overrides, and the cells that a
//! rule speaks of.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    axes::{
        Accelerator, Axes, Axis, DEFAULT_QEMU, Device, Passthrough, Policy, ScalableMode, Toggle,
    },
    value::{AwBits, OneOrMany, Size},
    version::{Version, VersionRange},
};

/// Declares a struct with one list per axis and what else it holds.
macro_rules! per_axis {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
        pub struct $name {
            /// Whether the virtual IOMMU reports caching mode.
            pub caching_mode: OneOrMany<Toggle>,
            /// Invalidation policy that the kernel is asked for.
            pub policy: OneOrMany<Policy>,
            /// The device that does the DMA.
            pub device: OneOrMany<Device>,
            /// What passes the device through to the guest, so that a hypervisor shadows its page tables.
            pub passthrough: OneOrMany<Passthrough>,
            /// Mappings of a page each that the device's driver keeps for as long as it runs.
            pub live_mappings: OneOrMany<u32>,
            /// Whether the virtual IOMMU offers pass-through translation; QEMU 11 can't do without.
            pub pt: OneOrMany<Toggle>,
            /// VT-d scalable mode.
            pub scalable_mode: OneOrMany<ScalableMode>,
            /// Whether the virtual IOMMU offers a device IOTLB (ATS).
            pub device_iotlb: OneOrMany<Toggle>,
            /// Address width of the virtual IOMMU.
            pub aw_bits: OneOrMany<AwBits>,
            /// CPUs of the guest.
            pub smp: OneOrMany<u32>,
            /// Memory of the guest, in whole MiB.
            pub memory: OneOrMany<Size>,
            /// Accelerator.
            pub accelerator: OneOrMany<Accelerator>,
            /// Name of a QEMU; usually from the command line.
            pub qemu: OneOrMany<String>,
            /// Name of a kernel; usually from the command line.
            pub kernel: OneOrMany<String>,
            $($(#[$fdoc])* pub $field: $type,)*
        }
    };
}

per_axis! {
    /// Values of each axis; an axis without any has its default.
    AxisSets {}
}

per_axis! {
    /// When a rule applies: each axis that is named has one of the values given, and the versions
    /// lie in their ranges.
    When {
        /// Range that the guest kernel's version lies in, as the guest says it: ">=5.15, <6.12".
        kernel_version: Option<VersionRange>,
        /// Range that QEMU's version lies in, as QEMU says it.
        qemu_version: Option<VersionRange>,
    }
}

impl AxisSets {
    /// Axes with a value that no guest can have, and what they take.
    pub(crate) fn out_of_range(&self) -> Vec<(Axis, &'static str)> {
        let mut wrong = Vec::new();
        if self.smp.iter().any(|cpus| !(1..=255).contains(cpus)) {
            wrong.push((Axis::Smp, "a guest has 1 to 255 CPUs"));
        }
        let memory = 128 << 20..=1 << 40;
        if self.memory.iter().any(|size| size.0 % (1 << 20) != 0 || !memory.contains(&size.0)) {
            wrong.push((Axis::Memory, "a guest has whole MiB of memory, 128MiB to 1TiB"));
        }
        for (axis, names) in [(Axis::Kernel, &self.kernel), (Axis::Qemu, &self.qemu)] {
            if names.iter().any(|name| name.trim().is_empty()) {
                wrong.push((axis, "an empty name"));
            }
        }
        wrong
    }

    /// The axes that have values.
    #[must_use]
    pub fn given(&self) -> Vec<Axis> {
        Axis::ALL.into_iter().filter(|axis| self.count(*axis) > 0).collect()
    }

    /// How many values an axis has.
    #[must_use]
    pub fn count(&self, axis: Axis) -> usize {
        match axis {
            Axis::CachingMode => self.caching_mode.len(),
            Axis::Policy => self.policy.len(),
            Axis::Device => self.device.len(),
            Axis::Passthrough => self.passthrough.len(),
            Axis::LiveMappings => self.live_mappings.len(),
            Axis::Pt => self.pt.len(),
            Axis::ScalableMode => self.scalable_mode.len(),
            Axis::DeviceIotlb => self.device_iotlb.len(),
            Axis::AwBits => self.aw_bits.len(),
            Axis::Smp => self.smp.len(),
            Axis::Memory => self.memory.len(),
            Axis::Accelerator => self.accelerator.len(),
            Axis::Qemu => self.qemu.len(),
            Axis::Kernel => self.kernel.len(),
        }
    }

    /// Whether each axis that has values here has one of them in `axes`.
    #[must_use]
    pub fn contains(&self, axes: &Axes) -> bool {
        fn among<T: PartialEq>(values: &[T], value: &T) -> bool {
            values.is_empty() || values.contains(value)
        }
        among(&self.caching_mode, &axes.caching_mode)
            && among(&self.policy, &axes.policy)
            && among(&self.device, &axes.device)
            && among(&self.passthrough, &axes.passthrough)
            && among(&self.live_mappings, &axes.live_mappings)
            && among(&self.pt, &axes.pt)
            && among(&self.scalable_mode, &axes.scalable_mode)
            && among(&self.device_iotlb, &axes.device_iotlb)
            && among(&self.aw_bits, &AwBits(axes.aw_bits))
            && among(&self.smp, &axes.smp)
            && among(&self.memory, &Size(u64::from(axes.memory_mib) << 20))
            && among(&self.accelerator, &axes.accelerator)
            && among(&self.qemu, &axes.qemu)
            && among(&self.kernel, &axes.kernel)
    }

    /// Every combination of the values, the last axis of [`Axis::ALL`] varying fastest.
    #[must_use]
    pub fn product(&self) -> Vec<Axes> {
        fn by<T: Clone>(cells: Vec<Axes>, values: &[T], set: impl Fn(&mut Axes, T)) -> Vec<Axes> {
            if values.is_empty() {
                return cells;
            }
            let with = |axes: &Axes, value: &T| {
                let mut axes = axes.clone();
                set(&mut axes, value.clone());
                axes
            };
            cells
                .iter()
                .flat_map(|axes| values.iter().map(move |value| (axes, value)))
                .map(|(axes, value)| with(axes, value))
                .collect()
        }
        let cells = vec![Axes::default()];
        let cells = by(cells, &self.caching_mode, |axes, value| axes.caching_mode = value);
        let cells = by(cells, &self.policy, |axes, value| axes.policy = value);
        let cells = by(cells, &self.device, |axes, value| axes.device = value);
        let cells = by(cells, &self.passthrough, |axes, value| axes.passthrough = value);
        let cells = by(cells, &self.live_mappings, |axes, value| axes.live_mappings = value);
        let cells = by(cells, &self.pt, |axes, value| axes.pt = value);
        let cells = by(cells, &self.scalable_mode, |axes, value| axes.scalable_mode = value);
        let cells = by(cells, &self.device_iotlb, |axes, value| axes.device_iotlb = value);
        let cells = by(cells, &self.aw_bits, |axes, value| axes.aw_bits = value.0);
        let cells = by(cells, &self.smp, |axes, value| axes.smp = value);
        let cells = by(cells, &self.memory, |axes, value| {
            axes.memory_mib = u32::try_from(value.0 >> 20).unwrap_or(u32::MAX);
        });
        let cells = by(cells, &self.accelerator, |axes, value| axes.accelerator = value);
        let cells = by(cells, &self.qemu, |axes, value| axes.qemu = value);
        by(cells, &self.kernel, |axes, value| axes.kernel = value)
    }

    /// How many combinations [`AxisSets::product`] would make.
    #[must_use]
    pub fn size(&self) -> usize {
        Axis::ALL.into_iter().map(|axis| self.count(axis).max(1)).fold(1, usize::saturating_mul)
    }

    /// These sets, with those that `other` has in place of ours.
    #[must_use]
    pub fn replaced_by(&self, other: &Self) -> Self {
        fn pick<T: Clone>(ours: &OneOrMany<T>, theirs: &OneOrMany<T>) -> OneOrMany<T> {
            if theirs.is_empty() { ours.clone() } else { theirs.clone() }
        }
        Self {
            caching_mode: pick(&self.caching_mode, &other.caching_mode),
            policy: pick(&self.policy, &other.policy),
            device: pick(&self.device, &other.device),
            passthrough: pick(&self.passthrough, &other.passthrough),
            live_mappings: pick(&self.live_mappings, &other.live_mappings),
            pt: pick(&self.pt, &other.pt),
            scalable_mode: pick(&self.scalable_mode, &other.scalable_mode),
            device_iotlb: pick(&self.device_iotlb, &other.device_iotlb),
            aw_bits: pick(&self.aw_bits, &other.aw_bits),
            smp: pick(&self.smp, &other.smp),
            memory: pick(&self.memory, &other.memory),
            accelerator: pick(&self.accelerator, &other.accelerator),
            qemu: pick(&self.qemu, &other.qemu),
            kernel: pick(&self.kernel, &other.kernel),
        }
    }

    /// A value that an axis has twice, by the axis and the value's index.
    #[must_use]
    pub fn repeated(&self) -> Vec<(Axis, usize)> {
        fn at<T: PartialEq>(values: &[T]) -> Option<usize> {
            (1..values.len()).find(|i| values[..*i].contains(&values[*i]))
        }
        let found = [
            (Axis::CachingMode, at(&self.caching_mode)),
            (Axis::Policy, at(&self.policy)),
            (Axis::Device, at(&self.device)),
            (Axis::Passthrough, at(&self.passthrough)),
            (Axis::LiveMappings, at(&self.live_mappings)),
            (Axis::Pt, at(&self.pt)),
            (Axis::ScalableMode, at(&self.scalable_mode)),
            (Axis::DeviceIotlb, at(&self.device_iotlb)),
            (Axis::AwBits, at(&self.aw_bits)),
            (Axis::Smp, at(&self.smp)),
            (Axis::Memory, at(&self.memory)),
            (Axis::Accelerator, at(&self.accelerator)),
            (Axis::Qemu, at(&self.qemu)),
            (Axis::Kernel, at(&self.kernel)),
        ];
        found.into_iter().filter_map(|(axis, index)| Some((axis, index?))).collect()
    }
}

impl Axes {
    /// These axes, with the first value of each that `sets` has in place of ours.
    #[must_use]
    pub fn with(&self, sets: &AxisSets) -> Self {
        let own = AxisSets::from(self).replaced_by(sets);
        own.product().into_iter().next().unwrap_or_else(|| self.clone())
    }
}

impl When {
    /// The conditions on axes alone.
    #[must_use]
    pub fn axes(&self) -> AxisSets {
        AxisSets {
            caching_mode: self.caching_mode.clone(),
            policy: self.policy.clone(),
            device: self.device.clone(),
            passthrough: self.passthrough.clone(),
            live_mappings: self.live_mappings.clone(),
            pt: self.pt.clone(),
            scalable_mode: self.scalable_mode.clone(),
            device_iotlb: self.device_iotlb.clone(),
            aw_bits: self.aw_bits.clone(),
            smp: self.smp.clone(),
            memory: self.memory.clone(),
            accelerator: self.accelerator.clone(),
            qemu: self.qemu.clone(),
            kernel: self.kernel.clone(),
        }
    }

    /// Whether it holds for a guest. A version that nobody told lies in no range.
    #[must_use]
    pub fn holds(&self, axes: &Axes, kernel: Option<Version>, qemu: Option<Version>) -> bool {
        fn within(range: Option<&VersionRange>, version: Option<Version>) -> bool {
            range.is_none_or(|range| version.is_some_and(|version| range.contains(version)))
        }
        within(self.kernel_version.as_ref(), kernel)
            && within(self.qemu_version.as_ref(), qemu)
            && self.axes().contains(axes)
    }

    /// Whether it could hold for some guest with these axes. What the command line decides (kernel,
    /// QEMU, accelerator) may turn out to be anything where the case does not name it.
    #[must_use]
    pub fn may_hold(&self, axes: &Axes) -> bool {
        let empty = |range: Option<&VersionRange>| range.is_some_and(VersionRange::is_empty);
        let mut conditions = self.axes();
        if axes.kernel.is_empty() {
            conditions.kernel = OneOrMany::default();
        }
        // A command line may name another one.
        if axes.qemu == DEFAULT_QEMU {
            conditions.qemu = OneOrMany::default();
        }
        if axes.accelerator == Accelerator::Auto {
            conditions.accelerator = OneOrMany::default();
        }
        !empty(self.kernel_version.as_ref())
            && !empty(self.qemu_version.as_ref())
            && conditions.contains(axes)
    }
}

impl From<&Axes> for AxisSets {
    /// The sets that hold these values and no others.
    fn from(axes: &Axes) -> Self {
        Self {
            caching_mode: OneOrMany(vec![axes.caching_mode]),
            policy: OneOrMany(vec![axes.policy]),
            device: OneOrMany(vec![axes.device]),
            passthrough: OneOrMany(vec![axes.passthrough]),
            live_mappings: OneOrMany(vec![axes.live_mappings]),
            pt: OneOrMany(vec![axes.pt]),
            scalable_mode: OneOrMany(vec![axes.scalable_mode]),
            device_iotlb: OneOrMany(vec![axes.device_iotlb]),
            aw_bits: OneOrMany(vec![AwBits(axes.aw_bits)]),
            smp: OneOrMany(vec![axes.smp]),
            memory: OneOrMany(vec![Size(u64::from(axes.memory_mib) << 20)]),
            accelerator: OneOrMany(vec![axes.accelerator]),
            qemu: OneOrMany(vec![axes.qemu.clone()]),
            kernel: OneOrMany(vec![axes.kernel.clone()]),
        }
    }
}
