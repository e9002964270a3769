//! The year that is made up.

use std::path::Path;

use dmarig_history::{History, SYNTHETIC_NIGHTS, SeriesFilter, planted, synthetic_year};

fn year(file: &Path, seed: u64) -> Vec<u8> {
    let runs: Vec<_> = synthetic_year(seed).collect();
    let mut history = History::create(file).unwrap();
    history.put(&runs).unwrap();
    drop(history);
    std::fs::read(file).unwrap()
}

#[test]
fn a_seed_brings_back_the_same_file() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let first = year(&at("a"), 7);
    assert!(first == year(&at("b"), 7), "the files of one seed differ");
    assert!(first != year(&at("c"), 8), "two seeds make the same");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 3, "something is left beside");

    let history = History::open(&at("a")).unwrap();
    let info = history.info().unwrap();
    assert!(history.is_synthetic().unwrap() && info.synthetic == info.runs);
    assert!((340..=u64::from(SYNTHETIC_NIGHTS)).contains(&info.runs), "{info:?}");
    assert!((250..350).contains(&info.series), "{info:?}");
    let ratios = SeriesFilter { ratios: Some(true), ..SeriesFilter::default() };
    let ratios = history.series(&ratios).unwrap();
    assert!(ratios.iter().all(|series| series.key.place.kernel == "mainline"));
    assert!(ratios.len() > 50);
    let failing = history.runs(None).unwrap().into_iter();
    let failing =
        failing.filter(|run| run.outcomes.keys().any(|outcome| outcome.name() == "failed"));
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
