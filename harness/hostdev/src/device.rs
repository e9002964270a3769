//! What is known of one device.

use std::path::{Path, PathBuf};

use crate::{
    Address, Error,
    kernel_files::{KernelFiles, Opener, hexadecimal, link_name, names, text},
    network::{self, Network},
    process::Process,
    storage::{self, Storage},
};

/// The driver that hands devices over.
pub(crate) const VFIO_PCI: &str = "vfio-pci";

/// A PCI device of the host, as it was when it was inspected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Where it is.
    pub address: Address,
    /// Its vendor's number.
    pub vendor: u16,
    /// Its number.
    pub device: u16,
    /// Class, subclass and programming interface in 24 bits: 0x010802 is NVMe.
    pub class: u32,
    /// The driver that has it.
    pub driver: Option<String>,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// All that is in the group, itself too, in the order of names.
    pub members: Vec<Member>,
    /// The IOMMU that it stands behind.
    pub iommu: Option<Iommu>,
    /// How it can be reset, in the kernel's words (`flr`, `pm`, `bus`) and order; since Linux 5.15,
    /// before that only whether it can (`any`).
    pub resets: Vec<String>,
    /// Its NUMA node, where the host has several.
    pub numa_node: Option<u32>,
    /// Its BARs.
    pub bars: Vec<Bar>,
    /// How VFIO stands on this host.
    pub vfio: Vfio,
    /// Virtual functions that it has at the moment.
    pub virtual_functions: u32,
    /// Whether firmware and kernel show the console on it.
    pub console: bool,
    pub(crate) storage: Storage,
    pub(crate) network: Network,
    pub(crate) openers: Vec<Opener>,
    pub(crate) process: Process,
    pub(crate) hint: IommuHint,
    pub(crate) locked: Locked,
}

/// Something in an IOMMU group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// A PCI address, or another bus's name.
    pub name: String,
    /// As that of [`Device`]; 0 where it is no PCI device.
    pub class: u32,
    /// The driver that has it.
    pub driver: Option<String>,
}

/// An IOMMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Iommu {
    /// As in `dmar0`.
    pub name: String,
    /// How wide an I/O virtual address can be, in bits (VT-d, CAP.MGAW); a virtual IOMMU in front of
    /// the device can't have more.
    pub address_bits: Option<u8>,
}

/// A base address register that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Its number, 0 to 5.
    pub number: u8,
    /// In bytes.
    pub size: u64,
    /// Whether it is memory, not ports.
    pub memory: bool,
}

/// How VFIO stands on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vfio {
    /// The driver vfio-pci is there.
    pub driver: bool,
    /// It could be loaded: the running kernel has it as a module.
    pub loadable: bool,
    /// The type 1 backend is there, which containers need for an IOMMU.
    pub type1: bool,
    /// `/dev/vfio/vfio`: containers and groups.
    pub container: bool,
    /// `/dev/iommu`: iommufd.
    pub iommufd: bool,
}

/// Nodes that are there and that this process may not read and write, by interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Locked {
    pub(crate) legacy: Vec<PathBuf>,
    pub(crate) iommufd: Vec<PathBuf>,
}

/// Why there may be no IOMMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IommuHint {
    /// The kernel was told not to use it.
    SwitchedOff,
    /// The firmware shows one, the kernel does not use it.
    NotSwitchedOn,
    /// The firmware shows none.
    NoneInFirmware,
}

pub(crate) fn inspect(files: &KernelFiles, address: Address) -> Result<Device, Error> {
    let path = files.path(&format!("sys/bus/pci/devices/{address}"));
    let Ok(real) = path.canonicalize() else {
        return Err(Error::NoDevice { address, path: files.shown(&path) });
    };
    let number = |name: &str| text(&real.join(name)).and_then(|text| hexadecimal(&text));
    let group = link_name(&path.join("iommu_group")).and_then(|name| name.parse().ok());
    Ok(Device {
        address,
        vendor: number("vendor").unwrap_or(0) as u16,
        device: number("device").unwrap_or(0) as u16,
        class: number("class").unwrap_or(0) as u32,
        driver: link_name(&real.join("driver")),
        group,
        members: group.map(|group| members(files, group)).unwrap_or_default(),
        iommu: iommu(&real),
        resets: resets(&real),
        numa_node: text(&real.join("numa_node")).and_then(|text| text.parse().ok()),
        bars: bars(&text(&real.join("resource")).unwrap_or_default()),
        vfio: vfio(files),
        virtual_functions: text(&real.join("sriov_numvfs"))
            .and_then(|text| text.parse().ok())
            .unwrap_or(0),
        console: text(&real.join("boot_vga")).as_deref() == Some("1"),
        storage: storage::below(files, &real),
        network: network::below(files, &real),
        openers: openers(files, &real),
        process: Process::of_this(files),
        hint: iommu_hint(files),
        locked: locked(files, &real, group),
    })
}

