//! Data structures of Identify (NVM Express 1.4, 5.15).

use zerocopy::{
    FromZeros, Immutable, IntoBytes,
    little_endian::{U16, U32, U64},
};

use super::{BLOCK, Command, PAGE, Status, VERSION, controller::Controller, io::NAMESPACE};

/// Most data of a command, as a power of two of pages: 1 MiB.
pub(super) const MDTS: u8 = 8;
/// Event requests that can wait at a time, less one.
pub(super) const EVENT_LIMIT: u8 = 3;
/// Entries of the error log, less one.
const ERRORS: u8 = 63;
/// PCI vendor of controller and subsystem.
const VENDOR: U16 = U16::new(0xd3a7);
/// Type of a namespace descriptor: a UUID.
const UUID_DESCRIPTOR: u8 = 3;

/// Identify Controller; names are the specification's.
#[derive(FromZeros, IntoBytes, Immutable)]
#[repr(C)]
struct IdentifyController {
    vid: U16,
    ssvid: U16,
    sn: [u8; 20],
    mn: [u8; 40],
    fr: [u8; 8],
    rab: u8,
    ieee: [u8; 3],
    cmic: u8,
    mdts: u8,
    cntlid: U16,
    ver: U32,
    rtd3r: U32,
    rtd3e: U32,
    oaes: U32,
    ctratt: U32,
    reserved_100: [u8; 11],
    cntrltype: u8,
    reserved_112: [u8; 144],
    oacs: U16,
    acl: u8,
    aerl: u8,
    frmw: u8,
    lpa: u8,
    elpe: u8,
    npss: u8,
    avscc: u8,
    apsta: u8,
    wctemp: U16,
    cctemp: U16,
    mtfa: U16,
    hmpre: U32,
    hmmin: U32,
    reserved_280: [u8; 232],
    sqes: u8,
    cqes: u8,
    maxcmd: U16,
    nn: U32,
    oncs: U16,
    fuses: U16,
    fna: u8,
    vwc: u8,
    reserved_526: [u8; 242],
    subnqn: [u8; 256],
    reserved_1024: [u8; 1024],
    psd0_max_power: U16,
    reserved_2050: [u8; 2046],
}

const _: () = assert!(size_of::<IdentifyController>() == PAGE as usize);

/// Identify Namespace, up to its LBA formats; names are the specification's.
#[derive(FromZeros, IntoBytes, Immutable)]
#[repr(C)]
struct IdentifyNamespace {
    nsze: U64,
    ncap: U64,
    nuse: U64,
    reserved_24: [u8; 9],
    dlfeat: u8,
    reserved_34: [u8; 94],
    lbaf0_ms: U16,
    lbaf0_lbads: u8,
    lbaf0_rp: u8,
}

/// A namespace descriptor with a UUID.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct UuidDescriptor {
    kind: u8,
    length: u8,
    reserved: [u8; 2],
    uuid: [u8; 16],
}

impl Controller {
    pub(super) fn identify(&mut self, command: &Command) -> Result<(), Status> {
        let namespace = command.namespace.get();
        match command.dword(10) & 0xff {
            0x00 => match namespace {
                // Values for all namespaces are those of the only one.
                NAMESPACE | super::io::ALL => {
                    self.answer(command, self.identify_namespace().as_bytes(), PAGE)
                }
                _ => Err(Status::INVALID_NAMESPACE),
            },
            0x01 => self.answer(command, self.identify_controller().as_bytes(), PAGE),
            0x02 => match namespace {
                0xffff_fffe.. => Err(Status::INVALID_NAMESPACE),
                0 => self.answer(command, &NAMESPACE.to_le_bytes(), PAGE),
                _ => self.answer(command, &[], PAGE),
            },
            0x03 if namespace == NAMESPACE => {
                let (kind, uuid) = (UUID_DESCRIPTOR, self.uuid());
                let descriptor = UuidDescriptor { kind, length: 16, reserved: [0; 2], uuid };
                self.answer(command, descriptor.as_bytes(), PAGE)
            }
            0x03 => Err(Status::INVALID_NAMESPACE),
            _ => Err(Status::INVALID_FIELD),
        }
    }

    fn identify_controller(&self) -> IdentifyController {
        let subsystem = format!("nqn.2014-08.org.nvmexpress:uuid:{}", self.uuid_text());
        IdentifyController {
            vid: VENDOR,
            ssvid: VENDOR,
            sn: text(&self.serial, b' '),
            mn: text("dmarig probe", b' '),
            fr: text(env!("CARGO_PKG_VERSION"), b' '),
            // Commands that arbitrate at a time, as a power of two.
            rab: 5,
            mdts: MDTS,
            cntlid: U16::new(1),
            ver: VERSION.into(),
            // 1 s to be ready again and to shut down, in microseconds.
            rtd3r: U32::new(1_000_000),
            rtd3e: U32::new(1_000_000),
            // Events: attributes of namespaces.
            oaes: U32::new(1 << 8),
            // An I/O controller.
            cntrltype: 1,
            // The only optional admin command is Doorbell Buffer Config.
            oacs: U16::new(1 << 8),
            // Four aborts at a time, and event requests.
            acl: 3,
            aerl: EVENT_LIMIT,
            // One firmware slot, read only.
            frmw: 0b11,
            // Log pages: effects, long transfers.
            lpa: 0b110,
            elpe: ERRORS,
            // Too warm and much too warm, in kelvins.
            wctemp: U16::new(343),
            cctemp: U16::new(373),
            // The host memory buffer: the preferred size is also the least.
            hmpre: self.host_memory_pages().into(),
            hmmin: self.host_memory_pages().into(),
            // Sizes of queue entries, as powers of two.
            sqes: 0x66,
            cqes: 0x44,
            nn: U32::new(1),
            // Dataset management, write zeroes.
            oncs: U16::new(0b1100),
            // A volatile write cache, which a flush of all namespaces flushes too.
            vwc: 0b111,
            subnqn: text(&subsystem, 0),
            // Power state 0: 25 W.
            psd0_max_power: U16::new(2500),
            ..IdentifyController::new_zeroed()
        }
    }

    fn identify_namespace(&self) -> IdentifyNamespace {
        let blocks = U64::new(self.blocks());
        IdentifyNamespace {
            nsze: blocks,
            ncap: blocks,
            nuse: blocks,
            // Deallocated blocks read as zeros, and write zeroes may deallocate.
            dlfeat: 0b1001,
            lbaf0_lbads: BLOCK.trailing_zeros() as u8,
            ..IdentifyNamespace::new_zeroed()
        }
    }

    /// Derived from the serial number, so that two probes in one guest differ.
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

/// Text in a field that is filled up with `padding`; what does not fit is cut off.
fn text<const N: usize>(text: &str, padding: u8) -> [u8; N] {
    let mut field = [padding; N];
    let length = text.len().min(N);
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
    field
}
