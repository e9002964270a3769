//! `dmarig cells`

use clap::Args;

use crate::{
    cases::{open_cache, select},
    exit::{Exit, Failure},
    options::{Places, Selection},
};

#[derive(Debug, Args)]
pub(crate) struct Cells {
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    selection: Selection,
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
        let selected = select(&self.selection, &open_cache(&self.places)?)?;
        Ok(selected.cells.into_iter().map(|cell| cell.id).collect())
    }
}
