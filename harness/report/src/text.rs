//! Text from elsewhere, made safe to show, and short descriptions of kernels and alerts.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _};

use dmarig_history::Alert;
use dmarig_model::text::shown;
use dmarig_records::Environment;

/// Longest text that is shown in one piece, in characters.
const MAX_SHOWN: usize = 400;

/// A text from elsewhere, bounded, on one line. Each control or formatting character becomes its
/// escape.
#[must_use]
pub fn safe(text: &str) -> Cow<'_, str> {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte);
    if text.len() <= MAX_SHOWN && text.bytes().all(plain) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len().min(4 * MAX_SHOWN));
    for (count, c) in text.trim_end_matches(['\n', '\r']).chars().enumerate() {
        if count == MAX_SHOWN {
            let _ = write!(out, "... ({} bytes)", text.len());
            break;
        }
        if steers(c) {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.into()
}

/// Whether a character is not itself to be seen, but changes how others are.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
        )
}

/// The name of a kernel as it reports it, and its build (a commit, a package's version or a hash)
/// where the name does not have it. `None` where neither is known.
#[must_use]
pub fn kernel_name(release: Option<&str>, build: &str) -> Option<String> {
    match release {
        Some(release) if build == "-" || release.contains(build) => Some(shown(release)),
        Some(release) => Some(format!("{} ({})", shown(release), shown(build))),
        None if build == "-" => None,
        None => Some(shown(build)),
    }
}

/// The note that somebody left on an alert, and who; empty where nobody did.
#[must_use]
pub fn triage_note(alert: &Alert) -> String {
    let Some(event) = &alert.said else { return String::new() };
    let parts = [event.note.trim(), event.author.trim()];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(", ")
}

/// What differs between the environments of an alert's last good and first bad run; `None` where
/// nothing does.
#[must_use]
pub fn environment_change(
    alert: &Alert,
    environments: &BTreeMap<String, Environment>,
) -> Option<String> {
    let good = environments.get(&alert.last_good.as_ref()?.environment)?;
    let difference = environments.get(&alert.environment)?.differences(good);
    if difference.is_empty() { None } else { Some(shown(&difference)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_of_one_release_have_different_names() {
        let name = |release, build| kernel_name(release, build).unwrap_or_default();
        assert_eq!(name(Some("6.12.0-dmarig"), "0123456789ab"), "6.12.0-dmarig (0123456789ab)");
        assert_eq!(name(Some("6.12.0-g0123456789ab"), "0123456789ab"), "6.12.0-g0123456789ab");
        assert_eq!(name(Some("6.1.0\u{1b}"), "-"), "6.1.0\\u{1b}");
        assert_eq!(name(None, "6.1.176-1"), "6.1.176-1");
        assert_eq!(kernel_name(None, "-"), None);
    }
}
