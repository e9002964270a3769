//! The history's alerts, as the pages tell them.

use std::collections::{BTreeMap, HashMap};

use dmarig_history::{Alert as Found, AlertEnd, AlertKind, AlertState as State};
use dmarig_records::Environment;
use dmarig_report::{environment_change, kernel_name, triage_note};

use crate::{Alert, AlertState, Site, Subject};

/// Alerts of a site that has all else already.
pub(super) fn alerts(
    site: &Site,
    runs: &HashMap<&str, usize>,
    found: &[Found],
    environments: &BTreeMap<String, Environment>,
) -> Vec<Alert> {
    let series: HashMap<&str, usize> =
        site.series.iter().enumerate().map(|(at, series)| (series.key.as_str(), at)).collect();
    let cells = site.cells.iter().enumerate().map(|(at, cell)| {
        let environment = site.environments.get(cell.environment).map_or("", |one| &one.key);
        let place = [&cell.case, &cell.variant, &cell.kernel].map(String::as_str);
        ((place, environment), at)
    });
    let cells: HashMap<([&str; 3], &str), usize> = cells.collect();
    let run = |mark: &AlertEnd| runs.get(mark.run.as_str()).copied();
    let told = |alert: &Found| {
        let first_bad = run(&alert.first_bad);
        let (subject, what) = match &alert.what {
            AlertKind::Change { series: id, .. } => {
                let index = series.get(id.as_str()).copied();
                let subject = index.map(|index| {
                    let points = &site.series[index].points;
                    let point = points.iter().position(|point| Some(point.run) == first_bad);
                    Subject::Series { series: index, point: point.unwrap_or(usize::MAX) }
                });
                (subject, String::new())
            }
            AlertKind::Failure { checks, timed_out } => {
                let variant = alert.place.variant.replace(',', " ");
                let place = [&alert.place.case, &variant, &alert.place.kernel].map(String::as_str);
                let cell = cells.get(&(place, alert.environment.as_str())).copied();
                let how = match (timed_out, checks.as_slice()) {
                    (true, _) => "did not come to an end".to_owned(),
                    (false, []) => "failed".to_owned(),
                    (false, checks) => checks.join(", "),
                };
                (cell.map(Subject::Cell), format!("{how}{}", passed(alert, environments)))
            }
        };
        Alert {
            id: alert.id.clone(),
            state: state(alert),
            subject: subject.unwrap_or_else(|| Subject::Other(alert.place.to_string())),
            what,
            last_good: alert.last_good.as_ref().and_then(run),
            first_bad,
            until: alert.until.as_ref().and_then(run),
            good_kernel: alert.last_good.as_ref().map_or_else(|| "-".to_owned(), kernel),
            bad_kernel: kernel(&alert.first_bad),
            note: triage_note(alert),
        }
    };
    found.iter().map(told).collect()
}

/// Where a failing cell had passed, if not there.
fn passed(alert: &Found, environments: &BTreeMap<String, Environment>) -> String {
    if alert.last_good.is_none() {
        return " (never passed)".to_owned();
    }
    let elsewhere = environment_change(alert, environments);
    elsewhere.map_or_else(String::new, |environment| format!(" (passed with {environment})"))
}

fn state(alert: &Found) -> AlertState {
    match alert.state {
        // Nobody has to look at what went for the better.
        State::New if !alert.is_worse() => AlertState::Improved,
        State::New => AlertState::New,
        State::Confirmed => AlertState::Confirmed,
        State::Invalid => AlertState::Invalid,
        State::Fixed => AlertState::Fixed,
    }
}

fn kernel(mark: &AlertEnd) -> String {
    kernel_name(mark.release.as_deref(), &mark.kernel).unwrap_or_else(|| "-".to_owned())
}
