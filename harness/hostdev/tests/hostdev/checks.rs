//! What stands in a device's way, and what is said to do about it.

use std::{fs, os::unix::fs::PermissionsExt};

use dmarig_hostdev::{Address, Interface, Obstacle, Wishes};

use crate::fake::{DISK, DISK_GROUP, DISK_PATH, DISPLAY, Fake, NIC, NIC_PATH, PORT};

const GIB: u64 = 1 << 30;

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

/// Asserts what stands in a device's way on a host that was changed: all these texts, and nothing
/// where there are none.
#[track_caller]
fn check(device: &str, wishes: &Wishes, texts: &[&str], change: impl FnOnce(&Fake)) {
    let fake = Fake::new();
    change(&fake);
    says(&fake, device, wishes, texts);
}

#[track_caller]
fn says(fake: &Fake, device: &str, wishes: &Wishes, texts: &[&str]) {
    let said = fake.obstacles(device, wishes);
    assert_eq!(said.is_empty(), texts.is_empty(), "{said}");
    for text in texts {
        assert!(said.contains(text), "no `{text}` in\n{said}");
    }
}

/// The same of something that the host uses, which force takes from it and only force that names it.
#[track_caller]
fn in_use(device: &str, texts: &[&str], change: impl FnOnce(&Fake)) {
    let fake = Fake::new();
    change(&fake);
    let insist = format!("--force-device {device}");
    let texts = [texts, &[insist.as_str()]].concat();
    let force =
        |address: &str| Wishes { force: [address.parse().unwrap()].into(), ..Wishes::default() };
    says(&fake, device, &Wishes::default(), &texts);
    says(&fake, device, &force("0000:00:1f.7"), &texts);
    says(&fake, device, &force(device), &[]);
}

#[test]
fn describes_a_device() {
    let fake = Fake::new();
    fake.file(&format!("{DISK_PATH}/numa_node"), "1\n");
    let device = fake.inspect(DISK);
    assert_eq!(device.to_string(), "0000:03:00.0 NVMe 8086:0a54");
    assert_eq!(device.driver.as_deref(), Some("nvme"));
    assert_eq!((device.group, device.numa_node), (Some(DISK_GROUP), Some(1)));
    assert_eq!(device.members.len(), 1);
    assert_eq!(device.resets, ["flr", "bus"]);
    let iommu = device.iommu.as_ref().unwrap();
    assert_eq!((iommu.name.as_str(), iommu.address_bits), ("dmar0", Some(39)));
    assert!(device.vfio.driver && device.vfio.container && !device.vfio.iommufd);
    assert!(device.obstacles(&Wishes::default()).is_empty());
    let nothing = fake.host().inspect(address("0000:7f:00.0")).unwrap_err().to_string();
    assert!(nothing.contains("no PCI device 0000:7f:00.0") && nothing.contains("dmarig doctor"));
}

#[test]
fn lists_candidates_with_their_obstacles() {
    let fake = Fake::new();
    fake.append("proc/self/mountinfo", "30 21 259:1 / /data rw - ext4 /dev/nvme0n1p1 rw\n");
    let list: Vec<_> = fake.host().candidates().iter().map(ToString::to_string).collect();
    assert_eq!(list.len(), 3, "{list:?}");
    assert_eq!(list[0], "0000:00:02.0 display 8086:0a54 (no driver): ready");
    assert!(list[1].starts_with("0000:03:00.0 NVMe 8086:0a54 (nvme): 0000:03:00.0 has a mounted"));
    assert_eq!(list[2], "0000:04:00.0 network 8086:0a54 (e1000e): ready");
}

#[test]
fn reports_a_missing_iommu() {
    let off = |fake: &Fake| {
        fake.remove(&format!("{DISK_PATH}/iommu"));
        fake.remove(&format!("{DISK_PATH}/iommu_group"));
    };
    let wishes = Wishes { force: [address(DISK)].into(), ..Wishes::default() };
    check(DISK, &wishes, &["stands behind no IOMMU", "add intel_iommu=on to"], off);
    check(DISK, &wishes, &["stands behind no IOMMU", "take that word out"], |fake| {
        off(fake);
        fake.file("proc/cmdline", "intel_iommu=off\n");
    });
    check(DISK, &wishes, &["stands behind no IOMMU", "switch VT-d (or AMD-Vi) on"], |fake| {
        off(fake);
        fake.remove("sys/firmware/acpi/tables/DMAR");
    });
}