impl Device {
    /// Whether a driver of VFIO has it: vfio-pci or one made for this device.
    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        is_vfio(self.driver.as_deref())
    }

    /// Whether it is a bridge.
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        is_bridge(self.class)
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { address, vendor, device, class, .. } = self;
        let kind = match class >> 8 {
            0x0108 => "NVMe",
            0x0100..=0x01ff => "storage",
            0x0200..=0x02ff => "network",
            0x0300..=0x03ff => "display",
            0x0400..=0x04ff => "multimedia",
            0x0600..=0x06ff => "bridge",
            0x0c03 => "USB",
            _ => "device",
        };
        write!(f, "{address} {kind} {vendor:04x}:{device:04x}")
    }
}

pub(crate) fn is_bridge(class: u32) -> bool {
    class >> 16 == 0x06
}

/// Variants are named after it: mlx5_vfio_pci, nvgrace-gpu-vfio-pci.
pub(crate) fn is_vfio(driver: Option<&str>) -> bool {
    driver.is_some_and(|driver| driver.replace('_', "-").ends_with(VFIO_PCI))
}

fn members(files: &KernelFiles, group: u32) -> Vec<Member> {
    let directory = files.path(&format!("sys/kernel/iommu_groups/{group}/devices"));
    let member = |name: String| {
        let path = directory.join(&name);
        let class = text(&path.join("class")).and_then(|text| hexadecimal(&text));
        Member { class: class.unwrap_or(0) as u32, driver: link_name(&path.join("driver")), name }
    };
    names(&directory).into_iter().map(member).collect()
}

fn iommu(device: &Path) -> Option<Iommu> {
    let name = link_name(&device.join("iommu"))?;
    let capability =
        text(&device.join("iommu/intel-iommu/cap")).and_then(|text| hexadecimal(&text));
    // CAP.MGAW, bits 21:16, is one less than the width (VT-d specification, 11.4.2).
    let address_bits = capability.map(|cap| (cap >> 16 & 0x3f) as u8 + 1);
    Some(Iommu { name, address_bits })
}

fn resets(device: &Path) -> Vec<String> {
    match text(&device.join("reset_method")) {
        Some(methods) => methods.split_whitespace().map(str::to_owned).collect(),
        None if device.join("reset").exists() => vec!["any".to_owned()],
        None => Vec::new(),
    }
}

/// From `resource`: a line `0xFIRST 0xLAST 0xFLAGS` for each BAR, then for other ranges.
fn bars(resource: &str) -> Vec<Bar> {
    /// `IORESOURCE_MEM` of linux/ioport.h.
    const MEMORY: u64 = 0x200;
    let bar = |(number, line): (usize, &str)| {
        let mut fields = line.split_whitespace().map(hexadecimal);
        let (first, last, flags) = (fields.next()??, fields.next()??, fields.next()??);
        let size = last.checked_sub(first)?.checked_add(1)?;
        (last > 0).then_some(Bar { number: number as u8, size, memory: flags & MEMORY != 0 })
    };
    resource.lines().take(6).enumerate().filter_map(bar).collect()
}

fn vfio(files: &KernelFiles) -> Vfio {
    let exists = |path: &str| files.path(path).exists();
    Vfio {
        driver: exists("sys/bus/pci/drivers/vfio-pci"),
        loadable: loadable(files),
        type1: exists("sys/module/vfio_iommu_type1") || exists("sys/module/iommufd"),
        container: exists("dev/vfio/vfio"),
        iommufd: exists("dev/iommu"),
    }
}

