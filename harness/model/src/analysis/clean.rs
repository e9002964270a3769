//! From a log as people pass it on (a journal, `dmesg` in one of its forms, a serial console, a
//! quoted mail) to records with the kernel's own words.

use std::{
    collections::{HashSet, VecDeque},
    sync::LazyLock,
};

use dmarig_wire::LogRecord;
use regex::Regex;

/// Longest line that is read, in bytes; the kernel's own are cut at about 1,000.
const MAX_LINE: usize = 4096;

/// Lines that are kept at each end of a log that is longer than both together.
const MAX_HALF: usize = 200_000;

/// Prefixes that may stand before each other, as a syslog's before a kernel's.
const MAX_PREFIXES: usize = 5;

/// Columns within which a mailer wraps.
const WRAP: usize = 80;

/// A log, cleaned.
#[derive(Debug, Default)]
pub(super) struct Cleaned {
    /// Its records; `seq` is the line's number in the log, from 1.
    pub(super) records: Vec<LogRecord>,
    /// Lines of other programs that a journal has between the kernel's.
    pub(super) foreign: u64,
    /// Lines in the middle that were too many to be read.
    pub(super) left_out: u64,
}

struct Prefixes {
    terminal: Regex,
    quote: Regex,
    journal: Regex,
    kmsg: Regex,
    facility: Regex,
    level: Regex,
    monotonic: Regex,
    wall: Regex,
    iso: Regex,
    caller: Regex,
}

static PREFIXES: LazyLock<Prefixes> = LazyLock::new(|| {
    let regex = |text: &str| Regex::new(text).expect("a pattern of ours");
    let stamp = r"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)?|(?:[A-Z][a-z]{2} )?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?: [A-Z]{2,5}| ?[+-]\d\d:?\d\d|Z)?|\[ *\d+\.\d+\]|\d{9,}\.\d+)";
    Prefixes {
        terminal: regex(
            r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[()][0-9A-B]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[=>78c])",
        ),
        quote: regex(r"^(?:[ \t]*>)+[ \t]?"),
        journal: regex(&format!(
            r"^{stamp} (?<host>[^\s:]+) (?<who>[^\s:\[]+)(?:\[\d+\])?: ?(?<rest>.*)$"
        )),
        kmsg: regex(r"^(?<level>\d{1,3}),\d+,(?<us>\d{1,15}),[-c+][^;]{0,80};"),
        facility: regex(
            r"^(?:kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|ftp|local\d) *:(?<name>emerg|alert|crit|err|warn|notice|info|debug) *: ?",
        ),
        level: regex(r"^<(?<level>\d{1,3})>"),
        monotonic: regex(r"^\[ *(?<s>\d{1,9})\.(?<us>\d{6})\] ?"),
        wall: regex(
            r"^\[(?:[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}|[A-Z][a-z]{2} ?\d{1,2} \d\d:\d\d|[ <+]+\d+\.\d+>?|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?)\](?: |$)",
        ),
        iso: regex(r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,]\d{3,9}(?:[+-]\d\d:?\d\d|Z)? "),
        caller: regex(r"^\[ *[TC]\d{1,9}\] ?"),
    }
});

/// A line with what its prefixes said.
struct Line<'a> {
    text: &'a str,
    level: u8,
    time_us: u64,
    stamped: bool,
}

/// Cleans a log. Bytes that are no UTF-8 become replacement characters.
pub(super) fn clean(bytes: &[u8]) -> Cleaned {
    let text = String::from_utf8_lossy(bytes);
    let text = PREFIXES.terminal.replace_all(&text, "");
    let (lines, left_out) = ends(&text);
    let quoted = |line: &str| PREFIXES.quote.find(line).map_or(0, |found| found.end());
    let bare: Vec<(u64, &str)> =
        lines.into_iter().map(|(number, line)| (number, &line[quoted(line)..])).collect();
    let hosts: HashSet<&str> = bare.iter().filter_map(|(_, line)| kernels_host(line)).collect();
    let mut cleaned = Cleaned { left_out, ..Cleaned::default() };
    let mut stamped = 0;
    let mut unstamped = Vec::new();
    for (number, line) in &bare {
        match strip(line, &hosts) {
            None => cleaned.foreign += 1,
            Some(line) if line.text.trim().is_empty() => {}
            Some(line) => {
                stamped += usize::from(line.stamped);
                if !line.stamped {
                    unstamped.push(cleaned.records.len());
                }
                cleaned.records.push(LogRecord {
                    level: line.level,
                    seq: *number,
                    time_us: line.time_us,
                    text: line.text.trim_end().to_owned(),
                });
            }
        }
    }
    let narrow = bare.iter().all(|(_, line)| line.chars().count() <= WRAP);
    if narrow && stamped > unstamped.len() {
        join(&mut cleaned.records, &unstamped);
    }
    cleaned
}

