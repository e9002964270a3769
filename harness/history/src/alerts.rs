//! Alerts: changes of series, and cells that fail. Alerts are derived; their triage events are not.

use dmarig_digest::short_id;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

use dmarig_model::metrics::Better;
use serde::Serialize;

use crate::{
    changes::ChangeRow,
    entry::{CellKey, SeriesKey},
    error::HistoryError,
    events::{AlertEvent, AlertState, EVENT_SCHEMA, uuid},
    failures::{failure_alerts, failure_subject},
    store::{History, Point, SeriesFilter, SeriesRow},
};

/// With more points a change point may move. Up to this number of runs it is the same change; two
/// changes are always further apart.
const MAX_SHIFT: usize = 4;

/// Number of digits of an alert's id.
pub(crate) const ID_DIGITS: usize = 12;

/// A change of a series, or a cell that fails.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alert {
    /// Id. Any unique prefix is accepted.
    pub id: String,
    /// The cell.
    pub place: CellKey,
    /// Fingerprint of the environment.
    pub environment: String,
    /// What happened.
    pub what: AlertKind,
    /// The last good run before it, if there is one. If there is none in this environment, one in
    /// another environment of the same machine.
    pub last_good: Option<AlertEnd>,
    /// The first bad run.
    pub first_bad: AlertEnd,
    /// The first good run after it, in this environment or in one that replaced it on the same
    /// machine.
    pub until: Option<AlertEnd>,
    /// The state of the last event; without one, `fixed` if there is a good run after it, otherwise
    /// `new`.
    pub state: AlertState,
    /// The last event.
    pub said: Option<AlertEvent>,
}

/// What an alert reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum AlertKind {
    /// A series changed.
    Change {
        /// Id of the series.
        series: String,
        /// Key of the series.
        key: SeriesKey,
        /// Median before.
        before: f64,
        /// Median after.
        after: f64,
        /// Permutation p-value.
        p: f64,
        /// Whether it became worse; null if the better direction is unknown.
        worse: Option<bool>,
    },
    /// A cell fails.
    Failure {
        /// Checks that failed in the first bad run.
        checks: Vec<String>,
        /// Whether the cell timed out.
        timed_out: bool,
    },
}

/// A run at one end of the range of an alert.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AlertEnd {
    /// The run.
    pub run: String,
    /// When it started, in seconds since 1970.
    pub started: i64,
    /// Fingerprint of its environment.
    pub environment: String,
    /// The kernel: a commit, a package's version, or a hash of its image.
    pub kernel: String,
    /// `uname -r` in the guest.
    pub release: Option<String>,
}

impl Alert {
    /// Whether it is untriaged, not over and not an improvement.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.state == AlertState::New && self.is_worse()
    }

    /// Whether it is not known to be an improvement.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        !matches!(self.what, AlertKind::Change { worse: Some(false), .. })
    }

    /// The subject by which events refer to it.
    fn subject(&self) -> String {
        match &self.what {
            AlertKind::Change { series, .. } => series.clone(),
            AlertKind::Failure { .. } => failure_subject(&self.place, &self.environment),
        }
    }
}

impl History {
    /// All alerts, newest first. Series with new points are searched for changes first.
    ///
    /// Absolute times give no alerts, since they drift with the machine. Ratios to a reference
    /// kernel do, and counts, which do not drift.
    ///
    /// # Errors
    /// [`HistoryError`]
    pub fn alerts(&mut self) -> Result<Vec<Alert>, HistoryError> {
        self.search_changes()?;
        let mut events: BTreeMap<String, Vec<AlertEvent>> = BTreeMap::new();
        for event in self.events()? {
            events.entry(event.subject.clone()).or_default().push(event);
        }
        let mut alerts = Vec::new();
        for series in self.series(&SeriesFilter::default())? {
            let is_count = series.key.unit == "1";
            if series.points < 2 || series.key.reference.is_some() == is_count {
                continue;
            }
            let changes = self.changes(&series.id)?;
            if changes.is_empty() {
                continue;
            }
            let points = self.points(&series.id)?;
            let events = events.get(&series.id).map_or(&[][..], Vec::as_slice);
            alerts.extend(change_alerts(&series, &changes, &points, events));
        }
        let environments = self.environments()?;
        for key in self.failing_cells()? {
            let visits = self.visits(&key, None)?;
            alerts.extend(failure_alerts(&key, &visits, &environments, &events));
        }
        alerts.sort_by(|a, b| (b.first_bad.started, &b.id).cmp(&(a.first_bad.started, &a.id)));
        Ok(alerts)
    }