/// Whether the running kernel has vfio-pci as a module.
fn loadable(files: &KernelFiles) -> bool {
    let release = files.text("proc/sys/kernel/osrelease").unwrap_or_default();
    let listed = files.text(&format!("lib/modules/{release}/modules.dep")).unwrap_or_default();
    listed.lines().any(|line| {
        let file = line.split(':').next().unwrap_or_default();
        file.rsplit('/').next().is_some_and(|name| name.starts_with("vfio-pci.ko"))
    })
}

/// Who has the device open by VFIO: by its group, or by its own node.
///
/// That there is such a node decides, not that a driver of VFIO has the device: the kernel takes that
/// link away while it still waits for those who have it open.
pub(crate) fn openers(files: &KernelFiles, device: &Path) -> Vec<Opener> {
    let group = link_name(&device.join("iommu_group")).map(|group| format!("vfio/{group}"));
    let own = own_node(device).map(|name| format!("vfio/devices/{name}"));
    let nodes = group.into_iter().chain(own);
    let nodes = nodes.filter(|node| files.path("dev").join(node).exists());
    files.openers(&nodes.map(|node| Path::new("/dev").join(node)).collect())
}

/// The name of the device's own node, which there is while a driver of VFIO has the device, where
/// the kernel has such nodes (Linux 6.6, `CONFIG_VFIO_DEVICE_CDEV`).
pub(crate) fn own_node(device: &Path) -> Option<String> {
    let directory = device.join("vfio-dev");
    names(&directory).into_iter().find(|name| directory.join(name).join("dev").exists())
}

fn locked(files: &KernelFiles, device: &Path, group: Option<u32>) -> Locked {
    let locked = |nodes: [Option<String>; 2]| {
        let paths = nodes.into_iter().flatten().map(|node| files.path("dev").join(node));
        let locked = paths.filter(|path| path.exists() && !may_use(path));
        locked.map(|path| files.shown(&path)).collect()
    };
    let own = own_node(device).map(|name| format!("vfio/devices/{name}"));
    Locked {
        legacy: locked([Some("vfio/vfio".to_owned()), group.map(|group| format!("vfio/{group}"))]),
        iommufd: locked([Some("iommu".to_owned()), own]),
    }
}

/// Whether this process may read and write a file.
pub(crate) fn may_use(path: &Path) -> bool {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    accessat(CWD, path, Access::READ_OK | Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

fn iommu_hint(files: &KernelFiles) -> IommuHint {
    let cmdline = files.text("proc/cmdline").unwrap_or_default();
    let off = ["intel_iommu=off", "iommu=off", "amd_iommu=off"];
    if cmdline.split_whitespace().any(|word| off.contains(&word)) {
        IommuHint::SwitchedOff
    } else if ["DMAR", "IVRS", "IORT"]
        .iter()
        .any(|table| files.path(&format!("sys/firmware/acpi/tables/{table}")).exists())
    {
        IommuHint::NotSwitchedOn
    } else {
        IommuHint::NoneInFirmware
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_bars_from_the_kernels_list() {
        let resource = "0x00000000febd4000 0x00000000febd7fff 0x0000000000140204\n\
             0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
             0x000000000000c000 0x000000000000c01f 0x0000000000040101\n\
             rubbish\n\
             0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
             0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
             0x00000000feb00000 0x00000000feb3ffff 0x0000000000046200\n";
        let memory = Bar { number: 0, size: 16 << 10, memory: true };
        let ports = Bar { number: 2, size: 32, memory: false };
        assert_eq!(bars(resource), [memory, ports]);
        let whole = "0x0000000000000000 0xffffffffffffffff 0x0000000000000200\n";
        assert_eq!(bars(whole), []);
    }

    #[test]
    fn recognizes_vfio_drivers_by_name() {
        for driver in ["vfio-pci", "mlx5_vfio_pci", "nvgrace-gpu-vfio-pci"] {
            assert!(is_vfio(Some(driver)), "{driver}");
        }
        assert!(!is_vfio(Some("nvme")) && !is_vfio(None) && !is_vfio(Some("vfio-platform")));
    }
}
