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
        let selected = select(&self.selection, &open_cache(&self.places)?)?;
        for cell in &selected.cells {
            println!("{}", cell.id);
        }
        Ok(Exit::Passed)
    }
}
