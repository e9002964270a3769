//! What is told of several machines, of one that was changed, and of runs at a desk after a night.

use dmarig_dashboard::{
    Cell, CellResult, Dashboard, Environment, Point, Run, RunDetails, Series, Site, Sweep,
};
use dmarig_model::observation::Outcome::{self, Failed, Passed};

/// Environments, each with its host's kernel; the first two are of one machine.
const ENVIRONMENTS: [(&str, &str); 3] = [("A", "6.1"), ("A", "6.2"), ("B", "6.1")];
const CELLS: usize = 10;

/// A run so many hours after the first one, of the first cells of an environment.
fn run(hours: i64, environment: usize, outcomes: &[Outcome]) -> Run {
    let result = |(at, outcome): (usize, &Outcome)| CellResult {
        cell: environment * CELLS + at,
        outcome: *outcome,
        kernel: "".into(),
        broken: Vec::new(),
        checks: None,
    };
    Run {
        id: format!("{hours}-{environment}"),
        started: hours * 3600,
        machine: ENVIRONMENTS[environment].0.into(),
        results: outcomes.iter().enumerate().map(result).collect(),
        ..Run::default()
    }
}

fn site(runs: &[Run]) -> Site {
    let cell = |at: usize| Cell {
        id: format!("smoke/{}", at % CELLS),
        case: "smoke".into(),
        kernel: "linux".into(),
        variant: format!("number={}", at % CELLS),
        environment: at / CELLS,
    };
    let environment = |(machine, kernel): (&str, &str)| Environment {
        key: format!("{machine} {kernel}"),
        name: format!("{machine} with {kernel}"),
        facts: [("cpu", machine), ("host kernel", kernel)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
    };
    Site {
        runs: runs.to_vec(),
        environments: ENVIRONMENTS.map(environment).into(),
        cells: (0..CELLS * ENVIRONMENTS.len()).map(cell).collect(),
        ..Site::default()
    }
}

fn page(site: Site, path: &str) -> String {
    let dashboard = Dashboard::new(site, Box::new(|_, _| RunDetails::default()));
    let found = dashboard.paths().into_iter().find(|known| known.starts_with(path));
    dashboard.render(&found.unwrap()).unwrap()
}

fn first_page(runs: &[Run]) -> String {
    page(site(runs), "index.html")
}

/// What stands in a section of a page.
#[track_caller]
fn section<'a>(page: &'a str, name: &str) -> &'a str {
    let from = page.split(&format!("<section aria-labelledby=\"{name}\">")).nth(1);
    let from = from.unwrap_or_else(|| panic!("no section {name} in {page}"));
    from.split("</section>").next().unwrap_or(from)
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
}

#[test]
fn what_failed_on_one_machine_did_not_pass_because_another_ran_it() {
    let mut outcomes = [Passed; CELLS];
    outcomes[3] = Failed;
    let (bad, good) = (run(24, 0, &outcomes), run(25, 2, &[Passed; CELLS]));
    let page = first_page(&[bad, good]);
    has(&page, &["<section class=\"hero failed\">", "1 of 20 cells did not pass</h1>"]);
    let machines = section(&page, "machines");
    has(machines, &["A with 6.1", "B with 6.1", "10 cells passed", "9 cells passed"]);
    let health = section(&page, "health");
    has(health, &["title=\"1 of 20 cells failed\"", ">on A with 6.1</small>"]);
    // The tile leads to the run that shows it, which is not the newest.
    let tile = health.split("<a class=\"failed\" href=\"").nth(1).unwrap();
    assert!(tile.starts_with("runs/24-0-"), "{tile:.200}");
    // Of one machine there is nothing to be told from others.
    let page = first_page(&[run(24, 0, &outcomes)]);
    assert!(!page.contains("A with 6.1") && page.contains("1 of 10 cells"), "{page}");
}

#[test]
fn a_cell_is_held_against_itself_on_the_same_machine() {
    let mut outcomes = [Passed; CELLS];
    let bad = [Failed; 1];
    let night = |hours, outcomes: &[Outcome]| {
        [run(hours, 0, outcomes), run(hours + 1, 2, &[Passed; CELLS])]
    };
    let before = night(0, &outcomes);
    outcomes[0] = Failed;
    let page = first_page(&[before.clone(), night(24, &outcomes)].concat());
    let turned = section(&page, "turned");
    assert_eq!(turned.matches("<tr>").count(), 2, "{turned}");
    has(turned, &["number=0", "passed</span>", "failed</span>"]);
    // Nothing is said of what is the same, and a machine that is away is told in a sentence.
    let page = first_page(&[&before[..], &night(24, &[Passed; CELLS])].concat());
    has(section(&page, "turned"), &["No verdict turned."]);
    let page = first_page(&[&before[..], &[run(24, 0, &[Passed; CELLS])]].concat());
    let turned = section(&page, "turned");
    has(
        turned,
        &["10 cells ran the night before on a machine that has run nothing since: B with 6.1."],
    );
    has(turned, &["No verdict turned."]);
    // What is new and fails is told all the same.
    let page =
        first_page(&[run(0, 0, &[Passed; CELLS]), run(24, 0, &[Passed; CELLS]), run(25, 2, &bad)]);
    has(section(&page, "turned"), &["not there", "failed</span>"]);
}

