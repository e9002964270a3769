//! What the client sees of the device: regions and interrupts.

use std::sync::Arc;

use rustix::io::Errno;

use crate::{
    irqs::{ERROR_INDEX, INDICES, Interrupts, MSIX_INDEX},
    memory::Memory,
    nvme::Registers,
    pci::{BAR_BYTES, CONFIG_BYTES, Config, MSIX_PENDING, MSIX_TABLE},
};

/// Number of the region that is BAR 0 (`VFIO_PCI_BAR0_REGION_INDEX`).
pub const BAR0: u32 = 0;
/// Number of the region that is configuration space (`VFIO_PCI_CONFIG_REGION_INDEX`).
pub const CONFIG: u32 = 7;
/// How many regions there are: six BARs, ROM, configuration space, VGA.
const REGIONS: u32 = 9;
/// Can be reset; is a PCI device.
const DEVICE_FLAGS: u32 = 1 | 1 << 1;
/// Can be read and written.
const REGION_FLAGS: u32 = 1 | 1 << 1;
/// Can be bound to eventfds; can be masked.
const IRQ_FLAGS: u32 = 1 | 1 << 1;

/// The device.
#[derive(Debug)]
pub struct Device {
    /// Memory of the guest.
    pub memory: Arc<Memory>,
    /// Its interrupts.
    pub interrupts: Arc<Interrupts>,
    /// Its registers.
    pub registers: Arc<Registers>,
    config: Config,
    vectors: u16,
    /// The MSI-X table. QEMU has its own; this one is what the guest would read of ours.
    table: Vec<u8>,
}

impl Device {
    /// A device of these parts, with so many vectors.
    #[must_use]
    pub fn new(
        memory: Arc<Memory>,
        interrupts: Arc<Interrupts>,
        registers: Arc<Registers>,
        vectors: u16,
    ) -> Self {
        let table = vec![0; usize::from(vectors) * 16];
        Self { memory, interrupts, registers, config: Config::new(vectors), vectors, table }
    }

    /// Flags, regions and kinds of interrupts.
    #[must_use]
    pub fn info(&self) -> (u32, u32, u32) {
        (DEVICE_FLAGS, REGIONS, INDICES)
    }

    /// Flags and size of a region.
    ///
    /// # Errors
    /// `EINVAL` where there is no such region.
    pub fn region(&self, index: u32) -> Result<(u32, u64), Errno> {
        match index {
            BAR0 => Ok((REGION_FLAGS, BAR_BYTES)),
            CONFIG => Ok((REGION_FLAGS, CONFIG_BYTES)),
            index if index < REGIONS => Ok((0, 0)),
            _ => Err(Errno::INVAL),
        }
    }

    /// Flags and number of a kind of interrupts.
    ///
    /// # Errors
    /// `EINVAL` where there is no such kind.
    pub fn irq(&self, index: u32) -> Result<(u32, u32), Errno> {
        match index {
            MSIX_INDEX | ERROR_INDEX => Ok((IRQ_FLAGS, self.interrupts.count(index))),
            index if index < INDICES => Ok((0, 0)),
            _ => Err(Errno::INVAL),
        }
    }

    /// Reads from a region.
    ///
    /// # Errors
    /// `EINVAL` outside of the region.
    pub fn read(&self, region: u32, offset: u64, count: u32) -> Result<Vec<u8>, Errno> {
        self.check_range(region, offset, count as usize)?;
        let mut data = vec![0; count as usize];
        match region {
            CONFIG => self.config.read(offset, &mut data),
            _ if offset >= MSIX_PENDING => {
                copy(&self.interrupts.pending(), offset - MSIX_PENDING, &mut data);
            }
            _ if offset >= MSIX_TABLE => copy(&self.table, offset - MSIX_TABLE, &mut data),
            _ => self.registers.read(offset, &mut data),
        }
        Ok(data)
    }

    /// Writes to a region.
    ///
    /// # Errors
    /// `EINVAL` outside of the region.
    pub fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        self.check_range(region, offset, data.len())?;
        match region {
            CONFIG => {
                if self.config.write(offset, data) {
                    self.reset();
                }
            }
            _ if offset >= MSIX_PENDING => {}
            _ if offset >= MSIX_TABLE => {
                let at = (offset - MSIX_TABLE) as usize;
                let to = self.table.iter_mut().skip(at);
                to.zip(data).for_each(|(to, byte)| *to = *byte);
            }
            _ => self.registers.write(offset, data),
        }
        Ok(())
    }

    /// Resets the device, as at power-on; mappings stay, since they are the client's.
    pub fn reset(&mut self) {
        self.registers.reset();
        self.config = Config::new(self.vectors);
        self.table.fill(0);
    }

    /// Discards the state of a client that disconnected.
    pub fn disconnect(&mut self) {
        self.reset();
        self.interrupts.reset();
        self.memory.clear();
    }

    fn check_range(&self, region: u32, offset: u64, count: usize) -> Result<(), Errno> {
        let (_, size) = self.region(region)?;
        let end = offset.checked_add(count as u64).ok_or(Errno::INVAL)?;
        if end > size { Err(Errno::INVAL) } else { Ok(()) }
    }
}

/// Copies bytes from an offset on; those behind the end are zero.
fn copy(from: &[u8], offset: u64, to: &mut [u8]) {
    let rest = from.get(offset as usize..).unwrap_or_default();
    let count = rest.len().min(to.len());
    to[..count].copy_from_slice(&rest[..count]);
}
