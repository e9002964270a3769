//! A device of this host's that the guests of a run get.

use std::{collections::BTreeSet, path::PathBuf, str::FromStr};

use anyhow::anyhow;
use clap::Args;
use dmarig_hostdev::{
    Address, Binding, Choice, Device, Host, Interface, Outcome, Wishes, qemu_arguments,
};
use dmarig_model::{axes::Passthrough, conditions::AxisSets, qemu::Qemu, value::OneOrMany};

use crate::exit::Failure;

/// The object by which a QEMU tells that it knows iommufd.
const IOMMUFD: &str = "iommufd";

/// Which device, and how.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DeviceOptions {
    /// Pass a device of this host's through: host=0000:03:00.0. Its disk is written to
    #[arg(long, value_name = "host=ADDRESS")]
    device: Option<HostAddress>,
    /// Take this device although the host uses it, or it holds data (may be repeated)
    #[arg(long, value_name = "ADDRESS")]
    force_device: Vec<Address>,
    /// Hand over this one as well, because it shares the device's group (may be repeated)
    #[arg(long, value_name = "ADDRESS")]
    device_companion: Vec<Address>,
    /// The kernel's interface: legacy or iommufd [default: iommufd where host and QEMU have it]
    #[arg(long, value_name = "legacy|iommufd")]
    device_interface: Option<Interface>,
}

/// `host=` and an address.
#[derive(Debug, Clone, Copy)]
struct HostAddress(Address);

impl FromStr for HostAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text
            .strip_prefix("host=")
            .ok_or_else(|| format!("`{text}` is no device of the host's: host=0000:03:00.0"))?;
        address.parse().map(Self).map_err(|error: dmarig_hostdev::InvalidAddress| error.to_string())
    }
}

impl DeviceOptions {
    /// Whether a device is named.
    pub(crate) fn is_given(&self) -> bool {
        self.device.is_some()
    }

    /// Makes every cell one of the device's.
    pub(crate) fn replace(&self, given: &mut AxisSets) {
        if self.is_given() && given.passthrough.is_empty() {
            given.passthrough = OneOrMany(vec![Passthrough::Host]);
        }
    }

    /// The words of the command line that say this again.
    pub(crate) fn words(&self) -> Vec<String> {
        let Some(HostAddress(address)) = self.device else { return Vec::new() };
        let mut words = vec!["--device".to_owned(), format!("host={address}")];
        let all = [
            ("--force-device", &self.force_device),
            ("--device-companion", &self.device_companion),
        ];
        for (option, addresses) in all {
            for address in addresses {
                words.extend([option.to_owned(), address.to_string()]);
            }
        }
        if let Some(interface) = self.device_interface {
            words.extend(["--device-interface".to_owned(), interface.name().to_owned()]);
        }
        words
    }

    /// The device as it would be passed through, for a plan: nothing is touched.
    pub(crate) fn planned(&self) -> Option<HostDevice> {
        let HostAddress(address) = self.device?;
        Some(HostDevice { address, wanted: self.device_interface, bound: None })
    }

    /// Checks the device and takes it from its driver; gives it back when dropped.
    pub(crate) fn take(
        &self,
        guest_memory: u64,
        state: &std::path::Path,
        say: &dyn Fn(&str),
    ) -> Result<Option<HostDevice>, Failure> {
        let Some(HostAddress(address)) = self.device else { return Ok(None) };
        let host = Host::real();
        let state: PathBuf = state.join("devices");
        for mended in host.recover(&state)? {
            // What a live run holds is its own.
            if !matches!(mended.outcome, Outcome::Alive(_)) {
                say(&mended.to_string());
            }
        }
        let wishes = Wishes {
            guest_memory,
            force: self.force_device.iter().copied().collect(),
            companions: self.device_companion.iter().copied().collect::<BTreeSet<_>>(),
            interface: self.device_interface,
        };
        let device = checked(&host, address, &wishes)?;
        let companions = self
            .device_companion
            .iter()
            .map(|companion| checked(&host, *companion, &wishes))
            .collect::<Result<Vec<_>, _>>()?;
        let bound = host.bind(&device, &companions, &state)?;
        say(&format!("{bound} is handed over"));
        Ok(Some(HostDevice { address, wanted: self.device_interface, bound: Some(bound) }))
    }
}

fn checked(host: &Host, address: Address, wishes: &Wishes) -> Result<Device, Failure> {
    let device = host.inspect(address)?;
    let obstacles = device.obstacles(wishes);
    if obstacles.is_empty() {
        return Ok(device);
    }
    let all: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
    Err(anyhow!("{address} is not passed through:\n  {}", all.join("\n  ")).into())
}

/// A device that guests get, one after the other.
#[derive(Debug)]
pub(crate) struct HostDevice {
    address: Address,
    wanted: Option<Interface>,
    /// Where it is only planned, nothing is.
    bound: Option<Binding>,
}

impl HostDevice {
    /// The arguments by which this QEMU gets it.
    pub(crate) fn arguments(&self, qemu: &Qemu) -> Result<Vec<String>, String> {
        let Some(bound) = &self.bound else {
            return Ok(vec!["-device".to_owned(), format!("vfio-pci,host={}", self.address)]);
        };
        let qemu_has_iommufd = qemu.devices.contains(IOMMUFD);
        let choice = Choice { qemu_has_iommufd, wanted: self.wanted };
        let interface = bound.interface(choice).map_err(|error| error.to_string())?;
        Ok(qemu_arguments(bound, interface, &[]))
    }

    /// Gives it back to its driver.
    pub(crate) fn restore(self) -> Result<(), Failure> {
        self.bound.map_or(Ok(()), |bound| Ok(bound.restore()?))
    }
}