#[test]
fn a_cell_of_a_machine_that_was_changed_is_held_against_what_it_was() {
    let mut outcomes = [Passed; CELLS];
    outcomes[9] = Failed;
    let changed =
        "10 cells ran in another environment the night before: host kernel 6.1 \u{2192} 6.2.";
    let before = run(0, 0, &[Passed; CELLS]);
    let page = first_page(&[before.clone(), run(24, 1, &[Passed; CELLS])]);
    has(section(&page, "turned"), &[changed, "No verdict turned."]);
    let page = first_page(&[before.clone(), run(24, 1, &outcomes)]);
    let turned = section(&page, "turned");
    has(turned, &[changed, "number=9", "A with 6.2 (changed)", "failed</span>"]);
    assert_eq!(turned.matches("<tr>").count(), 2, "{turned}");
    // A machine in place of another.
    let page = first_page(&[before.clone(), run(24, 2, &outcomes)]);
    let changed = "10 cells ran in another environment the night before: cpu A \u{2192} B.";
    has(section(&page, "turned"), &[changed, "number=9"]);
    // On a run's own page as well.
    let own = self::page(site(&[before, run(24, 1, &outcomes)]), "runs/24-1");
    has(section(&own, "since"), &["host kernel 6.1 \u{2192} 6.2", "number=9", "(changed)"]);
}

#[test]
fn the_page_of_a_run_on_one_of_two_machines_leaves_the_other_out() {
    let night = |hours| [run(hours, 0, &[Passed; CELLS]), run(hours + 1, 2, &[Passed; CELLS])];
    let page = page(site(&[night(0), night(24)].concat()), "runs/24-0");
    let since = section(&page, "since");
    assert!(since.contains("No verdict turned.") && !since.contains("has run nothing"), "{since}");
}

#[test]
fn a_run_that_was_killed_is_not_made_good_by_another_machine() {
    let cut = Run { not_run: 4, ..run(24, 0, &[Passed; 6]) };
    let page = first_page(&[cut, run(25, 2, &[Passed; CELLS])]);
    has(&page, &["16 cells passed; a run ended early, 4 of 10 cells did not run</h1>"]);
}

#[test]
fn a_run_at_a_desk_does_not_stand_for_the_night() {
    let night = run(0, 0, &[Passed; CELLS]);
    let page = first_page(&[night.clone(), run(13, 0, &[Passed])]);
    has(&page, &["All 10 cells passed</h1>", "Since then", "a run of 1 cell</a> (passed, "]);
    // It takes the place of what it ran again, and of that alone.
    let page = first_page(&[night.clone(), run(13, 0, &[Failed])]);
    has(&page, &["1 of 10 cells did not pass</h1>", "a run of 1 cell</a> (failed, "]);
    assert!(!page.contains("id=\"turned\""), "{page}");
    // A whole night is one, however soon it comes, and is held against the last one.
    let page = first_page(&[night, run(60, 0, &[Passed]), run(96, 0, &[Passed; CELLS])]);
    has(&page, &["All 10 cells passed</h1>", "verdicts that turned since 1970-01-01"]);
    assert!(!page.contains("Since then") && !page.contains("not there"), "{page}");
}

/// A site of so many nights whose series has a point in each, and of another whose points are in the last ones.
fn numbers(nights: usize, later: usize) -> Site {
    let runs: Vec<Run> = (0..nights).map(|at| run(24 * at as i64, 0, &[Passed])).collect();
    let point = |run| Point { run, value: 1.0, samples: 1, kernel: "".into() };
    let series = |key: &str, from| Series {
        key: key.into(),
        points: (from..nights).map(point).collect(),
        ..Series::default()
    };
    Site { series: vec![series("a", 0), series("b", nights - later)], ..site(&runs) }
}

#[test]
fn only_a_number_that_has_a_level_lies_within_its_noise() {
    let within = "Every number lies within its noise.";
    for (nights, later, expected) in [
        (1, 1, "None of 2 numbers has a level yet"),
        (5, 5, within),
        (
            5,
            1,
            "Every number that has a level lies within its noise; 1 of 2 numbers have no level yet",
        ),
        (1, 0, "The only number has no level yet"),
    ] {
        let first = page(numbers(nights, later), "index.html");
        let moved = section(&first, "moved");
        assert!(moved.contains(expected), "{expected}: {moved}");
        assert_eq!(moved.contains(within), expected == within, "{moved}");
    }
    let page = first_page(&[run(0, 0, &[Passed])]);
    has(section(&page, "moved"), &["There are no numbers."]);
}

#[test]
fn noise_of_too_few_points_is_not_told_to_the_script() {
    let data = page(numbers(5, 2), "data/series.js");
    has(&data, &["\"least\":4", "[\"\",\" \",\"\",\"\",0,0.0,\"series/a-", "0,null,\"series/b-"]);
}

#[test]
fn each_environment_has_its_own_sweep() {
    let sweep = |environment| {
        let (case, label) = ("sweep".into(), String::new());
        let cells = dmarig_model::sweep::Sweep { case, label, points: Vec::new() };
        Sweep { title: "sweep".into(), run: 0, environment, cells }
    };
    let sweeps = |environments: &[usize]| {
        let sweeps = environments.iter().map(|at| sweep(*at)).collect();
        page(Site { sweeps, ..site(&[]) }, "sweeps.html")
    };
    let page = sweeps(&[0, 2]);
    has(&page, &["A with 6.1", "B with 6.1", "sweeps/sweep-a-6.1-", "sweeps/sweep-b-6.1-"]);
    assert!(!sweeps(&[0]).contains("A with 6.1"));
}
