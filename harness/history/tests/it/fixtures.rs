//! Generated runs.

use dmarig_history::{
    CellEntry, CellKey, CheckTallies, DERIVATION_VERSION, PointEntry, RunEntry, Sample, SeriesKey,
};
use dmarig_model::observation::Outcome;
use dmarig_records::{Build, Environment, HostFacts};

pub(crate) fn environment(cpu: &str) -> Environment {
    let accelerator = "tcg".to_owned();
    Environment {
        cpu: cpu.to_owned(),
        cpus: 2,
        memory_gib: 8,
        accelerator,
        ..Environment::default()
    }
}

pub(crate) fn place(variant: &str, kernel: &str) -> CellKey {
    CellKey { case: "timing".into(), variant: variant.into(), kernel: kernel.into() }
}

fn judged(outcome: Outcome) -> CheckTallies {
    let mut judged = CheckTallies::new();
    for (name, held) in [
        ("log", Some(true)),
        ("psi-per-unmap", Some(outcome != Outcome::Failed)),
        ("coherence", None),
    ] {
        judged.entry(name.into()).or_default().count(held);
    }
    judged
}

pub(crate) fn cell(number: u32, kernel: &str, outcome: Outcome) -> CellEntry {
    let image_sha256 = format!("{kernel}-image");
    CellEntry {
        number,
        id: format!("timing/policy=lazy,kernel={kernel}"),
        place: place("caching-mode=on,policy=lazy", kernel),
        outcome,
        reasons: Vec::new(),
        checks: match outcome {
            Outcome::Failed => vec!["psi-per-unmap".into()],
            _ => Vec::new(),
        },
        judged: Some(judged(outcome)),
        release: Some("6.1.0".into()),
        group_type: Some("DMA".into()),
        warning: Some(true),
        duration_us: 1_000_000,
        environment: environment("EPYC"),
        build: Build { image_sha256, ..Build::default() },
    }
}

pub(crate) fn key(metric: &str, unit: &str, kernel: &str) -> SeriesKey {
    SeriesKey {
        place: place("caching-mode=on,policy=lazy", kernel),
        metric: metric.into(),
        unit: unit.into(),
        reference: None,
        environment: environment("EPYC").fingerprint(),
    }
}

pub(crate) fn point(series: SeriesKey, cell: u32, values: &[f64]) -> PointEntry {
    let samples = (3u32..).zip(values).map(|(window, value)| Sample {
        cell,
        window,
        pair: None,
        value: *value,
    });
    PointEntry { series, cell, value: values[values.len() / 2], samples: samples.collect() }
}

/// A run of one kernel on a day, with this elapsed time.
pub(crate) fn run(day: u32, elapsed: f64) -> RunEntry {
    let points = vec![point(key("elapsed", "ns", "mine"), 0, &[elapsed, elapsed, elapsed])];
    RunEntry {
        derivation: DERIVATION_VERSION,
        id: format!("20260101T{day:06}.000000Z-000000"),
        started: 1_767_225_600 + i64::from(day) * 86_400,
        dmarig: "0.1.0".into(),
        command: vec!["dmarig".into(), "run".into()],
        host: HostFacts::default(),
        rules: "0.1.0+abc".into(),
        reference: None,
        synthetic: false,
        planned: None,
        record_bytes: 100,
        cells: vec![cell(0, "mine", Outcome::Passed)],
        points,
    }
}
