//! Cells that fail, as alerts: each row of failures in one environment, and how those of a machine's
//! environments belong together, of which one follows the other where a host is kept up to date.

use dmarig_digest::short_id;
use dmarig_records::Environment;
use std::collections::{BTreeMap, BTreeSet};

use dmarig_model::observation::Outcome;

use crate::{
    alerts::{Alert, AlertEnd, AlertKind, ID, state},
    entry::CellKey,
    events::{AlertEvent, AlertState},
    store::CellVisit,
};

/// What an alert is about, as events name it.
pub(crate) fn failure_subject(place: &CellKey, environment: &str) -> String {
    short_id(["failure", &place.case, &place.variant, &place.kernel, environment], 20)
}

/// The alerts of a place, of which these are all visits, oldest first.
pub(crate) fn of_place(
    place: &CellKey,
    visits: &[CellVisit],
    environments: &BTreeMap<String, Environment>,
    said: &BTreeMap<String, Vec<AlertEvent>>,
) -> Vec<Alert> {
    let lasting = FailureTimeline::new(visits, environments);
    let mut rows = lasting.rows();
    for row in &mut rows {
        row.said = of_row(place, row, &lasting, said);
    }
    for at in 0..rows.len() {
        rows[at].continues = lasting.continued(&rows, at);
    }
    let told = (0..rows.len()).filter(|at| !is_told_by_another(&rows, *at));
    told.map(|at| lasting.alert(place, &rows, at)).collect()
}

/// Failures of one environment with no pass between them. Visits are named by their place in time.
struct FailureSpan<'a> {
    environment: &'a str,
    bad: Vec<usize>,
    /// The pass before, in this environment.
    good: Option<usize>,
    /// The pass after.
    until: Option<usize>,
    /// What was said last of it.
    said: Option<&'a AlertEvent>,
    /// The first of the rows that it goes on with in a new environment.
    continues: Option<usize>,
}

/// What was said last of a row. It is of a run of it, by which the alert keeps its id where older runs come
/// in from elsewhere.
fn of_row<'a>(
    place: &CellKey,
    row: &FailureSpan<'_>,
    lasting: &FailureTimeline<'_>,
    said: &'a BTreeMap<String, Vec<AlertEvent>>,
) -> Option<&'a AlertEvent> {
    let events = said.get(&failure_subject(place, row.environment))?;
    let is_of_row =
        |event: &&AlertEvent| row.bad.iter().any(|visit| lasting.visits[*visit].run == event.run);
    events.iter().rev().find(is_of_row)
}

/// Whether a row needs no alert of its own: it goes on with another, whose alert is over no sooner. What
/// somebody said of a row keeps its alert.
fn is_told_by_another(rows: &[FailureSpan<'_>], at: usize) -> bool {
    let row = &rows[at];
    let Some(first) = row.continues.filter(|_| row.said.is_none()) else { return false };
    match (row.until, rows[first].until) {
        (_, None) => true,
        (Some(own), Some(other)) => own <= other,
        (None, Some(_)) => false,
    }
}

/// A place's visits that tell something of the kernel, oldest first.
struct FailureTimeline<'a> {
    visits: Vec<&'a CellVisit>,
    /// Which are of which environment.
    of: BTreeMap<&'a str, Vec<usize>>,
    environments: &'a BTreeMap<String, Environment>,
}

