//! What was changed on the host, on disk before it is changed, so that a run that is killed is mended
//! by the next.
//!
//! An entry is a file for each device, locked as long as its run lives. So the kernel itself tells
//! whether that run is alive, in whichever PID namespace, and no number that another process has got
//! since is taken for it. An entry without the newline at its end was never synced, so nothing was
//! changed on its account.

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
    driver::Levers,
};

/// The form of entries.
const VERSION: u32 = 1;

/// How a device was before it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Before {
    version: u32,
    /// The device, as the kernel writes it.
    address: String,
    /// The driver that had it.
    driver: Option<String>,
    /// Its `driver_override`.
    preferred: Option<String>,
    /// The boot of the host at which it was so: the next starts afresh.
    boot: String,
    /// The run that took it, to be named to people.
    process: u32,
    /// Its start, in the kernel's ticks since boot.
    started: u64,
}

/// What a run had left, and what became of it.
#[derive(Debug)]
pub struct Mended {
    /// The device.
    pub address: Address,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a device that a run had left.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// It is as it was before that run: with this driver, or none.
    GivenBack(Option<String>),
    /// Its run is alive and is let alone.
    Alive(Option<u32>),
    /// There was nothing to do: why.
    Nothing(&'static str),
    /// It could not be given back; the next run tries again.
    Failed(Error),
}

impl std::fmt::Display for Mended {
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

/// A device's entry, which is this run's alone until it is dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    address: Address,
    path: PathBuf,
    file: File,
}

/// An attempt to have an entry.
enum Claim {
    Ours(Entry),
    Theirs(Option<u32>),
    Gone,
}

impl Entry {
    /// Claims a device for this run, and mends it first where a killed one has left it.
    pub(crate) fn claim(host: &Host, state: &Path, address: Address) -> Result<Self, Error> {
        let failed = |source| Error::Journal { action: "make", path: state.to_owned(), source };
        fs::create_dir_all(state).map_err(failed)?;
        let path = path_of(state, address);
        loop {
            match claim(address, &path, true)? {
                Claim::Ours(mut entry) => {
                    if let Outcome::Failed(error) = entry.mend(host)? {
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

    /// Writes down how the device is now, and returns when that is on the disk.
    pub(crate) fn note(&mut self, host: &Host) -> Result<Before, Error> {
        let levers = Levers::new(host, self.address);
        let before = Before {
            version: VERSION,
            address: self.address.to_string(),
            driver: levers.driver(),
            preferred: levers.preferred(),
            boot: boot(host),
            process: std::process::id(),
            started: started(host),
        };
        self.write(&before).map_err(|source| self.failed("write", source))?;
        Ok(before)
    }

    fn write(&mut self, before: &Before) -> io::Result<()> {
        let mut line = serde_json::to_vec(before)?;
        line.push(b'\n');
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(&line)?;
        self.file.sync_all()?;
        // A new file is found again only where its directory is on the disk too.
        let directory = self.path.parent().unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }

    /// Removes the entry: the device is as it was.
    pub(crate) fn close(self) -> Result<(), Error> {
        fs::remove_file(&self.path).map_err(|source| self.failed("remove", source))
    }

    /// Gives the device back if a run has left it, and forgets what that run has noted.
    fn mend(&mut self, host: &Host) -> Result<Outcome, Error> {
        let outcome = match self.read()? {
            None => Outcome::Nothing("that run had changed nothing yet"),
            Some(before) if before.boot != boot(host) => {
                Outcome::Nothing("the host was booted since")
            }
            Some(before) => match give_back(host, self.address, &before) {
                Ok(()) => Outcome::GivenBack(before.driver),
                Err(error) => return Ok(Outcome::Failed(error)),
            },
        };
        self.file.set_len(0).map_err(|source| self.failed("clear", source))?;
        Ok(outcome)
    }

    /// What is written in it; nothing where its run never came to have it on the disk.
    fn read(&mut self) -> Result<Option<Before>, Error> {
        /// Far more than an entry has.
        const LIMIT: u64 = 64 << 10;
        let mut text = String::new();
        let read =
            self.file.rewind().and_then(|()| (&self.file).take(LIMIT).read_to_string(&mut text));
        read.map_err(|source| self.failed("read", source))?;
        if !text.ends_with('\n') {
            return Ok(None);
        }
        match serde_json::from_str::<Before>(&text) {
            Ok(before) if before.version == VERSION => Ok(Some(before)),
            _ => Err(Error::OtherVersion { path: self.path.clone() }),
        }
    }

    fn failed(&self, action: &'static str, source: io::Error) -> Error {
        Error::Journal { action, path: self.path.clone(), source }
    }
}

/// Brings a device back to how it was. May be done again, and after any part of it.
pub(crate) fn give_back(host: &Host, address: Address, before: &Before) -> Result<(), Error> {
    let levers = Levers::new(host, address);
    if !levers.exist() {
        // Pulled out, or gone with the controller that it hung on: whatever comes there is new.
        return Ok(());
    }
    levers.prefer(before.preferred.as_deref())?;
    let now = levers.driver();
    if now == before.driver {
        return Ok(());
    }
    // While the kernel still waits for those who have it open it shows no driver.
    levers.closed()?;
    match now.as_deref() {
        // Not what was bound here: somebody else has given it to another driver since.
        Some(driver) if driver != VFIO_PCI => return Ok(()),
        Some(_) => levers.release()?,
        None => {}
    }
    match before.driver.as_deref() {
        Some(driver) => levers.give_to(driver),
        None => Ok(()),
    }
}

impl Before {
    /// Whether anything has to be changed for VFIO to have the device.
    pub(crate) fn was_handed_over(&self) -> bool {
        is_vfio(self.driver.as_deref())
    }
}

/// Mends every device that the journal names.
pub(crate) fn mend(host: &Host, state: &Path) -> Result<Vec<Mended>, Error> {
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
    let mut mended = Vec::new();
    for address in addresses {
        let outcome = match claim(address, &path_of(state, address), false)? {
            Claim::Gone => continue,
            Claim::Theirs(process) => Outcome::Alive(process),
            Claim::Ours(mut entry) => match entry.mend(host) {
                Ok(Outcome::Failed(error)) | Err(error) => Outcome::Failed(error),
                Ok(done) => {
                    entry.close()?;
                    done
                }
            },
        };
        mended.push(Mended { address, outcome });
    }
    Ok(mended)
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
    host.tree.text("proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// When this process was started, in the kernel's ticks since boot (field 22 of proc(5)'s `stat`; the
/// second may hold spaces and parentheses itself).
fn started(host: &Host) -> u64 {
    let stat = host.tree.text("proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    fields.split_whitespace().nth(19).and_then(|field| field.parse().ok()).unwrap_or(0)
}
