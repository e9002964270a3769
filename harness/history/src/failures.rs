//! Alerts of cells that fail. Failures without a pass between them, in one environment, are a span.
//! Spans in several environments of one machine may continue each other, since an update of the
//! host changes its environment.

use dmarig_digest::short_id;
use dmarig_records::Environment;
use std::collections::{BTreeMap, BTreeSet};

use dmarig_model::observation::Outcome;

use crate::{
    alerts::{Alert, AlertEnd, AlertKind, ID_DIGITS, state},
    entry::CellKey,
    events::{AlertEvent, AlertState},
    store::CellVisit,
};

/// The subject of a failure's alert, by which events refer to it.
pub(crate) fn failure_subject(place: &CellKey, environment: &str) -> String {
    short_id(["failure", &place.case, &place.variant, &place.kernel, environment], 20)
}

/// The alerts of a cell. `visits` are all its visits, oldest first.
pub(crate) fn failure_alerts(
    key: &CellKey,
    visits: &[CellVisit],
    environments: &BTreeMap<String, Environment>,
    events: &BTreeMap<String, Vec<AlertEvent>>,
) -> Vec<Alert> {
    let timeline = FailureTimeline::new(visits, environments);
    let mut spans = timeline.spans();
    for span in &mut spans {
        span.event = timeline.last_event(key, span, events);
    }
    for index in 0..spans.len() {
        spans[index].continues = timeline.continued_span(&spans, index);
    }
    let reported = (0..spans.len()).filter(|index| !is_covered(&spans, *index));
    reported.map(|index| timeline.alert(key, &spans, index)).collect()
}

/// Failures of one environment without a pass between them. Visits are given by their index in the
/// timeline.
struct FailureSpan<'a> {
    environment: &'a str,
    /// The failures.
    bad: Vec<usize>,
    /// The last pass before them, in this environment.
    good: Option<usize>,
    /// The first pass after them.
    until: Option<usize>,
    /// The last event of its alert.
    event: Option<&'a AlertEvent>,
    /// Index of the first of the spans that this one continues in a new environment.
    continues: Option<usize>,
}

/// Whether a span needs no alert, since it continues a span with an alert that does not end
/// earlier. A span with an event always keeps its alert.
fn is_covered(spans: &[FailureSpan<'_>], index: usize) -> bool {
    let span = &spans[index];
    let Some(first) = span.continues else { return false };
    if span.event.is_some() {
        return false;
    }
    match (span.until, spans[first].until) {
        (_, None) => true,
        (Some(own), Some(other)) => own <= other,
        (None, Some(_)) => false,
    }
}

/// The visits of a cell with an outcome that depends on the kernel, oldest first.
struct FailureTimeline<'a> {
    visits: Vec<&'a CellVisit>,
    /// Indices of visits, by environment.
    by_environment: BTreeMap<&'a str, Vec<usize>>,
    environments: &'a BTreeMap<String, Environment>,
}

