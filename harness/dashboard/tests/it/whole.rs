use std::collections::{BTreeMap, BTreeSet};

use dmarig_dashboard::{Cell, CellResult, Checked, Dashboard, Run, RunDetails, Series, Site};
use dmarig_model::observation::Outcome;
use dmarig_report::MetricVerdict;
use dmarig_stats::paired::Judgement;

use crate::{
    demo::{Demo, SMALL, YEAR},
    html::tags,
};

/// All files of a site, by path.
fn files(dashboard: &Dashboard) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let written = dashboard
        .write(|path, bytes| {
            let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
            assert!(files.insert(path.to_owned(), text).is_none(), "{path} was written twice");
            std::io::Result::Ok(())
        })
        .unwrap();
    assert_eq!(written.files, files.len());
    files
}

fn with(site: Site) -> Dashboard {
    Dashboard::new(site, Box::new(|_, _| RunDetails::default()))
}

/// What an address in a page of this path leads to: the file and the place in it.
fn target<'a>(path: &str, address: &'a str) -> (String, Option<&'a str>) {
    let (file, place) = match address.split_once('#') {
        Some((file, place)) => (file, Some(place)),
        None => (address, None),
    };
    if file.is_empty() {
        return (path.to_owned(), place);
    }
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in file.split('/') {
        match part {
            ".." => assert!(parts.pop().is_some(), "{path}: {address} leads out of the site"),
            part => parts.push(part),
        }
    }
    (parts.join("/"), place)
}

#[test]
fn every_address_leads_to_a_file_and_a_place_in_it() {
    let files = files(&SMALL.dashboard());
    let mut places: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in files.iter().filter(|(path, _)| path.ends_with(".html")) {
        let of_page = places.entry(path).or_default();
        for tag in tags(text) {
            if let Some(id) = tag.attribute("id") {
                assert!(of_page.insert(id.to_owned()), "{path}: the id {id} is there twice");
            }
        }
    }
    let mut followed = 0;
    for (path, text) in files.iter().filter(|(path, _)| path.ends_with(".html")) {
        for tag in tags(text) {
            let addresses = ["href", "src"].into_iter().filter_map(|name| tag.attribute(name));
            for address in addresses.filter(|address| !address.starts_with("data:image/")) {
                let (file, place) = target(path, address);
                assert!(files.contains_key(&file), "{path}: {address} leads to no file");
                // Of this page the part after `#` is what its script compares.
                if let Some(place) = place.filter(|_| file != "compare.html") {
                    assert!(places[file.as_str()].contains(place), "{path}: no {place} in {file}");
                }
                followed += 1;
            }
        }
    }
    assert!(followed > 1000, "{followed}");
}

#[test]
fn every_page_has_what_all_pages_have() {
    for (path, text) in files(&SMALL.dashboard()) {
        if !path.ends_with(".html") {
            continue;
        }
        for part in [
            "<!DOCTYPE html><html lang=\"en\"",
            "Content-Security-Policy",
            "<h1>",
            "<title>",
            "viewport",
        ] {
            assert!(text.contains(part), "{path} has no {part}");
        }
        // A name of a language, which no browser looks up.
        let text = text.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !text.contains("://") && !text.contains("src=\"//"),
            "{path} names a place elsewhere"
        );
        let scripts = tags(&text).into_iter().filter(|tag| tag.name == "script");
        for script in scripts {
            assert!(script.attribute("src").is_some(), "{path} has a script of its own");
        }
    }
}

#[test]
fn a_site_of_nothing_says_what_to_do() {
    let dashboard = with(Site::default());
    for path in dashboard.paths() {
        assert!(dashboard.render(&path).is_some(), "{path}");
    }
    assert!(dashboard.render("index.html").unwrap().contains("dmarig history add"));
    assert_eq!(dashboard.render("../index.html"), None);
}

#[test]
fn only_a_served_page_connects_anywhere() {
    let live = |live| with(Site { live, ..SMALL.site() }).render("index.html").unwrap();
    assert!(
        live(true).contains("connect-src 'self'") && live(true).contains("data-live=\"events\"")
    );
    assert!(!live(false).contains("connect-src") && !live(false).contains("data-live"));
}

#[test]
fn the_first_page_says_how_the_night_went() {
    let dashboard = SMALL.dashboard();
    let page = dashboard.render("index.html").unwrap();
    let bad = dashboard.site().runs[39].results.iter().filter(|result| {
        use dmarig_model::observation::Outcome::{Passed, Skipped};
        !matches!(result.outcome, Passed | Skipped)
    });
    assert!(page.contains(&format!("{} of 24 cells did not pass", bad.count())), "{page:.3000}");
    assert!(page.contains("psi-per-unmap") && page.contains("linux-next"));
}

