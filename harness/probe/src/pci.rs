//! The device's PCI configuration space: an NVMe controller that is a PCIe endpoint with MSI-X.
//!
//! QEMU shows the guest its own copy of the BARs, of the command register's bits that it handles,
//! and of the MSI-X and PCIe capabilities, which it makes fit the bus that the device is on. What is
//! here is what a physical device would answer.

/// Bytes of it.
pub const CONFIG_BYTES: u64 = 4096;
/// Bytes of BAR 0: registers and doorbells, MSI-X table, pending bits.
pub const BAR_BYTES: u64 = 0x4000;
/// Where the MSI-X table is in BAR 0.
pub const MSIX_TABLE: u64 = 0x2000;
/// Where the MSI-X pending bits are in BAR 0.
pub const MSIX_PENDING: u64 = 0x3000;
/// Most MSI-X vectors that there is room for.
pub const MAX_VECTORS: u16 = 256;

/// Nobody's vendor identifier: no driver has quirks for it.
const VENDOR: u16 = 0xd3a7;
const DEVICE: u16 = 0x0001;
/// Mass storage, non-volatile memory, NVM Express I/O controller.
const CLASS: u32 = 0x01_08_02;
const MSIX: usize = 0x40;
const PCIE: usize = 0x50;
const POWER: usize = 0xa0;
const DEVICE_CONTROL: usize = PCIE + 0x08;
/// Initiate function level reset.
const FLR: u16 = 1 << 15;

/// Configuration space with its writable bits.
#[derive(Debug)]
pub struct Config {
    bytes: Vec<u8>,
    writable: Vec<u8>,
}

impl Config {
    /// That of a controller with so many MSI-X vectors.
    #[must_use]
    pub fn new(vectors: u16) -> Self {
        let size = CONFIG_BYTES as usize;
        let mut config = Self { bytes: vec![0; size], writable: vec![0; size] };
        config.header();
        config.msix(vectors);
        config.pcie();
        config.power();
        config
    }

    /// Reads bytes; those behind the end are zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let bytes = usize::try_from(offset).ok().and_then(|offset| self.bytes.get(offset..));
        let bytes = bytes.unwrap_or_default();
        data.fill(0);
        let count = bytes.len().min(data.len());
        data[..count].copy_from_slice(&bytes[..count]);
    }

    /// Writes the bits that can be written. Says whether the function is to be reset.
    #[must_use]
    pub fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        let Ok(offset) = usize::try_from(offset) else { return false };
        for (at, byte) in (offset..).zip(data) {
            if let (Some(to), Some(mask)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *to = *to & !mask | byte & mask;
            }
        }
        let control =
            u16::from_le_bytes([self.bytes[DEVICE_CONTROL], self.bytes[DEVICE_CONTROL + 1]]);
        // The bit reads as zero (PCI Express 6.6.2).
        self.set16(DEVICE_CONTROL, control & !FLR);
        control & FLR != 0
    }

    fn header(&mut self) {
        self.set16(0x00, VENDOR);
        self.set16(0x02, DEVICE);
        // I/O, memory, bus master, parity, SERR, no INTx.
        self.allow16(0x04, 0x0547);
        // There is a list of capabilities.
        self.set16(0x06, 0x0010);
        self.set32(0x08, CLASS << 8 | 0x01);
        self.allow16(0x0c, 0x00ff);
        // BAR 0: memory, 64 bits, not prefetchable.
        self.set32(0x10, 0x4);
        self.allow32(0x10, !(BAR_BYTES as u32 - 1));
        self.allow32(0x14, u32::MAX);
        self.set16(0x2c, VENDOR);
        self.set16(0x2e, DEVICE);
        self.set32(0x34, MSIX as u32);
        // Interrupt line. The pin is 0: there are no legacy interrupts.
        self.allow16(0x3c, 0x00ff);
    }

    fn msix(&mut self, vectors: u16) {
        self.capability(MSIX, 0x11, PCIE);
        self.set16(MSIX + 2, vectors - 1);
        self.allow16(MSIX + 2, 0xc000);
        // The low three bits are the BAR's number: 0.
        self.set32(MSIX + 4, MSIX_TABLE as u32);
        self.set32(MSIX + 8, MSIX_PENDING as u32);
    }

    fn pcie(&mut self) {
        self.capability(PCIE, 0x10, POWER);
        // Version 2, endpoint.
        self.set16(PCIE + 0x02, 0x0002);
        // Payloads of 256 bytes, role-based error reporting, function level reset.
        self.set32(PCIE + 0x04, 0x1000_8001);
        self.allow16(DEVICE_CONTROL, 0xffff);
        self.set16(DEVICE_CONTROL, 0x2810);
        // 2.5 GT/s, one lane; as it runs, too.
        self.set32(PCIE + 0x0c, 0x0000_0011);
        self.allow16(PCIE + 0x10, 0x00c3);
        self.set16(PCIE + 0x12, 0x0011);
        // Completion timeouts can be disabled.
        self.set32(PCIE + 0x24, 0x0000_0010);
        self.allow16(PCIE + 0x28, 0x001f);
    }

    fn power(&mut self) {
        self.capability(POWER, 0x01, 0);
        // Version 3; D0 and D3 alone.
        self.set16(POWER + 2, 0x0003);
        // No soft reset; the power state can be written.
        self.set16(POWER + 4, 0x0008);
        self.allow16(POWER + 4, 0x0003);
    }

    fn capability(&mut self, at: usize, id: u8, next: usize) {
        self.bytes[at] = id;
        self.bytes[at + 1] = next as u8;
    }

    fn set16(&mut self, at: usize, value: u16) {
        self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn set32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn allow16(&mut self, at: usize, mask: u16) {
        self.writable[at..at + 2].copy_from_slice(&mask.to_le_bytes());
    }

    fn allow32(&mut self, at: usize, mask: u32) {
        self.writable[at..at + 4].copy_from_slice(&mask.to_le_bytes());
    }
}
