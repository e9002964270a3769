//! `run.json`: the description of a run.

use serde::{Deserialize, Serialize};

use crate::rerun::RunOptions;

/// Name of the file.
pub(crate) const FILE: &str = "run.json";

/// The description of a run, written before its first cell starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunMeta {
    /// [`RECORD_SCHEMA`](crate::RECORD_SCHEMA) of the writer.
    pub schema: u32,
    /// Id, and name of the directory.
    pub id: String,
    /// Seconds since 1970.
    pub started: i64,
    /// Version of dmarig.
    pub dmarig: String,
    /// The command line that started it.
    pub command: Vec<String>,
    /// The host.
    pub host: HostFacts,
    /// The case files.
    pub cases: Vec<CaseText>,
    /// The rules that judge: see [`rules`]; empty in old records.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rules: String,
    /// Name of the reference kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Number of planned cells; absent in old records, and if the number depends on results.
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
    /// Version of the CPU's microcode; empty if the kernel does not report it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub microcode: String,
    /// Frequency governor of the first CPU; empty if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub governor: String,
    /// Simultaneous multithreading: the contents of `/sys/devices/system/cpu/smt/control`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub smt: String,
    /// Name of the machine, which distinguishes equal machines; empty without one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub machine: String,
}

impl HostFacts {
    /// Memory in GiB, rounded, since the exact size differs by some KiB between boots.
    #[must_use]
    pub const fn memory_gib(&self) -> u64 {
        const KIB_PER_GIB: u64 = 1 << 20;
        self.memory_kib.saturating_add(KIB_PER_GIB / 2) / KIB_PER_GIB
    }
}

/// A case file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseText {
    /// Path of the file.
    pub file: String,
    /// Its contents.
    pub text: String,
}

/// Identifies the rules by which this version judges: its number, and a hash of the standard table.
#[must_use]
pub fn rules() -> String {
    let table = dmarig_digest::short_id([dmarig_model::expect::STANDARD_TEXT], 12);
    format!("{}+{table}", env!("CARGO_PKG_VERSION"))
}
