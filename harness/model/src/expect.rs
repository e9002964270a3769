//! Expectations: rules, each with the cells that it speaks of, and the standard table of them.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::LazyLock,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    axes::{Accelerator, Axes},
    case::Case,
    conditions::{AxisSets, When},
    metrics,
    tree::{Part, read},
    value::{Bound, OneOrMany},
    version::Version,
};

/// Whether a line must stand in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// It must.
    Present,
    /// It must not.
    Absent,
    /// It may: this takes back what a rule before it said.
    Any,
}

/// An expectation. Of the rules that apply to a cell, the last one that names a check decides it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rule {
    /// Its name, for reports.
    pub name: String,
    /// The cells that it speaks of; all of them where nothing is said.
    #[serde(default)]
    pub when: When,
    /// What it means if this does not hold, in a few words.
    #[serde(default)]
    pub because: Option<String>,
    /// The warning that batching is off because the IOMMU is virtual.
    #[serde(default)]
    pub warning: Option<Presence>,
    /// Types that the group of each device under test may have: DMA, DMA-FQ, identity.
    #[serde(default)]
    pub group_type: OneOrMany<String>,
    /// The same after the workload.
    #[serde(default)]
    pub group_type_after: OneOrMany<String>,
    /// DMA faults, in the log and in the hypervisor; 0 where no rule says more.
    #[serde(default)]
    pub faults: Option<Bound>,
    /// Frames lost; 0 where no rule says more.
    #[serde(default)]
    pub lost: Option<Bound>,
    /// Page-selective invalidations in the counting window.
    #[serde(default)]
    pub psi: Option<Bound>,
    /// Domain-selective invalidations in the counting window.
    #[serde(default)]
    pub dsi: Option<Bound>,
    /// Global invalidations in the counting window.
    #[serde(default)]
    pub global: Option<Bound>,
    /// Page-selective invalidations of unmaps, per unmap.
    #[serde(default)]
    pub psi_per_unmap: Option<Bound>,
    /// Page-selective invalidations of maps, per map (with caching mode on).
    #[serde(default)]
    pub psi_per_map: Option<Bound>,
    /// Ranges that are mapped for the first time in the window, beyond as many as are mapped at once,
    /// per unmap (with caching mode on).
    #[serde(default)]
    pub new_ranges_per_unmap: Option<Bound>,
    /// Domain-selective invalidations per thousand unmaps.
    #[serde(default, rename = "dsi-per-1000-unmaps")]
    pub dsi_per_1000_unmaps: Option<Bound>,
    /// Device-IOTLB invalidations per unmap (with a device IOTLB).
    #[serde(default)]
    pub device_iotlb_per_unmap: Option<Bound>,
    /// Leaf entries visited by walks of a shadowed page table, per unmap.
    #[serde(default)]
    pub page_walk_entries_per_unmap: Option<Bound>,
    /// Of them, those that had not changed.
    #[serde(default)]
    pub page_walk_in_vain_per_unmap: Option<Bound>,
    /// Requests of which the device still reached a buffer when the kernel had certainly given them
    /// back (with a probe).
    #[serde(default)]
    pub stale_requests: Option<Bound>,
    /// Requests of which a buffer was never unmapped at all (with a probe).
    #[serde(default)]
    pub leaked_requests: Option<Bound>,
    /// The share of such requests in all that the probe followed, from 0 to 1.
    #[serde(default)]
    pub stale_share: Option<Bound>,
    /// Most bytes of finished requests that the device reached at one time (with a probe).
    #[serde(default)]
    pub stale_bytes: Option<Bound>,
    /// Most requests that were submitted between one's completion and its last unmapping (with a
    /// probe).
    #[serde(default)]
    pub stale_for_requests: Option<Bound>,
    /// Mappings that the device was told of, per operation (with a probe).
    #[serde(default)]
    pub mappings_per_op: Option<Bound>,
    /// Most mappings that lived at one time in the window, beside those from before it (with a probe).
    #[serde(default)]
    pub mappings_in_flight: Option<Bound>,
    /// Fewest unmaps in a window for which this rule's rates are judged.
    #[serde(default)]
    pub needs_unmaps: Option<u64>,
    /// Whether a rate that has no denominator (nothing was unmapped) is let pass.
    #[serde(default)]
    pub optional: bool,
    /// Bounds on what was measured, each judged on the accelerators that it names. Of those of a metric that
    /// name the accelerator, the last one decides.
    #[serde(default)]
    pub bounds: Vec<MetricBound>,
    /// Comparisons with another cell of the same run. Of those of a metric with the same cell, the last one
    /// decides.
    #[serde(default)]
    pub ratios: Vec<Ratio>,
    /// Growth with live mappings, over cells of the same run.
    #[serde(default)]
    pub growth: Vec<Growth>,
}

