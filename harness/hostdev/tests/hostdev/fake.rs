//! A host made of files and links as the kernel lays them out, with a kernel that follows orders.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::Duration,
};

use dmarig_hostdev::{Address, Device, Host, Wishes};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

pub(crate) const DISK: &str = "0000:03:00.0";
pub(crate) const DISK_GROUP: u32 = 5;
pub(crate) const NIC: &str = "0000:04:00.0";
pub(crate) const PORT: &str = "0000:00:1c.0";
pub(crate) const DISPLAY: &str = "0000:00:02.0";
const PORT_PATH: &str = "sys/devices/pci0000:00/0000:00:1c.0";
pub(crate) const DISK_PATH: &str = "sys/devices/pci0000:00/0000:00:1c.0/0000:03:00.0";
pub(crate) const NIC_PATH: &str = "sys/devices/pci0000:00/0000:00:1d.0/0000:04:00.0";

/// What a driver that hangs, or does nothing, gets; enough for one that does its work on a machine that
/// is busy.
const SOON: Duration = Duration::from_secs(1);

/// A host with an IOMMU and VFIO, a disk, a network card and a display, all idle, run by root.
pub(crate) struct Fake {
    root: TempDir,
    kernel: Vec<(PathBuf, JoinHandle<()>)>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let root = tempfile::Builder::new().prefix("host-").tempdir().unwrap();
        // A test drops root's rights for a while and still has to see the tree.
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let fake = Self { root, kernel: Vec::new() };
        for (path, text) in [
            ("sys/devices/virtual/iommu/dmar0/intel-iommu/cap", "d2008c22260286\n"),
            ("sys/firmware/acpi/tables/DMAR", "DMAR"),
            ("sys/module/vfio_iommu_type1/refcnt", "0\n"),
            ("proc/cmdline", "root=/dev/sda1 intel_iommu=on\n"),
            ("proc/sys/kernel/random/boot_id", "first-boot\n"),
            ("proc/sys/kernel/osrelease", "6.12.1-test\n"),
            ("proc/self/status", "Name:\tdmarig\nPPid:\t1\nCapEff:\t000001ffffffffff\n"),
            (
                "proc/self/limits",
                "Max locked memory         8388608              8388608              bytes     \n",
            ),
            ("proc/self/mountinfo", "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"),
            ("proc/swaps", "Filename\t\t\t\tType\t\tSize\tUsed\tPriority\n"),
            ("proc/net/route", "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"),
            ("dev/vfio/vfio", ""),
        ] {
            fake.file(path, text);
        }
        fake.link("sys/class/iommu/dmar0", "sys/devices/virtual/iommu/dmar0");
        for driver in ["nvme", "e1000e", "vfio-pci", "pcieport"] {
            fs::create_dir_all(fake.path(&format!("sys/bus/pci/drivers/{driver}"))).unwrap();
        }
        fake.device(PORT, PORT_PATH, "0x060400", Some("pcieport"), 4);
        fake.device(DISK, DISK_PATH, "0x010802", Some("nvme"), DISK_GROUP);
        fake.device(NIC, NIC_PATH, "0x020000", Some("e1000e"), 6);
        fake.device(DISPLAY, "sys/devices/pci0000:00/0000:00:02.0", "0x030000", None, 1);
        fake.block("nvme0n1", &format!("{DISK_PATH}/nvme/nvme0/nvme0n1"), "259:0");
        fake.block("nvme0n1p1", &format!("{DISK_PATH}/nvme/nvme0/nvme0n1/nvme0n1p1"), "259:1");
        fake.block("sda1", "sys/devices/pci0000:00/0000:00:1f.2/sda/sda1", "8:1");
        fake.link("sys/class/net/eth0", &format!("{NIC_PATH}/net/eth0"));
        fs::create_dir_all(fake.path(&format!("{NIC_PATH}/net/eth0"))).unwrap();
        fake
    }

    /// The same with a kernel in it.
    pub(crate) fn alive() -> Self {
        let mut fake = Self::new();
        fake.obey("sys/bus/pci/drivers_probe");
        for driver in ["nvme", "e1000e", "vfio-pci"] {
            for lever in ["bind", "unbind"] {
                fake.obey(&format!("sys/bus/pci/drivers/{driver}/{lever}"));
            }
        }
        fake
    }

    pub(crate) fn host(&self) -> Host {
        Host::at(self.root.path())
    }

    /// One that has little patience, for what never comes.
    pub(crate) fn hasty(&self) -> Host {
        self.host().with_patience(SOON)
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    pub(crate) fn file(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn append(&self, path: &str, text: &str) {
        let before = fs::read_to_string(self.path(path)).unwrap_or_default();
        self.file(path, &(before + text));
    }

    pub(crate) fn remove(&self, path: &str) {
        let path = self.path(path);
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }

    /// A link to another path of the tree, relative as all of sysfs' are.
    pub(crate) fn link(&self, path: &str, to: &str) {
        link(self.root.path(), path, to);
    }

    pub(crate) fn device(
        &self,
        address: &str,
        path: &str,
        class: &str,
        driver: Option<&str>,
        group: u32,
    ) {
        for (name, text) in [
            ("class", class),
            ("vendor", "0x8086"),
            ("device", "0x0a54"),
            ("driver_override", "(null)"),
            ("reset_method", "flr bus"),
        ] {
            self.file(&format!("{path}/{name}"), &format!("{text}\n"));
        }
        self.link(&format!("sys/bus/pci/devices/{address}"), path);
        self.link(&format!("sys/kernel/iommu_groups/{group}/devices/{address}"), path);
        self.link(&format!("{path}/iommu_group"), &format!("sys/kernel/iommu_groups/{group}"));
        self.link(&format!("{path}/iommu"), "sys/devices/virtual/iommu/dmar0");
        if let Some(driver) = driver {
            self.link(&format!("{path}/driver"), &format!("sys/bus/pci/drivers/{driver}"));
        }
    }

    pub(crate) fn block(&self, name: &str, path: &str, number: &str) {
        self.file(&format!("{path}/dev"), &format!("{number}\n"));
        self.link(&format!("sys/class/block/{name}"), path);
        self.file(&format!("dev/{name}"), "");
    }

    /// A process that has a node open.
    pub(crate) fn process(&self, number: u32, name: &str, node: &str) {
        self.file(&format!("proc/{number}/comm"), &format!("{name}\n"));
        fs::create_dir_all(self.path(&format!("proc/{number}/fd"))).unwrap();
        symlink(node, self.path(&format!("proc/{number}/fd/3"))).unwrap();
    }

    pub(crate) fn inspect(&self, address: &str) -> Device {
        self.host().inspect(address.parse().unwrap()).unwrap()
    }

    /// What stands in a device's way, a line each.
    pub(crate) fn obstacles(&self, address: &str, wishes: &Wishes) -> String {
        let obstacles = self.inspect(address).obstacles(wishes);
        obstacles.iter().map(|obstacle| format!("{obstacle}\n")).collect()
    }

    pub(crate) fn driver(&self, address: &str) -> Option<String> {
        self.inspect(address).driver
    }

    pub(crate) fn preferred(&self, address: &str) -> String {
        let file = self.path(&format!("sys/bus/pci/devices/{address}/driver_override"));
        fs::read_to_string(file).unwrap().trim().to_owned()
    }

    /// Has the kernel follow what is written to this file. An order to a file that nobody follows
    /// never comes back.
    fn obey(&mut self, lever: &str) {
        let path = self.path(lever);
        self.lever(lever);
        let (root, file) = (self.root.path().to_owned(), path.clone());
        let thread = thread::spawn(move || {
            loop {
                let orders = fs::read_to_string(&file).unwrap();
                for address in orders.lines() {
                    if address == END {
                        return;
                    }
                    obey(&root, &file, address.parse().unwrap());
                }
            }
        });
        self.kernel.push((path, thread));
    }

    /// A file for orders.
    pub(crate) fn lever(&self, lever: &str) {
        mknodat(CWD, self.path(lever), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    }
}

const END: &str = "end";

impl Drop for Fake {
    fn drop(&mut self) {
        for (path, thread) in self.kernel.drain(..) {
            fs::write(path, END).unwrap();
            // One that has panicked has said so already.
            let _ = thread.join();
        }
    }
}

fn link(root: &Path, path: &str, to: &str) {
    let up = "../".repeat(path.matches('/').count());
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(up + to, path).unwrap();
}

/// What the kernel makes of an address that is written to `file`.
fn obey(root: &Path, file: &Path, address: Address) {
    let device = root.join(format!("sys/bus/pci/devices/{address}"));
    let real = device.canonicalize().unwrap();
    let link_path = real.strip_prefix(root.canonicalize().unwrap()).unwrap().join("driver");
    let driver = fs::read_link(real.join("driver")).ok();
    let driver = driver.map(|link| link.file_name().unwrap().to_string_lossy().into_owned());
    let text = |name: &str| fs::read_to_string(real.join(name)).unwrap().trim().to_owned();
    let group = fs::read_link(real.join("iommu_group")).unwrap();
    let node = root.join("dev/vfio").join(group.file_name().unwrap());
    let named = file.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
    let fitting = || match text("driver_override").as_str() {
        "" | "(null)" => match text("class").as_str() {
            "0x010802" => Some("nvme".to_owned()),
            "0x020000" => Some("e1000e".to_owned()),
            _ => None,
        },
        name => Some(name.to_owned()),
    };
    let lever = file.file_name().unwrap().to_string_lossy();
    let new = match (&*lever, driver) {
        ("unbind", Some(driver)) if driver == named => {
            fs::remove_file(real.join("driver")).unwrap();
            let _ = fs::remove_file(&node);
            return;
        }
        ("bind", None) => fitting().filter(|driver| *driver == named),
        ("drivers_probe", None) => fitting(),
        _ => None,
    };
    // A driver that refuses has a file that says so.
    let new = new.filter(|new| !root.join(format!("sys/bus/pci/drivers/{new}/refuses")).exists());
    if let Some(new) = new {
        link(root, link_path.to_str().unwrap(), &format!("sys/bus/pci/drivers/{new}"));
        if new == "vfio-pci" {
            fs::write(node, "").unwrap();
        }
    }
}
