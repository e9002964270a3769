//! Logs as JSON, as `journalctl -o json` and `dmesg -J` print them, to text with a kernel's prefixes.

use std::fmt::Write as _;

use serde_json::{Deserializer, Value};

/// What a log says that has JSON in it.
#[derive(Debug, Default)]
pub(super) struct Json {
    /// The kernel's messages, one a line, and what stands between them and is no JSON.
    pub(super) text: String,
    /// The line of the log that each line of `text` is from.
    pub(super) numbers: Vec<u64>,
    /// Messages of other programs.
    pub(super) foreign: u64,
    /// Lines of the log with messages that could not be read.
    pub(super) broken: Vec<u64>,
    /// Names behind which a message stands.
    names: &'static [&'static str],
}

/// Reads a log in JSON, message by message, so that what is broken or no JSON hides no other; `None` for
/// a log that has none.
pub(super) fn read(text: &str) -> Option<Json> {
    // Many programs have a `msg`.
    let names: &[_] =
        if text.contains("\"dmesg\"") { &["\"MESSAGE\"", "\"msg\""] } else { &["\"MESSAGE\""] };
    if !text.contains("\"MESSAGE\"") && !text.contains("\"msg\"") {
        return None;
    }
    let mut read = Json { names, ..Json::default() };
    let mut any = false;
    let (mut done, mut from, mut line) = (0, 0, 1);
    while let Some(at) = text[from..].find('{') {
        let start = from + at;
        from = start + 1;
        if !begins(&text[done..start]) {
            continue;
        }
        let Some((object, end)) = object(&text[start..]) else { continue };
        any = true;
        line = read.between(&text[done..start], line);
        done = start + end;
        from = done;
        line = read.object(&object, &text[start..done], line);
    }
    read.between(&text[done..], line);
    (any || !read.broken.is_empty()).then_some(read)
}

/// Whether an object can begin behind such a text: at a line's start, and within another object or a list.
fn begins(before: &str) -> bool {
    let before = before.trim_end_matches([' ', '\t']);
    // `-o json-seq` has a mark before each.
    before.is_empty() || before.ends_with(['\n', '\r', ',', '[', '\x1e']) || before.ends_with("\":")
}

/// The message at a text's start and where it ends. What a list of messages stands in is none.
fn object(text: &str) -> Option<(Value, usize)> {
    let mut objects = Deserializer::from_str(text).into_iter::<Value>();
    let object = objects.next()?.ok()?;
    let message = object.get("MESSAGE").is_some() || object.get("msg").is_some();
    message.then(|| (object, objects.byte_offset()))
}

/// Newlines in a text.
fn newlines(text: &str) -> u64 {
    text.bytes().filter(|byte| *byte == b'\n').count() as u64
}

impl Json {
    /// Reads an object whose text begins on that line of the log; returns the line on which it ends.
    fn object(&mut self, object: &Value, text: &str, line: u64) -> u64 {
        let message = ["\"MESSAGE\"", "\"msg\""].iter().find_map(|name| text.find(name));
        let at = line + newlines(&text[..message.unwrap_or(0)]);
        if object.get("MESSAGE").is_some() {
            self.journal(object, at);
        } else if object.get("pri").is_some() {
            self.dmesg(object, at);
        } else {
            self.foreign += 1;
        }
        line + newlines(text)
    }

    /// Keeps what is no JSON of a text between messages that begins on that line of the log; returns the
    /// line on which it ends.
    fn between(&mut self, text: &str, line: u64) -> u64 {
        for (rest, at) in text.split('\n').zip(line..) {
            let inner = rest.trim_matches(['{', '}', '[', ']', ',', ' ', '\t', '\r', '\x1e']);
            if !inner.is_empty() && !inner.starts_with('"') {
                self.line("", rest, at);
            } else if self.names.iter().any(|name| inner.contains(name)) {
                self.broken.push(at);
            }
        }
        line + newlines(text)
    }

    fn dmesg(&mut self, entry: &Value, at: u64) {
        let level = number(&entry["pri"]).unwrap_or(6);
        let prefix = match entry["time"].as_f64() {
            Some(time) => format!("<{level}>[{time:.6}] "),
            None => format!("<{level}>"),
        };
        self.message(&prefix, &entry["msg"], at);
    }

    fn journal(&mut self, entry: &Value, at: u64) {
        let kernels = match entry["_TRANSPORT"].as_str() {
            Some(transport) => transport == "kernel",
            None => entry["SYSLOG_IDENTIFIER"] == "kernel",
        };
        if entry["MESSAGE"].is_null() {
            return;
        }
        if !kernels {
            self.foreign += 1;
            return;
        }
        let level = number(&entry["PRIORITY"]).unwrap_or(6);
        let time = ["_SOURCE_MONOTONIC_TIMESTAMP", "__MONOTONIC_TIMESTAMP"];
        let us = time.iter().find_map(|name| number(&entry[*name])).unwrap_or(0);
        // As in /dev/kmsg.
        self.message(&format!("{level},0,{us},-;"), &entry["MESSAGE"], at);
    }