#[test]
fn reports_other_devices_in_the_group() {
    let sibling = "0000:03:00.1";
    let path = format!("{DISK_PATH}/../{sibling}");
    let add = |fake: &Fake, driver| fake.device(sibling, &path, "0x040300", driver, DISK_GROUP);
    let texts = ["shares IOMMU group 5 with 0000:03:00.1 (driver e1000e)", "move the card"];
    check(DISK, &Wishes::default(), &texts, |fake| add(fake, Some("e1000e")));
    check(DISK, &Wishes::default(), &[], |fake| add(fake, None));
    check(DISK, &Wishes::default(), &[], |fake| add(fake, Some("vfio-pci")));
    let wishes = Wishes { companions: [address(sibling)].into(), ..Wishes::default() };
    check(DISK, &wishes, &[], |fake| add(fake, Some("e1000e")));
    // Bridges are in the hands of a driver that does no DMA, other drivers' are not.
    let bridge = |class: &'static str, driver| {
        let path = path.clone();
        move |fake: &Fake| fake.device(sibling, &path, class, Some(driver), DISK_GROUP)
    };
    check(DISK, &Wishes::default(), &[], bridge("0x060400", "pcieport"));
    check(DISK, &Wishes::default(), &["(driver lpc_ich)"], bridge("0x060100", "lpc_ich"));
    check(PORT, &Wishes::default(), &["is a bridge"], |_| ());
}

#[test]
fn reports_missing_vfio() {
    let wishes = Wishes::default();
    check(
        DISK,
        &wishes,
        &["without the driver vfio-pci", "boot one with CONFIG_VFIO_PCI"],
        |fake| {
            fake.remove("sys/bus/pci/drivers/vfio-pci");
        },
    );
    check(DISK, &wishes, &["without the driver vfio-pci", "`modprobe vfio-pci`"], |fake| {
        fake.remove("sys/bus/pci/drivers/vfio-pci");
        let line = "kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/drivers/vfio/vfio.ko.xz\n";
        fake.file("lib/modules/6.12.1-test/modules.dep", line);
    });
    check(DISK, &wishes, &["neither /dev/vfio/vfio nor /dev/iommu"], |fake| {
        fake.remove("dev/vfio/vfio");
    });
    check(DISK, &wishes, &["`modprobe vfio_iommu_type1`"], |fake| {
        fake.remove("sys/module/vfio_iommu_type1");
    });
    let iommufd = Wishes { interface: Some(Interface::Iommufd), ..Wishes::default() };
    check(DISK, &iommufd, &["no /dev/iommu", "`modprobe iommufd`"], |_| ());
    check(DISK, &iommufd, &[], |fake| {
        fake.remove("dev/vfio/vfio");
        fake.file("dev/iommu", "");
    });
    let legacy = Wishes { interface: Some(Interface::Legacy), ..Wishes::default() };
    check(DISK, &legacy, &["no /dev/vfio/vfio"], |fake| {
        fake.remove("dev/vfio/vfio");
        fake.file("dev/iommu", "");
    });
}

/// The files of a process without capabilities.
fn ordinary(fake: &Fake) {
    fake.file("proc/self/status", "PPid:\t1\nCapEff:\t0000000000000000\n");
}

#[test]
fn reports_missing_permissions() {
    let root = ["only root may", "drivers/nvme/unbind; echo 0000:03:00.0 >", "/dev/vfio/5"];
    check(DISK, &Wishes::default(), &root, ordinary);
    let bound = |fake: &Fake| {
        ordinary(fake);
        fake.remove(&format!("{DISK_PATH}/driver"));
        fake.link(&format!("{DISK_PATH}/driver"), "sys/bus/pci/drivers/vfio-pci");
    };
    check(DISK, &Wishes::default(), &[], bound);
    let wishes = |guest_memory| Wishes { guest_memory, ..Wishes::default() };
    let texts = ["memory locked, 1064960 KiB, and the limit is 8192 KiB", "`ulimit -l 1064960`"];
    check(DISK, &wishes(GIB), &texts, bound);
    check(DISK, &wishes(GIB), &[], |fake| {
        bound(fake);
        fake.file("proc/self/limits", "Max locked memory         unlimited  unlimited  bytes\n");
    });
    // Root is not limited.
    check(DISK, &wishes(GIB), &[], |_| ());
}

