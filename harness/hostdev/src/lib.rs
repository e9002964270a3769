//! Hands a PCI device of the host to a guest by the kernel's VFIO, and brings it back.
//!
//! The order of calls is [`Host::inspect`], [`Device::obstacles`], [`Host::bind`],
//! [`Binding::interface`], [`qemu_arguments`], the guest, [`Binding::restore`]. Once in each run,
//! before all of these, [`Host::recover`] gives back what a killed run has left.
//!
//! Everything is read from the kernel's own files: no udev, no systemd, no shell and no other program
//! is needed, so that this also runs as the only program of a guest. All paths are below a root,
//! which is `/` but for tests.
//!
//! Calls block: reading takes milliseconds; binding and restoring take as long as drivers take to let
//! go of a device or to take it, and programs to close it, each of which ends at [`Host::patience`].

mod address;
mod arguments;
mod bind;
mod candidates;
mod device;
mod driver;
mod error;
mod journal;
mod kernel_files;
mod network;
mod obstacles;
mod process;
mod storage;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::kernel_files::KernelFiles;
pub use crate::{
    address::{Address, InvalidAddress},
    arguments::{Choice, Interface, UnknownInterface, qemu_arguments},
    bind::Binding,
    candidates::Candidate,
    device::{Bar, Device, Iommu, Member, Vfio},
    error::Error,
    journal::{Outcome, Recovery},
    obstacles::{Obstacle, Wishes},
};

/// A host, as its kernel's files show it.
#[derive(Debug, Clone)]
pub struct Host {
    files: KernelFiles,
    patience: Duration,
}

impl Host {
    /// How long a driver gets to let go of a device or to take it, and programs to close it, unless it
    /// is told otherwise. An idle disk takes under a second, even where host and disk are emulated; what
    /// takes as long as this hangs.
    pub const PATIENCE: Duration = Duration::from_secs(30);

    /// The host that this runs on.
    #[must_use]
    pub fn real() -> Self {
        Self::at(Path::new("/"))
    }

    /// The host whose `/sys`, `/proc`, `/dev` and `/lib` are below `root`.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { files: KernelFiles::new(root), patience: Self::PATIENCE }
    }

    /// The same with another patience than [`Host::PATIENCE`].
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// How long a driver gets for each step.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// What is known of a device, all of it read now.
    ///
    /// # Errors
    /// [`Error::NoDevice`] where there is none at that address.
    pub fn inspect(&self, address: Address) -> Result<Device, Error> {
        device::inspect(&self.files, address)
    }

    /// The devices that could be handed over, in the order of their addresses, each with what stands
    /// in its way. Bridges are left out: nobody can hand over one.
    #[must_use]
    pub fn candidates(&self) -> Vec<Candidate> {
        candidates::list(self)
    }

    /// Takes a device, and companions that share its group, from their drivers and gives them to
    /// vfio-pci. `state` is the directory of the journal, the same for all runs on this host; it is
    /// made where it isn't there.
    ///
    /// Nothing is checked here but that no other run has one of them: see [`Device::obstacles`].
    ///
    /// # Errors
    /// What failed, where all is again as it was, or [`Error::AndBack`], where it isn't.
    pub fn bind(
        &self,
        device: &Device,
        companions: &[Device],
        state: &Path,
    ) -> Result<Binding, Error> {
        bind::bind(self, device, companions, state)
    }

    /// Gives back the devices of runs that were killed between bind and restore. Devices of live runs
    /// are left alone; devices from before the last boot need nothing. May be called at any time and
    /// any number of times.
    ///
    /// # Errors
    /// Where the journal itself can't be read. The result has the outcome for each device.
    pub fn recover(&self, state: &Path) -> Result<Vec<Recovery>, Error> {
        journal::recover(self, state)
    }

    /// Where the kernel shows the device.
    fn device_directory(&self, address: Address) -> PathBuf {
        self.files.path(&format!("sys/bus/pci/devices/{address}"))
    }
}
