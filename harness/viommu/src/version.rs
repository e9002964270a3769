//! Kernel and QEMU versions, and ranges of them.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A version by its leading numbers: `6.1.176` of `6.1.176-1` or `6.1.0-50-amd64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Major, minor and patch number.
    pub parts: [u32; 3],
}

/// A text that begins with no version, or a range that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid version `{0}`: expected 6.1 or 5.10.14 (in a range after >=, >, <=, < or =, joined by commas)"
)]
pub struct BadVersion(String);

impl Version {
    /// A version from its numbers.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { parts: [major, minor, patch] }
    }

    /// The version in the text of `/proc/version` or a kernel's banner.
    ///
    /// Debian's release string (`6.1.0-50-amd64`) hides the patch level, which stands behind its
    /// name in the banner (`... Debian 6.1.176-1 (2026-07-01)`).
    #[must_use]
    pub fn from_banner(banner: &str) -> Option<Self> {
        let release: Self = banner.strip_prefix("Linux version ")?.parse().ok()?;
        let debian = banner
            .rsplit_once(" Debian ")
            .and_then(|(_, rest)| rest.parse::<Self>().ok())
            .filter(|version| version.parts[..2] == release.parts[..2]);
        Some(debian.unwrap_or(release))
    }
}

impl FromStr for Version {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let bad = || BadVersion(text.to_owned());
        let numbers: &str = text
            .split(|c: char| !(c.is_ascii_digit() || c == '.'))
            .next()
            .map(|head| head.trim_end_matches('.'))
            .filter(|head| !head.is_empty())
            .ok_or_else(bad)?;
        let mut parts = [0; 3];
        for (part, number) in parts.iter_mut().zip(numbers.split('.')) {
            *part = number.parse().map_err(|_| bad())?;
        }
        Ok(Self { parts })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.parts;
        f.pad(&format!("{major}.{minor}.{patch}"))
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    AtLeast,
    Above,
    AtMost,
    Below,
    /// Equal in as many numbers as were written.
    Within(usize),
}

/// A range of versions, such as `>=5.10.14, <5.11`; `=5.10` is all of 5.10.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRange {
    text: String,
    bounds: Vec<(Bound, Version)>,
}

impl VersionRange {
    /// Whether `version` lies within.
    #[must_use]
    pub fn contains(&self, version: Version) -> bool {
        self.bounds.iter().all(|(bound, limit)| match bound {
            Bound::AtLeast => version >= *limit,
            Bound::Above => version > *limit,
            Bound::AtMost => version <= *limit,
            Bound::Below => version < *limit,
            Bound::Within(numbers) => version.parts[..*numbers] == limit.parts[..*numbers],
        })
    }

    /// Whether no version at all can lie within.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // Bounds only meet at the versions they name, so a range that has none there, just above
        // or just below has none anywhere.
        let near = self.bounds.iter().flat_map(|(_, limit)| {
            let [major, minor, patch] = limit.parts;
            let below = match limit.parts {
                [0, 0, 0] => [0, 0, 0],
                [_, 0, 0] => [major - 1, u32::MAX, u32::MAX],
                [_, _, 0] => [major, minor - 1, u32::MAX],
                _ => [major, minor, patch - 1],
            };
            [limit.parts, [major, minor, patch.saturating_add(1)], below]
        });
        !near.map(|parts| Version { parts }).any(|version| self.contains(version))
    }
}

impl FromStr for VersionRange {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let bounds = text
            .split(',')
            .map(|piece| {
                let piece = piece.trim();
                let at =
                    piece.find(|c: char| c.is_ascii_digit()).ok_or(BadVersion(text.to_owned()))?;
                let (sign, number) = piece.split_at(at);
                if number.contains(|c: char| !(c.is_ascii_digit() || c == '.')) {
                    return Err(BadVersion(text.to_owned()));
                }
                let version = number.parse()?;
                let bound = match sign.trim() {
                    ">=" => Bound::AtLeast,
                    ">" => Bound::Above,
                    "<=" => Bound::AtMost,
                    "<" => Bound::Below,
                    "" | "=" => Bound::Within(number.split('.').count().min(3)),
                    _ => return Err(BadVersion(text.to_owned())),
                };
                Ok((bound, version))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), bounds })
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Serialize for VersionRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for VersionRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for VersionRange {
    fn schema_name() -> Cow<'static, str> {
        "VersionRange".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Versions by bounds joined with commas, such as \">=5.10.14, <5.11\"; \"=5.10\" is all of 5.10",
            "pattern": r"^\s*(>=|>|<=|<|=)?\s*[0-9.]+\s*(,\s*(>=|>|<=|<|=)?\s*[0-9.]+\s*)*$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(range: &str, inside: &[&str], outside: &[&str]) {
        let range: VersionRange = range.parse().unwrap();
        for version in inside {
            assert!(range.contains(version.parse().unwrap()), "{version} is not in {range}");
        }
        for version in outside {
            assert!(!range.contains(version.parse().unwrap()), "{version} is in {range}");
        }
    }

    #[test]
    fn ranges_hold_what_they_say() {
        check(">=5.10.14, <5.11", &["5.10.14", "5.10.262-1"], &["5.10.13", "5.11", "6.1"]);
        check("=5.10", &["5.10", "5.10.262"], &["5.11.0", "6.1"]);
        check("6", &["6.1", "6.12.107"], &["5.19", "7.0"]);
        check(">6.1.0", &["6.1.1"], &["6.1", "6.0"]);
        check("<=6.1", &["6.1.0", "5.10"], &["6.1.1"]);
    }

    #[test]
    fn a_range_that_holds_nothing_is_known() {
        for (text, empty) in [
            (">=6.1, <6.1", true),
            (">6, <6.0.1", true),
            (">=6, <7", false),
            ("<1", false),
            ("=5.10, >=5.11", true),
        ] {
            assert_eq!(text.parse::<VersionRange>().unwrap().is_empty(), empty, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "abc", ">=", "6.1-rc1", "~6.1", ">=6.1,", "99999999999"] {
            assert!(text.parse::<VersionRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn banners_give_the_patch_level() {
        for (banner, version) in [
            (
                "Linux version 6.1.0-50-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0) #1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-07-01)",
                "6.1.176",
            ),
            (
                "Linux version 7.3.4+deb13-cloud-amd64 (x) #1 SMP Debian 7.3.4-1~bpo13+1 (2026-11-15)",
                "7.3.4",
            ),
            ("Linux version 6.18.44 (me@host) (gcc (GCC) 15) #1 SMP", "6.18.44"),
        ] {
            assert_eq!(Version::from_banner(banner), Some(version.parse().unwrap()), "{banner}");
        }
    }
}
