//! Regular expressions of case files.

use schemars::JsonSchema;
use serde::Deserialize;

/// A regular expression that compiles.
#[derive(Debug, Clone)]
pub struct Pattern(pub regex::Regex);

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        regex::RegexBuilder::new(&text).size_limit(1 << 20).build().map(Self).map_err(|error| {
            let why = error.to_string();
            let last = why.lines().last().unwrap_or_default();
            serde::de::Error::custom(format!("no regular expression: {last}"))
        })
    }
}

impl JsonSchema for Pattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Pattern".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "A regular expression" })
    }
}
