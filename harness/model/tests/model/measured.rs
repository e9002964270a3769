//! What was measured against the bounds of a case: on one cell, beside another, over a sweep.

use dmarig_model::{
    axes::{Accelerator, Policy::Strict, Toggle::On},
    case::Case,
    judge::{Interval, judge, judge_ratios},
    observation::{Check, Observation, Outcome, WindowKind},
};

use crate::{
    judge::{guest, sound},
    seen::{Guest, report},
};

/// A case that also times, with these rules.
fn timing(rules: &str) -> Case {
    let text = format!(
        "case: made-up\naxes: {{caching-mode: [off, on], policy: [lazy, strict]}}\nworkload: {{block: {{}}}}\nwindows: {{time: 4}}\nexpect:\n{rules}"
    );
    Case::parse("made-up.yaml", &text).unwrap()
}

/// The observation with timing windows of these lengths.
fn timed(guest: &Guest, seconds: [u64; 4]) -> Observation {
    let mut seen = guest.observe();
    for seconds in seconds {
        let mut window = seen.windows[0].clone();
        window.kind = WindowKind::Timing;
        (window.trace, window.dma) = (None, None);
        window.report = report();
        window.report.elapsed_ns = seconds * 1_000_000_000;
        seen.windows.push(window);
    }
    seen
}

#[test]
fn bounds_are_judged_on_their_accelerators_alone() {
    let case = timing(
        "  - {name: fast, bounds: [{metric: iops, min: 300, unit: 1/s, accelerators: kvm}]}\n",
    );
    let slow = timed(&sound(), [2; 4]);
    assert_eq!(judge(&case, &slow).outcome, Outcome::Passed);
    let on_kvm = |mut seen: Observation| {
        seen.setup.accelerator = Accelerator::Kvm;
        judge(&case, &seen)
    };
    assert_eq!(on_kvm(slow).reasons, ["iops: 200 1/s, expected at least 300 1/s"]);
    assert_eq!(on_kvm(timed(&sound(), [1; 4])).outcome, Outcome::Passed);
    assert_eq!(on_kvm(timed(&sound(), [0, 1, 1, 1])).outcome, Outcome::Errored);
}

#[test]
fn of_bounds_on_a_metric_the_last_decides() {
    let bound = |name: &str, when: &str, min: u32, on: &str| {
        format!(
            "  - {{name: {name}, when: {{{when}}}, bounds: [{{metric: iops, min: {min}, accelerators: {on}}}]}}\n"
        )
    };
    let fast = bound("fast", "", 300, "[kvm, tcg]");
    let judged = |rules: &[&str]| {
        let verdict = judge(&timing(&rules.concat()), &timed(&sound(), [2; 4]));
        let checks = verdict.checks.into_iter().filter(|check| check.name == "iops");
        checks.map(|check| (check.rule, check.held)).collect::<Vec<_>>()
    };
    let told = |rule: &str, held| vec![(rule.to_owned(), held)];
    assert_eq!(judged(&[&fast]), told("fast", Some(false)));
    let looser = bound("looser", "kernel-version: '<6.2'", 100, "tcg");
    assert_eq!(judged(&[&fast, &looser]), told("looser", Some(true)));
    assert_eq!(judged(&[&looser, &fast]), told("fast", Some(false)));
    // Neither one for other kernels nor one for another accelerator takes it back.
    let others = bound("others", "kernel-version: '>=6.2'", 100, "tcg");
    let elsewhere = bound("elsewhere", "", 100, "kvm");
    assert_eq!(judged(&[&fast, &others]), told("fast", Some(false)));
    assert_eq!(judged(&[&fast, &elsewhere]), told("fast", Some(false)));
    assert_eq!(judged(&[&elsewhere]), told("elsewhere", None));
}

