//! Devices in the hands of VFIO, for as long as a guest has them.

use std::path::Path;

use crate::{
    Address, Device, Error, Host, Interface,
    arguments::Choice,
    device::{VFIO_PCI, may_use, own_node},
    driver::Levers,
    journal::{Before, Entry, give_back},
    tree::link_name,
};

/// Devices that vfio-pci has on this run's account.
///
/// They go back to their drivers by [`Bound::restore`], or when this is dropped, in which case what
/// fails is only logged. Either way they go back only when nobody has them open any more, so the guest
/// must have ended before. A signal that ends the process at once skips both: a program that binds has
/// to take its signals in and drop this (an asynchronous one by dropping the future that owns it).
/// What even that can't help, such as `kill -9`, the next run mends ([`Host::mend`]).
#[derive(Debug)]
#[must_use = "dropped at once, it gives the devices back at once"]
pub struct Bound {
    host: Host,
    held: Vec<Held>,
    address: Address,
    group: u32,
}

#[derive(Debug)]
struct Held {
    address: Address,
    entry: Entry,
    before: Before,
}

pub(crate) fn bind(
    host: &Host,
    device: &Device,
    companions: &[Device],
    state: &Path,
) -> Result<Bound, Error> {
    let address = device.address;
    let no_group = || Error::NoInterface {
        address,
        wanted: "VFIO",
        reason: "it is in no IOMMU group; see its obstacles".to_owned(),
    };
    let group = device.group.ok_or_else(no_group)?;
    let mut bound = Bound { host: host.clone(), held: Vec::new(), address, group };
    let addresses = std::iter::once(device).chain(companions).map(|device| device.address);
    let Err(error) = bound.take(addresses, state) else { return Ok(bound) };
    // An order that hangs may be carried out yet, and then the device has no driver after all: it
    // stays in the journal.
    let hangs = matches!(error, Error::Stuck { .. });
    Err(match bound.give_back(hangs) {
        Ok(()) => error,
        Err(then) => Error::AndBack { first: Box::new(error), then: Box::new(then) },
    })
}

impl Bound {
    /// The device that the guest gets.
    #[must_use]
    pub fn address(&self) -> Address {
        self.address
    }

    /// Its IOMMU group.
    #[must_use]
    pub fn group(&self) -> u32 {
        self.group
    }

    /// The interface to give the device to QEMU by.
    ///
    /// # Errors
    /// [`Error::NoInterface`] where the one that was asked for is not there, or none.
    pub fn interface(&self, choice: Choice) -> Result<Interface, Error> {
        let tree = &self.host.tree;
        let device = self.host.device_directory(self.address);
        let group = tree.path(&format!("dev/vfio/{}", self.group));
        let legacy = match (tree.path("dev/vfio/vfio"), group) {
            (container, _) if !may_use(&container) => Err("/dev/vfio/vfio can't be opened".into()),
            (_, group) if !may_use(&group) => {
                Err(format!("{} can't be opened", tree.shown(&group).display()))
            }
            _ => Ok(()),
        };
        let own = own_node(&device).map(|name| tree.path(&format!("dev/vfio/devices/{name}")));
        let iommufd = match own {
            _ if !choice.qemu_has_iommufd => {
                Err("this QEMU has no object iommufd (QEMU 9.0 and later have)".to_owned())
            }
            _ if !may_use(&tree.path("dev/iommu")) => {
                Err("/dev/iommu can't be opened (`modprobe iommufd`; CONFIG_IOMMUFD)".into())
            }
            None => Err("the kernel has no nodes of devices (CONFIG_VFIO_DEVICE_CDEV)".into()),
            Some(node) if !may_use(&node) => {
                Err(format!("{} can't be opened", tree.shown(&node).display()))
            }
            Some(_) => Ok(()),
        };
        let no = |interface: Interface, reason| Error::NoInterface {
            address: self.address,
            wanted: interface.name(),
            reason,
        };
        match choice.wanted {
            Some(Interface::Iommufd) => iommufd.map_err(|reason| no(Interface::Iommufd, reason)),
            Some(Interface::Legacy) => legacy.map_err(|reason| no(Interface::Legacy, reason)),
            None if iommufd.is_ok() => return Ok(Interface::Iommufd),
            None => {
                return legacy.map(|()| Interface::Legacy).map_err(|reason| {
                    let iommufd = iommufd.err().unwrap_or_default();
                    no(Interface::Legacy, format!("{reason}, and there is no other way: {iommufd}"))
                });
            }
        }?;
        Ok(choice.wanted.unwrap_or(Interface::Legacy))
    }

    /// Gives the devices back and waits until their drivers have them. A disk's contents are there
    /// some moments later: its driver finds out about it after it has taken it.
    ///
    /// # Errors
    /// The first thing that failed; the others were tried all the same. What was not given back stays
    /// in the journal, for the next run.
    pub fn restore(mut self) -> Result<(), Error> {
        self.give_back(false)
    }

    fn take(
        &mut self,
        addresses: impl Iterator<Item = Address>,
        state: &Path,
    ) -> Result<(), Error> {
        for address in addresses {
            let entry = Entry::claim(&self.host, state, address)?;
            self.take_one(address, entry)?;
        }
        let host = self.host.clone();
        let levers = Levers::new(&host, self.address);
        let group = host.tree.path(&format!("dev/vfio/{}", self.group));
        let directory = host.device_directory(self.address);
        let shown = || {
            let what = format!("there is no {} for it", host.tree.shown(&group).display());
            (what, "is devtmpfs mounted on /dev, or udev running?".to_owned())
        };
        // A kernel without groups has a node for the device itself.
        levers.wait(|_| group.exists() || own_node(&directory).is_some(), shown)
    }

    fn take_one(&mut self, address: Address, mut entry: Entry) -> Result<(), Error> {
        let before = entry.note(&self.host)?;
        let handed_over = before.was_handed_over();
        self.held.push(Held { address, entry, before });
        if handed_over {
            return Ok(());
        }
        let levers = Levers::new(&self.host, address);
        levers.prefer(Some(VFIO_PCI))?;
        levers.release()?;
        levers.probe(VFIO_PCI)
    }

    fn give_back(&mut self, keep_entries: bool) -> Result<(), Error> {
        let mut result = Ok(());
        while let Some(held) = self.held.pop() {
            let given = give_back(&self.host, held.address, &held.before);
            let close = |()| if keep_entries { Ok(()) } else { held.entry.close() };
            let done = given.and_then(close);
            result = result.and(done);
        }
        result
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Err(error) = self.give_back(false) {
            tracing::error!("{error}");
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let driver = link_name(&self.host.device_directory(self.address).join("driver"));
        write!(f, "{} (group {}, driver ", self.address, self.group)?;
        write!(f, "{})", driver.as_deref().unwrap_or("none"))
    }
}
