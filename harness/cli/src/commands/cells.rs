//! `dmarig cells`

use clap::Args;

use dmarig_runner::select::select;

use crate::{
    exit::{Exit, Failure},
    options::{Places, SelectionOptions},
};

#[derive(Debug, Args)]
pub(crate) struct Cells {
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    selection: SelectionOptions,
}

impl Cells {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        let selected = select(&self.selection.selection(), &self.places.open_cache()?)?;
        for cell in selected.cells {
            outln!("{}", cell.id);
        }
        Ok(Exit::Passed)
    }
}
