//! `dmarig analyze`

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context, anyhow};
use clap::Args;
use dmarig_model::{
    analysis::{ANALYSIS_SCHEMA, Analysis, analyze, of_records},
    observation::LogSource,
};
use dmarig_records::{RecordError, StoredRun};
use serde::Serialize;

use crate::{
    exit::{Exit, Failure},
    options::Places,
    output::{Screen, print},
};

/// Largest log that is read, compressed or not, in bytes.
const MAX_LOG: u64 = 256 << 20;

#[derive(Debug, Args)]
pub(crate) struct Analyze {
    #[command(flatten)]
    places: Places,
    /// A kernel log (`dmesg`, `journalctl -k`, a console, a quoted mail; also .gz, .xz, .zst), `-` for
    /// standard input, or a recorded run: its id, its directory, or `last`
    #[arg(value_name = "FILE|RUN|-")]
    source: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// One log.
#[derive(Debug, Serialize)]
struct Log {
    /// Where it is from: the file, or a cell of a run.
    name: String,
    #[serde(flatten)]
    analysis: Analysis,
}

#[derive(Debug, Serialize)]
struct Logs<'a> {
    schema: u32,
    logs: &'a [Log],
}

impl Analyze {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        let logs = self.logs()?;
        let text = if self.json {
            serde_json::to_string_pretty(&Logs { schema: ANALYSIS_SCHEMA, logs: &logs })? + "\n"
        } else {
            let Screen { width, colour } = Screen::new(100);
            // Prose is hard to read in longer lines.
            let width = usize::from(width.min(120));
            let told: Vec<String> = logs
                .iter()
                .map(|log| dmarig_report::analysis(&log.name, &log.analysis, width, colour))
                .collect();
            told.join("\n")
        };
        print(&text)?;
        // Other programs' words, such as a linker's `WARNING: `, are no kernel's.
        if logs.iter().all(|log| !log.analysis.kernel_log) {
            errln!("dmarig: {}: there is no kernel log in it", self.source);
            return Ok(Exit::Nothing);
        }
        let odd = logs.iter().any(|log| !log.analysis.odd.is_empty());
        Ok(if odd { Exit::Failed } else { Exit::Passed })
    }

    fn logs(&self) -> Result<Vec<Log>, Failure> {
        let path = Path::new(&self.source);
        let bytes = if self.source == "-" {
            read(std::io::stdin().lock()).context("can't read standard input")?
        // A pipe, too, such as a shell's `<(journalctl -k)`. A directory is a run's.
        } else if path.exists() && !path.is_dir() {
            let file = File::open(path).with_context(|| format!("can't read {}", self.source))?;
            read(file).with_context(|| format!("can't read {}", self.source))?
        } else {
            return self.recorded();
        };
        let boots = analyze(&bytes);
        let many = boots.len() > 1;
        let name = |at: usize| match many {
            true => format!("{}, boot {} of {}", self.source, at + 1, boots.len()),
            false => self.source.clone(),
        };
        let names: Vec<String> = (0..boots.len()).map(name).collect();
        Ok(names.into_iter().zip(boots).map(|(name, analysis)| Log { name, analysis }).collect())
    }

    /// The logs of a run's guests.
    fn recorded(&self) -> Result<Vec<Log>, Failure> {
        let runs = self.places.runs()?;
        let run = StoredRun::load(&self.source, &runs).map_err(|error| match error {
            RecordError::UnknownRun { .. } => {
                Failure::usage(anyhow!("there is no file {}, and as a run: {error}", self.source))
            }
            // It is there, and its logs can't be read.
            error => error.into(),
        })?;
        let cells = run.cells.iter().filter(|cell| cell.observation.log.source != LogSource::None);
        Ok(cells
            .map(|cell| {
                let log = &cell.observation.log;
                let analysis = of_records(&log.records, log.lost);
                Log { name: cell.observation.cell.clone(), analysis }
            })
            .collect())
    }
}

/// Reads at most [`MAX_LOG`] bytes, and unpacks what is compressed.
fn read(source: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_LOG + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_LOG {
        return Err(std::io::Error::other(format!(
            "it is larger than {} MiB: cut out the boot in question",
            MAX_LOG >> 20
        )));
    }
    dmarig_images::unpacked(bytes, MAX_LOG)
}
