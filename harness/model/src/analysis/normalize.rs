//! From a log as people pass it on (a journal, `dmesg` in one of its forms, a serial console, a
//! quoted mail) to records with the kernel's own words.

use std::{
    borrow::Cow,
    collections::{HashSet, VecDeque},
    sync::LazyLock,
};

use dmarig_wire::LogRecord;
use regex::Regex;

use crate::{text::message, viommu::VIOMMUS};

use super::json::{self, Json};

/// Longest line that is read, in bytes; the kernel's own are cut at about 1,000.
const MAX_LINE: usize = 4096;

/// Lines that are kept at each end of a log that is longer than both together.
const MAX_HALF: usize = 1_000_000;

/// Prefixes that may stand before each other, as a syslog's before a kernel's.
const MAX_PREFIXES: usize = 5;

/// Columns within which a mailer wraps.
const WRAP: usize = 80;

/// A log, normalized.
#[derive(Debug, Default)]
pub(super) struct Normalized {
    /// Its records; `seq` is the line's number in the log, from 1.
    pub(super) records: Vec<LogRecord>,
    /// Lines of other programs that a journal has between the kernel's.
    pub(super) foreign: u64,
    /// Lines in the middle that were too many to be read.
    pub(super) left_out: u64,
    /// The last line before those; the last of all where there are none.
    pub(super) whole_until: u64,
    /// Lines with messages in JSON that is broken.
    pub(super) broken: Vec<u64>,
    /// The first line that has a prefix which is a kernel log's alone.
    pub(super) kernels_from: Option<u64>,
    /// Lines with a word of the driver's behind what is no known prefix, where none begins with one.
    pub(super) unread: Vec<u64>,
}

struct Prefixes {
    terminal: Regex,
    quote: Regex,
    journal: Regex,
    kmsg: Regex,
    facility: Regex,
    level: Regex,
    monotonic: Regex,
    human: Regex,
    wall: Regex,
    iso: Regex,
    caller: Regex,
    others: Regex,
}

static PREFIXES: LazyLock<Prefixes> = LazyLock::new(|| {
    let regex = |text: &str| Regex::new(text).expect("a pattern of ours");
    // A month's or weekday's name may be in any language, of one word or two.
    let stamp = r"(?:(?:\S+ ){1,2}[ \d]\d \d\d:\d\d:\d\d(?:\.\d+)?|(?:\S+ )?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?: [A-Z]{2,5}| ?[+-]\d\d(?::?\d\d)?|Z)?|\[ *\d+\.\d+(?: *<[ \d.]*>)?\]|\d{9,}\.\d+)";
    Prefixes {
        terminal: regex(
            r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[()][0-9A-B]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[=>78c])",
        ),
        quote: regex(r"^(?:[ \t]*>)+[ \t]?"),
        journal: regex(&format!(
            r"^{stamp} (?<host>[^\s:]+) (?<who>[^\s:\[]+)(?<pid>\[\d+\])?: ?(?<rest>.*)$"
        )),
        kmsg: regex(r"^(?<level>\d{1,3}),\d+,(?<us>\d{1,15}),[-c+][^;]{0,80};"),
        facility: regex(
            r"^(?:kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|ftp|local\d) *:(?<name>emerg|alert|crit|err|warn|notice|info|debug) *: ?",
        ),
        level: regex(r"^<(?<level>\d{1,3})>"),
        monotonic: regex(r"^\[ *(?<s>\d{1,9})\.(?<us>\d{6})(?: *<[ \d.]*>)?\] ?"),
        // `dmesg` with any of its time formats
        human: regex(
            r"^(?:\[(?:[^\[\]]{1,48} \d\d:\d\d:\d\d \d{4}(?: *<[ \d.]*>)?|[^\[\]-]{1,24}\d \d\d:\d\d|[ <+]+\d+\.\d+>?)\](?: |$)|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{6}[+-]\d\d:\d\d )",
        ),
        wall: regex(r"^\[\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?\](?: |$)"),
        iso: regex(r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,]\d{3,9}(?:[+-]\d\d:?\d\d|Z)? "),
        caller: regex(r"^\[ *[TC]\d{1,9}\] ?"),
        // `pci 0000:00:02.0: ` before a driver's prefix is the driver's own, `systemd[1]: ` a
        // program's.
        others: regex(&format!(
            r"^(?:\S+ [0-9a-f:.]{{7,16}}: (?:{})|[^\s\[]+\[\d+\]: )",
            driver_prefixes().map(regex::escape).collect::<Vec<_>>().join("|")
        )),
    }
});

