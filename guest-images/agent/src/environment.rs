//! The guest's own view: command line, size, IOMMUs, groups.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use dmarig_wire::{Environment, IommuGroup, IommuRegisters, Target};

use crate::device::names_in;

/// What the guest looks like, with these functions under test.
///
/// # Errors
/// Where `/proc` can't be read.
pub(crate) fn describe(targets: Vec<Target>) -> Result<Environment> {
    Ok(Environment {
        cmdline: read("/proc/cmdline")?,
        version: read("/proc/version")?,
        cpus: u32::try_from(cpus_online()?.len())?,
        memory_kib: memory_kib("MemTotal")?,
        iommus: iommus(Path::new("/sys/class/iommu")),
        groups: groups(Path::new("/sys/kernel/iommu_groups")),
        targets,
    })
}

fn read(path: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("can't read {path}"))?;
    Ok(text.trim_end().to_owned())
}

/// A field of `/proc/meminfo`, in KiB.
///
/// # Errors
/// Where it isn't there.
pub(crate) fn memory_kib(field: &str) -> Result<u64> {
    let text = read("/proc/meminfo")?;
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name == field).then(|| value.trim().trim_end_matches(" kB").parse().ok())?
    });
    value.with_context(|| format!("/proc/meminfo has no {field}"))
}

/// Numbers of the CPUs that are online.
///
/// # Errors
/// Where the kernel's list can't be read.
pub(crate) fn cpus_online() -> Result<Vec<u32>> {
    let text = read("/sys/devices/system/cpu/online")?;
    cpu_list(&text).with_context(|| format!("{text:?} is no list of CPUs"))
}

/// Parses a list such as `0-3,5`.
fn cpu_list(text: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(first.parse().ok()?..=last.parse::<u32>().ok()?);
    }
    Some(cpus)
}

fn iommus(class: &Path) -> BTreeMap<String, IommuRegisters> {
    let all = names_in(class).into_iter().map(|name| {
        let registers = registers(&class.join(&name));
        (name, registers)
    });
    all.collect()
}

/// The registers of one IOMMU. Each driver exports them in a directory with a name of its own, so it
/// is found by its file `cap`.
fn registers(iommu: &Path) -> IommuRegisters {
    let register = |path| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let directories = names_in(iommu).into_iter().map(|name| iommu.join(name));
    let exported = directories.into_iter().find(|directory| directory.join("cap").is_file());
    match exported {
        Some(directory) => IommuRegisters {
            cap: register(directory.join("cap")),
            ecap: register(directory.join("ecap")),
        },
        None => IommuRegisters { cap: None, ecap: None },
    }
}

fn groups(directory: &Path) -> Vec<IommuGroup> {
    let numbers = names_in(directory).into_iter().filter_map(|name| name.parse().ok());
    let mut groups: Vec<_> = numbers
        .map(|number: u32| {
            let group = directory.join(number.to_string());
            let kind = fs::read_to_string(group.join("type")).ok();
            IommuGroup {
                number,
                kind: kind.map(|text| text.trim().to_owned()),
                devices: names_in(&group.join("devices")),
            }
        })
        .collect();
    groups.sort_by_key(|group| group.number);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(cpu_list("0-3,5"), Some(vec![0, 1, 2, 3, 5]));
        assert_eq!(cpu_list("0"), Some(vec![0]));
        assert_eq!(cpu_list(""), None);
        assert_eq!(cpu_list("0-x"), None);
    }

    #[test]
    fn finds_registers_in_the_directory_of_any_driver() {
        let class = tempfile::tempdir().unwrap();
        let driver = class.path().join("unit0/a-driver");
        fs::create_dir_all(&driver).unwrap();
        fs::create_dir_all(class.path().join("unit0/power")).unwrap();
        fs::create_dir_all(class.path().join("unit1/power")).unwrap();
        fs::write(driver.join("cap"), "d2\n").unwrap();
        fs::write(driver.join("ecap"), "f0\n").unwrap();
        let found = iommus(class.path());
        let known = IommuRegisters { cap: Some("d2".to_owned()), ecap: Some("f0".to_owned()) };
        assert_eq!(found["unit0"], known);
        assert_eq!(found["unit1"], IommuRegisters { cap: None, ecap: None });
    }

    #[test]
    fn groups_come_in_numeric_order() {
        let root = tempfile::tempdir().unwrap();
        for (number, kind) in [("10", "DMA-FQ\n"), ("2", "identity\n")] {
            let group = root.path().join(number);
            fs::create_dir_all(group.join("devices/0000:00:03.0")).unwrap();
            fs::write(group.join("type"), kind).unwrap();
        }
        let groups = groups(root.path());
        assert_eq!(groups.iter().map(|group| group.number).collect::<Vec<_>>(), [2, 10]);
        assert_eq!(groups[1].kind.as_deref(), Some("DMA-FQ"));
        assert_eq!(groups[0].devices, ["0000:00:03.0"]);
    }
}
