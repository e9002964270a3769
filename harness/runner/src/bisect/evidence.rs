//! From cells that ended to the evidence about a revision. All outcomes of cells are distinguished
//! here, once.

use std::collections::BTreeSet;

use dmarig_bisect::{Evidence, JudgeError, SkipCause};
use dmarig_model::{
    axes::Axis,
    matrix::Cell,
    metrics::{EVIDENCE_OF_PASSED_CELLS, unit_of},
    observation::{End, Observation, Outcome},
    text::shown,
};

use super::guests::RecordedCells;
use crate::schedule::FinishedCell;

/// The check that a guest which came up does not go down.
const CRASH: &str = "crash";

/// The check that a guest which came up ends in time.
const TIME: &str = "time-out";

/// Lines of evidence of one check.
const LINES: usize = 3;

/// What one cell shows.
enum Shown {
    Checks,
    /// It is none for that kernel.
    Skipped(SkipCause),
    SkipCause(SkipCause),
}

/// What is seen of a revision, by these cells; those checks alone where some are named.
pub(super) fn evidence(ran: &RecordedCells, only: &[String]) -> Result<Evidence, JudgeError> {
    let mut seen = Evidence { record: Some(ran.record.clone()), ..Evidence::default() };
    let mut obstacles = Vec::new();
    // One QEMU for all is no part of a name.
    let first = ran.cells.first().map(|ended| &ended.cell.axes.qemu);
    let qemus = ran.cells.iter().any(|ended| Some(&ended.cell.axes.qemu) != first);
    for ended in &ran.cells {
        match one(ended, &key(&ended.cell, qemus), only, &mut seen)? {
            Shown::Checks => {}
            Shown::Skipped(obstacle) => obstacles.push(obstacle),
            Shown::SkipCause(obstacle) => {
                seen.unclear.get_or_insert_with(|| obstacle.clone());
                obstacles.push(obstacle);
            }
        }
    }
    // A check that stands twice in a cell (one for each attack) held where all did.
    seen.held = seen.held.difference(&seen.failed).cloned().collect();
    let nothing = seen.failed.is_empty() && seen.held.is_empty() && obstacles.is_empty();
    if !only.is_empty() && nothing && !ran.cells.is_empty() {
        let checks = ran.cells.iter().flat_map(|ended| &ended.result.checks);
        let known: BTreeSet<&str> = checks.map(|check| check.name.as_str()).collect();
        let known: Vec<&str> = known.into_iter().collect();
        let why =
            format!("none of --check {} was judged; {} were", only.join(", "), known.join(", "));
        seen.obstacle = Some(SkipCause::Unclear(shown(&why)));
    } else if obstacles.len() == ran.cells.len() {
        let none = SkipCause::Unclear("no cell ran".to_owned());
        seen.obstacle = Some(obstacles.into_iter().next().unwrap_or(none));
        seen.unclear = None;
    } else {
        seen.evidence.extend(obstacles.iter().map(SkipCause::told));
    }
    Ok(seen)
}

fn one(
    ended: &FinishedCell,
    key: &str,
    only: &[String],
    seen: &mut Evidence,
) -> Result<Shown, JudgeError> {
    let why = || shown(&ended.result.reasons.join("; "));
    let up = came_up(&ended.observation);
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    // One that ended early has none of the checks that are wanted instead.
    let mut fails = |name: &str| {
        if !wanted(name) {
            return Shown::SkipCause(SkipCause::Unclear(format!("{key}: {name}: {}", why())));
        }
        seen.failed.insert(format!("{key}: {name}"));
        seen.evidence.push(format!("{key}: {name}: {}", why()));
        if name == TIME {
            seen.clocked.insert(format!("{key}: {name}"));
        }
        Shown::Checks
    };
    match (ended.result.outcome, &ended.observation.end) {
        (_, End::Interrupted) => return Err(JudgeError::Interrupted),
        (Outcome::Skipped, _) => {
            return Ok(Shown::Skipped(SkipCause::Unclear(format!("{key} is skipped: {}", why()))));
        }
        // What the rig did not see of a guest that ran to its end may be that kernel's way; all else is
        // the host's.
        (Outcome::Errored, End::Completed) => {
            return Ok(Shown::SkipCause(SkipCause::Unclear(format!("{key}: {}", why()))));
        }
        (Outcome::Errored, _) => return Err(JudgeError::Host(format!("{key}: {}", why()))),
        (Outcome::TimedOut | Outcome::Failed, end) if *end != End::Completed && !up => {
            return Ok(Shown::SkipCause(SkipCause::Boot(why())));
        }
        (Outcome::TimedOut, _) => return Ok(fails(TIME)),
        (Outcome::Failed, end) if *end != End::Completed => return Ok(fails(CRASH)),
        (Outcome::Passed | Outcome::Failed, _) => {}
    }
    seen.held.extend(
        [CRASH, TIME].iter().filter(|name| wanted(name)).map(|name| format!("{key}: {name}")),
    );
    let mut told: BTreeSet<&str> = BTreeSet::new();
    for check in ended.result.checks.iter().filter(|check| wanted(&check.name)) {
        let name = format!("{key}: {}", check.name);
        let line = format!("{name}: {}, expected {}", check.found, check.expected);
        match check.held {
            Some(true) => {
                seen.held.insert(name);
            }
            // Not judged where it had to be: that is a failure, too.
            Some(false) => {
                if unit_of(&check.name).is_some_and(|unit| unit != "1") {
                    seen.clocked.insert(name.clone());
                }
                seen.failed.insert(name);
                seen.evidence.push(line);
                seen.evidence
                    .extend(check.evidence.iter().take(LINES).map(|line| format!("  {line}")));
            }
            None => {}
        }
        told.insert(&check.name);
    }
    if ended.result.outcome == Outcome::Passed {
        let checks = ended.result.checks.iter().filter(|check| {
            EVIDENCE_OF_PASSED_CELLS.contains(&&*check.name) && wanted(&check.name)
        });
        seen.evidence.extend(checks.map(|check| format!("{key}: {}: {}", check.name, check.found)));
    }
    Ok(Shown::Checks)
}

