//! Comparisons between cells of one run, once all of them are there.

use std::collections::{BTreeMap, BTreeSet};

use super::{Held, Judged, kernel_version, number};
use crate::{
    case::Case,
    conditions::AxisSets,
    expect::{Growth, Ratio, Rule, last_of_each},
    measure::{Measured, metric},
    metrics::{CONTROL_PREFIX, unit_of},
    observation::{Check, End, Observation},
    sweep::{Sweep, sweeps},
    value::Bound,
    windows::Side,
};

/// How many times as large one cell's samples are as another's, as far as the noise lets it be told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The estimate.
    pub ratio: f64,
    /// The ratio is hardly below this one.
    pub low: f64,
    /// ... nor above this one.
    pub high: f64,
}

/// Estimates the ratio of the first samples to the second ones; `None` where they have none, or are too
/// few to bound it. Statistics are no business of this crate's.
pub type Estimator<'a> = &'a dyn Fn(&[f64], &[f64]) -> Option<Interval>;

/// Judges the ratios that a case asks for, over the observations of its cells in one run: each
/// check with the id of the cell that it belongs to. Where the other cell is not there, or nothing
/// was measured, the check is there and did not hold nor fail: never compared is no pass.
///
/// A count repeats exactly, and so does its ratio. That of a time fails where the whole interval is beyond
/// the bound and holds where all of it is within; of one between nothing is said.
#[must_use]
pub fn judge_ratios(
    case: &Case,
    observations: &[&Observation],
    estimate: Estimator<'_>,
) -> Vec<(String, Check)> {
    let ratios = all(case, observations, estimate);
    ratios.chain(growths(case, observations)).map(|(id, judged)| (id, judged.check)).collect()
}

/// The growths that a case asks for, each with the id of the cell with the most live mappings.
fn growths(case: &Case, observations: &[&Observation]) -> Vec<(String, Judged)> {
    let sweeps = sweeps(case, observations);
    // A rule may speak of some cells of a sweep alone.
    let mut asked: BTreeMap<&str, (Option<&Sweep>, BTreeSet<&str>)> = BTreeMap::new();
    for observation in observations.iter().copied().filter(|seen| done(case, seen)) {
        let sweep = sweeps
            .iter()
            .find(|sweep| sweep.points.iter().any(|point| point.cell == observation.cell));
        let last = sweep.and_then(|sweep| sweep.points.last());
        let id = last.map_or(&observation.cell, |point| &point.cell);
        let (_, names) = asked.entry(id).or_insert((sweep, BTreeSet::new()));
        names.extend(rules(case, observation).into_iter().map(|rule| rule.name.as_str()));
    }
    let of_sweep = |(id, (sweep, names)): (&str, (Option<&Sweep>, BTreeSet<&str>))| {
        // The standard expectations have none.
        let rules = case.expect.iter().filter(|rule| names.contains(rule.name.as_str()));
        let all = rules.flat_map(|rule| rule.growth.iter().map(move |growth| (rule, growth)));
        let deciding = last_of_each(all, |(_, growth)| (growth.metric.as_str(), growth.control));
        let judged = deciding.into_iter().map(|(rule, growth)| one_growth(rule, growth, sweep));
        judged.map(|judged| (id.to_owned(), judged)).collect::<Vec<_>>()
    };
    asked.into_iter().flat_map(of_sweep).collect()
}

fn one_growth(rule: &Rule, growth: &Growth, sweep: Option<&Sweep>) -> Judged {
    let side = if growth.control { Side::Control } else { Side::Own };
    let prefix = if growth.control { CONTROL_PREFIX } else { "" };
    let name = format!("{prefix}{}-growth", growth.metric);
    let bound = Bound { min: growth.min, max: growth.max };
    let expected = format!("{bound} per 1,000 live mappings");
    let Some(sweep) = sweep else {
        let found = "fewer than three cells that differ in live mappings alone".to_owned();
        return Judged::by(rule, &name, Held::NotSeen, expected, found);
    };
    let points = sweep.points.iter().filter_map(|point| {
        let value = point.value(&growth.metric, side)?;
        Some(format!("{} live: {}", point.live, number(value)))
    });
    match sweep.growth(&growth.metric, side) {
        None => {
            Judged::by(rule, &name, Held::NotSeen, expected, "not measured in three cells".into())
        }
        Some(found) => {
            let held = if bound.holds(found) { Held::Yes } else { Held::No };
            Judged::by(rule, &name, held, expected, number(found)).with(points)
        }
    }
}

