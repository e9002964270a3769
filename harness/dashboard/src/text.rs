//! Text from elsewhere, made safe to show on a page; quantities and days as people read them.

use std::fmt::Write as _;

use jiff::Timestamp;
use maud::{Escaper, Render};

/// Longest text that is shown in one piece, in characters.
const MAX_SHOWN: usize = 400;
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

/// As [`Safe`], for where no markup is written. Each control or formatting character becomes its
/// escape.
pub(crate) fn safe(text: &str) -> std::borrow::Cow<'_, str> {
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

/// A value in the unit that people read it in.
#[must_use]
pub fn quantity(value: f64, unit: &str) -> String {
    let (scale, name) = readable(value, unit);
    match name {
        "" => number(value / scale),
        name => format!("{} {}", number(value / scale), safe(name)),
    }
}

/// How much of a unit the one is that people read values of this size in, and its name.
pub(crate) fn readable(value: f64, unit: &str) -> (f64, &str) {
    let steps: &[(f64, &str)] = match unit {
        "ns" => &[(1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns")],
        "bytes/s" => &[(1_073_741_824.0, "GiB/s"), (1_048_576.0, "MiB/s"), (1024.0, "KiB/s")],
        "1" => &[(1.0, "")],
        unit => return (1.0, unit),
    };
    let fitting = steps.iter().find(|(size, _)| value.abs() >= *size);
    *fitting.or(steps.last()).unwrap_or(&(1.0, ""))
}

/// Four digits that count; a dash where there is no number.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "\u{2013}".to_owned();
    }
    let whole = value.abs().log10().floor();
    let places = if whole.is_finite() { (3.0 - whole).clamp(0.0, 9.0) as usize } else { 0 };
    let text = format!("{value:.places$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    };
    if text == "-0" { "0".to_owned() } else { text }
}

/// From one value to another, in percent; from nothing to something has none.
pub(crate) fn change(before: f64, after: f64) -> String {
    if before == after {
        return "0 %".to_owned();
    }
    let percent = (after / before - 1.0) * 100.0;
    if !percent.is_finite() {
        return if before == 0.0 { "new" } else { "\u{2013}" }.to_owned();
    }
    match percent.abs() {
        large if large >= 1000.0 => format!("\u{d7}{}", number(after / before)),
        large if large >= 100.0 => format!("{percent:+.0} %"),
        small if small < 0.05 => "0.0 %".to_owned(),
        _ => format!("{percent:+.1} %"),
    }
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
    fn values_are_told_in_units_that_people_read() {
        assert_eq!(quantity(1_234_567_890.0, "ns"), "1.235 s");
        assert_eq!(quantity(999.0, "ns"), "999 ns");
        assert_eq!(quantity(3_145_728.0, "bytes/s"), "3 MiB/s");
        assert_eq!(quantity(12_345.6, "frames"), "12346 frames");
        assert_eq!(quantity(0.0, "ns"), "0 ns");
        assert_eq!(quantity(0.02763, "1"), "0.02763");
    }

    #[test]
    fn what_steers_is_told_by_its_escape() {
        let shown = |text: &str| Safe(text).render().into_string();
        assert_eq!(shown("<b a=\"'\">&"), "&lt;b a=&quot;'&quot;&gt;&amp;");
        assert_eq!(shown("\u{202e}evil\u{1b}[2J\n"), "\\u{202e}evil\\u{1b}[2J");
        assert_eq!(shown("ünïcode"), "ünïcode");
        assert!(shown(&"<".repeat(9000)).len() < 4 * MAX_SHOWN + 30);
    }

    #[test]
    fn no_string_ends_a_script() {
        let text = json(&serde_json::json!(["</script><!--", "\u{2028}", "a&b", "\"\\"]));
        assert_eq!(text, r#"["\u003c/script\u003e\u003c!--","\u2028","a\u0026b","\"\\"]"#);
        let back: Vec<String> = serde_json::from_str(&text).unwrap();
        assert_eq!(back, ["</script><!--", "\u{2028}", "a&b", "\"\\"]);
    }

    #[test]
    fn changes_are_told_in_percent() {
        assert_eq!(change(100.0, 107.3), "+7.3 %");
        assert_eq!(change(1.0, 2.5), "+150 %");
        assert_eq!(change(1.0, 33.0), "\u{d7}33");
        assert_eq!((change(0.0, 0.0), change(0.0, 1.0)), ("0 %".into(), "new".into()));
    }
}
