//! A synthetic history: a year of nights on a kernel in development, with planted changes. Tests of
//! change points and alerts use it, and `demo-history` writes it for a first look at the dashboard.
//! Each run is marked as synthetic.

mod health;

use std::path::{Path, PathBuf};

use dmarig_digest::short_id;
use dmarig_model::{
    axes::{Axes, Device, Policy, Toggle},
    kernel::KernelBuild,
    observation::Outcome,
};
use dmarig_records::{Build, Environment, HostFacts};
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use serde::Serialize;

use dmarig_history::{
    CellEntry, CellKey, CheckTallies, DERIVATION_VERSION, History, HistoryError, PointEntry,
    RunEntry, Sample, SeriesKey, median_point, reference_ratios, variant,
};

/// Number of nights in a synthetic year.
pub const SYNTHETIC_NIGHTS: u32 = 365;

/// The kernel in development, with another build each night.
const KERNEL: &str = "mainline";
/// The reference kernel.
const REFERENCE: &str = "debian-6.12";
const CASE: &str = "timing";
/// 2025-11-22, 01:30 UTC.
const FIRST_NIGHT: i64 = 1_763_775_000;
const DAY: i64 = 86_400;
/// Indices of the timing windows of a cell; a counting window and a warm-up precede them.
const TIMING_WINDOWS: std::ops::Range<u32> = 2..7;

/// A timed metric.
struct TimedMetric {
    name: &'static str,
    unit: &'static str,
    /// The value without caching mode and invalidations.
    level: f64,
    /// Relative standard deviation between windows.
    noise: f64,
}

const TIMED_METRICS: [TimedMetric; 5] = [
    TimedMetric { name: "elapsed", unit: "ns", level: 2.1e9, noise: 0.02 },
    TimedMetric { name: "throughput", unit: "bytes/s", level: 1.6e8, noise: 0.02 },
    TimedMetric { name: "latency-p50", unit: "ns", level: 180e3, noise: 0.02 },
    TimedMetric { name: "latency-p99", unit: "ns", level: 950e3, noise: 0.06 },
    TimedMetric { name: "latency-max", unit: "ns", level: 6.2e6, noise: 0.30 },
];

/// Why the synthetic history can't be written.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The file exists already.
    #[error("{} exists: name another directory", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The history can't be written.
    #[error(transparent)]
    History(#[from] HistoryError),
}

/// A change of the kernel in development.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlantedChange {
    /// Description.
    pub what: &'static str,
    /// The first night with the change.
    pub from: u32,
    /// The first night without it again.
    pub until: u32,
    /// The changed metrics.
    pub metrics: &'static [&'static str],
    /// The factor of the change. A regression is below 1 for throughput and above 1 for times.
    pub factor: f64,
    /// The changed variants.
    pub variants: Vec<String>,
}

/// The changes in the year of a seed, oldest first.
#[must_use]
pub fn planted_changes(seed: u64) -> Vec<PlantedChange> {
    let mut random = Pcg64::seed_from_u64(seed ^ 0x5eed);
    let mut near = |night: u32| night + random.next_u32() % 9;
    let all = variants();
    let variants_with = |fits: &dyn Fn(&Axes) -> bool| -> Vec<String> {
        all.iter().filter(|axes| fits(axes)).map(variant).collect()
    };
    let shadowed =
        variants_with(&|axes| axes.caching_mode == Toggle::On && axes.policy == Policy::Lazy);
    let until_fixed = near(130);
    let bump = near(240);
    let batching = near(300);
    let event = |what, from, until, metrics, factor, variants| PlantedChange {
        what,
        from,
        until,
        metrics,
        factor,
        variants,
    };
    vec![
        event(
            "a map takes a lock more, until that is fixed",
            near(70),
            until_fixed,
            &["elapsed", "latency-p50", "latency-p99"],
            1.08,
            shadowed.clone(),
        ),
        event(
            "strict unmaps wait less",
            near(180),
            SYNTHETIC_NIGHTS,
            &["elapsed", "latency-p50"],
            0.95,
            variants_with(&|axes| axes.policy == Policy::Strict),
        ),
        event(
            "a bump of nine nights",
            bump,
            bump + 9,
            &["latency-p99"],
            1.35,
            variants_with(&|axes| axes.device == Device::VirtioBlk),
        ),
        event(
            "batching is back with caching mode on",
            batching,
            batching + 14,
            &["psi-per-unmap", "dsi-per-1000-unmaps"],
            0.0,
            shadowed,
        ),
        event(
            "throughput falls, and stays so",
            near(335),
            SYNTHETIC_NIGHTS,
            &["throughput"],
            0.93,
            variants_with(&|axes| axes.policy == Policy::Lazy && axes.device == Device::Nvme),
        ),
    ]
}

