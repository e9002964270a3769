//! A history that is made up: a year of nights on a kernel in development, with what a year brings. Tests
//! of what looks for changes use it, and `demo-history` writes it for a first look at the dashboard. Each of
//! its runs is marked as synthetic.

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

/// Nights of a made-up year.
pub const SYNTHETIC_NIGHTS: u32 = 365;

/// The kernel that changes from night to night.
const KERNEL: &str = "mainline";
/// The one that does not.
const REFERENCE: &str = "debian-6.12";
const CASE: &str = "timing";
/// 2025-11-22, 01:30 UTC.
const FIRST_NIGHT: i64 = 1_763_775_000;
const DAY: i64 = 86_400;
/// Windows of a cell: one that counts, one to warm up, and these that are timed.
const TIMED: std::ops::Range<u32> = 2..7;

/// What is timed: name, unit, level with neither caching mode nor invalidations, noise of one window.
const TIMES: [(&str, &str, f64, f64); 5] = [
    ("elapsed", "ns", 2.1e9, 0.02),
    ("throughput", "bytes/s", 1.6e8, 0.02),
    ("latency-p50", "ns", 180e3, 0.02),
    ("latency-p99", "ns", 950e3, 0.06),
    ("latency-max", "ns", 6.2e6, 0.30),
];

/// Something that happens to the kernel in development.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Planted {
    /// What it is, for a person.
    pub what: &'static str,
    /// The first night.
    pub from: u32,
    /// The first night after it.
    pub until: u32,
    /// The metrics that it changes.
    pub metrics: &'static [&'static str],
    /// By what factor; below 1 in throughput, above in times, where it makes them worse.
    pub factor: f64,
    /// The variants that it changes.
    pub variants: Vec<String>,
}

/// What happens in the year of a seed, in the order of time.
#[must_use]
pub fn planted(seed: u64) -> Vec<Planted> {
    let mut random = Pcg64::seed_from_u64(seed ^ 0x5eed);
    let mut near = |night: u32| night + random.next_u32() % 9;
    let all = variants();
    let of = |fits: &dyn Fn(&Axes) -> bool| -> Vec<String> {
        all.iter().filter(|axes| fits(axes)).map(variant).collect()
    };
    let shadowed = of(&|axes| axes.caching_mode == Toggle::On && axes.policy == Policy::Lazy);
    let until_fixed = near(130);
    let bump = near(240);
    let batching = near(300);
    let event = |what, from, until, metrics, factor, variants| Planted {
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
            of(&|axes| axes.policy == Policy::Strict),
        ),
        event(
            "a bump of nine nights",
            bump,
            bump + 9,
            &["latency-p99"],
            1.35,
            of(&|axes| axes.device == Device::VirtioBlk),
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
            of(&|axes| axes.policy == Policy::Lazy && axes.device == Device::Nvme),
        ),
    ]
}

/// The runs of a made-up year, oldest first; the same for the same seed, on any machine.
pub fn synthetic_year(seed: u64) -> impl Iterator<Item = RunEntry> {
    let mut year =
        Year { random: Pcg64::seed_from_u64(seed), planted: planted(seed), seed, drift: 0.0 };
    (0..SYNTHETIC_NIGHTS).filter_map(move |night| year.night(night))
}

struct Year {
    random: Pcg64,
    planted: Vec<Planted>,
    seed: u64,
    /// How much slower the machine is than usual, as a part of 1.
    drift: f64,
}

/// A cell in the making.
struct Subject<'a> {
    axes: &'a Axes,
    variant: String,
    kernel: &'static str,
    night: u32,
}

