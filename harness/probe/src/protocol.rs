//! The messages of vfio-user, as bytes and as values. Pure: no socket, no state.
//!
//! Source: QEMU's `docs/interop/vfio-user.rst`. Numbers are little-endian, as they are on every
//! host that this runs on. Whatever comes in is checked against its own lengths before it is used.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Bytes of a message's header.
pub const HEADER_BYTES: usize = 16;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What a reply repeats.
    pub id: u16,
    /// One of [`command`].
    pub command: u16,
    /// Bytes of the whole message.
    pub size: u32,
    /// What kind of message it is.
    pub flags: u32,
    /// An errno, in a reply that says so.
    pub error: u32,
}

impl Header {
    /// A command's.
    #[must_use]
    pub fn command(id: u16, command: u16, size: usize) -> Self {
        Self { id, command, size: size as u32, flags: 0, error: 0 }
    }

    /// That of a reply of so many bytes to this one.
    #[must_use]
    pub fn reply(&self, size: usize) -> Self {
        Self { size: size as u32, flags: REPLY, error: 0, ..*self }
    }

    /// That of a reply which says that this one failed. QEMU takes an errno of 0 for success, so
    /// there is none.
    #[must_use]
    pub fn failure(&self, error: Errno) -> Self {
        let error = u32::try_from(error.raw_os_error()).unwrap_or(0).max(1);
        Self { size: HEADER_BYTES as u32, flags: REPLY | ERROR, error, ..*self }
    }

    /// Reads it.
    ///
    /// # Errors
    /// Where its size can't be true or its type is unknown: the stream can't be trusted any more.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Errno> {
        let mut fields = Fields(bytes);
        let header = Self {
            id: fields.u16()?,
            command: fields.u16()?,
            size: fields.u32()?,
            flags: fields.u32()?,
            error: fields.u32()?,
        };
        if !(HEADER_BYTES..=MAX_MESSAGE_BYTES).contains(&(header.size as usize)) {
            return Err(Errno::MSGSIZE);
        }
        if header.flags & TYPE_MASK > REPLY {
            return Err(Errno::INVAL);
        }
        Ok(header)
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..2].copy_from_slice(&self.id.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.command.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.size.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.flags.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.error.to_le_bytes());
        bytes
    }

    /// Whether it answers a command of ours.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        self.flags & TYPE_MASK == REPLY
    }

    /// Whether nobody waits for an answer.
    #[must_use]
    pub fn wants_no_reply(&self) -> bool {
        self.flags & NO_REPLY != 0
    }

    /// The errno of a reply that reports a failure.
    #[must_use]
    pub fn failed(&self) -> Option<Errno> {
        (self.flags & ERROR != 0).then(|| Errno::from_raw_os_error(self.error.min(4095) as i32))
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

const MAP_BYTES: u32 = 32;
const UNMAP_BYTES: u32 = 24;
const INFO_BYTES: u32 = 16;
const REGION_INFO_BYTES: u32 = 32;
const SET_IRQS_BYTES: u32 = 20;
const UNMAP_ALL: u32 = 1 << 1;

/// Reads a command of the client.
///
/// # Errors
/// The errno to answer with: `ENOSYS` for a command that isn't known, otherwise `EINVAL` or the
/// like for one that contradicts itself.
pub fn decode<'a>(header: &Header, body: &'a [u8]) -> Result<Command<'a>, Errno> {
    let mut fields = Fields(body);
    Ok(match header.command {
        command::VERSION => Command::Version(version(&mut fields)?),
        command::DMA_MAP => Command::DmaMap(dma_map(&mut fields)?),
        command::DMA_UNMAP => Command::DmaUnmap(dma_unmap(&mut fields)?),
        command::DEVICE_INFO => {
            fields.argsz(INFO_BYTES)?;
            Command::DeviceInfo
        }
        command::REGION_INFO => {
            fields.argsz(REGION_INFO_BYTES)?;
            fields.u32()?;
            Command::RegionInfo { index: fields.u32()? }
        }
        command::IRQ_INFO => {
            fields.argsz(INFO_BYTES)?;
            fields.u32()?;
            Command::IrqInfo { index: fields.u32()? }
        }
        command::SET_IRQS => Command::SetIrqs(set_irqs(&mut fields)?),
        command::REGION_READ => {
            let (offset, region, count) = (fields.u64()?, fields.u32()?, fields.u32()?);
            if count as usize > MAX_DATA_BYTES {
                return Err(Errno::TOOBIG);
            }
            Command::RegionRead { offset, region, count }
        }
        command::REGION_WRITE => {
            let (offset, region, count) = (fields.u64()?, fields.u32()?, fields.u32()?);
            let data = fields.0;
            if count as usize != data.len() {
                return Err(Errno::INVAL);
            }
            Command::RegionWrite { offset, region, data }
        }
        command::RESET => Command::Reset,
        _ => return Err(Errno::NOSYS),
    })
}

