//! The windows of a cell: how often its workload runs, and in what kind of window.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    axes::{Axes, Passthrough, Policy, Toggle},
    observation::{PlannedWindow, Window, WindowKind},
    version::Version,
};

/// The type of a group whose unmaps are batched.
const BATCHED: &str = "DMA-FQ";
/// The type of a group whose unmaps are not.
const STRICT: &str = "DMA";
/// The first kernels that let a group be batched while its driver is bound.
const CAN_BATCH: Version = Version::new(6, 1, 0);

/// Windows in which the workload runs. Counting and timing use separate windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Windows {
    /// Whether the workload runs once in a counting window, with QEMU's trace.
    pub count: bool,
    /// Number of timing windows.
    #[schemars(range(max = 1000))]
    pub time: u32,
    /// Number of runs before the timing windows that are not measured.
    #[schemars(range(max = 1000))]
    pub warm_up: u32,
    /// Whether each window has a control window in the same boot, in which the kernel batches unmaps
    /// although caching mode is on, as a kernel without commit 29b32839725f does. Needs kernel 6.1 or
    /// later, caching mode on, and the policy lazy.
    pub control: bool,
}

impl Default for Windows {
    fn default() -> Self {
        Self { count: true, time: 0, warm_up: 0, control: false }
    }
}

/// Which of two twins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The kernel as it is.
    Own,
    /// The kernel made to batch.
    Control,
}

impl Window {
    /// Which twin it is.
    #[must_use]
    pub fn side(&self) -> Side {
        match self.group_type.as_deref() {
            Some(BATCHED) => Side::Control,
            _ => Side::Own,
        }
    }
}

impl Windows {
    /// The windows of a cell that does something, in their order.
    #[must_use]
    pub fn planned(&self, axes: &Axes, kernel: Option<Version>) -> Vec<PlannedWindow> {
        let Self { count, time, warm_up, control } = *self;
        let probed = axes.passthrough != Passthrough::None;
        // Its driver maps memory for its own lists when it first needs them, and keeps it.
        let first = (probed && count)
            .then_some(PlannedWindow { kind: WindowKind::WarmUp, group_type: None });
        let kinds = std::iter::repeat_n(WindowKind::Counting, count.into())
            .chain(std::iter::repeat_n(WindowKind::WarmUp, warm_up as usize))
            .chain(std::iter::repeat_n(WindowKind::Timing, time as usize));
        let twins = control
            && axes.caching_mode == Toggle::On
            && axes.policy == Policy::Lazy
            && kernel.is_some_and(|kernel| kernel >= CAN_BATCH);
        if !twins {
            let plain = kinds.map(|kind| PlannedWindow { kind, group_type: None });
            return first.into_iter().chain(plain).collect();
        }
        // Each pair the other way round than the last: a drift of the machine then favours no side, and
        // the driver is unbound half as often.
        let sides = [[STRICT, BATCHED], [BATCHED, STRICT]];
        let twins = kinds
            .zip(sides.iter().cycle())
            .flat_map(|(kind, pair)| pair.map(|side| (kind, side)))
            .map(|(kind, side)| PlannedWindow { kind, group_type: Some(side.to_owned()) });
        first.into_iter().chain(twins).collect()
    }
}

/// Windows on these sides, in this order: for one who has an order of his own.
#[must_use]
pub fn on_sides(windows: impl IntoIterator<Item = (WindowKind, Side)>) -> Vec<PlannedWindow> {
    let planned = windows.into_iter().map(|(kind, side)| {
        let group_type = match side {
            Side::Own => STRICT,
            Side::Control => BATCHED,
        };
        PlannedWindow { kind, group_type: Some(group_type.to_owned()) }
    });
    planned.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kernel: &str, axes: &Axes, expected: &[(WindowKind, Option<&str>)]) {
        let windows = Windows { time: 2, control: true, ..Windows::default() };
        let found = windows.planned(axes, kernel.parse().ok());
        let found: Vec<_> =
            found.iter().map(|window| (window.kind, window.group_type.as_deref())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn twins_come_in_turned_pairs_where_the_kernel_can_have_them() {
        use WindowKind::{Counting, Timing};
        let on = Axes { caching_mode: Toggle::On, ..Axes::default() };
        let (own, control) = (Some("DMA"), Some("DMA-FQ"));
        check(
            "6.1.176",
            &on,
            &[
                (Counting, own),
                (Counting, control),
                (Timing, control),
                (Timing, own),
                (Timing, own),
                (Timing, control),
            ],
        );
        let plain = [(Counting, None), (Timing, None), (Timing, None)];
        check("5.10.262", &on, &plain);
        check("", &on, &plain);
        check("6.1.176", &Axes::default(), &plain);
        check("6.1.176", &Axes { policy: Policy::Strict, ..on }, &plain);
    }
}
