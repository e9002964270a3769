//! Insertion and queries.

use dmarig_history::{History, HistoryError, InsertOutcome, SeriesFilter, Tally};
use dmarig_model::observation::Outcome;

use crate::fixtures::{cell, environment, key, point, run};

#[test]
fn reads_a_run_back() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("state/history.sqlite");
    let first = run(1, 10.0);
    let mut second = run(2, 20.0);
    second.cells.push(cell(1, "other", Outcome::Failed));
    second.points.push(point(key("elapsed", "ns", "other"), 1, &[5.0]));
    let mut history = History::create(&file).unwrap();
    assert_eq!(
        history.insert_runs([&second, &first]).unwrap(),
        [InsertOutcome::Added, InsertOutcome::Added]
    );
    assert_eq!(history.insert_runs([&second]).unwrap(), [InsertOutcome::Unchanged]);
    drop(history);

    let history = History::open(&file).unwrap();
    let info = history.summary().unwrap();
    assert_eq!((info.runs, info.cells, info.series, info.samples), (2, 3, 2, 7));
    assert!(!history.is_synthetic().unwrap());
    let runs = history.runs(None).unwrap();
    assert_eq!([&runs[0].id, &runs[1].id], [&second.id, &first.id]);
    assert_eq!(runs[0].outcomes, [(Outcome::Passed, 1), (Outcome::Failed, 1)].into());
    assert_eq!(history.runs(Some(1)).unwrap(), runs[..1]);
    assert_eq!(history.run(&first.id).unwrap(), runs[1]);

    let cells = history.cells(&second.id).unwrap();
    assert_eq!((cells[1].checks.len(), cells[1].outcome), (1, Outcome::Failed));
    let (held, broken) =
        (Tally { held: 1, ..Tally::default() }, Tally { broken: 1, ..Tally::default() });
    let judged = cells[1].judged.as_ref().unwrap();
    assert_eq!((judged["log"], judged["psi-per-unmap"]), (held, broken));
    assert_eq!(judged["coherence"], Tally { unjudged: 1, ..Tally::default() });
    assert_eq!(*cells, second.cells);
    assert_eq!(cells[0].environment, environment("EPYC"));

    let filter = SeriesFilter { kernel: Some("mine".into()), ..SeriesFilter::default() };
    let series = history.series(&filter).unwrap();
    assert_eq!((series.len(), series[0].points), (1, 2));
    assert_eq!(series[0].key, key("elapsed", "ns", "mine"));
    let points = history.points(&series[0].id).unwrap();
    let values: Vec<f64> = points.iter().map(|point| point.value).collect();
    assert_eq!(values, [10.0, 20.0]);
    let samples = history.samples(&series[0].id).unwrap();
    assert_eq!(samples.len(), 6);
    assert_eq!(
        (samples[3].0.as_str(), samples[3].1),
        (second.id.as_str(), second.points[0].samples[0])
    );
    let visits = history.visits(&cells[1].place, None).unwrap();
    assert_eq!((visits.len(), visits[0].outcome), (1, Outcome::Failed));
}

#[test]
fn names_what_is_unknown() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("history.sqlite");
    let missing = History::open(&file).unwrap_err();
    assert!(matches!(missing, HistoryError::Missing { .. }), "{missing}");
    let history = History::create(&file).unwrap();
    for error in [history.cells("r1").unwrap_err(), history.series_by_id("r1").unwrap_err()] {
        assert!(matches!(&error, HistoryError::Unknown { name, .. } if name == "r1"), "{error}");
    }
}

#[test]
fn changes_the_revision_on_insertion_only() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("history.sqlite");
    let mut history = History::create(&file).unwrap();
    let empty = history.revision().unwrap();
    history.insert_runs([&run(1, 10.0)]).unwrap();
    let one = history.revision().unwrap();
    history.insert_runs([&run(1, 10.0)]).unwrap();
    history.alerts().unwrap();
    assert_eq!(history.revision().unwrap(), one);
    history.insert_runs([&run(1, 11.0), &run(2, 11.0)]).unwrap();
    let two = history.revision().unwrap();
    assert!(empty != one && one != two);
    drop(history);

    // Reading does not change the file, so a process that watches it is not woken.
    let changed = || std::fs::metadata(&file).unwrap().modified().unwrap();
    let before = changed();
    assert_eq!(History::open(&file).unwrap().revision().unwrap(), two);
    assert_eq!(changed(), before);
}

#[test]
fn replaces_entries_of_a_lower_rank() {
    let place = tempfile::tempdir().unwrap();
    let mut history = History::create(&place.path().join("history.sqlite")).unwrap();
    let part = run(1, 10.0);
    let mut whole = part.clone();
    whole.cells.push(cell(1, "other", Outcome::Passed));
    whole.points[0].value = 11.0;
    let insert = |history: &mut History, run| history.insert_runs([run]).unwrap()[0];
    assert_eq!(insert(&mut history, &part), InsertOutcome::Added);
    assert_eq!(insert(&mut history, &whole), InsertOutcome::Replaced);
    assert_eq!(insert(&mut history, &part), InsertOutcome::Unchanged);
    assert_eq!(history.numbers(&part.id).unwrap()[0].1, 11.0);
    assert_eq!(history.summary().unwrap().samples, 3);
}
