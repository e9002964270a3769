//! Reads series from standard input, each a JSON list on a line of its own, and writes the indices of
//! their changes likewise: for comparison with other programs (`tests/peers`).

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
