//! Builds messages.

use rustix::io::Errno;
use zerocopy::{
    Immutable, IntoBytes,
    little_endian::{U16, U32, U64},
};

use super::{
    Capabilities, Capability, DmaUnmap, HEADER_BYTES, Header, MAX_DATA_BYTES, MAX_FDS, UNMAP_ALL,
    argsz_of, command, layout,
};

/// Builds messages in a buffer that is used again and again.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// A reply that is its header alone.
    pub fn reply(&mut self, to: &Header) -> &[u8] {
        self.message(&to.reply(HEADER_BYTES), &[], &[])
    }

    /// A reply that reports why a command failed.
    pub fn failure(&mut self, to: &Header, error: Errno) -> &[u8] {
        self.message(&to.failure(error), &[], &[])
    }

    /// Our version and capabilities.
    pub fn version(&mut self, to: &Header, minor: u16) -> &[u8] {
        let ours = Capabilities {
            capabilities: Capability {
                max_msg_fds: Some(MAX_FDS as u64),
                max_data_xfer_size: Some(MAX_DATA_BYTES as u64),
                pgsizes: Some(4096),
            },
        };
        let mut text = serde_json::to_vec(&ours).unwrap_or_default();
        text.push(0);
        self.reply_with(to, &layout::Version { major: U16::ZERO, minor: minor.into() }, &text)
    }

    /// What was unmapped.
    pub fn unmapped(&mut self, to: &Header, unmap: &DmaUnmap) -> &[u8] {
        let body = layout::DmaUnmap {
            argsz: argsz_of::<layout::DmaUnmap>().into(),
            flags: U32::new(if unmap.all { UNMAP_ALL } else { 0 }),
            iova: unmap.iova.into(),
            size: unmap.size.into(),
        };
        self.reply_with(to, &body, &[])
    }

    /// Flags and numbers of the device, as `VFIO_DEVICE_GET_INFO` has them.
    pub fn device_info(&mut self, to: &Header, flags: u32, regions: u32, irqs: u32) -> &[u8] {
        let body = layout::DeviceInfo {
            argsz: argsz_of::<layout::DeviceInfo>().into(),
            flags: flags.into(),
            regions: regions.into(),
            irqs: irqs.into(),
        };
        self.reply_with(to, &body, &[])
    }

    /// Flags and size of a region, as `VFIO_DEVICE_GET_REGION_INFO` has them.
    pub fn region_info(&mut self, to: &Header, index: u32, flags: u32, size: u64) -> &[u8] {
        let body = layout::RegionInfo {
            argsz: argsz_of::<layout::RegionInfo>().into(),
            flags: flags.into(),
            index: index.into(),
            capabilities: U32::ZERO,
            size: size.into(),
            offset: U64::ZERO,
        };
        self.reply_with(to, &body, &[])
    }

    /// Flags and number of a kind of interrupts, as `VFIO_DEVICE_GET_IRQ_INFO` has them.
    pub fn irq_info(&mut self, to: &Header, index: u32, flags: u32, count: u32) -> &[u8] {
        let body = layout::IrqInfo {
            argsz: argsz_of::<layout::IrqInfo>().into(),
            flags: flags.into(),
            index: index.into(),
            count: count.into(),
        };
        self.reply_with(to, &body, &[])
    }

    /// What was read from a region.
    pub fn region_read(&mut self, to: &Header, offset: u64, region: u32, data: &[u8]) -> &[u8] {
        let count = U32::new(data.len() as u32);
        let access = layout::RegionAccess { offset: offset.into(), region: region.into(), count };
        self.reply_with(to, &access, data)
    }

    /// That a region was written to.
    pub fn region_written(&mut self, to: &Header, offset: u64, region: u32, count: u32) -> &[u8] {
        let (offset, region, count) = (offset.into(), region.into(), count.into());
        self.reply_with(to, &layout::RegionAccess { offset, region, count }, &[])
    }

    /// A command to read memory of the client.
    pub fn dma_read(&mut self, id: u16, iova: u64, count: u32) -> &[u8] {
        self.dma(id, command::DMA_READ, iova, count, &[])
    }

    /// A command to write memory of the client.
    pub fn dma_write(&mut self, id: u16, iova: u64, data: &[u8]) -> &[u8] {
        self.dma(id, command::DMA_WRITE, iova, data.len() as u32, data)
    }

    fn dma(&mut self, id: u16, command: u16, iova: u64, count: u32, data: &[u8]) -> &[u8] {
        let access = layout::DmaAccess { iova: iova.into(), count: u64::from(count).into() };
        let size = HEADER_BYTES + size_of_val(&access) + data.len();
        self.message(&Header::command(id, command, size), access.as_bytes(), data)
    }

    fn reply_with(
        &mut self,
        to: &Header,
        body: &(impl IntoBytes + Immutable),
        data: &[u8],
    ) -> &[u8] {
        let size = HEADER_BYTES + size_of_val(body) + data.len();
        self.message(&to.reply(size), body.as_bytes(), data)
    }

    fn message(&mut self, header: &Header, body: &[u8], data: &[u8]) -> &[u8] {
        self.0.clear();
        self.0.extend(header.as_bytes());
        self.0.extend(body);
        self.0.extend(data);
        debug_assert_eq!(header.message_bytes(), self.0.len());
        &self.0
    }
}