/// The ratios of these cells, as far apart as any two of their samples are.
fn ratios(case: &Case, cells: &[Observation]) -> Vec<(String, Check)> {
    let cells: Vec<&Observation> = cells.iter().collect();
    judge_ratios(case, &cells, &|ours, theirs| {
        let least = |of: &[f64]| of.iter().copied().reduce(f64::min);
        let most = |of: &[f64]| of.iter().copied().reduce(f64::max);
        let (low, high) = (least(ours)? / most(theirs)?, most(ours)? / least(theirs)?);
        (ours.len() >= 4).then_some(Interval { ratio: f64::midpoint(low, high), low, high })
    })
}

fn strict_beside() -> Observation {
    timed(&guest("6.1.176", On, Strict).warned(), [1; 4])
}

#[test]
fn ratios_compare_cells_of_one_run() {
    let case = timing(
        "  - {name: cost, when: {caching-mode: on, policy: lazy}, ratios: [{metric: elapsed, to: {policy: strict}, max: 1.5}]}\n",
    );
    let lazy = timed(&sound(), [2; 4]);
    let checks = ratios(&case, &[lazy.clone(), strict_beside()]);
    let [(cell, check)] = &*checks else { panic!("{checks:?}") };
    assert_eq!(*cell, lazy.cell);
    assert_eq!(
        (&*check.found, &*check.expected, check.held),
        ("2 (2 to 2)", "at most 1.5 to policy=strict", Some(false))
    );
    let mut verdict = judge(&case, &lazy);
    assert_eq!(verdict.outcome, Outcome::Passed);
    verdict.add(check.clone());
    assert_eq!(
        (verdict.outcome, &*verdict.reasons[0]),
        (Outcome::Failed, "elapsed-ratio: 2 (2 to 2), expected at most 1.5 to policy=strict")
    );
    // Without the other cell there is no verdict.
    let alone = ratios(&case, &[lazy]);
    assert_eq!(
        (alone[0].1.held, &*alone[0].1.found),
        (None, "that cell did not complete in this run")
    );
}

#[test]
fn a_ratio_of_times_is_judged_as_far_as_the_noise_lets_it_be() {
    let found = |bound: &str, seconds: [u64; 4]| {
        let ratio = format!("{{metric: elapsed, to: {{policy: strict}}, {bound}}}");
        let case = timing(&format!("  - {{name: cost, ratios: [{ratio}]}}\n"));
        let (_, check) =
            ratios(&case, &[timed(&sound(), seconds), strict_beside()]).into_iter().next().unwrap();
        (check.held, check.found)
    };
    let told = |held, found: &str| (held, found.to_owned());
    let noisy = [2, 3, 4, 4];
    assert_eq!(found("max: 1.9", noisy), told(Some(false), "3 (2 to 4)"));
    assert_eq!(found("max: 4", noisy), told(Some(true), "3 (2 to 4)"));
    // Most of them, and the median, are beyond it.
    assert_eq!(found("max: 2.5", noisy), told(None, "inconclusive: 3 (2 to 4)"));
    assert_eq!(found("min: 4.1", noisy), told(Some(false), "3 (2 to 4)"));
    assert_eq!(found("min: 2", noisy), told(Some(true), "3 (2 to 4)"));
    assert_eq!(found("min: 2.1, max: 9", noisy), told(None, "inconclusive: 3 (2 to 4)"));
    // What is inconclusive fails nothing.
    let case =
        timing("  - {name: cost, ratios: [{metric: elapsed, to: {policy: strict}, max: 2.5}]}\n");
    let lazy = timed(&sound(), noisy);
    let mut verdict = judge(&case, &lazy);
    verdict.add(ratios(&case, &[lazy.clone(), strict_beside()])[0].1.clone());
    assert_eq!((verdict.outcome, verdict.reasons.len()), (Outcome::Passed, 0));
    // Fewer samples than were asked for bound nothing.
    let mut short = lazy;
    short.windows.pop();
    let (_, check) = &ratios(&case, &[short, strict_beside()])[0];
    let few = "not judged: too few samples to bound the ratio, or not all above 0 (3 and 4)";
    assert_eq!((check.held, &*check.found), (None, few));
}

