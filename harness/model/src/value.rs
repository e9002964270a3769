//! Values that case files are written in: one or many, sizes, times, bounds.

use std::{borrow::Cow, fmt, marker::PhantomData, ops::Deref, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{text::shown, yaml_de::ONE_OR_MANY};

/// One value or a list of them; empty where nothing was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for OneOrMany<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Many<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Many<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of values")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Self::Value, D::Error> {
                Vec::deserialize(deserializer).map(OneOrMany)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element()? {
                    values.push(value);
                }
                if values.is_empty() {
                    return Err(de::Error::invalid_length(
                        0,
                        &"at least one value (or no such key)",
                    ));
                }
                Ok(OneOrMany(values))
            }
        }
        deserializer.deserialize_newtype_struct(ONE_OR_MANY, Many(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({
            "oneOf": [one, { "type": "array", "items": one, "minItems": 1, "uniqueItems": true }]
        })
    }
}

/// A size in bytes: `64KiB`, `512MiB`, `1GiB`, or a number of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Units, the largest first.
const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A text that is not a value of its kind. The text is fit to be printed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValue {
    /// Not a size.
    #[error("invalid size `{0}`: expected 64KiB, 512MiB, 1GiB or a number of bytes")]
    Size(String),
    /// Not a time.
    #[error("invalid time `{0}`: expected a number with a unit, as in 60s, 2m or 500ms")]
    Time(String),
    /// A time that is too short or too long for a deadline.
    #[error("time limit `{0}` is out of range: expected 1ms to a day")]
    TimeRange(String),
    /// Not an address width.
    #[error("invalid aw-bits `{0}`: expected 39, 48, 57 or default")]
    AddressWidth(String),
}

impl FromStr for Size {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let bad = || InvalidValue::Size(shown(text));
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| text.strip_suffix(name).map(|number| (number, *unit)))
            .unwrap_or((text, 1));
        let number: u64 = number.trim_end().parse().map_err(|_| bad())?;
        number.checked_mul(unit).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A size in bytes, or with a unit: 64KiB, 512MiB, 1GiB",
            "oneOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": "^[0-9]+ ?(KiB|MiB|GiB)?$" }
            ]
        })
    }
}

/// A time limit: `60s`, `2m`, `500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limit(pub Duration);

impl FromStr for Limit {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let bad = || InvalidValue::Time(shown(text));
        let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, unit) = text.split_at(at);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let millis = match unit.trim_start() {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            _ => return Err(bad()),
        };
        // A day is more than any guest needs, and far from any overflow.
        match number.checked_mul(millis) {
            Some(millis @ 1..=86_400_000) => Ok(Self(Duration::from_millis(millis))),
            _ => Err(InvalidValue::TimeRange(shown(text))),
        }
    }
}

impl JsonSchema for Limit {
    fn schema_name() -> Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A time with its unit: 60s, 2m, 500ms",
            "type": "string",
            "pattern": "^[0-9]+ ?(ms|s|m)$"
        })
    }
}

/// Reads a type from a number or from text with a unit.
macro_rules! deserialize_from_text {
    ($name:ident, $what:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }

                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$name, E> {
                        self.visit_str(&number.to_string())
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }
    };
}
deserialize_from_text!(Size, "a size such as 64KiB");
deserialize_from_text!(Limit, "a time such as 60s");
deserialize_from_text!(AwBits, "39, 48, 57 or default");

/// An address width; `None` is QEMU's own default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AwBits(pub Option<u8>);

impl FromStr for AwBits {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "default" => Ok(Self(None)),
            "39" => Ok(Self(Some(39))),
            "48" => Ok(Self(Some(48))),
            "57" => Ok(Self(Some(57))),
            _ => Err(InvalidValue::AddressWidth(shown(text))),
        }
    }
}

impl JsonSchema for AwBits {
    fn schema_name() -> Cow<'static, str> {
        "AwBits".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "Address width of the virtual IOMMU, in bits", "enum": [39, 48, 57, "default"] })
    }
}

/// What a number must be: exactly one value, or within limits that both belong to the range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Least value, if there is one.
    pub min: Option<f64>,
    /// Greatest value, if there is one.
    pub max: Option<f64>,
}

impl Bound {
    /// Exactly `value`.
    #[must_use]
    pub const fn exactly(value: f64) -> Self {
        Self { min: Some(value), max: Some(value) }
    }

    /// Whether `value` is what it must be; a NaN never is.
    #[must_use]
    pub fn holds(&self, value: f64) -> bool {
        !value.is_nan()
            && self.min.is_none_or(|min| value >= min)
            && self.max.is_none_or(|max| value <= max)
    }

    /// Whether no number fits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!((self.min, self.max), (Some(min), Some(max)) if min > max)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (Some(min), Some(max)) if min.to_bits() == max.to_bits() => write!(f, "exactly {min}"),
            (Some(min), Some(max)) => write!(f, "{min} to {max}"),
            (Some(min), None) => write!(f, "at least {min}"),
            (None, Some(max)) => write!(f, "at most {max}"),
            (None, None) => f.write_str("anything"),
        }
    }
}

/// [`Bound`] as it is written when it is no single number.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MinMax {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
}

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Bound;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or {min: .., max: ..}")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Bound, E> {
                // Counts beyond 2^53 are no counts of ours.
                self.visit_f64(value as f64)
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Bound, E> {
                Ok(Bound::exactly(value))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Bound, A::Error> {
                let MinMax { min, max } = MinMax::deserialize(MapAccessDeserializer::new(map))?;
                let bound = Bound { min, max };
                if min.is_none() && max.is_none() {
                    return Err(de::Error::custom("neither `min` nor `max` is given"));
                }
                if bound.is_empty() {
                    return Err(de::Error::custom("`min` is above `max`: nothing fits"));
                }
                Ok(bound)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Serialize for Bound {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        MinMax { min: self.min, max: self.max }.serialize(serializer)
    }
}

impl JsonSchema for Bound {
    fn schema_name() -> Cow<'static, str> {
        "Bound".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An exact number, or inclusive limits",
            "oneOf": [
                { "type": "number", "minimum": 0 },
                {
                    "type": "object",
                    "properties": { "min": { "type": "number" }, "max": { "type": "number" } },
                    "minProperties": 1,
                    "additionalProperties": false
                }
            ]
        })
    }
}
