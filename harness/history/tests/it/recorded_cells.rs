//! Records of runs, generated from a real one.

use std::path::{Path, PathBuf};

use dmarig_records::{CellRecord, Recorder, RunMeta, StoredRun};

/// A record of version 1: one cell that completed, with four timed windows, and one that was
/// interrupted.
pub(crate) fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/record-1")
}

/// The cell that completed, on another kernel, with all times multiplied by `slower`.
pub(crate) fn cell(kernel: &str, slower: u64) -> CellRecord {
    let mut record = StoredRun::read(&fixture()).unwrap().cells.remove(0);
    let observation = &mut record.observation;
    observation.axes.kernel = kernel.to_owned();
    observation.setup.kernel_sha256 = format!("{kernel}-image");
    observation.cell = format!("aa/kernel={kernel}");
    observation.windows.iter_mut().for_each(|window| window.report.elapsed_ns *= slower);
    record
}

/// Starts a record below `runs`.
pub(crate) fn begin(runs: &Path, change: impl FnOnce(&mut RunMeta)) -> Recorder {
    let mut meta = StoredRun::read(&fixture()).unwrap().meta;
    change(&mut meta);
    Recorder::create(runs, &mut meta).unwrap()
}

/// Writes a complete record of these cells, and returns its directory.
pub(crate) fn record(runs: &Path, cells: &[CellRecord]) -> PathBuf {
    let mut recorder = begin(runs, |_| ());
    cells.iter().for_each(|cell| recorder.add(cell).unwrap());
    recorder.directory().to_owned()
}
