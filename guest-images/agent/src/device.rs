//! Finds the device under test and waits until its driver has made it usable.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use dmarig_wire::{Device, Target};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType, bind,
        netlink::{self, SocketAddrNetlink},
        recv, socket_with,
    },
};

/// Time that a guest gets to find its devices, by its own clock; even emulated, it takes seconds.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
const PCI: &str = "/sys/bus/pci/devices";

/// A driver has its device and did not make it usable in time.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct NotInTime {
    pub(crate) what: String,
}

/// Waits until every function of the device under test has its node.
///
/// # Errors
/// After [`LIMIT`]; the error names what is missing and what was found instead. It is a
/// [`NotInTime`] if all functions have drivers.
pub(crate) fn wait_for(device: Device) -> Result<Vec<Target>> {
    // Opened before the first check, so that no event between check and wait is missed.
    let events = uevents().context("can't listen to the kernel's device events")?;
    let deadline = Instant::now() + LIMIT;
    loop {
        let targets = targets(device);
        let ready =
            targets.len() >= required_functions(device) && targets.iter().all(|t| t.node.is_some());
        if ready {
            return Ok(targets);
        }
        if !wait_until(&events, deadline)? {
            let what = describe_missing(device, &targets);
            let driven = targets.iter().all(|target| target.driver.is_some());
            if driven && targets.len() >= required_functions(device) {
                return Err(NotInTime { what }.into());
            }
            bail!(what);
        }
        drain(&events);
    }
}

/// Number of functions that a job on the device needs.
fn required_functions(device: Device) -> usize {
    match device {
        Device::Nvme | Device::VirtioBlk => 1,
        Device::E1000e | Device::VirtioNet => 2,
    }
}

fn matches_device(device: Device, function: &Function) -> bool {
    let id = (function.vendor, function.device);
    match device {
        Device::Nvme => function.class == 0x01_08_02,
        Device::VirtioBlk => matches!(id, (0x1af4, 0x1042 | 0x1001)),
        Device::E1000e => id == (0x8086, 0x10d3),
        Device::VirtioNet => matches!(id, (0x1af4, 0x1041 | 0x1000)),
    }
}

struct Function {
    path: PathBuf,
    class: u32,
    vendor: u32,
    device: u32,
}

impl Function {
    fn driver(&self) -> Option<String> {
        link_name(&self.path.join("driver"))
    }
}

/// All PCI functions, by address.
fn functions() -> BTreeMap<String, Function> {
    let number = |path: PathBuf| {
        let text = fs::read_to_string(path).unwrap_or_default();
        u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).unwrap_or(0)
    };
    let paths = names_in(Path::new(PCI)).into_iter().map(|address| {
        let path = Path::new(PCI).join(&address);
        let class = number(path.join("class"));
        let vendor = number(path.join("vendor"));
        let device = number(path.join("device"));
        (address, Function { path, class, vendor, device })
    });
    paths.collect()
}

/// The functions of the device under test as they are now, in bus order.
fn targets(device: Device) -> Vec<Target> {
    let functions = functions();
    let own = functions.iter().filter(|(_, function)| matches_device(device, function));
    own.map(|(address, function)| Target {
        address: address.clone(),
        driver: function.driver(),
        group: link_name(&function.path.join("iommu_group")).and_then(|name| name.parse().ok()),
        node: node(device, &function.path),
    })
    .collect()
}

/// The block device or network interface of a function, once it can be opened.
fn node(device: Device, function: &Path) -> Option<String> {
    match device {
        Device::Nvme => {
            let controller = subdirectories(&function.join("nvme"));
            let names = controller.iter().flat_map(|path| names_in(path));
            first(names.filter_map(|name| namespace(&name)), Path::new("/dev"))
        }
        Device::VirtioBlk => {
            let virtio = subdirectories(function);
            let names = virtio.iter().flat_map(|path| names_in(&path.join("block")));
            first(names, Path::new("/dev"))
        }
        Device::E1000e => first(names_in(&function.join("net")).into_iter(), Path::new(NET)),
        Device::VirtioNet => {
            let virtio = subdirectories(function);
            let names = virtio.iter().flat_map(|path| names_in(&path.join("net")));
            first(names, Path::new(NET))
        }
    }
}

