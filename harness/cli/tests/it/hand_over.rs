//! A device is handed to VFIO and comes back, whatever happens, on a real kernel: the guest is the
//! host here, its emulated disk the device, and its virtual IOMMU the IOMMU.
//!
//! The program in the guest is `hand-over` of the crate `fake-qemu`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use dmarig_fake_qemu::program;

use crate::{
    guests::built,
    place::{Place, REAL_KERNEL, came_out, reasons},
};

/// The program's name.
const PROGRAM: &str = "hand-over";

/// Does what a hypervisor does with a device: has its group attached to an IOMMU's address space, and
/// the device open.
const HOLDER: &str = r#"
use std::{ffi::CString, fs::{File, OpenOptions}, os::fd::AsRawFd};

extern "C" {
    fn ioctl(fd: i32, request: u64, ...) -> i32;
}

fn open(path: &str) -> File {
    OpenOptions::new().read(true).write(true).open(path).expect(path)
}

fn main() {
    let mut words = std::env::args().skip(1);
    let (group, address) = (words.next().unwrap(), words.next().unwrap());
    let (container, group) = (open("/dev/vfio/vfio"), open(&format!("/dev/vfio/{group}")));
    let mut status = [8u32, 0];
    let address = CString::new(address).unwrap();
    // linux/vfio.h: VFIO_GROUP_GET_STATUS and VFIO_GROUP_FLAGS_VIABLE, VFIO_GROUP_SET_CONTAINER,
    // VFIO_SET_IOMMU with VFIO_TYPE1v2_IOMMU, VFIO_GROUP_GET_DEVICE_FD.
    unsafe {
        assert_eq!(ioctl(group.as_raw_fd(), 0x3b67, status.as_mut_ptr()), 0);
        assert_eq!(status[1] & 1, 1, "the group is not viable");
        assert_eq!(ioctl(group.as_raw_fd(), 0x3b68, &container.as_raw_fd()), 0);
        assert_eq!(ioctl(container.as_raw_fd(), 0x3b66, 3), 0);
        assert!(ioctl(group.as_raw_fd(), 0x3b6a, address.as_ptr()) >= 0);
    }
    println!("done");
    loop { std::thread::park() }
}
"#;

/// The words that make the guest a host with VFIO.
const VFIO: [&str; 4] = ["--module", "vfio-pci", "--module", "vfio_iommu_type1"];

/// Runs the program in a guest; gives the cell.
#[track_caller]
fn run(place: &Place, words: &[&str]) -> serde_json::Value {
    let argv = format!("/add/{LOADER}, --library-path, /add, /add/{PROGRAM}");
    let case = format!(
        "case: hand-over\nstandard: false\nworkload: {{exec: {{argv: [{argv}]}}}}\n\
         windows: {{count: false, time: 1}}\n"
    );
    let case = place.file("case.yaml", case);
    let files = files(place);
    let adds = files.iter().flat_map(|file| ["--add", file]);
    let first = ["run", &case, "--kernel", REAL_KERNEL, "--accel", "tcg", "--format", "json"];
    let all: Vec<_> = first.into_iter().chain(adds).chain(words.iter().copied()).collect();
    place.run(&all).cells().remove(0)
}

/// Each step, and each way of being interrupted, is played by the program in the guest.
#[test]
fn binds_disk_to_vfio_and_restores_it_in_a_guest() {
    let place = Place::real();
    let cell = run(&place, &VFIO);
    let record = serde_json::to_string_pretty(&place.record()).unwrap();
    assert!(cell["outcome"] == "passed", "{}\n{record}", reasons(&cell));
    let metrics = cell["metrics"].to_string();
    for name in ["bind", "restore", "mend", "mend-late"] {
        assert!(metrics.contains(&format!("\"{name}\"")), "{metrics}");
    }
}

#[test]
fn loads_requested_module_with_dependencies_in_a_guest() {
    let place = Place::real();
    let words = ["run", "boot", "--kernel", REAL_KERNEL, "--accel", "tcg", "--format", "json"];
    let cells = place.run(&[&words[..], &VFIO].concat()).cells();
    came_out(&cells[0], "passed");
    let loaded = place.record()[0]["observation"]["setup"]["modules"].to_string();
    for module in ["nvme", "vfio", "vfio_pci_core", "vfio_pci", "vfio_iommu_type1"] {
        assert!(loaded.contains(&format!("\"{module}\"")), "{loaded}");
    }
}

#[test]
fn rejects_unknown_module() {
    let place = Place::real();
    let words = ["run", "boot", "--kernel", REAL_KERNEL, "--format", "json"];
    let ended = place.run(&[&words[..], &["--module", "no-such"]].concat());
    came_out(&ended.cells()[0], "errored");
    // The module's name, as the kernel has it.
    assert!(reasons(&ended.cells()[0]).contains("no_such"), "{ended:?}");
    ended.exits(3);
}

/// The dynamic linker's name, which the psABI fixes.
const LOADER: &str = "ld-linux-x86-64.so.2";

/// The program and the libraries that it is linked with, under the names that the dynamic linker looks for.
fn files(place: &Place) -> Vec<String> {
    let built_program = program(PROGRAM);
    let directory = place.path("add");
    fs::create_dir(&directory).unwrap();
    let program = directory.join(PROGRAM);
    // Most of it is for debuggers, and the guest would unpack it all.
    let stripped = Command::new("strip").arg("-o").arg(&program).arg(&built_program).status();
    assert!(stripped.expect("strip, of the binutils that have linked this test").success());
    let output = Command::new("ldd").arg(&built_program).output().expect("ldd, of the C library");
    let mut files = vec![program];
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        // `NAME => PATH (ADDRESS)`, or only a path for the linker itself.
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        let Some(path) = path else { continue };
        let name = line.split_whitespace().next().map(Path::new).and_then(Path::file_name);
        let file = directory.join(name.unwrap());
        std::os::unix::fs::symlink(path, &file).unwrap();
        files.push(file);
    }
    files.push(built("holder", HOLDER));
    files.iter().map(|file: &PathBuf| file.display().to_string()).collect()
}
