//! Writes the site that the tests are made of: `cargo run -p dmarig-dashboard --example site -- DIR
//! [hostile|live]`. The browser tests
//! look at the hostile one, and at one that expects to be served.

use std::{fs, path::Path, time::SystemTime};

#[expect(dead_code, reason = "not all of it is for each of its users")]
#[path = "../tests/it/demo.rs"]
mod demo;

use demo::{Demo, SMALL};
use dmarig_dashboard::{Dashboard, Site, comparison_page};
use dmarig_records::{
    COMPARISON_SCHEMA, CellComparison, CellEnd, Comparison, CountDifference, MetricComparison,
    MetricResult, Pairing,
};
use dmarig_stats::{
    paired::{self, Better, Judgement},
    sequence::{Finding, Metric},
    unpaired,
};

/// Breaks out of every context that a page has, if anything is let through. It would leave its mark in
/// the window's name, and would ask a server for an image.
const HOSTILE: &str = "</script></title></style></textarea><script>window.name='broken'</script>\
    <!--\"' onmouseover=window.name='broken' <img src=broken.png onerror=window.name='broken'>\
    <svg onload=window.name='broken'> javascript:window.name='broken' \u{202e}evil\u{0}\u{1b}[31m";

fn main() -> std::io::Result<()> {
    let mut words = std::env::args().skip(1);
    let directory = words.next().expect("a directory");
    let kind = words.next().unwrap_or_default();
    let text = if kind == "hostile" { HOSTILE } else { "" };
    let demo = Demo { text, ..SMALL };
    let site = Site { live: kind == "live", ..demo.site() };
    let details = move |site: &Site, run| demo.details(site, run);
    let written = Dashboard::new(site, Box::new(details)).write(|path, bytes| {
        let path = Path::new(&directory).join(path);
        fs::create_dir_all(path.parent().expect("it is below the directory"))?;
        fs::write(path, bytes)
    })?;
    let page = comparison_page(&comparison(text), SystemTime::now());
    fs::write(Path::new(&directory).join("comparison.html"), page)?;
    println!("{} files, {} bytes", written.files, written.bytes);
    Ok(())
}

/// A comparison with a metric of each kind.
fn comparison(text: &str) -> Comparison {
    let own = |word: &str| format!("{word}{text}");
    let metrics = vec![
        metric(own("elapsed"), 1.09, Some(Some(Judgement::Fail))),
        metric(own("latency-p50"), 1.001, Some(Some(Judgement::Pass))),
        metric(own("latency-p99"), 1.04, Some(None)),
        metric(own("score"), 0.93, None),
    ];
    let pairing = Pairing {
        seed: 7,
        error: 0.02,
        level: Some(0.005),
        looks: vec![8, 12, 20, 30],
        rule: 1,
        one_boot: false,
    };
    Comparison {
        schema: COMPARISON_SCHEMA,
        candidate: own("debian-6.12"),
        baseline: own("debian-6.1"),
        pairing: Some(pairing),
        cells: vec![CellComparison {
            label: own("timing/policy=strict"),
            metrics,
            counts: vec![CountDifference { name: own("psi"), candidate: 800.0, baseline: 400.0 }],
            boots: None,
            ended: CellEnd::Done,
        }],
        notes: vec![own("the machine was busy")],
    }
}

/// Twenty values of each; a metric without a limit has no pairs.
fn metric(name: String, ratio: f64, judgement: Option<Option<Judgement>>) -> MetricComparison {
    let baseline: Vec<f64> = (0..20).map(|at| 1.2e9 + 1.7e7 * f64::from(at * 7 % 5)).collect();
    let candidate = (0..20)
        .zip(&baseline)
        .map(|(at, value)| value * (ratio + 0.004 * f64::from(at * 11 % 7 - 3)))
        .collect();
    let (low, high) = (Some(ratio - 0.02), (ratio < 1.2).then_some(ratio + 0.02));
    let result = match judgement {
        None => {
            let estimate = unpaired::Estimate { ratio, low, high, noise: Some(0.017) };
            MetricResult::Unpaired { estimate: Some(estimate) }
        }
        Some(judgement) => {
            let (noise, resolvable) = (0.017, 2.4);
            let estimate = paired::Estimate { ratio, low, high, pairs: 20, noise, resolvable };
            MetricResult::Paired(Finding {
                metric: Metric { name: name.clone(), better: Better::Lower, limit: Some(5.0) },
                judgement,
                estimate: Some(estimate),
                error: None,
                too_fine: None,
            })
        }
    };
    MetricComparison { name, unit: "ns".to_owned(), candidate, baseline, result }
}
