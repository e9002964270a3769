//! What a number depends on besides the kernel, and which kernel it was of.

use dmarig_digest::short_id;
use dmarig_model::{kernel::KernelBuild, observation::Observation, text::shown};
use serde::{Deserialize, Serialize};

use crate::meta::HostFacts;

/// Machine and hypervisor that a cell ran on, as far as numbers depend on them. What a record does not
/// say is an empty text. Machines that are alike in all of it are one environment, unless they have names.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Environment {
    /// Model name of the CPU.
    pub cpu: String,
    /// Version of its microcode.
    pub microcode: String,
    /// CPUs online.
    pub cpus: u32,
    /// Memory in GiB, rounded: some KiB of it differ from boot to boot.
    pub memory_gib: u64,
    /// Simultaneous multithreading, in the kernel's words: `on`, `off`, `notsupported`, ...
    pub smt: String,
    /// Frequency governor of the first CPU.
    pub governor: String,
    /// The host's `uname -r`.
    pub host_kernel: String,
    /// Version of QEMU, as it says itself.
    pub qemu_version: String,
    /// SHA-256 of QEMU's binary.
    pub qemu_sha256: String,
    /// What ran the guest's instructions.
    pub accelerator: String,
    /// The machine's name, where it was given one (`DMARIG_MACHINE`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub machine: String,
}

impl Environment {
    /// Of a cell.
    #[must_use]
    pub fn of(host: &HostFacts, seen: &Observation) -> Self {
        Self {
            cpu: shown(&host.cpu),
            microcode: shown(&host.microcode),
            cpus: host.cpus,
            memory_gib: host.memory_gib(),
            smt: shown(&host.smt),
            governor: shown(&host.governor),
            host_kernel: shown(&host.kernel),
            qemu_version: shown(&seen.setup.qemu_version),
            qemu_sha256: shown(&seen.setup.qemu_sha256),
            accelerator: seen.setup.accelerator.to_string(),
            machine: shown(&host.machine),
        }
    }

    /// A hash of all of it: 16 hexadecimal digits. Numbers of different fingerprints never stand in
    /// one series.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let parts = self.parts();
        short_id(parts.iter().map(|(_, value)| value.as_str()), 16)
    }

    /// What stays of it where a machine is kept up to date, and how guests run there. `None` where it is
    /// not known: that tells no machine. Machines alike in all of it are told apart by their names alone.
    #[must_use]
    pub fn machine(&self) -> Option<(&str, &str, u32, u64, &str)> {
        let Self { machine, cpu, cpus, memory_gib, accelerator, .. } = self;
        let known = !(machine.is_empty() && cpu.is_empty());
        known.then_some((machine, cpu, *cpus, *memory_gib, accelerator))
    }

    /// What another one has that this one has not, for people: `host kernel 6.12.1, qemu 10.0.2`.
    #[must_use]
    pub fn otherwise(&self, other: &Self) -> String {
        let pairs = self.parts().into_iter().zip(other.parts());
        let differing = pairs.filter(|(own, others)| own != others).map(|(_, others)| others);
        let mut told: Vec<(&str, String)> = differing.collect();
        // A hash tells nothing beside another version.
        if told.iter().any(|(name, _)| *name == "qemu") {
            told.retain(|(name, _)| *name != "qemu sha256");
        }
        let word = |(name, value): &(&str, String)| match *name {
            _ if value.is_empty() => format!("{name} not told"),
            "qemu sha256" => format!("{name} {}", value.chars().take(12).collect::<String>()),
            _ => format!("{name} {value}"),
        };
        told.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    /// Each part with its name, for people. The machine's name is one only where it has one: without it,
    /// fingerprints are what they were before there were names.
    #[must_use]
    pub fn parts(&self) -> Vec<(&'static str, String)> {
        let mut parts = vec![
            ("cpu", self.cpu.clone()),
            ("microcode", self.microcode.clone()),
            ("cpus", self.cpus.to_string()),
            ("memory in GiB", self.memory_gib.to_string()),
            ("smt", self.smt.clone()),
            ("governor", self.governor.clone()),
            ("host kernel", self.host_kernel.clone()),
            ("qemu", self.qemu_version.clone()),
            ("qemu sha256", self.qemu_sha256.clone()),
            ("accelerator", self.accelerator.clone()),
        ];
        if !self.machine.is_empty() {
            parts.push(("machine", self.machine.clone()));
        }
        parts
    }
}

/// The kernel that was booted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// SHA-256 of the image; empty of a cell that was never planned.
    pub image_sha256: String,
    /// How it is entered: `pvh` or `bzimage`.
    pub boot: String,
    /// Packages that it came from, each `name version sha256`.
    pub packages: Vec<String>,
    /// What it was built from.
    #[serde(default)]
    pub built: KernelBuild,
}

impl Build {
    /// Of a cell.
    #[must_use]
    pub fn of(seen: &Observation) -> Self {
        let setup = &seen.setup;
        Self {
            image_sha256: shown(&setup.kernel_sha256),
            boot: shown(&setup.boot),
            packages: setup.packages.iter().map(|package| shown(package)).collect(),
            built: KernelBuild {
                source: shown(&setup.build.source),
                commit: shown(&setup.build.commit),
                edits: shown(&setup.build.edits),
                config_sha256: shown(&setup.build.config_sha256),
                compiler: shown(&setup.build.compiler),
            },
        }
    }

    /// A hash of all of it: 16 hexadecimal digits.
    #[must_use]
    pub fn identity(&self) -> String {
        let KernelBuild { source, commit, edits, config_sha256, compiler } = &self.built;
        let parts =
            [&self.image_sha256, &self.boot, source, commit, edits, config_sha256, compiler];
        short_id(parts.into_iter().chain(&self.packages).map(String::as_str), 16)
    }

    /// The shortest name that tells it from others: a commit, a package's version, or a hash.
    #[must_use]
    pub fn short(&self) -> String {
        let version = self.packages.first().and_then(|package| package.split(' ').nth(1));
        match (self.built.commit.as_str(), version, self.image_sha256.as_str()) {
            ("", None, "") => "-".to_owned(),
            ("", None, sha256) => sha256.chars().take(12).collect(),
            ("", Some(version), _) => version.to_owned(),
            (commit, ..) => commit.chars().take(12).collect(),
        }
    }
}
