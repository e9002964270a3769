//! Comparison with the change points that other programs find in the same series
//! (`peers/change_points.py`).

use dmarig_stats::change_points::{Search, strongest};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Peer {
    name: String,
    series: Vec<f64>,
    strongest: Strongest,
    e_divisive: Vec<usize>,
    pelt: Vec<usize>,
}

#[derive(Deserialize)]
struct Strongest {
    at: usize,
    end: usize,
    strength: f64,
}

fn peers() -> Vec<Peer> {
    let peers: Vec<Peer> =
        serde_json::from_str(include_str!("../data/change_points.json")).unwrap();
    assert!(peers.len() >= 15);
    peers
}

fn places(series: &[f64]) -> Vec<usize> {
    Search::default().changes(series).unwrap().iter().map(|change| change.at).collect()
}

fn same(ours: &[usize], theirs: &[usize], within: usize) -> bool {
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| a.abs_diff(*b) <= within)
}

#[test]
fn matches_the_strongest_split_of_apache_otava() {
    for Peer { name, series, strongest: theirs, .. } in peers() {
        let ours = strongest(&series, 5).unwrap();
        assert_eq!((ours.at, ours.end), (theirs.at, theirs.end), "{name}");
        assert!((ours.strength - theirs.strength).abs() < 1e-9 * theirs.strength, "{name}");
    }
}

#[test]
fn matches_clear_changes_of_apache_otava() {
    for Peer { name, series, e_divisive, .. } in peers() {
        let ours = places(&series);
        assert!(same(&ours, &e_divisive, 1), "{name}: {ours:?} {e_divisive:?}");
    }
}

/// Series without outliers, since PELT reports outliers as changes.
#[test]
fn matches_clear_changes_of_ruptures() {
    for Peer { name, series, pelt, .. } in peers() {
        let ours = places(&series);
        let outliers = name.ends_with("outliers");
        assert!(outliers || same(&ours, &pelt, 2), "{name}: {ours:?} {pelt:?}");
    }
}
