//! `run.json`: what a run is.

use serde::{Deserialize, Serialize};

use crate::rerun::RunOptions;

/// Name of the file.
pub(crate) const FILE: &str = "run.json";

/// What a run is, written before its first cell starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunMeta {
    /// [`RECORD_SCHEMA`](crate::RECORD_SCHEMA) of the writer.
    pub schema: u32,
    /// The run's id, also its directory's name.
    pub id: String,
    /// Seconds since 1970.
    pub started: i64,
    /// Version of dmarig.
    pub dmarig: String,
    /// The command line that started it.
    pub command: Vec<String>,
    /// The host.
    pub host: HostFacts,
    /// The case files, as they were.
    pub cases: Vec<CaseText>,
    /// Which rules judge: a hash of the standard table; empty in records of old.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rules: String,
    /// Name of the kernel that the history sets the others in relation to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Cells that are to run; not known in records of old, nor where it is decided on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<u32>,
    /// The options of `dmarig run`; absent for other commands and in records of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<RunOptions>,
}

/// The host that a run was made on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// `uname -r`.
    pub kernel: String,
    /// The CPU's model name.
    pub cpu: String,
    /// CPUs online.
    pub cpus: u32,
    /// Memory, in KiB.
    pub memory_kib: u64,
    /// The three load averages at the start.
    pub load: String,
    /// Version of the CPU's microcode, as the kernel says it; empty where it does not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub microcode: String,
    /// Frequency governor of the first CPU; empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub governor: String,
    /// Simultaneous multithreading, in the words of `/sys/devices/system/cpu/smt/control`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub smt: String,
    /// What its user calls it; empty where that was not said. All else is the same on two machines alike.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub machine: String,
}

impl HostFacts {
    /// Memory in GiB, rounded: some KiB of it differ from boot to boot.
    #[must_use]
    pub const fn memory_gib(&self) -> u64 {
        const KIB_PER_GIB: u64 = 1 << 20;
        self.memory_kib.saturating_add(KIB_PER_GIB / 2) / KIB_PER_GIB
    }
}

/// A case file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseText {
    /// Where it was read.
    pub file: String,
    /// What stood in it.
    pub text: String,
}

/// The rules that this dmarig judges by: a hash of the standard table, with the version.
#[must_use]
pub fn rules() -> String {
    let table = dmarig_digest::short_id([dmarig_model::expect::STANDARD_TEXT], 12);
    format!("{}+{table}", env!("CARGO_PKG_VERSION"))
}