fn version(fields: &mut Fields<'_>) -> Result<Version, Errno> {
    let (major, minor) = (fields.u16()?, fields.u16()?);
    let mut max_data_bytes = MAX_DATA_BYTES as u64;
    if let Some((end, text)) = fields.0.split_last() {
        if *end != 0 {
            return Err(Errno::INVAL);
        }
        let theirs: Capabilities = serde_json::from_slice(text).map_err(|_| Errno::INVAL)?;
        if let Some(most) = theirs.capabilities.max_data_xfer_size {
            max_data_bytes = most;
        }
    }
    Ok(Version { major, minor, max_data_bytes })
}

fn dma_map(fields: &mut Fields<'_>) -> Result<DmaMap, Errno> {
    fields.argsz(MAP_BYTES)?;
    let flags = fields.u32()?;
    if flags & !3 != 0 {
        return Err(Errno::INVAL);
    }
    Ok(DmaMap {
        read: flags & 1 != 0,
        write: flags & 2 != 0,
        offset: fields.u64()?,
        iova: fields.u64()?,
        size: fields.u64()?,
    })
}

fn dma_unmap(fields: &mut Fields<'_>) -> Result<DmaUnmap, Errno> {
    fields.argsz(UNMAP_BYTES)?;
    let flags = fields.u32()?;
    let (iova, size) = (fields.u64()?, fields.u64()?);
    let all = flags & UNMAP_ALL != 0;
    // There is no dirty page tracking; with "all" there is no range.
    if flags & !UNMAP_ALL != 0 || (all && (iova, size) != (0, 0)) {
        return Err(Errno::INVAL);
    }
    Ok(DmaUnmap { all, iova, size })
}

fn set_irqs<'a>(fields: &mut Fields<'a>) -> Result<SetIrqs<'a>, Errno> {
    fields.argsz(SET_IRQS_BYTES)?;
    let flags = fields.u32()?;
    let (index, start, count) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let data = match flags & 7 {
        1 => IrqData::None,
        2 => IrqData::Bool(fields.0.get(..count as usize).ok_or(Errno::INVAL)?),
        4 => IrqData::EventFd,
        _ => return Err(Errno::INVAL),
    };
    let action = match flags & !7 {
        0x08 => IrqAction::Mask,
        0x10 => IrqAction::Unmask,
        0x20 => IrqAction::Trigger,
        _ => return Err(Errno::INVAL),
    };
    Ok(SetIrqs { action, data, index, start, count })
}

/// Fields of a body, from its front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(*first)
    }

    fn u16(&mut self) -> Result<u16, Errno> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Errno> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Errno> {
        self.take().map(u64::from_le_bytes)
    }

    /// The size that the client says its structure has, which must not be less than the known one.
    fn argsz(&mut self, least: u32) -> Result<(), Errno> {
        if self.u32()? < least { Err(Errno::INVAL) } else { Ok(()) }
    }
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

