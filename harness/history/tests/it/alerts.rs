//! Alerts of changes, and their states.

use std::path::Path;

use dmarig_demo::{planted_changes, synthetic_year};
use dmarig_history::{
    Alert, AlertKind, AlertState, History, HistoryError, MergeReport, RunEntry, SeriesKey,
};

use crate::fixtures::{key, point, run};

/// The series of elapsed times relative to a reference kernel.
fn ratio() -> SeriesKey {
    SeriesKey { reference: Some("debian-6.1@abc".into()), ..key("elapsed", "ns", "mine") }
}

/// Nights with these values, from a day on.
fn nights(first: u32, values: &[f64]) -> Vec<RunEntry> {
    (first..)
        .zip(values)
        .map(|(day, value)| RunEntry {
            points: vec![point(ratio(), 0, &[*value])],
            ..run(day, *value)
        })
        .collect()
}

fn history(place: &Path, runs: &[RunEntry]) -> History {
    let mut history = History::create(&place.join("history.sqlite")).unwrap();
    history.insert_runs(runs).unwrap();
    history
}

/// Values with deterministic noise.
fn noisy(level: f64, count: usize) -> Vec<f64> {
    (0..count).map(|at| level + 0.01 * ((at * 7919 % 13) as f64 / 13.0 - 0.5)).collect()
}

#[track_caller]
fn only(mut alerts: Vec<Alert>) -> Alert {
    assert_eq!(alerts.len(), 1, "{alerts:#?}");
    alerts.remove(0)
}

/// The last good run.
fn good(alert: &Alert) -> Option<&String> {
    alert.last_good.as_ref().map(|mark| &mark.run)
}

#[test]
fn reports_the_range_of_a_shift() {
    let place = tempfile::tempdir().unwrap();
    let runs = nights(0, &[noisy(1.0, 20), noisy(1.1, 12)].concat());
    let alert = only(history(place.path(), &runs).alerts().unwrap());
    assert_eq!((good(&alert), &alert.first_bad.run), (Some(&runs[19].id), &runs[20].id));
    assert_eq!((alert.state, alert.is_new(), alert.until), (AlertState::New, true, None));
    assert!(
        matches!(&alert.what, AlertKind::Change { worse: Some(true), key, .. } if *key == ratio())
    );
}

#[test]
fn reports_neither_improvements_as_new_nor_absolute_times() {
    let place = tempfile::tempdir().unwrap();
    let mut runs = nights(0, &[noisy(1.0, 20), noisy(0.9, 12)].concat());
    assert!(!only(history(place.path(), &runs).alerts().unwrap()).is_new());
    runs.iter_mut().for_each(|run| run.points[0].series.reference = None);
    let bare = tempfile::tempdir().unwrap();
    let mut history = history(bare.path(), &runs);
    assert_eq!(history.alerts().unwrap(), []);
    // It is listed nevertheless.
    assert_eq!(history.changes(&runs[0].points[0].series.id()).unwrap().len(), 1);
}

#[test]
fn fixes_an_alert_that_reverses() {
    let place = tempfile::tempdir().unwrap();
    let runs = nights(0, &[noisy(1.0, 20), noisy(1.1, 12), noisy(1.0, 12)].concat());
    let alerts = history(place.path(), &runs).alerts().unwrap();
    let worse: Vec<&Alert> = alerts.iter().filter(|alert| alert.is_worse()).collect();
    assert_eq!((worse.len(), worse[0].state), (1, AlertState::Fixed));
    assert_eq!(worse[0].until.as_ref().unwrap().run, runs[32].id);
}

#[test]
fn reports_changes_of_counts_until_they_reverse() {
    let place = tempfile::tempdir().unwrap();
    let values = [vec![1.0; 20], vec![0.0; 12], vec![1.0; 12]].concat();
    let mut runs = nights(0, &values);
    runs.iter_mut().for_each(|run| run.points[0].series = key("psi-per-unmap", "1", "mine"));
    let mut history = history(place.path(), &runs[..30]);
    assert!(only(history.alerts().unwrap()).is_new());
    history.insert_runs(&runs).unwrap();
    let alert = only(history.alerts().unwrap());
    assert_eq!(
        (alert.first_bad.run, alert.until.unwrap().run),
        (runs[20].id.clone(), runs[32].id.clone())
    );
    assert_eq!(alert.state, AlertState::Fixed);
}

