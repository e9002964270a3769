//! How a cell's numbers grow with the mappings that live beside its workload: cells that differ in
//! nothing but `live-mappings`, side by side.

use crate::{
    axes::{Axes, Axis},
    case::Case,
    measure::metric,
    metrics::{self, Better, MIN_SWEEP_POINTS, SWEPT},
    observation::{End, Observation},
    windows::Side,
};

/// Cells that differ in nothing but their live mappings, by those.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// Name of their case.
    pub case: String,
    /// What they have in common: the axes that tell this sweep from the case's others.
    pub label: String,
    /// One for each cell, fewest live mappings first.
    pub points: Vec<Point>,
}

/// One cell of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The cell's id.
    pub cell: String,
    /// Live mappings that it was asked for.
    pub live: u32,
    /// Of each of [`SWEPT`], the median of either side where it was measured.
    pub values: Vec<[Option<f64>; 2]>,
}

/// From where on one side is worse than the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Crossover {
    /// Everywhere.
    Always,
    /// From about this many live mappings on.
    From(f64),
    /// Not up to as many.
    Never(u32),
}

impl Point {
    /// A metric's median on one side.
    #[must_use]
    pub fn value(&self, name: &str, side: Side) -> Option<f64> {
        let index = SWEPT.iter().position(|metric| *metric == name)?;
        self.values[index][side as usize]
    }
}

impl Sweep {
    /// How much a metric grows per thousand live mappings: the median of the slopes between each two
    /// points (Theil and Sen), which one wild point does not turn. `None` for fewer than three points.
    #[must_use]
    pub fn growth(&self, name: &str, side: Side) -> Option<f64> {
        let points: Vec<(f64, f64)> = self
            .points
            .iter()
            .filter_map(|point| Some((f64::from(point.live) / 1000.0, point.value(name, side)?)))
            .collect();
        if points.len() < MIN_SWEEP_POINTS {
            return None;
        }
        let mut slopes: Vec<f64> = points
            .iter()
            .enumerate()
            .flat_map(|(i, a)| points[i + 1..].iter().map(move |b| (b.1 - a.1) / (b.0 - a.0)))
            .filter(|slope| slope.is_finite())
            .collect();
        slopes.sort_by(f64::total_cmp);
        let middle = slopes.len() / 2;
        match slopes.len() {
            0 => None,
            len if len % 2 == 0 => Some(f64::midpoint(slopes[middle - 1], slopes[middle])),
            _ => Some(slopes[middle]),
        }
    }

    /// From where on the control is worse than the kernel as it is, by linear interpolation between
    /// the two points around it. `None` where they can't be compared.
    #[must_use]
    pub fn crossover(&self, name: &str) -> Option<Crossover> {
        let more_is_better = metrics::entry(name)?.better == Some(Better::Higher);
        // Above 0 where the control is worse.
        let loss = |point: &Point| {
            let (own, control) = (point.value(name, Side::Own)?, point.value(name, Side::Control)?);
            let ratio = if more_is_better { own / control } else { control / own };
            ratio.is_finite().then_some((f64::from(point.live), ratio - 1.0))
        };
        let losses: Vec<(f64, f64)> = self.points.iter().filter_map(loss).collect();
        let last = self.points.last()?.live;
        // What counts is from where on it stays worse.
        match losses.iter().rposition(|(_, loss)| *loss <= 0.0) {
            None if losses.is_empty() => None,
            None => Some(Crossover::Always),
            Some(at) if at + 1 == losses.len() => Some(Crossover::Never(last)),
            Some(at) => {
                let ((x0, y0), (x1, y1)) = (losses[at], losses[at + 1]);
                Some(Crossover::From(x0 + (x1 - x0) * -y0 / (y1 - y0)))
            }
        }
    }
}