const NET: &str = "/sys/class/net";

fn first(names: impl Iterator<Item = String>, usable_in: &Path) -> Option<String> {
    names.filter(|name| usable_in.join(name).exists()).min()
}

/// The block device of a namespace from its name below the controller: `nvme0n1` itself, or
/// `nvme0c1n1` where it is one path of a multipath device that is called `nvme0n1`.
fn namespace(name: &str) -> Option<String> {
    let rest = name.strip_prefix("nvme")?;
    let (subsystem, rest) = digits(rest)?;
    let rest = match rest.strip_prefix('c') {
        Some(path) => digits(path)?.1,
        None => rest,
    };
    let (number, rest) = digits(rest.strip_prefix('n')?)?;
    if !rest.is_empty() {
        return None;
    }
    Some(format!("nvme{subsystem}n{number}"))
}

fn digits(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    if end == 0 { None } else { Some(text.split_at(end)) }
}

/// The name of what a symbolic link of sysfs leads to.
pub(crate) fn link_name(path: &Path) -> Option<String> {
    Some(fs::read_link(path).ok()?.file_name()?.to_string_lossy().into_owned())
}

/// The names in a directory, sorted; none where there is no such directory.
pub(crate) fn names_in(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn subdirectories(path: &Path) -> Vec<PathBuf> {
    names_in(path).into_iter().map(|name| path.join(name)).filter(|path| path.is_dir()).collect()
}

fn describe_missing(device: Device, targets: &[Target]) -> String {
    let mut text = format!(
        "no usable {device:?} device after {} s: {} of {} found",
        LIMIT.as_secs(),
        targets.len(),
        required_functions(device)
    );
    for target in targets.iter().filter(|target| target.node.is_none()) {
        let driver = target.driver.as_deref().unwrap_or("no driver");
        text.push_str(&format!("; {} ({driver}) has no node", target.address));
    }
    let all = functions().into_iter().map(|(address, function)| {
        let driver = function.driver().unwrap_or_else(|| "no driver".to_owned());
        format!("{address} {:04x}:{:04x} {driver}", function.vendor, function.device)
    });
    text.push_str(&format!("; PCI functions: {}", all.collect::<Vec<_>>().join(", ")));
    text
}

/// A socket that becomes readable when the kernel announces a device.
fn uevents() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let kind = Some(netlink::KOBJECT_UEVENT);
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, kind)?;
    // Group 1 is the kernel's own announcements; 2 would be udev's.
    bind(&socket, &SocketAddrNetlink::new(0, 1))?;
    Ok(socket)
}

fn drain(socket: &OwnedFd) {
    let mut event = [0; 4096];
    // Their contents don't matter, nor whether some were dropped: sysfs is read again.
    while recv(socket, &mut event, RecvFlags::empty()).is_ok() {}
}

/// Waits until a descriptor is readable; `false` where the deadline came first.
///
/// # Errors
/// Where the kernel refuses to wait.
pub(crate) fn wait_until(readable: &OwnedFd, deadline: Instant) -> Result<bool> {
    loop {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: remaining.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: remaining.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(readable, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other? > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_namespaces_of_a_controller() {
        let check = |name: &str, node: Option<&str>| {
            assert_eq!(namespace(name).as_deref(), node, "{name}");
        };
        check("nvme0n1", Some("nvme0n1"));
        check("nvme0c1n2", Some("nvme0n2"));
        for other in ["ng0n1", "nvme0", "nvme0n", "nvme0n1p1", "hwmon0", "nvmen1", "nvme0c1"] {
            check(other, None);
        }
    }

    #[test]
    fn stops_waiting_for_events_at_the_deadline() {
        let Ok(socket) = uevents() else { return };
        let deadline = Instant::now() + Duration::from_millis(5);
        drain(&socket);
        // An event of this host may come first; either way the wait ends.
        wait_until(&socket, deadline).unwrap();
    }
}
