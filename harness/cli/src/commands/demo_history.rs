//! `dmarig demo-history`

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use dmarig_history::{History, planted, synthetic_year};

use crate::exit::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct DemoHistory {
    /// From which the year is drawn: the same seed brings back the same file
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where to make it: DIR/history.sqlite, which must not be there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl DemoHistory {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        let file = self.out.join("history.sqlite");
        if file.exists() {
            return Err(Failure::usage(anyhow!(
                "{} is there already: remove it, or name another directory with --out",
                file.display()
            )));
        }
        let runs: Vec<_> = synthetic_year(self.seed).collect();
        let mut history = History::create(&file)?;
        history.put(&runs)?;
        errln!("made up (seed {}), nothing of it was measured:", self.seed);
        for event in planted(self.seed) {
            errln!("  nights {} to {}: {}", event.from, event.until, event.what);
        }
        outln!("{}", file.display());
        Ok(Exit::Passed)
    }
}
