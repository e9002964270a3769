//! Runs the smoke case through the library: `cargo run -p dmarig-runner --example smoke [KERNEL]`.
//! The record goes to a temporary directory and is read back.

use std::process::ExitCode;

use dmarig_images::Cache;
use dmarig_model::observation::Outcome;
use dmarig_records::StoredRun;
use dmarig_runner::{Event, Reporter, RunRequest, request::Selection, run};
use tokio::sync::watch;

/// Prints a line when a cell starts and when it ends.
struct Lines;

impl Reporter for Lines {
    fn report(&self, event: &Event<'_>) {
        match event {
            Event::Note(text) => println!("note: {text}"),
            Event::CellStarted(cell) => println!("started: {}", cell.id),
            Event::CellFinished(cell, record) => {
                println!("{}: {}", record.verdict.outcome.name(), cell.id);
            }
            _ => {}
        }
    }
}

// QEMU dies with the thread that starts it, so everything runs on this one.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let runs = tempfile::tempdir()?;
    let request = RunRequest {
        selection: Selection {
            cases: vec!["smoke".to_owned()],
            kernels: std::env::args().skip(1).collect(),
            ..Selection::default()
        },
        jobs: None,
        runs: runs.path().to_owned(),
        command: Vec::new(),
        options: None,
    };
    let cache = Cache::open(None)?;
    let (_interrupt, interrupted) = watch::channel(false);
    let finished = run(&request, &cache, &interrupted, &Lines).await?;
    let stored = StoredRun::read(&finished.directory)?;
    println!("{} cells in the record of run {}", stored.cells.len(), stored.meta.id);
    let passed = finished.outcome.cells.iter().all(|cell| cell.verdict.outcome == Outcome::Passed);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
