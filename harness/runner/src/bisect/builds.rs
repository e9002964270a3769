//! Kernels of revisions.

use std::path::Path;

use dmarig_bisect::{JudgeError, SkipCause};
use dmarig_images::Cache;
use dmarig_kernels::{Builder, Error, Fault};
use dmarig_model::text::shown;

use super::spec::JudgeSpec;
use crate::{
    builds::{self, NewBuildProgress},
    signals::InterruptibleRuntime,
};

/// The path of a built kernel, or the reason why the revision has none.
pub(super) type Kernel = Result<String, SkipCause>;

/// Builds a revision of a tree, or finds it built.
pub(super) fn build(
    cache: &Cache,
    spec: &JudgeSpec,
    tree: &Path,
    rev: Option<&str>,
    runtime: &mut InterruptibleRuntime,
    progress: NewBuildProgress,
) -> Result<Kernel, JudgeError> {
    let build = spec.build(tree, rev).map_err(|error| trouble(&error))?;
    let mut builder = Builder::new(cache);
    if let Some(jobs) = spec.jobs() {
        builder = builder.with_jobs(jobs);
    }
    match builds::build(builder, build, runtime, progress) {
        Ok(built) => Ok(Ok(built.kernel.vmlinux.display().to_string())),
        Err(error) => match error.fault() {
            Fault::Source => Ok(Err(SkipCause::Build(on_one_line(&error)))),
            _ => Err(trouble(&error)),
        },
    }
}

/// The reason why a source does not build, as a part of a line: the compiler's first error without the
/// lines that show its place.
fn on_one_line(error: &Error) -> String {
    match error {
        Error::DoesNotBuild { first, .. } => shown(first.lines().next().unwrap_or_default()),
        error => {
            let text = error.to_string();
            shown(&text.lines().map(str::trim).collect::<Vec<_>>().join(" "))
        }
    }
}

fn trouble(error: &Error) -> JudgeError {
    match error.fault() {
        Fault::Interrupted => JudgeError::Interrupted,
        _ => JudgeError::Host(error.to_string()),
    }
}
