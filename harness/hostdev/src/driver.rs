//! Binds a PCI device to drivers and unbinds it.
//!
//! Each order is a write to a file of the kernel, which carries it out before the write returns; a
//! driver that takes part may finish later. The device's `driver` link shows the result. sysfs
//! notifies nobody of a change, so the link is polled.

use std::{
    io,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Address, Error, Host, device,
    kernel_files::{link_name, text, write},
};

/// Interval at which a link is polled: short compared with what drivers take, and longer the longer
/// they take.
const FIRST_POLL_INTERVAL: Duration = Duration::from_millis(5);
const LAST_POLL_INTERVAL: Duration = Duration::from_millis(100);

const SEE_LOG: &str = "the kernel log may have the reason (dmesg)";

/// Changes the driver of one device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DriverControl<'a> {
    host: &'a Host,
    address: Address,
}

impl<'a> DriverControl<'a> {
    pub(crate) fn new(host: &'a Host, address: Address) -> Self {
        Self { host, address }
    }

    /// Whether the device exists.
    pub(crate) fn device_exists(self) -> bool {
        self.host.device_directory(self.address).exists()
    }

    /// The device's driver.
    pub(crate) fn driver(self) -> Option<String> {
        link_name(&self.file("driver"))
    }

    /// The only driver that may take the device (`driver_override`), if one is set.
    pub(crate) fn driver_override(self) -> Option<String> {
        let name = text(&self.file("driver_override"))?;
        if name.is_empty() || name == "(null)" { None } else { Some(name) }
    }

    /// Sets the only driver that may take the device; `None` allows any that fits.
    pub(crate) fn set_driver_override(self, driver: Option<&str>) -> Result<(), Error> {
        if self.driver_override().as_deref() == driver {
            return Ok(());
        }
        self.order(&self.file("driver_override"), driver.unwrap_or(""))
    }

    /// Waits until no program has the device open by VFIO any more.
    ///
    /// Otherwise the order to unbind would wait for them in the kernel, where nothing can end it (and
    /// QEMU would take the device out of its guest).
    pub(crate) fn wait_until_closed(self) -> Result<(), Error> {
        let opener =
            || device::openers(&self.host.files, &self.host.device_directory(self.address));
        let hint = "end that, and the next run of dmarig gives the device back";
        self.wait(
            |_| opener().is_empty(),
            || {
                let opener = opener().first().map(ToString::to_string);
                (format!("{} has it open", opener.unwrap_or_default()), hint.to_owned())
            },
        )
    }

    /// Unbinds the device from its driver.
    pub(crate) fn unbind(self) -> Result<(), Error> {
        if self.driver().is_none() {
            return Ok(());
        }
        // The link is gone before the driver has finished; only the end of the write shows that it has.
        match self.order(&self.file("driver/unbind"), &self.address.to_string()) {
            // It was unbound between the check and the order.
            Err(Error::Write { .. }) if self.driver().is_none() => Ok(()),
            other => other,
        }?;
        self.wait(
            |control| control.driver().is_none(),
            || {
                let driver = self.driver().unwrap_or_default();
                (format!("the driver {driver} still has it"), SEE_LOG.to_owned())
            },
        )
    }

    /// Makes the kernel look for a driver, and waits until it is this one.
    pub(crate) fn probe(self, driver: &str) -> Result<(), Error> {
        self.order(&self.host.files.path("sys/bus/pci/drivers_probe"), &self.address.to_string())?;
        self.wait_for_driver(driver)
    }

    /// Binds the device to this driver and no other.
    pub(crate) fn bind(self, driver: &str) -> Result<(), Error> {
        let directory = self.host.files.path(&format!("sys/bus/pci/drivers/{driver}"));
        if !directory.exists() {
            let (address, driver) = (self.address, driver.to_owned());
            return Err(Error::NoDriver { address, driver });
        }
        let bind = directory.join("bind");
        match self.order(&bind, &self.address.to_string()) {
            // The driver had taken the device by an id that was added at run time and is gone; or the
            // kernel was faster.
            Err(Error::Write { .. }) if self.driver().as_deref() != Some(driver) => {
                self.probe(driver)
            }
            Err(Error::Write { .. }) => Ok(()),
            Err(other) => Err(other),
            Ok(()) => self.wait_for_driver(driver),
        }
    }

    fn wait_for_driver(self, driver: &str) -> Result<(), Error> {
        self.wait(
            |control| control.driver().as_deref() == Some(driver),
            || {
                let has = self.driver().map_or("none".to_owned(), |driver| format!("`{driver}`"));
                (
                    format!("the driver {driver} has not taken it (its driver is {has})"),
                    format!("the kernel log may have the reason (dmesg); is {driver} loaded?"),
                )
            },
        )
    }

    /// Waits until `condition` holds; `describe` returns what is missing and where to look.
    pub(crate) fn wait(
        self,
        condition: impl Fn(Self) -> bool,
        describe: impl Fn() -> (String, String),
    ) -> Result<(), Error> {
        let start = Instant::now();
        let mut pause = FIRST_POLL_INTERVAL;
        while !condition(self) {
            if start.elapsed() >= self.host.patience {
                let (what, hint) = describe();
                let (address, after) = (self.address, start.elapsed());
                return Err(Error::Stuck { address, what, after, hint });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LAST_POLL_INTERVAL);
        }
        Ok(())
    }

    /// Writes to a file of the kernel on a thread of its own: the write may never return, and nothing
    /// ends a write in which a driver hangs.
    fn order(self, path: &Path, order: &str) -> Result<(), Error> {
        let start = Instant::now();
        let (sender, answer) = mpsc::channel();
        let (file, words) = (path.to_owned(), order.to_owned());
        let spawned = thread::Builder::new().name("hostdev".into()).spawn(move || {
            // The receiver may have given up.
            let _ = sender.send(write(&file, &words));
        });
        let refused = |source: io::Error| Error::Write {
            path: self.host.files.shown(path),
            text: order.to_owned(),
            source,
        };
        spawned.map_err(refused)?;
        match answer.recv_timeout(self.host.patience) {
            Ok(written) => written.map_err(refused),
            Err(_) => Err(Error::Stuck {
                address: self.address,
                what: format!(
                    "the kernel has not come back from `{order}` to {}",
                    self.host.files.shown(path).display()
                ),
                after: start.elapsed(),
                hint: SEE_LOG.to_owned(),
            }),
        }
    }

    fn file(self, name: &str) -> PathBuf {
        self.host.device_directory(self.address).join(name)
    }
}
