//! The signed-rank test compared with scipy's exact one (`peers/scipy_fixtures.py`), and with an
//! enumeration of all signs.

use dmarig_stats::signed_rank::{Null, Walsh};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixtures {
    plain: Vec<Sample>,
    tied: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    values: Vec<f64>,
    shift: f64,
    above: f64,
    below: f64,
    centre: Option<f64>,
    #[serde(default)]
    bounds: Vec<(f64, Option<f64>, Option<f64>)>,
}

fn fixtures() -> Fixtures {
    serde_json::from_str(include_str!("../data/signed_rank.json")).unwrap()
}

fn close(ours: f64, theirs: f64) -> bool {
    (ours - theirs).abs() <= 1e-12 + 1e-9 * theirs.abs()
}

#[test]
fn matches_the_test_and_interval_of_scipy() {
    let fixtures = fixtures();
    assert!(fixtures.plain.len() > 30);
    for sample in fixtures.plain {
        let n = sample.values.len();
        let (walsh, null) = (Walsh::new(&sample.values), Null::new(n));
        assert!(close(walsh.above(&null, sample.shift), sample.above), "{n} values");
        assert!(close(walsh.below(&null, sample.shift), sample.below), "{n} values");
        assert!(close(walsh.centre().unwrap(), sample.centre.unwrap()), "{n} values");
        assert!(!sample.bounds.is_empty());
        for (level, low, high) in sample.bounds {
            let ours = walsh.bounds(&null, level);
            let low = low.unwrap_or(f64::NEG_INFINITY);
            let high = high.unwrap_or(f64::INFINITY);
            assert!(ours.0 == low || close(ours.0, low), "{n} at {level}: {} {low}", ours.0);
            assert!(ours.1 == high || close(ours.1, high), "{n} at {level}: {} {high}", ours.1);
        }
    }
}

#[test]
fn is_conservative_with_ties_and_zeros() {
    let fixtures = fixtures();
    assert!(fixtures.tied.len() > 15);
    for sample in fixtures.tied {
        let (walsh, null) = (Walsh::new(&sample.values), Null::new(sample.values.len()));
        let (above, below) = (walsh.above(&null, sample.shift), walsh.below(&null, sample.shift));
        assert!(above >= sample.above - 1e-12, "{:?}: {above} {}", sample.values, sample.above);
        assert!(below >= sample.below - 1e-12, "{:?}: {below} {}", sample.values, sample.below);
    }
}

#[test]
fn null_distribution_matches_all_signs() {
    for n in 1..=12_u32 {
        let null = Null::new(n as usize);
        let sum = |signs: u32| (0..n).filter(|bit| signs >> bit & 1 == 1).map(|bit| bit + 1).sum();
        let sums: Vec<u32> = (0..1 << n).map(sum).collect();
        for at in 0..=n * (n + 1) / 2 {
            let within = sums.iter().filter(|sum| **sum <= at).count();
            let expected = within as f64 / sums.len() as f64;
            assert!(close(null.at_most(at as usize), expected), "{n} values, {at}");
        }
    }
}

/// For values that are symmetric about 0, also with ties, at most a share `level` of all signs is
/// significant at that level.
#[test]
fn keeps_the_level_with_ties_and_zeros() {
    let sizes: [&[f64]; 6] = [
        &[1.0; 10],
        &[0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0],
        &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0],
        &[0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 50.0],
        &[0.0; 10],
        &[1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 16.0, 32.0, 64.0, 128.0],
    ];
    for sizes in sizes {
        let n = sizes.len();
        let null = Null::new(n);
        let signed = |signs: u32| -> Vec<f64> {
            let sign = |bit: usize| if signs >> bit & 1 == 1 { 1.0 } else { -1.0 };
            sizes.iter().enumerate().map(|(bit, size)| size * sign(bit)).collect()
        };
        let all: Vec<f64> =
            (0..1 << n).map(|signs| Walsh::new(&signed(signs)).above(&null, 0.0)).collect();
        for level in [0.001, 0.005, 0.01, 0.05, 0.1, 0.5] {
            let claimed = all.iter().filter(|probability| **probability <= level).count();
            let part = claimed as f64 / all.len() as f64;
            assert!(part <= level, "{sizes:?} at {level}: {part}");
        }
    }
}