impl<'a> FailureTimeline<'a> {
    fn new(visits: &'a [CellVisit], environments: &'a BTreeMap<String, Environment>) -> Self {
        let tells =
            |outcome| matches!(outcome, Outcome::Passed | Outcome::Failed | Outcome::TimedOut);
        let visits: Vec<&CellVisit> = visits.iter().filter(|visit| tells(visit.outcome)).collect();
        let mut of: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, visit) in visits.iter().enumerate() {
            of.entry(&visit.environment).or_default().push(at);
        }
        Self { visits, of, environments }
    }

    fn passed(&self, visit: usize) -> bool {
        self.visits[visit].outcome == Outcome::Passed
    }

    /// All rows, in the order in which they begin.
    fn rows(&self) -> Vec<FailureSpan<'a>> {
        let mut rows = Vec::new();
        for (environment, visits) in &self.of {
            let groups: Vec<&[usize]> =
                visits.chunk_by(|a, b| self.passed(*a) == self.passed(*b)).collect();
            for (at, group) in groups.iter().enumerate().filter(|(_, group)| !self.passed(group[0]))
            {
                let until = groups.get(at + 1).map(|after| after[0]);
                rows.push(FailureSpan {
                    environment,
                    bad: group.to_vec(),
                    good: at.checked_sub(1).and_then(|before| groups[before].last().copied()),
                    until: until.or_else(|| self.passed_since(environment)),
                    said: None,
                    continues: None,
                });
            }
        }
        rows.sort_by_key(|row| row.bad[0]);
        rows
    }

    /// The visits of each other environment of the same machine.
    fn beside(&self, environment: &str) -> impl Iterator<Item = &[usize]> {
        let machine = |of: &str| self.environments.get(of).and_then(Environment::machine);
        let own = machine(environment);
        let is_beside = move |of: &&str| own.is_some() && *of != environment && machine(of) == own;
        self.of.iter().filter(move |(of, _)| is_beside(of)).map(|(_, visits)| visits.as_slice())
    }

    /// The first pass in an environment that has taken this one's place. One that was there meanwhile, such
    /// as another QEMU that runs each night as well, has not.
    fn passed_since(&self, environment: &str) -> Option<usize> {
        let own = self.of.get(environment)?;
        let (first, last) = (*own.first()?, *own.last()?);
        let run = |visit: usize| self.visits[visit].run.as_str();
        let meanwhile = |visit: &usize| {
            (first..=last).contains(visit) || [run(first), run(last)].contains(&run(*visit))
        };
        let successors = self.beside(environment).filter(|visits| !visits.iter().any(meanwhile));
        let passes = successors
            .filter_map(|visits| visits.iter().find(|at| **at > last && self.passed(**at)));
        passes.min().copied()
    }

    /// The row that a failure goes on with where it is that of an environment's first visit: on the same
    /// machine the same checks were broken before, and still are as far as is known. The first of several
    /// that go on with each other; one that was said to be fixed has come back instead.
    fn continued(&self, rows: &[FailureSpan<'_>], at: usize) -> Option<usize> {
        let row = &rows[at];
        let began = row.bad[0];
        if row.good.is_some() {
            return None;
        }
        let beside: BTreeSet<usize> = self.beside(row.environment).flatten().copied().collect();
        let last_before = |(other, candidate): (usize, &FailureSpan<'_>)| {
            let last = *candidate.bad.iter().rev().find(|visit| **visit < began)?;
            let is_open = candidate.until.is_none_or(|until| until > began);
            let is_same = self.symptom(last) == self.symptom(began);
            (beside.contains(&last) && is_open && is_same).then_some((last, other))
        };
        let (_, before) = rows[..at].iter().enumerate().filter_map(last_before).max()?;
        let first = rows[before].continues.unwrap_or(before);
        let fixed = [before, first].into_iter().filter_map(|row| rows[row].said);
        (!fixed.map(|said| said.state).any(|state| state == AlertState::Fixed)).then_some(first)
    }

    /// What a failure is known by.
    fn symptom(&self, visit: usize) -> (bool, BTreeSet<&str>) {
        let visit = self.visits[visit];
        let checks = visit.checks.iter().map(String::as_str).collect();
        (visit.outcome == Outcome::TimedOut, checks)
    }

    fn alert(&self, place: &CellKey, rows: &[FailureSpan<'_>], at: usize) -> Alert {
        let row = &rows[at];
        let bad = self.visits[row.bad[0]];
        let anchor = row.said.map_or(&bad.run, |said| &said.run);
        let elsewhere = || {
            let passes = self.beside(row.environment).flatten();
            passes.filter(|visit| **visit < row.bad[0] && self.passed(**visit)).max().copied()
        };
        // What was said of a failure holds in a new environment, too.
        let said = row.said.or_else(|| rows[row.continues?].said);
        Alert {
            id: short_id([failure_subject(place, row.environment).as_str(), anchor], ID),
            place: place.clone(),
            environment: row.environment.to_owned(),
            what: AlertKind::Failure {
                checks: bad.checks.clone(),
                timed_out: bad.outcome == Outcome::TimedOut,
            },
            last_good: row.good.or_else(elsewhere).map(|visit| mark(self.visits[visit])),
            first_bad: mark(bad),
            until: row.until.map(|visit| mark(self.visits[visit])),
            state: state(said, row.until.is_some()),
            said: said.cloned(),
        }
    }
}

fn mark(visit: &CellVisit) -> AlertEnd {
    AlertEnd {
        run: visit.run.clone(),
        started: visit.started,
        environment: visit.environment.clone(),
        kernel: visit.build.short(),
        release: visit.release.clone(),
    }
}
