//! A year that never was, always the same: for tests and for the benchmark.

use std::sync::Arc;

use dmarig_dashboard::{
    Alert, AlertState, Better, Cell, CellDetails, CellResult, Change, Check, Checked, Dashboard,
    Environment, JudgedNumber, JudgedNumbers, Point, Run, RunDetails, Series, Site, Subject, Sweep,
};
use dmarig_model::{
    observation::Outcome,
    sweep::{self, Point as SweepPoint},
};
use dmarig_report::{CellFacts, JudgedMetric, MetricVerdict, Reference};
use dmarig_stats::paired::Judgement;

/// How large it is, and what stands in every text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demo {
    pub(crate) nights: usize,
    pub(crate) series: usize,
    pub(crate) cells: usize,
    /// Stands in every text that may come from elsewhere.
    pub(crate) text: &'static str,
}

pub(crate) const SMALL: Demo = Demo { nights: 40, series: 12, cells: 24, text: "" };
pub(crate) const YEAR: Demo = Demo { nights: 365, series: 300, cells: 120, text: "" };

const KERNELS: [&str; 4] = ["debian-5.10", "debian-6.1", "debian-6.12", "linux-next"];
const CASES: [&str; 5] = ["smoke", "full", "passthrough", "timing", "attacks"];
const METRICS: [(&str, &str, Better); 4] = [
    ("elapsed", "ns", Better::Lower),
    ("throughput", "bytes/s", Better::Higher),
    ("psi-per-unmap", "1", Better::Lower),
    ("score", "marks", Better::Unknown),
];
/// What is checked in every cell, and after it what only cells of some cases have.
const CHECKS: [&str; 14] = [
    "log",
    "behind-iommu",
    "integrity",
    "faults",
    "warning",
    "group-type",
    "global",
    "psi-per-unmap",
    "dsi",
    "coherence",
    "stale-requests",
    "leaked-requests",
    "device",
    "attack-read-only",
];
/// 1 January 2026, 02:00 UTC.
const START: i64 = 1_767_232_800;

/// Noise that is the same on every machine.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// About normal, with a deviation of 1.
    fn normal(&mut self) -> f64 {
        let sum: f64 = (0..12).map(|_| self.next() as f64 / (1_u64 << 31) as f64).sum();
        sum - 6.0
    }
}

/// The oldest kernel's tables can't be looked at, and what did not come to its end has no checks.
fn checked(
    names: &[Arc<str>],
    cell: usize,
    outcome: Outcome,
    broken: &[Arc<str>],
) -> Arc<[Checked]> {
    let count = match (outcome, CASES[cell / 4 % 5]) {
        (Outcome::Passed | Outcome::Failed, "passthrough" | "attacks") => names.len(),
        (Outcome::Failed, _) => 11,
        (Outcome::Passed, _) => 9,
        _ => 0,
    };
    let one = |(at, name): (usize, &Arc<str>)| {
        let failed = u32::from(broken.contains(name));
        let unjudged = u32::from(failed == 0 && at == 9 && cell.is_multiple_of(4));
        let held = 1 - failed - unjudged;
        Checked { name: Arc::clone(name), held, broken: failed, unjudged }
    };
    names.iter().take(count).enumerate().map(one).collect()
}

impl Demo {
    fn text(&self, text: impl AsRef<str>) -> String {
        format!("{}{}", text.as_ref(), self.text)
    }

    pub(crate) fn dashboard(self) -> Dashboard {
        Dashboard::new(self.site(), Box::new(move |site, run| self.details(site, run)))
    }

    pub(crate) fn site(&self) -> Site {
        let mut noise = Noise(7);
        let kernel = |night: usize, of: usize| -> Arc<str> {
            self.text(format!("{}.{}-{:07x}", 6 + of, night / 9, night / 9 * 7919 + of)).into()
        };
        let checks = CHECKS.map(|name| self.text(name).into());
        let cells: Vec<Cell> = (0..self.cells).map(|at| self.cell(at)).collect();
        let runs =
            (0..self.nights).map(|night| self.run(night, &mut noise, &kernel, &checks)).collect();
        let series: Vec<Series> =
            (0..self.series).map(|at| self.one_series(at, &mut noise, &kernel)).collect();
        Site {
            generated: START + self.nights as i64 * 86_400,
            live: false,
            alerts: self.alerts(&series),
            runs,
            judged_from: 0,
            environments: ["EPYC, KVM", "Xeon, TCG"].map(|name| self.environment(name)).into(),
            cells,
            series,
            sweeps: vec![self.sweep()],
        }
    }

