//! Text from elsewhere, made safe to show on a page, and days as people read them.

use std::fmt::Write as _;

use dmarig_report::safe;
use jiff::Timestamp;
use maud::{Escaper, Render};

/// Most lines of one log that are shown.
const MAX_LINES: usize = 80;

/// A text from a guest or from a file: bounded, escaped, and without characters that would reorder or
/// hide what stands beside them.
pub(crate) struct Safe<'a>(pub(crate) &'a str);

impl Render for Safe<'_> {
    fn render_to(&self, buffer: &mut String) {
        // Writing to a String can't fail.
        let _ = Escaper::new(buffer).write_str(&safe(self.0));
    }
}

/// Lines of a log: each as [`Safe`], and not too many of them.
pub(crate) fn log(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines.iter().take(MAX_LINES) {
        text.push_str(&safe(line));
        text.push('\n');
    }
    if lines.len() > MAX_LINES {
        let _ = writeln!(text, "... and {} lines more", lines.len() - MAX_LINES);
    }
    text
}

/// A value of JSON as it may stand in a script: nothing in it ends the script, or a line of it.
pub(crate) fn json(value: &serde_json::Value) -> String {
    let text = value.to_string();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // Outside of strings, JSON has none of them.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out
}

fn at(seconds: i64, format: &str) -> String {
    Timestamp::from_second(seconds)
        .map_or_else(|_| "?".to_owned(), |time| time.strftime(format).to_string())
}

/// The day of a moment, UTC.
pub(crate) fn day(seconds: i64) -> String {
    at(seconds, "%Y-%m-%d")
}

/// The day as in a headline, UTC.
pub(crate) fn long_day(seconds: i64) -> String {
    at(seconds, "%A, %-d %B %Y")
}

/// The minute of a moment, UTC.
pub(crate) fn minute(seconds: i64) -> String {
    at(seconds, "%Y-%m-%d %H:%M UTC")
}

/// A month and year, UTC.
pub(crate) fn month(seconds: i64) -> String {
    at(seconds, "%b %Y")
}

/// A day and month, UTC.
pub(crate) fn short_day(seconds: i64) -> String {
    at(seconds, "%-d %b")
}

/// `one cell`, `2 cells`.
pub(crate) fn many(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_is_told_by_its_escape() {
        let shown = |text: &str| Safe(text).render().into_string();
        assert_eq!(shown("<b a=\"'\">&"), "&lt;b a=&quot;'&quot;&gt;&amp;");
        assert_eq!(shown("\u{202e}evil\u{1b}[2J\n"), "\\u{202e}evil\\u{1b}[2J");
        assert_eq!(shown("ünïcode"), "ünïcode");
        assert!(shown(&"<".repeat(9000)).len() < 1630);
    }

    #[test]
    fn no_string_ends_a_script() {
        let text = json(&serde_json::json!(["</script><!--", "\u{2028}", "a&b", "\"\\"]));
        assert_eq!(text, r#"["\u003c/script\u003e\u003c!--","\u2028","a\u0026b","\"\\"]"#);
        let back: Vec<String> = serde_json::from_str(&text).unwrap();
        assert_eq!(back, ["</script><!--", "\u{2028}", "a&b", "\"\\"]);
    }
}