    fn message(&mut self, prefix: &str, message: &Value, at: u64) {
        let message = match message {
            Value::String(text) => text.clone(),
            // What is no UTF-8 is told byte by byte.
            Value::Array(bytes) => {
                let byte = |value: &Value| u8::try_from(value.as_u64()?).ok();
                let bytes: Vec<u8> = bytes.iter().filter_map(byte).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            _ => return,
        };
        for line in message.trim_end().split('\n') {
            self.line(prefix, line, at);
        }
    }

    fn line(&mut self, prefix: &str, line: &str, at: u64) {
        let _ = writeln!(self.text, "{prefix}{line}");
        self.numbers.push(at);
    }
}

/// A number, which a journal has as text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, text: Option<&str>) {
        assert_eq!(read(json).map(|json| json.text).as_deref(), text, "{json}");
    }

    const KERNELS: &str = "{\"_TRANSPORT\":\"kernel\",\"PRIORITY\":\"4\",\"__MONOTONIC_TIMESTAMP\":\"1500000\",\"MESSAGE\":\"DMAR: a\"}\n";

    #[test]
    fn both_forms_are_read() {
        check(KERNELS, Some("4,0,1500000,-;DMAR: a\n"));
        check(&format!("\x1e{KERNELS}\x1e{KERNELS}"), Some(&"4,0,1500000,-;DMAR: a\n".repeat(2)));
        let programs = "{\"_TRANSPORT\":\"stdout\",\"SYSLOG_IDENTIFIER\":\"kernel\",\"MESSAGE\":\"DMAR: b\"}\n";
        check(&format!("{programs}{KERNELS}"), Some("4,0,1500000,-;DMAR: a\n"));
        assert_eq!(read(programs).unwrap().foreign, 1);
        check(
            "{\"SYSLOG_IDENTIFIER\":\"kernel\",\"MESSAGE\":[120,255]}",
            Some("6,0,0,-;x\u{fffd}\n"),
        );
        check(
            "{\n  \"dmesg\": [\n  {\n \"pri\": 5,\n \"time\":  1.500000,\n \"msg\": \"a\\nb\\n\"\n },{\n \"pri\": 6,\n \"msg\": \"c\"\n }\n ]\n}\n",
            Some("<5>[1.500000] a\n<5>[1.500000] b\n<6>c\n"),
        );
        // Another program's.
        let programs = "{\"level\":\"info\",\"time\":1.5,\"msg\":\"BUG: a\"}\n";
        check(&format!("{programs}[    1.0] x\n"), Some("[    1.0] x\n"));
    }

    #[test]
    fn what_is_none_is_not_read() {
        for text in [
            "",
            "[    1.0] x",
            "{",
            "{}",
            "{\"a\": 1}",
            "{} x",
            "{\"level\":\"info\",\"msg\":\"cut",
            "Nov 22 18:41:39 box app[1]: {\"MESSAGE\": \"a\"}",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn what_is_broken_hides_nothing() {
        let said = "4,0,1500000,-;DMAR: a\n";
        let entry = "{\"pri\":3,\"msg\":\"a\"}";
        for (log, text, broken) in [
            (format!("Hint: x\n{KERNELS}"), format!("Hint: x\n{said}"), &[][..]),
            (
                format!("{KERNELS}-- Boot x --\n{KERNELS}"),
                format!("{said}-- Boot x --\n{said}"),
                &[],
            ),
            // Cut off, as by `head` and `tail`.
            (format!("{KERNELS}{{\"_TRANSPORT\":\"ker"), said.to_owned(), &[]),
            (format!("{KERNELS}{{\"_PID\":\"1\",\"MESSAGE\":\"BUG"), said.to_owned(), &[2]),
            (format!("{{\"_PID\":\"1\",\"MESSAGE\":\"B\n{KERNELS}"), said.to_owned(), &[1]),
            (format!("{{\"dmesg\":[{entry},{entry}"), "<3>a\n".repeat(2), &[]),
            (format!("{{\"dmesg\":[{entry},\n{{\"pri\":3,\"msg\":\"B"), "<3>a\n".to_owned(), &[2]),
            (format!("{{\"dmesg\":[{entry},x,{entry},]}}"), "<3>a\n,x,\n<3>a\n".to_owned(), &[]),
            (format!("\"msg\":\"B\"\n}},{entry}]}}"), "<3>a\n".to_owned(), &[]),
            ("{\"MESSAGE\":\"B".to_owned(), String::new(), &[1]),
        ] {
            let read = read(&log).unwrap();
            assert_eq!((read.text, &*read.broken), (text, broken), "{log}");
        }
    }

    #[test]
    fn each_message_has_its_line() {
        let numbers = |json: &str| read(json).unwrap().numbers;
        let entry = "{\n  \"pri\": 5,\n  \"msg\": \"a\\nb\"\n}";
        let log = format!("{{\n\"dmesg\": [\n{entry},{entry},\nx\n{entry}\n]}}\n");
        assert_eq!(numbers(&log), [5, 5, 8, 8, 10, 13, 13]);
        assert_eq!(numbers(&format!("x\n\n{KERNELS}{KERNELS}")), [1, 3, 4]);
    }

    #[test]
    fn floods_take_no_time() {
        let many = 20_000;
        let name = "\"MESSAGE\"";
        for flood in ["{", "{ ", "{\"a\":", "[{", "{\"a\":[", ",{\"a\":\"", "{\"a\":[1,", "{}"] {
            let _ = read(&format!("{}{name}", flood.repeat(many)));
        }
    }
}