/// Puts messages together, header first, into a buffer that is used again and again.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// A reply that is its header alone.
    pub fn reply(&mut self, to: &Header) -> &[u8] {
        self.start(to, 0).finish()
    }

    /// A reply that says why a command failed.
    pub fn failure(&mut self, to: &Header, error: Errno) -> &[u8] {
        self.0.clear();
        self.0.extend(to.failure(error).encode());
        &self.0
    }

    /// Our version, and what we can do.
    pub fn version(&mut self, to: &Header, minor: u16) -> &[u8] {
        let ours = Capabilities {
            capabilities: Capability {
                max_msg_fds: Some(MAX_FDS as u64),
                max_data_xfer_size: Some(MAX_DATA_BYTES as u64),
                pgsizes: Some(4096),
            },
        };
        let text = serde_json::to_vec(&ours).unwrap_or_default();
        let body = self.start(to, 4 + text.len() + 1);
        body.u16(0).u16(minor).0.extend(text);
        body.0.push(0);
        body.finish()
    }

    /// What was unmapped.
    pub fn unmapped(&mut self, to: &Header, unmap: &DmaUnmap) -> &[u8] {
        let flags = if unmap.all { UNMAP_ALL } else { 0 };
        let body = self.start(to, UNMAP_BYTES as usize);
        body.u32(UNMAP_BYTES).u32(flags).u64(unmap.iova).u64(unmap.size).finish()
    }

    /// Flags and numbers of the device, as `VFIO_DEVICE_GET_INFO` has them.
    pub fn device_info(&mut self, to: &Header, flags: u32, regions: u32, irqs: u32) -> &[u8] {
        let body = self.start(to, INFO_BYTES as usize);
        body.u32(INFO_BYTES).u32(flags).u32(regions).u32(irqs).finish()
    }

    /// Flags and size of a region, as `VFIO_DEVICE_GET_REGION_INFO` has them.
    pub fn region_info(&mut self, to: &Header, index: u32, flags: u32, size: u64) -> &[u8] {
        let body = self.start(to, REGION_INFO_BYTES as usize);
        body.u32(REGION_INFO_BYTES).u32(flags).u32(index).u32(0).u64(size).u64(0).finish()
    }

    /// Flags and number of a kind of interrupts, as `VFIO_DEVICE_GET_IRQ_INFO` has them.
    pub fn irq_info(&mut self, to: &Header, index: u32, flags: u32, count: u32) -> &[u8] {
        let body = self.start(to, INFO_BYTES as usize);
        body.u32(INFO_BYTES).u32(flags).u32(index).u32(count).finish()
    }

    /// What was read from a region.
    pub fn region_read(&mut self, to: &Header, offset: u64, region: u32, data: &[u8]) -> &[u8] {
        let body = self.start(to, 16 + data.len());
        body.u64(offset).u32(region).u32(data.len() as u32).0.extend(data);
        body.finish()
    }

    /// That a region was written to.
    pub fn region_written(&mut self, to: &Header, offset: u64, region: u32, count: u32) -> &[u8] {
        self.start(to, 16).u64(offset).u32(region).u32(count).finish()
    }

    /// A command to read memory of the client.
    pub fn dma_read(&mut self, id: u16, iova: u64, count: u32) -> &[u8] {
        self.dma(id, command::DMA_READ, iova, count, 0).finish()
    }

    /// A command to write memory of the client.
    pub fn dma_write(&mut self, id: u16, iova: u64, data: &[u8]) -> &[u8] {
        let message = self.dma(id, command::DMA_WRITE, iova, data.len() as u32, data.len());
        message.0.extend(data);
        message.finish()
    }

    fn dma(&mut self, id: u16, command: u16, iova: u64, count: u32, data: usize) -> &mut Self {
        self.0.clear();
        let header = Header::command(id, command, HEADER_BYTES + 16 + data);
        self.0.extend(header.encode());
        self.u64(iova).u64(u64::from(count))
    }

    fn start(&mut self, to: &Header, body: usize) -> &mut Self {
        self.0.clear();
        self.0.extend(to.reply(HEADER_BYTES + body).encode());
        self
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn finish(&mut self) -> &[u8] {
        debug_assert_eq!(self.0[4..8], (self.0.len() as u32).to_le_bytes());
        &self.0
    }
}
