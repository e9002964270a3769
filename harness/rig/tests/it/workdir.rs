//! Private directories of guests.

use std::{fs, os::unix::fs::PermissionsExt};

use dmarig_model::disk::{DISK_BYTES, DISK_FILE};
use dmarig_rig::workdir::{Workdir, sweep};

#[test]
fn creates_a_directory_for_its_owner_alone_and_removes_it() {
    let workdir = Workdir::new().unwrap();
    workdir.make_disk().unwrap();
    let path = workdir.path().to_owned();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(path.join(DISK_FILE)).unwrap().len(), DISK_BYTES);
    drop(workdir);
    assert!(!path.exists());
}

#[test]
fn sweeps_directories_of_dead_rigs_alone() {
    let live = Workdir::new().unwrap();
    // No process has this number: the kernel's limit is 2^22.
    let name = format!("dmarig-guest-99999999-test{}", std::process::id());
    let dead = std::env::temp_dir().join(name);
    fs::create_dir_all(&dead).unwrap();
    let swept = sweep();
    assert!(!dead.exists());
    assert!(live.path().exists());
    assert!(!swept.contains(&live.path().to_owned()));
}
