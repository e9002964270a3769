//! `dmarig probe`: the device of one guest, in a process of its own. The rig starts it; by hand it
//! is started with the QEMU that it is for.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, anyhow};
use clap::Args;
use dmarig_model::probe::{Request, Settings};

use crate::exit::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct Probe {
    /// The socket to make
    #[arg(value_name = "SOCKET")]
    socket: PathBuf,
    /// How it behaves, as JSON
    #[arg(long, value_name = "JSON", default_value = "{}")]
    settings: String,
    /// A command to run once the socket is there; the probe ends with it
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Probe {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        let settings: Settings = serde_json::from_str(&self.settings)
            .map_err(|error| Failure::usage(anyhow!("--settings: {error}")))?;
        if self.command.is_empty() {
            let requests = BufReader::new(std::io::stdin());
            let served = dmarig_probe::run(&self.socket, settings, requests, std::io::stdout());
            served.map_err(anyhow::Error::from)?;
            return Ok(Exit::Passed);
        }
        beside(&self.socket, settings, &self.command)
    }
}

/// Serves a command's device until the command ends.
fn beside(
    socket: &std::path::Path,
    settings: Settings,
    words: &[OsString],
) -> Result<Exit, Failure> {
    let (requests, mut ask) = std::io::pipe().context("can't make a pipe")?;
    let (answers, replies) = std::io::pipe().context("can't make a pipe")?;
    std::thread::scope(|scope| {
        let probe = scope
            .spawn(move || dmarig_probe::run(socket, settings, BufReader::new(requests), replies));
        let mut answers = BufReader::new(answers);
        let mut first = String::new();
        let listens = answers.read_line(&mut first).is_ok_and(|length| length > 0);
        // What it says later is for nobody, but must go somewhere.
        scope.spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
        let status = listens.then(|| Command::new(&words[0]).args(&words[1..]).status());
        // The probe may be gone already, which it says itself.
        let _ = serde_json::to_writer(&mut ask, &Request::Quit);
        let _ = ask.write_all(b"\n");
        drop(ask);
        let served = probe.join().map_err(|_| anyhow!("the probe panicked"))?;
        served.map_err(anyhow::Error::from)?;
        let status = status
            .ok_or_else(|| anyhow!("the probe did not come up"))?
            .with_context(|| format!("can't start {}", words[0].display()))?;
        Ok(if status.success() { Exit::Passed } else { Exit::Failed })
    })
}
