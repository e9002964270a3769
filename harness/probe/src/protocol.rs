//! The messages of vfio-user, as bytes and as values. Pure: no socket, no state.
//!
//! Source: QEMU's `docs/interop/vfio-user.rst`. Numbers are little-endian, as they are on every
//! host that this runs on. Every message is checked against its own lengths before it is used.

mod layout;
mod writer;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32},
};

pub use writer::Writer;

/// Bytes of a message's header.
pub const HEADER_BYTES: usize = size_of::<Header>();
/// Most bytes of data in one region or DMA message, in both directions.
pub const MAX_DATA_BYTES: usize = 1 << 20;
/// Longest message that is taken, in bytes: the most data, behind the longest fixed part.
pub const MAX_MESSAGE_BYTES: usize = MAX_DATA_BYTES + 64;
/// Most file descriptors with one message (what QEMU's channel can carry).
pub const MAX_FDS: usize = 16;

/// Flag of a header: this answers a command.
const REPLY: u32 = 1;
const TYPE_MASK: u32 = 0xf;
const NO_REPLY: u32 = 1 << 4;
const ERROR: u32 = 1 << 5;

/// Numbers of commands.
pub mod command {
    /// Negotiation of version and capabilities.
    pub const VERSION: u16 = 1;
    /// A range of I/O virtual addresses becomes valid.
    pub const DMA_MAP: u16 = 2;
    /// A range ceases to be valid.
    pub const DMA_UNMAP: u16 = 3;
    /// How many regions and interrupts there are.
    pub const DEVICE_INFO: u16 = 4;
    /// One region.
    pub const REGION_INFO: u16 = 5;
    /// One kind of interrupt.
    pub const IRQ_INFO: u16 = 7;
    /// How interrupts are signalled.
    pub const SET_IRQS: u16 = 8;
    /// A load from a region.
    pub const REGION_READ: u16 = 9;
    /// A store to a region.
    pub const REGION_WRITE: u16 = 10;
    /// The server reads memory of the client.
    pub const DMA_READ: u16 = 11;
    /// The server writes memory of the client.
    pub const DMA_WRITE: u16 = 12;
    /// The device starts anew.
    pub const RESET: u16 = 13;
}

/// A message's header.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// Identifier of a command, repeated in its reply.
    pub id: U16,
    /// One of [`command`].
    pub command: U16,
    /// Bytes of the whole message.
    pub size: U32,
    /// Type of the message, and whether a reply is wanted or reports an error.
    pub flags: U32,
    /// An errno, in a reply that reports an error.
    pub error: U32,
}

impl Header {
    /// The header of a command.
    #[must_use]
    pub fn command(id: u16, command: u16, size: usize) -> Self {
        let (flags, error) = (U32::ZERO, U32::ZERO);
        Self { id: id.into(), command: command.into(), size: U32::new(size as u32), flags, error }
    }

    /// The header of a reply of `size` bytes to this command.
    #[must_use]
    pub fn reply(&self, size: usize) -> Self {
        let (size, flags) = (U32::new(size as u32), U32::new(REPLY));
        Self { size, flags, error: U32::ZERO, ..*self }
    }

    /// The header of a reply that reports an error. QEMU takes an errno of 0 for success, so it is
    /// never 0.
    #[must_use]
    pub fn failure(&self, error: Errno) -> Self {
        let error = u32::try_from(error.raw_os_error()).unwrap_or(0).max(1);
        let (size, flags) = (U32::new(HEADER_BYTES as u32), U32::new(REPLY | ERROR));
        Self { size, flags, error: error.into(), ..*self }
    }

    /// Reads a header.
    ///
    /// # Errors
    /// Where its size can't be true or its type is unknown: the stream can't be trusted any more.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Errno> {
        let header: Self = zerocopy::transmute!(*bytes);
        if !(HEADER_BYTES..=MAX_MESSAGE_BYTES).contains(&header.message_bytes()) {
            return Err(Errno::MSGSIZE);
        }
        if header.flags.get() & TYPE_MASK > REPLY {
            return Err(Errno::INVAL);
        }
        Ok(header)
    }

    /// Bytes of the whole message.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        self.size.get() as usize
    }

    /// Whether it is a reply to a command of the server.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        self.flags.get() & TYPE_MASK == REPLY
    }

    /// Whether nobody waits for a reply.
    #[must_use]
    pub fn wants_no_reply(&self) -> bool {
        self.flags.get() & NO_REPLY != 0
    }

    /// The errno of a reply that reports an error.
    #[must_use]
    pub fn failed(&self) -> Option<Errno> {
        if self.flags.get() & ERROR == 0 {
            return None;
        }
        Some(Errno::from_raw_os_error(self.error.get().min(4095) as i32))
    }
}