#[test]
fn reports_nodes_that_the_user_may_not_open() {
    let fake = Fake::new();
    let group = format!("dev/vfio/{DISK_GROUP}");
    let lock = |node: &str, mode| {
        fs::set_permissions(fake.path(node), fs::Permissions::from_mode(mode)).unwrap();
    };
    let said = |interface| {
        let wishes = Wishes { interface, ..Wishes::default() };
        // The rights are those of a thread.
        let look = || {
            // Refused where this isn't root, whose rights are then not there to be dropped.
            let _ = rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65534));
            fake.obstacles(DISK, &wishes)
        };
        std::thread::scope(|scope| scope.spawn(look).join().unwrap())
    };
    // Their owner may not either, should this test not be run by root.
    fake.file(&group, "");
    lock("dev/vfio/vfio", 0o0);
    lock(&group, 0o0);
    let text = "may not read and write /dev/vfio/vfio, /dev/vfio/5: run dmarig as root";
    assert!(said(None).contains(text), "{}", said(None));
    // One way is enough, unless the other is asked for.
    fake.file("dev/iommu", "");
    lock("dev/iommu", 0o666);
    assert_eq!(said(None), "");
    assert!(said(Some(Interface::Legacy)).contains(text));
    lock("dev/iommu", 0o0);
    lock("dev/vfio/vfio", 0o666);
    lock(&group, 0o666);
    assert_eq!(said(None), "");
    let text = "may not read and write /dev/iommu:";
    assert!(said(Some(Interface::Iommufd)).contains(text));
}

#[test]
fn reports_a_device_that_a_guest_uses() {
    check(DISK, &Wishes::default(), &["handed over already, to process 77 (qemu)"], |fake| {
        fake.remove(&format!("{DISK_PATH}/driver"));
        fake.link(&format!("{DISK_PATH}/driver"), "sys/bus/pci/drivers/vfio-pci");
        fake.file("dev/vfio/5", "");
        fake.process(77, "qemu", "/dev/vfio/5");
    });
}

#[test]
fn reports_mounted_file_systems() {
    let mount = |line: &'static str| move |fake: &Fake| fake.append("proc/self/mountinfo", line);
    in_use(
        DISK,
        &["a mounted file system, nvme0n1p1 on /my data: `umount /my data`"],
        mount("30 21 259:1 / /my\\040data rw - ext4 /dev/nvme0n1p1 rw\n"),
    );
    in_use(
        DISK,
        &["the root file system, on nvme0n1: this host runs from it"],
        mount("30 21 259:0 / / rw - xfs /dev/root rw\n"),
    );
    in_use(
        DISK,
        &["nvme0n1p1 on /pool"],
        mount("30 21 0:44 / /pool rw - btrfs /dev/nvme0n1p1 rw\n"),
    );
    in_use(
        DISK,
        &["nvme0n1 on /b"],
        mount("9 1 0:9 / /b rw - bcachefs /dev/sdb:/dev/nvme0n1 rw\n"),
    );
    in_use(DISK, &["nvme0n1p1 on /hosts"], |fake| {
        fake.file("proc/1/mountinfo", "30 21 259:1 / /hosts rw - ext4 /dev/nvme0n1p1 rw\n");
    });
    in_use(DISK, &["nvme0n1p1 on a mount point of its btrfs"], |fake| {
        fake.append("proc/self/mountinfo", "30 21 0:44 / /pool rw - btrfs /dev/sdb rw\n");
        fake.link(
            "sys/fs/btrfs/6e2c/devices/nvme0n1p1",
            &format!("{DISK_PATH}/nvme/nvme0/nvme0n1"),
        );
    });
    // Another disk's are no matter.
    check(DISK, &Wishes::default(), &[], mount("30 21 8:17 / /data rw - ext4 /dev/sdb1 rw\n"));
}

