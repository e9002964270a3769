//! Writes the site that the tests are made of: `cargo run -p dmarig-dashboard --example site -- DIR
//! [hostile|live]`. The browser tests
//! look at the hostile one, and at one that expects to be served.

use std::{fs, path::Path};

#[expect(dead_code, reason = "not all of it is for each of its users")]
#[path = "../tests/it/demo.rs"]
mod demo;

use demo::{Demo, SMALL};
use dmarig_dashboard::{Compared, ComparedGroup, ComparedRow, Dashboard, Site, comparison_page};

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
    fs::write(Path::new(&directory).join("comparison.html"), comparison_page(&compared(text)))?;
    println!("{} files, {} bytes", written.files, written.bytes);
    Ok(())
}

/// A comparison with a row of each kind.
fn compared(text: &str) -> Compared {
    let own = |word: &str| format!("{word}{text}");
    let baseline: Vec<f64> = (0..20).map(|at| 1.2e9 + 1.7e7 * f64::from(at * 7 % 5)).collect();
    let row = |name: &str, ratio: f64, verdict: Option<(&str, Option<bool>)>| ComparedRow {
        name: own(name),
        unit: "ns".to_owned(),
        paired: verdict.is_some(),
        candidate: (0..20)
            .zip(&baseline)
            .map(|(at, value)| value * (ratio + 0.004 * f64::from(at * 11 % 7 - 3)))
            .collect(),
        baseline: baseline.clone(),
        ratio: Some(ratio),
        bounds: (Some(ratio - 0.02), (ratio < 1.2).then_some(ratio + 0.02)),
        limit: verdict.map(|_| 1.05),
        verdict: verdict.map(|(word, good)| (own(word), good)),
        more: vec![("noise".to_owned(), "1.7 %".to_owned()), ("resolves".to_owned(), own("2.4 %"))],
    };
    let rows = vec![
        row("elapsed", 1.09, Some(("FAIL", Some(false)))),
        row("latency-p50", 1.001, Some(("pass", Some(true)))),
        row("latency-p99", 1.04, Some(("inconclusive", None))),
        row("score", 0.93, None),
    ];
    Compared {
        candidate: own("debian-6.12"),
        baseline: own("debian-6.1"),
        how: own("in pairs, each in a boot of its own; seed 7"),
        verdict: Some((own("FAIL"), Some(false))),
        made: 1_767_232_800,
        groups: vec![ComparedGroup {
            label: own("timing/policy=strict"),
            rows,
            counts: vec![(own("psi"), 800.0, 400.0)],
        }],
        notes: vec![own("a wrong pass and a wrong failure each have a probability of at most 2 %")],
    }
}
