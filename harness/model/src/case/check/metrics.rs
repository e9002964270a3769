//! What is wrong with the metrics that a case names: with their names, with what is asked of them, and
//! with those that its cells never have. A rule that nothing could judge would look like one that held.

use std::collections::HashSet;

use super::{At, between};
use crate::{
    axes::{Axes, Axis, Passthrough},
    case::{Case, CaseFile, Workload, WorkloadFile},
    expect::{MetricBound, Ratio, Rule},
    limit::{LEAST_RUNS, LEAST_SAMPLES, MOST_RUNS},
    measure::maps_invalidate,
    metrics::{self, MIN_SWEEP_POINTS, metric_names, unit_of},
    text::{nearest, shown},
    value::Bound,
    windows::Windows,
};

/// What is known of a case before it runs. What the command line decides may turn out to be anything.
pub(super) struct Known<'a> {
    workload: &'a WorkloadFile,
    /// `None` where they were not read whole, or there are none at all.
    windows: Option<Windows>,
    /// Its cells; empty where they are not known.
    pub(super) cells: Vec<Axes>,
}

impl<'a> Known<'a> {
    pub(super) fn of(file: &'a CaseFile, windows: bool) -> Self {
        let any = file.windows.count || file.windows.time > 0;
        let windows = (windows && any).then_some(file.windows);
        Self { workload: &file.workload, windows, cells: Vec::new() }
    }

    /// What is wrong with a metric's name, of those that there may be.
    fn unknown<'n, I: Iterator<Item = &'n str>>(
        &self,
        name: &str,
        known: impl Fn() -> I,
    ) -> Option<String> {
        // A program brings its own.
        self.workload.exec.is_none().then(|| unknown(name, known))?
    }

    /// Why no window has a metric.
    fn no_window(&self, name: &str) -> Option<String> {
        let Windows { count, time, .. } = self.windows?;
        let shown = shown(name);
        match is_count(name) {
            true if !count => Some(format!(
                "`{shown}` is counted, and the case has no window for that: `windows: {{count: true}}`"
            )),
            false if time == 0 => Some(format!(
                "`{shown}` is timed, and the case has no windows for that: `windows: {{time: 5}}`"
            )),
            _ => None,
        }
    }

    /// Why none of these cells has a metric.
    fn no_cell<'c>(&self, name: &str, cells: impl IntoIterator<Item = &'c Axes>) -> Option<String> {
        // A program's own may have any name.
        if self.cells.is_empty() || self.workload.exec.is_some() {
            return None;
        }
        let needs_probe = metrics::entry(name).is_some_and(metrics::Entry::needs_probe);
        let (has, needed): (fn(&Axes) -> bool, &str) = if needs_probe {
            (
                |axes| axes.passthrough == Passthrough::Probe,
                "of a probe's alone, with `axes: {passthrough: probe}`",
            )
        } else if name == metrics::NEW_RANGES_PER_UNMAP {
            (
                maps_invalidate,
                "of cells with caching mode on and other than first-stage tables alone",
            )
        } else {
            return None;
        };
        let none = !cells.into_iter().any(has);
        none.then(|| format!("no cell has `{name}`: it is {needed}"))
    }

    /// The cells that a rule may speak of.
    fn spoken_of(&self, rule: &Rule) -> impl Iterator<Item = &Axes> {
        self.cells.iter().filter(|axes| rule.when.may_hold(axes))
    }

    /// Why a rule's cells never have a metric.
    fn never(&self, name: &str, rule: &Rule) -> Option<String> {
        if self.workload.idle.is_some() {
            return Some("the workload does nothing that could be measured".to_owned());
        }
        let no_cell = || {
            // That the rule speaks of none is told of the rule.
            let any = self.spoken_of(rule).next().is_some();
            any.then(|| self.no_cell(name, self.spoken_of(rule)))?
        };
        self.no_window(name).or_else(no_cell)
    }
}

/// What is wrong with a metric's name, where it is none of these.
fn unknown<'n, I: Iterator<Item = &'n str>>(name: &str, known: impl Fn() -> I) -> Option<String> {
    if known().any(|known| known == name) {
        return None;
    }
    let all = known().collect::<Vec<_>>().join(", ");
    let name_shown = shown(name);
    Some(match nearest(name, known()) {
        Some(near) => {
            format!("unknown metric `{name_shown}`; did you mean `{near}`? (there are {all})")
        }
        None => format!("unknown metric `{name_shown}`; there are {all}"),
    })
}

/// What is timed of every workload of ours.
fn times() -> impl Iterator<Item = &'static str> {
    metrics::times().map(|entry| entry.name)
}