/// Non-empty lines with their numbers, both ends of them where they are too many.
fn ends(text: &str) -> (Vec<(u64, &str)>, u64) {
    // A serial console ends its lines by any mix of the two.
    let lines = text.split(['\n', '\r']).zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let (mut head, mut tail, mut left_out) = (Vec::new(), VecDeque::new(), 0);
    for (line, number) in lines {
        let line = (number, cut(line));
        if head.len() < MAX_HALF {
            head.push(line);
            continue;
        }
        if tail.len() == MAX_HALF {
            tail.pop_front();
            left_out += 1;
        }
        tail.push_back(line);
    }
    head.extend(tail);
    (head, left_out)
}

fn cut(line: &str) -> &str {
    let end = line.len().min(MAX_LINE);
    let end = (0..=end).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
    &line[..end]
}

/// The host in a journal's line that is the kernel's.
fn kernels_host(line: &str) -> Option<&str> {
    let found = PREFIXES.journal.captures(line)?;
    (&found["who"] == "kernel").then(|| found.name("host").map_or("", |host| host.as_str()))
}

/// Takes a line's prefixes away; `None` for a line of another program.
fn strip<'a>(line: &'a str, hosts: &HashSet<&str>) -> Option<Line<'a>> {
    let prefixes = &*PREFIXES;
    let mut line = Line { text: line.trim_start(), level: u8::MAX, time_us: 0, stamped: false };
    if let Some(found) = prefixes.journal.captures(line.text) {
        // Only where the kernel speaks in this form is the same form another program's: without a
        // journal it may be `nvme nvme0: ...`.
        if &found["who"] == "kernel" {
            line.text = found.name("rest").map_or("", |rest| rest.as_str());
            line.stamped = true;
        } else if hosts.contains(&found["host"]) {
            return None;
        }
    }
    for _ in 0..MAX_PREFIXES {
        let rest = line.text;
        let end = if let Some(found) = prefixes.kmsg.captures(rest) {
            line.level = found["level"].parse().map_or(u8::MAX, |level: u16| (level & 7) as u8);
            line.time_us = found["us"].parse().unwrap_or(0);
            found[0].len()
        } else if let Some(found) = prefixes.facility.captures(rest) {
            line.level = level(&found["name"]);
            found[0].len()
        } else if let Some(found) = prefixes.level.captures(rest) {
            line.level = found["level"].parse().map_or(u8::MAX, |level: u16| (level & 7) as u8);
            found[0].len()
        } else if let Some(found) = prefixes.monotonic.captures(rest) {
            // Nine and six digits fit.
            let number = |name: &str| found[name].parse::<u64>().unwrap_or(0);
            line.time_us = number("s") * 1_000_000 + number("us");
            found[0].len()
        } else if let Some(found) = [&prefixes.wall, &prefixes.iso, &prefixes.caller]
            .iter()
            .find_map(|prefix| prefix.find(rest))
        {
            found.end()
        } else {
            break;
        };
        line.stamped = true;
        line.text = &rest[end..];
    }
    Some(line)
}

fn level(name: &str) -> u8 {
    const NAMES: [&str; 8] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];
    NAMES.iter().position(|known| *known == name).map_or(u8::MAX, |at| at as u8)
}

