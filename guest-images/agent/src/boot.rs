//! From the kernel's hand-over to the first words, and the way out.

use std::{ffi::CString, fs::File, io::ErrorKind, path::Path};

use anyhow::{Context, Result};
use dmarig_wire::{Hello, Reply};
use rustix::{
    io::Errno,
    mount::MountFlags,
    system::RebootCommand,
    time::{ClockId, clock_gettime},
};

use crate::{cmdline, console};

const MODULES: &str = "/lib/dmarig/modules";
const MODULES_ORDER: &str = "/lib/dmarig/modules.order";

/// Mounts what nothing works without: `/proc`, `/sys` and `/dev`.
///
/// # Errors
/// Where one of them can't be mounted.
pub(crate) fn mount_first() -> Result<()> {
    for (kind, at) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        mount(kind, at).with_context(|| format!("can't mount {kind} on {at}"))?;
    }
    Ok(())
}

/// Mounts what only some requests and the user's programs need, after the first words.
pub(crate) fn mount_rest() {
    for (kind, at) in [("debugfs", "/sys/kernel/debug"), ("tracefs", "/sys/kernel/tracing")] {
        // A kernel may be without either; who needs one says so.
        let _ = mount(kind, at);
    }
    // Programs of the user's expect it.
    let _ = std::fs::create_dir("/tmp");
}

fn mount(kind: &str, at: &str) -> rustix::io::Result<()> {
    match rustix::mount::mount(kind, at, kind, MountFlags::empty(), None) {
        // Already there: CONFIG_DEVTMPFS_MOUNT, or whoever made the initramfs.
        Err(Errno::BUSY) => Ok(()),
        other => other,
    }
}

/// Loads the modules of the initramfs in their order; each is named with its error if it has one.
pub(crate) fn load_modules(cmdline: &str) -> Vec<(String, Option<String>)> {
    let order = match std::fs::read_to_string(MODULES_ORDER) {
        Ok(order) => order,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => return vec![(MODULES_ORDER.to_owned(), Some(error.to_string()))],
    };
    let lines = order.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let path = Path::new(MODULES).join(line);
            let name = module_name(&path);
            let error = load_module(&path, &cmdline::module_parameters(cmdline, &name)).err();
            (name, error.map(|error| format!("{error:#}")))
        })
        .collect()
}

/// The name of the module in a file: `nvme` of `/lib/dmarig/modules/06-nvme.ko`, whose number keeps
/// the load order.
fn module_name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name =
        stem.split_once('-').filter(|(number, _)| number.bytes().all(|c| c.is_ascii_digit()));
    name.map_or(&*stem, |(_, name)| name).to_owned()
}

fn load_module(path: &Path, parameters: &str) -> Result<()> {
    let file = File::open(path).with_context(|| format!("can't open {}", path.display()))?;
    match rustix::system::finit_module(&file, &CString::new(parameters)?, 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("can't load {}", path.display())),
    }
}

/// The first words on the wire.
pub(crate) fn hello(modules: Vec<(String, Option<String>)>) -> Reply {
    let now = clock_gettime(ClockId::Boottime);
    Reply::Hello(Hello {
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        release: rustix::system::uname().release().to_string_lossy().into_owned(),
        uptime_us: now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000,
        modules,
    })
}

/// Makes a panic of any thread end the guest: with process 1 gone wrong, nothing in it can be
/// trusted, and a guest that hangs costs its rig a deadline.
pub(crate) fn power_off_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        console::print_problem(&format!("{info}"));
        power_off();
    }));
}

/// Powers the guest off.
pub(crate) fn power_off() -> ! {
    rustix::fs::sync();
    let error = rustix::system::reboot(RebootCommand::PowerOff);
    console::print_problem(&format!("the kernel does not power off: {error:?}"));
    // Process 1 must not end, or the kernel panics over it and hides what was said before.
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_a_module_without_its_number() {
        for (path, name) in [
            ("/lib/dmarig/modules/06-nvme.ko", "nvme"),
            ("/lib/dmarig/modules/00-crct10dif-pclmul.ko", "crct10dif-pclmul"),
            ("/lib/modules/nvme-core.ko", "nvme-core"),
        ] {
            assert_eq!(module_name(Path::new(path)), name);
        }
    }
}
