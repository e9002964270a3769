//! Cells that fail, from their first night on or from a later one, on machines that are kept up to date.

use dmarig_history::{Alert, AlertKind, AlertState, History, RunEntry};
use dmarig_model::observation::Outcome::{self, Errored, Failed, Passed, TimedOut};
use dmarig_records::Environment;

use crate::fixtures::{cell, environment, run};

/// The usual machine with another kernel of its own.
fn upgraded(version: u32) -> Environment {
    Environment { host_kernel: format!("6.12.{version}"), ..environment("EPYC") }
}

/// A night in which one cell ended so, there.
fn night(day: u32, environment: Environment, outcome: Outcome) -> RunEntry {
    let cell = dmarig_history::CellEntry { environment, ..cell(0, "mine", outcome) };
    RunEntry { cells: vec![cell], points: Vec::new(), ..run(day, 1.0) }
}

/// Nights from day 0 on: the version of the host's kernel, and how the cell ended.
fn nights(all: &[(u32, Outcome)]) -> Vec<RunEntry> {
    let nights = (0..).zip(all);
    nights.map(|(day, (version, outcome))| night(day, upgraded(*version), *outcome)).collect()
}

struct CellKey {
    history: History,
    _directory: tempfile::TempDir,
}

fn place_of(runs: &[RunEntry]) -> CellKey {
    let directory = tempfile::tempdir().unwrap();
    let mut history = History::create(&directory.path().join("history.sqlite")).unwrap();
    history.insert_runs(runs).unwrap();
    CellKey { history, _directory: directory }
}

/// Where alerts begin and end, oldest first: last good day, first bad day, first day that was good again,
/// and what is thought of them.
fn told(history: &mut History) -> Vec<(Option<u32>, u32, Option<u32>, AlertState)> {
    let day = |run: &str| run[9..15].parse::<u32>().unwrap();
    let mut alerts = history.alerts().unwrap();
    alerts.reverse();
    let told = |alert: &Alert| {
        let good = alert.last_good.as_ref().map(|mark| day(&mark.run));
        let until = alert.until.as_ref().map(|mark| day(&mark.run));
        (good, day(&alert.first_bad.run), until, alert.state)
    };
    alerts.iter().map(told).collect()
}

#[track_caller]
fn check(all: &[(u32, Outcome)], expected: &[(Option<u32>, u32, Option<u32>, AlertState)]) {
    assert_eq!(told(&mut place_of(&nights(all)).history), expected, "{all:?}");
}

#[test]
fn reports_a_failure_until_the_cell_passes() {
    use AlertState::{Fixed, New};
    let nights: Vec<(u32, Outcome)> =
        [Failed, Passed, Errored, Failed, Failed, Passed, TimedOut].map(|how| (1, how)).into();
    check(
        &nights,
        &[(None, 0, Some(1), Fixed), (Some(1), 3, Some(5), Fixed), (Some(5), 6, None, New)],
    );
    check(&[(1, Errored), (1, Passed), (1, Errored)], &[]);
}

#[test]
fn reports_a_cell_that_never_passed() {
    for outcome in [Failed, TimedOut] {
        check(&[(1, outcome)], &[(None, 0, None, AlertState::New)]);
    }
    let mut place = place_of(&nights(&[(1, TimedOut)]));
    let alert = place.history.alerts().unwrap().remove(0);
    assert!(matches!(alert.what, AlertKind::Failure { timed_out: true, .. }));
    // What is said of it holds as it goes on failing.
    place.history.set_alert_state(&alert.id, AlertState::Confirmed, "", "me").unwrap();
    let later: Vec<RunEntry> = (1..4).map(|day| night(day, upgraded(1), TimedOut)).collect();
    place.history.insert_runs(&later).unwrap();
    assert_eq!(told(&mut place.history), [(None, 0, None, AlertState::Confirmed)]);
}

