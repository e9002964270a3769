//! A device of this host that the guests of a run get.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use dmarig_hostdev::{
    Address, Binding, Choice, Device, Host, Interface, Outcome, Wishes, qemu_arguments,
};
use dmarig_model::{axes::Passthrough, conditions::AxisSets, qemu::Qemu, value::OneOrMany};

use crate::{
    error::{Error, PrepareError},
    event::{Event, Reporter},
};

/// The object by which a QEMU tells that it knows iommufd.
const IOMMUFD: &str = "iommufd";

/// Which device to pass through, and how.
#[derive(Debug, Clone, Default)]
pub struct DeviceRequest {
    /// The device; without one, none is passed through.
    pub address: Option<Address>,
    /// Devices to take although the host uses them, or they hold data.
    pub forced: Vec<Address>,
    /// Devices of the same group to hand over as well.
    pub companions: Vec<Address>,
    /// The kernel's interface; without one, iommufd where host and QEMU have it.
    pub interface: Option<Interface>,
}

impl DeviceRequest {
    /// Whether a device is named.
    pub fn is_given(&self) -> bool {
        self.address.is_some()
    }

    /// Makes every cell one of the device's.
    pub fn replace(&self, given: &mut AxisSets) {
        if self.is_given() && given.passthrough.is_empty() {
            given.passthrough = OneOrMany(vec![Passthrough::Host]);
        }
    }

    /// The device as it would be passed through, for a plan: nothing is touched.
    pub fn planned(&self) -> Option<HostDevice> {
        let address = self.address?;
        Some(HostDevice { address, wanted: self.interface, bound: None })
    }

    /// Checks the device and takes it from its driver; gives it back when dropped.
    pub fn take(
        &self,
        guest_memory: u64,
        state: &Path,
        reporter: &dyn Reporter,
    ) -> Result<Option<HostDevice>, Error> {
        let Some(address) = self.address else { return Ok(None) };
        let host = Host::real();
        let state: PathBuf = state.join("devices");
        for mended in host.recover(&state)? {
            // What a live run holds is its own.
            if !matches!(mended.outcome, Outcome::Alive(_)) {
                reporter.report(&Event::Note(&mended.to_string()));
            }
        }
        let wishes = Wishes {
            guest_memory,
            force: self.forced.iter().copied().collect(),
            companions: self.companions.iter().copied().collect::<BTreeSet<_>>(),
            interface: self.interface,
        };
        let device = checked(&host, address, &wishes)?;
        let companions = self
            .companions
            .iter()
            .map(|companion| checked(&host, *companion, &wishes))
            .collect::<Result<Vec<_>, _>>()?;
        let bound = host.bind(&device, &companions, &state)?;
        reporter.report(&Event::Note(&format!("{bound} is handed over")));
        Ok(Some(HostDevice { address, wanted: self.interface, bound: Some(bound) }))
    }
}

fn checked(host: &Host, address: Address, wishes: &Wishes) -> Result<Device, Error> {
    let device = host.inspect(address)?;
    let obstacles = device.obstacles(wishes);
    if obstacles.is_empty() {
        return Ok(device);
    }
    let all: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
    Err(Error::DeviceRefused { address: address.to_string(), obstacles: all })
}

/// A device that guests get, one after the other.
#[derive(Debug)]
pub struct HostDevice {
    address: Address,
    wanted: Option<Interface>,
    /// Where it is only planned, nothing is.
    bound: Option<Binding>,
}

impl HostDevice {
    /// The arguments by which this QEMU gets it.
    pub fn arguments(&self, qemu: &Qemu) -> Result<Vec<String>, PrepareError> {
        let Some(bound) = &self.bound else {
            return Ok(vec!["-device".to_owned(), format!("vfio-pci,host={}", self.address)]);
        };
        let qemu_has_iommufd = qemu.devices.contains(IOMMUFD);
        let choice = Choice { qemu_has_iommufd, wanted: self.wanted };
        let interface =
            bound.interface(choice).map_err(|error| PrepareError::HostDevice(error.to_string()))?;
        Ok(qemu_arguments(bound, interface, &[]))
    }

    /// Gives it back to its driver.
    pub fn restore(self) -> Result<(), Error> {
        self.bound.map_or(Ok(()), |bound| Ok(bound.restore()?))
    }
}
