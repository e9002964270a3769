//! Whether KVM works here: only a guest that really runs under it proves that.
//!
//! A `/dev/kvm` that opens, and even one that makes virtual machines, says nothing: guests may hang
//! or QEMU abort, as under a hypervisor that lends out a part of what KVM needs.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

use dmarig_model::{
    axes::Accelerator,
    observation::{End, Observation},
    qemu::Qemu,
};
use serde::{Deserialize, Serialize};

use crate::deadlines::Deadlines;

/// Time that a guest gets to reach its agent under KVM: it takes one or two seconds if KVM works.
const DEADLINE: Duration = Duration::from_secs(20);

/// The accelerator for one QEMU on this host, with the evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Names the binary and the boot of the host that the finding holds for.
    key: String,
    /// The accelerator to use; never `Auto`.
    pub accelerator: Accelerator,
    /// The evidence, in one line.
    pub evidence: String,
}

impl Finding {
    /// A finding for `qemu` on this boot of this host.
    #[must_use]
    pub fn new(qemu: &Qemu, accelerator: Accelerator, evidence: String) -> Self {
        Self { key: cache_key(qemu), accelerator, evidence }
    }

    /// Reads the finding of an earlier run, if it holds for this QEMU and this boot.
    #[must_use]
    pub fn load(path: &Path, qemu: &Qemu) -> Option<Self> {
        let finding: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        if finding.key == cache_key(qemu) { Some(finding) } else { None }
    }

    /// Saves the finding for later runs.
    ///
    /// # Errors
    /// The system's error.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        let file = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer(&file, self)?;
        file.persist(path)?;
        Ok(())
    }
}

/// Names the binary, by data that change when it is replaced, and the boot of the host.
fn cache_key(qemu: &Qemu) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let binary = fs::metadata(&qemu.path)
        .map(|meta| format!("{}:{}:{}", meta.ino(), meta.size(), meta.mtime()))
        .unwrap_or_default();
    format!("{} {} {binary} {}", qemu.path, qemu.full_version, boot.trim())
}

/// Why KVM can't work, if that is known without a guest.
#[must_use]
pub fn obstacle(qemu: &Qemu) -> Option<String> {
    obstacle_at(Path::new("/dev/kvm"), qemu)
}

fn obstacle_at(device: &Path, qemu: &Qemu) -> Option<String> {
    if !qemu.accelerators.contains("kvm") {
        return Some(format!("{} is built without KVM", qemu.path));
    }
    match OpenOptions::new().read(true).write(true).open(device).map(drop::<File>) {
        Ok(()) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some(format!("this host has no {}", device.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Some(format!("no permission on {} (the group `kvm` mostly has it)", device.display()))
        }
        Err(error) => Some(format!("{} does not open: {error}", device.display())),
    }
}

/// Deadlines of the guest that is to prove KVM.
#[must_use]
pub fn proof_deadlines() -> Deadlines {
    let end = Duration::from_secs(2);
    Deadlines { end, ..Deadlines::new(Accelerator::Kvm, DEADLINE, DEADLINE, 1.0) }
}

/// Concludes from the observation of an idle guest under KVM whether KVM works.
#[must_use]
pub fn conclude(qemu: &Qemu, observation: &Observation) -> Finding {
    let why = match &observation.end {
        End::Completed => {
            let evidence = "a guest reached its agent under KVM".to_owned();
            return Finding::new(qemu, Accelerator::Kvm, evidence);
        }
        End::TimedOut { after_ms, .. } => {
            format!("a guest under KVM did not reach its agent within {} s", after_ms / 1000)
        }
        End::QemuDied { status, stderr } => {
            let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("");
            format!("QEMU ended with {status} under KVM: {}", last.trim())
        }
        End::Panicked { message } => format!("the guest's kernel panicked under KVM: {message}"),
        End::WentDown { reason } => format!("the guest went down under KVM: {reason}"),
        other => format!("a guest under KVM did not come up: {other:?}"),
    };
    Finding::new(qemu, Accelerator::Tcg, why)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn qemu(accelerators: &[&str]) -> Qemu {
        Qemu {
            name: "q".into(),
            path: "/bin/sh".into(),
            sha256: String::new(),
            version: "7.2".parse().unwrap(),
            full_version: "7.2".into(),
            devices: Default::default(),
            iommu: Default::default(),
            accelerators: accelerators.iter().map(|name| (*name).to_owned()).collect(),
            sandbox: false,
        }
    }

    #[test]
    fn distinguishes_obstacles_to_kvm() {
        let device = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(obstacle_at(device.path(), &qemu(&["kvm"])), None);
        let missing = obstacle_at(Path::new("/nonexistent/kvm"), &qemu(&["kvm"])).unwrap();
        assert!(missing.contains("has no /nonexistent/kvm"), "{missing}");
        assert!(obstacle_at(device.path(), &qemu(&["tcg"])).unwrap().contains("built without KVM"));
        fs::set_permissions(device.path(), fs::Permissions::from_mode(0o000)).unwrap();
        // Root may open anything: only an ordinary user can be refused.
        if !rustix::process::geteuid().is_root() {
            let refused = obstacle_at(device.path(), &qemu(&["kvm"])).unwrap();
            assert!(refused.contains("no permission"), "{refused}");
        }
    }

    #[test]
    fn a_finding_holds_only_for_its_binary() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/finding.json");
        let finding = Finding::new(&qemu(&["kvm"]), Accelerator::Tcg, "because".into());
        finding.save(&path).unwrap();
        assert_eq!(Finding::load(&path, &qemu(&["kvm"])), Some(finding));
        let other = Qemu { path: "/bin/ls".into(), ..qemu(&["kvm"]) };
        assert_eq!(Finding::load(&path, &other), None);
    }
}