impl Year {
    /// A number from 0 to 1, neither of them included.
    fn uniform(&mut self) -> f64 {
        ((self.random.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Nearly normal, with a standard deviation of 1: by sums alone, which are the same on any machine.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    /// None where the machine was off.
    fn night(&mut self, night: u32) -> Option<RunEntry> {
        // A machine's level wanders: that is why there is a reference.
        self.drift = 0.9 * self.drift + 0.04 * self.normal();
        if self.uniform() < 0.02 {
            return None;
        }
        let started = FIRST_NIGHT + i64::from(night) * DAY;
        let mut cells = Vec::new();
        let mut points = Vec::new();
        for axes in variants() {
            for kernel in [KERNEL, REFERENCE] {
                let subject = Subject { axes: &axes, variant: variant(&axes), kernel, night };
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

    fn cell(&mut self, number: u32, subject: &Subject<'_>) -> CellEntry {
        let Subject { axes, variant, kernel, night } = subject;
        let batches = self.factor(subject, "psi-per-unmap") == 0.0;
        let luck = self.uniform();
        let (outcome, reasons, checks) = if luck < 0.002 {
            let reason = "no agent after 60.000 s; last seen: (made up)";
            (Outcome::TimedOut, vec![reason.to_owned()], Vec::new())
        } else if luck < 0.005 {
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
        let ended = outcome != Outcome::TimedOut && outcome != Outcome::Errored;
        let judged = if ended {
            health::judged(&health::checks(axes), &checks)
        } else {
            CheckTallies::new()
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
            release: ended.then(|| release(kernel, *night)),
            group_type: ended.then(|| group_type(axes, batches).to_owned()),
            warning: ended.then_some(shadowed && !batches),
            duration_us: 21_000_000 + u64::from(self.random.next_u32() % 3_000_000),
            environment: environment(),
            build: build(self.seed, kernel, *night),
        }
    }

    /// All that is measured in a cell.
    fn numbers(&mut self, subject: &Subject<'_>, cell: &CellEntry) -> Vec<PointEntry> {
        let key = |metric: &str, unit: &str| SeriesKey {
            place: cell.place.clone(),
            metric: metric.to_owned(),
            unit: unit.to_owned(),
            reference: None,
            environment: cell.environment.fingerprint(),
        };
        let mut points = Vec::new();
        let cost = cost(subject.axes);
        // What a boot has in common: placement, alignment, what the host does beside.
        let boot = 1.0 + 0.01 * self.normal();
        for (metric, unit, level, noise) in TIMES {
            let factor = self.factor(subject, metric);
            let slower = cost * boot * (1.0 + self.drift);
            let level = if metric == "throughput" { level / slower } else { level * slower };
            let samples = TIMED.map(|window| {
                let value = level * factor * (1.0 + noise * self.normal()).max(0.2);
                Sample { cell: cell.number, window, pair: None, value: value.round() }
            });
            points.push(median_point((key(metric, unit), samples.collect())));
        }
        for (metric, value) in self.counts(subject) {
            let sample = Sample { cell: cell.number, window: 0, pair: None, value };
            points.push(median_point((key(metric, "1"), vec![sample])));
        }
        points
    }

    fn counts(&mut self, subject: &Subject<'_>) -> Vec<(&'static str, f64)> {
        let Axes { caching_mode, policy, .. } = *subject.axes;
        let on = caching_mode == Toggle::On;
        let batches = self.factor(subject, "psi-per-unmap") == 0.0;
        let lazy = policy == Policy::Lazy && (!on || batches);
        // How often a timer flushes depends on how long it all takes.
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

    /// Whether the kernel in development batches this night although caching mode is on.
    fn batches(&self, night: u32) -> bool {
        let back = |planted: &&Planted| planted.metrics.contains(&"psi-per-unmap");
        self.planted.iter().filter(back).any(|event| (event.from..event.until).contains(&night))
    }

    /// What has happened to a metric.
    fn factor(&self, subject: &Subject<'_>, metric: &str) -> f64 {
        let happened = self.planted.iter().filter(|planted| {
            subject.kernel == KERNEL
                && (planted.from..planted.until).contains(&subject.night)
                && planted.metrics.contains(&metric)
                && planted.variants.contains(&subject.variant)
        });
        happened.map(|planted| planted.factor).product()
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

/// What the IOMMU costs, as a factor of time.
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

/// Of a new release candidate each week, and a release each nine weeks.
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
    // The reference is the same build each night.
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

/// Writes the year as `history.sqlite` into a directory, and returns the file.
///
/// # Errors
/// [`HistoryError`], also where the file exists.
pub fn write_history(directory: &Path, seed: u64) -> Result<PathBuf, HistoryError> {
    let file = directory.join("history.sqlite");
    if file.exists() {
        let error = std::io::ErrorKind::AlreadyExists.into();
        return Err(HistoryError::Io { path: file.display().to_string(), error });
    }
    let runs: Vec<RunEntry> = synthetic_year(seed).collect();
    History::create(&file)?.insert_runs(&runs)?;
    Ok(file)
}
