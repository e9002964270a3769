//! The state of devices before they were changed, on disk before the change, so that the next run can
//! recover the devices of a killed one.
//!
//! Each device has an entry: a file that is locked as long as its run lives. So the kernel itself shows
//! whether that run is alive, in whichever PID namespace, and a process id that was used again is no
//! problem. An entry without a newline at its end was never synced, so nothing was changed for it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock, fstat},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{
    Address, Error, Host,
    device::{VFIO_PCI, is_vfio},
    driver::DriverControl,
};

/// Version of the entries' form.
const VERSION: u32 = 1;

/// The state of a device before it was bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PriorState {
    version: u32,
    /// Address of the device, as the kernel writes it.
    address: String,
    /// Its driver.
    driver: Option<String>,
    /// Its `driver_override`.
    #[serde(rename = "preferred")]
    driver_override: Option<String>,
    /// Boot id of the host: after another boot there is nothing to recover.
    boot: String,
    /// Process of the run that bound it, for messages.
    process: u32,
    /// Its start, in the kernel's ticks since boot.
    started: u64,
}

/// A device that an earlier run had not given back, and its recovery.
#[derive(Debug)]
pub struct Recovery {
    /// The device.
    pub address: Address,
    /// The result.
    pub outcome: Outcome,
}

/// The result of a recovery.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The device was given back to this driver, or to none.
    GivenBack(Option<String>),
    /// Its run is alive, so nothing was changed.
    Alive(Option<u32>),
    /// There was nothing to do, for this reason.
    Nothing(&'static str),
    /// It could not be given back; the next run tries again.
    Failed(Error),
}

impl std::fmt::Display for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = self.address;
        match &self.outcome {
            Outcome::GivenBack(Some(driver)) => {
                write!(f, "gave {address}, which a killed run had left, back to {driver}")
            }
            Outcome::GivenBack(None) => {
                write!(f, "freed {address}, which a killed run had left")
            }
            Outcome::Alive(process) => match process {
                Some(process) => write!(f, "{address} is in use by process {process}"),
                None => write!(f, "{address} is in use by another run"),
            },
            Outcome::Nothing(why) => write!(f, "{address} needs no mending: {why}"),
            Outcome::Failed(error) => write!(f, "{error}"),
        }
    }
}

/// A device's entry, locked by this run until it is dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    address: Address,
    path: PathBuf,
    file: File,
}

/// The result of an attempt to lock an entry.
enum Claim {
    Ours(Entry),
    Theirs(Option<u32>),
    Gone,
}

impl Entry {
    /// Claims a device for this run, and recovers it first if a killed run has left it.
    pub(crate) fn claim(host: &Host, state: &Path, address: Address) -> Result<Self, Error> {
        let failed = |source| Error::Journal { action: "make", path: state.to_owned(), source };
        fs::create_dir_all(state).map_err(failed)?;
        let path = path_of(state, address);
        loop {
            match claim(address, &path, true)? {
                Claim::Ours(mut entry) => {
                    if let Outcome::Failed(error) = entry.recover(host)? {
                        return Err(error);
                    }
                    return Ok(entry);
                }
                Claim::Theirs(process) => return Err(Error::Taken { address, process }),
                // Another run has just removed it.
                Claim::Gone => {}
            }
        }
    }

    /// Records the device's state, and returns when that is on the disk.
    pub(crate) fn record(&mut self, host: &Host) -> Result<PriorState, Error> {
        let control = DriverControl::new(host, self.address);
        let state = PriorState {
            version: VERSION,
            address: self.address.to_string(),
            driver: control.driver(),
            driver_override: control.driver_override(),
            boot: boot(host),
            process: std::process::id(),
            started: started(host),
        };
        self.write(&state).map_err(|source| self.failed("write", source))?;
        Ok(state)
    }

    fn write(&mut self, state: &PriorState) -> io::Result<()> {
        let mut line = serde_json::to_vec(state)?;
        line.push(b'\n');
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(&line)?;
        self.file.sync_all()?;
        // A new file is found again only where its directory is on the disk too.
        let directory = self.path.parent().unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }

    /// Removes the entry, after the device was given back.
    pub(crate) fn close(self) -> Result<(), Error> {
        fs::remove_file(&self.path).map_err(|source| self.failed("remove", source))
    }

    /// Gives the device back if a run has left it, and clears the entry.
    fn recover(&mut self, host: &Host) -> Result<Outcome, Error> {
        let outcome = match self.read()? {
            None => Outcome::Nothing("that run had changed nothing yet"),
            Some(prior) if prior.boot != boot(host) => {
                Outcome::Nothing("the host was booted since")
            }
            Some(prior) => match restore(host, self.address, &prior) {
                Ok(()) => Outcome::GivenBack(prior.driver),
                Err(error) => return Ok(Outcome::Failed(error)),
            },
        };
        self.file.set_len(0).map_err(|source| self.failed("clear", source))?;
        Ok(outcome)
    }

