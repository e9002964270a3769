//! Fixed parts of messages, as they are on the socket.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

/// Derives what reading and writing need.
macro_rules! layout {
    ($($(#[$doc:meta])* struct $name:ident { $($field:ident: $kind:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub(super) struct $name { $(pub(super) $field: $kind),* }
    )*};
}

layout! {
    /// `VFIO_USER_VERSION`; capabilities as JSON follow.
    struct Version { major: U16, minor: U16 }
    /// `VFIO_USER_DMA_MAP`
    struct DmaMap { argsz: U32, flags: U32, offset: U64, iova: U64, size: U64 }
    /// `VFIO_USER_DMA_UNMAP`, and the reply to it.
    struct DmaUnmap { argsz: U32, flags: U32, iova: U64, size: U64 }
    /// What a request for information on a region or a kind of interrupts begins with.
    struct InfoRequest { argsz: U32, flags: U32, index: U32 }
    /// `vfio_device_info`
    struct DeviceInfo { argsz: U32, flags: U32, regions: U32, irqs: U32 }
    /// `vfio_region_info`
    struct RegionInfo {
        argsz: U32,
        flags: U32,
        index: U32,
        capabilities: U32,
        size: U64,
        offset: U64,
    }
    /// `vfio_irq_info`
    struct IrqInfo { argsz: U32, flags: U32, index: U32, count: U32 }
    /// `vfio_irq_set`; its data follows.
    struct SetIrqs { argsz: U32, flags: U32, index: U32, start: U32, count: U32 }
    /// `VFIO_USER_REGION_READ` and `_WRITE`; data follows.
    struct RegionAccess { offset: U64, region: U32, count: U32 }
    /// `VFIO_USER_DMA_READ` and `_WRITE`; data follows.
    struct DmaAccess { iova: U64, count: U64 }
}
