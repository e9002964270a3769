use std::{io, path::PathBuf, time::Duration};

use crate::Address;

/// What failed, with what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nothing at that address.
    #[error(
        "there is no PCI device {address} on this host (no {}); `dmarig doctor` lists those that \
         could be handed over",
        path.display()
    )]
    NoDevice {
        /// The address.
        address: Address,
        /// Where the kernel would show it.
        path: PathBuf,
    },
    /// Another run has it.
    #[error(
        "{address} is in use by another run of dmarig{}; wait for its end",
        process.map(|process| format!(" (process {process})")).unwrap_or_default()
    )]
    Taken {
        /// The device.
        address: Address,
        /// The other run's process, where it has said.
        process: Option<u32>,
    },
    /// A file of the kernel refuses what was written to it.
    #[error(
        "can't write `{text}` to {}: {source}{}",
        path.display(),
        why(source)
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What was written.
        text: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel does not come back from an order, or nothing comes of it.
    #[error("{address}: {what} after {:.1} s; {hint}", after.as_secs_f64())]
    Stuck {
        /// The device.
        address: Address,
        /// What there is still none of.
        what: String,
        /// How long that was waited for.
        after: Duration,
        /// Where to look.
        hint: String,
    },
    /// The driver that had the device is gone.
    #[error(
        "{address} belongs to the driver {driver}, which is not loaded any more: load it \
         (`modprobe {driver}`), and the next run of dmarig gives the device back"
    )]
    NoDriver {
        /// The device.
        address: Address,
        /// The driver.
        driver: String,
    },
    /// The interface that was asked for is not there.
    #[error("{address} can't be reached by {wanted}: {reason}")]
    NoInterface {
        /// The device.
        address: Address,
        /// The interface.
        wanted: &'static str,
        /// What is missing and what to do.
        reason: String,
    },
    /// The journal can't be kept, and without one nothing is changed.
    #[error(
        "can't {action} {}: {source}; give another directory for dmarig's state (--runs), which has \
         to be writable",
        path.display()
    )]
    Journal {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// An entry of the journal that a newer dmarig has written.
    #[error(
        "{} was written by another version of dmarig: let that one mend it, or give the device back by \
         hand and remove the file",
        path.display()
    )]
    OtherVersion {
        /// The entry.
        path: PathBuf,
    },
    /// It failed, and so did the way back.
    #[error("{first}; and it could not be given back: {then} (the next run tries again)")]
    AndBack {
        /// What failed first.
        first: Box<Error>,
        /// What failed on the way back.
        then: Box<Error>,
    },
}

fn why(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (that needs root)",
        _ => " (the kernel log may have the reason: dmesg)",
    }
}
