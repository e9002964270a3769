//! What the first page says of a night whose runs did not all go well, and of what was not found.

use dmarig_dashboard::{
    Alert, AlertState, Cell, CellResult, Dashboard, Run, RunDetails, Site, Subject,
};
use dmarig_model::observation::Outcome::{self, Errored, Failed, Passed, Skipped, TimedOut};

/// A run of the one night, whose cells ended so.
fn run(command: &str, outcomes: &[Outcome], not_run: usize) -> Run {
    let result = |(cell, outcome): (usize, &Outcome)| CellResult {
        cell,
        outcome: *outcome,
        kernel: "".into(),
        broken: Vec::new(),
        checks: None,
    };
    let results = outcomes.iter().enumerate().map(result).collect();
    Run { id: command.into(), command: command.into(), results, not_run, ..Run::default() }
}

fn dashboard(runs: &[Run], alerts: Vec<Alert>) -> Dashboard {
    let cell =
        |at| Cell { case: "smoke".into(), kernel: format!("k{}", at % 2), ..Cell::default() };
    let cells = (0..4).map(cell).collect();
    let site = Site { runs: runs.to_vec(), cells, alerts, ..Site::default() };
    Dashboard::new(site, Box::new(|_, _| RunDetails::default()))
}

/// The first page is in this state and has this headline.
#[track_caller]
fn told(runs: &[Run], state: &str, headline: &str) {
    let page = dashboard(runs, Vec::new()).render("index.html").unwrap();
    assert!(page.contains(&format!("<section class=\"hero {state}\">")), "{page:.3000}");
    let title = format!("<title>{headline} \u{b7} dmarig</title>");
    assert!(page.contains(&title) && page.contains(&format!("{headline}</h1>")), "{page:.3000}");
}

#[test]
fn a_run_that_ended_early_is_no_good_night() {
    let early = "a run ended early, 62 of 64 cells did not run";
    told(&[run("a", &[Passed, Passed], 62)], "errored", &format!("2 cells passed; {early}"));
    let headline = format!("1 cell passed, 1 skipped; {early}");
    told(&[run("a", &[Passed, Skipped], 62)], "errored", &headline);
    let headline = "Nothing ran; a run ended early, 3 of 3 cells did not run";
    told(&[run("a", &[], 3)], "errored", headline);
    // What failed is worse.
    let headline = format!("1 of 2 cells did not pass; {early}");
    told(&[run("a", &[Passed, Failed], 62)], "failed", &headline);
    let both = [run("a", &[Passed], 1), run("b", &[Passed], 2)];
    told(&both, "errored", "1 cell passed; 2 runs ended early, 3 cells did not run");
}

#[test]
fn what_was_run_again_to_its_end_has_not_ended_early() {
    let (early, whole) = (run("a", &[Passed], 2), run("a", &[Passed; 3], 0));
    told(&[early.clone(), whole.clone()], "passed", "All 3 cells passed");
    let headline = "3 cells passed; a run ended early, 2 of 3 cells did not run";
    told(&[whole, early.clone()], "errored", headline);
    told(&[early, run("b", &[Passed; 3], 0)], "errored", headline);
}

#[test]
fn a_run_that_ended_early_says_so_on_its_page_and_in_the_list() {
    let dashboard = dashboard(&[run("a", &[Passed, Skipped], 62)], Vec::new());
    let of_run = dashboard.paths().into_iter().find(|path| path.starts_with("runs/")).unwrap();
    for path in ["runs.html", &of_run] {
        let page = dashboard.render(path).unwrap();
        let early = "ended early, 62 of 64 cells did not run";
        assert!(page.contains(early) && page.contains("errored\">"), "{path}: {page}");
    }
    let nothing = self::dashboard(&[run("a", &[], 3)], Vec::new()).render("runs.html").unwrap();
    assert!(!nothing.contains("nothing ran") && nothing.contains("3 of 3 cells did not run"));
}

#[test]
fn what_went_wrong_first_is_told_though_it_passed_later() {
    let first = run("a", &[Failed, Errored, Errored, Passed], 0);
    let then = run("b", &[TimedOut], 0);
    let last = run("c", &[Passed; 4], 0);
    let headline = "All 4 cells passed, 1 failed first, 2 errored first";
    told(&[first.clone(), then, last], "passed", headline);
    // What did not pass in the end is told as that alone.
    told(
        &[first, run("c", &[Errored, Passed], 0)],
        "errored",
        "2 of 4 cells did not pass, 1 errored first",
    );
    told(&[run("a", &[Passed], 0), run("b", &[Failed], 0)], "failed", "1 of 1 cell did not pass");
}

#[test]
fn where_no_change_was_found_none_has_been_looked_at() {
    let alert = |state| Alert {
        id: String::new(),
        state,
        subject: Subject::Cell(0),
        what: String::new(),
        until: None,
        last_good: None,
        first_bad: None,
        good_kernel: String::new(),
        bad_kernel: String::new(),
        note: String::new(),
    };
    let page = |alerts| dashboard(&[run("a", &[Passed], 0)], alerts).render("index.html").unwrap();
    let looked_at = "every change that was found has been looked at";
    for alerts in [vec![], vec![alert(AlertState::Improved)]] {
        let page = page(alerts);
        assert!(page.contains("None was found.") && !page.contains(looked_at), "{page:.9000}");
    }
    let page = page(vec![alert(AlertState::Invalid), alert(AlertState::Improved)]);
    assert!(page.contains(looked_at) && !page.contains("None was found."), "{page:.9000}");
}

#[test]
fn a_matrix_of_several_kernels_says_that_it_scrolls() {
    let page = |count| dashboard(&[run("a", &[Passed].repeat(count), 0)], Vec::new());
    let page = |count| page(count).render("index.html").unwrap();
    assert!(page(2).contains("There are 2 kernels: the table scrolls sideways."));
    assert!(!page(1).contains("scrolls sideways"));
}