#[test]
fn keeps_states_when_older_runs_are_merged() {
    let all = nights(&[(1, Passed), (1, Failed), (1, Failed), (1, Failed)]);
    let mut place = place_of(&all[2..]);
    let id = place.history.alerts().unwrap()[0].id.clone();
    place.history.set_alert_state(&id, AlertState::Confirmed, "", "me").unwrap();
    place.history.insert_runs(&all).unwrap();
    assert_eq!(told(&mut place.history), [(Some(0), 1, None, AlertState::Confirmed)]);
    assert_eq!(place.history.alerts().unwrap()[0].id, id);
    place.history.set_alert_state(&id, AlertState::Invalid, "", "me").unwrap();
    assert_eq!(place.history.alerts().unwrap()[0].state, AlertState::Invalid);
}

#[test]
fn reports_a_failure_that_begins_with_an_upgrade() {
    let all = [(1, Passed), (1, Passed), (2, Failed), (2, Failed)];
    check(&all, &[(Some(1), 2, None, AlertState::New)]);
    let alert = place_of(&nights(&all)).history.alerts().unwrap().remove(0);
    let [own, good] = [upgraded(2), upgraded(1)];
    assert_eq!(alert.environment, own.fingerprint());
    assert_eq!(alert.last_good.unwrap().environment, good.fingerprint());
    assert_eq!(own.differences(&good), "host kernel 6.12.1");
}

#[test]
fn continues_a_failure_across_an_upgrade() {
    use AlertState::{Confirmed, Fixed, New};
    let all = nights(&[(1, Passed), (1, Failed), (2, Failed), (3, Failed), (1, Failed)]);
    for state in [None, Some(Confirmed), Some(AlertState::Invalid)] {
        let mut place = place_of(&all[..2]);
        let id = place.history.alerts().unwrap()[0].id.clone();
        if let Some(state) = state {
            place.history.set_alert_state(&id, state, "", "me").unwrap();
        }
        // ... and on one that is set back.
        for until in 2..=all.len() {
            place.history.insert_runs(&all[..until]).unwrap();
            assert_eq!(told(&mut place.history), [(Some(0), 1, None, state.unwrap_or(New))]);
            assert_eq!(place.history.alerts().unwrap()[0].id, id);
        }
    }
    // What was said to be fixed has come back.
    let mut place = place_of(&all[..2]);
    let id = place.history.alerts().unwrap()[0].id.clone();
    place.history.set_alert_state(&id, Fixed, "", "me").unwrap();
    place.history.insert_runs(&all[..3]).unwrap();
    assert_eq!(told(&mut place.history), [(Some(0), 1, None, Fixed), (Some(0), 2, None, New)]);
}

#[test]
fn reports_other_checks_after_an_upgrade() {
    use AlertState::{Confirmed, New};
    let mut all = nights(&[(1, Failed), (2, Failed), (3, Failed)]);
    let mut place = place_of(&all[..1]);
    let id = place.history.alerts().unwrap()[0].id.clone();
    place.history.set_alert_state(&id, Confirmed, "", "me").unwrap();
    all[1].cells[0].checks.push("log".into());
    all[2].cells[0].checks.push("log".into());
    place.history.insert_runs(&all).unwrap();
    assert_eq!(told(&mut place.history), [(None, 0, None, Confirmed), (None, 1, None, New)]);
}

#[test]
fn ends_a_failure_that_passes_after_an_upgrade() {
    use AlertState::{Fixed, New};
    check(&[(1, Passed), (1, Failed), (2, Passed)], &[(Some(0), 1, Some(2), Fixed)]);
    check(&[(1, Failed), (2, Failed), (2, Passed)], &[(None, 0, Some(2), Fixed)]);
    check(
        &[(1, Failed), (2, Passed), (2, Failed)],
        &[(None, 0, Some(1), Fixed), (Some(1), 2, None, New)],
    );
}

