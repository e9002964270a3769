//! Sets of axis values: what a case varies, what the command line overrides, and the cells that a
//! rule speaks of.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    axes::{
        Accelerator, Axes, Axis, AxisValue, DEFAULT_QEMU, Device, Passthrough, Policy,
        ScalableMode, Toggle, axis_table,
    },
    value::{AwBits, OneOrMany, Size},
    version::{Version, VersionRange},
};

/// Defines [`AxisSets`] and [`When`], which have one list per axis.
macro_rules! define_sets {
    ($({
        $(#[$doc:meta])+
        $axis:ident = $name:literal;
        field $field:ident: $field_type:ty = $default:expr;
        values $list:ident: $value:ty;
        json { $(#[$json:meta])* }
        shown { $(#[$shown:meta])* }
    })+) => {
        /// Values of each axis. An axis without values has its default.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct AxisSets {
            $($(#[$doc])+ #[serde(rename = $name)] pub $list: OneOrMany<$value>,)+
        }

        /// The cells that a rule applies to: each listed axis has one of the listed values, and the
        /// versions are in range.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
        pub struct When {
            $($(#[$doc])+ #[serde(rename = $name)] pub $list: OneOrMany<$value>,)+
            /// Range of the kernel version that the guest reports, as in ">=5.15, <6.12".
            pub kernel_version: Option<VersionRange>,
            /// Range of the version that QEMU reports.
            pub qemu_version: Option<VersionRange>,
        }

        impl AxisSets {
            /// How many values an axis has.
            #[must_use]
            pub fn count(&self, axis: Axis) -> usize {
                match axis {
                    $(Axis::$axis => self.$list.len(),)+
                }
            }

            /// Whether each axis that has values here has one of them in `axes`.
            #[must_use]
            pub fn contains(&self, axes: &Axes) -> bool {
                $(is_among(&self.$list, &axes.$field))&&+
            }

            /// Every combination of the values, the last axis of [`Axis::ALL`] varying fastest.
            #[must_use]
            pub fn product(&self) -> Vec<Axes> {
                let mut cells = vec![Axes::default()];
                $(
                    cells = vary(cells, &self.$list, |axes, value| axes.$field = value);
                )+
                cells
            }

            /// These sets, with those that `other` has in place of ours.
            #[must_use]
            pub fn replaced_by(&self, other: &Self) -> Self {
                Self { $($list: replacement(&self.$list, &other.$list),)+ }
            }

            /// A value that an axis has twice, by the axis and the value's index.
            #[must_use]
            pub fn repeated(&self) -> Vec<(Axis, usize)> {
                let mut found = Vec::new();
                $(
                    if let Some(index) = first_repeated(&self.$list) {
                        found.push((Axis::$axis, index));
                    }
                )+
                found
            }
        }

        impl When {
            /// The conditions on axes alone.
            #[must_use]
            pub fn axes(&self) -> AxisSets {
                AxisSets { $($list: self.$list.clone(),)+ }
            }
        }

        impl From<&Axes> for AxisSets {
            /// The sets that hold these values and no others.
            fn from(axes: &Axes) -> Self {
                Self { $($list: OneOrMany(vec![AxisValue::from_field(&axes.$field)]),)+ }
            }
        }
    };
}
axis_table!(define_sets, ids);

/// Whether a field has one of the values, or any value will do because none is listed.
fn is_among<T: AxisValue + PartialEq>(values: &[T], field: &T::Field) -> bool {
    values.is_empty() || values.contains(&T::from_field(field))
}

/// Each of the cells with each of the values; the cells as they are where there is no value.
fn vary<T: AxisValue + Clone>(
    cells: Vec<Axes>,
    values: &[T],
    set: impl Fn(&mut Axes, T::Field),
) -> Vec<Axes> {
    if values.is_empty() {
        return cells;
    }
    let mut varied = Vec::with_capacity(cells.len() * values.len());
    for cell in &cells {
        for value in values {
            let mut axes = cell.clone();
            set(&mut axes, value.clone().into_field());
            varied.push(axes);
        }
    }
    varied
}

/// `theirs` where it has values, otherwise `ours`.
fn replacement<T: Clone>(ours: &OneOrMany<T>, theirs: &OneOrMany<T>) -> OneOrMany<T> {
    if theirs.is_empty() { ours.clone() } else { theirs.clone() }
}

/// The index of the first value that also stands before it.
fn first_repeated<T: PartialEq>(values: &[T]) -> Option<usize> {
    (1..values.len()).find(|index| values[..*index].contains(&values[*index]))
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

    /// How many combinations [`AxisSets::product`] would make.
    #[must_use]
    pub fn size(&self) -> usize {
        Axis::ALL.into_iter().map(|axis| self.count(axis).max(1)).fold(1, usize::saturating_mul)
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
