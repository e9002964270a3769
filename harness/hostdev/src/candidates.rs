use crate::{Device, Host, Obstacle, Wishes, kernel_files::names};

/// A device that could be handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The device.
    pub device: Device,
    /// What stands in its way; nothing where it is ready.
    pub obstacles: Vec<Obstacle>,
}

impl std::fmt::Display for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let driver = self.device.driver.as_deref().unwrap_or("no driver");
        write!(f, "{} ({driver}): ", self.device)?;
        match self.obstacles.as_slice() {
            [] => f.write_str("ready"),
            [first, rest @ ..] => {
                write!(f, "{first}")?;
                rest.iter().try_for_each(|obstacle| write!(f, "; {obstacle}"))
            }
        }
    }
}

pub(crate) fn list(host: &Host) -> Vec<Candidate> {
    let addresses = names(&host.files.path("sys/bus/pci/devices"));
    let mut addresses: Vec<_> = addresses.iter().filter_map(|name| name.parse().ok()).collect();
    addresses.sort_unstable();
    // One that goes away meanwhile is none any more.
    let devices = addresses.into_iter().filter_map(|address| host.inspect(address).ok());
    let devices = devices.filter(|device| !device.is_bridge());
    devices
        .map(|device| Candidate { obstacles: device.obstacles(&Wishes::default()), device })
        .collect()
}
