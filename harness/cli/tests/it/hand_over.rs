//! A device is handed to VFIO and comes back, whatever happens, on a real kernel: the guest is the
//! host here, its emulated disk the device, and its virtual IOMMU the IOMMU.
//!
//! The program in the guest is this very test binary under another name, as for the fake QEMU.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use dmarig_hostdev::{Address, Choice, Device, Error, Host, Interface, Outcome, Wishes};

use crate::{
    guests::built,
    place::{Place, REAL_KERNEL, came_out, reasons},
};

/// The program's name.
const PROGRAM: &str = "hand-over";
const NVME: u32 = 0x01_08_02;
const STATE: &str = "/run/dmarig";

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
pub(crate) fn a_disk_goes_to_vfio_and_comes_back_in_a_guest() {
    let place = Place::real();
    let cell = run(&place, &VFIO);
    let record = serde_json::to_string_pretty(&place.record()).unwrap();
    assert!(cell["outcome"] == "passed", "{}\n{record}", reasons(&cell));
    let metrics = cell["metrics"].to_string();
    for name in ["bind", "restore", "mend", "mend-late"] {
        assert!(metrics.contains(&format!("\"{name}\"")), "{metrics}");
    }
}

pub(crate) fn a_module_that_is_asked_for_is_loaded_with_what_it_needs_in_a_guest() {
    let place = Place::real();
    let words = ["run", "boot", "--kernel", REAL_KERNEL, "--accel", "tcg", "--format", "json"];
    let cells = place.run(&[&words[..], &VFIO].concat()).cells();
    came_out(&cells[0], "passed", "");
    let loaded = place.record()[0]["observation"]["setup"]["modules"].to_string();
    for module in ["nvme", "vfio", "vfio_pci_core", "vfio_pci", "vfio_iommu_type1"] {
        assert!(loaded.contains(&format!("\"{module}\"")), "{loaded}");
    }
}

pub(crate) fn a_module_that_there_is_none_of() {
    let place = Place::real();
    let words = ["run", "boot", "--kernel", REAL_KERNEL, "--format", "json"];
    let ended = place.run(&[&words[..], &["--module", "no-such"]].concat());
    came_out(&ended.cells()[0], "errored", "no_such");
    ended.exits(3);
}

/// The dynamic linker's name, which the psABI fixes.
const LOADER: &str = "ld-linux-x86-64.so.2";

/// This binary, and what it is linked with, under the names that it is looked for by.
fn files(place: &Place) -> Vec<String> {
    let exe = std::env::current_exe().unwrap();
    let directory = place.path("add");
    fs::create_dir(&directory).unwrap();
    let program = directory.join(PROGRAM);
    // What is for debuggers is most of it, and the guest would unpack it all.
    let stripped = Command::new("strip").arg("-o").arg(&program).arg(&exe).status();
    assert!(stripped.expect("strip, of the binutils that have linked this test").success());
    let output = Command::new("ldd").arg(&exe).output().expect("ldd, of the C library");
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

/// Whether this process is the program in the guest.
pub(crate) fn is_program() -> bool {
    let name = std::env::args_os().next().unwrap_or_default();
    Path::new(&name).file_name().is_some_and(|name| name == PROGRAM)
}

/// The program in the guest.
pub(crate) fn play() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => {
            let guest = Guest { host: Host::real(), address: disk().address };
            guest.is_ready();
            guest.in_use();
            guest.there_and_back();
            guest.killed();
            guest.open_all_the_while();
        }
        Some("open") => {
            let _disk = File::open(namespace(&disk())).unwrap();
            stay();
        }
        Some(_) => {
            let _bound = Host::real().bind(&disk(), &[], STATE.as_ref()).unwrap();
            stay();
        }
    }
    ExitCode::SUCCESS
}

/// Tells the parent that all is done, and waits for the end.
fn stay() -> ! {
    println!("done");
    loop {
        thread::park();
    }
}

fn disk() -> Device {
    let candidates = Host::real().candidates();
    let disk = candidates.into_iter().find(|candidate| candidate.device.class == NVME);
    disk.expect("an NVMe disk").device
}

fn namespace(disk: &Device) -> PathBuf {
    assert_eq!(disk.class, NVME);
    "/dev/nvme0n1".into()
}

/// Another process of this program that has done `what`.
fn another(what: &str) -> Other {
    let name = std::env::args_os().next().unwrap();
    // This process' file is the dynamic linker.
    let mut command = Command::new("/proc/self/exe");
    done(command.args(["--library-path", "/add"]).arg(name).arg(what))
}

