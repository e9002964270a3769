//! What stands in the way of handing a device over.

use std::{collections::BTreeSet, path::PathBuf};

use crate::{
    Address, Device, Interface,
    device::{IommuHint, Member, is_bridge, is_vfio},
    storage::Use,
};

/// What is wanted of the device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Memory of the guest in bytes: as much is locked for the device. 0 where no guest is meant yet.
    pub guest_memory: u64,
    /// Devices that are handed over although that takes from the host what it uses.
    pub force: BTreeSet<Address>,
    /// All devices that are bound to vfio-pci together since they share a group; it does no harm to
    /// name the device itself.
    pub companions: BTreeSet<Address>,
    /// The interface that was asked for; by default any that is there.
    pub interface: Option<Interface>,
}

/// Something that stands in the way. Its text says what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// No driver takes bridges.
    #[error("{0} is a bridge: name a device behind it")]
    Bridge(Address),
    /// The host has no IOMMU in use, or none in front of this device.
    #[error("{address} stands behind no IOMMU that is in use: {remedy}")]
    NoIommu {
        /// The device.
        address: Address,
        /// What to do.
        remedy: &'static str,
    },
    /// Others in the group are in the hands of the host's drivers.
    #[error(
        "{address} shares IOMMU group {group} with {}, and VFIO gives out a group only as a whole: \
         hand over those too (--device-companion), unbind each from its driver (`echo ADDRESS > \
         /sys/bus/pci/drivers/DRIVER/unbind`), or move the card to another slot",
        others(.members)
    )]
    Group {
        /// The device.
        address: Address,
        /// The group.
        group: u32,
        /// The others that stand in the way.
        members: Vec<Member>,
    },
    /// The driver vfio-pci is not there.
    #[error("{address} can't be handed over without the driver vfio-pci: {remedy}")]
    NoVfioPci {
        /// The device.
        address: Address,
        /// What to do.
        remedy: &'static str,
    },
    /// No interface of VFIO's, or not the one that was asked for.
    #[error("{address} can't be given to QEMU: {remedy}")]
    NoInterface {
        /// The device.
        address: Address,
        /// What is missing and what to do.
        remedy: &'static str,
    },
    /// This process can't change the device's driver.
    #[error(
        "{address} has to be bound to vfio-pci, which only root may: run dmarig as root, or bind it \
         before, as root: `echo vfio-pci > /sys/bus/pci/devices/{address}/driver_override{}; echo \
         {address} > /sys/bus/pci/drivers_probe; chown USER /dev/vfio/{group}`",
        .driver.as_ref().map(|driver| format!("; echo {address} > /sys/bus/pci/drivers/{driver}/unbind"))
            .unwrap_or_default()
    )]
    NotRoot {
        /// The device.
        address: Address,
        /// The driver that has it.
        driver: Option<String>,
        /// Its group.
        group: u32,
    },
    /// Nodes that this user can't open.
    #[error(
        "{address} can't be used by this user, who may not read and write {}: run dmarig as root, or \
         `chown USER` each",
        paths(.nodes)
    )]
    Locked {
        /// The device.
        address: Address,
        /// The nodes.
        nodes: Vec<PathBuf>,
    },
    /// The limit of locked memory is too low.
    #[error(
        "{address} needs the guest's memory locked, {} KiB, and the limit is {} KiB: raise it (`ulimit \
         -l {}`, or memlock in /etc/security/limits.conf), run dmarig as root, or give the guest less \
         memory",
        needed >> 10, limit >> 10, needed >> 10
    )]
    MemoryLock {
        /// The device.
        address: Address,
        /// In bytes.
        needed: u64,
        /// In bytes.
        limit: u64,
    },
    /// A program has it, most likely another guest.
    #[error("{address} is handed over already, to {by}: end that first")]
    HandedOver {
        /// The device.
        address: Address,
        /// The process.
        by: String,
    },
    /// The host uses a disk.
    #[error("{address} has {what}: {remedy}, or insist by --force-device {address}")]
    Disk {
        /// The device.
        address: Address,
        /// The disk and its use.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// The host uses a network interface.
    #[error(
        "{address} carries {what}, by {interface}: lead that over another device first, or insist by \
         --force-device {address}"
    )]
    Network {
        /// The device.
        address: Address,
        /// What goes over it.
        what: &'static str,
        /// The interface that is used, and what it has to do with the device.
        interface: String,
    },
    /// The host's console is on it.
    #[error(
        "{address} shows the host's console: use another display for that (in the firmware's setup), or \
         insist by --force-device {address}"
    )]
    Console {
        /// The device.
        address: Address,
    },
    /// Its virtual functions would vanish.
    #[error(
        "{address} has {count} virtual functions, which would vanish: hand over one of those, remove \
         them (`echo 0 > /sys/bus/pci/devices/{address}/sriov_numvfs`), or insist by --force-device \
         {address}"
    )]
    VirtualFunctions {
        /// The device.
        address: Address,
        /// How many.
        count: u32,
    },
}

