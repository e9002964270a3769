//! What is judged: cells, on what, and by which measure. It stands in the journal, so that `--resume`
//! needs no other word.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;
use dmarig_bisect::Trouble;
use dmarig_images::Cache;
use dmarig_kernels::{Edits, Fragment, Source, Spec};
use dmarig_model::{axes::Accelerator, limit::Limit};
use serde::{Deserialize, Serialize};

use super::compare::Comparison;
use crate::{exit::Failure, options::Selection, prepare::qemu_program};

/// Which cells of which kernel, and what counts.
#[derive(Debug, Clone, Args)]
pub(crate) struct SubjectOptions {
    /// The cell to judge by: a case, or a cell's id as `dmarig cells` lists it
    #[arg(long = "case", value_name = "CELL")]
    case: Option<String>,
    /// Of a case, only cells with this id, or whose id this is a part or a glob of (may be repeated)
    #[arg(long = "cell", short = 'c', value_name = "PATTERN")]
    cells: Vec<String>,
    /// Only this check counts, such as warning or psi-per-unmap (may be repeated) [default: those that
    /// fail at the bad end; of a single step, which knows no bad end, all]
    #[arg(long = "check", value_name = "NAME", conflicts_with = "metric")]
    checks: Vec<String>,
    /// Judge by a metric against the good kernel, such as elapsed or page-walk-in-vain-per-unmap; of a
    /// program's with the better value, as in score:higher
    #[arg(long, value_name = "NAME[:lower|higher]")]
    metric: Option<String>,
    /// How many percent worse than the good kernel a good revision may be
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0, requires = "metric")]
    limit: f64,
    /// How many percent a metric's answer may be wrong: that of the bisection, or that of a single step
    #[arg(long, value_name = "PERCENT", default_value_t = 2.0)]
    error: f64,
    /// Most pairs of runs that a revision is compared in before it is skipped
    #[arg(long, value_name = "N", default_value_t = 60)]
    pairs: usize,
    /// More configuration for each kernel: kasan, lockdep, dma-debug, or a file (may be repeated)
    #[arg(long, value_name = "FRAGMENT")]
    config: Vec<String>,
    /// Edit the source of each revision first, as `kernel build` does (may be repeated)
    #[arg(long = "edit", value_name = "EDITS")]
    edits: Vec<String>,
    /// QEMU: a fetched one's name, or a binary [default: qemu-system-x86_64]
    #[arg(long, value_name = "NAME|PATH", env = "DMARIG_QEMU", hide_env = true)]
    qemu: Option<String>,
    /// Accelerator
    #[arg(long = "accel", value_name = "auto|kvm|tcg", default_value = "auto")]
    accelerator: Accelerator,
    /// Values of an axis instead of the case's (may be repeated)
    #[arg(long = "set", short = 's', value_name = "AXIS=VALUE,...")]
    sets: Vec<String>,
    /// More words for the kernel's command line
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    append: Vec<String>,
    /// Program that serves probes, as `dmarig probe` does [default: this one]
    #[arg(long, value_name = "PATH", hide = true)]
    probe_program: Option<PathBuf>,
    /// Stretch every deadline by this factor
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    patience: f64,
    /// Compilers at once [default: by processors]
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

/// The same, to be kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Subject {
    pub(crate) case: String,
    pub(crate) cells: Vec<String>,
    pub(crate) checks: Vec<String>,
    pub(crate) metric: Option<String>,
    pub(crate) limit: f64,
    pub(crate) pairs: usize,
    config: Vec<String>,
    edits: Vec<String>,
    qemu: Option<String>,
    accelerator: String,
    sets: Vec<String>,
    append: Vec<String>,
    probe_program: Option<PathBuf>,
    patience: f64,
    jobs: Option<u16>,
}

