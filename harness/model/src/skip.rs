//! Reasons to skip a cell.

use crate::{
    axes::{Device, Passthrough},
    plan::CommandLineTooLong,
    qemu::OLDEST,
    version::Version,
};

/// The reason why a cell cannot run with its kernel and QEMU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    /// QEMU is older than any that dmarig supports.
    #[error("QEMU {version} is too old: dmarig needs {OLDEST} or later")]
    OldQemu {
        /// Its version.
        version: Version,
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