/// A bound on how a metric grows with the mappings that live beside the workload, over the cells of
/// one run that differ in nothing but `live-mappings`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Growth {
    /// The metric's name.
    pub metric: String,
    /// Least growth per thousand live mappings.
    #[serde(default)]
    pub min: Option<f64>,
    /// Greatest growth per thousand live mappings.
    #[serde(default)]
    pub max: Option<f64>,
    /// Whether it is of the windows in which the kernel was made to batch.
    #[serde(default)]
    pub control: bool,
}

/// An absolute bound on a metric.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricBound {
    /// The metric's name.
    pub metric: String,
    /// Least median.
    #[serde(default)]
    pub min: Option<f64>,
    /// Greatest median.
    #[serde(default)]
    pub max: Option<f64>,
    /// Its unit, to be sure.
    #[serde(default)]
    pub unit: Option<String>,
    /// Accelerators on which it is judged.
    pub accelerators: OneOrMany<RanOn>,
}

/// An accelerator as a guest is seen to run under it: one that was asked for may be left to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RanOn {
    /// The kernel's virtual machine.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl RanOn {
    /// The accelerator that it is.
    #[must_use]
    pub const fn accelerator(self) -> Accelerator {
        match self {
            Self::Kvm => Accelerator::Kvm,
            Self::Tcg => Accelerator::Tcg,
        }
    }
}

/// A bound on a metric of a cell divided by that of another cell in the same run.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ratio {
    /// The metric's name.
    pub metric: String,
    /// The other cell: like this one but for these axes.
    pub to: AxisSets,
    /// Least ratio.
    #[serde(default)]
    pub min: Option<f64>,
    /// Greatest ratio.
    #[serde(default)]
    pub max: Option<f64>,
}

impl Rule {
    /// Whether it expects nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.warning.is_none()
            && self.group_type.is_empty()
            && self.group_type_after.is_empty()
            && self.faults.is_none()
            && self.lost.is_none()
            && COUNT_CHECKS.iter().all(|check| (check.bound)(self).is_none())
            && self.bounds.is_empty()
            && self.ratios.is_empty()
            && self.growth.is_empty()
    }
}

/// A check of a count: its name and the bound that a rule sets.
pub(crate) struct CountCheck {
    pub(crate) name: &'static str,
    pub(crate) bound: fn(&Rule) -> Option<Bound>,
}

/// Every check of a count. Each is a metric of that name, too.
pub(crate) const COUNT_CHECKS: [CountCheck; 17] = [
    CountCheck { name: metrics::PSI, bound: |rule| rule.psi },
    CountCheck { name: metrics::DSI, bound: |rule| rule.dsi },
    CountCheck { name: metrics::GLOBAL, bound: |rule| rule.global },
    CountCheck { name: metrics::PSI_PER_UNMAP, bound: |rule| rule.psi_per_unmap },
    CountCheck { name: metrics::PSI_PER_MAP, bound: |rule| rule.psi_per_map },
    CountCheck { name: metrics::NEW_RANGES_PER_UNMAP, bound: |rule| rule.new_ranges_per_unmap },
    CountCheck { name: metrics::DSI_PER_1000_UNMAPS, bound: |rule| rule.dsi_per_1000_unmaps },
    CountCheck { name: metrics::DEVICE_IOTLB_PER_UNMAP, bound: |rule| rule.device_iotlb_per_unmap },
    CountCheck {
        name: metrics::PAGE_WALK_ENTRIES_PER_UNMAP,
        bound: |rule| rule.page_walk_entries_per_unmap,
    },
    CountCheck {
        name: metrics::PAGE_WALK_IN_VAIN_PER_UNMAP,
        bound: |rule| rule.page_walk_in_vain_per_unmap,
    },
    CountCheck { name: metrics::STALE_REQUESTS, bound: |rule| rule.stale_requests },
    CountCheck { name: metrics::STALE_SHARE, bound: |rule| rule.stale_share },
    CountCheck { name: metrics::STALE_BYTES, bound: |rule| rule.stale_bytes },
    CountCheck { name: metrics::LEAKED_REQUESTS, bound: |rule| rule.leaked_requests },
    CountCheck { name: metrics::STALE_FOR_REQUESTS, bound: |rule| rule.stale_for_requests },
    CountCheck { name: metrics::MAPPINGS_PER_OP, bound: |rule| rule.mappings_per_op },
    CountCheck { name: metrics::MAPPINGS_IN_FLIGHT, bound: |rule| rule.mappings_in_flight },
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    expect: Vec<Rule>,
}

