//! Logs as JSON, as `journalctl -o json` and `dmesg -J` print them, to text with a kernel's prefixes.

use std::fmt::Write as _;

use serde_json::{Deserializer, Value};

/// What a log in JSON says.
#[derive(Debug, Default)]
pub(super) struct Json {
    /// The kernel's messages, one a line; an empty one for another program's.
    pub(super) text: String,
    /// Messages of other programs.
    pub(super) foreign: u64,
}

/// Reads a log in JSON; `None` for what is none, and for what is broken before its end.
pub(super) fn read(text: &str) -> Option<Json> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut read = Json::default();
    for document in Deserializer::from_str(text).into_iter::<Value>() {
        match document {
            Ok(Value::Object(document)) => match document.get("dmesg").and_then(Value::as_array) {
                Some(entries) => entries.iter().for_each(|entry| read.dmesg(entry)),
                None => read.journal(&Value::Object(document)),
            },
            // A log that was cut off says as much as it has.
            Err(error) if error.is_eof() => break,
            _ => return None,
        }
    }
    (!read.text.is_empty()).then_some(read)
}

impl Json {
    fn dmesg(&mut self, entry: &Value) {
        let level = number(&entry["pri"]).unwrap_or(6);
        let prefix = match entry["time"].as_f64() {
            Some(time) => format!("<{level}>[{time:.6}] "),
            None => format!("<{level}>"),
        };
        self.message(&prefix, &entry["msg"]);
    }

    fn journal(&mut self, entry: &Value) {
        let kernels = match entry["_TRANSPORT"].as_str() {
            Some(transport) => transport == "kernel",
            None => entry["SYSLOG_IDENTIFIER"] == "kernel",
        };
        if entry["MESSAGE"].is_null() {
            return;
        }
        if !kernels {
            self.foreign += 1;
            self.text.push('\n');
            return;
        }
        let level = number(&entry["PRIORITY"]).unwrap_or(6);
        let time = ["_SOURCE_MONOTONIC_TIMESTAMP", "__MONOTONIC_TIMESTAMP"];
        let us = time.iter().find_map(|name| number(&entry[*name])).unwrap_or(0);
        // As in /dev/kmsg.
        self.message(&format!("{level},0,{us},-;"), &entry["MESSAGE"]);
    }

    fn message(&mut self, prefix: &str, message: &Value) {
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
            let _ = writeln!(self.text, "{prefix}{line}");
        }
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

    #[test]
    fn both_forms_are_read() {
        let kernels = "{\"_TRANSPORT\":\"kernel\",\"PRIORITY\":\"4\",\"__MONOTONIC_TIMESTAMP\":\"1500000\",\"MESSAGE\":\"DMAR: a\"}\n";
        check(kernels, Some("4,0,1500000,-;DMAR: a\n"));
        let programs = "{\"_TRANSPORT\":\"stdout\",\"SYSLOG_IDENTIFIER\":\"kernel\",\"MESSAGE\":\"DMAR: b\"}\n";
        check(&format!("{programs}{kernels}"), Some("\n4,0,1500000,-;DMAR: a\n"));
        assert_eq!(read(programs).unwrap().foreign, 1);
        check(
            "{\"SYSLOG_IDENTIFIER\":\"kernel\",\"MESSAGE\":[120,255]}",
            Some("6,0,0,-;x\u{fffd}\n"),
        );
        check(
            "{\n  \"dmesg\": [\n  {\n \"pri\": 5,\n \"time\":  1.500000,\n \"msg\": \"a\\nb\\n\"\n },{\n \"msg\": \"c\"\n }\n ]\n}\n",
            Some("<5>[1.500000] a\n<5>[1.500000] b\n<6>c\n"),
        );
        // Cut off, as by `head`.
        check(&format!("{kernels}{{\"_TRANSPORT\":\"ker"), Some("4,0,1500000,-;DMAR: a\n"));
    }

    #[test]
    fn what_is_none_or_broken_is_not_read() {
        for text in
            ["", "[    1.0] x", "{", "{}", "{\"a\": 1}", "{\"dmesg\": [{\"msg\": \"a\"},]}", "{} x"]
        {
            check(text, None);
        }
    }
}
