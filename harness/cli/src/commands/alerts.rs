//! `dmarig alerts`

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueEnum};
use dmarig_history::{Alert, AlertEnd, AlertKind, AlertState, History, HistoryError};
use dmarig_model::text::shown;
use dmarig_records::{Environment, utc};
use dmarig_report::{environment_change, kernel_name, number::quantity, triage_note};
use serde_json::json;

use super::history::{made_up, print_json, rendered, table};
use crate::{
    exit::{Exit, Failure},
    options::HistoryFile,
    output::print,
};

#[derive(Debug, Args)]
pub(crate) struct Alerts {
    #[command(flatten)]
    file: HistoryFile,
    /// Those that are fixed, invalid, or for the better, too
    #[arg(long)]
    all: bool,
    /// Exit with 1 where there is a new one
    #[arg(long)]
    check: bool,
    /// One JSON document, with all of them
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say what is thought of an alert
    Set {
        /// Its id, or the beginning of it
        #[arg(value_name = "ID")]
        id: String,
        /// What is thought of it
        #[arg(value_enum, value_name = "STATE")]
        state: State,
        /// Why
        #[arg(long, default_value = "")]
        note: String,
        /// Who says so
        #[arg(long, env = "USER", hide_env = true, default_value = "")]
        author: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    /// Nothing was said
    New,
    /// It is as it looks
    Confirmed,
    /// It is noise, or a machine's trouble
    Invalid,
    /// It is over
    Fixed,
}

impl From<State> for AlertState {
    fn from(state: State) -> Self {
        match state {
            State::New => Self::New,
            State::Confirmed => Self::Confirmed,
            State::Invalid => Self::Invalid,
            State::Fixed => Self::Fixed,
        }
    }
}

impl Alerts {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        let mut history = History::open(&self.file.path()?)?;
        if let Some(Action::Set { id, state, note, author }) = &self.action {
            let said = history.set_alert_state(id, (*state).into(), note, author).map_err(|error| match error {
                HistoryError::Unknown { .. } => Failure::usage(anyhow::anyhow!(
                    "there is no alert whose id begins with `{}`, or several: `dmarig alerts --all` lists them",
                    shown(id)
                )),
                error => error.into(),
            })?;
            errln!("alert {} is {}", said.id, said.state.name());
            return Ok(Exit::Passed);
        }
        let all = history.alerts()?;
        let new = all.iter().filter(|alert| alert.is_new()).count();
        if self.json {
            print_json(&json!({ "history": history.summary()?, "new": new, "alerts": all }))?;
        } else {
            self.tell(&history, &all, new)?;
        }
        Ok(if self.check && new > 0 { Exit::Failed } else { Exit::Passed })
    }

    fn tell(&self, history: &History, all: &[Alert], new: usize) -> Result<(), Failure> {
        let open = |alert: &&Alert| match alert.state {
            AlertState::New => alert.is_worse(),
            AlertState::Confirmed => true,
            AlertState::Invalid | AlertState::Fixed => false,
        };
        let told: Vec<&Alert> = all.iter().filter(|alert| self.all || open(alert)).collect();
        let environments = history.environments()?;
        let heads = ["alert", "state", "since", "until", "what", "good", "bad", "where", "said"];
        let mut table = table(heads);
        for alert in &told {
            table.add_row([
                alert.id.clone(),
                alert.state.name().to_owned(),
                utc(alert.first_bad.started),
                alert.until.as_ref().map_or_else(|| "-".to_owned(), |until| utc(until.started)),
                what(alert),
                good(alert, &environments),
                kernel(&alert.first_bad),
                shown(&alert.place.to_string()),
                shown(&triage_note(alert)),
            ]);
        }
        let mut text = if told.is_empty() { String::new() } else { rendered(&table) + "\n" };
        let others = all.len() - told.len();
        text.push_str(&format!("{new} new, {} shown", told.len()));
        if others > 0 {
            text.push_str(&format!(", {others} more with --all"));
        }
        text.push('\n');
        print(&(text + &made_up(history)?))
    }
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