/// A process that has said that it has done its work.
fn done(command: &mut Command) -> Other {
    let mut other = Other(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(other.0.stdout.as_mut().unwrap()).lines();
    assert_eq!(lines.next().expect("a line").unwrap(), "done");
    other
}

/// Another process, until it is dropped: then it ends as by `kill -9`.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

struct Guest {
    host: Host,
    address: Address,
}

impl Guest {
    fn look(&self) -> Device {
        self.host.inspect(self.address).unwrap()
    }

    fn driver(&self) -> Option<String> {
        self.look().driver
    }

    #[track_caller]
    fn stands_in_the_way(&self, text: &str) {
        let said = self.look().obstacles(&Wishes::default());
        let said: String = said.iter().map(|obstacle| format!("{obstacle}\n")).collect();
        assert!(said.contains(text), "no `{text}` in\n{said}");
    }

    fn is_ready(&self) {
        let disk = self.look();
        println!("{disk} {:?} {:?} {:?} {:?}", disk.driver, disk.iommu, disk.resets, disk.bars);
        let wishes = Wishes { guest_memory: 1 << 30, ..Wishes::default() };
        assert_eq!(disk.obstacles(&wishes), []);
        assert_eq!(disk.driver.as_deref(), Some("nvme"));
        assert_eq!(disk.iommu.as_ref().map(|iommu| iommu.name.as_str()), Some("dmar0"));
        assert_eq!(disk.iommu.and_then(|iommu| iommu.address_bits), Some(39));
        assert_eq!(disk.members.len(), 1);
        assert!(disk.bars.iter().any(|bar| bar.memory && bar.size >= 16 << 10));
    }

    fn in_use(&self) {
        let child = another("open");
        self.stands_in_the_way(&format!("/dev/nvme0n1, which process {} (", child.0.id()));
        drop(child);
        // As a file system does, or a volume.
        let exclusively = rustix::fs::OFlags::EXCL.bits().try_into().unwrap();
        let node = namespace(&self.look());
        let claim = OpenOptions::new().read(true).custom_flags(exclusively).open(node).unwrap();
        self.stands_in_the_way("nvme0n1, which somebody has claimed who does not show");
        drop(claim);
        assert_eq!(self.look().obstacles(&Wishes::default()), []);
    }

    fn there_and_back(&self) {
        let start = Instant::now();
        let bound = self.host.bind(&self.look(), &[], STATE.as_ref()).unwrap();
        println!("bind {} s", start.elapsed().as_secs_f64());
        assert_eq!(self.driver().as_deref(), Some("vfio-pci"));
        assert_eq!(bound.interface(Choice::default()).unwrap(), Interface::Legacy);
        assert!(!namespace(&self.look()).exists());
        let holder = self.holder();
        self.stands_in_the_way(&format!(
            "handed over already, to process {} (holder)",
            holder.0.id()
        ));
        drop(holder);
        let start = Instant::now();
        bound.restore().unwrap();
        println!("restore {} s", start.elapsed().as_secs_f64());
        self.is_back();
    }

    /// A process that uses the device as a hypervisor does.
    fn holder(&self) -> Other {
        let group = self.look().group.unwrap().to_string();
        done(Command::new("/add/holder").args([group, self.address.to_string()]))
    }

    /// The disk has its driver again, and works.
    #[track_caller]
    fn is_back(&self) {
        assert_eq!(self.driver().as_deref(), Some("nvme"));
        let (start, node) = (Instant::now(), namespace(&self.look()));
        while !node.exists() {
            assert!(start.elapsed() < Duration::from_secs(60), "no {}", node.display());
            thread::sleep(Duration::from_millis(5));
        }
        File::open(node).unwrap().read_exact(&mut [0; 4096]).unwrap();
        assert_eq!(fs::read_dir(STATE).unwrap().count(), 0);
    }

    fn recover(&self, host: &Host) -> Outcome {
        let mut mended = host.recover(STATE.as_ref()).unwrap();
        assert_eq!(mended.len(), 1);
        assert_eq!(mended[0].address, self.address);
        mended.remove(0).outcome
    }

    fn killed(&self) {
        let child = another("bind");
        let alive = self.recover(&self.host);
        assert!(matches!(alive, Outcome::Alive(Some(id)) if id == child.0.id()), "{alive:?}");
        let taken = self.host.bind(&self.look(), &[], STATE.as_ref()).unwrap_err();
        assert!(matches!(taken, Error::Taken { .. }), "{taken}");
        drop(child);
        assert_eq!(self.driver().as_deref(), Some("vfio-pci"));
        let start = Instant::now();
        let mended = self.recover(&self.host);
        println!("mend {} s", start.elapsed().as_secs_f64());
        assert!(
            matches!(&mended, Outcome::GivenBack(Some(driver)) if driver == "nvme"),
            "{mended:?}"
        );
        self.is_back();
        assert!(self.host.recover(STATE.as_ref()).unwrap().is_empty());
    }

    /// VFIO lets go of a device only when nobody has it open, so that isn't asked of it before.
    fn open_all_the_while(&self) {
        drop(another("bind"));
        let holder = self.holder();
        let hasty = self.host.clone().with_patience(Duration::from_secs(1));
        let Outcome::Failed(error) = self.recover(&hasty) else {
            panic!("given back while it was open")
        };
        let held = format!("process {} (holder) has it open", holder.0.id());
        assert!(error.to_string().contains(&held), "{error}");
        drop(holder);
        let start = Instant::now();
        let mended = self.recover(&self.host);
        println!("mend-late {} s", start.elapsed().as_secs_f64());
        assert!(matches!(mended, Outcome::GivenBack(Some(_))), "{mended:?}");
        self.is_back();
    }
}