/// A command of the client, without its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// Version and capabilities that the client has.
    Version(Version),
    /// A range becomes valid.
    DmaMap(DmaMap),
    /// A range ceases to be valid.
    DmaUnmap(DmaUnmap),
    /// How many regions and interrupts there are.
    DeviceInfo,
    /// What a region is like.
    RegionInfo {
        /// Its number.
        index: u32,
    },
    /// What a kind of interrupts is like.
    IrqInfo {
        /// Its number.
        index: u32,
    },
    /// How interrupts are signalled.
    SetIrqs(SetIrqs<'a>),
    /// A load.
    RegionRead {
        /// First byte.
        offset: u64,
        /// Number of the region.
        region: u32,
        /// Bytes.
        count: u32,
    },
    /// A store.
    RegionWrite {
        /// First byte.
        offset: u64,
        /// Number of the region.
        region: u32,
        /// The bytes.
        data: &'a [u8],
    },
    /// The device starts anew.
    Reset,
}

/// Version and capabilities of one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Versions with another one don't understand each other.
    pub major: u16,
    /// The less is used.
    pub minor: u16,
    /// Most bytes of data in a message.
    pub max_data_bytes: u64,
}

/// Memory that the device may use from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaMap {
    /// Whether the device may read it.
    pub read: bool,
    /// Whether the device may write it.
    pub write: bool,
    /// Where it begins in the file that comes along.
    pub offset: u64,
    /// First I/O virtual address.
    pub iova: u64,
    /// Bytes.
    pub size: u64,
}

/// Memory that the device may no longer use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaUnmap {
    /// Everything, rather than the range.
    pub all: bool,
    /// First I/O virtual address.
    pub iova: u64,
    /// Bytes.
    pub size: u64,
}

/// A change to a range of interrupts of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetIrqs<'a> {
    /// What to do.
    pub action: IrqAction,
    /// With which ones of the range.
    pub data: IrqData<'a>,
    /// The kind.
    pub index: u32,
    /// First of the range.
    pub start: u32,
    /// How many; 0 with [`IrqData::None`] is all of the kind.
    pub count: u32,
}

/// What is done with interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IrqAction {
    /// They are held back.
    Mask,
    /// They are let go.
    Unmask,
    /// They are raised, or bound to what raises them.
    Trigger,
}

/// Which interrupts of a range are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IrqData<'a> {
    /// All.
    None,
    /// Those whose byte isn't zero.
    Bool(&'a [u8]),
    /// Each is bound to a file descriptor that comes along, or loses its own where none comes.
    EventFd,
}

const UNMAP_ALL: u32 = 1 << 1;

/// Reads a command of the client.
///
/// # Errors
/// The errno to answer with: `ENOSYS` for a command that isn't known, otherwise `EINVAL` or the
/// like for one that contradicts itself.
pub fn decode<'a>(header: &Header, body: &'a [u8]) -> Result<Command<'a>, Errno> {
    Ok(match header.command.get() {
        command::VERSION => Command::Version(version(body)?),
        command::DMA_MAP => Command::DmaMap(dma_map(body)?),
        command::DMA_UNMAP => Command::DmaUnmap(dma_unmap(body)?),
        command::DEVICE_INFO => {
            let (argsz, _) = split(body)?;
            check_argsz::<layout::DeviceInfo>(*argsz)?;
            Command::DeviceInfo
        }
        command::REGION_INFO => {
            let (request, _) = split::<layout::InfoRequest>(body)?;
            check_argsz::<layout::RegionInfo>(request.argsz)?;
            Command::RegionInfo { index: request.index.get() }
        }
        command::IRQ_INFO => {
            let (request, _) = split::<layout::InfoRequest>(body)?;
            check_argsz::<layout::IrqInfo>(request.argsz)?;
            Command::IrqInfo { index: request.index.get() }
        }
        command::SET_IRQS => Command::SetIrqs(set_irqs(body)?),
        command::REGION_READ => {
            let (access, _) = split::<layout::RegionAccess>(body)?;
            let count = access.count.get();
            if count as usize > MAX_DATA_BYTES {
                return Err(Errno::TOOBIG);
            }
            Command::RegionRead { offset: access.offset.get(), region: access.region.get(), count }
        }
        command::REGION_WRITE => {
            let (access, data) = split::<layout::RegionAccess>(body)?;
            if access.count.get() as usize != data.len() {
                return Err(Errno::INVAL);
            }
            Command::RegionWrite { offset: access.offset.get(), region: access.region.get(), data }
        }
        command::RESET => Command::Reset,
        _ => return Err(Errno::NOSYS),
    })
}

