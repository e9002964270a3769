//! Keys of a rule: some have types of their own, and each check with a bound is a key by its name.

use std::{borrow::Cow, fmt, sync::LazyLock};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};

use super::{Growth, MetricBound, Presence, Ratio, Rule};
use crate::{
    conditions::When,
    metrics,
    value::{Bound, OneOrMany},
};

/// Keys before those of the registry.
const FIRST: [&str; 6] = ["name", "when", "because", "warning", "group-type", "group-type-after"];
/// Keys after those of the registry.
const LAST: [&str; 5] = ["needs-unmaps", "optional", "bounds", "ratios", "growth"];

static KEYS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let checks = metrics::bounded().map(|entry| entry.name);
    FIRST.into_iter().chain(checks).chain(LAST).collect()
});

/// A key of a rule.
struct Key(&'static str);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Key, E> {
                let keys: &'static [&'static str] = &KEYS;
                let known = keys.iter().find(|key| **key == text);
                known.map(|key| Key(key)).ok_or_else(|| E::unknown_field(text, keys))
            }
        }

        deserializer.deserialize_identifier(KeyVisitor)
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("Rule", &KEYS, RuleVisitor)
    }
}

struct RuleVisitor;

impl<'de> Visitor<'de> for RuleVisitor {
    type Value = Rule;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("struct Rule")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Rule, M::Error> {
        let mut rule = Rule::default();
        let mut name = None;
        while let Some(Key(key)) = map.next_key()? {
            match key {
                "name" => name = Some(map.next_value()?),
                "when" => rule.when = map.next_value()?,
                "because" => rule.because = map.next_value()?,
                "warning" => rule.warning = map.next_value()?,
                "group-type" => rule.group_type = map.next_value()?,
                "group-type-after" => rule.group_type_after = map.next_value()?,
                "needs-unmaps" => rule.needs_unmaps = map.next_value()?,
                "optional" => rule.optional = map.next_value()?,
                "bounds" => rule.bounds = map.next_value()?,
                "ratios" => rule.ratios = map.next_value()?,
                "growth" => rule.growth = map.next_value()?,
                check => {
                    if let Some(bound) = map.next_value()? {
                        rule.checks.insert(check, bound);
                    }
                }
            }
        }
        rule.name = name.ok_or_else(|| de::Error::missing_field("name"))?;
        Ok(rule)
    }
}

/// An expectation. If several rules that apply to a cell set the same check, the last one wins.
#[derive(JsonSchema)]
#[schemars(rename = "Rule", rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "describes the keys that have types of their own")]
struct TypedKeys {
    /// Name for reports.
    name: String,
    /// Cells that the rule applies to; all cells if it is left out.
    #[schemars(default)]
    when: When,
    /// Meaning of a failure, in a few words.
    #[schemars(default)]
    because: Option<String>,
    /// The warning that batching is off because the IOMMU is virtual.
    #[schemars(default)]
    warning: Option<Presence>,
    /// Types that the group of each device under test may have: DMA, DMA-FQ, identity.
    #[schemars(default)]
    group_type: OneOrMany<String>,
    /// The same after the workload.
    #[schemars(default)]
    group_type_after: OneOrMany<String>,
    /// Fewest unmaps in a window for which this rule's rates are judged.
    #[schemars(default)]
    needs_unmaps: Option<u64>,
    /// Whether a rate passes if it has no denominator, because nothing was unmapped.
    #[schemars(default)]
    optional: bool,
    /// Bounds on medians, each judged on the accelerators that it names. If several bounds on a metric name
    /// the accelerator, the last one wins.
    #[schemars(default)]
    bounds: Vec<MetricBound>,
    /// Comparisons with another cell of the same run. If several compare a metric with the same cell, the
    /// last one wins.
    #[schemars(default)]
    ratios: Vec<Ratio>,
    /// Growth with live mappings, over cells of the same run.
    #[schemars(default)]
    growth: Vec<Growth>,
}

impl JsonSchema for Rule {
    fn schema_name() -> Cow<'static, str> {
        TypedKeys::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = TypedKeys::json_schema(generator);
        let properties = schema.get_mut("properties").and_then(|value| value.as_object_mut());
        // The derived schema of a struct has properties.
        let Some(properties) = properties else { return schema };
        for entry in metrics::bounded() {
            let mut bound = generator.subschema_for::<Option<Bound>>();
            bound.insert("default".to_owned(), serde_json::Value::Null);
            bound.insert("description".to_owned(), entry.explanation.into());
            properties.insert(entry.name.to_owned(), bound.into());
        }
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key without an arm of its own in the visitor would be read as a check.
    #[test]
    fn typed_keys_are_not_checks() {
        let schema = schemars::schema_for!(TypedKeys);
        let typed = schema.get("properties").and_then(|value| value.as_object()).unwrap();
        for key in typed.keys() {
            assert!(FIRST.iter().chain(&LAST).any(|known| known == key), "`{key}`");
            assert!(metrics::bounded().all(|entry| entry.name != key), "`{key}`");
        }
        assert_eq!(typed.len(), FIRST.len() + LAST.len());
    }
}
