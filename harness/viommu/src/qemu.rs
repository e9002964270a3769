//! Facts about a virtual IOMMU's device in QEMU.

/// Facts that do not depend on settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QemuFacts {
    /// The device's type.
    pub device_type: &'static str,
    /// Properties that prove the mode, under the names of all QEMU versions.
    pub proving_properties: &'static [&'static str],
    /// Texts of QEMU's refusal to pass a device through without caching mode; none if it never
    /// refuses.
    pub passthrough_refusals: &'static [&'static str],
}

/// Why a QEMU cannot be configured as requested.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// It does not have this.
    #[error("missing {0}")]
    Missing(&'static str),
    /// These settings exclude each other.
    #[error("{0}")]
    Conflict(&'static str),
}