fn version(body: &[u8]) -> Result<Version, Errno> {
    let (version, text) = split::<layout::Version>(body)?;
    let mut max_data_bytes = MAX_DATA_BYTES as u64;
    if let Some((end, text)) = text.split_last() {
        if *end != 0 {
            return Err(Errno::INVAL);
        }
        let theirs: Capabilities = serde_json::from_slice(text).map_err(|_| Errno::INVAL)?;
        max_data_bytes = theirs.capabilities.max_data_xfer_size.unwrap_or(max_data_bytes);
    }
    Ok(Version { major: version.major.get(), minor: version.minor.get(), max_data_bytes })
}

fn dma_map(body: &[u8]) -> Result<DmaMap, Errno> {
    let (map, _) = split::<layout::DmaMap>(body)?;
    check_argsz::<layout::DmaMap>(map.argsz)?;
    let flags = map.flags.get();
    if flags & !3 != 0 {
        return Err(Errno::INVAL);
    }
    Ok(DmaMap {
        read: flags & 1 != 0,
        write: flags & 2 != 0,
        offset: map.offset.get(),
        iova: map.iova.get(),
        size: map.size.get(),
    })
}

fn dma_unmap(body: &[u8]) -> Result<DmaUnmap, Errno> {
    let (unmap, _) = split::<layout::DmaUnmap>(body)?;
    check_argsz::<layout::DmaUnmap>(unmap.argsz)?;
    let (flags, iova, size) = (unmap.flags.get(), unmap.iova.get(), unmap.size.get());
    let all = flags & UNMAP_ALL != 0;
    // There is no dirty page tracking; with "all" there is no range.
    if flags & !UNMAP_ALL != 0 || (all && (iova, size) != (0, 0)) {
        return Err(Errno::INVAL);
    }
    Ok(DmaUnmap { all, iova, size })
}

fn set_irqs(body: &[u8]) -> Result<SetIrqs<'_>, Errno> {
    let (set, data) = split::<layout::SetIrqs>(body)?;
    check_argsz::<layout::SetIrqs>(set.argsz)?;
    let (flags, count) = (set.flags.get(), set.count.get());
    let data = match flags & 7 {
        1 => IrqData::None,
        2 => IrqData::Bool(data.get(..count as usize).ok_or(Errno::INVAL)?),
        4 => IrqData::EventFd,
        _ => return Err(Errno::INVAL),
    };
    let action = match flags & !7 {
        0x08 => IrqAction::Mask,
        0x10 => IrqAction::Unmask,
        0x20 => IrqAction::Trigger,
        _ => return Err(Errno::INVAL),
    };
    Ok(SetIrqs { action, data, index: set.index.get(), start: set.start.get(), count })
}

/// The fixed part of a body, and what follows it.
fn split<T: FromBytes + KnownLayout + Immutable>(body: &[u8]) -> Result<(&T, &[u8]), Errno> {
    T::ref_from_prefix(body).map_err(|_| Errno::INVAL)
}

/// Checks the size that the client states for its structure, which must not be less than ours.
fn check_argsz<T>(argsz: U32) -> Result<(), Errno> {
    if argsz.get() < argsz_of::<T>() { Err(Errno::INVAL) } else { Ok(()) }
}

const fn argsz_of<T>() -> u32 {
    size_of::<T>() as u32
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Capabilities {
    #[serde(default)]
    capabilities: Capability,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Capability {
    max_msg_fds: Option<u64>,
    max_data_xfer_size: Option<u64>,
    pgsizes: Option<u64>,
}