/// Joins what a mailer wrapped: a line without a stamp belongs to the one before it, where the others
/// have stamps and none is longer than a mail's.
fn join(records: &mut Vec<LogRecord>, unstamped: &[usize]) {
    let mut unstamped = unstamped.iter().copied().peekable();
    let mut joined: Vec<LogRecord> = Vec::with_capacity(records.len());
    for (at, record) in std::mem::take(records).into_iter().enumerate() {
        let wrapped = unstamped.next_if_eq(&at).is_some();
        match joined.last_mut().filter(|_| wrapped) {
            Some(before) if before.text.len() + record.text.len() < MAX_LINE => {
                before.text.push(' ');
                before.text.push_str(record.text.trim_start());
            }
            // What is too long to be one line of a log says nothing.
            Some(_) => {}
            None => joined.push(record),
        }
    }
    *records = joined;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(log: &str, texts: &[&str]) {
        let cleaned = clean(log.as_bytes());
        let got: Vec<&str> = cleaned.records.iter().map(|record| &*record.text).collect();
        assert_eq!(got, texts, "{log:?}");
    }

    #[test]
    fn each_form_gives_the_kernels_words() {
        let said = "pci 0000:00:1f.0: Adding to iommu group 2";
        for form in [
            "[    1.653853] @",
            "[    1.653853][    T1] @",
            "<6>[    1.653853] @",
            "<6>@",
            "6,412,1653853,-;@",
            "6,412,1653853,c,caller=T1;@",
            "kern  :info  : [    1.653853] @",
            "[Sun Nov 22 18:41:39 2026] @",
            "[Nov22 18:41] @",
            "[  +0.000004] @",
            "2026-11-22T18:41:39,123456+01:00 @",
            "kern  :warn  : 2026-11-22T18:41:39,123456+01:00 @",
            "Nov 22 18:41:39 box kernel: @",
            "Nov  2 18:41:39 box kernel: [    1.653853] @",
            "2026-11-22T18:41:39+0100 box kernel: @",
            "2026-11-22T18:41:39.123456+01:00 box kernel: [    1.653853] @",
            "Sun 2026-11-22 18:41:39 CET box kernel: @",
            "[    1.653853] box kernel: @",
            "[2026-11-22 18:41:39.123] [    1.653853] @",
            "> > [    1.653853] @",
            ">> Nov 22 18:41:39 box kernel: @",
            "    [    1.653853] @",
            "\x1b[0m[    1.653853] \x1b[33m@\x1b[0m",
            "@",
        ] {
            check(&format!("{}\r\n\r\n", form.replace('@', said)), &[said]);
        }
        check("a\r\r\nb\rc\n", &["a", "b", "c"]);
    }

    #[test]
    fn other_programs_lines_are_left_out_where_the_kernel_speaks_in_that_form() {
        let log = "Nov 22 18:41:39 box kernel: DMAR: IOMMU enabled\n\
                   Nov 22 18:41:40 box systemd[1]: DMAR: IOMMU disabled\n\
                   Nov 22 18:41:40 box sshd[12]: BUG: no\n";
        check(log, &["DMAR: IOMMU enabled"]);
        assert_eq!(clean(log.as_bytes()).foreign, 2);
        // No journal: a driver's line has the same form.
        check("[    1.653853] nvme nvme0: 1/0/0 queues", &["nvme nvme0: 1/0/0 queues"]);
        check("[    2.0] systemd[1]: DMAR: x", &["systemd[1]: DMAR: x"]);
    }

    #[test]
    fn what_a_mailer_wrapped_is_joined() {
        let log = "> [    0.012000] DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap d2008c22260286\n\
                   > ecap f00f4a\n\
                   > [    0.016000] DMAR: Host address width 39\n";
        check(
            log,
            &[
                "DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap d2008c22260286 ecap f00f4a",
                "DMAR: Host address width 39",
            ],
        );
    }

    #[test]
    fn stamps_and_lines_are_kept() {
        let cleaned = clean(b"\n[   12.000345] a\n<3>b\n");
        let seen: Vec<_> = cleaned.records.iter().map(|r| (r.seq, r.time_us, r.level)).collect();
        assert_eq!(seen, [(2, 12_000_345, 255), (3, 0, 3)]);
    }

    #[test]
    fn floods_are_bounded() {
        let long = clean("x".repeat(1 << 20).as_bytes());
        assert_eq!(long.records[0].text.len(), MAX_LINE);
        let many: String = (0..3 * MAX_HALF).map(|number| format!("{number}\n")).collect();
        let many = clean(many.as_bytes());
        assert_eq!((many.records.len(), many.left_out), (2 * MAX_HALF, MAX_HALF as u64));
        assert_eq!(many.records.last().unwrap().text, (3 * MAX_HALF - 1).to_string());
        assert!(clean(&[0xff, 0xfe, b'\n', 0, b'\r']).records.len() <= 2);
        // As many wrapped lines as there can be, which are joined in one go.
        let wrapped = "[    1.000000] a\n[    1.000000] b\nc\n".repeat(MAX_HALF / 3);
        assert_eq!(clean(wrapped.as_bytes()).records.len(), MAX_HALF / 3 * 2);
    }
}
