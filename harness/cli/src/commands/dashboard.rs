//! `dmarig dashboard`

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use crate::{
    dashboard::{Address, Sources, add as add_records, gather, left_alone, serve, write},
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
    /// Show the history as it is. Otherwise recorded runs that it lacks are put into it, but for one that is
    /// made up, and for a named one that has runs but none of those recorded here
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
        if add && let Some(why) = left_alone(&history, &runs, self.file.history.is_some())? {
            errln!("{} is shown as it is: {why}", history.display());
            add = false;
        }
        let sources = Sources { history, runs, add, detailed: self.detailed };
        if let Some(directory) = &self.out {
            if sources.add {
                add_records(&sources)?;
            }
            let dashboard = gather(&sources, false).map_err(Failure::usage)?;
            let written = write(&dashboard, directory)?;
            let megabytes = written.bytes as f64 / 1e6;
            errln!("{} files, {megabytes:.1} MB", written.files);
            outln!("{}", directory.join("index.html").display());
        }
        if let Some(address) = self.serve {
            super::runtime()?.block_on(serve(sources, address, &self.expose))?;
        }
        Ok(Exit::Passed)
    }
}