#[test]
fn a_ratio_of_counts_is_exact() {
    let case = timing(
        "  - {name: cost, when: {policy: lazy}, ratios: [{metric: psi, to: {policy: strict}, max: 0.99}]}\n",
    );
    let (lazy, strict) = (sound().observe(), guest("6.1.176", On, Strict).warned().observe());
    let never = |_: &[f64], _: &[f64]| -> Option<Interval> { panic!("a count has no noise") };
    let checks = judge_ratios(&case, &[&lazy, &strict], &never);
    assert_eq!((checks[0].1.held, &*checks[0].1.found), (Some(false), "1"));
}

#[test]
fn of_ratios_to_a_cell_the_last_decides() {
    let rule = |name: &str, when: &str, to: &str, max: u32| {
        format!(
            "  - {{name: {name}, when: {{policy: lazy, {when}}}, ratios: [{{metric: elapsed, to: {{{to}}}, max: {max}}}]}}\n"
        )
    };
    let judged = |rules: &[&str]| {
        let cells = [timed(&sound(), [2; 4]), strict_beside()];
        let checks = ratios(&timing(&rules.concat()), &cells).into_iter();
        checks.map(|(_, check)| (check.rule, check.held)).collect::<Vec<_>>()
    };
    let cost = rule("cost", "", "policy: strict", 1);
    let looser = rule("looser", "kernel-version: '<6.2'", "policy: strict", 3);
    let told = |rule: &str, held| (rule.to_owned(), held);
    assert_eq!(judged(&[&cost, &looser]), [told("looser", Some(true))]);
    assert_eq!(judged(&[&looser, &cost]), [told("cost", Some(false))]);
    // The same cell in other words.
    let same = rule("same", "caching-mode: on", "'policy': strict, caching-mode: on", 3);
    assert_eq!(judged(&[&cost, &same]), [told("same", Some(true))]);
    // One to another cell is another check.
    let other = rule("other", "", "caching-mode: off", 1);
    assert_eq!(judged(&[&cost, &other]), [told("cost", Some(false)), told("other", None)]);
}

#[test]
fn of_growths_of_a_metric_the_last_decides() {
    let rule = |name: &str, when: &str, most: &str| {
        format!(
            "  - {{name: {name}, when: {{{when}}}, growth: [{{metric: elapsed, max: {most}}}]}}\n"
        )
    };
    let judged = |rules: &[&str]| {
        let text = format!(
            "case: made-up\naxes: {{live-mappings: [0, 1000, 2000]}}\nworkload: {{block: {{}}}}\nwindows: {{time: 4}}\nexpect:\n{}",
            rules.concat()
        );
        let case = Case::parse("made-up.yaml", &text).unwrap();
        let cell = |(live, seconds)| {
            let mut seen = timed(&sound(), [seconds; 4]);
            seen.axes.live_mappings = live;
            seen.cell = format!("made-up/live-mappings={live}");
            seen
        };
        let cells = [(0, 1), (2000, 3), (1000, 2)].map(cell);
        let checks = ratios(&case, &cells).into_iter();
        checks.map(|(cell, check)| (cell, check.rule, check.held)).collect::<Vec<_>>()
    };
    let told = |rule: &str, held| {
        vec![("made-up/live-mappings=2000".to_owned(), rule.to_owned(), Some(held))]
    };
    let (flat, steep) = (rule("flat", "", "0.5e9"), rule("steep", "live-mappings: 0", "1e9"));
    assert_eq!(judged(&[&flat]), told("flat", false));
    // One that speaks of some of a sweep's cells speaks of the sweep.
    assert_eq!(judged(&[&flat, &steep]), told("steep", true));
    assert_eq!(judged(&[&steep, &flat]), told("flat", false));
}
