//! Counts the kernel's tracepoints for DMA mapping without tracing anything.
//!
//! A perf event that only counts takes no buffer and can't overflow, so its number is exact; one
//! is opened for each CPU, since the kernel has none that counts a tracepoint on all of them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Read},
    path::Path,
};

use anyhow::{Context, Result};
use dmarig_wire::DmaCounts;

use crate::{environment, sys};

const TRACING: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
/// What kernels have had, from 5.10 on. Some emit two of them for one operation.
const EVENTS: [&str; 6] = [
    "iommu:map",
    "iommu:unmap",
    "intel_iommu:map_single",
    "intel_iommu:unmap_single",
    "intel_iommu:map_sg",
    "intel_iommu:unmap_sg",
];

/// Counters that run from when they are made until they are dropped.
#[derive(Debug)]
pub(crate) struct Counters {
    /// One counter for each CPU.
    events: BTreeMap<&'static str, Vec<File>>,
}

impl Counters {
    /// Starts to count what the kernel has tracepoints for.
    ///
    /// # Errors
    /// Where it has one and refuses to count it.
    pub(crate) fn start() -> Result<Self> {
        let cpus = environment::cpus_online()?;
        let mut events = BTreeMap::new();
        for name in EVENTS {
            let Some(id) = tracepoint(name)? else { continue };
            let open = |&cpu| {
                sys::count_tracepoint(id, cpu).with_context(|| format!("can't count {name}"))
            };
            events.insert(name, cpus.iter().map(open).collect::<Result<_>>()?);
        }
        Ok(Self { events })
    }

    /// What was counted so far; `None` where there is nothing to count by.
    ///
    /// # Errors
    /// Where a counter can't be read.
    pub(crate) fn read(&self) -> Result<Option<DmaCounts>> {
        let mut events = BTreeMap::new();
        for (name, files) in &self.events {
            let mut sum = 0;
            for mut file in files {
                let mut count = [0; 8];
                file.read_exact(&mut count).with_context(|| format!("can't read {name}"))?;
                sum += u64::from_ne_bytes(count);
            }
            events.insert((*name).to_owned(), sum);
        }
        Ok((!events.is_empty()).then_some(DmaCounts { events }))
    }
}

/// The number that the kernel gave a tracepoint at boot.
fn tracepoint(name: &str) -> Result<Option<u64>> {
    for tracing in TRACING {
        let path = Path::new(tracing).join("events").join(name.replace(':', "/")).join("id");
        match fs::read_to_string(&path) {
            Ok(id) => return Ok(Some(id.trim().parse().context("a tracepoint without number")?)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).context(format!("can't read {}", path.display())),
        }
    }
    Ok(None)
}
