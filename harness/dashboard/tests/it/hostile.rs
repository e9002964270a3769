use std::{collections::BTreeMap, time::SystemTime};

use dmarig_dashboard::{
    Alert, AlertState, CellResult, Change, Dashboard, Point, Run, RunDetails, Series, Site,
    Subject, comparison_page,
};
use dmarig_model::observation::Outcome;
use dmarig_records::{
    COMPARISON_SCHEMA, CellComparison, CellEnd, Comparison, CountDifference, MetricComparison,
    MetricResult,
};
use dmarig_stats::{
    paired::{Better, Estimate, Judgement},
    sequence::{Finding, Metric},
};

use crate::{
    demo::{Demo, SMALL},
    html::tags,
};

/// Everything that ever broke out of a page, in one line.
const HOSTILE: &str = "</script><script>alert(1)</script><!--\"'><img src=x onerror=alert(1)>\
    javascript:alert(1) ../../../etc/passwd%00\u{202e}\u{2028}\u{0}\u{1b}[2J]]>&lt;{{7*7}}${7*7}";

/// What a site is made of: of each file in its order, tags with the names of their attributes.
fn skeleton(demo: Demo) -> Vec<Vec<(String, Vec<String>)>> {
    let dashboard = demo.dashboard();
    // Names of files differ with what is in them, their order does not.
    let mut pages: BTreeMap<String, String> = BTreeMap::new();
    dashboard
        .write(|path, bytes| {
            if path.ends_with(".html") {
                let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
                pages.insert(path.to_owned(), text);
            }
            std::io::Result::Ok(())
        })
        .unwrap();
    let only_names = |(name, _): (String, String)| name;
    let of_page = |html: &String| {
        let tags = tags(html).into_iter();
        tags.map(|tag| (tag.name, tag.attributes.into_iter().map(only_names).collect())).collect()
    };
    let mut shapes: Vec<Vec<(String, Vec<String>)>> = pages.values().map(of_page).collect();
    shapes.sort();
    shapes
}

#[test]
fn hostile_text_changes_no_tag_of_any_page() {
    let harmless = Demo { text: "harmless text", ..SMALL };
    assert_eq!(skeleton(Demo { text: HOSTILE, ..SMALL }), skeleton(harmless));
}

#[test]
fn hostile_text_reaches_no_address_no_style_and_no_script() {
    let demo = Demo { text: HOSTILE, ..SMALL };
    let dashboard = demo.dashboard();
    for path in dashboard.paths() {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-./".contains(c);
        assert!(path.chars().all(plain) && !path.contains(".."), "{path}");
        let text = dashboard.render(&path).unwrap();
        for steering in ['\u{202e}', '\u{2028}', '\u{0}', '\u{1b}'] {
            assert!(!text.contains(steering), "{path} has {steering:?}");
        }
        if path.ends_with(".js") && path.starts_with("data/") {
            assert!(!text.contains('<') && text.lines().count() == 1, "{path}");
        }
        if !path.ends_with(".html") {
            continue;
        }
        for tag in tags(&text) {
            for (name, value) in &tag.attributes {
                assert!(!name.starts_with("on"), "{path}: {name}={value}");
                let own =
                    ["href", "src", "id", "class", "style", "data-live"].contains(&name.as_str());
                let told = value.contains("alert(1)") || value.contains("passwd%");
                assert!(!(own && told), "{path}: {name}={value}");
            }
        }
    }
}

#[test]
fn hostile_text_stays_text_in_a_comparison() {
    let page = |text: &str| {
        let estimate = Estimate {
            ratio: 1.1,
            low: Some(0.9),
            high: None,
            pairs: 3,
            noise: 0.1,
            resolvable: 9.0,
        };
        let finding = Finding {
            metric: Metric { name: text.into(), better: Better::Lower, limit: Some(5.0) },
            judgement: Some(Judgement::Pass),
            estimate: Some(estimate),
            error: None,
            too_fine: Some(true),
        };
        let metric = MetricComparison {
            name: text.into(),
            unit: text.into(),
            candidate: vec![1.0, 2.0, f64::NAN],
            baseline: vec![1.0, 0.0, 3.0],
            result: MetricResult::Paired(finding),
        };
        let count = CountDifference { name: text.into(), candidate: 1.0, baseline: f64::INFINITY };
        let cell = CellComparison {
            label: text.into(),
            metrics: vec![metric],
            counts: vec![count],
            boots: None,
            ended: CellEnd::Stopped { why: text.into() },
        };
        let comparison = Comparison {
            schema: COMPARISON_SCHEMA,
            candidate: text.into(),
            baseline: text.into(),
            pairing: None,
            cells: vec![cell],
            notes: vec![text.into()],
        };
        let shape =
            |html: String| -> Vec<String> { tags(&html).into_iter().map(|tag| tag.name).collect() };
        let html = comparison_page(&comparison, SystemTime::now());
        assert!(!html.contains("NaN\""), "a number that is none is drawn");
        shape(html)
    };
    assert_eq!(page(HOSTILE), page("harmless"));
}

#[test]
fn what_leads_nowhere_is_left_out() {
    let point = |run, value| Point { run, value, samples: 0, kernel: "".into() };
    let far = usize::MAX;
    let series = Series {
        better: dmarig_dashboard::Better::Higher,
        points: vec![
            point(0, f64::NAN),
            point(far, 1e308),
            point(0, -1e308),
            point(0, f64::INFINITY),
        ],
        changes: [0, 2, 9, far].map(|at| Change { at, p: f64::NAN, ..Change::default() }).into(),
        ..Series::default()
    };
    let alert = |subject| Alert {
        id: String::new(),
        state: AlertState::New,
        subject,
        what: String::new(),
        until: Some(far),
        last_good: Some(far),
        first_bad: Some(far),
        good_kernel: String::new(),
        bad_kernel: String::new(),
        note: String::new(),
    };
    let result = CellResult {
        cell: far,
        outcome: Outcome::Failed,
        kernel: "".into(),
        broken: vec!["".into()],
        checks: None,
    };
    let site = Site {
        generated: i64::MIN,
        runs: vec![
            Run { results: vec![result], started: i64::MIN, ..Run::default() },
            Run { started: i64::MAX, ..Run::default() },
        ],
        series: vec![series, Series::default()],
        alerts: vec![
            alert(Subject::Cell(far)),
            alert(Subject::Series { series: far, point: 0 }),
            alert(Subject::Series { series: 0, point: far }),
        ],
        ..Site::default()
    };
    let dashboard = Dashboard::new(site, Box::new(|_, _| RunDetails::default()));
    for path in dashboard.paths() {
        let text = dashboard.render(&path).unwrap();
        if path.starts_with("assets/") {
            continue;
        }
        assert!(!text.contains("=\"NaN") && !text.contains("NaN "), "{path}: {text}");
    }
}