#[test]
fn reports_devices_stacked_on_a_disk() {
    let volume = |fake: &Fake| {
        let part = format!("{DISK_PATH}/nvme/nvme0/nvme0n1/nvme0n1p1");
        fake.block("dm-0", "sys/devices/virtual/block/dm-0", "253:0");
        fake.file("sys/devices/virtual/block/dm-0/dm/name", "vg-data\n");
        fake.link(&format!("{part}/holders/dm-0"), "sys/devices/virtual/block/dm-0");
    };
    let stands = "nvme0n1p1, on which dm-0 (device mapper's vg-data) stands: `dmsetup remove";
    in_use(DISK, &[stands], volume);
    in_use(DISK, &[stands, "a mounted file system, dm-0 on /data"], |fake| {
        volume(fake);
        fake.append("proc/self/mountinfo", "30 21 253:0 / /data rw - ext4 /dev/dm-0 rw\n");
    });
    in_use(DISK, &["swap space in use, /dev/mapper/vg-data: `swapoff"], |fake| {
        volume(fake);
        fake.link("dev/mapper/vg-data", "dev/dm-0");
        fake.append("proc/swaps", "/dev/mapper/vg-data partition 1000 0 -2\n");
    });
    in_use(DISK, &["swap space in use, /dev/nvme0n1p1"], |fake| {
        fake.append("proc/swaps", "/dev/nvme0n1p1 partition 1000 0 -2\n");
    });
    in_use(DISK, &["nvme0n1, on which md0 (raid1) stands: `mdadm --stop /dev/md0`"], |fake| {
        fake.block("md0", "sys/devices/virtual/block/md0", "9:0");
        fake.file("sys/devices/virtual/block/md0/md/level", "raid1\n");
        let disk = format!("{DISK_PATH}/nvme/nvme0/nvme0n1");
        fake.link(&format!("{disk}/holders/md0"), "sys/devices/virtual/block/md0");
    });
    in_use(DISK, &["nvme0n1, on which loop3 stands: `losetup -d /dev/loop3`"], |fake| {
        fake.block("loop3", "sys/devices/virtual/block/loop3", "7:3");
        fake.file("sys/devices/virtual/block/loop3/loop/backing_file", "/dev/nvme0n1\n");
    });
    in_use(DISK, &["/dev/nvme0n1p1, which process 42 (dd) has open: end that"], |fake| {
        fake.process(42, "dd", "/dev/nvme0n1p1");
    });
}

#[test]
fn finds_disks_behind_several_controllers() {
    in_use(DISK, &["a mounted file system, nvme0n1p1 on /data"], |fake| {
        for name in ["nvme0n1", "nvme0n1p1"] {
            fake.remove(&format!("sys/class/block/{name}"));
        }
        fake.remove(&format!("{DISK_PATH}/nvme"));
        fs::create_dir_all(fake.path(&format!("{DISK_PATH}/nvme/nvme0/nvme0c0n1"))).unwrap();
        let head = "sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1";
        fake.block("nvme0n1", head, "259:0");
        fake.block("nvme0n1p1", &format!("{head}/nvme0n1p1"), "259:1");
        fake.append("proc/self/mountinfo", "30 21 259:1 / /data rw - ext4 /dev/x rw\n");
    });
}

/// Addresses 192.0.2.1 on eth0, with the default route, and 198.51.100.1 on eth1.
const ROUTES: &str = "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n\
     eth1\t006433C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\n";