/// What the main lines of each driver begin with.
fn driver_prefixes() -> impl Iterator<Item = &'static str> {
    VIOMMUS.iter().filter_map(|viommu| viommu.log_prefixes().first().copied())
}

/// A line with what its prefixes said.
struct Line<'a> {
    text: &'a str,
    level: u8,
    time_us: u64,
    stamped: bool,
    /// Whether a prefix is a kernel log's alone.
    kernels: bool,
}

/// Normalizes a log. Bytes that are no text become replacement characters.
pub(super) fn normalize(bytes: &[u8]) -> Normalized {
    normalize_within(bytes, MAX_HALF)
}

/// Normalizes a log of which at most so many lines at each end are kept.
fn normalize_within(bytes: &[u8], half: usize) -> Normalized {
    let text = decoded(bytes);
    let (text, json) = match json::read(&text) {
        Some(mut json) => (Cow::Owned(std::mem::take(&mut json.text)), json),
        None => (text, Json::default()),
    };
    let text = PREFIXES.terminal.replace_all(&text, "");
    let (lines, left_out) = ends(&text, &json.numbers, half);
    let last = if left_out > 0 { lines.get(half.saturating_sub(1)) } else { lines.last() };
    let whole_until = last.map_or(0, |(number, _)| *number);
    let quoted = |line: &str| PREFIXES.quote.find(line).map_or(0, |found| found.end());
    let bare: Vec<(u64, &str)> =
        lines.into_iter().map(|(number, line)| (number, &line[quoted(line)..])).collect();
    let hosts: HashSet<&str> = bare.iter().filter_map(|(_, line)| kernels_host(line)).collect();
    let mut normalized = Normalized {
        left_out,
        whole_until,
        foreign: json.foreign,
        broken: json.broken,
        ..Normalized::default()
    };
    let mut stamped = 0;
    let mut unstamped = Vec::new();
    for (number, line) in &bare {
        match strip(line, &hosts) {
            None => normalized.foreign += 1,
            Some(line) if line.text.trim().is_empty() => {}
            Some(line) => {
                stamped += usize::from(line.stamped);
                if line.kernels {
                    normalized.kernels_from.get_or_insert(*number);
                }
                if !line.stamped {
                    unstamped.push(normalized.records.len());
                }
                normalized.records.push(LogRecord {
                    level: line.level,
                    seq: *number,
                    time_us: line.time_us,
                    text: line.text.trim_end().to_owned(),
                });
            }
        }
    }
    normalized.unread = unread(&normalized.records);
    // In JSON no message is wrapped.
    let narrow =
        json.numbers.is_empty() && bare.iter().all(|(_, line)| line.chars().count() <= WRAP);
    if narrow && stamped > unstamped.len() {
        join(&mut normalized.records, &unstamped);
    }
    normalized
}

/// A log's text: UTF-16 with its mark, as PowerShell writes it, or UTF-8 with or without one.
fn decoded(bytes: &[u8]) -> Cow<'_, str> {
    let wide = |unit: fn([u8; 2]) -> u16| -> String {
        let units = bytes[2..].chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    };
    match bytes {
        [0xff, 0xfe, ..] => Cow::Owned(wide(u16::from_le_bytes)),
        [0xfe, 0xff, ..] => Cow::Owned(wide(u16::from_be_bytes)),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest),
        _ => String::from_utf8_lossy(bytes),
    }
}

/// Lines with a word of the driver's behind what is no known prefix. Where other lines begin with one
/// the prefixes are known, and it is a person who writes.
fn unread(records: &[LogRecord]) -> Vec<u64> {
    let said = |record: &LogRecord| {
        let text = message(&record.text);
        driver_prefixes().any(|prefix| text.starts_with(prefix.trim_end_matches([':', ' '])))
    };
    if records.iter().any(said) {
        return Vec::new();
    }
    let unknown = |record: &&LogRecord| {
        driver_prefixes().any(|prefix| record.text.contains(prefix))
            && !PREFIXES.others.is_match(message(&record.text))
    };
    records.iter().filter(unknown).map(|record| record.seq).collect()
}

