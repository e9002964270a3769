//! The year that is made up.

use std::path::Path;

use dmarig_history::{History, SYNTHETIC_NIGHTS, SeriesFilter, planted, synthetic_year};
use dmarig_model::observation::Outcome;

/// The bytes of a file with the first nights of a year.
fn file(file: &Path, seed: u64, nights: usize) -> Vec<u8> {
    let runs: Vec<_> = synthetic_year(seed).take(nights).collect();
    let mut history = History::create(file).unwrap();
    history.put(&runs).unwrap();
    drop(history);
    std::fs::read(file).unwrap()
}

#[test]
fn a_seed_brings_back_the_same_file() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let first = file(&at("a"), 7, 20);
    assert!(first == file(&at("b"), 7, 20), "the files of one seed differ");
    assert!(first != file(&at("c"), 8, 20), "two seeds make the same");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 3, "something is left beside");

    let history = History::open(&at("a")).unwrap();
    let info = history.info().unwrap();
    assert!(history.is_synthetic().unwrap() && info.synthetic == info.runs);
    assert!((250..350).contains(&info.series), "{info:?}");
    let ratios = SeriesFilter { ratios: Some(true), ..SeriesFilter::default() };
    let ratios = history.series(&ratios).unwrap();
    assert!(ratios.iter().all(|series| series.key.place.kernel == "mainline"));
    assert!(ratios.len() > 50);
}

#[test]
fn a_year_has_nights_that_are_missing_and_some_that_fail() {
    let nights: Vec<_> = synthetic_year(7).collect();
    assert!((340..SYNTHETIC_NIGHTS as usize).contains(&nights.len()), "{}", nights.len());
    let failing = nights.iter().filter(|night| {
        let failed = night.cells.iter().filter(|cell| cell.outcome == Outcome::Failed);
        failed.count() == 2
    });
    assert!((10..=14).contains(&failing.count()));
}

#[test]
fn what_happens_in_it_lies_within_it() {
    for seed in 0..50 {
        let planted = planted(seed);
        assert_eq!(planted, dmarig_history::planted(seed));
        for event in planted {
            assert!(event.from + 9 <= event.until && event.until <= SYNTHETIC_NIGHTS, "{event:?}");
            assert!(!event.variants.is_empty());
        }
    }
}
