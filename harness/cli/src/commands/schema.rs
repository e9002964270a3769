//! `dmarig schema`

use clap::{Args, ValueEnum};

use crate::exit::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// The schema to print
    of: SchemaName,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SchemaName {
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
                SchemaName::Case => dmarig_testcases::CASE_SCHEMA,
                SchemaName::Result => dmarig_testcases::RESULT_SCHEMA,
            }
        );
        Ok(Exit::Passed)
    }
}