    fn cell(&self, at: usize) -> Cell {
        let (case, kernel) = (CASES[at / 4 % 5], KERNELS[at % 4]);
        let policy = ["lazy", "strict", "passthrough"][at / 20 % 3];
        let mode = if (at / 60).is_multiple_of(2) { "on" } else { "off" };
        let variant = format!("caching-mode={mode},policy={policy},smp={}", 1 + at / 120);
        Cell {
            id: self.text(format!("{case}/{variant},kernel={kernel}")),
            case: self.text(case),
            kernel: self.text(kernel),
            variant: self.text(variant),
            environment: at / 4 % 2,
        }
    }

    fn environment(&self, name: &str) -> Environment {
        Environment {
            key: self.text(name),
            name: self.text(name),
            facts: vec![(self.text("cpu"), self.text(name))],
        }
    }

    fn run(
        &self,
        night: usize,
        noise: &mut Noise,
        kernel: &dyn Fn(usize, usize) -> Arc<str>,
        names: &[Arc<str>],
    ) -> Run {
        let bad_night = night % 17 == 16;
        let started = START + night as i64 * 86_400 + (noise.next() % 900) as i64;
        let result = |cell: usize| {
            let (outcome, broken) = match noise.next() % 400 {
                0 => (Outcome::Errored, vec![]),
                1 => (Outcome::TimedOut, vec![]),
                2 => (Outcome::Failed, vec![self.text("stale-requests").into()]),
                _ if cell % 11 == 10 => (Outcome::Skipped, vec![]),
                _ if (bad_night || night + 1 == self.nights)
                    && cell % 4 == 3
                    && cell.is_multiple_of(3) =>
                {
                    let names = ["warning", "psi-per-unmap", "coherence"];
                    (Outcome::Failed, names.map(|name| self.text(name).into()).into())
                }
                _ => (Outcome::Passed, vec![]),
            };
            let checks = Some(checked(names, cell, outcome, &broken));
            CellResult { cell, outcome, kernel: kernel(night, cell % 4), broken, checks }
        };
        Run {
            id: self.text(format!("2026{night:04}T020000Z-{night:06x}")),
            started,
            command: self.text("dmarig run full --qemu qemu"),
            machine: self.text("a machine"),
            environment: vec![(self.text("CPU"), self.text("EPYC"))],
            results: (0..self.cells).map(result).collect(),
            not_run: 0,
            judged: vec![self.judged(night)],
        }
    }

    /// The last night's has one that is too much worse.
    fn judged(&self, night: usize) -> JudgedNumbers {
        let last = night + 1 == self.nights;
        let number = |at: usize| {
            let (name, verdict) = match at {
                0 => ("elapsed", MetricVerdict::Judged(Judgement::Pass)),
                1 if last => ("latency-p99", MetricVerdict::Judged(Judgement::Fail)),
                _ => ("psi-per-unmap", MetricVerdict::NotCompared),
            };
            let metric = JudgedMetric {
                name: self.text(name),
                unit: self.text("1"),
                value: Some(1.07),
                reference: Some(1.0),
                ratio: Some(1.07),
                limit: Some(5.0),
                verdict,
                ..JudgedMetric::default()
            };
            JudgedNumber {
                key: self.text(name),
                place: self.text("timing/policy=lazy"),
                series: (at < self.series).then_some(at),
                metric,
            }
        };
        JudgedNumbers {
            against: self.text("against the runs before"),
            reference: Reference::EarlierRuns,
            numbers: (0..3).map(number).collect(),
            notes: vec![self.text("a note")],
        }
    }

