//! The kernel's levers by which a PCI device changes hands.
//!
//! Each is a file that is written to, and the kernel carries the order out before the write returns;
//! a driver that takes part may finish later. What became of it is seen in the device's `driver` link.
//! sysfs tells nobody of a change, so the link is looked at again and again.

use std::{
    io,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Address, Error, Host, device,
    tree::{link_name, text, write},
};

/// Between two looks at a link: short against what drivers take, and longer the longer they take.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const LOOK_AGAIN_AT_LAST: Duration = Duration::from_millis(100);

const SEE_LOG: &str = "the kernel's log may tell why (dmesg)";

/// The levers of one device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Levers<'a> {
    host: &'a Host,
    address: Address,
}

impl<'a> Levers<'a> {
    pub(crate) fn new(host: &'a Host, address: Address) -> Self {
        Self { host, address }
    }

    /// Whether the device is there at all.
    pub(crate) fn exist(self) -> bool {
        self.host.device_directory(self.address).exists()
    }

    /// The driver that has the device.
    pub(crate) fn driver(self) -> Option<String> {
        link_name(&self.file("driver"))
    }

    /// The driver that alone may take the device, where one is named.
    pub(crate) fn preferred(self) -> Option<String> {
        let name = text(&self.file("driver_override"))?;
        (!name.is_empty() && name != "(null)").then_some(name)
    }

    /// Names the driver that alone may take the device; `None` lets any that fits.
    pub(crate) fn prefer(self, driver: Option<&str>) -> Result<(), Error> {
        if self.preferred().as_deref() == driver {
            return Ok(());
        }
        self.order(&self.file("driver_override"), driver.unwrap_or(""))
    }

    /// Waits until no program has the device open by VFIO any more.
    ///
    /// Without that the order to let go would wait for them in the kernel, where nothing can end it
    /// (and would have QEMU, if it is one, take the device out of its guest).
    pub(crate) fn closed(self) -> Result<(), Error> {
        let opener = || device::openers(&self.host.tree, &self.host.device_directory(self.address));
        let hint = "end that, and the next run of dmarig gives the device back";
        self.wait(
            |_| opener().is_empty(),
            || {
                let opener = opener().first().map(ToString::to_string);
                (format!("{} has it open", opener.unwrap_or_default()), hint.to_owned())
            },
        )
    }

    /// Has the device's driver let go of it.
    pub(crate) fn release(self) -> Result<(), Error> {
        if self.driver().is_none() {
            return Ok(());
        }
        // The link is gone before the driver has let go; only the answer tells that it has.
        match self.order(&self.file("driver/unbind"), &self.address.to_string()) {
            // It has let go by itself between the look and the order.
            Err(Error::Write { .. }) if self.driver().is_none() => Ok(()),
            other => other,
        }?;
        self.wait(
            |levers| levers.driver().is_none(),
            || {
                let driver = self.driver().unwrap_or_default();
                (format!("the driver {driver} still has it"), SEE_LOG.to_owned())
            },
        )
    }

    /// Has the kernel look for a driver, which is to be this one.
    pub(crate) fn probe(self, driver: &str) -> Result<(), Error> {
        self.order(&self.host.tree.path("sys/bus/pci/drivers_probe"), &self.address.to_string())?;
        self.expect(driver)
    }

    /// Gives the device to this driver and no other.
    pub(crate) fn give_to(self, driver: &str) -> Result<(), Error> {
        let directory = self.host.tree.path(&format!("sys/bus/pci/drivers/{driver}"));
        if !directory.exists() {
            let (address, driver) = (self.address, driver.to_owned());
            return Err(Error::NoDriver { address, driver });
        }
        let bind = directory.join("bind");
        match self.order(&bind, &self.address.to_string()) {
            // The driver had it by a number that was added at run time and is gone; or the kernel
            // was faster.
            Err(Error::Write { .. }) if self.driver().as_deref() != Some(driver) => {
                self.probe(driver)
            }
            Err(Error::Write { .. }) => Ok(()),
            Err(other) => Err(other),
            Ok(()) => self.expect(driver),
        }
    }

    fn expect(self, driver: &str) -> Result<(), Error> {
        self.wait(
            |levers| levers.driver().as_deref() == Some(driver),
            || {
                let has = self.driver().map_or("none".to_owned(), |driver| format!("`{driver}`"));
                (
                    format!("the driver {driver} has not taken it (its driver is {has})"),
                    format!("the kernel's log may tell why (dmesg); is {driver} loaded?"),
                )
            },
        )
    }

    /// Waits until something is so; `otherwise` tells what isn't and where to look.
    pub(crate) fn wait(
        self,
        is_so: impl Fn(Self) -> bool,
        otherwise: impl Fn() -> (String, String),
    ) -> Result<(), Error> {
        let start = Instant::now();
        let mut pause = LOOK_AGAIN;
        while !is_so(self) {
            if start.elapsed() >= self.host.patience {
                let (what, hint) = otherwise();
                let (address, after) = (self.address, start.elapsed());
                return Err(Error::Stuck { address, what, after, hint });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LOOK_AGAIN_AT_LAST);
        }
        Ok(())
    }

    /// Writes to a lever on a thread of its own: the kernel may not come back from it, and nothing
    /// ends a write that a driver hangs in.
    fn order(self, path: &Path, order: &str) -> Result<(), Error> {
        let start = Instant::now();
        let (sender, answer) = mpsc::channel();
        let (file, words) = (path.to_owned(), order.to_owned());
        let spawned = thread::Builder::new().name("hostdev".into()).spawn(move || {
            // Nobody may be listening any more.
            let _ = sender.send(write(&file, &words));
        });
        let refused = |source: io::Error| Error::Write {
            path: self.host.tree.shown(path),
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
                    self.host.tree.shown(path).display()
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