impl Obstacle {
    /// Whether it is one of taste: what the host uses may be taken from it by force, what the kernel
    /// does not do can't.
    #[must_use]
    pub fn yields_to_force(&self) -> bool {
        matches!(
            self,
            Self::Disk { .. }
                | Self::Network { .. }
                | Self::Console { .. }
                | Self::VirtualFunctions { .. }
        )
    }
}

fn others(members: &[Member]) -> String {
    let member = |member: &Member| {
        format!("{} (driver {})", member.name, member.driver.as_deref().unwrap_or("none"))
    };
    members.iter().map(member).collect::<Vec<_>>().join(", ")
}

fn paths(nodes: &[PathBuf]) -> String {
    nodes.iter().map(|node| node.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl Device {
    /// All that stands in the way of handing it over, what can't be changed by force first; nothing
    /// where it is ready.
    ///
    /// A companion is checked by itself, with the same wishes.
    #[must_use]
    pub fn obstacles(&self, wishes: &Wishes) -> Vec<Obstacle> {
        let address = self.address;
        if self.is_bridge() {
            return vec![Obstacle::Bridge(address)];
        }
        let mut obstacles = Vec::new();
        let (Some(group), true) = (self.group, self.iommu.is_some()) else {
            return vec![self.no_iommu()];
        };
        obstacles.extend(self.group_obstacle(group, wishes));
        obstacles.extend(self.vfio_obstacles(wishes));
        obstacles.extend(self.permission_obstacles(group, wishes));
        if let Some(by) = self.openers.first() {
            obstacles.push(Obstacle::HandedOver { address, by: by.to_string() });
        }
        if !wishes.force.contains(&address) {
            obstacles.extend(self.storage.uses.iter().map(|used| disk(address, used)));
            obstacles.extend(self.network_obstacle());
            if self.console && !self.is_handed_over() {
                obstacles.push(Obstacle::Console { address });
            }
            if self.virtual_functions > 0 {
                let count = self.virtual_functions;
                obstacles.push(Obstacle::VirtualFunctions { address, count });
            }
        }
        obstacles
    }

    fn no_iommu(&self) -> Obstacle {
        let remedy = match self.hint {
            IommuHint::SwitchedOff => {
                "the kernel's command line switches it off; take that word out and boot again"
            }
            IommuHint::NotSwitchedOn => {
                "the firmware has one; add intel_iommu=on to the kernel's command line and boot again"
            }
            IommuHint::NoneInFirmware => {
                "the firmware shows none; switch VT-d (or AMD-Vi) on in its setup"
            }
        };
        Obstacle::NoIommu { address: self.address, remedy }
    }

    fn group_obstacle(&self, group: u32, wishes: &Wishes) -> Option<Obstacle> {
        let in_the_way = |member: &&Member| {
            let address = member.name.parse::<Address>().ok();
            let named =
                address.is_some_and(|a| a == self.address || wishes.companions.contains(&a));
            !named && !harmless(member)
        };
        let members: Vec<_> = self.members.iter().filter(in_the_way).cloned().collect();
        let address = self.address;
        (!members.is_empty()).then_some(Obstacle::Group { address, group, members })
    }

    fn vfio_obstacles(&self, wishes: &Wishes) -> Option<Obstacle> {
        let address = self.address;
        if !self.vfio.driver {
            let remedy = if self.vfio.loadable {
                "load it (`modprobe vfio-pci`)"
            } else {
                "the running kernel has no such module; boot one with CONFIG_VFIO_PCI"
            };
            return Some(Obstacle::NoVfioPci { address, remedy });
        }
        let legacy = self.vfio.container && self.vfio.type1;
        let remedy = match wishes.interface {
            Some(Interface::Iommufd) if !self.vfio.iommufd => {
                "there is no /dev/iommu; load iommufd (`modprobe iommufd`; CONFIG_IOMMUFD), or take \
                 the other interface"
            }
            Some(Interface::Legacy) if !self.vfio.container => {
                "there is no /dev/vfio/vfio; load vfio (`modprobe vfio`; CONFIG_VFIO_CONTAINER), or \
                 take the other interface"
            }
            None if !self.vfio.container && !self.vfio.iommufd => {
                "there is neither /dev/vfio/vfio nor /dev/iommu; load vfio (`modprobe vfio`) or \
                 iommufd (`modprobe iommufd`)"
            }
            Some(Interface::Legacy) if !legacy => NO_TYPE1,
            None if !legacy && !self.vfio.iommufd => NO_TYPE1,
            _ => return None,
        };
        Some(Obstacle::NoInterface { address, remedy })
    }

    fn permission_obstacles(&self, group: u32, wishes: &Wishes) -> Vec<Obstacle> {
        let address = self.address;
        let mut obstacles = Vec::new();
        if !self.process.may_write_all && !self.is_handed_over() {
            let driver = self.driver.clone();
            obstacles.push(Obstacle::NotRoot { address, driver, group });
        }
        let locked = &self.locked;
        let nodes = match wishes.interface {
            Some(Interface::Legacy) => &locked.legacy,
            Some(Interface::Iommufd) => &locked.iommufd,
            // One way that is open is enough.
            None if self.vfio.container && self.vfio.iommufd && locked.legacy.is_empty() => {
                &locked.legacy
            }
            None if self.vfio.iommufd => &locked.iommufd,
            None => &locked.legacy,
        };
        if !nodes.is_empty() {
            obstacles.push(Obstacle::Locked { address, nodes: nodes.clone() });
        }
        if let (Some(limit), false) = (self.process.memory_lock, self.process.may_lock) {
            let needed = match wishes.guest_memory {
                0 => 0,
                memory => memory.saturating_add(BESIDE_MEMORY),
            };
            if limit < needed {
                obstacles.push(Obstacle::MemoryLock { address, needed, limit });
            }
        }
        obstacles
    }

    fn network_obstacle(&self) -> Option<Obstacle> {
        let session = self.network.session.as_ref();
        let default = self.network.default_route.as_ref();
        let (used, what) = match (session, default) {
            (Some(used), _) => (used, "the SSH connection that dmarig was started over"),
            (None, Some(used)) => (used, "the default route"),
            (None, None) => return None,
        };
        let own = &self.network.interfaces;
        let interface = if own.contains(used) {
            used.clone()
        } else {
            let own: Vec<_> = own.iter().map(String::as_str).collect();
            format!("{used} on top of {}", own.join(", "))
        };
        Some(Obstacle::Network { address: self.address, what, interface })
    }
}

/// Firmware and option ROMs of the machine, which are mapped for the device too, in bytes.
const BESIDE_MEMORY: u64 = 16 << 20;

const NO_TYPE1: &str = "containers have no backend; load it (`modprobe vfio_iommu_type1`)";

/// Whether a member of a group may stay as it is: nobody drives it, VFIO does, or a driver that does
/// no DMA (the kernel's `driver_managed_dma`).
fn harmless(member: &Member) -> bool {
    let Some(driver) = member.driver.as_deref() else { return true };
    is_vfio(Some(driver))
        || driver == "pci-stub"
        || (is_bridge(member.class) && matches!(driver, "pcieport" | "shpchp"))
}

fn disk(address: Address, used: &Use) -> Obstacle {
    let (what, remedy) = match used {
        Use::Mounted { node, at } if at == "/" => (
            format!("the root file system, on {node}"),
            "this host runs from it; take another device".to_owned(),
        ),
        Use::Mounted { node, at } => {
            (format!("a mounted file system, {node} on {at}"), format!("`umount {at}`"))
        }
        Use::Swap { node } => (format!("swap space in use, {node}"), format!("`swapoff {node}`")),
        Use::Stacked { node, above, what } => {
            let what = if what.is_empty() { String::new() } else { format!(" ({what})") };
            (format!("{node}, on which {above}{what} stands"), take_down(above))
        }
        Use::Opened(opener) => (
            format!("{}, which {opener} has open", opener.node.display()),
            "end that process".to_owned(),
        ),
        Use::Claimed { node } => (
            format!("{node}, which somebody has claimed who does not show"),
            "export its ZFS pool, end what serves it to others, look in other mount namespaces"
                .to_owned(),
        ),
        Use::Data { node } => (
            format!("data on {node}, which the workload would overwrite"),
            format!(
                "`wipefs --all /dev/{node}` and `blkdiscard /dev/{node}` if nobody needs it, or \
                 --force-device {address}"
            ),
        ),
    };
    Obstacle::Disk { address, what, remedy }
}

/// How a stacked device is taken down, by its kernel's name for it.
fn take_down(above: &str) -> String {
    let kinds = [
        ("dm-", "`dmsetup remove /dev/"),
        ("md", "`mdadm --stop /dev/"),
        ("loop", "`losetup -d /dev/"),
        ("bcache", "stop it (`echo 1 > /sys/block/"),
    ];
    match kinds.iter().find(|(prefix, _)| above.starts_with(prefix)) {
        Some(("bcache", start)) => format!("{start}{above}/bcache/stop`)"),
        Some((_, start)) => format!("{start}{above}`"),
        None => format!("take {above} down"),
    }
}