/// The sweeps of a case among the observations of a run.
#[must_use]
pub fn sweeps(case: &Case, observations: &[&Observation]) -> Vec<Sweep> {
    let done = |seen: &&Observation| seen.case == case.name && seen.end == End::Completed;
    let rest = |axes: &Axes| Axes { live_mappings: 0, ..axes.clone() };
    let mut found: Vec<(Axes, Sweep)> = Vec::new();
    for seen in observations.iter().copied().filter(done) {
        let rest = rest(&seen.axes);
        let point = point(seen);
        match found.iter_mut().find(|(axes, _)| *axes == rest) {
            Some((_, sweep)) => sweep.points.push(point),
            None => {
                let (case, label) = (case.name.clone(), label(case, &rest));
                found.push((rest, Sweep { case, label, points: vec![point] }));
            }
        }
    }
    let mut sweeps: Vec<Sweep> = found.into_iter().map(|(_, sweep)| sweep).collect();
    sweeps.retain(|sweep| sweep.points.len() >= MIN_SWEEP_POINTS);
    for sweep in &mut sweeps {
        sweep.points.sort_by_key(|point| point.live);
    }
    sweeps
}

fn point(seen: &Observation) -> Point {
    let value = |name: &str, side| metric(seen, side, name).map(|measured| measured.median());
    Point {
        cell: seen.cell.clone(),
        live: seen.axes.live_mappings,
        values: SWEPT
            .iter()
            .map(|name| [value(name, Side::Own), value(name, Side::Control)])
            .collect(),
    }
}

fn label(case: &Case, axes: &Axes) -> String {
    let told = |axis: &Axis| {
        *axis != Axis::LiveMappings && (*axis == Axis::Kernel || case.axes.count(*axis) > 1)
    };
    let words = Axis::ALL.into_iter().filter(told);
    words.map(|axis| format!("{axis}={}", axis.value(axes))).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sweep of `elapsed`: live mappings, the kernel as it is, the control.
    fn sweep(points: &[(u32, f64, f64)]) -> Sweep {
        let index = SWEPT.iter().position(|name| *name == metrics::ELAPSED).unwrap();
        let point = |&(live, own, control): &(u32, f64, f64)| {
            let mut values = vec![[None, None]; SWEPT.len()];
            values[index] = [Some(own), Some(control)];
            Point { cell: String::new(), live, values }
        };
        let points = points.iter().map(point).collect();
        Sweep { case: "a".into(), label: String::new(), points }
    }

    #[test]
    fn growth_is_told_per_thousand_and_no_wild_point_turns_it() {
        let line = |live: u32| (live, 10.0, 10.0 + f64::from(live) / 500.0);
        let mut points: Vec<_> = [0, 1000, 10_000, 50_000, 100_000].map(line).into();
        assert_eq!(sweep(&points).growth("elapsed", Side::Control), Some(2.0));
        assert_eq!(sweep(&points).growth("elapsed", Side::Own), Some(0.0));
        points[2].2 = 5000.0;
        let growth = sweep(&points).growth("elapsed", Side::Control).unwrap();
        assert!((1.0..4.0).contains(&growth), "{growth}");
        assert_eq!(sweep(&points[..2]).growth("elapsed", Side::Own), None);
        assert_eq!(sweep(&points).growth("throughput", Side::Own), None);
    }

    #[test]
    fn the_crossover_lies_where_it_stays_worse() {
        let check = |points: &[(u32, f64, f64)], expected| {
            assert_eq!(sweep(points).crossover("elapsed"), expected);
        };
        let (better, worse) = (8.0, 12.0);
        check(&[(0, 10.0, better), (100, 10.0, worse)], Some(Crossover::From(50.0)));
        check(&[(0, 10.0, worse), (100, 10.0, worse)], Some(Crossover::Always));
        check(&[(0, 10.0, better), (100, 10.0, better)], Some(Crossover::Never(100)));
        // A lucky point in between is no crossover.
        check(
            &[(0, 10.0, worse), (100, 10.0, better), (200, 10.0, worse)],
            Some(Crossover::From(150.0)),
        );
        check(&[], None);
    }
}
