//! `dmarig schema`

use clap::{Args, ValueEnum};

use crate::exit::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// Which one
    of: Which,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    /// Case files
    Case,
    /// What `run --format json` prints
    Result,
}

impl Schema {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        out!(
            "{}",
            match self.of {
                Which::Case => dmarig_testcases::CASE_SCHEMA,
                Which::Result => dmarig_testcases::RESULT_SCHEMA,
            }
        );
        Ok(Exit::Passed)
    }
}