impl Case {
    /// What is wrong with the name of a metric that is to be timed; nothing is known of a program's.
    #[must_use]
    pub fn unknown_time(&self, name: &str) -> Option<String> {
        let program = matches!(self.workload, Workload::Exec(_));
        (!program).then(|| unknown(name, times))?
    }
}

fn is_count(name: &str) -> bool {
    unit_of(name) == Some("1")
}

pub(super) fn limits(file: &CaseFile, known: &Known<'_>, at: &mut At<'_>) {
    if file.workload.idle.is_some() && !file.limits.is_empty() {
        at.wrong("the workload does nothing that could be timed");
    }
    for (index, limit) in file.limits.iter().enumerate() {
        let mut at = at.index(index);
        let name = &limit.metric;
        if file.limits[..index].iter().any(|other| other.metric == *name) {
            at.key("metric").wrong(format!("`{}` stands before it", shown(name)));
        } else if let Some(what) = known.unknown(name, times) {
            at.key("metric").wrong(what);
        } else if let Some(invalid) = limit.mistake() {
            at.wrong(invalid.to_string());
        } else if let Some(what) = known.no_cell(name, &known.cells) {
            // Pairs have timing windows whether the case has any or not.
            at.key("metric").wrong(what);
        }
    }
}

pub(super) fn history(file: &CaseFile, known: &Known<'_>, at: &mut At<'_>) {
    let idle = file.workload.idle.is_some();
    if idle && !file.history.is_empty() {
        at.wrong("the workload does nothing that could be measured");
    }
    // A program may time what has the name of a count.
    let no_window = |name: &str| match file.workload.exec.is_some() && is_count(name) {
        true => None,
        false => known.no_window(name),
    };
    for (index, limit) in file.history.iter().enumerate() {
        let mut at = at.index(index);
        let name = &limit.metric;
        let never = || {
            let what = no_window(name).or_else(|| known.no_cell(name, &known.cells));
            what.filter(|_| !idle)
        };
        if file.history[..index].iter().any(|other| other.metric == *name) {
            at.key("metric").wrong(format!("`{}` stands before it", shown(name)));
        } else if let Some(what) = known.unknown(name, metric_names) {
            at.key("metric").wrong(what);
        } else if let Some(invalid) = limit.mistake() {
            at.wrong(invalid.to_string());
        } else if let Some(what) = never() {
            at.key("metric").wrong(what);
        }
        between(limit.runs.into(), LEAST_RUNS.into(), MOST_RUNS.into(), &mut at, "runs");
    }
}

pub(super) fn rule(rule: &Rule, known: &Known<'_>, at: &mut At<'_>) {
    for check in metrics::counts().filter(|check| rule.bound(check.name).is_some()) {
        if let Some(what) = known.never(check.name, rule) {
            at.key(check.name).wrong(what);
        }
    }
    for (index, bound) in rule.bounds.iter().enumerate() {
        let mut at = at.key("bounds");
        let mut at = at.index(index);
        let wrong = known.unknown(&bound.metric, metric_names);
        let taken_back = || {
            let later = rule.bounds[..index].iter().any(|other| overlap(other, bound));
            later.then(|| format!("`{}` stands before it", shown(&bound.metric)))
        };
        let wrong = wrong.or_else(|| known.never(&bound.metric, rule)).or_else(taken_back);
        if let Some(what) = wrong {
            at.key("metric").wrong(what);
        }
        if let (Some(unit), Some(given)) = (unit_of(&bound.metric), &bound.unit)
            && unit != given
        {
            at.key("unit").wrong(format!("{} is measured in {unit}", bound.metric));
        }
        if let Some(what) = no_bound(bound.min, bound.max) {
            at.wrong(what);
        }
    }
    for (index, ratio) in rule.ratios.iter().enumerate() {
        let mut at = at.key("ratios");
        let mut at = at.index(index);
        let taken_back = || {
            let same = |other: &Ratio| other.metric == ratio.metric && other.to == ratio.to;
            let later = rule.ratios[..index].iter().any(same);
            later.then(|| format!("`{}` to that cell stands before it", shown(&ratio.metric)))
        };
        let wrong = known.unknown(&ratio.metric, metric_names);
        let wrong = wrong.or_else(|| known.never(&ratio.metric, rule));
        let wrong = wrong.or_else(|| too_few(ratio, known)).or_else(taken_back);
        if let Some(what) = wrong {
            at.key("metric").wrong(what);
        }
        if let Some(what) = no_bound(ratio.min, ratio.max) {
            at.wrong(what);
        } else if let Some((key, what)) = foregone(ratio) {
            at.key(key).wrong(what);
        }
        target(ratio, rule, known, &mut at);
    }
}