fn done(case: &Case, observation: &Observation) -> bool {
    observation.case == case.name && observation.end == End::Completed
}

fn rules<'a>(case: &'a Case, observation: &Observation) -> Vec<&'a Rule> {
    let mut axes = observation.axes.clone();
    axes.accelerator = observation.setup.accelerator;
    let qemu = observation.setup.qemu_version.parse().ok();
    case.applying_rules(&axes, kernel_version(observation), qemu)
}

fn all<'a>(
    case: &'a Case,
    observations: &'a [&'a Observation],
    estimate: Estimator<'a>,
) -> impl Iterator<Item = (String, Judged)> + 'a {
    observations.iter().copied().filter(|seen| done(case, seen)).flat_map(move |observation| {
        let asked = rules(case, observation)
            .into_iter()
            .flat_map(|rule| rule.ratios.iter().map(move |ratio| (rule, ratio)))
            // A cell is not compared with itself.
            .filter(|(_, ratio)| !ratio.to.contains(&observation.axes));
        let other = |ratio: &Ratio| observation.axes.with(&ratio.to);
        let deciding = last_of_each(asked, |(_, ratio)| (ratio.metric.as_str(), other(ratio)));
        let judged = deciding
            .into_iter()
            .map(|(rule, ratio)| one(rule, ratio, observation, observations, estimate));
        judged.map(|judged| (observation.cell.clone(), judged)).collect::<Vec<_>>()
    })
}

fn one(
    rule: &Rule,
    ratio: &Ratio,
    ours: &Observation,
    observations: &[&Observation],
    estimate: Estimator<'_>,
) -> Judged {
    let name = format!("{}-ratio", ratio.metric);
    let bound = Bound { min: ratio.min, max: ratio.max };
    let wanted = ours.axes.with(&ratio.to);
    let expected = format!("{bound} to {}", describe(&ratio.to));
    let unseen = |why: String| Judged::by(rule, &name, Held::NotSeen, expected.clone(), why);
    let Some(other) = observations.iter().find(|other| {
        other.case == ours.case && other.axes == wanted && other.end == End::Completed
    }) else {
        return unseen("that cell did not complete in this run".to_owned());
    };
    let value = |observation| metric(observation, Side::Own, &ratio.metric);
    let (Some(own), Some(theirs)) = (value(ours), value(other)) else {
        return unseen("not measured in both cells".to_owned());
    };
    let (held, found) = if unit_of(&ratio.metric) == Some("1") {
        exact(&bound, own.median(), theirs.median())
    } else {
        within_noise(&bound, &own, &theirs, estimate)
    };
    Judged::by(rule, &name, held, expected.clone(), found).with([
        format!("{}: {}", ours.cell, number(own.median())),
        format!("{}: {}", other.cell, number(theirs.median())),
    ])
}

fn exact(bound: &Bound, own: f64, theirs: f64) -> (Held, String) {
    if theirs == 0.0 {
        return (Held::NotSeen, format!("{} to 0", number(own)));
    }
    let held = if bound.holds(own / theirs) { Held::Yes } else { Held::No };
    (held, number(own / theirs))
}

/// The cells ran at different times, and medians alone would fail or pass by chance.
fn within_noise(
    bound: &Bound,
    own: &Measured,
    theirs: &Measured,
    estimate: Estimator<'_>,
) -> (Held, String) {
    let Some(Interval { ratio, low, high }) = estimate(&own.samples, &theirs.samples) else {
        let (ours, theirs) = (own.samples.len(), theirs.samples.len());
        let why = "too few samples to bound the ratio, or not all above 0";
        return (Held::LetPass, format!("not judged: {why} ({ours} and {theirs})"));
    };
    let found = format!("{} ({} to {})", number(ratio), number(low), number(high));
    let beyond = bound.max.is_some_and(|max| low > max) || bound.min.is_some_and(|min| high < min);
    if beyond {
        (Held::No, found)
    } else if bound.holds(low) && bound.holds(high) {
        (Held::Yes, found)
    } else {
        (Held::LetPass, format!("inconclusive: {found}"))
    }
}

fn describe(sets: &AxisSets) -> String {
    let axes = sets.product().into_iter().next().unwrap_or_default();
    let words: Vec<String> =
        sets.given().iter().map(|axis| format!("{axis}={}", axis.value(&axes))).collect();
    words.join(",")
}
