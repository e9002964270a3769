//! How long a site of a year takes to be made, and how large it is: `cargo bench -p dmarig-dashboard`.

use std::{collections::BTreeMap, hint::black_box, time::Instant};

use dmarig_dashboard::Dashboard;

#[path = "../tests/it/demo.rs"]
mod demo;

use demo::{SMALL, YEAR};

/// Times that each is made.
const TURNS: usize = 5;

fn main() {
    for (name, demo) in
        [("40 nights, 12 series, 24 cells", SMALL), ("365 nights, 300 series, 120 cells", YEAR)]
    {
        let mut times = Vec::new();
        let mut written = Default::default();
        for _ in 0..TURNS {
            let site = demo.site();
            let began = Instant::now();
            written = Dashboard::new(site, Box::new(move |site, run| demo.details(site, run)))
                .write(|_, bytes| {
                    black_box(bytes);
                    std::io::Result::Ok(())
                })
                .expect("nothing is written");
            times.push(began.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        println!(
            "{name}: {} files, {:.1} MB, {:.2} s at best, median {:.2} s",
            written.files,
            written.bytes as f64 / 1e6,
            times[0],
            times[TURNS / 2]
        );
        let dashboard = demo.dashboard();
        let mut kinds: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for path in dashboard.paths() {
            let size = dashboard.render(&path).map_or(0, |text| text.len());
            let kind = path.split_once('/').map_or(path.clone(), |(kind, _)| format!("{kind}/"));
            let (count, largest) = kinds.entry(kind).or_default();
            (*count, *largest) = (*count + 1, (*largest).max(size));
        }
        for (kind, (count, largest)) in kinds {
            println!("  {kind:<14} {count:>4}, the largest {:.1} kB", largest as f64 / 1e3);
        }
    }
}
