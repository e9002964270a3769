//! Alerts: what changed for the worse, or fails. Which there are is derived; what people said of them is not.

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
    events::{AlertEvent, AlertState, EVENT_SCHEMA, uuid},
    failures::{failure_subject, of_place},
    store::{History, HistoryError, Point, SeriesFilter},
};

/// With more points a change may be found some runs from where it was found before: within so many it is
/// the same one. Two changes are never as near as that.
const NEAR: usize = 4;

/// Digits of an alert's id.
pub(crate) const ID: usize = 12;

/// An alert.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alert {
    /// Its id, of which any beginning will do that no other alert has.
    pub id: String,
    /// Where.
    pub place: CellKey,
    /// Fingerprint of the environment.
    pub environment: String,
    /// What.
    pub what: AlertKind,
    /// The last run that was as it should be, if there is one. Where none was in this environment, it is of
    /// another one of the same machine.
    pub last_good: Option<AlertEnd>,
    /// The first that was not.
    pub first_bad: AlertEnd,
    /// The first that was as it should be again, in this environment or in one that has taken its place on the
    /// same machine.
    pub until: Option<AlertEnd>,
    /// What is thought of it: what was last said, or `fixed` of what is over, or `new`.
    pub state: AlertState,
    /// What was said last of it, and by whom.
    pub said: Option<AlertEvent>,
}

/// What an alert is about.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum AlertKind {
    /// A series changed.
    Change {
        /// Its id.
        series: String,
        /// What it is of.
        key: SeriesKey,
        /// Median before.
        before: f64,
        /// Median after.
        after: f64,
        /// Part of shufflings with a change as strong.
        p: f64,
        /// Whether that is worse; null where it is not known which is better.
        worse: Option<bool>,
    },
    /// A cell fails.
    Failure {
        /// Checks that did not hold.
        checks: Vec<String>,
        /// Whether it did not even come to an end.
        timed_out: bool,
    },
}

/// A run at one end of an alert's range.
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
    /// `uname -r` of the guest.
    pub release: Option<String>,
}

impl Alert {
    /// Whether it is news: nobody has said anything, it is not over, and it is not for the better.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.state == AlertState::New && self.is_worse()
    }

    /// Whether it is for the worse, as far as that is known.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        !matches!(self.what, AlertKind::Change { worse: Some(false), .. })
    }

    /// What it is about, as events name it.
    fn subject(&self) -> String {
        match &self.what {
            AlertKind::Change { series, .. } => series.clone(),
            AlertKind::Failure { .. } => failure_subject(&self.place, &self.environment),
        }
    }
}

impl History {
    /// All alerts, newest first. Series that have changed are searched before.
    ///
    /// Times by themselves give none: a machine's level wanders, and takes them with it. Their ratios to a
    /// reference kernel do, and counts do, which need none.
    ///
    /// # Errors
    /// [`HistoryError`]
    pub fn alerts(&mut self) -> Result<Vec<Alert>, HistoryError> {
        self.search_changes()?;
        let mut said: BTreeMap<String, Vec<AlertEvent>> = BTreeMap::new();
        for event in self.events()? {
            said.entry(event.subject.clone()).or_default().push(event);
        }
        let mut alerts = Vec::new();
        for series in self.series(&SeriesFilter::default())?.into_iter().filter(|series| {
            series.points >= 2 && series.key.reference.is_some() == (series.key.unit != "1")
        }) {
            let changes = self.changes(&series.id)?;
            if !changes.is_empty() {
                let points = self.points(&series.id)?;
                let events = said.get(&series.id).map_or(&[][..], Vec::as_slice);
                alerts.extend(of_series(&series.id, &series.key, &changes, &points, events));
            }
        }
        let environments = self.environments()?;
        for place in self.failing_places()? {
            let visits = self.visits(&place, None)?;
            alerts.extend(of_place(&place, &visits, &environments, &said));
        }
        alerts.sort_by(|a, b| {
            let key = |alert: &Alert| (alert.first_bad.started, alert.id.clone());
            key(b).cmp(&key(a))
        });
        Ok(alerts)
    }

