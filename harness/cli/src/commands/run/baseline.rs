//! `dmarig run --baseline`: the kernels under test beside another one, by the limits of their cases.

use std::{collections::BTreeSet, path::Path};

use anyhow::anyhow;
use clap::Args;
use dmarig_history::{Comparison, Place};
use dmarig_images::Cache;
use dmarig_model::{case::Workload, limit::Limit, text::shown, windows::Side};
use tokio::sync::watch;

use crate::{
    cases::{Selected, check_kernel, check_limits},
    commands::compare::fresh_seed,
    exit::Failure,
    interleave::{self, Asked, Ended},
    options::Selection,
};

#[derive(Debug, Args)]
pub(crate) struct Against {
    /// Compare with this kernel, too: what has a limit runs on both turn and turn about, until it can be
    /// told which is worse
    #[arg(long, value_name = "NAME|PATH")]
    pub(crate) baseline: Option<String>,
    /// How many percent worse than the baseline's a metric may be, instead of the cases' own limits, as in
    /// elapsed=5 (may be repeated)
    #[arg(long = "limit", value_name = "METRIC=PERCENT", value_parser = Limit::parse, requires = "baseline")]
    pub(crate) limits: Vec<Limit>,
    /// From which the order of pairs is drawn [default: another one each time, which is told]
    #[arg(long, value_name = "N", requires = "baseline")]
    pub(crate) seed: Option<u64>,
}

impl Against {
    /// Whether there is something to compare with.
    ///
    /// # Errors
    /// Where nothing that is selected can be judged.
    pub(crate) fn check(
        &self,
        selection: &Selection,
        selected: &Selected,
        cache: &Cache,
    ) -> Result<(), Failure> {
        let Some(baseline) = &self.baseline else { return Ok(()) };
        check_kernel("--baseline", baseline, cache)?;
        check_limits(&selected.cases, &self.limits, &[])?;
        if selection.device.is_given() {
            return Err(Failure::usage(anyhow!(
                "--baseline boots two kernels in turn, and --device lends the device to one run: compare two \
                 runs with `dmarig compare` instead"
            )));
        }
        if self.words(selected).is_empty() {
            return Err(Failure::usage(anyhow!(
                "no selected case has `limits`, so nothing would be judged against {baseline}: give --limit, as \
                 in --limit elapsed=5"
            )));
        }
        if self.kernels(selected).is_empty() {
            return Err(Failure::usage(anyhow!("{baseline} would be compared with itself")));
        }
        Ok(())
    }

    /// Runs what is to be compared, a kernel after the other.
    pub(crate) async fn run(
        &self,
        cache: &Cache,
        selection: &Selection,
        selected: &Selected,
        command: &[String],
        runs: &Path,
        interrupted: &watch::Receiver<bool>,
    ) -> Result<Vec<Comparison>, Failure> {
        let mut compared = Vec::new();
        let Some(baseline) = &self.baseline else { return Ok(compared) };
        for kernel in self.kernels(selected) {
            if *interrupted.borrow() {
                break;
            }
            let with = |kernel: &str| Selection {
                cases: self.words(selected),
                kernels: vec![kernel.to_owned()],
                // Of two kernels each has its side.
                reference: None,
                ..selection.clone()
            };
            let asked = Asked {
                names: [kernel.clone(), baseline.clone()],
                selections: [with(&kernel), with(baseline)],
                sides: [Side::Own; 2],
                limits: &self.limits,
                metrics: &[],
                seed: self.seed.map_or_else(fresh_seed, Ok)?,
            };
            let command = command.to_vec();
            let ended = interleave::run(&asked, cache, command, runs, interrupted.clone()).await?;
            let Ended { comparison, directory, .. } = ended;
            errln!("record: {}", directory.display());
            compared.push(comparison);
        }
        Ok(compared)
    }

    /// The baseline, where it is what a metric of a cell is judged beside.
    pub(super) fn judges(
        &self,
        selected: &Selected,
        place: &Place,
        metric: &str,
    ) -> Option<String> {
        let baseline = self.baseline.as_ref()?;
        let kernels = self.kernels(selected);
        let kernel = kernels.iter().find(|kernel| shown(kernel) == place.kernel);
        let case = selected.cases.iter().find(|case| case.name == place.case);
        let limits = if self.limits.is_empty() { &case?.limits } else { &self.limits };
        let judged = kernel.is_some() && limits.iter().any(|limit| shown(&limit.metric) == metric);
        judged.then(|| baseline.clone())
    }

    /// The cases that have something to be judged by, as the user names them.
    fn words(&self, selected: &Selected) -> Vec<String> {
        let judged = selected.cases.iter().filter(|case| {
            case.workload != Workload::Idle && !(self.limits.is_empty() && case.limits.is_empty())
        });
        judged.map(|case| super::case_word(&case.file).to_owned()).collect()
    }

    /// The kernels that are compared.
    fn kernels(&self, selected: &Selected) -> BTreeSet<String> {
        let kernels = selected.cells.iter().map(|cell| cell.axes.kernel.clone());
        kernels.filter(|kernel| Some(kernel) != self.baseline.as_ref()).collect()
    }
}