impl SubjectOptions {
    /// What they ask for.
    pub(crate) fn subject(&self) -> Result<Subject, Failure> {
        let named = self.case.as_deref().ok_or_else(|| {
            Failure::usage(anyhow!(
                "say what to judge by: --case CELL, as `dmarig cells` lists them"
            ))
        })?;
        let (case, mut cells) = (case_of(named), self.cells.clone());
        if case != named {
            cells.push(named.to_owned());
        }
        let absolute = |path: &String| match Path::new(path).is_file() {
            // It is read again after a resume from anywhere.
            true => {
                std::fs::canonicalize(path).map_or(path.clone(), |path| path.display().to_string())
            }
            false => path.clone(),
        };
        Ok(Subject {
            case: absolute(&case),
            cells,
            checks: self.checks.clone(),
            metric: self.metric.clone(),
            limit: self.limit,
            pairs: self.pairs,
            config: self.config.iter().map(absolute).collect(),
            edits: self.edits.iter().map(absolute).collect(),
            qemu: self.qemu.clone(),
            accelerator: self.accelerator.name().to_owned(),
            sets: self.sets.clone(),
            append: self.append.clone(),
            probe_program: self.probe_program.clone(),
            patience: self.patience,
            jobs: self.jobs,
        })
    }

    /// The probability that the answer may be wrong by noise.
    pub(crate) fn error(&self) -> Result<f64, Failure> {
        let error = self.error / 100.0;
        match error > 0.0 && error < 0.5 {
            true => Ok(error),
            false => Err(Failure::usage(anyhow!(
                "--error {}: it must be above 0 and below 50",
                self.error
            ))),
        }
    }
}

/// The case of a cell's id, or the case that is named.
fn case_of(named: &str) -> String {
    match named.split_once('/') {
        Some((case, _)) if dmarig_testcases::case(case).is_some() && !Path::new(named).exists() => {
            case.to_owned()
        }
        _ => named.to_owned(),
    }
}

impl Subject {
    /// What `run` would be told to run these cells on a kernel.
    pub(crate) fn selection(&self, kernel: &str) -> Result<Selection, Failure> {
        let accelerator = self.accelerator.parse().map_err(|_| {
            Failure::usage(anyhow!("`{}` is no accelerator: auto, kvm or tcg", self.accelerator))
        })?;
        Ok(Selection {
            cases: vec![self.case.clone()],
            cells: self.cells.clone(),
            kernels: vec![kernel.to_owned()],
            qemus: self.qemu.iter().cloned().collect(),
            accelerator,
            sets: self.sets.clone(),
            append: self.append.clone(),
            probe_program: self.probe_program.clone(),
            patience: self.patience,
            ..Selection::default()
        })
    }

    /// What is built of a revision; of the tree as it is now where none is named.
    pub(crate) fn spec(
        &self,
        tree: &Path,
        rev: Option<&str>,
    ) -> Result<Spec, dmarig_kernels::Error> {
        Ok(Spec {
            source: Source::Tree { dir: tree.to_owned(), rev: rev.map(str::to_owned) },
            config: self
                .config
                .iter()
                .map(|word| Fragment::load(word))
                .collect::<Result<_, _>>()?,
            edits: self
                .edits
                .iter()
                .map(|word| Edits::load(word, None))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether its QEMU is there, where one is named.
    pub(crate) fn check_qemu(&self, cache: &Cache) -> Result<(), Failure> {
        let Some(qemu) = &self.qemu else { return Ok(()) };
        qemu_program(cache, qemu).map(drop).map_err(|error| Failure::usage(anyhow!(error)))
    }

    /// A comparison by its metric, with at most so much error.
    pub(super) fn comparison(&self, error: f64) -> Result<Comparison, Trouble> {
        let metric = self.metric.as_deref().unwrap_or_default();
        let limit = Limit::parse(&format!("{metric}={}", self.limit));
        let told =
            |said| Trouble::Host(format!("--metric {metric} --limit {}: {said}", self.limit));
        Comparison::new(&limit.map_err(told)?, error, self.pairs)
    }

    /// Whether it can be judged as it says, with at most so much error in each judgement.
    pub(crate) fn judged(&self, error: f64) -> Result<(), Failure> {
        if self.metric.is_none() {
            return Ok(());
        }
        match self.comparison(error) {
            Err(Trouble::Host(said)) => Err(Failure::usage(anyhow!(said))),
            Ok(_) | Err(Trouble::Interrupted) => Ok(()),
        }
    }

    /// Compilers at once.
    pub(crate) fn jobs(&self) -> Option<usize> {
        self.jobs.map(usize::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cells_id_names_its_case() {
        for (named, case) in [
            ("smoke", "smoke"),
            ("smoke/caching-mode=on,policy=lazy", "smoke"),
            ("dir/case.yaml", "dir/case.yaml"),
            ("nope/x=y", "nope/x=y"),
        ] {
            assert_eq!(case_of(named), case);
        }
    }
}