    /// Says something of the alert whose id begins so; gives it as it is then.
    ///
    /// # Errors
    /// [`HistoryError::Unknown`] where there is none, or several; [`HistoryError::Io`] where it can't be
    /// written, and then nothing was said.
    pub fn say(
        &mut self,
        id: &str,
        state: AlertState,
        note: &str,
        author: &str,
    ) -> Result<Alert, HistoryError> {
        let all = self.alerts()?;
        let mut fitting =
            all.into_iter().filter(|alert| !id.is_empty() && alert.id.starts_with(id));
        let (Some(alert), None) = (fitting.next(), fitting.next()) else {
            return Err(self.unknown("alert", id));
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let path = self.events_file().display().to_string();
        let subject = alert.subject();
        // What holds from another environment is of a run there.
        let own = alert.said.as_ref().filter(|said| said.subject == subject);
        let event = AlertEvent {
            schema: EVENT_SCHEMA,
            id: uuid().map_err(|error| HistoryError::Io { path, error })?,
            time: i64::try_from(now.as_micros()).unwrap_or(i64::MAX),
            run: own.map_or(&alert.first_bad.run, |before| &before.run).clone(),
            subject,
            state,
            note: note.to_owned(),
            author: author.to_owned(),
        };
        self.add_events(std::slice::from_ref(&event))?;
        Ok(Alert { state, said: Some(event), ..alert })
    }

    fn failing_places(&self) -> Result<Vec<CellKey>, HistoryError> {
        let sql = "SELECT case_name, variant, kernel FROM places WHERE place IN \
             (SELECT place FROM cells WHERE outcome IN ('failed', 'timed-out')) \
             ORDER BY case_name, variant, kernel";
        self.rows(sql, (), |row| {
            Ok(CellKey { case: row.get(0)?, variant: row.get(1)?, kernel: row.get(2)? })
        })
    }
}

fn of_series(
    id: &str,
    key: &SeriesKey,
    changes: &[ChangeRow],
    points: &[Point],
    events: &[AlertEvent],
) -> Vec<Alert> {
    // A count is as it should be or it is not: any change of it is news, and that it goes back is the end
    // of that. A ratio that was better for a while and is not any more has become worse.
    let better = key.better().filter(|_| key.reference.is_some());
    let worse = |from: f64, to: f64| {
        Some(match better? {
            Better::Lower => to > from,
            Better::Higher => to < from,
        })
    };
    // The change that takes one back by more than half.
    let back = |at: usize| {
        let change = &changes[at];
        let half = f64::midpoint(change.before, change.after);
        let is_back = |later: &usize| (changes[*later].after > half) == (change.before > half);
        (at + 1..changes.len()).find(is_back)
    };
    let is_count = key.reference.is_none();
    let ends: BTreeSet<usize> = match is_count {
        true => (0..changes.len()).filter_map(back).collect(),
        false => BTreeSet::new(),
    };
    let anchors = anchors(changes, points, events);
    let mark = |at: usize| mark(&points[at], &key.environment);
    let alert = |(at, change): (usize, &ChangeRow)| {
        let said = anchors.get(&at).copied();
        let anchor = said.map_or(change.run.as_str(), |said| said.run.as_str());
        let worse = worse(change.before, change.after);
        let until = back(at).map(|later| mark(changes[later].at));
        Alert {
            id: short_id([id, anchor], ID),
            place: key.place.clone(),
            environment: key.environment.clone(),
            state: state(said, until.is_some()),
            said: said.cloned(),
            last_good: Some(mark(change.at - 1)),
            first_bad: mark(change.at),
            until,
            what: AlertKind::Change {
                series: id.to_owned(),
                key: key.clone(),
                before: change.before,
                after: change.after,
                p: change.p,
                worse,
            },
        }
    };
    changes.iter().enumerate().filter(|(at, _)| !ends.contains(at)).map(alert).collect()
}

/// The last that was said of each change. What was said is of a run; it belongs to the change that is
/// nearest to it.
fn anchors<'a>(
    changes: &[ChangeRow],
    points: &[Point],
    events: &'a [AlertEvent],
) -> BTreeMap<usize, &'a AlertEvent> {
    let mut found: BTreeMap<usize, (usize, &AlertEvent)> = BTreeMap::new();
    for event in events {
        let Some(at) = points.iter().position(|point| point.run == event.run) else { continue };
        let distances = changes.iter().enumerate().map(|(n, change)| (change.at.abs_diff(at), n));
        let Some((distance, nearest)) = distances.min().filter(|(distance, _)| *distance <= NEAR)
        else {
            continue;
        };
        // They come in the order of time: a later one takes the place of one that is as near.
        match found.get(&nearest) {
            Some((other, _)) if *other < distance => {}
            _ => {
                found.insert(nearest, (distance, event));
            }
        }
    }
    found.into_iter().map(|(at, (_, event))| (at, event)).collect()
}

/// What is thought of an alert, by what was said last. That it is new is as good as nothing.
pub(crate) fn state(said: Option<&AlertEvent>, over: bool) -> AlertState {
    match said.map(|event| event.state) {
        Some(state) if state != AlertState::New => state,
        _ if over => AlertState::Fixed,
        _ => AlertState::New,
    }
}

fn mark(point: &Point, environment: &str) -> AlertEnd {
    AlertEnd {
        run: point.run.clone(),
        started: point.started,
        environment: environment.to_owned(),
        kernel: point.build.short(),
        release: point.release.clone(),
    }
}
