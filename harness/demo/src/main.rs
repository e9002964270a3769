//! Writes a history of a year that is made up. No number in it was measured.

use std::path::PathBuf;

use clap::Parser;

/// Make up a year of nights as a history, marked as made up; the same for the same seed
#[derive(Debug, Parser)]
struct Arguments {
    /// Seed of all numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Directory to write history.sqlite into, which must not exist yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let Arguments { seed, out } = Arguments::parse();
    let file = dmarig_demo::write_history(&out, seed)?;
    println!("{}", file.display());
    eprintln!("made up (seed {seed}), no number was measured:");
    for event in dmarig_demo::planted(seed) {
        eprintln!("  nights {} to {}: {}", event.from, event.until, event.what);
    }
    Ok(())
}
