//! Devices that are bound to vfio-pci as long as a guest has them.

use std::path::Path;

use crate::{
    Address, Device, Error, Host, Interface,
    arguments::Choice,
    device::{VFIO_PCI, may_use, own_node},
    driver::DriverControl,
    journal::{Entry, PriorState, restore},
    kernel_files::link_name,
};

/// Devices that this run has bound to vfio-pci.
///
/// [`Binding::restore`] gives them back to their drivers; so does dropping this, but then errors are
/// only logged. Both wait until nobody has the devices open, so the guest must have ended before. A
/// signal that ends the process at once skips both: a program that binds devices has to handle its
/// signals and drop this (an asynchronous one drops the future that owns it). After `kill -9`, the next
/// run gives the devices back ([`Host::recover`]).
#[derive(Debug)]
#[must_use = "dropped at once, it gives the devices back at once"]
pub struct Binding {
    host: Host,
    devices: Vec<BoundDevice>,
    address: Address,
    group: u32,
}

#[derive(Debug)]
struct BoundDevice {
    address: Address,
    entry: Entry,
    prior_state: PriorState,
}

pub(crate) fn bind(
    host: &Host,
    device: &Device,
    companions: &[Device],
    state: &Path,
) -> Result<Binding, Error> {
    let address = device.address;
    let no_group = || Error::NoInterface {
        address,
        wanted: "VFIO",
        reason: "it is in no IOMMU group; see its obstacles".to_owned(),
    };
    let group = device.group.ok_or_else(no_group)?;
    let mut bound = Binding { host: host.clone(), devices: Vec::new(), address, group };
    let addresses = std::iter::once(device).chain(companions).map(|device| device.address);
    let Err(error) = bound.bind_all(addresses, state) else { return Ok(bound) };
    // An order that hangs may be carried out yet, and then the device has no driver after all: it
    // stays in the journal.
    let hangs = matches!(error, Error::Stuck { .. });
    Err(match bound.restore_all(hangs) {
        Ok(()) => error,
        Err(then) => Error::AndBack { first: Box::new(error), then: Box::new(then) },
    })
}

impl Binding {
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
        let files = &self.host.files;
        let device = self.host.device_directory(self.address);
        let group = files.path(&format!("dev/vfio/{}", self.group));
        let legacy = match (files.path("dev/vfio/vfio"), group) {
            (container, _) if !may_use(&container) => Err("/dev/vfio/vfio can't be opened".into()),
            (_, group) if !may_use(&group) => {
                Err(format!("{} can't be opened", files.shown(&group).display()))
            }
            _ => Ok(()),
        };
        let own = own_node(&device).map(|name| files.path(&format!("dev/vfio/devices/{name}")));
        let iommufd = match own {
            _ if !choice.qemu_has_iommufd => {
                Err("this QEMU has no object iommufd (QEMU 9.0 and later have)".to_owned())
            }
            _ if !may_use(&files.path("dev/iommu")) => {
                Err("/dev/iommu can't be opened (`modprobe iommufd`; CONFIG_IOMMUFD)".into())
            }
            None => Err("the kernel has no nodes of devices (CONFIG_VFIO_DEVICE_CDEV)".into()),
            Some(node) if !may_use(&node) => {
                Err(format!("{} can't be opened", files.shown(&node).display()))
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
        self.restore_all(false)
    }

    fn bind_all(
        &mut self,
        addresses: impl Iterator<Item = Address>,
        state: &Path,
    ) -> Result<(), Error> {
        for address in addresses {
            let entry = Entry::claim(&self.host, state, address)?;
            self.bind_one(address, entry)?;
        }
        let host = self.host.clone();
        let control = DriverControl::new(&host, self.address);
        let group = host.files.path(&format!("dev/vfio/{}", self.group));
        let directory = host.device_directory(self.address);
        let shown = || {
            let what = format!("there is no {} for it", host.files.shown(&group).display());
            (what, "is devtmpfs mounted on /dev, or udev running?".to_owned())
        };
        // A kernel without groups has a node for the device itself.
        control.wait(|_| group.exists() || own_node(&directory).is_some(), shown)
    }

    fn bind_one(&mut self, address: Address, mut entry: Entry) -> Result<(), Error> {
        let prior_state = entry.record(&self.host)?;
        let was_bound = prior_state.was_bound_to_vfio();
        self.devices.push(BoundDevice { address, entry, prior_state });
        if was_bound {
            return Ok(());
        }
        let control = DriverControl::new(&self.host, address);
        control.set_driver_override(Some(VFIO_PCI))?;
        control.unbind()?;
        control.probe(VFIO_PCI)
    }

    fn restore_all(&mut self, keep_entries: bool) -> Result<(), Error> {
        let mut result = Ok(());
        while let Some(device) = self.devices.pop() {
            let restored = restore(&self.host, device.address, &device.prior_state);
            let close = |()| if keep_entries { Ok(()) } else { device.entry.close() };
            result = result.and(restored.and_then(close));
        }
        result
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        if let Err(error) = self.restore_all(false) {
            tracing::error!("{error}");
        }
    }
}

impl std::fmt::Display for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let driver = link_name(&self.host.device_directory(self.address).join("driver"));
        write!(f, "{} (group {}, driver ", self.address, self.group)?;
        write!(f, "{})", driver.as_deref().unwrap_or("none"))
    }
}