/// Non-empty lines with their numbers, which are given where lines are not the log's own, so many at both
/// ends where they are too many.
fn ends<'a>(text: &'a str, numbers: &[u64], half: usize) -> (Vec<(u64, &'a str)>, u64) {
    // A serial console ends its lines by any mix of carriage returns and newlines, and a crash leaves
    // zeros where it kept a log from the disk.
    let lines = text
        .split('\n')
        .zip(1..)
        .map(|(line, at)| (line, numbers.get(at - 1).map_or(at as u64, |number| *number)))
        .flat_map(|(line, number)| line.split(['\r', '\0']).map(move |part| (part, number)))
        .filter(|(line, _)| !line.trim().is_empty());
    let (mut head, mut tail, mut left_out) = (Vec::new(), VecDeque::new(), 0);
    for (line, number) in lines {
        let line = (number, cut(line));
        if head.len() < half {
            head.push(line);
            continue;
        }
        if tail.len() == half {
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
    let mut line = Line {
        text: line.trim_start(),
        level: u8::MAX,
        time_us: 0,
        stamped: false,
        kernels: false,
    };
    let mut programs = false;
    if let Some(found) = prefixes.journal.captures(line.text) {
        // Only where the kernel speaks in this form is the same form another program's: without a
        // journal it may be `nvme nvme0: ...`.
        if &found["who"] == "kernel" {
            line.text = found.name("rest").map_or("", |rest| rest.as_str());
            line.stamped = true;
            line.kernels = true;
        } else if hosts.contains(&found["host"]) {
            return None;
        } else {
            // `short-monotonic` has a kernel's stamp before programs' lines, too.
            programs = found.name("pid").is_some();
        }
    }
    for _ in 0..MAX_PREFIXES {
        let rest = line.text;
        let mut kernels = !programs;
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
        } else if let Some(found) = prefixes.human.find(rest) {
            found.end()
        } else if let Some(found) = [&prefixes.wall, &prefixes.iso, &prefixes.caller]
            .iter()
            .find_map(|prefix| prefix.find(rest))
        {
            kernels = false;
            found.end()
        } else {
            break;
        };
        line.stamped = true;
        line.kernels |= kernels;
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
        let normalized = normalize(log.as_bytes());
        let got: Vec<&str> = normalized.records.iter().map(|record| &*record.text).collect();
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
            "[So Nov 22 18:41:39 2026] @",
            "[Di Mär  3 18:41:39 2026] @",
            "[日 11月 22 18:41:39 2026] @",
            "[dim. nov. 22 18:41:39 2026] @",
            "[Sun Nov 22 18:41:39 2026 <    0.000004>] @",
            "[Nov22 18:41] @",
            "[Mär 3 18:41] @",
            "[11月22 18:41] @",
            "[    1.653853 <    0.000004>] @",
            "[  +0.000004] @",
            "2026-11-22T18:41:39,123456+01:00 @",
            "kern  :warn  : 2026-11-22T18:41:39,123456+01:00 @",
            "Nov 22 18:41:39 box kernel: @",
            "Nov  2 18:41:39 box kernel: [    1.653853] @",
            "Mär 03 18:41:39 box kernel: @",
            "nov. 22 18:41:39 box kernel: @",
            "11月 22 18:41:39 box kernel: @",
            "11-р сар 22 18:41:39 box kernel: @",
            "Sun 2026-11-22 18:41:39 -03 box kernel: @",
            "[    1.653853 <    0.000004 >] box kernel: @",
            "\u{feff}[    1.653853] @",
            "\0\0\0[    1.653853] @",
            "{\"_TRANSPORT\": \"kernel\", \"MESSAGE\": \"@\"}",
            "{\"dmesg\": [{\"pri\": 6, \"time\": 1.653853, \"msg\": \"@\"}]}",
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
        check("a\0\0\0\0b\n", &["a", "b"]);
        for unit in [u16::to_le_bytes, u16::to_be_bytes] {
            let log = format!("\u{feff}[    1.653853] {said}\r\n");
            let wide: Vec<u8> = log.encode_utf16().flat_map(unit).collect();
            let normalized = normalize(&wide);
            assert_eq!((normalized.records.len(), &*normalized.records[0].text), (1, said));
        }
    }

    #[test]
    fn a_prefix_that_is_not_known_is_told() {
        let log = "x|1|DMAR: IOMMU enabled\nMESSAGE=DMAR: x\nno word\n";
        assert_eq!(normalize(log.as_bytes()).unread, [1, 2]);
        // One that begins as another does.
        let log = "<6>1 2026-11-22T18:41:39.123Z box kernel - - - DMAR: IOMMU enabled\n";
        assert_eq!(normalize(log.as_bytes()).unread, [1]);
        for log in [
            "I see `DMAR: x`\n[    1.000000] DMAR: IOMMU enabled\n",
            "pci 0000:00:02.0: DMAR: Skip IOMMU disabling for graphics\n",
            "[    2.000000] systemd[1]: DMAR: x\n",
        ] {
            assert_eq!(normalize(log.as_bytes()).unread, [0; 0], "{log}");
        }
    }

    #[test]
    fn a_prefix_tells_whether_it_is_a_kernels() {
        for (line, kernels) in [
            ("[ 9000.100000] usb 1-1: x", true),
            ("Nov 22 18:41:39 box kernel: usb 1-1: x", true),
            ("[Sun Nov 22 18:41:39 2026] usb 1-1: x", true),
            ("2026-11-22T18:41:39,123456+01:00 usb 1-1: x", true),
            ("Nov 22 18:41:39 box sshd[1]: x", false),
            ("[ 9000.100000] box sshd[1]: x", false),
            ("2026-11-22T18:41:39,123456+01:00 box sshd[1]: x", false),
            ("[ 9000.100000] systemd[1]: x", true),
            ("[ 9000.100000] nvme nvme0: x", true),
            ("[2026-11-22 18:41:39] WARNING: modpost: x", false),
            ("WARNING: modpost: x", false),
        ] {
            assert_eq!(normalize(line.as_bytes()).kernels_from.is_some(), kernels, "{line}");
        }
    }

    #[test]
    fn other_programs_lines_are_left_out_where_the_kernel_speaks_in_that_form() {
        let log = "Nov 22 18:41:39 box kernel: DMAR: IOMMU enabled\n\
                   Nov 22 18:41:40 box systemd[1]: DMAR: IOMMU disabled\n\
                   Nov 22 18:41:40 box sshd[12]: BUG: no\n";
        check(log, &["DMAR: IOMMU enabled"]);
        assert_eq!(normalize(log.as_bytes()).foreign, 2);
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
        let normalized = normalize(b"\n[   12.000345] a\n<3>b\n");
        let seen: Vec<_> = normalized.records.iter().map(|r| (r.seq, r.time_us, r.level)).collect();
        assert_eq!(seen, [(2, 12_000_345, 255), (3, 0, 3)]);
        let lines = |log: &str| -> Vec<u64> {
            normalize(log.as_bytes()).records.iter().map(|record| record.seq).collect()
        };
        assert_eq!(lines("a\r\r\nb\r\n\0\0\0c\n"), [1, 2, 3]);
        // A title that is cut off swallows no lines.
        assert_eq!(lines("\x1b]0;a\nb\nc\x07\n"), [1, 2, 3]);
    }

    #[test]
    fn floods_are_bounded() {
        let long = normalize("x".repeat(1 << 20).as_bytes());
        assert_eq!(long.records[0].text.len(), MAX_LINE);
        let many: String = (1..=30).map(|number| format!("{number}\n")).collect();
        let many = normalize_within(many.as_bytes(), 10);
        assert_eq!((many.records.len(), many.left_out, many.whole_until), (20, 10, 10));
        assert_eq!(many.records.last().unwrap().text, "30");
        assert!(normalize(&[0xff, 0xfe, b'\n', 0, b'\r']).records.len() <= 2);
        // As many wrapped lines as there can be, which are joined in one go.
        let wrapped = "[    1.000000] a\n[    1.000000] b\nc\n".repeat(50_000);
        assert_eq!(normalize(wrapped.as_bytes()).records.len(), 100_000);
    }

    #[test]
    fn what_is_missing_in_the_middle_is_not_missing_at_the_start() {
        let start = "[    0.000000] Linux version 6.1.1 (a@b) (gcc) #1 SMP
[    0.100000] DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap 1c0000c40660462 ecap f050da
[    0.200000] DMAR: dmar0: Using Queued invalidation
[    0.300000] DMAR: Intel(R) Virtualization Technology for Directed I/O
";
        let fault = "[    9.000000] DMAR: [DMA Read NO_PASID] Request device [03:00.0] fault addr 0x1000 [fault reason 0x06] PTE Read access is not set\n";
        let told = |log: &str| super::super::of_normalized(&normalize_within(log.as_bytes(), 10));
        let found = told(&format!("{start}{}", fault.repeat(40))).remove(0);
        assert_eq!(found.warning.present, Some(false), "{:?}", found.warning);
        assert!(found.odd[0].starts_with("at least 16 DMA faults of 03:00.0"), "{:?}", found.odd);
        assert!(found.notes[0].starts_with("24 lines in the middle"), "{:?}", found.notes);
        // The second boot is whole.
        let later = fault.replace("9.0", "9.5");
        let found = told(&format!("{}{start}{later}", fault.repeat(40)));
        assert!(found[0].odd[0].starts_with("at least 15 "), "{:?}", found[0].odd);
        assert!(found[1].odd[0].starts_with("1 DMA faults"), "{:?}", found[1].odd);
        let left_out = |note: &String| note.contains("left out");
        assert!(!found[1].notes.iter().any(left_out), "{:?}", found[1].notes);
        assert!(found[1].kernel.complete);
    }
}
