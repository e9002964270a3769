//! Names of files: safe on any file system and in any address, whatever they are the names of.

use std::collections::HashSet;

/// Longest part of a name that is for people.
const READABLE: usize = 72;

/// A file's name for each of these, without an extension: a part that people can read and one that
/// tells it from all others, both the same every time.
pub(crate) fn names<'a>(of: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut taken = HashSet::new();
    of.map(|text| {
        let name = format!("{}-{:08x}", readable(text), hash(text));
        let mut unique = name.clone();
        // Somebody may have looked for two texts of one hash.
        let mut count = 1;
        while !taken.insert(unique.clone()) {
            count += 1;
            unique = format!("{name}-{count}");
        }
        unique
    })
    .collect()
}

/// Lower case, since some file systems do not tell it from upper case.
pub(crate) fn readable(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => out.push(c),
            // Never two in a row, and none in front: neither `..` nor a hidden file.
            '.' if out.ends_with(|c: char| c.is_ascii_alphanumeric()) => out.push('.'),
            _ if !out.is_empty() && !out.ends_with(['-', '.']) => out.push('-'),
            _ => {}
        }
        if out.len() >= READABLE {
            break;
        }
    }
    out.truncate(out.trim_end_matches(['-', '.']).len());
    if out.is_empty() { "x".to_owned() } else { out }
}

/// FNV-1a: it never changes, as the standard library's may.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_has_a_harmless_name_of_its_own() {
        let texts = [
            "20261122T125049.123456Z-1a2b3c",
            "../../etc/passwd",
            "a/b",
            "a\\b",
            "A/B",
            "",
            "\u{202e}\0",
            "\"><script>",
            "%2e%2e/",
            "...hidden",
            &"x".repeat(5000),
            "same",
            "same",
        ];
        let names = names(texts.into_iter());
        let distinct: HashSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), texts.len());
        for name in &names {
            let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
            assert!(name.chars().all(fine), "{name}");
            assert!(!name.contains("..") && !name.starts_with(['.', '-']), "{name}");
            assert!(name.len() < 100, "{name}");
        }
        assert!(names[0].starts_with("20261122t125049.123456z-1a2b3c-"), "{}", names[0]);
    }
}
