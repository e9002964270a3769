//! What a revision is judged by: which cells, on what, by which measure. It is kept in the journal, so that
//! a bisection can be resumed without any option.

use std::path::{Path, PathBuf};

use dmarig_bisect::JudgeError;
use dmarig_images::Cache;
use dmarig_kernels::{Builder, Edits, Fragment, Source, Spec};
use dmarig_model::limit::Limit;
use serde::{Deserialize, Serialize};

use super::metric::MetricComparison;
use crate::{
    error::{Error, RequestError},
    prepare::qemu_program,
    request::Selection,
    select::select,
};

/// Which cells of which kernel, and what counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JudgeSpec {
    /// The case: a name or a file.
    pub case: String,
    /// Patterns of cell ids; without any, all cells.
    pub cells: Vec<String>,
    /// Checks that count; without any, all.
    pub checks: Vec<String>,
    /// The metric to judge by instead of checks, as `NAME[:lower|higher]`.
    pub metric: Option<String>,
    /// How many percent worse the metric may be.
    pub limit: f64,
    /// Most pairs in which a revision is compared.
    pub pairs: usize,
    /// Configuration fragments.
    pub config: Vec<String>,
    /// Edits of the source.
    pub edits: Vec<String>,
    /// The QEMU; without one, that on the `PATH`.
    pub qemu: Option<String>,
    /// The accelerator's name.
    pub accelerator: String,
    /// Values of axes.
    pub sets: Vec<String>,
    /// Words for the kernel's command line.
    pub append: Vec<String>,
    /// The program that serves probes.
    pub probe_program: Option<PathBuf>,
    /// Factor by which every deadline is stretched.
    pub patience: f64,
    /// Compilers at once.
    pub jobs: Option<u16>,
}

/// The case of a cell's id, or the case that is named.
#[must_use]
pub fn case_of(named: &str) -> String {
    match named.split_once('/') {
        Some((case, _)) if dmarig_testcases::case(case).is_some() && !Path::new(named).exists() => {
            case.to_owned()
        }
        _ => named.to_owned(),
    }
}

impl JudgeSpec {
    /// What `run` would be told to run these cells on a kernel.
    pub fn selection(&self, kernel: &str) -> Result<Selection, RequestError> {
        let accelerator = self
            .accelerator
            .parse()
            .map_err(|_| RequestError::Accelerator { name: self.accelerator.clone() })?;
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
    pub fn build(&self, tree: &Path, rev: Option<&str>) -> Result<Spec, dmarig_kernels::Error> {
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
    pub fn check_qemu(&self, cache: &Cache) -> Result<(), RequestError> {
        let Some(qemu) = &self.qemu else { return Ok(()) };
        qemu_program(cache, qemu).map(drop).map_err(RequestError::Qemu)
    }

    /// A comparison by its metric, with at most so much error.
    pub(super) fn comparison(&self, error: f64) -> Result<MetricComparison, JudgeError> {
        let metric = self.metric.as_deref().unwrap_or_default();
        let limit = Limit::parse(&format!("{metric}={}", self.limit));
        let told =
            |said| JudgeError::Host(format!("--metric {metric} --limit {}: {said}", self.limit));
        MetricComparison::new(&limit.map_err(told)?, error, self.pairs)
    }

    /// Whether it can be judged as it says, with at most so much error in each judgement.
    pub fn judged(&self, error: f64) -> Result<(), RequestError> {
        if self.metric.is_none() {
            return Ok(());
        }
        match self.comparison(error) {
            Err(JudgeError::Host(reason)) => Err(RequestError::Comparison(reason)),
            Ok(_) | Err(JudgeError::Interrupted) => Ok(()),
        }
    }

    /// Checks everything that can be checked before the first build: that the revisions exist, that the
    /// metric can be judged with at most `error` probability of a wrong answer each time, that the QEMU
    /// exists, and that the cells do.
    ///
    /// # Errors
    /// [`Error::Request`], [`Error::Kernels`]
    pub fn check<'a>(
        &self,
        error: f64,
        tree: &Path,
        revs: impl IntoIterator<Item = Option<&'a str>>,
        cache: &Cache,
    ) -> Result<(), Error> {
        for rev in revs {
            let build = self.build(tree, rev)?;
            Builder::new(cache).check(&build.source)?;
        }
        self.judged(error)?;
        self.check_qemu(cache)?;
        let selection = self.selection("a-revision")?;
        let cells = select(&selection, cache)?.cells;
        if self.metric.is_some() && cells.len() != 1 {
            let ids: Vec<&str> = cells.iter().take(4).map(|cell| cell.id.as_str()).collect();
            let cells_text = ids.join(", ");
            return Err(RequestError::SeveralCells { count: cells.len(), cells: cells_text }.into());
        }
        Ok(())
    }

    /// Compilers at once.
    pub fn jobs(&self) -> Option<usize> {
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
