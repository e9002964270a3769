//! Tests of the synthetic year.

use std::path::Path;

use dmarig_demo::{SYNTHETIC_NIGHTS, planted_changes, synthetic_year};
use dmarig_history::{CellEntry, History, RunEntry, SeriesFilter};
use dmarig_model::observation::Outcome;

/// The bytes of a file with the first nights of a year.
fn file(file: &Path, seed: u64, nights: usize) -> Vec<u8> {
    let runs: Vec<_> = synthetic_year(seed).take(nights).collect();
    let mut history = History::create(file).unwrap();
    history.insert_runs(&runs).unwrap();
    drop(history);
    std::fs::read(file).unwrap()
}

#[test]
fn writes_the_same_file_for_a_seed() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let first = file(&at("a"), 7, 20);
    assert!(first == file(&at("b"), 7, 20), "the files of one seed differ");
    assert!(first != file(&at("c"), 8, 20), "two seeds make the same");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 3, "something is left beside");

    let history = History::open(&at("a")).unwrap();
    let info = history.summary().unwrap();
    assert!(history.is_synthetic().unwrap() && info.synthetic == info.runs);
    assert!((250..350).contains(&info.series), "{info:?}");
    let ratios = SeriesFilter { ratios: Some(true), ..SeriesFilter::default() };
    let ratios = history.series(&ratios).unwrap();
    assert!(ratios.iter().all(|series| series.key.place.kernel == "mainline"));
    assert!(ratios.len() > 50);
}

#[test]
fn has_passed_and_unjudged_checks_in_a_night() {
    for night in synthetic_year(7).skip(330) {
        for cell in &night.cells {
            let judged = cell.judged.as_ref().unwrap();
            let broken: Vec<&String> =
                judged.iter().filter(|(_, tally)| tally.broken > 0).map(|(name, _)| name).collect();
            assert_eq!(broken, cell.checks.iter().collect::<Vec<_>>(), "{}", cell.id);
            let ended = matches!(cell.outcome, Outcome::Passed | Outcome::Failed);
            assert_eq!(ended, !judged.is_empty(), "{}", cell.id);
        }
        let unjudged =
            |cell: &CellEntry| cell.judged.iter().flatten().any(|(_, tally)| tally.unjudged > 0);
        assert!(night.cells.iter().any(unjudged));
    }
}

#[test]
fn has_missing_and_failed_nights_in_a_year() {
    let nights: Vec<_> = synthetic_year(7).collect();
    assert!((340..SYNTHETIC_NIGHTS as usize).contains(&nights.len()), "{}", nights.len());
    let failed = |night: &&RunEntry, case: &str| {
        let cells = night.cells.iter().filter(|cell| cell.place.case == case);
        cells.filter(|cell| cell.outcome == Outcome::Failed).count()
    };
    assert!(
        (10..=14).contains(&nights.iter().filter(|night| failed(night, "timing") == 2).count())
    );
    assert_eq!(nights.last().map(|night| failed(&night, "passthrough")), Some(1));
}

#[test]
fn plants_changes_within_the_year() {
    for seed in 0..50 {
        let planted = planted_changes(seed);
        assert_eq!(planted, planted_changes(seed));
        for event in planted {
            assert!(event.from + 9 <= event.until && event.until <= SYNTHETIC_NIGHTS, "{event:?}");
            assert!(!event.variants.is_empty());
        }
    }
}