/// The standard expectations as text: it tells which rules judged.
pub const STANDARD_TEXT: &str = include_str!("../data/standard.yaml");

static STANDARD: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    // Our own data: a unit test reads it, so it can't be wrong in a build that passed them.
    parse(STANDARD_TEXT).expect("data/standard.yaml is sound")
});

fn parse(text: &str) -> Result<Vec<Rule>, String> {
    let root = Part::parse(text).map_err(|mistake| mistake.to_string())?;
    match read::<RuleFile>(&root) {
        (Some(file), mistakes) if mistakes.is_empty() => Ok(file.expect),
        (_, mistakes) => Err(format!("{mistakes:?}")),
    }
}

/// The standard expectations, from `data/standard.yaml`.
#[must_use]
pub fn standard() -> &'static [Rule] {
    &STANDARD
}

/// The rules that apply to a guest, in the order in which later ones go before earlier ones.
#[must_use]
pub fn applying<'a>(
    case: &'a Case,
    axes: &Axes,
    kernel: Option<Version>,
    qemu: Option<Version>,
) -> Vec<&'a Rule> {
    let standard: &'a [Rule] = if case.standard { standard() } else { &[] };
    standard.iter().chain(&case.expect).filter(|rule| rule.when.holds(axes, kernel, qemu)).collect()
}

/// The rule that decides a check, with what it says.
pub(crate) fn decide<'a, T>(
    rules: &[&'a Rule],
    pick: impl Fn(&'a Rule) -> Option<T>,
) -> Option<(&'a Rule, T)> {
    rules.iter().rev().find_map(|rule| Some((*rule, pick(rule)?)))
}

/// The last of the items of each key, which decides, in the order in which the keys come first.
pub(crate) fn last_of_each<T, K: Ord>(
    items: impl IntoIterator<Item = T>,
    key: impl Fn(&T) -> K,
) -> Vec<T> {
    let mut places: BTreeMap<K, usize> = BTreeMap::new();
    let mut last = Vec::new();
    for item in items {
        match places.entry(key(&item)) {
            Entry::Vacant(place) => {
                place.insert(last.len());
                last.push(item);
            }
            Entry::Occupied(place) => last[*place.get()] = item,
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_table_is_sound() {
        let rules = parse(include_str!("../data/standard.yaml")).unwrap();
        for (index, rule) in rules.iter().enumerate() {
            assert!(!rule.is_empty(), "`{}` expects nothing", rule.name);
            assert!(
                rules[..index].iter().all(|other| other.name != rule.name),
                "`{}` stands twice",
                rule.name
            );
            for range in [&rule.when.kernel_version, &rule.when.qemu_version] {
                assert!(range.as_ref().is_none_or(|range| !range.is_empty()), "{}", rule.name);
            }
        }
    }

    #[test]
    fn every_count_of_the_registry_can_be_bounded() {
        let counts: Vec<&str> = metrics::counts().map(|entry| entry.name).collect();
        assert_eq!(COUNT_CHECKS.map(|check| check.name), *counts);
    }
}
