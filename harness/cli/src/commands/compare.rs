//! `dmarig compare`

use std::{path::Path, time::SystemTime};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use dmarig_dashboard::comparison_page;
use dmarig_model::{axes::Accelerator, limit::Limit, text::shown, windows::Side};
use dmarig_records::{Comparison, RecordFile, StoredRun, compare_runs};
use dmarig_report::{comparison_json, comparison_markdown, comparison_table};
use dmarig_runner::{
    paired::{CompareOutcome, CompareRequest, Subject, compare, fresh_seed},
    remove_left_directories,
    request::Selection,
    signals::InterruptibleRuntime,
};

use crate::{
    exit::{Exit, Failure},
    options::Places,
    output::{Screen, print},
    report::{Notes, on_interrupt},
};

/// Names the QEMU where the command line does not.
const QEMU_VARIABLE: &str = "DMARIG_QEMU";

#[derive(Debug, Args)]
pub(crate) struct Compare {
    #[command(flatten)]
    places: Places,
    /// Candidate: a kernel, `axis=value,...`, or a recorded run (its id, directory or `last`, or a part
    /// of it, as in last:policy=strict). `control=on` selects control windows
    #[arg(value_name = "CANDIDATE")]
    candidate: String,
    /// Baseline, in the same form. Without it, the candidate is a recorded comparison, which is printed
    /// again
    #[arg(value_name = "BASELINE")]
    baseline: Option<String>,
    /// The case to run: the name of a built-in case, or a case file [default: timing]
    #[arg(long, value_name = "CASE")]
    case: Option<String>,
    /// Percentage by which a metric of the candidate may be worse, as in elapsed=5. The metric of a
    /// program may need the better direction, as in score:higher=5 (may be repeated)
    #[arg(long = "limit", value_name = "METRIC=PERCENT", value_parser = Limit::parse)]
    limits: Vec<Limit>,
    /// Compare this metric (may be repeated) [default: the independent metrics of the workload]
    #[arg(long = "metric", value_name = "NAME")]
    metrics: Vec<String>,
    /// Random seed for the order of pairs [default: a new one each time, which is printed]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Format of the result on standard output
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Only cells whose id is PATTERN, contains it, or matches it as a glob (may be repeated)
    #[arg(long = "cell", short = 'c', value_name = "PATTERN")]
    cells: Vec<String>,
    /// Values of an axis for both sides that replace the case's (may be repeated)
    #[arg(long = "set", short = 's', value_name = "AXIS=VALUE,...")]
    sets: Vec<String>,
    /// QEMU of both sides: the name of a fetched QEMU, or a program [default: qemu-system-x86_64]
    #[arg(long, value_name = "NAME|PATH", env = QEMU_VARIABLE, hide_env = true)]
    qemu: Option<String>,
    /// Accelerator of both sides [default: auto]
    #[arg(long = "accel", value_name = "auto|kvm|tcg")]
    accelerator: Option<Accelerator>,
    /// Directory of the kernels' modules, if they are not next to the kernels
    #[arg(long, value_name = "DIR")]
    modules: Option<std::path::PathBuf>,
    /// Multiply every deadline by this factor [default: 1]
    #[arg(long = "timeout-factor", alias = "patience", value_name = "FACTOR")]
    patience: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables for people
    Table,
    /// Tables for a mail or a pull request
    Markdown,
    /// A page with plots, in one file
    Html,
    /// One JSON document
    Json,
}

impl Compare {
    pub(crate) fn execute(self, command: Vec<String>) -> Result<Exit, Failure> {
        let runs = self.places.runs()?;
        let Some(baseline_name) = &self.baseline else { return self.told_before(&runs) };
        let candidate = Subject::parse(&self.candidate, &runs).map_err(Failure::usage)?;
        let baseline = Subject::parse(baseline_name, &runs).map_err(Failure::usage)?;
        match (candidate, baseline) {
            (Subject::Stored(ours), Subject::Stored(theirs)) => {
                if !self.limits.is_empty() {
                    return Err(Failure::usage(anyhow!(
                        "recorded runs were not measured in pairs, so no limit is judged: leave --limit away, \
                         or name two kernels or variants to run"
                    )));
                }
                self.only_for_what_is_run(
                    "two recorded runs: name parts of them, as in last:policy=strict",
                )?;
                let parts = [ours.part(), theirs.part()];
                let names = [self.candidate.as_str(), baseline_name.as_str()];
                let found = compare_runs(names, parts, &self.metrics).map_err(Failure::usage)?;
                self.tell(&found)?;
                Ok(Exit::Passed)
            }
            (
                Subject::Variant { sets: ours, side: our_side },
                Subject::Variant { sets: theirs, side: their_side },
            ) => {
                let sides = [(ours, our_side), (theirs, their_side)];
                self.interleaved(baseline_name, sides, command, &runs)
            }
            _ => Err(Failure::usage(anyhow!(
                "a recorded run can only be compared with another one: record {} by `dmarig run` first, or name \
                 what to run on both sides",
                shown(baseline_name)
            ))),
        }
    }

