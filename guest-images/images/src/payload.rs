//! The bzImage: its setup header and the kernel packed inside.
//!
//! Layout: Documentation/arch/x86/boot.rst.

use std::path::Path;

use crate::codec::Codec;
use crate::elf::ELF_MAGIC;
use crate::{Error, Result};

/// What a kernel may unpack to. A distribution's is around 60 MiB, one with KASAN around 200.
const MAX_KERNEL: u64 = 1 << 30;
/// The end of the setup header's fields that are read here.
const HEADER_END: u64 = 0x250;
/// The boot protocol that brought `payload_offset`, of Linux 2.6.26.
const PROTOCOL_WITH_PAYLOAD: u16 = 0x0208;
const XLF_KERNEL_64: u16 = 1;

/// The setup header of a bzImage that is whole and for 64-bit x86.
#[derive(Debug)]
pub(crate) struct BzImage<'a> {
    data: &'a [u8],
    setup_size: u64,
    pub(crate) release: Option<String>,
}

/// What became of the payload.
#[derive(Debug)]
pub(crate) enum Payload {
    /// The kernel as ELF, with relocations behind its end.
    Elf { compression: &'static str, vmlinux: Vec<u8> },
    /// It is of a kind that isn't unpacked here.
    Opaque { reason: String },
}

/// Whether `head` (at least 0x206 bytes of a file) has a setup header.
pub(crate) fn is_bzimage(head: &[u8]) -> bool {
    head.get(0x202..0x206) == Some(b"HdrS") && head.get(0x1fe..0x200) == Some(b"\x55\xaa")
}

impl<'a> BzImage<'a> {
    pub(crate) fn parse(data: &'a [u8], path: &Path) -> Result<BzImage<'a>> {
        let have = data.len() as u64;
        if have < HEADER_END {
            return Err(Error::truncated(path, have, HEADER_END));
        }
        let setup_sectors = if data[0x1f1] == 0 { 4 } else { u64::from(data[0x1f1]) };
        let setup_size = (setup_sectors + 1) * 512;
        // In units of 16 bytes, the last of which newer kernels don't fill.
        let need = setup_size + (u64::from(u32_at(data, 0x1f4)) * 16).saturating_sub(15);
        if have < need {
            return Err(Error::truncated(path, have, need));
        }
        // Before protocol 2.12 (Linux 3.8) nothing says whether a kernel is for 64 bits.
        if u16_at(data, 0x206) >= 0x020c && u16_at(data, 0x236) & XLF_KERNEL_64 == 0 {
            let arch = "32-bit x86".to_owned();
            return Err(Error::WrongArch { path: path.to_owned(), arch });
        }
        Ok(BzImage { data, setup_size, release: release(data) })
    }

    /// Unpacks the kernel. The last four bytes of a payload are the unpacked size (gzip brings
    /// them itself), so what is cut short is noticed for each format.
    pub(crate) fn unpack(&self, path: &Path) -> Result<Payload> {
        if u16_at(self.data, 0x206) < PROTOCOL_WITH_PAYLOAD {
            return Ok(opaque("its boot protocol is older than 2.08"));
        }
        let start = self.setup_size + u64::from(u32_at(self.data, 0x248));
        let end = start + u64::from(u32_at(self.data, 0x24c));
        if end > self.data.len() as u64 {
            return Err(Error::truncated(path, self.data.len() as u64, end));
        }
        let payload = &self.data[start as usize..end as usize];
        if payload.starts_with(ELF_MAGIC) {
            return Ok(Payload::Elf { compression: "none", vmlinux: payload.to_vec() });
        }
        let codec = match Codec::detect(payload) {
            Some(Codec::Lzo) => return Ok(opaque("it is packed with LZO, which isn't read here")),
            Some(codec) if payload.len() > 8 => codec,
            _ => return Ok(opaque("it is packed in an unknown way")),
        };
        let compression = codec.name();
        let bad = |reason: String| Error::BadPayload { path: path.to_owned(), compression, reason };
        let size = u64::from(u32_at(payload, payload.len() - 4));
        if size > MAX_KERNEL {
            return Err(bad(format!("it claims to unpack to {size} bytes")));
        }
        let vmlinux =
            codec.unpack(payload, size as usize, MAX_KERNEL).map_err(|e| bad(e.to_string()))?;
        if vmlinux.len() as u64 != size {
            return Err(bad(format!("{} bytes came out, {size} were promised", vmlinux.len())));
        }
        if !vmlinux.starts_with(ELF_MAGIC) {
            return Ok(opaque("it isn't an ELF file inside"));
        }
        Ok(Payload::Elf { compression, vmlinux })
    }
}

fn opaque(reason: &str) -> Payload {
    Payload::Opaque { reason: reason.to_owned() }
}

/// The first word of the version string, to which the header has a pointer.
fn release(data: &[u8]) -> Option<String> {
    let at = match u16_at(data, 0x20e) {
        0 => return None,
        offset => usize::from(offset) + 0x200,
    };
    let text = data.get(at..)?.iter().take(100).copied();
    let word: Vec<u8> = text.take_while(u8::is_ascii_graphic).collect();
    String::from_utf8(word).ok().filter(|word| !word.is_empty())
}

fn u16_at(data: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([data[at], data[at + 1]])
}

fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]])
}
