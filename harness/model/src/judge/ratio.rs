//! Comparisons between cells of one run, once all of them are there.

use super::{Held, Judged, kernel_version, number};
use crate::{
    axes::Axes,
    case::Case,
    conditions::AxisSets,
    expect::{Ratio, Rule, applying},
    measure::metric,
    observation::{Check, End, Observation},
    value::Bound,
    windows::Side,
};

/// Judges the ratios that a case asks for, over the observations of its cells in one run: each
/// check with the id of the cell that it belongs to. Where the other cell is not there, or nothing
/// was measured, the check is there and did not hold nor fail: never compared is no pass.
#[must_use]
pub fn judge_ratios(case: &Case, observations: &[Observation]) -> Vec<(String, Check)> {
    all(case, observations).map(|(id, judged)| (id, judged.check)).collect()
}

fn all<'a>(
    case: &'a Case,
    observations: &'a [Observation],
) -> impl Iterator<Item = (String, Judged)> + 'a {
    let done = |observation: &&Observation| {
        observation.case == case.name && observation.end == End::Completed
    };
    observations.iter().filter(done).flat_map(move |observation| {
        let mut axes = observation.axes.clone();
        axes.accelerator = observation.setup.accelerator;
        let qemu = observation.setup.qemu_version.parse().ok();
        applying(case, &axes, kernel_version(observation), qemu)
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
    let value = |observation| metric(observation, Side::Own, &ratio.metric).map(|metric| metric.median());
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
