//! Prints the change points of series, for the comparison with other programs (`tests/peers`).
//! Reads one JSON list on each line of standard input, and writes a list of indices for each.

use std::io::{self, BufRead, Write};

use dmarig_stats::change_points::Search;

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let series: Vec<f64> = serde_json::from_str(&line?)?;
        let changes = Search::default().changes(&series).map_err(io::Error::other)?;
        let places: Vec<usize> = changes.iter().map(|change| change.at).collect();
        writeln!(out, "{}", serde_json::to_string(&places)?)?;
    }
    Ok(())
}
