//! Serde's view of a [`crate::yaml_tree`], with errors that say where.

use std::fmt;

use serde::{
    Deserializer,
    de::{
        self, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess,
        SeqAccess, VariantAccess, Visitor,
    },
    forward_to_deserialize_any,
};

use crate::{
    mistake::{Missing, Mistake, Step},
    text::{nearest, shown},
    yaml_tree::{Entry, Node, Part},
};

/// Mistakes that are reported of one file; whoever made more reads these first.
const MAX_MISTAKES: usize = 50;

/// Name by which a type asks for "one value or a list of them".
pub(crate) const ONE_OR_MANY: &str = "OneOrMany";

/// What would have been right, the likeliest first.
fn instead(given: &str, names: &[&str]) -> String {
    let list = names.join(", ");
    match nearest(given, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? (there are {list})"),
        None => format!("there are {list}"),
    }
}

/// A Rust type in a case author's words.
fn in_words(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number up to 255",
        "u32" | "u64" => "a whole number",
        "f64" => "a number",
        "a sequence" => "a list",
        name if name.starts_with("struct ") => "a map of keys and values",
        other => other,
    }
}

impl de::Error for Mistake {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self::new(what.to_string())
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match found {
            de::Unexpected::Seq => "a list".to_owned(),
            de::Unexpected::Map => "a map".to_owned(),
            de::Unexpected::Unit => "nothing".to_owned(),
            other => shown(&other.to_string()),
        };
        Self::new(format!("found {found}, expected {}", in_words(&expected.to_string())))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn invalid_length(_: usize, expected: &dyn de::Expected) -> Self {
        let what = format!("an empty list, expected {expected}");
        Self { missing: Some(Missing::Items), ..Self::new(what) }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown key `{}`; {}", shown(field), instead(field, expected)))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown value `{}`; {}", shown(variant), instead(variant, expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            missing: Some(Missing::Key(field.to_owned())),
            ..Self::new(format!("`{field}` is missing"))
        }
    }
}

/// Reads a `T` out of a tree, with all mistakes that it has. A part that is wrong is taken out and
/// the rest read again, so with mistakes the value is only what is left, if that is enough for one.
pub(crate) fn read<T: DeserializeOwned>(root: &Part) -> (Option<T>, Vec<Mistake>) {
    let mut tree = root.clone();
    let mut mistakes: Vec<Mistake> = Vec::new();
    let mut removed: Vec<Vec<Step>> = Vec::new();
    // Each round takes something out, so it ends.
    while mistakes.len() < MAX_MISTAKES {
        let mistake = match T::deserialize(TreeDeserializer::new(&tree)) {
            Ok(value) => return (Some(value), mistakes),
            Err(mistake) => mistake,
        };
        let path = mistake.path.clone();
        // What is missing because it was taken out is no mistake of the file's.
        let ours = match &mistake.missing {
            Some(Missing::Key(key)) => {
                let full = path.iter().cloned().chain([Step::Key(key.clone())]);
                removed.contains(&full.collect())
            }
            Some(Missing::Items) => removed.iter().any(
                |other| matches!(other.split_last(), Some((Step::Index(_), list)) if list == path),
            ),
            None => false,
        };
        if !ours {
            mistakes.push(mistake);
        }
        if !tree.remove(&path) {
            return (None, mistakes);
        }
        removed.push(path);
    }
    (None, mistakes)
}

/// Deserializes one part.
#[derive(Clone, Copy)]
pub(crate) struct TreeDeserializer<'a> {
    part: &'a Part,
}

impl<'a> TreeDeserializer<'a> {
    pub(crate) fn new(part: &'a Part) -> Self {
        Self { part }
    }

    fn here<T>(self, result: Result<T, Mistake>) -> Result<T, Mistake> {
        result.map_err(|mistake| mistake.standing(self.part.place))
    }

