//! Reasons to skip a cell.

use crate::{
    axes::{Device, Passthrough},
    version::Version,
};

/// Longest command line that every x86 kernel takes (`COMMAND_LINE_SIZE`), in bytes.
pub(crate) const MAX_CMDLINE: usize = 2047;

/// The reason why a cell cannot run with its kernel and QEMU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    /// QEMU is older than any that dmarig supports.
    #[error("QEMU {version} is too old: dmarig needs {oldest} or later")]
    OldQemu {
        /// Its version.
        version: Version,
        /// The oldest version that dmarig supports.
        oldest: Version,
    },
    /// QEMU lacks a device or a property.
    #[error("QEMU {version} ({name}) does not have {what}")]
    Qemu {
        /// Its version.
        version: Version,
        /// Its name or path.
        name: String,
        /// The missing device or property, with a remedy if there is one.
        what: String,
    },
    /// Settings of the virtual IOMMU exclude each other.
    #[error("{0}")]
    Settings(&'static str),
    /// The kernel lacks options.
    #[error("kernel {name} lacks {}", options.join(", "))]
    Kernel {
        /// Its name.
        name: String,
        /// The missing options.
        options: Vec<String>,
    },
    /// The kernel's command line does not fit.
    #[error(transparent)]
    CommandLine(#[from] CommandLineTooLong),
    /// A device that is not an NVMe controller is to be passed through.
    #[error("only an NVMe controller can be passed through, not {0}")]
    Device(Device),
    /// Live mappings without a probe.
    #[error("only a probe can hold live mappings (passthrough=probe)")]
    LiveMappings,
    /// A probe with first-stage tables.
    #[error(
        "QEMU does not forward mappings from first-stage tables, so a probe would reach no memory; use \
         second-stage, or a device of QEMU"
    )]
    FirstStageProbe,
    /// The guest is too small for its live mappings.
    #[error(
        "{mappings} live mappings need {needed} MiB of guest memory, but the guest has {given}"
    )]
    Memory {
        /// Live mappings, of a page each.
        mappings: u32,
        /// Memory that they need, in MiB.
        needed: u64,
        /// Memory of the guest, in MiB.
        given: u32,
    },
    /// A device of the host is to be passed through, but none is named.
    #[error("no device of the host is named: --device host=0000:BB:DD.F")]
    NoHostDevice,
    /// A guest on its own cannot have this passthrough.
    #[error("a guest without an outer guest cannot have passthrough={0}")]
    Passthrough(Passthrough),
}

/// The kernel's command line is longer than every kernel takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the kernel's command line has {bytes} bytes, over {MAX_CMDLINE}")]
pub struct CommandLineTooLong {
    /// Its length, in bytes.
    pub bytes: usize,
}
