//! Events of a virtual IOMMU in QEMU's trace.

/// Names of trace events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceFacts {
    /// A rare event of the guest's start. QEMU opens its log only if an event is enabled when it
    /// starts.
    pub first_event: &'static str,
    /// Events that report a fault.
    pub fault_events: &'static [&'static str],
}

/// The space of addresses that an invalidation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressSpace {
    /// The domain's number.
    pub domain: u16,
    /// The PASID, for an invalidation that names one.
    pub pasid: Option<u32>,
}

/// The pages of a page-selective invalidation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageRange {
    /// The first address.
    pub address: u64,
    /// log2 of the number of pages.
    pub mask: u8,
}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceEvent<'a> {
    /// An invalidation of some pages.
    PageSelective(AddressSpace, PageRange),
    /// An invalidation of some pages that cannot be read from the line.
    UnknownPages,
    /// An invalidation of a whole domain or PASID.
    DomainSelective(AddressSpace),
    /// An invalidation of everything.
    Global,
    /// A wait descriptor, or another command that waits for those before it.
    Wait,
    /// An invalidation of a device's own IOTLB.
    DeviceIotlb,
    /// A table level that a walk of a shadowed page table visits.
    WalkLevel,
    /// A leaf entry that such a walk visits.
    WalkEntry,
    /// A leaf entry that has not changed since the last walk.
    WalkUnchanged,
    /// The unmapping of a whole address space.
    UnmapWhole,
    /// A DMA fault, with the rest of the line.
    Fault(&'a [u8]),
    /// A command that another event reports, too.
    Repeated,
}
