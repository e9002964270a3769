//! The mode of a virtual IOMMU: as it is requested, as QEMU reports it, and as the registers have it.

use serde::{Deserialize, Serialize};

/// How the kernel is asked to invalidate the IOTLB after an unmap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Unmaps wait in a flush queue.
    Lazy,
    /// Each unmap is flushed before its IOVA can be used again.
    Strict,
    /// Devices are mapped one to one.
    Passthrough,
}

/// The kind of page tables that a virtual IOMMU is made to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageTables {
    /// Those of legacy mode, without scalable mode.
    Legacy,
    /// Second-stage tables of scalable mode.
    SecondStage,
    /// First-stage tables of scalable mode.
    FirstStage,
}

/// Settings that a cell requests from its virtual IOMMU and from the kernel's driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Whether the IOMMU reports caching mode.
    pub caching_mode: bool,
    /// Whether it offers pass-through translation.
    pub pass_through: bool,
    /// Whether it offers a device IOTLB (ATS).
    pub device_iotlb: bool,
    /// The page tables that it offers.
    pub page_tables: PageTables,
    /// Width of addresses, in bits; `None` for QEMU's default.
    pub address_bits: Option<u8>,
    /// The policy that the kernel is asked for.
    pub policy: Policy,
    /// Whether each page must be a mapping of its own, without superpages.
    pub single_pages: bool,
}

/// The mode as QEMU's properties report it, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedMode {
    /// `on` or `off`.
    pub caching_mode: String,
    /// `on` or `off`.
    pub pass_through: String,
    /// `on` or `off`.
    pub device_iotlb: String,
    /// The page tables.
    pub page_tables: PageTables,
    /// Width of addresses, in bits; `None` if no property has it.
    pub address_bits: Option<String>,
}

/// The capability registers as they were read. A virtual IOMMU with other registers puts those that
/// prove its mode here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    /// Capability register.
    pub cap: u64,
    /// Extended capability register.
    pub ecap: u64,
}

/// What capability registers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether caching mode is on.
    pub caching_mode: bool,
    /// Whether it offers pass-through translation.
    pub pass_through: bool,
    /// Whether it offers a device IOTLB.
    pub device_iotlb: bool,
    /// The page tables that it offers.
    pub page_tables: PageTables,
    /// Width of guest addresses, in bits.
    pub address_bits: u64,
    /// Whether it can invalidate by page.
    pub page_selective: bool,
    /// Whether it takes invalidations from a queue.
    pub queued_invalidation: bool,
    /// Whether it remaps interrupts.
    pub interrupt_remapping: bool,
}
