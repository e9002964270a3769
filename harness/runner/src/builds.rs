//! Kernels that are fetched or built from source.

use std::sync::{Arc, atomic::AtomicBool};

use dmarig_images::{Cache, FetchOptions, Fetched, Mirrors, Progress};
use dmarig_kernels::{Builder, Built, Error, Spec};

use crate::signals::InterruptibleRuntime;

/// Creates the progress of a build. The build ends early when the flag is set.
pub type NewBuildProgress = fn(Arc<AtomicBool>) -> Box<dyn Progress>;

/// Fetches a source that has a recipe and is not in the cache. `None` if it is in the cache or has no
/// recipe.
///
/// # Errors
/// [`dmarig_images::Error`]
pub fn fetch_source(
    cache: &Cache,
    name: &str,
    mirrors: &Mirrors,
    progress: &dyn Progress,
) -> Result<Option<Fetched>, dmarig_images::Error> {
    if !matches!(cache.source(name), Err(dmarig_images::Error::SourceNotFetched { .. })) {
        return Ok(None);
    }
    let Some(recipe) = cache.recipes().source(name) else { return Ok(None) };
    let options = FetchOptions { mirrors: mirrors.clone(), refresh: false };
    cache.fetch(recipe, &options, progress).map(Some)
}

/// Builds a kernel, or finds it built.
///
/// # Errors
/// [`dmarig_kernels::Error`]; [`Error::Interrupted`] after a signal.
pub fn build(
    builder: Builder,
    spec: Spec,
    runtime: &mut InterruptibleRuntime,
    progress: NewBuildProgress,
) -> Result<Built, Error> {
    let stop = runtime.stop();
    // The build blocks, so it has a thread of its own. It checks several times a second whether to stop.
    let task =
        async { tokio::task::spawn_blocking(move || builder.build(&spec, &*progress(stop))).await };
    match runtime.run(task) {
        None => Err(Error::Interrupted),
        Some(Ok(built)) => built,
        Some(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
