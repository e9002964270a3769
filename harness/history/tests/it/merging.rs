//! Merges of histories give the same result in any order.

use dmarig_history::{AlertEvent, AlertState, EVENT_SCHEMA, History, HistoryError, RunEntry};
use dmarig_model::observation::Outcome;
use proptest::prelude::*;

use crate::fixtures::{cell, key, point, run};

fn dump(history: &History) -> String {
    let mut text = Vec::new();
    history.dump(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// A run with one of a few ids, so that runs of different machines collide.
fn entry() -> impl Strategy<Value = RunEntry> {
    let value = prop_oneof![Just(0.0), Just(1e-300), Just(0.1 + 0.2), 0.0..1e12];
    (0u32..4, 1u32..4, 0u32..2, value).prop_map(|(day, cells, derivation, value)| {
        let mut run = run(day, value);
        run.derivation += derivation;
        run.cells = (0..cells).map(|number| cell(number, "mine", Outcome::Passed)).collect();
        let ratio = point(key("elapsed", "ns", "mine"), cells - 1, &[value, value / 3.0, value]);
        run.points = vec![ratio];
        run
    })
}

fn event() -> impl Strategy<Value = AlertEvent> {
    // Events with the same id are equal.
    (0u32..6).prop_map(|id| AlertEvent {
        schema: EVENT_SCHEMA,
        id: format!("event-{id}"),
        time: i64::from(id % 3),
        subject: "s".into(),
        run: "r".into(),
        state: AlertState::ALL[id as usize % 4],
        note: String::new(),
        author: String::new(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn merges_in_any_order_to_the_same_history(
        machines in prop::collection::vec(
            (prop::collection::vec(entry(), 0..4), prop::collection::vec(event(), 0..3)), 1..4),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let place = tempfile::tempdir().unwrap();
        let create = |name: &str| History::create(&place.path().join(name)).unwrap();
        let mut files = Vec::new();
        for (at, (runs, events)) in machines.iter().enumerate() {
            let mut history = create(&format!("machine{at}.sqlite"));
            history.insert_runs(runs).unwrap();
            history.add_events(events).unwrap();
            files.push(history.path().to_owned());
        }
        let mut straight = create("straight.sqlite");
        files.iter().for_each(|file| { straight.merge(file).unwrap(); });
        // In any order with repetitions, and finally all in reverse order, so that none is missing.
        let mut crooked = create("crooked.sqlite");
        for at in order {
            crooked.merge(&files[at.index(files.len())]).unwrap();
        }
        files.iter().rev().for_each(|file| { crooked.merge(file).unwrap(); });
        prop_assert_eq!(dump(&straight), dump(&crooked));
        // Through a third history, and with itself.
        let mut third = create("third.sqlite");
        third.merge(crooked.path()).unwrap();
        third.merge(straight.path()).unwrap();
        prop_assert_eq!(dump(&third), dump(&straight));
    }
}

#[test]
fn leaves_the_merged_history_unchanged() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let mut theirs = History::create(&at("theirs.sqlite")).unwrap();
    theirs.insert_runs([&run(1, 1.0)]).unwrap();
    drop(theirs);
    let before = std::fs::read(at("theirs.sqlite")).unwrap();
    let mut ours = History::create(&at("ours.sqlite")).unwrap();
    assert_eq!(ours.merge(&at("theirs.sqlite")).unwrap().added, 1);
    assert!(before == std::fs::read(at("theirs.sqlite")).unwrap());
    let error = ours.merge(&at("nowhere.sqlite")).unwrap_err();
    assert!(matches!(error, HistoryError::Missing { .. }), "{error}");
}
