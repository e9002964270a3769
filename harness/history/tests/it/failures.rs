//! Alerts of cells that fail, on machines that are updated.

use dmarig_history::{Alert, AlertKind, AlertState, History, RunEntry};
use dmarig_model::observation::Outcome::{self, Errored, Failed, Passed, TimedOut};
use dmarig_records::Environment;

use crate::fixtures::{cell, environment, run};

/// The environment of a machine after an upgrade of its kernel.
fn upgraded(version: u32) -> Environment {
    Environment { host_kernel: format!("6.12.{version}"), ..environment("EPYC") }
}

/// A night with one cell in an environment.
fn night(day: u32, environment: Environment, outcome: Outcome) -> RunEntry {
    let cell = dmarig_history::CellEntry { environment, ..cell(0, "mine", outcome) };
    RunEntry { cells: vec![cell], points: Vec::new(), ..run(day, 1.0) }
}

/// Nights from day 0: the version of the host's kernel, and the outcome of the cell.
fn nights(all: &[(u32, Outcome)]) -> Vec<RunEntry> {
    let nights = (0..).zip(all);
    nights.map(|(day, (version, outcome))| night(day, upgraded(*version), *outcome)).collect()
}

struct TestHistory {
    history: History,
    _directory: tempfile::TempDir,
}

fn history_of(runs: &[RunEntry]) -> TestHistory {
    let directory = tempfile::tempdir().unwrap();
    let mut history = History::create(&directory.path().join("history.sqlite")).unwrap();
    history.insert_runs(runs).unwrap();
    TestHistory { history, _directory: directory }
}

/// All alerts, oldest first: last good day, first bad day, first good day after it, and state.
fn summaries(history: &mut History) -> Vec<(Option<u32>, u32, Option<u32>, AlertState)> {
    let day = |run: &str| run[9..15].parse::<u32>().unwrap();
    let mut alerts = history.alerts().unwrap();
    alerts.reverse();
    let summary = |alert: &Alert| {
        let good = alert.last_good.as_ref().map(|mark| day(&mark.run));
        let until = alert.until.as_ref().map(|mark| day(&mark.run));
        (good, day(&alert.first_bad.run), until, alert.state)
    };
    alerts.iter().map(summary).collect()
}

#[track_caller]
fn check(all: &[(u32, Outcome)], expected: &[(Option<u32>, u32, Option<u32>, AlertState)]) {
    assert_eq!(summaries(&mut history_of(&nights(all)).history), expected, "{all:?}");
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
    let mut test = history_of(&nights(&[(1, TimedOut)]));
    let alert = test.history.alerts().unwrap().remove(0);
    assert!(matches!(alert.what, AlertKind::Failure { timed_out: true, .. }));
    // The state holds while the cell keeps failing.
    test.history.set_alert_state(&alert.id, AlertState::Confirmed, "", "me").unwrap();
    let later: Vec<RunEntry> = (1..4).map(|day| night(day, upgraded(1), TimedOut)).collect();
    test.history.insert_runs(&later).unwrap();
    assert_eq!(summaries(&mut test.history), [(None, 0, None, AlertState::Confirmed)]);
}

#[test]
fn keeps_states_when_older_runs_are_merged() {
    let all = nights(&[(1, Passed), (1, Failed), (1, Failed), (1, Failed)]);
    let mut test = history_of(&all[2..]);
    let id = test.history.alerts().unwrap()[0].id.clone();
    test.history.set_alert_state(&id, AlertState::Confirmed, "", "me").unwrap();
    test.history.insert_runs(&all).unwrap();
    assert_eq!(summaries(&mut test.history), [(Some(0), 1, None, AlertState::Confirmed)]);
    assert_eq!(test.history.alerts().unwrap()[0].id, id);
    test.history.set_alert_state(&id, AlertState::Invalid, "", "me").unwrap();
    assert_eq!(test.history.alerts().unwrap()[0].state, AlertState::Invalid);
}

#[test]
fn reports_a_failure_that_begins_with_an_upgrade() {
    let all = [(1, Passed), (1, Passed), (2, Failed), (2, Failed)];
    check(&all, &[(Some(1), 2, None, AlertState::New)]);
    let alert = history_of(&nights(&all)).history.alerts().unwrap().remove(0);
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
        let mut test = history_of(&all[..2]);
        let id = test.history.alerts().unwrap()[0].id.clone();
        if let Some(state) = state {
            test.history.set_alert_state(&id, state, "", "me").unwrap();
        }
        // The last run is after a downgrade.
        for until in 2..=all.len() {
            test.history.insert_runs(&all[..until]).unwrap();
            assert_eq!(summaries(&mut test.history), [(Some(0), 1, None, state.unwrap_or(New))]);
            assert_eq!(test.history.alerts().unwrap()[0].id, id);
        }
    }
    // A failure that was marked as fixed has come back.
    let mut test = history_of(&all[..2]);
    let id = test.history.alerts().unwrap()[0].id.clone();
    test.history.set_alert_state(&id, Fixed, "", "me").unwrap();
    test.history.insert_runs(&all[..3]).unwrap();
    assert_eq!(summaries(&mut test.history), [(Some(0), 1, None, Fixed), (Some(0), 2, None, New)]);
}