    /// Tells a comparison once more, from its record.
    fn told_before(&self, runs: &Path) -> Result<Exit, Failure> {
        let directory = StoredRun::find(&self.candidate, runs).map_err(|error| {
            Failure::usage(anyhow!(
                "{error}; to compare {0}, name what with: dmarig compare {0} BASELINE",
                shown(&self.candidate)
            ))
        })?;
        if !self.limits.is_empty() || !self.metrics.is_empty() {
            return Err(Failure::usage(anyhow!(
                "a recorded comparison is printed as it was judged: omit --limit and --metric"
            )));
        }
        self.only_for_what_is_run("a comparison that is over")?;
        let comparison = Comparison::read(&directory).map_err(Failure::usage)?.ok_or_else(|| {
            let name = shown(&self.candidate);
            Failure::usage(anyhow!(
                "{name} is a run and not a comparison that came to its end: name what to compare it with, or \
                 `dmarig judge {name}` tells its cells"
            ))
        })?;
        self.tell(&comparison)?;
        Ok(Exit::of([comparison.outcome()]))
    }

    /// Refuses what says how guests are run, where none are.
    fn only_for_what_is_run(&self, what: &str) -> Result<(), Failure> {
        // From the environment it is meant for whatever is run.
        let environment = std::env::var(QEMU_VARIABLE).ok();
        let given = [
            ("--case", self.case.is_some()),
            ("--seed", self.seed.is_some()),
            ("--cell", !self.cells.is_empty()),
            ("--set", !self.sets.is_empty()),
            ("--qemu", self.qemu.is_some() && self.qemu != environment),
            ("--accel", self.accelerator.is_some()),
            ("--modules", self.modules.is_some()),
            ("--timeout-factor", self.patience.is_some()),
        ];
        let given: Vec<&str> =
            given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
        if given.is_empty() {
            return Ok(());
        }
        let given = given.join(", ");
        Err(Failure::usage(anyhow!("{given}: nothing is run of {what}")))
    }

    fn interleaved(
        &self,
        baseline_name: &str,
        sides: [(Vec<String>, Side); 2],
        command: Vec<String>,
        runs: &Path,
    ) -> Result<Exit, Failure> {
        let cache = self.places.open_cache()?;
        // A word alone is a run or a kernel.
        let words = [self.candidate.as_str(), baseline_name];
        for word in words.into_iter().filter(|word| !word.contains('=')) {
            if let Some(error) = cache.unknown_kernel(word)? {
                let runs = runs.display();
                return Err(Failure::usage(anyhow!(
                    "no run of that name is in {runs}, and {error}"
                )));
            }
        }
        let seed = self.seed.unwrap_or_else(fresh_seed);
        let [candidate, baseline] = sides;
        let request = CompareRequest {
            names: [self.candidate.clone(), baseline_name.to_owned()],
            selections: [self.selection(&candidate.0), self.selection(&baseline.0)],
            sides: [candidate.1, baseline.1],
            limits: &self.limits,
            metrics: &self.metrics,
            seed,
        };
        remove_left_directories();
        // When it is dropped, every guest is killed and its directory removed.
        let mut runtime = InterruptibleRuntime::new(on_interrupt)?;
        let interrupted = runtime.interrupted();
        let comparison = compare(&request, &cache, command, runs, interrupted, &Notes);
        let Some(outcome) = runtime.run(comparison) else { return Ok(Exit::Interrupted) };
        let CompareOutcome { comparison, interrupted, directory } = outcome?;
        self.tell(&comparison)?;
        errln!("record: {}", directory.display());
        Ok(if interrupted { Exit::Interrupted } else { Exit::of([comparison.outcome()]) })
    }

    fn selection(&self, own: &[String]) -> Selection {
        let sets = self.sets.iter().chain(own).cloned().collect();
        let names_qemu = own.iter().any(|set| set.starts_with("qemu="));
        Selection {
            cases: vec![self.case.clone().unwrap_or_else(|| "timing".to_owned())],
            cells: self.cells.clone(),
            modules: self.modules.clone(),
            qemus: self.qemu.iter().filter(|_| !names_qemu).cloned().collect(),
            accelerator: self.accelerator.unwrap_or_default(),
            sets,
            patience: self.patience.unwrap_or(1.0),
            ..Selection::default()
        }
    }

    fn tell(&self, comparison: &Comparison) -> Result<(), Failure> {
        let text = match self.format {
            Format::Json => serde_json::to_string_pretty(&comparison_json(comparison)?)? + "\n",
            Format::Markdown => comparison_markdown(comparison),
            Format::Html => comparison_page(comparison, SystemTime::now()),
            Format::Table => {
                let Screen { width, colour } = Screen::new(100);
                comparison_table(comparison, width, colour)
            }
        };
        print(&text)
    }
}
