//! Writes a synthetic history of a year. No number in it was measured.

use std::path::PathBuf;

use clap::Parser;

/// Write a synthetic history of a year; the same seed gives the same history
#[derive(Debug, Parser)]
struct Arguments {
    /// Random seed of all numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Directory for history.sqlite, which must not exist yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let Arguments { seed, out } = Arguments::parse();
    let file = dmarig_demo::write_history(&out, seed)?;
    println!("{}", file.display());
    eprintln!("synthetic (seed {seed}), no number was measured; planted changes:");
    for event in dmarig_demo::planted_changes(seed) {
        eprintln!("  nights {} to {}: {}", event.from, event.until, event.what);
    }
    Ok(())
}
