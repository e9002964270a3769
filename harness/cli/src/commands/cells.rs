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
        for id in self.ids()? {
            outln!("{id}");
        }
        Ok(Exit::Passed)
    }

    /// Their ids, in the order of the matrix.
    pub(crate) fn ids(&self) -> Result<Vec<String>, Failure> {
        let selected = select(&self.selection.selection(), &self.places.open_cache()?)?;
        Ok(selected.cells.into_iter().map(|cell| cell.id).collect())
    }
}