/// Whether there is an accelerator on which both of the same metric would be judged.
fn overlap(one: &MetricBound, other: &MetricBound) -> bool {
    one.metric == other.metric && one.accelerators.iter().any(|on| other.accelerators.contains(on))
}

/// A growth needs a metric that is followed, and cells to follow it over.
pub(super) fn growths(file: &CaseFile, rule: &Rule, known: &Known<'_>, at: &mut At<'_>) {
    for (index, growth) in rule.growth.iter().enumerate() {
        let mut at = at.index(index);
        let followed = || metrics::SWEPT.iter().copied();
        if !followed().any(|name| name == growth.metric) {
            let all = followed().collect::<Vec<_>>().join(", ");
            let what =
                format!("no growth of `{}` is known; there are {all}", shown(&growth.metric));
            at.key("metric").wrong(what);
        } else if let Some(what) = known.never(&growth.metric, rule) {
            at.key("metric").wrong(what);
        }
        if let Some(what) = no_bound(growth.min, growth.max) {
            at.wrong(what);
        }
        if growth.control && !file.windows.control {
            at.key("control").wrong("the case has no such windows: `windows: {control: true}`");
        }
        if file.axes.live_mappings.len() < MIN_SWEEP_POINTS {
            at.wrong(format!(
                "the case has not {MIN_SWEEP_POINTS} values of `live-mappings` to follow it over"
            ));
        }
    }
}

/// What is wrong with the two ends of a bound.
fn no_bound(min: Option<f64>, max: Option<f64>) -> Option<&'static str> {
    match (min, max) {
        (None, None) => Some("neither `min` nor `max` is given"),
        _ => Bound { min, max }.is_empty().then_some("`min` is above `max`: nothing fits"),
    }
}

/// Why no ratio of a time can be told from the noise.
fn too_few(ratio: &Ratio, known: &Known<'_>) -> Option<String> {
    let time = known.windows?.time;
    let few = !is_count(&ratio.metric) && time < LEAST_SAMPLES;
    few.then(|| {
        format!(
            "of {time} timing windows no ratio can be told from their noise: at least {LEAST_SAMPLES}, as in \
             `windows: {{time: 5}}`"
        )
    })
}

/// The end that makes a ratio hold never or always: no count is below 0, and every time is above it.
fn foregone(ratio: &Ratio) -> Option<(&'static str, String)> {
    let positive = !is_count(&ratio.metric);
    match (ratio.min, ratio.max) {
        (_, Some(max)) if max < 0.0 || (positive && max == 0.0) => {
            Some(("max", format!("{max} never holds: every ratio is above it")))
        }
        (Some(min), None) if min <= 0.0 => {
            Some(("min", format!("{min} always holds: no ratio is below it")))
        }
        _ => None,
    }
}

/// A ratio needs exactly one other cell to compare with, which has the metric, too.
fn target(ratio: &Ratio, rule: &Rule, known: &Known<'_>, at: &mut At<'_>) {
    let given = ratio.to.given();
    if given.is_empty() {
        at.key("to").wrong("names no axis: the ratio would be that of a cell to itself");
        return;
    }
    if let Some(axis) = given.iter().find(|axis| ratio.to.count(**axis) > 1) {
        at.key("to").key(axis.name()).wrong("several values: a ratio is to one cell");
        return;
    }
    let from_line = [Axis::Kernel, Axis::Qemu, Axis::Accelerator];
    if given.iter().all(|axis| from_line.contains(axis)) {
        return;
    }
    if !known.cells.iter().any(|axes| ratio.to.contains(axes)) {
        at.key("to").wrong("no cell of this case is like that");
        return;
    }
    // The command line may make another cell of it yet.
    if given.iter().any(|axis| from_line.contains(axis)) || known.spoken_of(rule).next().is_none() {
        return;
    }
    let others: HashSet<Axes> = known
        .spoken_of(rule)
        .filter(|axes| !ratio.to.contains(axes))
        .map(|axes| axes.with(&ratio.to))
        .collect();
    let there: Vec<&Axes> = known.cells.iter().filter(|axes| others.contains(*axes)).collect();
    if others.is_empty() {
        at.key("to").wrong("the rule speaks of that cell alone: name others by `when`");
    } else if there.is_empty() {
        at.key("to").wrong("the case leaves out that cell of each that the rule speaks of");
    } else if known.no_cell(&ratio.metric, known.spoken_of(rule)).is_none()
        && let Some(what) = known.no_cell(&ratio.metric, there)
    {
        at.key("to").wrong(what);
    }
}