    /// Sets the state of the alert with this prefix of its id, and returns the changed alert.
    ///
    /// # Errors
    /// [`HistoryError::Unknown`] if no alert or several have this prefix; [`HistoryError::Io`] if
    /// the event can't be written, and then the state is unchanged.
    pub fn set_alert_state(
        &mut self,
        id: &str,
        state: AlertState,
        note: &str,
        author: &str,
    ) -> Result<Alert, HistoryError> {
        let mut alerts = self.alerts()?;
        alerts.retain(|alert| !id.is_empty() && alert.id.starts_with(id));
        let (Some(alert), true) = (alerts.pop(), alerts.is_empty()) else {
            return Err(self.unknown("alert", id));
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let subject = alert.subject();
        // An event that was taken over from another environment names a run of that environment.
        let own_event = alert.said.as_ref().filter(|event| event.subject == subject);
        let event = AlertEvent {
            schema: EVENT_SCHEMA,
            id: uuid().map_err(HistoryError::io(&self.events_file()))?,
            time: i64::try_from(now.as_micros()).unwrap_or(i64::MAX),
            run: own_event.map_or(&alert.first_bad.run, |event| &event.run).clone(),
            subject,
            state,
            note: note.to_owned(),
            author: author.to_owned(),
        };
        self.add_events(std::slice::from_ref(&event))?;
        Ok(Alert { state, said: Some(event), ..alert })
    }

    fn failing_cells(&self) -> Result<Vec<CellKey>, HistoryError> {
        let sql = "SELECT case_name, variant, kernel FROM places WHERE place IN \
             (SELECT place FROM cells WHERE outcome IN ('failed', 'timed-out')) \
             ORDER BY case_name, variant, kernel";
        self.rows(sql, (), |row| {
            Ok(CellKey { case: row.get(0)?, variant: row.get(1)?, kernel: row.get(2)? })
        })
    }
}

fn change_alerts(
    series: &SeriesRow,
    changes: &[ChangeRow],
    points: &[Point],
    events: &[AlertEvent],
) -> Vec<Alert> {
    let SeriesRow { id, key, .. } = series;
    // For a count, any change is worth an alert, and its reversal ends that alert. For a ratio, the
    // reversal of an improvement is a regression of its own.
    let mut reversals = BTreeSet::new();
    if key.reference.is_none() {
        reversals.extend((0..changes.len()).filter_map(|index| reversal(changes, index)));
    }
    let events = latest_events(changes, points, events);
    let mut alerts = Vec::new();
    for (index, change) in changes.iter().enumerate() {
        if reversals.contains(&index) {
            continue;
        }
        let event = events.get(&index).copied();
        let anchor = event.map_or(change.run.as_str(), |event| event.run.as_str());
        let end = |at: usize| alert_end(&points[at], &key.environment);
        let until = reversal(changes, index).map(|later| end(changes[later].at));
        alerts.push(Alert {
            id: short_id([id, anchor], ID_DIGITS),
            place: key.place.clone(),
            environment: key.environment.clone(),
            state: state(event, until.is_some()),
            said: event.cloned(),
            last_good: Some(end(change.at - 1)),
            first_bad: end(change.at),
            until,
            what: AlertKind::Change {
                series: id.clone(),
                key: key.clone(),
                before: change.before,
                after: change.after,
                p: change.p,
                worse: is_worse(key, change),
            },
        });
    }
    alerts
}

/// Whether a ratio became worse; `None` for counts, and if the better direction is unknown.
fn is_worse(key: &SeriesKey, change: &ChangeRow) -> Option<bool> {
    key.reference.as_ref()?;
    Some(match key.better()? {
        Better::Lower => change.after > change.before,
        Better::Higher => change.after < change.before,
    })
}

/// The next change that reverses more than half of a change.
fn reversal(changes: &[ChangeRow], index: usize) -> Option<usize> {
    let change = &changes[index];
    let half = f64::midpoint(change.before, change.after);
    let is_reversal = |later: &usize| (changes[*later].after > half) == (change.before > half);
    (index + 1..changes.len()).find(is_reversal)
}

/// The latest event of each change. An event names a run; it belongs to the change nearest to that
/// run.
fn latest_events<'a>(
    changes: &[ChangeRow],
    points: &[Point],
    events: &'a [AlertEvent],
) -> BTreeMap<usize, &'a AlertEvent> {
    let mut latest: BTreeMap<usize, (usize, &AlertEvent)> = BTreeMap::new();
    for event in events {
        let Some(at) = points.iter().position(|point| point.run == event.run) else { continue };
        let distances =
            changes.iter().enumerate().map(|(index, change)| (change.at.abs_diff(at), index));
        let Some((distance, nearest)) = distances.min() else { continue };
        if distance > MAX_SHIFT {
            continue;
        }
        // Events are sorted by time: a later one replaces an earlier one that is not nearer.
        let is_nearer = |(other, _): &(usize, &AlertEvent)| *other < distance;
        if !latest.get(&nearest).is_some_and(is_nearer) {
            latest.insert(nearest, (distance, event));
        }
    }
    latest.into_iter().map(|(index, (_, event))| (index, event)).collect()
}

/// The state of an alert by its last event. An event with the state `new` counts as none.
pub(crate) fn state(event: Option<&AlertEvent>, is_over: bool) -> AlertState {
    match event.map(|event| event.state) {
        Some(state) if state != AlertState::New => state,
        _ if is_over => AlertState::Fixed,
        _ => AlertState::New,
    }
}

fn alert_end(point: &Point, environment: &str) -> AlertEnd {
    AlertEnd {
        run: point.run.clone(),
        started: point.started,
        environment: environment.to_owned(),
        kernel: point.build.short(),
        release: point.release.clone(),
    }
}