/// Two QEMUs that run each night are no upgrade.
#[test]
fn keeps_concurrent_environments_apart() {
    use AlertState::{Confirmed, Fixed, New};
    let all = [(1, Failed), (2, Passed), (1, Failed), (2, Passed)];
    check(&all, &[(None, 0, None, New)]);
    // One of them is mended; the other one's failure was told by its alert until then.
    let all = nights(&[(1, Failed), (2, Failed), (1, Passed), (2, Failed)]);
    let mut place = place_of(&all[..2]);
    let id = place.history.alerts().unwrap()[0].id.clone();
    place.history.set_alert_state(&id, Confirmed, "", "me").unwrap();
    assert_eq!(told(&mut place.history), [(None, 0, None, Confirmed)]);
    place.history.insert_runs(&all).unwrap();
    assert_eq!(
        told(&mut place.history),
        [(None, 0, Some(2), Confirmed), (None, 1, None, Confirmed)]
    );
    // What is said of it from now on is its own.
    let other = place.history.alerts().unwrap()[0].id.clone();
    place.history.set_alert_state(&other, Fixed, "", "me").unwrap();
    assert_eq!(told(&mut place.history)[0].3, Confirmed);
    assert_eq!(told(&mut place.history)[1].3, Fixed);
}

#[test]
fn keeps_machines_apart() {
    use AlertState::{Confirmed, New};
    let mut place = place_of(&[
        night(0, environment("EPYC"), Passed),
        night(1, environment("EPYC"), Failed),
        night(2, environment("Xeon"), Failed),
    ]);
    assert_eq!(told(&mut place.history), [(Some(0), 1, None, New), (None, 2, None, New)]);
    let ours = place.history.alerts().unwrap()[1].id.clone();
    place.history.set_alert_state(&ours, Confirmed, "", "me").unwrap();
    place.history.insert_runs(&[night(3, environment("Xeon"), Passed)]).unwrap();
    assert_eq!(
        told(&mut place.history),
        [(Some(0), 1, None, Confirmed), (None, 2, Some(3), AlertState::Fixed)]
    );
    // Of machines that are not known it is not known whether they are one.
    let unknown = |version: &str| Environment { host_kernel: version.into(), ..environment("") };
    let runs = [night(0, unknown("1"), Passed), night(1, unknown("2"), Failed)];
    assert_eq!(told(&mut place_of(&runs).history), [(None, 1, None, New)]);
}

#[test]
fn fixes_alerts_that_were_set_to_new() {
    let all = nights(&[(1, Failed), (1, Passed)]);
    let mut place = place_of(&all[..1]);
    let id = place.history.alerts().unwrap()[0].id.clone();
    for state in [AlertState::Confirmed, AlertState::New] {
        place.history.set_alert_state(&id, state, "", "me").unwrap();
    }
    place.history.insert_runs(&all).unwrap();
    assert_eq!(told(&mut place.history), [(None, 0, Some(1), AlertState::Fixed)]);
}

/// As they were before first failures were alerts, so that what was said then is of them still.
#[test]
fn alerts_keep_their_ids() {
    let mut place = place_of(&nights(&[(1, Failed), (1, Passed), (1, Failed)]));
    let alert = place.history.alerts().unwrap().remove(0);
    assert_eq!(alert.id, "09298b011843");
    let file = place.history.events_file();
    let event = format!(
        "{{\"schema\":1,\"id\":\"1f8fbe2c-0d50-4b41-9d3e-6f1f6c1c5a11\",\"time\":1,\
         \"subject\":\"5e2065678497b3d9a904\",\"run\":\"{}\",\"state\":\"confirmed\",\"note\":\"\",\
         \"author\":\"me\"}}\n",
        alert.first_bad.run
    );
    std::fs::write(&file, event).unwrap();
    let mut again = History::open(place.history.path()).unwrap();
    assert_eq!(again.alerts().unwrap()[0].state, AlertState::Confirmed);
}
