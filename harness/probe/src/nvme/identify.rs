//! What the controller and its namespace say of themselves (NVM Express 1.4, 5.15).

use super::{BLOCK, Command, PAGE, Status, VERSION, controller::Controller, io::NAMESPACE};

/// Most data of a command, as a power of two of pages: 1 MiB.
pub(super) const MDTS: u8 = 8;
/// Event requests that can wait at a time, less one.
pub(super) const EVENT_LIMIT: u8 = 3;
/// Entries of the error log, less one.
const ERRORS: u8 = 63;

impl Controller {
    pub(super) fn identify(&mut self, command: &Command) -> Result<(), Status> {
        let namespace = command.namespace;
        let data = match command.dword(10) & 0xff {
            0x00 => match namespace {
                NAMESPACE => self.identify_namespace(),
                // All namespaces, or one that is not active.
                super::io::ALL => self.identify_namespace(),
                0 => return Err(Status::INVALID_NAMESPACE),
                _ => return Err(Status::INVALID_NAMESPACE),
            },
            0x01 => self.identify_controller(),
            0x02 => match namespace {
                0xffff_fffe.. => return Err(Status::INVALID_NAMESPACE),
                0 => NAMESPACE.to_le_bytes().to_vec(),
                _ => Vec::new(),
            },
            0x03 if namespace == NAMESPACE => self.descriptors(),
            0x03 => return Err(Status::INVALID_NAMESPACE),
            _ => return Err(Status::INVALID_FIELD),
        };
        self.answer(command, &data, PAGE)
    }

    fn identify_controller(&self) -> Vec<u8> {
        let mut data = Data::default();
        data.set(0, &0xd3a7u16.to_le_bytes());
        data.set(2, &0xd3a7u16.to_le_bytes());
        data.text(4, 20, &self.serial);
        data.text(24, 40, "dmarig probe");
        data.text(64, 8, env!("CARGO_PKG_VERSION"));
        // Commands that arbitrate at a time, as a power of two.
        data.set(72, &[5]);
        data.set(77, &[MDTS]);
        data.set(78, &1u16.to_le_bytes());
        data.set(80, &VERSION.to_le_bytes());
        // 1 s to be ready again and to shut down, in microseconds.
        data.set(84, &1_000_000u32.to_le_bytes());
        data.set(88, &1_000_000u32.to_le_bytes());
        // Events: attributes of namespaces.
        data.set(92, &(1u32 << 8).to_le_bytes());
        // An I/O controller.
        data.set(111, &[1]);
        // Of the optional admin commands, doorbells in memory.
        data.set(256, &(1u16 << 8).to_le_bytes());
        // Four aborts at a time, and event requests.
        data.set(258, &[3, EVENT_LIMIT]);
        // One firmware slot, read only.
        data.set(260, &[0b11]);
        // Log pages: effects, long transfers.
        data.set(261, &[0b110]);
        data.set(262, &[ERRORS]);
        // Too warm and much too warm, in kelvins.
        data.set(266, &343u16.to_le_bytes());
        data.set(268, &373u16.to_le_bytes());
        // The host memory buffer: as much as is preferred, and no less.
        data.set(272, &self.host_memory_pages().to_le_bytes());
        data.set(276, &self.host_memory_pages().to_le_bytes());
        // Sizes of queue entries, as powers of two.
        data.set(512, &[0x66, 0x44]);
        data.set(516, &1u32.to_le_bytes());
        // Dataset management, write zeroes.
        data.set(520, &0b1100u16.to_le_bytes());
        // A volatile write cache, which a flush of all namespaces flushes too.
        data.set(525, &[0b111]);
        data.text(768, 0, &format!("nqn.2014-08.org.nvmexpress:uuid:{}", self.uuid_text()));
        // Power state 0: 25 W.
        data.set(2048, &2500u16.to_le_bytes());
        data.0
    }

    fn identify_namespace(&self) -> Vec<u8> {
        let mut data = Data::default();
        let blocks = self.blocks().to_le_bytes();
        for at in [0, 8, 16] {
            data.set(at, &blocks);
        }
        // Deallocated blocks read as zeros, and write zeroes may deallocate.
        data.set(33, &[0b1001]);
        data.set(128 + 2, &[BLOCK.trailing_zeros() as u8]);
        data.0
    }

    fn descriptors(&self) -> Vec<u8> {
        let mut data = Data::default();
        // A UUID, of 16 bytes.
        data.set(0, &[3, 16]);
        data.set(4, &self.uuid());
        data.0
    }

    /// Made of the serial number, so that two probes in one guest differ.
    fn uuid(&self) -> [u8; 16] {
        let hash = |seed| {
            self.serial
                .bytes()
                .fold(seed, |state, byte| dmarig_pattern::mix(state ^ u64::from(byte)))
        };
        let mut uuid = [0; 16];
        uuid[..8].copy_from_slice(&hash(1).to_be_bytes());
        uuid[8..].copy_from_slice(&hash(2).to_be_bytes());
        // Version 8 (custom) of variant 1 (RFC 9562).
        uuid[6] = uuid[6] & 0x0f | 0x80;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        uuid
    }

    fn uuid_text(&self) -> String {
        let mut text = String::new();
        for (at, byte) in self.uuid().iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }
}

/// A page of data.
struct Data(Vec<u8>);

impl Default for Data {
    fn default() -> Self {
        Self(vec![0; PAGE as usize])
    }
}

impl Data {
    fn set(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// ASCII, filled up with spaces.
    fn text(&mut self, at: usize, size: usize, text: &str) {
        let bytes: Vec<u8> =
            text.bytes().chain(std::iter::repeat(b' ')).take(size.max(text.len())).collect();
        let end = if size == 0 { bytes.len() } else { size };
        self.set(at, &bytes[..end]);
    }
}
