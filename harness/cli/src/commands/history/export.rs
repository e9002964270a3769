//! `dmarig history export`

use std::io::{self, BufWriter, ErrorKind, Write};

use clap::{Args, ValueEnum};
use dmarig_history::{ExportFormat, ExportSelection, History, HistoryError};
use dmarig_model::text::shown;

use super::queries::SeriesOptions;
use crate::exit::{Exit, Failure};

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The format, on standard output
    #[arg(long, value_enum)]
    format: Format,
    /// Only this run [default: all; with bencher the newest]
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    #[command(flatten)]
    which: SeriesOptions,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// OpenMetrics text, for Prometheus and its like
    Openmetrics,
    /// InfluxDB's line protocol
    Influx,
    /// Bencher's metric format, of one run; it has no place for a time, which is told on standard error
    Bencher,
    /// Comma-separated values
    Csv,
}

impl Export {
    pub(super) fn execute(self, history: &History) -> Result<Exit, Failure> {
        let format = match self.format {
            Format::Openmetrics => ExportFormat::OpenMetrics,
            Format::Influx => ExportFormat::Influx,
            Format::Bencher => ExportFormat::Bencher,
            Format::Csv => ExportFormat::Csv,
        };
        let series = self.which.filter();
        if history.series(&series)?.is_empty() {
            errln!("no series of the history is like that");
        }
        if matches!(format, ExportFormat::Bencher) {
            let run = match &self.run {
                Some(run) => history.run(run).ok(),
                None => history.runs(Some(1))?.pop(),
            };
            if let Some(run) = run {
                errln!("run {}, for bencher run --backdate {}", shown(&run.id), run.started);
            }
        }
        let mut out = BufWriter::new(io::stdout().lock());
        let exported = history.export(format, &ExportSelection { series, run: self.run }, &mut out);
        match exported.and_then(|()| Ok(out.flush()?)) {
            // A reader that has gone, as `| head` does, is no error.
            Err(HistoryError::Export(error)) if error.kind() == ErrorKind::BrokenPipe => {
                Ok(Exit::Passed)
            }
            Err(error @ HistoryError::Unknown { .. }) => Err(Failure::usage(error)),
            written => Ok(written.map(|()| Exit::Passed)?),
        }
    }
}
