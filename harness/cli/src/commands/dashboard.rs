//! `dmarig dashboard`

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use dmarig_dashboard::{
    Address, DashboardError, Sources, add_records, build_dashboard, serve, why_not_added,
    write_site,
};

use crate::{
    exit::{Exit, Failure},
    options::{HistoryFile, Places},
};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("where").required(true).args(["out", "serve"]))]
pub(crate) struct Dashboard {
    #[command(flatten)]
    places: Places,
    /// Write the site into this directory, for any web server or to be opened from the disk
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Serve it on this machine, and make it anew as records come [default: 127.0.0.1:8321]
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:8321")]
    serve: Option<Address>,
    /// Serve it to other machines too, which know this one by that name (may be repeated)
    #[arg(long, value_name = "NAME", requires = "serve")]
    expose: Vec<String>,
    #[command(flatten)]
    file: HistoryFile,
    /// Show the history as it is. Otherwise recorded runs that it lacks are put into it, but not into a named
    /// one that has runs but none of those recorded here
    #[arg(long)]
    no_add: bool,
    /// Show evidence, logs and how numbers were judged of as many of the newest runs, as far as their records
    /// are there
    #[arg(long, value_name = "N", default_value_t = 60)]
    detailed: usize,
}

impl Dashboard {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        let (history, runs) = (self.file.path()?, self.places.runs()?);
        let mut add = !self.no_add;
        if add && let Some(why) = why_not_added(&history, &runs, self.file.history.is_some())? {
            errln!("{} is shown as it is: {why}", history.display());
            add = false;
        }
        let sources = Sources { history, runs, add, detailed: self.detailed };
        if let Some(directory) = &self.out {
            if sources.add {
                add_records(&sources)?;
            }
            let dashboard = build_dashboard(&sources, false).map_err(Failure::usage)?;
            let written = write_site(&dashboard, directory).map_err(failure)?;
            let megabytes = written.bytes as f64 / 1e6;
            errln!("{} files, {megabytes:.1} MB", written.files);
            outln!("{}", directory.join("index.html").display());
        }
        if let Some(address) = self.serve {
            let serving = |address: &_| {
                errln!("serving http://{address}/ until it is interrupted");
            };
            let served = serve(sources, address, &self.expose, serving);
            super::runtime()?.block_on(served).map_err(failure)?;
        }
        Ok(Exit::Passed)
    }
}

fn failure(error: DashboardError) -> Failure {
    match error {
        DashboardError::ForeignDirectory { .. } | DashboardError::NotExposed { .. } => {
            Failure::usage(error)
        }
        error => Failure::from(error),
    }
}
