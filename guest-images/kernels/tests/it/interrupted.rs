use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dmarig_images::{Progress, Unit};
use dmarig_kernels::{Builder, Error, Fault};

use crate::small_source::{Place, ProgressLog, edited};

/// The object directory of the only workspace.
fn objects(place: &Place) -> PathBuf {
    let all = walkdir::WalkDir::new(place.cache.dir().join("work")).min_depth(2).max_depth(2);
    let mut all = all.into_iter().map(|entry| entry.unwrap().into_path());
    all.find(|path| path.file_name().unwrap().to_string_lossy().starts_with("objects-")).unwrap()
}

#[test]
fn cancelling_a_build_ends_all_its_processes() {
    let place = Place::new();
    let text = fs::read_to_string(place.source().join("Makefile")).unwrap();
    let pid = place.dir.path().join("pid");
    let wait = format!("\t@echo $$$$ > {}; exec sleep 1000\n", pid.display());
    place.write("Makefile", &text.replace("\t@echo '  LD", &format!("{wait}\t@echo '  LD")));
    let log = ProgressLog { stop: true, ..ProgressLog::default() };
    let error = place.build_logged(&place.spec(None), &log).unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error}");
    assert_eq!(*log.steps.borrow(), ["source", "configure", "compile"]);
    assert_eq!(log.ended.get(), 3);
    assert_eq!(error.fault(), Fault::Interrupted);
    let gone = |pid: &Path| {
        let pid = fs::read_to_string(pid).unwrap_or_default();
        pid.is_empty() || !Path::new("/proc").join(pid.trim()).join("exe").exists()
    };
    assert!(gone(&pid));
    // What was half done is made again, and the lock is free.
    place.write("Makefile", &text);
    assert!(!place.build(&place.spec(None)).unwrap().already_cached);
}

#[test]
fn rebuilds_files_that_a_killed_build_left() {
    let place = Place::new();
    let spec = place.spec(None);
    place.build(&spec).unwrap();
    let objects = objects(&place);
    // A kill at the worst moment: the mark is there, and an object that is newer than its source and
    // half written.
    let mark = objects.join(".dmarig-making");
    fs::write(&mark, "").unwrap();
    fs::write(objects.join("a.o"), "half").unwrap();
    let later = SystemTime::now() + Duration::from_millis(50);
    fs::File::options().write(true).open(objects.join("a.o")).unwrap().set_modified(later).unwrap();
    let other = edited(&spec, "other", "kernel.c", "a();", "a(); a();");
    let log = ProgressLog::default();
    let built = place.build_logged(&other, &log).unwrap();
    assert!(log.messages.borrow().iter().any(|text| text.contains("cut short")));
    assert_eq!(built.made, 3);
    assert!(!mark.exists());
}

#[test]
fn waits_for_another_build_of_the_same_source() {
    let place = Place::new();
    let spec = place.spec(None);
    place.build(&spec).unwrap();
    let lock = walkdir::WalkDir::new(place.cache.dir().join("work")).max_depth(1).into_iter();
    let mut lock = lock.map(|entry| entry.unwrap().into_path());
    let lock = lock.find(|path| path.extension().is_some_and(|e| e == "lock")).unwrap();
    let file = fs::File::open(&lock).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    /// Gives the lock back as soon as it is waited for.
    struct Waits(RefCell<Option<fs::File>>);
    impl Progress for Waits {
        fn begin(&self, _step: &str, _unit: Unit, _total: Option<u64>) {}
        fn advance(&self, _amount: u64) {}
        fn end(&self) {}
        fn message(&self, text: &str) {
            assert!(text.contains("waiting for another build"), "{text}");
            self.0.take();
        }
    }
    let other = edited(&spec, "other", "a.c", "return 1", "return 3");
    let waits = Waits(RefCell::new(Some(file)));
    let built = Builder::new(&place.cache).build(&other, &waits).unwrap();
    assert_eq!(built.made, 2);
    assert!(waits.0.borrow().is_none());
}
