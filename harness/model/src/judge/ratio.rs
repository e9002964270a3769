//! Comparisons between cells of one run, once all of them are there.

use std::collections::BTreeSet;

use super::{Held, Judged, kernel_version, number};
use crate::{
    axes::Axes,
    case::Case,
    conditions::AxisSets,
    document::CONTROL_PREFIX,
    expect::{Growth, Ratio, Rule, applying},
    measure::metric,
    observation::{Check, End, Observation},
    sweep::{Sweep, sweeps},
    value::Bound,
    windows::Side,
};

/// Judges the ratios that a case asks for, over the observations of its cells in one run: each
/// check with the id of the cell that it belongs to. Where the other cell is not there, or nothing
/// was measured, the check is there and did not hold nor fail: never compared is no pass.
#[must_use]
pub fn judge_ratios(case: &Case, observations: &[Observation]) -> Vec<(String, Check)> {
    let ratios = all(case, observations);
    ratios.chain(growths(case, observations)).map(|(id, judged)| (id, judged.check)).collect()
}

/// The growths that a case asks for, each with the id of the cell with the most live mappings.
fn growths(case: &Case, observations: &[Observation]) -> Vec<(String, Judged)> {
    let sweeps = sweeps(case, observations);
    let mut seen = BTreeSet::new();
    let mut judged = Vec::new();
    for observation in observations.iter().filter(|seen| done(case, seen)) {
        for rule in rules(case, observation).into_iter().filter(|rule| !rule.growth.is_empty()) {
            let sweep = sweeps
                .iter()
                .find(|sweep| sweep.points.iter().any(|point| point.cell == observation.cell));
            let last = sweep.and_then(|sweep| sweep.points.last());
            let id = last.map_or(&observation.cell, |point| &point.cell);
            if seen.insert((id.clone(), &rule.name)) {
                let growth = rule.growth.iter().map(|growth| one_growth(rule, growth, sweep));
                judged.extend(growth.map(|growth| (id.clone(), growth)));
            }
        }
    }
    judged
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
    applying(case, &axes, kernel_version(observation), qemu)
}

fn all<'a>(
    case: &'a Case,
    observations: &'a [Observation],
) -> impl Iterator<Item = (String, Judged)> + 'a {
    observations.iter().filter(|seen| done(case, seen)).flat_map(move |observation| {
        rules(case, observation)
            .into_iter()
            .flat_map(|rule| rule.ratios.iter().map(move |ratio| (rule, ratio)))
            // A cell is not compared with itself.
            .filter(|(_, ratio)| !ratio.to.contains(&observation.axes))
            .map(|(rule, ratio)| {
                (observation.cell.clone(), one(rule, ratio, observation, observations))
            })
            .collect::<Vec<_>>()
    })
}

fn one(rule: &Rule, ratio: &Ratio, ours: &Observation, observations: &[Observation]) -> Judged {
    let name = format!("{}-ratio", ratio.metric);
    let bound = Bound { min: ratio.min, max: ratio.max };
    let wanted = with(&ours.axes, &ratio.to);
    let expected = format!("{bound} to {}", describe(&ratio.to));
    let unseen = |why: String| Judged::by(rule, &name, Held::NotSeen, expected.clone(), why);
    let Some(other) = observations.iter().find(|other| {
        other.case == ours.case && other.axes == wanted && other.end == End::Completed
    }) else {
        return unseen("that cell did not complete in this run".to_owned());
    };
    let value =
        |observation| metric(observation, Side::Own, &ratio.metric).map(|metric| metric.median());
    let (Some(own), Some(theirs)) = (value(ours), value(other)) else {
        return unseen("not measured in both cells".to_owned());
    };
    if theirs == 0.0 {
        return unseen(format!("{} to 0", number(own)));
    }
    let held = if bound.holds(own / theirs) { Held::Yes } else { Held::No };
    Judged::by(rule, &name, held, expected.clone(), number(own / theirs)).with([
        format!("{}: {}", ours.cell, number(own)),
        format!("{}: {}", other.cell, number(theirs)),
    ])
}

fn with(axes: &Axes, sets: &AxisSets) -> Axes {
    let own = AxisSets::from(axes);
    own.replaced_by(sets).product().into_iter().next().unwrap_or_else(|| axes.clone())
}

fn describe(sets: &AxisSets) -> String {
    let axes = sets.product().into_iter().next().unwrap_or_default();
    let words: Vec<String> =
        sets.given().iter().map(|axis| format!("{axis}={}", axis.value(&axes))).collect();
    words.join(",")
}