#[test]
fn keeps_states_across_rebuilds_and_moving_change_points() {
    let place = tempfile::tempdir().unwrap();
    // The first new nights are within the noise, so the change point moves with later nights.
    let values = [noisy(1.0, 20), vec![1.004, 1.045], noisy(1.1, 12)].concat();
    let runs = nights(0, &values);
    let mut history = history(place.path(), &runs[..29]);
    let alert = only(history.alerts().unwrap());
    let changed =
        history.set_alert_state(&alert.id[..6], AlertState::Confirmed, "a lock", "me").unwrap();
    assert_eq!((&changed.id, changed.state), (&alert.id, AlertState::Confirmed));
    history.insert_runs(&runs).unwrap();
    let later = only(history.alerts().unwrap());
    assert_eq!((&later.id, later.state), (&alert.id, AlertState::Confirmed));
    assert_eq!(later.said.as_ref().unwrap().note, "a lock");

    let file = history.path().to_owned();
    drop(history);
    std::fs::remove_file(&file).unwrap();
    let mut history = History::create(&file).unwrap();
    history.insert_runs(&runs).unwrap();
    assert_eq!(only(history.alerts().unwrap()), later);

    // The state can be changed again; the last event holds.
    history.set_alert_state(&alert.id, AlertState::Invalid, "", "you").unwrap();
    let alert = only(history.alerts().unwrap());
    assert_eq!((alert.id, alert.state), (later.id, AlertState::Invalid));
    assert!(history.set_alert_state("", AlertState::Fixed, "", "").is_err());
    let error = history.set_alert_state("zz", AlertState::Fixed, "", "").unwrap_err();
    assert!(matches!(error, HistoryError::Unknown { what: "alert", .. }), "{error}");
}

#[test]
fn merges_states_of_two_machines() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let runs = nights(0, &[noisy(1.0, 20), noisy(1.1, 12)].concat());
    let mut ours = history(here.path(), &runs);
    let mut theirs = history(there.path(), &runs);
    let id = only(ours.alerts().unwrap()).id;
    theirs.set_alert_state(&id, AlertState::Confirmed, "theirs", "a").unwrap();
    ours.set_alert_state(&id, AlertState::Fixed, "ours", "b").unwrap();
    let unchanged = MergeReport { added: 0, replaced: 0, unchanged: 32 };
    assert_eq!(ours.merge(theirs.path()).unwrap(), unchanged);
    theirs.merge(ours.path()).unwrap();
    theirs.merge(ours.path()).unwrap();
    let states = [only(ours.alerts().unwrap()).state, only(theirs.alerts().unwrap()).state];
    assert_eq!(states, [AlertState::Fixed; 2]);
    let lines =
        |history: &History| std::fs::read_to_string(history.events_file()).unwrap().lines().count();
    assert_eq!([lines(&ours), lines(&theirs)], [2, 2]);
}

#[test]
fn skips_truncated_events_and_rejects_newer_ones() {
    let place = tempfile::tempdir().unwrap();
    let runs = nights(0, &[noisy(1.0, 20), noisy(1.1, 12)].concat());
    let mut history = history(place.path(), &runs);
    let id = only(history.alerts().unwrap()).id;
    std::fs::write(history.events_file(), "{\"schema\":1,\"id\":\"x").unwrap();
    history.set_alert_state(&id, AlertState::Confirmed, "", "").unwrap();
    let file = history.path().to_owned();
    drop(history);
    let mut history = History::open(&file).unwrap();
    assert_eq!(only(history.alerts().unwrap()).state, AlertState::Confirmed);
    let newer = "{\"schema\":9,\"id\":\"y\"}\n";
    std::fs::write(history.events_file(), newer).unwrap();
    let error = History::open(&file).unwrap_err();
    assert!(matches!(error, HistoryError::NewerEvent { line: 1, found: 9, .. }), "{error}");
}

/// All planted changes are found, and nothing else.
#[test]
fn finds_the_planted_changes_of_a_synthetic_year() {
    let place = tempfile::tempdir().unwrap();
    let runs: Vec<RunEntry> = synthetic_year(1).collect();
    let mut history = history(place.path(), &runs);
    let alerts = history.alerts().unwrap();
    let night = |run: &str| -> u32 { run.rsplit("night").next().unwrap().parse().unwrap() };
    let events = planted_changes(1);
    for event in &events {
        // The largest latencies are too noisy, and have no planted changes.
        for variant in &event.variants {
            for metric in event.metrics {
                let found = alerts.iter().any(|alert| {
                    matches!(&alert.what, AlertKind::Change { key, .. } if key.metric == **metric)
                        && alert.place.variant == *variant
                        && night(&alert.first_bad.run).abs_diff(event.from) <= 3
                });
                assert!(found, "{metric} of {variant} from {} on", event.from);
            }
        }
    }
    let changes = alerts.iter().filter_map(|alert| match &alert.what {
        AlertKind::Change { key, .. } => Some((key, night(&alert.first_bad.run))),
        AlertKind::Failure { .. } => None,
    });
    let (mut all, mut unfounded) = (0, 0);
    for (key, at) in changes {
        all += 1;
        let edge = |edge: u32| edge.abs_diff(at) <= 3;
        let founded = events.iter().any(|event| {
            event.variants.contains(&key.place.variant) && (edge(event.from) || edge(event.until))
        });
        unfounded += u32::from(!founded);
    }
    // A false positive is allowed in one of a hundred series.
    assert!(all >= 20 && unfounded <= 4, "{unfounded} of {all}");
}
