//! Kernels of revisions.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use dmarig_bisect::{Obstacle, Trouble};
use dmarig_images::{Cache, Progress};
use dmarig_kernels::{Builder, Error, Fault};
use dmarig_model::text::shown;

use super::spec::JudgeSpec;
use crate::{error::ErrorClass, signals::InterruptibleRuntime};

/// The path of a kernel that was built, or why the revision has none.
pub(super) type Kernel = Result<String, Obstacle>;

/// Makes the progress of a build that ends when the flag is set.
pub type NewBuildProgress = fn(Arc<AtomicBool>) -> Box<dyn Progress>;

/// Builds a revision of a tree, or finds it built.
pub(super) fn build(
    cache: &Cache,
    spec: &JudgeSpec,
    tree: &Path,
    rev: Option<&str>,
    runtime: &mut InterruptibleRuntime,
    progress: NewBuildProgress,
) -> Result<Kernel, Trouble> {
    let build = match spec.build(tree, rev) {
        Ok(build) => build,
        Err(error) => return Err(trouble(&error)),
    };
    let mut builder = Builder::new(cache);
    if let Some(jobs) = spec.jobs() {
        builder = builder.with_jobs(jobs);
    }
    let stop = runtime.stop();
    let task = async {
        // On a thread of its own, since it blocks; it asks several times a second whether to stop.
        tokio::task::spawn_blocking(move || builder.build(&build, &*progress(stop))).await
    };
    match runtime.run(task) {
        None => Err(Trouble::Interrupted),
        Some(Err(panicked)) => Err(Trouble::Host(format!("the build broke down: {panicked}"))),
        Some(Ok(Ok(built))) => Ok(Ok(built.kernel.vmlinux.display().to_string())),
        Some(Ok(Err(error))) => match error.fault() {
            Fault::Source => Ok(Err(Obstacle::Build(on_one_line(&error)))),
            _ => Err(trouble(&error)),
        },
    }
}

/// Who has to act on an error of a build.
#[must_use]
pub fn kernel_error_class(error: &Error) -> ErrorClass {
    match error.fault() {
        Fault::Source => ErrorClass::Source,
        Fault::Request => ErrorClass::Request,
        Fault::Host => ErrorClass::Host,
        Fault::Interrupted => ErrorClass::Interrupted,
    }
}

/// Why a source does not build, as a part of a line: the compiler's first error without the lines that
/// show its place.
fn on_one_line(error: &Error) -> String {
    match error {
        Error::DoesNotBuild { first, .. } => shown(first.lines().next().unwrap_or_default()),
        error => {
            let text = error.to_string();
            shown(&text.lines().map(str::trim).collect::<Vec<_>>().join(" "))
        }
    }
}

fn trouble(error: &Error) -> Trouble {
    match error.fault() {
        Fault::Interrupted => Trouble::Interrupted,
        _ => Trouble::Host(error.to_string()),
    }
}