#[test]
fn reports_the_interface_of_the_ssh_session() {
    let session = |connection: &'static str, routes: &'static str| {
        move |fake: &Fake| {
            fake.append("proc/net/route", routes);
            fake.file("proc/self/environ", &format!("A=b\0SSH_CONNECTION={connection}\0C=d\0"));
        }
    };
    let texts = ["the SSH connection that dmarig was started over, by eth0: lead that"];
    in_use(NIC, &texts, session("192.0.2.7 50000 192.0.2.1 22", ROUTES));
    let other = session("198.51.100.7 50000 198.51.100.1 22", ROUTES);
    check(NIC, &Wishes::default(), &[], other);
    // Answers go by another way than questions came.
    let back = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n\
         eth1\t006433C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\n";
    in_use(NIC, &texts, session("203.0.113.9 50000 198.51.100.1 22", back));
    in_use(NIC, &texts, |fake| {
        let line = "20010db8000000000000000000000001 02 40 00 80     eth0\n";
        fake.file("proc/net/if_inet6", line);
        fake.file("proc/self/environ", "SSH_CONNECTION=2001:db8:1::9 50000 2001:db8::1 22\0");
    });
    // sudo clears the environment; its parent's still tells.
    in_use(NIC, &texts, |fake| {
        fake.append("proc/net/route", ROUTES);
        fake.file("proc/self/environ", "SUDO_USER=me\0");
        fake.file("proc/1/status", "PPid:\t33\n");
        fake.file("proc/33/environ", "SSH_CONNECTION=192.0.2.7 50000 192.0.2.1 22\0");
    });
}

#[test]
fn reports_the_interface_of_the_default_route() {
    let default =
        |interface: &str| format!("{interface}\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n");
    in_use(NIC, &["carries the default route, by eth0"], |fake| {
        fake.append("proc/net/route", &default("eth0"));
    });
    check(NIC, &Wishes::default(), &[], |fake| fake.append("proc/net/route", &default("eth1")));
    in_use(NIC, &["carries the default route, by br0 on top of eth0"], |fake| {
        fake.append("proc/net/route", &default("br0"));
        for name in ["bond0", "br0"] {
            let path = format!("sys/devices/virtual/net/{name}");
            fs::create_dir_all(fake.path(&path)).unwrap();
            fake.link(&format!("sys/class/net/{name}"), &path);
        }
        fake.link(&format!("{NIC_PATH}/net/eth0/master"), "sys/devices/virtual/net/bond0");
        fake.link("sys/devices/virtual/net/bond0/upper_br0", "sys/devices/virtual/net/br0");
    });
    in_use(NIC, &["carries the default route, by eth0"], |fake| {
        let zero = "0".repeat(32);
        let rest = format!("{zero} 00 fe80000000000000000000000000001 00000400 1 0 00000003 eth0");
        fake.file("proc/net/ipv6_route", &format!("{zero} 00 {rest}\n"));
    });
}

#[test]
fn reports_the_console_and_virtual_functions() {
    let console = |fake: &Fake| fake.file("sys/devices/pci0000:00/0000:00:02.0/boot_vga", "1\n");
    in_use(DISPLAY, &["shows the host's console"], console);
    in_use(NIC, &["has 4 virtual functions", "/sriov_numvfs`"], |fake| {
        fake.file(&format!("{NIC_PATH}/sriov_numvfs"), "4\n");
    });
}

#[test]
fn force_overrides_only_what_the_kernel_allows() {
    let fake = Fake::new();
    fake.remove("sys/bus/pci/drivers/vfio-pci");
    fake.append("proc/self/mountinfo", "30 21 259:1 / /data rw - ext4 /dev/nvme0n1p1 rw\n");
    let all = fake.inspect(DISK).obstacles(&Wishes::default());
    let yields: Vec<_> = all.iter().map(Obstacle::yields_to_force).collect();
    assert_eq!(yields, [false, true], "{all:?}");
    let wishes = Wishes { force: [address(DISK)].into(), ..Wishes::default() };
    assert_eq!(fake.inspect(DISK).obstacles(&wishes), all[..1]);
}

#[test]
fn reports_data_on_an_unused_disk() {
    in_use(DISK, &["data on nvme0n1", "`wipefs --all /dev/nvme0n1`"], |fake| {
        fake.file("dev/nvme0n1", &format!("{}\u{1}", "\0".repeat(1 << 19)));
    });
    // What an earlier workload left is nobody's loss, and nor is what is empty.
    let leavings = format!("{}{:\0<504}", "DMARIGSC", "x");
    for contents in [leavings.repeat(4), "\0".repeat(4096)] {
        check(DISK, &Wishes::default(), &[], |fake| fake.file("dev/nvme0n1", &contents));
    }
}
