//! Kernels of revisions.

use std::path::Path;

use dmarig_bisect::{Obstacle, Trouble};
use dmarig_images::Cache;
use dmarig_kernels::{Builder, Error, Fault};
use dmarig_model::text::shown;

use super::subject::Subject;
use crate::commands::Bar;
use crate::hearing::Hearing;

/// A kernel that was built for us, by its image; or why the revision has none.
pub(crate) type Kernel = Result<String, Obstacle>;

/// Builds a revision of a tree, or finds it built.
pub(crate) fn build(
    cache: &Cache,
    subject: &Subject,
    tree: &Path,
    rev: Option<&str>,
    hearing: &mut Hearing,
) -> Result<Kernel, Trouble> {
    let spec = match subject.spec(tree, rev) {
        Ok(spec) => spec,
        Err(error) => return Err(trouble(&error)),
    };
    let mut builder = Builder::new(cache);
    if let Some(jobs) = subject.jobs() {
        builder = builder.with_jobs(jobs);
    }
    let stop = hearing.stop();
    let task = async {
        // On a thread of its own, since it blocks; it asks several times a second whether to stop.
        tokio::task::spawn_blocking(move || builder.build(&spec, &Bar::new(stop))).await
    };
    match hearing.run(task) {
        None => Err(Trouble::Interrupted),
        Some(Err(panicked)) => Err(Trouble::Host(format!("the build broke down: {panicked}"))),
        Some(Ok(Ok(built))) => Ok(Ok(built.kernel.vmlinux.display().to_string())),
        Some(Ok(Err(error))) => match error.fault() {
            Fault::Source => Ok(Err(Obstacle::Build(on_a_line(&error)))),
            _ => Err(trouble(&error)),
        },
    }
}

/// Why a source does not build, as a part of a line: of the compiler's first error, the lines that show its
/// place are left away.
fn on_a_line(error: &Error) -> String {
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
