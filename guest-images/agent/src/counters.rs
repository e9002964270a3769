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

use crate::{device::names_in, environment, sys};

const TRACING: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
/// Events that kernels have had in the group of the IOMMU layer or in that of a driver, from 5.10 on.
/// Some emit two of them for one operation.
const EVENTS: [&str; 6] = ["map", "unmap", "map_single", "unmap_single", "map_sg", "unmap_sg"];

/// Counters that run from when they are made until they are dropped.
#[derive(Debug)]
pub(crate) struct Counters {
    /// One counter for each CPU.
    events: BTreeMap<String, Vec<File>>,
}

impl Counters {
    /// Starts to count what the kernel has tracepoints for.
    ///
    /// # Errors
    /// Where it has one and refuses to count it.
    pub(crate) fn start() -> Result<Self> {
        let cpus = environment::cpus_online()?;
        let mut events = BTreeMap::new();
        for (name, id) in tracepoints(&TRACING.map(Path::new))? {
            let open = |&cpu| {
                sys::count_tracepoint(id, cpu).with_context(|| format!("can't count {name}"))
            };
            let counters = cpus.iter().map(open).collect::<Result<_>>()?;
            events.insert(name, counters);
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
            events.insert(name.clone(), sum);
        }
        Ok((!events.is_empty()).then_some(DmaCounts { events }))
    }
}

/// The tracepoints for DMA mapping, as `group:event`, each with the number that the kernel gave it at
/// boot. Groups are found by their names, so that no driver need be known here.
fn tracepoints(tracing: &[&Path]) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for directory in tracing {
        let events = directory.join("events");
        let groups = names_in(&events).into_iter().filter(|group| group.contains("iommu"));
        for (group, event) in groups.flat_map(|group| EVENTS.map(|event| (group.clone(), event))) {
            let name = format!("{group}:{event}");
            let path = events.join(&group).join(event).join("id");
            if found.contains_key(&name) {
                continue;
            }
            match fs::read_to_string(&path) {
                Ok(id) => {
                    let id = id.trim().parse().context("a tracepoint without number")?;
                    found.insert(name, id);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).context(format!("can't read {}", path.display())),
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_tracepoints_of_the_layer_and_of_any_driver() {
        let tracing = tempfile::tempdir().unwrap();
        for (event, id) in [
            ("iommu/map", 7),
            ("iommu/attach_device_to_domain", 8),
            ("a_iommu/unmap_sg", 9),
            ("block/map", 10),
        ] {
            let directory = tracing.path().join("events").join(event);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("id"), format!("{id}\n")).unwrap();
        }
        let found = tracepoints(&[Path::new("/nonexistent"), tracing.path()]).unwrap();
        let expected = [("a_iommu:unmap_sg", 9), ("iommu:map", 7)];
        assert_eq!(found, expected.map(|(name, id)| (name.to_owned(), id)).into());
    }
}
