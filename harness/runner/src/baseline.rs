//! The kernels of a run compared with a baseline kernel, by the limits of their cases.

use std::collections::BTreeSet;

use dmarig_history::CellKey;
use dmarig_images::Cache;
use dmarig_model::{case::Workload, limit::Limit, text::shown, windows::Side};
use dmarig_records::Comparison;
use tokio::sync::watch;

use crate::{
    error::{Error, RequestError},
    event::{Event, Reporter},
    paired::{CompareRequest, compare, fresh_seed},
    request::Selection,
    run::RunRequest,
    select::{Selected, case_word, check_kernel, check_limits},
};

/// A baseline for the kernels under test.
#[derive(Debug, Clone)]
pub struct Baseline {
    /// The kernel that the others are compared with.
    pub kernel: String,
    /// Limits instead of the cases' own.
    pub limits: Vec<Limit>,
    /// Seed of the order of pairs; without it, a random one.
    pub seed: Option<u64>,
}

impl Baseline {
    /// Checks that there is something to compare.
    ///
    /// # Errors
    /// [`Error::Request`] where nothing that is selected can be judged.
    pub fn check(
        &self,
        selection: &Selection,
        selected: &Selected,
        cache: &Cache,
    ) -> Result<(), Error> {
        check_kernel("--baseline", &self.kernel, cache)?;
        check_limits(&selected.cases, &self.limits, &[])?;
        let baseline = self.kernel.clone();
        if selection.device.is_given() {
            return Err(RequestError::BaselineWithDevice.into());
        }
        if self.cases(selected).is_empty() {
            return Err(RequestError::NothingJudgedByBaseline { baseline }.into());
        }
        if self.kernels(selected).is_empty() {
            return Err(RequestError::BaselineIsKernel { baseline }.into());
        }
        Ok(())
    }

    /// Compares one kernel after the other; each comparison has a record of its own.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn compare(
        &self,
        request: &RunRequest,
        selected: &Selected,
        cache: &Cache,
        interrupted: &watch::Receiver<bool>,
        reporter: &dyn Reporter,
    ) -> Result<Vec<Comparison>, Error> {
        let mut compared = Vec::new();
        for kernel in self.kernels(selected) {
            if *interrupted.borrow() {
                break;
            }
            let with_kernel = |kernel: &str| Selection {
                cases: self.cases(selected),
                kernels: vec![kernel.to_owned()],
                // Each of the two kernels has its side.
                reference: None,
                ..request.selection.clone()
            };
            let comparison = CompareRequest {
                names: [kernel.clone(), self.kernel.clone()],
                selections: [with_kernel(&kernel), with_kernel(&self.kernel)],
                sides: [Side::Own; 2],
                limits: &self.limits,
                metrics: &[],
                seed: self.seed.unwrap_or_else(fresh_seed),
            };
            let (command, interrupted) = (request.command.clone(), interrupted.clone());
            let outcome =
                compare(&comparison, cache, command, &request.runs, interrupted, reporter).await?;
            reporter.report(&Event::Recorded(&outcome.directory));
            compared.push(outcome.comparison);
        }
        Ok(compared)
    }

    /// Whether a metric of a cell is judged against the baseline.
    #[must_use]
    pub fn judges(&self, selected: &Selected, place: &CellKey, metric: &str) -> bool {
        let kernels = self.kernels(selected);
        let Some(case) = selected.cases.iter().find(|case| case.name == place.case) else {
            return false;
        };
        let limits = if self.limits.is_empty() { &case.limits } else { &self.limits };
        kernels.iter().any(|kernel| shown(kernel) == place.kernel)
            && limits.iter().any(|limit| shown(&limit.metric) == metric)
    }

    /// The cases that have something to be judged by, as the user names them.
    fn cases(&self, selected: &Selected) -> Vec<String> {
        let judged = selected.cases.iter().filter(|case| {
            case.workload != Workload::Idle && !(self.limits.is_empty() && case.limits.is_empty())
        });
        judged.map(|case| case_word(&case.file).to_owned()).collect()
    }

    /// The kernels that are compared.
    fn kernels(&self, selected: &Selected) -> BTreeSet<String> {
        let kernels = selected.cells.iter().map(|cell| cell.axes.kernel.clone());
        kernels.filter(|kernel| *kernel != self.kernel).collect()
    }
}
