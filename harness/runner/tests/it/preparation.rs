//! Preparation of cells: kernels, QEMUs and plans, without a run.

use std::{cell::RefCell, fs, path::PathBuf};

use dmarig_fake_qemu::{QemuScript, Role, write_kernel_tree};
use dmarig_images::Cache;
use dmarig_model::{
    axes::{Accelerator, Device},
    case::Case,
    skip::SkipReason,
};
use dmarig_runner::{
    Event, PrepareError, Reporter,
    prepare::{NotLaunched, Prepared, Preparer},
    request::Selection,
    select::select,
};
use rstest::rstest;
use tempfile::TempDir;
use tokio::sync::watch;

const CASE: &str = "case: one\naxes: {policy: strict}\nworkload: {block: {ops: 64}}\n";

/// Directories for one test, with a case, a kernel and a QEMU.
struct Place {
    directory: TempDir,
    selection: Selection,
}

/// Keeps notes.
#[derive(Default)]
struct NoteLog(RefCell<Vec<String>>);

impl Reporter for NoteLog {
    fn report(&self, event: &Event<'_>) {
        if let Event::Note(text) = event {
            self.0.borrow_mut().push((*text).to_owned());
        }
    }
}

impl Place {
    fn new(case: &str, unset: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("case.yaml");
        fs::write(&file, case).unwrap();
        let kernel = directory.path().join("kernel");
        write_kernel_tree(&kernel, unset);
        let programs = directory.path().join("bin");
        fs::create_dir(&programs).unwrap();
        let qemu = QemuScript::Passes.link_in(&programs);
        let selection = Selection {
            cases: vec![file.display().to_string()],
            kernels: vec![kernel.display().to_string()],
            qemus: vec![qemu.display().to_string()],
            accelerator: Accelerator::Tcg,
            ..Selection::default()
        };
        Self { directory, selection }
    }

    /// Prepares every cell in order, and returns the notes, too.
    fn prepare(&self) -> (Vec<Prepared>, Vec<String>) {
        let cache = Cache::open(Some(&self.directory.path().join("cache"))).unwrap();
        let selected = select(&self.selection, &cache).unwrap();
        let notes = NoteLog::default();
        let (_sender, interrupt) = watch::channel(false);
        let mut preparer = Preparer::new(&cache, &self.selection, None, interrupt, &notes);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut prepared = Vec::new();
        for cell in &selected.cells {
            let case: &Case = selected.case(cell);
            prepared.push(runtime.block_on(preparer.prepare(case, cell)));
        }
        (prepared, notes.0.into_inner())
    }

    /// The error of the only cell.
    fn error(&self) -> NotLaunched {
        let (mut prepared, _) = self.prepare();
        assert_eq!(prepared.len(), 1);
        prepared.remove(0).launch.unwrap_err()
    }
}

#[test]
fn plans_a_cell_that_can_run() {
    let place = Place::new(CASE, &[]);
    let (prepared, _) = place.prepare();
    let [cell] = prepared.as_slice() else { panic!("{prepared:?}") };
    let ready = cell.launch.as_ref().unwrap();
    assert!(!cell.quiet);
    assert_eq!(ready.plan.program, place.selection.qemus[0]);
    assert!(ready.plan.argv().contains(&ready.plan.cmdline));
    assert_eq!((ready.setup.accelerator, ready.windows.len()), (Accelerator::Tcg, 1));
    // The initramfs of the plan exists, and its hash is recorded.
    let position = ready.plan.boot.iter().position(|word| word == "-initrd").unwrap();
    assert!(PathBuf::from(&ready.plan.boot[position + 1]).is_file());
    assert_eq!(ready.setup.initramfs_sha256.len(), 64);
}

#[test]
fn skips_a_cell_whose_kernel_lacks_a_driver() {
    let error = Place::new(CASE, &["CONFIG_BLK_DEV_NVME"]).error();
    let NotLaunched::Skipped(reason) = error else { panic!("{error:?}") };
    assert!(reason.contains("CONFIG_BLK_DEV_NVME"), "{reason}");
}

#[test]
fn skips_only_the_cells_that_cannot_run() {
    let case = CASE.replace("strict", "strict, device: [nvme, virtio-blk]");
    let (prepared, _) = Place::new(&case, &["CONFIG_VIRTIO_BLK"]).prepare();
    let skipped: Vec<Device> = prepared
        .iter()
        .filter(|cell| matches!(cell.launch, Err(NotLaunched::Skipped(_))))
        .map(|cell| cell.cell.axes.device)
        .collect();
    assert_eq!((prepared.len(), &*skipped), (2, &[Device::VirtioBlk][..]));
}

#[test]
fn skips_live_mappings_without_a_probe() {
    let case = CASE.replace("strict", "strict, live-mappings: 5");
    let error = Place::new(&case, &[]).error();
    let expected = SkipReason::LiveMappings.to_string();
    assert!(matches!(&error, NotLaunched::Skipped(reason) if *reason == expected), "{error:?}");
}

#[test]
fn fails_a_cell_without_its_qemu() {
    let mut place = Place::new(CASE, &[]);
    place.selection.qemus = vec!["no-such-qemu".to_owned()];
    let error = place.error();
    assert!(matches!(error, NotLaunched::Failed(PrepareError::NoQemu { .. })), "{error:?}");
}

#[rstest]
#[case::missing("nowhere/file", |error: &PrepareError| matches!(error, PrepareError::NoFile { .. }))]
#[case::nameless("..", |error: &PrepareError| matches!(error, PrepareError::NamelessFile { .. }))]
fn fails_cells_with_an_added_file(
    #[case] path: &str,
    #[case] is_expected: fn(&PrepareError) -> bool,
) {
    let mut place = Place::new(CASE, &[]);
    place.selection.adds = vec![PathBuf::from(path)];
    let error = place.error();
    assert!(matches!(&error, NotLaunched::Failed(error) if is_expected(error)), "{error:?}");
}

#[test]
fn inspects_a_kernel_and_a_qemu_once_for_all_cells() {
    let case = CASE.replace("strict", "[lazy, strict, passthrough]");
    let mut place = Place::new(&case, &[]);
    place.selection.accelerator = Accelerator::Auto;
    let (prepared, notes) = place.prepare();
    assert!(prepared.iter().all(|cell| cell.launch.is_ok()));
    let accelerator = notes.iter().filter(|note| note.starts_with("TCG, not KVM")).count();
    assert_eq!((prepared.len(), accelerator), (3, 1), "{notes:?}");
}

#[test]
fn runs_a_quiet_case_alone() {
    let case = format!("{CASE}quiet: true\n");
    let (prepared, _) = Place::new(&case, &[]).prepare();
    assert!(prepared.iter().all(|cell| cell.quiet));
}
