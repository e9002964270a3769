//! What a measured number depends on: the environment, and the build of the kernel.

use dmarig_digest::short_id;
use dmarig_model::{kernel::KernelBuild, observation::Observation, text::shown};
use serde::{Deserialize, Serialize};

use crate::meta::HostFacts;

/// The machine and the hypervisor of a cell, as far as numbers depend on them. Unknown texts are
/// empty. Equal machines are one environment, unless they have different names.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Environment {
    /// Model name of the CPU.
    pub cpu: String,
    /// Version of its microcode.
    pub microcode: String,
    /// CPUs online.
    pub cpus: u32,
    /// Memory in GiB, rounded, since the exact size differs by some KiB between boots.
    pub memory_gib: u64,
    /// Simultaneous multithreading as reported by the kernel: `on`, `off`, `notsupported`, ...
    pub smt: String,
    /// Frequency governor of the first CPU.
    pub governor: String,
    /// The host's `uname -r`.
    pub host_kernel: String,
    /// Version of QEMU as it reports it.
    pub qemu_version: String,
    /// SHA-256 of QEMU's binary.
    pub qemu_sha256: String,
    /// The accelerator: `kvm` or `tcg`.
    pub accelerator: String,
    /// Name of the machine (`DMARIG_MACHINE`); empty without one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub machine: String,
}

impl Environment {
    /// The environment of a cell.
    #[must_use]
    pub fn new(host: &HostFacts, observation: &Observation) -> Self {
        Self {
            cpu: shown(&host.cpu),
            microcode: shown(&host.microcode),
            cpus: host.cpus,
            memory_gib: host.memory_gib(),
            smt: shown(&host.smt),
            governor: shown(&host.governor),
            host_kernel: shown(&host.kernel),
            qemu_version: shown(&observation.setup.qemu_version),
            qemu_sha256: shown(&observation.setup.qemu_sha256),
            accelerator: observation.setup.accelerator.to_string(),
            machine: shown(&host.machine),
        }
    }

    /// A hash of the environment: 16 hexadecimal digits. A series has numbers of one fingerprint
    /// only.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let parts = self.parts();
        short_id(parts.iter().map(|(_, value)| value.as_str()), 16)
    }

    /// The part that identifies the machine and stays the same across updates: name, CPU, number of
    /// CPUs, memory and accelerator. `None` if neither name nor CPU is known. Equal machines differ
    /// by name only.
    #[must_use]
    pub fn machine(&self) -> Option<(&str, &str, u32, u64, &str)> {
        let Self { machine, cpu, cpus, memory_gib, accelerator, .. } = self;
        if machine.is_empty() && cpu.is_empty() {
            return None;
        }
        Some((machine, cpu, *cpus, *memory_gib, accelerator))
    }

    /// Describes the parts of another environment that differ from this one: `host kernel 6.12.1,
    /// qemu 10.0.2`.
    #[must_use]
    pub fn differences(&self, other: &Self) -> String {
        let pairs = self.parts().into_iter().zip(other.parts());
        let differing = pairs.filter(|(own, others)| own != others).map(|(_, others)| others);
        let mut differences: Vec<(&str, String)> = differing.collect();
        // The hash is redundant if the version differs.
        if differences.iter().any(|(name, _)| *name == "qemu") {
            differences.retain(|(name, _)| *name != "qemu sha256");
        }
        let word = |(name, value): &(&str, String)| match *name {
            _ if value.is_empty() => format!("{name} unknown"),
            "qemu sha256" => format!("{name} {}", value.chars().take(12).collect::<String>()),
            _ => format!("{name} {value}"),
        };
        differences.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    /// Each part with its name. An empty name of the machine is left out, so that fingerprints stay
    /// the same as before machines had names.
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

/// The build of a kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// SHA-256 of the image; empty for a cell that was never planned.
    pub image_sha256: String,
    /// Boot protocol: `pvh` or `bzimage`.
    pub boot: String,
    /// Its packages, each as `name version sha256`.
    pub packages: Vec<String>,
    /// Source and configuration, if dmarig built it.
    #[serde(default)]
    pub built: KernelBuild,
}

impl Build {
    /// The build of the kernel in a cell.
    #[must_use]
    pub fn new(observation: &Observation) -> Self {
        let setup = &observation.setup;
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

    /// A hash of the build: 16 hexadecimal digits.
    #[must_use]
    pub fn identity(&self) -> String {
        let KernelBuild { source, commit, edits, config_sha256, compiler } = &self.built;
        let parts =
            [&self.image_sha256, &self.boot, source, commit, edits, config_sha256, compiler];
        short_id(parts.into_iter().chain(&self.packages).map(String::as_str), 16)
    }

    /// A short name of the build: the commit, the version of the package, or a part of the image's
    /// hash.
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
