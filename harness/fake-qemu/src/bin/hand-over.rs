//! Hands a disk to VFIO and takes it back, in a guest that is the host of this: each step, and each way of being
//! interrupted.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Read},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dmarig_hostdev::{Address, Choice, Device, Error, Host, Interface, Outcome, Wishes};

const NVME: u32 = 0x01_08_02;
const STATE: &str = "/run/dmarig";

fn main() {
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
}

/// Reports to the parent that all is done, and waits to be killed.
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
