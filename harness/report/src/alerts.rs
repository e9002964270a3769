//! The table of alerts.

use std::collections::BTreeMap;

use dmarig_history::{Alert, AlertEnd, AlertKind, AlertState};
use dmarig_model::text::shown;
use dmarig_records::{Environment, utc};

use crate::{
    environment_change,
    history_tables::{rendered, table},
    kernel_name,
    number::quantity,
    triage_note,
};

/// Alerts as a table: those that are open, or `every` one, with the number of those that are not shown.
/// `environments` are those of the history, by fingerprint.
#[must_use]
pub fn alerts_table(
    all: &[Alert],
    every: bool,
    environments: &BTreeMap<String, Environment>,
) -> String {
    let is_open = |alert: &Alert| match alert.state {
        AlertState::New => alert.is_worse(),
        AlertState::Confirmed => true,
        AlertState::Invalid | AlertState::Fixed => false,
    };
    let listed: Vec<&Alert> = all.iter().filter(|alert| every || is_open(alert)).collect();
    let heads = ["alert", "state", "since", "until", "what", "good", "bad", "where", "said"];
    let mut table = table(heads);
    for alert in &listed {
        table.add_row([
            alert.id.clone(),
            alert.state.name().to_owned(),
            utc(alert.first_bad.started),
            alert.until.as_ref().map_or_else(|| "-".to_owned(), |until| utc(until.started)),
            what(alert),
            good(alert, environments),
            kernel(&alert.first_bad),
            shown(&alert.place.to_string()),
            shown(&triage_note(alert)),
        ]);
    }
    let mut text = if listed.is_empty() { String::new() } else { rendered(&table) + "\n" };
    let new = all.iter().filter(|alert| alert.is_new()).count();
    text.push_str(&format!("{new} new, {} shown", listed.len()));
    let others = all.len() - listed.len();
    if others > 0 {
        text.push_str(&format!(", {others} more with --all"));
    }
    text.push('\n');
    text
}

fn what(alert: &Alert) -> String {
    match &alert.what {
        AlertKind::Change { key, before, after, worse, .. } => {
            let unit = key.value_unit();
            let (from, to) = (quantity(*before, unit), quantity(*after, unit));
            let percent = (after / before - 1.0) * 100.0;
            let percent =
                if percent.is_finite() { format!(" ({percent:+.1} %)") } else { String::new() };
            let better = if *worse == Some(false) { ", better" } else { "" };
            let of = key.reference.as_deref().and_then(|name| name.split('@').next());
            let of = of.map_or_else(String::new, |name| format!(" / {}", shown(name)));
            format!("{}{of} {from} -> {to}{percent}{better}", shown(&key.metric))
        }
        AlertKind::Failure { timed_out: true, .. } => "timed out".to_owned(),
        AlertKind::Failure { checks, .. } => format!("failed: {}", shown(&checks.join(", "))),
    }
}

/// The kernel at the good end, and what ran it where that was another environment.
fn good(alert: &Alert, environments: &BTreeMap<String, Environment>) -> String {
    let Some(mark) = &alert.last_good else { return "never passed".to_owned() };
    match environment_change(alert, environments) {
        Some(environment) => format!("{} with {environment}", kernel(mark)),
        None => kernel(mark),
    }
}

fn kernel(mark: &AlertEnd) -> String {
    kernel_name(mark.release.as_deref(), &mark.kernel).unwrap_or_else(|| "-".to_owned())
}
