//! Sweeps over live mappings, from the numbers that the history has of a run.

use std::collections::{BTreeMap, HashSet};

use dmarig_history::{History, HistoryError, RunRow};
use dmarig_model::{
    metrics::CONTROL_PREFIX,
    metrics::SWEPT,
    sweep::{Point, Sweep as Seen},
    windows::Side,
};

use super::environments::Environments;
use crate::Sweep;

/// Of the newest runs that varied the axis, how many are looked at, and how many sweeps are shown.
const LOOKED_AT: usize = 30;
const SHOWN: usize = 12;
/// Points that a line is laid through, at least.
const LEAST: usize = 3;
/// What an axis is called in a variant.
const AXIS: &str = "live-mappings=";

/// The newest sweeps, of each environment its own.
pub(super) fn sweeps(
    history: &History,
    runs: &[RunRow],
    environments: &Environments,
) -> Result<Vec<Sweep>, HistoryError> {
    let mut varied = HashSet::new();
    for place in history.places()?.iter().filter(|place| place.variant.contains(AXIS)) {
        let visits = history.visits(place, u32::try_from(LOOKED_AT).ok())?;
        varied.extend(visits.into_iter().map(|visit| visit.run));
    }
    let looked_at = runs.iter().enumerate().rev().filter(|(_, run)| varied.contains(&run.id));
    let mut found: Vec<Sweep> = Vec::new();
    for (at, run) in looked_at.take(LOOKED_AT) {
        for (environment, seen) in of_run(history, &run.id)? {
            let title = format!("{}, {}", seen.case, seen.label);
            let environment = environments.of_print(&environment);
            // An older one of the same cells is in its series.
            let like = |known: &Sweep| known.title == title && known.environment == environment;
            if found.len() < SHOWN && !found.iter().any(like) {
                found.push(Sweep { title, run: at, environment, cells: seen });
            }
        }
    }
    Ok(found)
}

/// Cells of one run that differ in nothing but their live mappings, with the fingerprint of their environment.
fn of_run(history: &History, run: &str) -> Result<Vec<(String, Seen)>, HistoryError> {
    type Values = Vec<[Option<f64>; 2]>;
    let mut groups: BTreeMap<[String; 3], BTreeMap<u32, Values>> = BTreeMap::new();
    for (key, value) in history.numbers(run)? {
        if key.reference.is_some() {
            continue;
        }
        let (side, metric) = match key.metric.strip_prefix(CONTROL_PREFIX) {
            Some(metric) => (Side::Control, metric),
            None => (Side::Own, key.metric.as_str()),
        };
        let Some(index) = SWEPT.iter().position(|name| *name == metric) else { continue };
        let words = key.place.variant.split(',');
        let live = words.clone().find_map(|word| word.strip_prefix(AXIS));
        let live = live.map_or(Some(0), |live| live.parse().ok());
        let Some(live) = live else { continue };
        let mut rest: Vec<&str> = words.filter(|word| !word.starts_with(AXIS)).collect();
        let kernel = format!("kernel={}", key.place.kernel);
        rest.push(&kernel);
        let points = groups.entry([key.place.case, rest.join(","), key.environment]).or_default();
        let values = points.entry(live).or_insert_with(|| vec![[None; 2]; SWEPT.len()]);
        values[index][side as usize] = Some(value);
    }
    let sweeps = groups.into_iter().filter(|(_, points)| points.len() >= LEAST);
    Ok(sweeps
        .map(|([case, label, environment], points)| {
            let points = points.into_iter();
            let points = points.map(|(live, values)| Point { cell: String::new(), live, values });
            (environment, Seen { case, label, points: points.collect() })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use dmarig_demo::synthetic_year;
    use dmarig_history::{PointEntry, RunEntry, SeriesKey};

    use super::*;

    /// A run with a sweep on each of these QEMUs.
    fn run(id: &str, started: i64, qemus: &[&str]) -> RunEntry {
        let mut run = synthetic_year(1).next().unwrap();
        let cell = run.cells.swap_remove(0);
        (run.cells, run.points) = (Vec::new(), Vec::new());
        for qemu in qemus {
            for live in [100, 1000, 4000] {
                let mut cell = cell.clone();
                cell.number = run.cells.len() as u32;
                (*qemu).clone_into(&mut cell.environment.qemu_version);
                cell.place.variant = format!("{},{AXIS}{live}", cell.place.variant);
                let point = |name: &&str| PointEntry {
                    series: SeriesKey {
                        place: cell.place.clone(),
                        metric: (*name).to_owned(),
                        unit: "1".to_owned(),
                        reference: None,
                        environment: cell.environment.fingerprint(),
                    },
                    cell: cell.number,
                    value: f64::from(live),
                    samples: Vec::new(),
                };
                run.points.extend(SWEPT.iter().map(point));
                run.cells.push(cell);
            }
        }
        RunEntry { id: id.into(), started, ..run }
    }

    #[test]
    fn the_newest_sweep_of_each_environment_is_told() {
        let place = tempfile::tempdir().unwrap();
        let mut history = History::create(&place.path().join("history.sqlite")).unwrap();
        let runs = [run("a", 1, &["10", "11"]), run("b", 2, &["10"]), run("c", 3, &["12"])];
        history.insert_runs(&runs).unwrap();
        let mut runs = history.runs(None).unwrap();
        runs.reverse();
        let environments = Environments::new(history.environments().unwrap());
        let found = sweeps(&history, &runs, &environments).unwrap();
        let told = environments.told();
        let of = |sweep: &Sweep| {
            let facts = &told[sweep.environment].facts;
            (sweep.run, facts.iter().find(|(name, _)| name == "qemu").unwrap().1.clone())
        };
        let found: Vec<_> = found.iter().map(of).collect();
        assert_eq!(found, [(2, "12".into()), (1, "10".into()), (0, "11".to_owned())]);
    }
}
