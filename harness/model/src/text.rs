//! Text from elsewhere, made safe to show, and names that are nearly right.

use std::{fmt::Write as _, sync::LazyLock};

use regex::Regex;

/// Longest text from a guest or a file that is shown in one piece, in characters.
const MAX_SHOWN: usize = 300;

/// Characters of a word that are compared with names.
const MAX_COMPARED: usize = 200;

/// `text` on one line, without control characters or anything that could steer a terminal, and
/// not longer than a few lines of it.
#[must_use]
pub fn shown(text: &str) -> String {
    let text = text.trim_end_matches(['\n', '\r']);
    let mut out = String::with_capacity(text.len().min(MAX_SHOWN));
    for (count, c) in text.chars().enumerate() {
        if count == MAX_SHOWN {
            let _ = write!(out, "... ({} bytes)", text.len());
            break;
        }
        // Formatting characters can reorder what stands beside them.
        let steers = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if steers {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// The end of `text` as [`shown`] gives it: of what was printed until something broke down, the
/// last words say why.
#[must_use]
pub fn shown_end(text: &str) -> String {
    let text = text.trim_end();
    let left_out = text.chars().count().saturating_sub(MAX_SHOWN);
    let end: String = text.chars().skip(left_out).collect();
    if left_out > 0 { format!("...{}", shown(&end)) } else { shown(&end) }
}

/// The name that `given` was probably meant to be, if one is near.
pub fn nearest<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = given.chars().take(MAX_COMPARED).count();
    names
        .into_iter()
        .map(|name| (distance(given, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len().min(length) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words. Case does not count, and `_` is
/// `-`.
pub(crate) fn distance(given: &str, name: &str) -> usize {
    let folded = |text: &str| text.to_lowercase().replace('_', "-");
    let given: String = given.chars().take(MAX_COMPARED).collect();
    strsim::osa_distance(&folded(&given), &folded(name))
}

/// A record's text without the time stamp (and the caller's id) that a console puts before it.
pub(crate) fn message(text: &str) -> &str {
    static STAMP: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^(?:<\d+>)?\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?").expect("a pattern of ours")
    });
    STAMP.find(text).map_or(text, |stamp| &text[stamp.end()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_defused_and_bounded() {
        assert_eq!(shown("a\x1b[2Jb\tc\n"), "a\\u{1b}[2Jb\\tc");
        assert_eq!(shown("\u{202e}evil"), "\\u{202e}evil");
        assert_eq!(shown("ünïcode"), "ünïcode");
        assert_eq!(shown(&"x".repeat(1000)).len(), 300 + "... (1000 bytes)".len());
    }

    #[test]
    fn of_long_last_words_the_end_is_shown() {
        assert_eq!(shown_end("warning\nerror\n"), "warning\\nerror");
        assert_eq!(shown_end(&format!("{}\nerror\n", "x".repeat(1000))).len(), 3 + 300 + 1);
        assert!(shown_end(&format!("{}\nerror\n", "x".repeat(1000))).ends_with("xx\\nerror"));
    }

    #[test]
    fn the_nearest_name_is_found() {
        let names = ["caching-mode", "policy", "device"];
        for (given, near) in [
            ("caching_mode", Some("caching-mode")),
            ("polciy", Some("policy")),
            ("devise", Some("device")),
            ("bananas", None),
        ] {
            assert_eq!(nearest(given, names), near, "{given}");
        }
    }
}
