//! Exports, parsed by the rules of their formats.

use std::collections::{BTreeMap, BTreeSet};

use dmarig_history::{ExportFormat, ExportSelection, History, RunEntry, SeriesKey};
use serde_json::Value;

use crate::fixtures::{key, point, run};

/// Names and units that a hostile guest might choose.
fn hostile() -> Vec<SeriesKey> {
    let nasty = ["=cmd|' /C'!A0", "a\"b\\", "x,y=z w\\", "{}# EOF", "\u{e9}t\u{e9}"];
    let mut keys: Vec<SeriesKey> = nasty.map(|name| key(name, name, "mine")).to_vec();
    // Two with the same escaped name, and one whose name equals that of another with its unit.
    keys.extend([
        key("a-b", "ns", "mine"),
        key("a_b", "us", "mine"),
        key("a_b_seconds", "1", "mine"),
    ]);
    keys.push(SeriesKey { reference: Some("base@1".into()), ..key("elapsed", "ns", "mine") });
    keys.push(key("elapsed", "ns", "mine"));
    keys
}

/// Start times of runs, in days, with their ids. The last two ids have no microseconds, as in old
/// records; the one before them has no time.
const BEGUN: [(i64, &str); 6] = [
    (0, "20260101T000000.000250Z-0000ff"),
    (0, "20260101T000000.000251Z-000001"),
    (0, "20260101T000000.900000Z-000002"),
    (1, "by-hand"),
    (2, "20260103T000000Z-000003"),
    (2, "20260103T000000Z-000004"),
];

/// Runs, some of which started in the same second.
fn runs() -> Vec<RunEntry> {
    let values = [[1.0, 2.0, 3.0], [0.1, 0.2, 1e300], [5e-324, 7.0, 9.0]];
    let runs = values.iter().cycle().zip(BEGUN).map(|(values, (day, id))| {
        let points = hostile().into_iter().map(|key| point(key, 0, values)).collect();
        let started = 1_767_225_600 + day * 86_400;
        RunEntry { id: id.into(), started, points, ..run(0, 1.0) }
    });
    runs.collect()
}

fn exported(format: ExportFormat, run: Option<String>) -> String {
    let place = tempfile::tempdir().unwrap();
    let mut history = History::create(&place.path().join("history.sqlite")).unwrap();
    history.insert_runs(&runs()).unwrap();
    let mut out = Vec::new();
    history
        .export(format, &ExportSelection { run, ..ExportSelection::default() }, &mut out)
        .unwrap();
    String::from_utf8(out).unwrap()
}

/// Parses `name="value",...` and resolves escapes.
fn labels(mut text: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").unwrap();
        let name_is_sound = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        assert!(name_is_sound && !name.starts_with("__"), "{name}");
        let (mut value, mut chars) = (String::new(), rest.char_indices());
        let end = loop {
            match chars.next().expect("an end of the value") {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    c => panic!("\\{c}"),
                }),
                (_, c) => value.push(c),
            }
        };
        assert!(all.insert(name.to_owned(), value).is_none(), "{name} twice");
        text = rest[end + 1..].strip_prefix(',').unwrap_or(&rest[end + 1..]);
    }
    all
}

#[test]
fn writes_valid_openmetrics() {
    let text = exported(ExportFormat::OpenMetrics, None);
    let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF and a line's end");
    let (mut families, mut family, mut unit) = (BTreeSet::new(), String::new(), String::new());
    let mut last: Option<(String, f64)> = None;
    let mut metrics = BTreeSet::new();
    let mut samples = 0;
    for line in body.lines() {
        if let Some(meta) = line.strip_prefix("# ") {
            let mut words = meta.splitn(3, ' ');
            let (kind, name, rest) =
                (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            match kind {
                "TYPE" => {
                    assert_eq!(rest, "gauge");
                    assert!(families.insert(name.to_owned()), "{name} is interleaved");
                    (family, unit) = (name.to_owned(), String::new());
                }
                "UNIT" => unit = rest.to_owned(),
                "HELP" => assert!(!rest.replace("\\\\", "").replace("\\\"", "").contains('\\')),
                _ => panic!("{line}"),
            }
            assert_eq!(name, family, "{line}");
            assert!(name.ends_with(&unit) && name.starts_with("dmarig_"), "{line}");
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
            continue;
        }
        let (name, rest) = line.split_once('{').unwrap();
        assert_eq!(name, family);
        let (set, numbers) = rest.rsplit_once("} ").unwrap();
        let set = format!("{name} {:?}", labels(set));
        let (value, time) = numbers.split_once(' ').unwrap();
        assert!(value.parse::<f64>().unwrap().is_finite());
        let time: f64 = time.parse().unwrap();
        match &last {
            Some((before, then)) if *before == set => assert!(time > *then, "{line}"),
            _ => assert!(metrics.insert(set.clone()), "{set} is interleaved"),
        }
        last = Some((set, time));
        samples += 1;
    }
    assert_eq!((metrics.len(), samples), (hostile().len(), BEGUN.len() * hostile().len()));
    let elapsed = body.lines().find(|line| line.starts_with("dmarig_elapsed_seconds{")).unwrap();
    assert!(elapsed.ends_with("} 2e-9 1767225600.000250"), "{elapsed}");
    assert!(body.contains("# UNIT dmarig_elapsed_ratio ratio\n"));
}

#[test]
fn writes_valid_line_protocol() {
    let text = exported(ExportFormat::Influx, None);
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        // An unescaped space ends the tags. Fields have spaces in quotes only.
        let (mut parts, mut part, mut quoted, mut escaped) =
            (Vec::new(), String::new(), false, false);
        for c in line.chars() {
            match c {
                _ if escaped => (escaped, part) = (false, part + &format!("\\{c}")),
                '\\' => escaped = true,
                '"' if !parts.is_empty() => (quoted, part) = (!quoted, part + "\""),
                ' ' if !quoted => parts.push(std::mem::take(&mut part)),
                c => part.push(c),
            }
        }
        assert!(!escaped && !quoted, "{line}");
        parts.push(part);
        let [key, fields, time] = parts.as_slice() else { panic!("{line}: {parts:?}") };
        let tags = key.replace("\\,", "\u{1}").replace("\\=", "\u{2}");
        let mut tags = tags.split(',');
        assert_eq!(tags.next(), Some("dmarig"));
        let names: Vec<&str> = tags
            .map(|tag| {
                let (name, value) = tag.split_once('=').unwrap();
                assert!(
                    !value.is_empty() && !value.contains('=') && !value.ends_with('\\'),
                    "{line}"
                );
                name
            })
            .collect();
        assert!(names.is_sorted() && names.contains(&"metric"), "{names:?}");
        let value = fields.strip_prefix("value=").unwrap().split(',').next().unwrap();
        assert!(value.parse::<f64>().unwrap().is_finite());
        let time: i64 = time.parse().unwrap();
        assert!(time > 1_767_000_000_000_000_000);
        // A point with the same tags and time would replace this one.
        assert!(seen.insert((key.clone(), time)), "{line}");
    }
    assert_eq!(seen.len(), BEGUN.len() * hostile().len());
}