    /// Reads the entry; `None` if its run never had it on the disk.
    fn read(&mut self) -> Result<Option<PriorState>, Error> {
        /// Far more than an entry has.
        const LIMIT: u64 = 64 << 10;
        let mut text = String::new();
        let read =
            self.file.rewind().and_then(|()| (&self.file).take(LIMIT).read_to_string(&mut text));
        read.map_err(|source| self.failed("read", source))?;
        if !text.ends_with('\n') {
            return Ok(None);
        }
        match serde_json::from_str::<PriorState>(&text) {
            Ok(state) if state.version == VERSION => Ok(Some(state)),
            _ => Err(Error::OtherVersion { path: self.path.clone() }),
        }
    }

    fn failed(&self, action: &'static str, source: io::Error) -> Error {
        Error::Journal { action, path: self.path.clone(), source }
    }
}

/// Restores a device's prior state. May be repeated, and resumed after any step.
pub(crate) fn restore(host: &Host, address: Address, prior: &PriorState) -> Result<(), Error> {
    let control = DriverControl::new(host, address);
    if !control.device_exists() {
        // Pulled out, or gone with the controller that it hung on: whatever comes there is new.
        return Ok(());
    }
    control.set_driver_override(prior.driver_override.as_deref())?;
    let now = control.driver();
    if now == prior.driver {
        return Ok(());
    }
    // The kernel shows no driver while it waits for programs that have the device open.
    control.wait_until_closed()?;
    match now.as_deref() {
        // Somebody else has bound it to another driver since.
        Some(driver) if driver != VFIO_PCI => return Ok(()),
        Some(_) => control.unbind()?,
        None => {}
    }
    match prior.driver.as_deref() {
        Some(driver) => control.bind(driver),
        None => Ok(()),
    }
}

impl PriorState {
    /// Whether VFIO already had the device.
    pub(crate) fn was_bound_to_vfio(&self) -> bool {
        is_vfio(self.driver.as_deref())
    }
}

/// Recovers every device in the journal.
pub(crate) fn recover(host: &Host, state: &Path) -> Result<Vec<Recovery>, Error> {
    let failed = |source| Error::Journal { action: "read", path: state.to_owned(), source };
    let entries = match fs::read_dir(state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut addresses = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        addresses.extend(name.to_str().and_then(address_of));
    }
    addresses.sort_unstable();
    let mut recoveries = Vec::new();
    for address in addresses {
        let outcome = match claim(address, &path_of(state, address), false)? {
            Claim::Gone => continue,
            Claim::Theirs(process) => Outcome::Alive(process),
            Claim::Ours(mut entry) => match entry.recover(host) {
                Ok(Outcome::Failed(error)) | Err(error) => Outcome::Failed(error),
                Ok(outcome) => {
                    entry.close()?;
                    outcome
                }
            },
        };
        recoveries.push(Recovery { address, outcome });
    }
    Ok(recoveries)
}

fn path_of(state: &Path, address: Address) -> PathBuf {
    state.join(format!("device-{address}.json"))
}

fn address_of(name: &str) -> Option<Address> {
    name.strip_prefix("device-")?.strip_suffix(".json")?.parse().ok()
}

fn claim(address: Address, path: &Path, create: bool) -> Result<Claim, Error> {
    let failed = |source| Error::Journal { action: "open", path: path.to_owned(), source };
    let opened =
        OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !create => return Ok(Claim::Gone),
        opened => opened.map_err(failed)?,
    };
    let mut entry = Entry { address, path: path.to_owned(), file };
    match flock(&entry.file, FlockOperation::NonBlockingLockExclusive) {
        // Its run was at its end and has removed it between the opening and the lock.
        Ok(()) if fstat(&entry.file).is_ok_and(|status| status.st_nlink == 0) => Ok(Claim::Gone),
        Ok(()) => Ok(Claim::Ours(entry)),
        Err(Errno::WOULDBLOCK) => {
            Ok(Claim::Theirs(entry.read().ok().flatten().map(|before| before.process)))
        }
        Err(error) => {
            Err(Error::Journal { action: "lock", path: entry.path, source: error.into() })
        }
    }
}

/// A name of this boot of the host.
fn boot(host: &Host) -> String {
    host.files.text("proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// When this process was started, in the kernel's ticks since boot (field 22 of proc(5)'s `stat`; the
/// second may hold spaces and parentheses itself).
fn started(host: &Host) -> u64 {
    let stat = host.files.text("proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    fields.split_whitespace().nth(19).and_then(|field| field.parse().ok()).unwrap_or(0)
}