    fn one_series(
        &self,
        at: usize,
        noise: &mut Noise,
        kernel: &dyn Fn(usize, usize) -> Arc<str>,
    ) -> Series {
        let cell = self.cell(at % self.cells);
        let (metric, unit, better) = METRICS[(at + at / 4) % 4];
        let level =
            [1.2e9, 4e8, 1.0, 73.0][METRICS.iter().position(|one| one.0 == metric).unwrap_or(0)];
        let shift = (at % 7 == 3 && self.nights > 20).then_some(self.nights * 2 / 3 + at % 9);
        let value = |night: usize| {
            let moved = if shift.is_some_and(|shift| night >= shift) { 1.12 } else { 1.0 };
            if metric == "psi-per-unmap" {
                1.0
            } else {
                level * moved * (1.0 + 0.02 * noise.normal())
            }
        };
        let values: Vec<f64> = (0..self.nights).map(value).collect();
        let points = values.iter().enumerate().map(|(run, value)| Point {
            run,
            value: *value,
            samples: 5,
            kernel: kernel(run, at % 4),
        });
        let change = |at| Change { at, before: level, after: level * 1.12, p: 0.005 };
        Series {
            key: self.text(format!("{} {metric} {at}", cell.id)),
            case: cell.case,
            variant: cell.variant,
            kernel: cell.kernel,
            metric: self.text(metric),
            unit: if self.text.is_empty() || unit != "marks" {
                unit.into()
            } else {
                self.text(unit)
            },
            reference: at.is_multiple_of(3).then(|| self.text("debian-6.1")),
            environment: at / 150 % 2,
            better,
            points: points.collect(),
            searched: at % 5 != 4,
            changes: shift.map(change).into_iter().collect(),
        }
    }

    fn alerts(&self, series: &[Series]) -> Vec<Alert> {
        let states =
            [AlertState::New, AlertState::Confirmed, AlertState::Invalid, AlertState::Fixed];
        let changed =
            series.iter().enumerate().filter_map(|(at, of)| Some((at, of.changes.first()?)));
        let alert = |(number, (series, change)): (usize, (usize, &Change))| Alert {
            id: self.text(format!("a{number}")),
            state: states[number % 4],
            subject: Subject::Series { series, point: change.at },
            what: self.text(""),
            last_good: Some(change.at - 1),
            first_bad: Some(change.at),
            until: (number % 4 == 3).then_some(change.at + 1),
            good_kernel: self.text("6.1.100"),
            bad_kernel: self.text("6.1.101"),
            note: self.text(if number % 2 == 1 { "looked at" } else { "" }),
        };
        let mut alerts: Vec<Alert> = changed.enumerate().map(alert).collect();
        let blank = |subject, id: &str| Alert {
            id: self.text(id),
            state: AlertState::New,
            subject,
            what: self.text("fails since"),
            last_good: Some(1),
            first_bad: Some(2),
            until: None,
            good_kernel: String::new(),
            bad_kernel: self.text("6.1.101"),
            note: String::new(),
        };
        alerts.push(blank(Subject::Cell(3), "c1"));
        alerts.push(blank(Subject::Other(self.text("the whole night")), "o1"));
        alerts
    }

    fn sweep(&self) -> Sweep {
        let point = |live: u32| {
            let value = 1e6 + f64::from(live);
            let values =
                dmarig_model::metrics::SWEPT.iter().map(|_| [Some(value), Some(2.0 * value)]);
            SweepPoint { cell: self.text("sweep"), live, values: values.collect() }
        };
        Sweep {
            title: self.text("sweep, kernel=debian-6.1"),
            run: self.nights - 1,
            environment: 0,
            cells: sweep::Sweep {
                case: self.text("sweep"),
                label: self.text("policy=lazy"),
                points: [0, 1000, 4000].map(point).into(),
            },
        }
    }

    /// What is told of a run on its page.
    pub(crate) fn details(&self, site: &Site, run: usize) -> RunDetails {
        let check = |name: &str, held| Check {
            name: self.text(name),
            expected: self.text("exactly 1"),
            found: self.text("1"),
            held,
            evidence: vec![self.text("PSI 400 (200 opening, 200 closing)")],
        };
        let of = |result: &CellResult| CellDetails {
            cell: result.cell,
            reasons: match result.outcome {
                Outcome::Passed => Vec::new(),
                _ => vec![self.text("psi-per-unmap: 0, expected exactly 1")],
            },
            facts: CellFacts {
                group_type: Some(self.text("DMA")),
                psi: Some(400),
                ..CellFacts::default()
            },
            checks: vec![
                check("warning", Some(true)),
                check("psi-per-unmap", Some(result.outcome != Outcome::Failed)),
                check("coherence", None),
            ],
            logs: vec![(
                self.text("kernel log"),
                vec![self.text("[    1.0] DMAR: IOMMU batching disallowed due to virtualization")],
            )],
            again: self.text("dmarig run smoke --cell 'smoke/policy=lazy'"),
        };
        RunDetails {
            cells: site.runs[run].results.iter().map(of).collect(),
            notes: vec![self.text("the record's last line was cut short")],
        }
    }
}