#[test]
fn writes_bencher_values_within_their_bounds() {
    let second = runs()[1].id.clone();
    let text = exported(ExportFormat::Bencher, Some(second));
    let document: Value = serde_json::from_str(&text).unwrap();
    let mut measures = 0;
    for (benchmark, of) in document.as_object().unwrap() {
        assert!(!benchmark.is_empty() && benchmark.chars().count() <= 1024);
        for (name, metric) in of.as_object().unwrap() {
            assert!(!name.is_empty() && name.chars().count() <= 64, "{name}");
            let number = |field: &str| metric[field].as_f64().unwrap();
            assert!(number("lower_value") <= number("value"), "{metric}");
            assert!(number("value") <= number("upper_value"), "{metric}");
            assert_eq!((number("lower_value"), number("upper_value")), (0.1, 1e300));
            measures += 1;
        }
    }
    assert_eq!(measures, hostile().len());
    // Without a run, the newest one is exported.
    let newest: Value = serde_json::from_str(&exported(ExportFormat::Bencher, None)).unwrap();
    let any = newest.as_object().unwrap().values().next().unwrap();
    assert_eq!(any.as_object().unwrap().values().next().unwrap()["upper_value"], 9.0);
}

#[test]
fn writes_csv_fields_without_formulas() {
    let text = exported(ExportFormat::Csv, None);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().unwrap().clone();
    let lines: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(lines.len(), BEGUN.len() * hostile().len());
    let at = |name: &str| header.iter().position(|field| field == name).unwrap();
    for line in &lines {
        assert!(!line.iter().any(|field| field.starts_with(['=', '+', '-', '@'])), "{line:?}");
        let samples: Vec<f64> =
            line[at("samples")].split(' ').map(|value| value.parse().unwrap()).collect();
        assert_eq!(samples.len(), 3);
        assert_eq!(line[at("value")].parse(), Ok(samples[1]));
        // Some times have microseconds.
        let (second, part) = line[at("time")].split_at("2026-01-01T00:00:00".len());
        assert!(second.ends_with("T00:00:00") && part.ends_with('Z'), "{line:?}");
    }
    assert!(lines.iter().any(|line| line[at("metric")] == *"a\"b\\"));
}

#[test]
fn quotes_csv_fields() {
    insta::assert_snapshot!(exported(ExportFormat::Csv, None).replace('\r', "<CR>"));
}

/// Lines with points, sorted.
fn lines_of_points(format: ExportFormat, run: Option<&str>) -> Vec<String> {
    let text = exported(format, run.map(str::to_owned));
    let point = |line: &&str| !line.starts_with('#') && !line.starts_with("time,run");
    let mut lines: Vec<String> = text.lines().filter(point).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn exports_one_run_as_among_all() {
    for format in [ExportFormat::OpenMetrics, ExportFormat::Influx, ExportFormat::Csv] {
        let all = lines_of_points(format, None);
        let mut alone = Vec::new();
        for (_, run) in BEGUN {
            let lines = lines_of_points(format, Some(run));
            assert_eq!(lines.len(), hostile().len(), "{format:?} of {run}");
            alone.extend(lines);
        }
        alone.sort();
        assert_eq!(alone, all, "{format:?}");
    }
}

#[test]
fn takes_times_from_run_ids() {
    let elapsed = |line: &String| line.contains("metric=elapsed,reference=");
    let lines = lines_of_points(ExportFormat::Influx, None);
    let mut times: Vec<i64> = lines
        .iter()
        .filter(|line| elapsed(line))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    times.sort_unstable();
    let us = [0, 250, 251, 900_000].map(|us| 1_767_225_600_000_000 + us);
    let day = 86_400_000_000;
    let expected = [us[1], us[2], us[3], us[0] + day, us[0] + 2 * day, us[0] + 2 * day + 1000];
    assert_eq!(times, expected.map(|us| 1000 * us));
}
