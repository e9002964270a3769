//! Expectations: rules, each with the cells that it applies to, and the standard table.

mod keys;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::LazyLock,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    axes::Accelerator,
    conditions::{AxisSets, When},
    mistake::Mistake,
    value::{Bound, OneOrMany},
    yaml_de::read,
    yaml_tree::Part,
};

/// Whether a line must be in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// The line must be in the log.
    Present,
    /// The line must not be in the log.
    Absent,
    /// The line may be in the log. Cancels an earlier rule.
    Any,
}

/// An expectation. If several rules that apply to a cell set the same check, the last one wins.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// Name for reports.
    pub name: String,
    /// Cells that the rule applies to; all cells if empty.
    pub when: When,
    /// Meaning of a failure, in a few words.
    pub because: Option<String>,
    /// The warning that batching is off because the IOMMU is virtual.
    pub warning: Option<Presence>,
    /// Types that the group of each device under test may have: DMA, DMA-FQ, identity.
    pub group_type: OneOrMany<String>,
    /// The same after the workload.
    pub group_type_after: OneOrMany<String>,
    /// Bounds by the name of the count or check; see [`crate::metrics::bounded`].
    pub checks: BTreeMap<&'static str, Bound>,
    /// Fewest unmaps in a window for which this rule's rates are judged.
    pub needs_unmaps: Option<u64>,
    /// Whether a rate passes if it has no denominator, because nothing was unmapped.
    pub optional: bool,
    /// Bounds on medians, each judged on the accelerators that it names. If several bounds on a metric name
    /// the accelerator, the last one wins.
    pub bounds: Vec<MetricBound>,
    /// Comparisons with another cell of the same run. If several compare a metric with the same cell, the
    /// last one wins.
    pub ratios: Vec<Ratio>,
    /// Growth with live mappings, over cells of the same run.
    pub growth: Vec<Growth>,
}

/// A bound on the growth of a metric with live mappings, over the cells of one run that differ only in
/// `live-mappings`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Growth {
    /// Name of the metric.
    pub metric: String,
    /// Least growth per thousand live mappings.
    #[serde(default)]
    pub min: Option<f64>,
    /// Greatest growth per thousand live mappings.
    #[serde(default)]
    pub max: Option<f64>,
    /// Whether the bound applies to control windows.
    #[serde(default)]
    pub control: bool,
}

/// An absolute bound on a metric.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricBound {
    /// Name of the metric.
    pub metric: String,
    /// Least median.
    #[serde(default)]
    pub min: Option<f64>,
    /// Greatest median.
    #[serde(default)]
    pub max: Option<f64>,
    /// Unit of the metric, as a safeguard.
    #[serde(default)]
    pub unit: Option<String>,
    /// Accelerators under which the bound is judged.
    pub accelerators: OneOrMany<RanOn>,
}

/// The accelerator under which a guest ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RanOn {
    /// The kernel's KVM.
    Kvm,
    /// QEMU's TCG.
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
    /// Name of the metric.
    pub metric: String,
    /// The other cell, by the axis values in which it differs.
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
            && self.checks.is_empty()
            && self.bounds.is_empty()
            && self.ratios.is_empty()
            && self.growth.is_empty()
    }

    /// The bound on a count or check.
    pub(crate) fn bound(&self, check: &str) -> Option<Bound> {
        self.checks.get(check).copied()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    expect: Vec<Rule>,
}

/// The standard expectations as text: it tells which rules judged.
pub const STANDARD_TEXT: &str = include_str!("../data/standard.yaml");

static STANDARD: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    // A unit test reads this data.
    parse(STANDARD_TEXT).expect("data/standard.yaml is sound")
});

fn parse(text: &str) -> Result<Vec<Rule>, Vec<Mistake>> {
    let root = Part::parse(text).map_err(|mistake| vec![mistake])?;
    match read::<RuleFile>(&root) {
        (Some(file), mistakes) if mistakes.is_empty() => Ok(file.expect),
        (_, mistakes) => Err(mistakes),
    }
}

/// The standard expectations, from `data/standard.yaml`.
#[must_use]
pub fn standard() -> &'static [Rule] {
    &STANDARD
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
}