/// The runs of a synthetic year, oldest first. The same seed gives the same runs on any machine.
pub fn synthetic_year(seed: u64) -> impl Iterator<Item = RunEntry> {
    let mut year = Year {
        random: Pcg64::seed_from_u64(seed),
        planted: planted_changes(seed),
        seed,
        drift: 0.0,
    };
    (0..SYNTHETIC_NIGHTS).filter_map(move |night| year.night(night))
}

struct Year {
    random: Pcg64,
    planted: Vec<PlantedChange>,
    seed: u64,
    /// Relative slowdown of the machine.
    drift: f64,
}

/// What identifies a cell that is generated.
struct CellSubject<'a> {
    axes: &'a Axes,
    variant: String,
    kernel: &'static str,
    night: u32,
}

impl Year {
    /// A uniform random number between 0 and 1, both excluded.
    fn uniform(&mut self) -> f64 {
        ((self.random.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// An approximately normal random number with a standard deviation of 1. A sum of uniform
    /// numbers, so that it is the same on any machine.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    /// The run of a night; `None` if the machine was off.
    fn night(&mut self, night: u32) -> Option<RunEntry> {
        // Drift of the machine, which ratios to the reference remove.
        self.drift = 0.9 * self.drift + 0.04 * self.normal();
        if self.uniform() < 0.02 {
            return None;
        }
        let started = FIRST_NIGHT + i64::from(night) * DAY;
        let mut cells = Vec::new();
        let mut points = Vec::new();
        for axes in variants() {
            for kernel in [KERNEL, REFERENCE] {
                let subject = CellSubject { axes: &axes, variant: variant(&axes), kernel, night };
                let number = cells.len() as u32;
                let cell = self.cell(number, &subject);
                if matches!(cell.outcome, Outcome::Passed | Outcome::Failed) {
                    points.extend(self.numbers(&subject, &cell));
                }
                cells.push(cell);
            }
        }
        cells.extend(health::cells(self, night, cells.len() as u32, self.batches(night)));
        points.sort_by(|a: &PointEntry, b| a.series.cmp(&b.series));
        points.extend(reference_ratios(&points, &cells, REFERENCE));
        points.sort_by(|a, b| a.series.cmp(&b.series));
        let words =
            ["dmarig", "run", CASE, "smoke", "full", "-k", KERNEL, "--reference", REFERENCE];
        Some(RunEntry {
            derivation: DERIVATION_VERSION,
            id: format!("synthetic-{}-night{night:03}", self.seed),
            started,
            dmarig: env!("CARGO_PKG_VERSION").to_owned(),
            command: words.map(str::to_owned).to_vec(),
            host: host(),
            rules: "synthetic".to_owned(),
            reference: Some(REFERENCE.to_owned()),
            synthetic: true,
            planned: None,
            record_bytes: 0,
            cells,
            points,
        })
    }

    fn cell(&mut self, number: u32, subject: &CellSubject<'_>) -> CellEntry {
        let CellSubject { axes, variant, kernel, night } = subject;
        let batches = self.factor(subject, "psi-per-unmap") == 0.0;
        let chance = self.uniform();
        let (outcome, reasons, checks) = if chance < 0.002 {
            let reason = "no agent after 60.000 s; last seen: (made up)";
            (Outcome::TimedOut, vec![reason.to_owned()], Vec::new())
        } else if chance < 0.005 {
            let reason = "QEMU ended by itself (signal 9): (made up)";
            (Outcome::Errored, vec![reason.to_owned()], Vec::new())
        } else if batches {
            let checks = ["group-type", "psi-per-unmap", "warning"].map(str::to_owned).to_vec();
            let reason = "psi-per-unmap: 0, expected at least 0.9 (made up)";
            (Outcome::Failed, vec![reason.to_owned()], checks)
        } else {
            (Outcome::Passed, Vec::new(), Vec::new())
        };
        let shadowed = axes.caching_mode == Toggle::On && axes.policy == Policy::Lazy;
        let completed = outcome != Outcome::TimedOut && outcome != Outcome::Errored;
        let (judged, release, group_type, warning) = match completed {
            true => (
                health::tallies(&health::checks(axes), &checks),
                Some(release(kernel, *night)),
                Some(group_type(axes, batches).to_owned()),
                Some(shadowed && !batches),
            ),
            false => (CheckTallies::new(), None, None, None),
        };
        CellEntry {
            number,
            id: format!("{CASE}/{variant},kernel={kernel}"),
            place: CellKey {
                case: CASE.to_owned(),
                variant: variant.clone(),
                kernel: (*kernel).to_owned(),
            },
            outcome,
            reasons,
            checks,
            judged: Some(judged),
            release,
            group_type,
            warning,
            duration_us: 21_000_000 + u64::from(self.random.next_u32() % 3_000_000),
            environment: environment(),
            build: build(self.seed, kernel, *night),
        }
    }

    /// The points of a cell.
    fn numbers(&mut self, subject: &CellSubject<'_>, cell: &CellEntry) -> Vec<PointEntry> {
        let key = |metric: &str, unit: &str| SeriesKey {
            place: cell.place.clone(),
            metric: metric.to_owned(),
            unit: unit.to_owned(),
            reference: None,
            environment: cell.environment.fingerprint(),
        };
        let mut points = Vec::new();
        let cost = cost(subject.axes);
        // Noise common to all windows of a boot: memory placement, and the load of the host.
        let boot = 1.0 + 0.01 * self.normal();
        for TimedMetric { name, unit, level, noise } in TIMED_METRICS {
            let factor = self.factor(subject, name);
            let slowdown = cost * boot * (1.0 + self.drift);
            let level = if name == "throughput" { level / slowdown } else { level * slowdown };
            let samples = TIMING_WINDOWS.map(|window| {
                let value = level * factor * (1.0 + noise * self.normal()).max(0.2);
                Sample { cell: cell.number, window, pair: None, value: value.round() }
            });
            points.push(median_point((key(name, unit), samples.collect())));
        }
        for (metric, value) in self.counts(subject) {
            let sample = Sample { cell: cell.number, window: 0, pair: None, value };
            points.push(median_point((key(metric, "1"), vec![sample])));
        }
        points
    }

    fn counts(&mut self, subject: &CellSubject<'_>) -> Vec<(&'static str, f64)> {
        let Axes { caching_mode, policy, .. } = *subject.axes;
        let on = caching_mode == Toggle::On;
        let batches = self.factor(subject, "psi-per-unmap") == 0.0;
        let lazy = policy == Policy::Lazy && (!on || batches);
        // The number of flushes by the timer depends on the run time.
        let flushes = (9.0 + self.normal()).round().max(1.0);
        match policy {
            Policy::Passthrough => vec![("psi", 0.0), ("dsi", 0.0)],
            _ => vec![
                ("psi-per-unmap", if lazy { 0.0 } else { 1.0 }),
                ("psi-per-map", if on { 1.0 } else { 0.0 }),
                ("dsi-per-1000-unmaps", if lazy { flushes } else { 0.0 }),
                ("mappings-per-op", 1.0),
            ],
        }
    }

    /// Whether the kernel in development batches in this night although caching mode is on.
    fn batches(&self, night: u32) -> bool {
        let back = |planted: &&PlantedChange| planted.metrics.contains(&"psi-per-unmap");
        self.planted.iter().filter(back).any(|event| (event.from..event.until).contains(&night))
    }

    /// The product of all changes of a metric in this night.
    fn factor(&self, subject: &CellSubject<'_>, metric: &str) -> f64 {
        let changes = self.planted.iter().filter(|planted| {
            subject.kernel == KERNEL
                && (planted.from..planted.until).contains(&subject.night)
                && planted.metrics.contains(&metric)
                && planted.variants.contains(&subject.variant)
        });
        changes.map(|planted| planted.factor).product()
    }
}

fn variants() -> Vec<Axes> {
    let mut all = Vec::new();
    for caching_mode in [Toggle::Off, Toggle::On] {
        for policy in [Policy::Lazy, Policy::Strict, Policy::Passthrough] {
            for device in [Device::Nvme, Device::VirtioBlk] {
                all.push(Axes { caching_mode, policy, device, ..Axes::default() });
            }
        }
    }
    all
}

/// Factor of time by which the IOMMU slows a cell down.
fn cost(axes: &Axes) -> f64 {
    let invalidations = match (axes.caching_mode, axes.policy) {
        (_, Policy::Passthrough) => 1.0,
        (Toggle::Off, Policy::Lazy) => 1.08,
        (Toggle::Off, Policy::Strict) => 1.31,
        (Toggle::On, _) => 1.57,
    };
    if axes.device == Device::VirtioBlk { invalidations * 1.2 } else { invalidations }
}

fn group_type(axes: &Axes, batches: bool) -> &'static str {
    match axes.policy {
        Policy::Passthrough => "identity",
        Policy::Lazy if batches || axes.caching_mode == Toggle::Off => "DMA-FQ",
        _ => "DMA",
    }
}

/// `uname -r`. The kernel in development has a release candidate each week and a release each nine
/// weeks.
fn release(kernel: &str, night: u32) -> String {
    match kernel {
        REFERENCE => return "6.12.57+deb13-amd64".to_owned(),
        "debian-6.1" => return "6.1.0-50-amd64".to_owned(),
        "debian-5.10" => return "5.10.0-36-amd64".to_owned(),
        _ => {}
    }
    let (week, cycle) = (night / 7 % 9, night / 63);
    match week {
        0 => format!("7.{cycle}.0-{:05}", night % 7 * 1400),
        week => format!("7.{}.0-rc{week}-{:05}", cycle + 1, night % 7 * 60),
    }
}

fn build(seed: u64, kernel: &str, night: u32) -> Build {
    let seed = seed.to_string();
    // Only the kernel in development has another build each night.
    let night = if kernel == KERNEL { night.to_string() } else { "always".to_owned() };
    let made_up = |what: &str, digits| short_id(["synthetic", &seed, kernel, &night, what], digits);
    let built = kernel == KERNEL;
    Build {
        image_sha256: made_up("image", 64),
        boot: "pvh".to_owned(),
        packages: match built {
            true => Vec::new(),
            false => {
                let (release, hash) = (release(kernel, 0), made_up("p", 64));
                let version = release.split_once(['+', '-']).map_or("", |(version, _)| version);
                vec![format!("linux-image-{release} {version}-1 {hash}")]
            }
        },
        built: match built {
            true => KernelBuild {
                source: "made up".to_owned(),
                commit: made_up("commit", 40),
                edits: "none".to_owned(),
                config_sha256: short_id(["synthetic", "config"], 64),
                compiler: "gcc 15.2.0".to_owned(),
            },
            false => KernelBuild::default(),
        },
    }
}

fn host() -> HostFacts {
    let Environment { cpu, microcode, cpus, smt, governor, host_kernel, .. } = environment();
    HostFacts {
        kernel: host_kernel,
        cpu,
        cpus,
        memory_kib: 16 << 20,
        load: "0.03 0.04 0.01".to_owned(),
        microcode,
        governor,
        smt,
        machine: String::new(),
    }
}

fn environment() -> Environment {
    Environment {
        cpu: "Synthetic CPU".to_owned(),
        microcode: "0x1".to_owned(),
        cpus: 8,
        memory_gib: 16,
        smt: "off".to_owned(),
        governor: "performance".to_owned(),
        host_kernel: "6.12.57+deb13-amd64".to_owned(),
        qemu_version: "11.1.3".to_owned(),
        qemu_sha256: short_id(["synthetic", "qemu"], 64),
        accelerator: "kvm".to_owned(),
        machine: String::new(),
    }
}

/// Writes the synthetic year as `history.sqlite` into a directory, and returns the path of the
/// file.
///
/// # Errors
/// [`DemoError`]
pub fn write_history(directory: &Path, seed: u64) -> Result<PathBuf, DemoError> {
    let file = directory.join("history.sqlite");
    if file.exists() {
        return Err(DemoError::Exists { path: file });
    }
    let runs: Vec<RunEntry> = synthetic_year(seed).collect();
    History::create(&file)?.insert_runs(&runs)?;
    Ok(file)
}