#[test]
fn numbers_beyond_their_limits_are_told_first_and_in_full() {
    let dashboard = SMALL.dashboard();
    let page = dashboard.render("index.html").unwrap();
    assert!(page.contains("did not pass, 1 number is too much worse"), "{page:.3000}");
    let from = page.find("id=\"judged\"").unwrap();
    let part = &page[from..from + page[from..].find("</section>").unwrap()];
    assert!(part.contains("1 within, 1 beyond, 1 open"), "{part}");
    // Only what is beyond is told here: with its series, its change and its limit.
    for text in ["latency-p99", "+7.0 %", "5 % worse", "href=\"series/", "FAIL"] {
        assert!(part.contains(text), "no `{text}` in {part}");
    }
    assert!(!part.contains("elapsed"), "{part}");
    let site = dashboard.site();
    assert_eq!(part.matches("#judged\"").count(), 1, "{part}");

    // A night of which nothing else can be said has failed all the same.
    let judged = site.runs.last().unwrap().judged.clone();
    let result = result(0, Outcome::Passed, None);
    let night = |judged| {
        let run = Run { id: "r".into(), results: vec![result.clone()], judged, ..Run::default() };
        let site = Site { cells: vec![Cell::default()], runs: vec![run], ..Site::default() };
        with(site).render("index.html").unwrap()
    };
    let open = |verdict: MetricVerdict| {
        let mut judged = judged.clone();
        judged[0].numbers.truncate(1);
        judged[0].numbers[0].metric.verdict = verdict;
        night(judged)
    };
    assert!(open(MetricVerdict::NotCompared).contains("None could be judged yet"));
    assert!(open(MetricVerdict::Judged(Judgement::Pass)).contains("None is beyond its limit"));
    assert!(night(judged.clone()).contains("hero failed"));
    let without = night(Vec::new());
    assert!(
        without.contains("hero passed") && !without.contains("id=\"judged\""),
        "{without:.2000}"
    );
}

#[test]
fn notes_without_numbers_have_no_table_and_are_read_at_once() {
    let page = |numbers: usize| {
        let mut site = SMALL.site();
        site.runs[0].judged[0].numbers.truncate(numbers);
        let dashboard = with(site);
        let path = dashboard.paths().into_iter().find(|path| path.starts_with("runs/")).unwrap();
        let page = dashboard.render(&path).unwrap();
        let section = page.split("id=\"judged\"").nth(1).unwrap();
        section.split("</section>").next().unwrap().to_owned()
    };
    let (with, without) = (page(1), page(0));
    assert!(with.contains("<table") && !with.contains("<details open>"), "{with}");
    assert!(!without.contains("<table"), "{without}");
    assert!(without.contains("<details open>") && without.contains("a note"), "{without}");
}

#[test]
fn runs_of_which_numbers_are_not_looked_up_say_so() {
    let page =
        |judged_from| with(Site { judged_from, ..SMALL.site() }).render("runs.html").unwrap();
    assert!(page(10).contains("Of the oldest 10 runs the verdict is that of their cells alone"));
    assert!(page(1).contains("Of the oldest run the verdict is that of its cells alone"));
    assert!(!page(0).contains("alone"));
}

/// What a tag of this class has around it, without tags.
fn texts<'a>(page: &'a str, begins: &str) -> Vec<&'a str> {
    page.split(begins).skip(1).map(|rest| rest.split('<').next().unwrap_or(rest)).collect()
}

fn result(cell: usize, outcome: Outcome, checks: Option<&[(&str, [u32; 3])]>) -> CellResult {
    let one = |(name, [held, broken, unjudged]): &(&str, [u32; 3])| Checked {
        name: (*name).into(),
        held: *held,
        broken: *broken,
        unjudged: *unjudged,
    };
    let all = checks.unwrap_or_default();
    let broken = all.iter().filter(|(_, [_, broken, _])| *broken > 0);
    CellResult {
        cell,
        outcome,
        kernel: "".into(),
        broken: broken.map(|(name, _)| (*name).into()).collect(),
        checks: checks.map(|all| all.iter().map(one).collect()),
    }
}

fn one_case(kernels: &[&str], results: Vec<CellResult>) -> String {
    let cell =
        |kernel: &&str| Cell { case: "smoke".into(), kernel: (*kernel).into(), ..Cell::default() };
    let site = Site {
        cells: kernels.iter().map(cell).collect(),
        runs: vec![Run { id: "r".into(), results, ..Run::default() }],
        ..Site::default()
    };
    with(site).render("index.html").unwrap()
}

