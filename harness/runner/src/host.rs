//! Facts about this host, for records and for `dmarig doctor`.

use std::{ffi::OsString, fs, path::Path};

use dmarig_records::HostFacts;

/// What a record says of the host.
pub fn facts() -> HostFacts {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_start_matches([' ', '\t', ':']).trim().to_owned()
    };
    HostFacts {
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        cpu: field(&read("/proc/cpuinfo"), "model name"),
        cpus: std::thread::available_parallelism()
            .ok()
            .and_then(|cpus| u32::try_from(cpus.get()).ok())
            .unwrap_or(1),
        memory_kib: memory_kib("MemTotal"),
        load: read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
        microcode: field(&read("/proc/cpuinfo"), "microcode"),
        governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").trim().to_owned(),
        smt: read("/sys/devices/system/cpu/smt/control").trim().to_owned(),
        machine: named(std::env::var_os("DMARIG_MACHINE")),
    }
}

/// What the user calls this machine; empty where that is not said.
fn named(name: Option<OsString>) -> String {
    name.unwrap_or_default().to_string_lossy().trim().to_owned()
}

/// A line of `/proc/meminfo`, in KiB.
pub fn memory_kib(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0)
}

/// How the host's own IOMMU stands: it is what a passed-through device would need.
pub fn iommu() -> String {
    let entries = |path: &str| fs::read_dir(path).map_or(0, |entries| entries.flatten().count());
    let units = entries("/sys/class/iommu");
    let groups = entries("/sys/kernel/iommu_groups");
    match (units, groups) {
        (0, _) => "none seen (no VT-d, or it is off: intel_iommu=on turns it on)".to_owned(),
        (units, groups) => format!("{units} unit(s), {groups} group(s)"),
    }
}

/// How vfio stands on the host.
pub fn vfio() -> String {
    let legacy = Path::new("/dev/vfio/vfio").exists();
    let iommufd = Path::new("/dev/iommu").exists();
    match (legacy, iommufd) {
        (false, false) => "none (no /dev/vfio/vfio and no /dev/iommu)".to_owned(),
        (true, false) => "/dev/vfio/vfio".to_owned(),
        (false, true) => "/dev/iommu".to_owned(),
        (true, true) => "/dev/vfio/vfio and /dev/iommu".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_name_has_an_empty_one() {
        let of = |name: Option<&str>| named(name.map(OsString::from));
        assert_eq!([of(None), of(Some("")), of(Some(" \n"))], ["", "", ""]);
        assert_eq!(of(Some("rack 7\n")), "rack 7");
    }
}
