//! `dmarig alerts`

use clap::{Args, Subcommand, ValueEnum};
use dmarig_history::{AlertState, History, HistoryError};
use dmarig_model::text::shown;
use dmarig_report::alerts_table;
use serde_json::json;

use super::history::{made_up, print_json};
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
            let environments = history.environments()?;
            let text = alerts_table(&all, self.all, &environments);
            print(&(text + &made_up(&history)?))?;
        }
        Ok(if self.check && new > 0 { Exit::Failed } else { Exit::Passed })
    }
}
