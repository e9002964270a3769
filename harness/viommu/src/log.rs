//! What a virtual IOMMU's driver writes to the kernel log.

use crate::version::VersionRange;

/// A spelling of the warning that batching is off because the IOMMU is virtual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarningSpelling {
    /// The sentence without the driver's prefix.
    pub text: String,
    /// The kernels that print it.
    pub kernels: VersionRange,
}

/// What a line says about the mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFact {
    /// The warning that batching is off because the IOMMU is virtual.
    Warning,
    /// The command line turned the IOMMU on.
    Enabled,
    /// The driver has started.
    Started,
    /// The capability registers of a unit.
    UnitRegisters {
        /// The unit's number, as printed.
        unit: String,
        /// Capability register.
        cap: Option<u64>,
        /// Extended capability register.
        ecap: Option<u64>,
    },
    /// How a unit takes invalidations.
    UnitInvalidation {
        /// The unit's number, as printed.
        unit: String,
        /// `Queued` or `Register based`.
        method: String,
    },
    /// The mode of interrupt remapping.
    InterruptRemapping(String),
}

/// What a line says about the driver's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootFact {
    /// The firmware describes the IOMMU; the OEM in its table.
    FirmwareTable(String),
    /// The driver has started. In contrast to [`LogFact::Started`] this also counts in a line that
    /// begins with another message.
    Started,
    /// The method of invalidation was chosen.
    InvalidationChosen,
    /// The command line turned the IOMMU off.
    Disabled,
    /// The platform requested the IOMMU.
    PlatformOptIn,
    /// The driver's own word for the strict policy was read.
    StrictOption,
    /// Scalable mode was requested.
    ScalableRequested,
    /// Scalable mode is off.
    ScalableOff,
    /// A rate limit suppressed this number of fault lines.
    FaultsSuppressed(u64),
}

/// A DMA or interrupt remapping fault as a kernel logged it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DmaFault {
    /// The access that failed.
    pub access: Access,
    /// The device, as printed.
    pub device: String,
    /// PASID, if one was given.
    pub pasid: Option<u32>,
    /// The address, or for an interrupt its index.
    pub address: u64,
    /// The number of the reason.
    pub reason: u8,
    /// The kernel's text for the reason, not escaped.
    pub text: String,
}

/// What a device did when it faulted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A DMA read.
    Read,
    /// A DMA write.
    Write,
    /// An interrupt.
    Interrupt,
}

impl Access {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Interrupt => "interrupt",
        }
    }
}

/// The kind of a line that a kernel log must not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingKind {
    /// A DMA or interrupt remapping fault.
    Fault,
    /// An error of the invalidation queue.
    InvalidationError,
    /// Another failure of the driver.
    DriverError,
}

/// Patterns of one kind, as regular expressions on a line without its time stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindingPattern {
    /// The kind.
    pub kind: FindingKind,
    /// Expressions of which one must match.
    pub matches: Vec<String>,
}

/// What a fault reason means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultReason {
    /// What the hardware found.
    pub found: &'static str,
    /// The usual cause.
    pub usual_cause: &'static str,
    /// Whether nothing was mapped at the address.
    pub is_unmapped: bool,
}

/// Sentences for a person who reads a report on a kernel log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// Lines of the driver stand behind a prefix that is not known.
    pub unknown_prefix: &'static str,
    /// The log says that the IOMMU is off.
    pub disabled: &'static str,
    /// The firmware does not describe the IOMMU.
    pub no_firmware_table: &'static str,
    /// The firmware describes the IOMMU, but it is off.
    pub firmware_table_unused: &'static str,
    /// The IOMMU was requested, and the driver did not start.
    pub not_started: &'static str,
    /// How to undo the words that turn the IOMMU off.
    pub remove_off_words: &'static str,
    /// How to turn the IOMMU on if the firmware describes it.
    pub turn_on: &'static str,
    /// How to turn the IOMMU on in the firmware.
    pub turn_on_in_firmware: &'static str,
    /// The machine has an IOMMU of another vendor.
    pub other_vendor: &'static str,
    /// The policy is strict because of the driver's own word.
    pub strict_by_option: &'static str,
    /// The warning is missing: how to get the strict policy.
    pub use_strict: &'static str,
    /// The driver ignores `iommu.strict`; `{since}` stands for the first kernel that follows it.
    pub ignores_iommu_strict: &'static str,
}