#[test]
fn reports_other_checks_after_an_upgrade() {
    use AlertState::{Confirmed, New};
    let mut all = nights(&[(1, Failed), (2, Failed), (3, Failed)]);
    let mut test = history_of(&all[..1]);
    let id = test.history.alerts().unwrap()[0].id.clone();
    test.history.set_alert_state(&id, Confirmed, "", "me").unwrap();
    all[1].cells[0].checks.push("log".into());
    all[2].cells[0].checks.push("log".into());
    test.history.insert_runs(&all).unwrap();
    assert_eq!(summaries(&mut test.history), [(None, 0, None, Confirmed), (None, 1, None, New)]);
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

/// Two QEMUs that both run each night are not an upgrade.
#[test]
fn keeps_concurrent_environments_apart() {
    use AlertState::{Confirmed, Fixed, New};
    let all = [(1, Failed), (2, Passed), (1, Failed), (2, Passed)];
    check(&all, &[(None, 0, None, New)]);
    // One environment is fixed; until then, its alert covered the failure of the other.
    let all = nights(&[(1, Failed), (2, Failed), (1, Passed), (2, Failed)]);
    let mut test = history_of(&all[..2]);
    let id = test.history.alerts().unwrap()[0].id.clone();
    test.history.set_alert_state(&id, Confirmed, "", "me").unwrap();
    assert_eq!(summaries(&mut test.history), [(None, 0, None, Confirmed)]);
    test.history.insert_runs(&all).unwrap();
    assert_eq!(
        summaries(&mut test.history),
        [(None, 0, Some(2), Confirmed), (None, 1, None, Confirmed)]
    );
    // From now on it has its own state.
    let other = test.history.alerts().unwrap()[0].id.clone();
    test.history.set_alert_state(&other, Fixed, "", "me").unwrap();
    assert_eq!(summaries(&mut test.history)[0].3, Confirmed);
    assert_eq!(summaries(&mut test.history)[1].3, Fixed);
}

#[test]
fn keeps_machines_apart() {
    use AlertState::{Confirmed, New};
    let mut test = history_of(&[
        night(0, environment("EPYC"), Passed),
        night(1, environment("EPYC"), Failed),
        night(2, environment("Xeon"), Failed),
    ]);
    assert_eq!(summaries(&mut test.history), [(Some(0), 1, None, New), (None, 2, None, New)]);
    let ours = test.history.alerts().unwrap()[1].id.clone();
    test.history.set_alert_state(&ours, Confirmed, "", "me").unwrap();
    test.history.insert_runs(&[night(3, environment("Xeon"), Passed)]).unwrap();
    assert_eq!(
        summaries(&mut test.history),
        [(Some(0), 1, None, Confirmed), (None, 2, Some(3), AlertState::Fixed)]
    );
    // Unknown machines are not assumed to be the same.
    let unknown = |version: &str| Environment { host_kernel: version.into(), ..environment("") };
    let runs = [night(0, unknown("1"), Passed), night(1, unknown("2"), Failed)];
    assert_eq!(summaries(&mut history_of(&runs).history), [(None, 1, None, New)]);
}

#[test]
fn fixes_alerts_that_were_set_to_new() {
    let all = nights(&[(1, Failed), (1, Passed)]);
    let mut test = history_of(&all[..1]);
    let id = test.history.alerts().unwrap()[0].id.clone();
    for state in [AlertState::Confirmed, AlertState::New] {
        test.history.set_alert_state(&id, state, "", "me").unwrap();
    }
    test.history.insert_runs(&all).unwrap();
    assert_eq!(summaries(&mut test.history), [(None, 0, Some(1), AlertState::Fixed)]);
}

/// Ids are the same as in older versions, so that events of that time still apply.
#[test]
fn alerts_keep_their_ids() {
    let mut test = history_of(&nights(&[(1, Failed), (1, Passed), (1, Failed)]));
    let alert = test.history.alerts().unwrap().remove(0);
    assert_eq!(alert.id, "09298b011843");
    let file = test.history.events_file();
    let event = format!(
        "{{\"schema\":1,\"id\":\"1f8fbe2c-0d50-4b41-9d3e-6f1f6c1c5a11\",\"time\":1,\
         \"subject\":\"5e2065678497b3d9a904\",\"run\":\"{}\",\"state\":\"confirmed\",\"note\":\"\",\
         \"author\":\"me\"}}\n",
        alert.first_bad.run
    );
    std::fs::write(&file, event).unwrap();
    let mut again = History::open(test.history.path()).unwrap();
    assert_eq!(again.alerts().unwrap()[0].state, AlertState::Confirmed);
}