/// Whether a guest's kernel came as far as user space.
fn came_up(observation: &Observation) -> bool {
    observation.release.is_some()
}

/// A cell's name without the kernel, which differs from revision to revision, and with its QEMU where
/// there are several.
pub(super) fn key(cell: &Cell, qemus: bool) -> String {
    let told = |axis: &&Axis| **axis != Axis::Kernel && (qemus || **axis != Axis::Qemu);
    let axes = cell.varied.iter().filter(told);
    let words: Vec<String> =
        axes.map(|axis| format!("{axis}={}", axis.value(&cell.axes))).collect();
    match words.is_empty() {
        true => shown(&cell.case),
        false => shown(&format!("{}/{}", cell.case, words.join(","))),
    }
}

#[cfg(test)]
mod tests {
    use dmarig_model::{
        axes::Axes,
        document::{CellResult, ShownCheck},
        observation::{Setup, Verdict},
    };

    use super::*;

    fn ended(
        end: End,
        outcome: Outcome,
        up: bool,
        checks: &[(&str, Option<bool>)],
    ) -> FinishedCell {
        let axes = Axes { kernel: "x".into(), ..Axes::default() };
        let cell = Cell {
            id: "smoke/policy=lazy,kernel=x".into(),
            case: "smoke".into(),
            axes: axes.clone(),
            varied: vec![Axis::Policy, Axis::Kernel],
        };
        let mut observation =
            Observation::unseen(&cell.id, "smoke", &axes, Setup::unplanned(&axes), end);
        observation.release = up.then(|| "5.10.0".to_owned());
        let verdict = Verdict { outcome, reasons: vec!["because".into()], checks: Vec::new() };
        let mut result = CellResult::new(&observation, &verdict);
        result.checks = checks
            .iter()
            .map(|(name, held)| ShownCheck {
                name: (*name).into(),
                rule: "r".into(),
                expected: "e".into(),
                found: "f".into(),
                held: *held,
                evidence: vec!["line".into()],
            })
            .collect();
        FinishedCell { cell, observation, verdict, result }
    }

    fn of(ended: Vec<FinishedCell>, only: &[&str]) -> Result<Evidence, JudgeError> {
        let only: Vec<String> = only.iter().map(|only| (*only).to_owned()).collect();
        evidence(&RecordedCells { cells: ended, record: "r".into() }, &only)
    }

    fn names(set: &BTreeSet<String>) -> Vec<&str> {
        set.iter().map(|name| name.strip_prefix("smoke/policy=lazy: ").unwrap()).collect()
    }

    #[test]
    fn checks_are_told_by_cell_and_name() {
        let checks = [
            ("warning", Some(true)),
            ("psi", Some(false)),
            ("dsi", None),
            ("attack", Some(true)),
            ("attack", Some(false)),
        ];
        let seen = of(vec![ended(End::Completed, Outcome::Failed, true, &checks)], &[]).unwrap();
        assert_eq!(names(&seen.failed), ["attack", "psi"]);
        assert_eq!(names(&seen.held), ["crash", "time-out", "warning"]);
        assert_eq!(seen.obstacle, None);
        let seen =
            of(vec![ended(End::Completed, Outcome::Failed, true, &checks)], &["warning"]).unwrap();
        assert_eq!((names(&seen.failed), names(&seen.held)), (vec![], vec!["warning"]));
    }

