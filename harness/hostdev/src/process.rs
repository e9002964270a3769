//! What this process may do, as the kernel shows it in `/proc/self`.

use std::net::IpAddr;

use crate::kernel_files::KernelFiles;

/// Bits of `CapEff` (linux/capability.h).
const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_IPC_LOCK: u32 = 14;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// The soft limit of locked memory in bytes; `None` where there is none.
    pub(crate) memory_lock: Option<u64>,
    /// Whether that limit is ignored.
    pub(crate) may_lock: bool,
    /// Whether permissions of files are ignored.
    pub(crate) may_write_all: bool,
}

impl Process {
    pub(crate) fn of_this(files: &KernelFiles) -> Self {
        let limits = files.text("proc/self/limits").unwrap_or_default();
        let limit = limits.lines().find_map(|line| {
            line.strip_prefix("Max locked memory")?.split_whitespace().next()?.parse().ok()
        });
        let status = files.text("proc/self/status").unwrap_or_default();
        let capabilities = status
            .lines()
            .find_map(|line| crate::kernel_files::hexadecimal(line.strip_prefix("CapEff:")?))
            .unwrap_or(0);
        Self {
            memory_lock: limit,
            may_lock: capabilities >> CAP_IPC_LOCK & 1 == 1,
            may_write_all: capabilities >> CAP_DAC_OVERRIDE & 1 == 1,
        }
    }
}

/// The two ends of the SSH connection that this process was started over: client, host.
///
/// A program that runs as another user often has its environment cleared, so its ancestors are asked
/// too, as far as they can be read.
pub(crate) fn ssh_connection(files: &KernelFiles) -> Option<(IpAddr, IpAddr)> {
    /// Deeper than sudo in a shell in a multiplexer in a shell, and never endless.
    const GENERATIONS: usize = 64;
    let mut process = "self".to_owned();
    for _ in 0..GENERATIONS {
        let environment = files.text(&format!("proc/{process}/environ")).unwrap_or_default();
        if let Some(ends) = environment.split('\0').find_map(ends) {
            return Some(ends);
        }
        let status = files.text(&format!("proc/{process}/status"))?;
        process = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().to_owned();
        if process == "0" {
            return None;
        }
    }
    None
}

/// From `SSH_CONNECTION=192.0.2.7 50000 192.0.2.1 22`.
fn ends(variable: &str) -> Option<(IpAddr, IpAddr)> {
    let mut words = variable.strip_prefix("SSH_CONNECTION=")?.split(' ');
    // A link-local address comes with its interface: fe80::1%eth0.
    let mut address = || words.next()?.split('%').next()?.parse::<IpAddr>().ok();
    let client = address()?;
    words.next();
    let mut address = || words.next()?.split('%').next()?.parse::<IpAddr>().ok();
    Some((client.to_canonical(), address()?.to_canonical()))
}