impl<'a> FailureTimeline<'a> {
    fn new(visits: &'a [CellVisit], environments: &'a BTreeMap<String, Environment>) -> Self {
        let depends_on_kernel =
            |outcome| matches!(outcome, Outcome::Passed | Outcome::Failed | Outcome::TimedOut);
        let visits: Vec<&CellVisit> =
            visits.iter().filter(|visit| depends_on_kernel(visit.outcome)).collect();
        let mut by_environment: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, visit) in visits.iter().enumerate() {
            by_environment.entry(&visit.environment).or_default().push(index);
        }
        Self { visits, by_environment, environments }
    }

    fn passed(&self, visit: usize) -> bool {
        self.visits[visit].outcome == Outcome::Passed
    }

    /// All spans, in the order in which they begin.
    fn spans(&self) -> Vec<FailureSpan<'a>> {
        let mut spans = Vec::new();
        for (environment, visits) in &self.by_environment {
            let groups: Vec<&[usize]> =
                visits.chunk_by(|a, b| self.passed(*a) == self.passed(*b)).collect();
            for (index, group) in groups.iter().enumerate() {
                if self.passed(group[0]) {
                    continue;
                }
                let before = index.checked_sub(1).and_then(|before| groups[before].last());
                let after = groups.get(index + 1).map(|after| after[0]);
                spans.push(FailureSpan {
                    environment,
                    bad: group.to_vec(),
                    good: before.copied(),
                    until: after.or_else(|| self.pass_in_successor(environment)),
                    event: None,
                    continues: None,
                });
            }
        }
        spans.sort_by_key(|span| span.bad[0]);
        spans
    }

    /// The last event that names a run of a span. The alert's id is made of that run, so it stays
    /// the same if older runs are merged in.
    fn last_event<'e>(
        &self,
        key: &CellKey,
        span: &FailureSpan<'_>,
        events: &'e BTreeMap<String, Vec<AlertEvent>>,
    ) -> Option<&'e AlertEvent> {
        let events = events.get(&failure_subject(key, span.environment))?;
        let is_in_span =
            |event: &&AlertEvent| span.bad.iter().any(|visit| self.visits[*visit].run == event.run);
        events.iter().rev().find(is_in_span)
    }

    /// The visits of each other environment of the same machine.
    fn other_environments(&self, environment: &str) -> impl Iterator<Item = &[usize]> {
        let machine = |name: &str| self.environments.get(name).and_then(Environment::machine);
        let own = machine(environment);
        let is_other =
            move |name: &&str| own.is_some() && *name != environment && machine(name) == own;
        let others = self.by_environment.iter().filter(move |(name, _)| is_other(name));
        others.map(|(_, visits)| visits.as_slice())
    }

    /// The first pass in an environment that has replaced this one. An environment with visits in
    /// the same period, such as that of another QEMU that runs each night, has not.
    fn pass_in_successor(&self, environment: &str) -> Option<usize> {
        let own = self.by_environment.get(environment)?;
        let (first, last) = (*own.first()?, *own.last()?);
        let run = |visit: usize| self.visits[visit].run.as_str();
        let overlaps = |visit: &usize| {
            (first..=last).contains(visit) || [run(first), run(last)].contains(&run(*visit))
        };
        let successors =
            self.other_environments(environment).filter(|visits| !visits.iter().any(overlaps));
        let passes = successors
            .filter_map(|visits| visits.iter().find(|at| **at > last && self.passed(**at)));
        passes.min().copied()
    }

    /// The span that a span continues: it began with the first visit of an environment, while the
    /// same checks failed in another environment of the machine. The first one of a chain of such
    /// spans. A span that was marked as fixed is not continued: the failure has come back.
    fn continued_span(&self, spans: &[FailureSpan<'_>], index: usize) -> Option<usize> {
        let span = &spans[index];
        let began = span.bad[0];
        if span.good.is_some() {
            return None;
        }
        let others: BTreeSet<usize> =
            self.other_environments(span.environment).flatten().copied().collect();
        let mut latest = None;
        for (index, candidate) in spans[..index].iter().enumerate() {
            let Some(last) = candidate.bad.iter().rev().find(|visit| **visit < began) else {
                continue;
            };
            let is_open = candidate.until.is_none_or(|until| until > began);
            let is_same = self.symptom(*last) == self.symptom(began);
            if others.contains(last) && is_open && is_same {
                latest = latest.max(Some((*last, index)));
            }
        }
        let (_, before) = latest?;
        let first = spans[before].continues.unwrap_or(before);
        let is_fixed =
            |index: usize| spans[index].event.is_some_and(|event| event.state == AlertState::Fixed);
        if is_fixed(before) || is_fixed(first) { None } else { Some(first) }
    }

    /// What makes two failures the same: whether the cell timed out, and which checks failed.
    fn symptom(&self, visit: usize) -> (bool, BTreeSet<&str>) {
        let visit = self.visits[visit];
        let checks = visit.checks.iter().map(String::as_str).collect();
        (visit.outcome == Outcome::TimedOut, checks)
    }

    fn alert(&self, key: &CellKey, spans: &[FailureSpan<'_>], index: usize) -> Alert {
        let span = &spans[index];
        let bad = self.visits[span.bad[0]];
        let anchor = span.event.map_or(&bad.run, |event| &event.run);
        let last_good = span.good.or_else(|| self.last_pass_elsewhere(span));
        // The event of a failure also holds in a new environment.
        let event = span.event.or_else(|| spans[span.continues?].event);
        Alert {
            id: short_id([failure_subject(key, span.environment).as_str(), anchor], ID_DIGITS),
            place: key.clone(),
            environment: span.environment.to_owned(),
            what: AlertKind::Failure {
                checks: bad.checks.clone(),
                timed_out: bad.outcome == Outcome::TimedOut,
            },
            last_good: last_good.map(|visit| alert_end(self.visits[visit])),
            first_bad: alert_end(bad),
            until: span.until.map(|visit| alert_end(self.visits[visit])),
            state: state(event, span.until.is_some()),
            said: event.cloned(),
        }
    }

    /// The last pass before a span in other environments of the machine.
    fn last_pass_elsewhere(&self, span: &FailureSpan<'_>) -> Option<usize> {
        let visits = self.other_environments(span.environment).flatten();
        visits.filter(|visit| **visit < span.bad[0] && self.passed(**visit)).max().copied()
    }
}

fn alert_end(visit: &CellVisit) -> AlertEnd {
    AlertEnd {
        run: visit.run.clone(),
        started: visit.started,
        environment: visit.environment.clone(),
        kernel: visit.build.short(),
        release: visit.release.clone(),
    }
}