    /// Each outcome with each end: what is the kernel's, what the revision's own trouble, what the host's.
    #[test]
    fn every_outcome_has_its_place() {
        let panic = || End::Panicked { message: "x".into() };
        let late =
            || End::TimedOut { waiting_for: "agent".into(), after_ms: 1, last: String::new() };
        let died = || End::QemuDied { status: "signal 11".into(), stderr: String::new() };
        for (end, outcome, up, told) in [
            (panic(), Outcome::Failed, false, "boot"),
            (late(), Outcome::TimedOut, false, "boot"),
            (End::WentDown { reason: "guest-reset".into() }, Outcome::Failed, false, "boot"),
            (panic(), Outcome::Failed, true, "fails crash"),
            (late(), Outcome::TimedOut, true, "fails time-out"),
            (End::AgentFailed { what: "x".into() }, Outcome::Failed, true, "fails crash"),
            (died(), Outcome::Errored, true, "host"),
            (died(), Outcome::Errored, false, "host"),
            (End::HostFault { what: "x".into() }, Outcome::Errored, false, "host"),
            (End::ChannelBroken { what: "x".into() }, Outcome::Errored, true, "host"),
            (End::Completed, Outcome::Errored, true, "unclear"),
            (End::Skipped { reason: "x".into() }, Outcome::Skipped, false, "unclear"),
            (End::Interrupted, Outcome::Errored, true, "interrupted"),
        ] {
            let name = format!("{end:?} {outcome:?} {up}");
            let got = match of(vec![ended(end, outcome, up, &[])], &[]) {
                Err(JudgeError::Host(_)) => "host".to_owned(),
                Err(JudgeError::Interrupted) => "interrupted".to_owned(),
                Ok(seen) => match seen.obstacle {
                    Some(SkipCause::Boot(_)) => "boot".to_owned(),
                    Some(SkipCause::Unclear(_)) => "unclear".to_owned(),
                    Some(SkipCause::Build(_)) => "build".to_owned(),
                    None => format!("fails {}", names(&seen.failed).join(" ")),
                },
            };
            assert_eq!(got, told, "{name}");
        }
    }

    #[test]
    fn what_a_clock_decides_is_told_apart() {
        let checks = [("elapsed", Some(false)), ("psi", Some(false)), ("latency-p50", Some(true))];
        let late = End::TimedOut { waiting_for: "x".into(), after_ms: 1, last: String::new() };
        for (seen, clocked) in [
            (ended(End::Completed, Outcome::Failed, true, &checks), vec!["elapsed"]),
            (ended(late, Outcome::TimedOut, true, &[]), vec!["time-out"]),
        ] {
            assert_eq!(names(&of(vec![seen], &[]).unwrap().clocked), clocked);
        }
    }

    /// Where one check alone is wanted, a guest that went down before it leaves it open: no other cell's
    /// good end makes that revision good.
    #[test]
    fn one_cell_that_goes_down_leaves_a_wanted_check_open() {
        let late = || End::TimedOut { waiting_for: "x".into(), after_ms: 1, last: String::new() };
        for (end, outcome, name) in [
            (End::Panicked { message: "x".into() }, Outcome::Failed, CRASH),
            (late(), Outcome::TimedOut, TIME),
        ] {
            let cells = |other: &[_]| {
                let passed = ended(End::Completed, Outcome::Passed, true, other);
                vec![ended(end.clone(), outcome, true, &[]), passed]
            };
            let seen = of(cells(&[("psi", Some(true))]), &["psi"]).unwrap();
            assert_eq!((names(&seen.held), seen.failed.len()), (vec!["psi"], 0));
            let unclear = seen.unclear.unwrap().told();
            assert!(unclear.contains(name) && unclear.contains("because"), "{unclear}");
            assert!(seen.clocked.is_empty());
            assert_eq!(names(&of(cells(&[]), &[name]).unwrap().failed), [name]);
        }
    }

    #[test]
    fn one_cell_that_does_not_boot_leaves_the_others_to_tell() {
        let cells = || {
            let boots = ended(End::Completed, Outcome::Failed, true, &[("psi", Some(false))]);
            vec![boots, ended(End::Panicked { message: "x".into() }, Outcome::Failed, false, &[])]
        };
        let seen = of(cells(), &[]).unwrap();
        assert_eq!((names(&seen.failed), seen.obstacle), (vec!["psi"], None));
        assert!(seen.evidence.iter().any(|line| line.contains("does not boot")));
        assert!(matches!(seen.unclear, Some(SkipCause::Boot(_))));
        // What is no cell of this kernel leaves nothing open.
        let skipped = End::Skipped { reason: "x".into() };
        let passed = ended(End::Completed, Outcome::Passed, true, &[("psi", Some(true))]);
        let seen = of(vec![passed, ended(skipped, Outcome::Skipped, false, &[])], &[]).unwrap();
        assert_eq!((seen.unclear, seen.obstacle), (None, None));
        assert_eq!(
            of(Vec::new(), &[]).unwrap().obstacle,
            Some(SkipCause::Unclear("no cell ran".into()))
        );
    }
}