#[test]
fn what_was_never_judged_does_not_look_like_what_held() {
    let page = one_case(
        &["a", "b", "c", "d"],
        vec![
            result(0, Outcome::Passed, Some(&[("psi", [1, 0, 0]), ("coherence", [0, 0, 1])])),
            result(1, Outcome::Failed, Some(&[("psi", [2, 1, 0]), ("coherence", [1, 0, 0])])),
            result(2, Outcome::Skipped, Some(&[])),
            result(3, Outcome::TimedOut, None),
        ],
    );
    // Kernels in their order: check by check, and by kinds of checks.
    for (class, counts, marks) in [
        ("ch", vec!["\u{2713} 1", "\u{2713} 1"], 2),
        ("cu", vec!["? 1"], 1),
        ("cn", vec!["\u{b7}"; 4], 4),
        ("cb", vec![""], 1),
    ] {
        assert_eq!(texts(&page, &format!("<td class=\"{class}\">")), counts, "{class}: {page}");
        assert_eq!(texts(&page, &format!("<i class=\"{class}\" title=\"")).len(), marks, "{class}");
    }
    assert!(
        page.contains("\u{2717} 1/3</a>") && page.contains("<details class=\"case failed\" open>")
    );
    assert!(page.contains("1 of 2 checks did not hold: psi"), "{page}");
    assert!(page.contains(", could not be judged: mappings"), "{page}");
    assert!(page.contains("somewhere not judged: coherence"), "{page}");
    assert!(!page.contains("an older dmarig"));
}

#[test]
fn of_what_an_older_history_kept_nothing_is_said_to_have_held() {
    let mut failed = result(1, Outcome::Failed, None);
    failed.broken.push("warning".into());
    let page = one_case(&["a", "b"], vec![result(0, Outcome::Passed, None), failed]);
    assert!(!page.contains("<td class=\"ch\">") && page.contains("\u{2717} 1/1</a>"), "{page}");
    assert!(page.contains("Of 2 cells is only known what did not hold"), "{page}");
}

/// Ten cases on eight kernels, each cell with twenty-five checks of which some do not hold.
#[test]
fn a_large_matrix_stays_small() {
    let kinds = ["psi", "stale", "attack", "warning", "device-iotlb"];
    let names: Vec<String> =
        (0..25).map(|at| format!("{}-check-number-{at}", kinds[at % 5])).collect();
    let checks: Vec<(&str, [u32; 3])> = names.iter().map(|name| (&**name, [1, 1, 0])).collect();
    let mut site = Site { runs: vec![Run::default()], ..Site::default() };
    for at in 0..80 {
        let (case, kernel) = (format!("case-number-{}", at / 8), format!("debian-6.{}", at % 8));
        site.cells.push(Cell { case, kernel, ..Cell::default() });
        site.runs[0].results.push(result(at, Outcome::Failed, Some(&checks)));
    }
    let size = with(site).render("index.html").unwrap().len();
    assert!(size < 300_000, "{size} bytes");
}

#[test]
fn a_year_stays_small() {
    let dashboard = YEAR.dashboard();
    for (path, most) in
        [("index.html", 300_000), ("series.html", 450_000), ("data/series.js", 100_000)]
    {
        let size = dashboard.render(path).unwrap().len();
        assert!(size < most, "{path} has {size} bytes");
    }
}

/// Most of a night's series are counts that are the same every night.
#[test]
fn series_that_never_moved_are_told_in_short() {
    let demo = Demo { nights: 80, series: 700, ..SMALL };
    let site = demo.site();
    let still = |series: &Series| {
        series.changes.is_empty()
            && series.points.windows(2).all(|two| two[0].value == two[1].value)
    };
    let count = site.series.iter().filter(|series| still(series)).count();
    let dashboard = with(site);
    let page = |path: &str| dashboard.render(path).expect(path);
    let list = page("series.html");
    assert!(list.contains(&format!("{count} series never moved")), "of {count}");
    assert_eq!(list.matches("href=\"series/").count(), 700 - count);
    let paths = dashboard.paths().into_iter().filter(|path| path.starts_with("series/"));
    let pages: Vec<String> = paths.map(|path| page(&path)).collect();
    let with =
        |rows: usize| pages.iter().filter(move |page| page.matches("<tr data-t=").count() == rows);
    assert_eq!((with(60).count(), with(80).count()), (count, 700 - count));
    assert!(with(60).all(|page| page.contains("All 80 are alike; the newest 60")));
}