    fn scalar(self) -> Option<&'a str> {
        match &self.part.node {
            Node::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    fn is_null(self) -> bool {
        matches!(&self.part.node, Node::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }
}

/// A plain scalar as YAML 1.2's core schema reads it: `on` is a string.
fn visit_plain<'de, V: Visitor<'de>>(text: &str, visitor: V) -> Result<V::Value, Mistake> {
    match text {
        "" | "~" | "null" => return visitor.visit_unit(),
        "true" => return visitor.visit_bool(true),
        "false" => return visitor.visit_bool(false),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) {
        return visitor.visit_str(text);
    }
    let number = text.replace('_', "");
    if let Ok(number) = number.parse() {
        visitor.visit_u64(number)
    } else if let Ok(number) = number.parse() {
        visitor.visit_i64(number)
    } else if let Some(number) = number.parse().ok().filter(|number: &f64| number.is_finite()) {
        visitor.visit_f64(number)
    } else {
        visitor.visit_str(text)
    }
}

impl<'de> Deserializer<'de> for TreeDeserializer<'_> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.here(match &self.part.node {
            Node::Scalar { text, plain: true } => visit_plain(text, visitor),
            Node::Scalar { text, plain: false } => visitor.visit_str(text),
            Node::List(items) => visitor.visit_seq(Items { items, next: 0 }),
            Node::Map(entries) => visitor.visit_map(Entries { entries, next: 0 }),
        })
    }

    // Text is text however it looks: `5.10` is a version, not a number that loses its zero.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.scalar() {
            Some(text) if !self.is_null() => self.here(visitor.visit_str(text)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match &self.part.node {
            Node::Scalar { .. } | Node::Map(_) if name == ONE_OR_MANY => {
                self.here(visitor.visit_seq(SingleItem { part: Some(self.part) }))
            }
            Node::List(_) if name == ONE_OR_MANY => self.deserialize_any(visitor),
            _ => self.here(visitor.visit_newtype_struct(self)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match &self.part.node {
            Node::Scalar { text, .. } => self.here(visitor.visit_enum(Variant(text))),
            _ => {
                let what = format!("a list or map, expected one of {}", variants.join(", "));
                self.here(Err(Mistake::new(what)))
            }
        }
    }

    // Serde would take a list for a struct, its fields in order.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match &self.part.node {
            Node::List(_) => self.here(Err(de::Error::invalid_type(de::Unexpected::Seq, &visitor))),
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}

/// The name of an enum's value.
struct Variant<'a>(&'a str);

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Mistake;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Mistake> {
        Ok((seed.deserialize(self.0.into_deserializer())?, self))
    }
}

/// Our enums are names and carry nothing.
impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Mistake;

    fn unit_variant(self) -> Result<(), Mistake> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Mistake> {
        Err(Mistake::new(format!("`{}` needs a value", shown(self.0))))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Mistake> {
        Err(Mistake::new(format!("`{}` needs a list", shown(self.0))))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Mistake> {
        Err(Mistake::new(format!("`{}` needs a map", shown(self.0))))
    }
}

/// A single value in place of a list. Its path has no index.
struct SingleItem<'a> {
    part: Option<&'a Part>,
}

impl<'de> SeqAccess<'de> for SingleItem<'_> {
    type Error = Mistake;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Mistake> {
        self.part.take().map(|part| seed.deserialize(TreeDeserializer::new(part))).transpose()
    }
}

struct Items<'a> {
    items: &'a [(usize, Part)],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Mistake;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Mistake> {
        let Some((index, item)) = self.items.get(self.next) else { return Ok(None) };
        self.next += 1;
        seed.deserialize(TreeDeserializer::new(item))
            .map(Some)
            .map_err(|mistake| mistake.standing(item.place).below(Step::Index(*index)))
    }
}

struct Entries<'a> {
    entries: &'a [Entry],
    next: usize,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Mistake> {
        let Some(entry) = self.entries.get(self.next) else { return Ok(None) };
        let key = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|mistake: Mistake| {
            mistake.standing(entry.key_place).below(Step::Key(entry.key.clone()))
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mistake> {
        let entry = &self.entries[self.next];
        self.next += 1;
        seed.deserialize(TreeDeserializer::new(&entry.value)).map_err(|mistake| {
            mistake.standing(entry.value.place).below(Step::Key(entry.key.clone()))
        })
    }
}
