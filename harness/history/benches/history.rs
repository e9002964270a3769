//! Benchmark of adding a night to a history with a million samples, and of reading a series: each
//! must take less than 100 ms.
//!
//! `cargo bench -p dmarig-history --bench history`

use std::{
    hint::black_box,
    path::{Path, PathBuf},
    time::Instant,
};

#[path = "../tests/it/recorded_cells.rs"]
mod recorded_cells;

use dmarig_demo::synthetic_year;
use dmarig_history::{
    CellEntry, CellKey, DERIVATION_VERSION, History, ImportOptions, PointEntry, RunEntry, Sample,
    SeriesFilter, SeriesKey,
};
use dmarig_model::observation::Outcome;
use dmarig_records::{Build, Environment, HostFacts};

const SERIES: u32 = 300;
const CELLS: u32 = 24;
/// Samples of each series in a night of the existing history: 3,000 samples a night.
const FEW: u32 = 10;
/// Samples of each series in a measured night: slightly more than 10,000 samples.
const MANY: u32 = 34;
const NIGHTS: u32 = 334;
const TURNS: u32 = 15;

fn main() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("history.sqlite");
    fill(&file);
    let mut history = History::create(&file).expect("the history opens again");
    let info = history.summary().expect("it can be read");
    println!("{} runs, {} series, {} samples", info.runs, info.series, info.samples);

    let nights: Vec<RunEntry> = (NIGHTS..NIGHTS + TURNS).map(|at| night(at, MANY)).collect();
    let samples: usize = nights[0].points.iter().map(|point| point.samples.len()).sum();
    let mut nights = nights.iter();
    measure(&format!("adding a night of {samples} samples"), || {
        history.insert_runs(nights.next()).expect("it is added");
    });
    let records: Vec<PathBuf> = (0..TURNS).map(|_| record(&place.path().join("runs"))).collect();
    let size = std::fs::metadata(records[0].join("cells.jsonl")).expect("a record").len();
    let before = history.summary().expect("it can be read").samples;
    let mut records = records.chunks(1);
    measure(&format!("adding a night from its record of {} KB", size / 1000), || {
        let added = history.import(records.next().expect("a record"), ImportOptions::default());
        assert_eq!(added.expect("it is added").added.len(), 1);
    });
    let each = (history.summary().expect("it can be read").samples - before) / u64::from(TURNS);
    println!("  each of {each} samples");
    let long = SeriesFilter { case: Some("bench".to_owned()), ..SeriesFilter::default() };
    let all = history.series(&long).expect("there are series");
    let mut series = all.iter().cycle().step_by(7);
    measure("reading a series: points", || {
        black_box(history.points(&series.next().expect("a series").id).expect("points"));
    });
    measure("reading a series: points, all samples, changes", || {
        let id = &series.next().expect("a series").id;
        black_box(history.points(id).expect("points"));
        black_box(history.samples(id).expect("samples"));
        black_box(history.changes(id).expect("changes"));
    });
    measure("listing all series", || {
        black_box(history.series(&SeriesFilter::default()).expect("series"));
    });
    once("searching all series for changes", || {
        history.search_changes().expect("they are searched");
    });
    measure("telling all alerts when nothing is new", || {
        black_box(history.alerts().expect("alerts"));
    });
    once("making up a year", || {
        let runs: Vec<RunEntry> = synthetic_year(1).collect();
        let file = place.path().join("demo.sqlite");
        History::create(&file)
            .and_then(|mut history| history.insert_runs(&runs))
            .expect("it is written");
    });
}

/// A record of 24 cells with 48 timed windows each.
fn record(runs: &Path) -> PathBuf {
    let cells: Vec<_> = (0..CELLS)
        .map(|number| {
            let mut cell = recorded_cells::cell(&format!("kernel{number}"), 1);
            let timed = cell.observation.windows.split_off(2);
            let timed = timed.into_iter().cycle().take(48);
            cell.observation.windows.extend(timed);
            cell
        })
        .collect();
    recorded_cells::record(runs, &cells)
}

fn fill(file: &Path) {
    let mut history = History::create(file).expect("a history");
    let nights: Vec<RunEntry> = (0..NIGHTS).map(|at| night(at, FEW)).collect();
    history.insert_runs(&nights).expect("it is filled");
}

fn measure(what: &str, mut act: impl FnMut()) {
    let mut times: Vec<f64> = (0..TURNS)
        .map(|_| {
            let began = Instant::now();
            act();
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let (best, median, worst) = (times[0], times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: {best:.1} ms at best, median {median:.1} ms, at worst {worst:.1} ms");
}

fn once(what: &str, act: impl FnOnce()) {
    let began = Instant::now();
    act();
    println!("{what}: {:.2} s", began.elapsed().as_secs_f64());
}

fn night(at: u32, samples: u32) -> RunEntry {
    let environment = Environment { cpus: 8, ..Environment::default() };
    let fingerprint = environment.fingerprint();
    let place = |cell: u32| CellKey {
        case: "bench".to_owned(),
        variant: format!("caching-mode=on,policy=lazy,smp={cell}"),
        kernel: "mainline".to_owned(),
    };
    let cell = |number| CellEntry {
        number,
        id: format!("bench/smp={number},kernel=mainline"),
        place: place(number),
        outcome: Outcome::Passed,
        reasons: Vec::new(),
        checks: Vec::new(),
        judged: None,
        release: Some(format!("7.0.0-{at}")),
        group_type: Some("DMA".to_owned()),
        warning: Some(true),
        duration_us: 20_000_000,
        environment: environment.clone(),
        build: Build { image_sha256: format!("{at:064x}"), ..Build::default() },
    };
    let point = |series: u32| {
        let cell = series % CELLS;
        let value = |window: u32| {
            let noise = (u64::from(at * 1000 + series * 37 + window) * 2_654_435_761) % 1000;
            1e9 + noise as f64 * 1e5
        };
        let samples: Vec<Sample> = (0..samples)
            .map(|window| Sample { cell, window, pair: Some(window), value: value(window) })
            .collect();
        let key = SeriesKey {
            place: place(cell),
            metric: format!("metric-{}", series / CELLS),
            unit: "ns".to_owned(),
            reference: None,
            environment: fingerprint.clone(),
        };
        PointEntry { series: key, cell, value: samples[samples.len() / 2].value, samples }
    };
    RunEntry {
        derivation: DERIVATION_VERSION,
        id: format!("night{at:06}"),
        started: 1_767_225_600 + i64::from(at) * 86_400,
        dmarig: "0.1.0".to_owned(),
        command: vec!["dmarig".to_owned(), "run".to_owned()],
        host: HostFacts::default(),
        rules: String::new(),
        reference: None,
        synthetic: true,
        planned: None,
        record_bytes: 0,
        cells: (0..CELLS).map(cell).collect(),
        points: (0..SERIES).map(point).collect(),
    }
}
