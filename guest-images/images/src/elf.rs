//! What is read from ELF files: a vmlinux's notes and banner, a module's `.modinfo`.

use std::path::Path;

use object::Endianness;
use object::elf::{EM_X86_64, FileHeader64, NoteType, PT_LOAD, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};

use crate::codec::Codec;
use crate::{Error, Result};

/// Xen's note with the 32-bit physical entry point: what QEMU looks for to boot by PVH.
/// Linux: arch/x86/platform/pvh/head.S; QEMU: hw/i386/x86-common.c.
const XEN_ELFNOTE_PHYS32_ENTRY: NoteType = NoteType(18);
const BANNER: &[u8] = b"Linux version ";
/// What `.config` may be at most, unpacked.
const MAX_CONFIG: u64 = 16 << 20;

pub(crate) const ELF_MAGIC: &[u8] = b"\x7fELF";

type Header = FileHeader64<Endianness>;

/// A kernel as an ELF file.
#[derive(Debug)]
pub(crate) struct Vmlinux {
    pub(crate) release: Option<String>,
    pub(crate) pvh: bool,
    pub(crate) config: Option<String>,
}

impl Vmlinux {
    /// Checks that `data` is a whole x86-64 kernel. What is behind its end (the relocations, in a
    /// kernel from a bzImage) doesn't matter: without KASLR nobody applies them.
    pub(crate) fn parse(data: &[u8], path: &Path) -> Result<Vmlinux> {
        check_header(data, path)?;
        let broken =
            |e: object::read::Error| Error::not_a_kernel(path, format!("a broken ELF file ({e})"));
        let header = Header::parse(data).map_err(broken)?;
        let endian = header.endian().map_err(broken)?;
        let have = data.len() as u64;
        let table_end = |offset: u64, number: u16, size: u16| {
            offset.saturating_add(u64::from(number) * u64::from(size))
        };
        let mut need =
            table_end(header.e_phoff(endian), header.e_phnum(endian), header.e_phentsize(endian));
        if need > have {
            return Err(Error::truncated(path, have, need));
        }
        need = need.max(table_end(
            header.e_shoff(endian),
            header.e_shnum(endian),
            header.e_shentsize(endian),
        ));
        let segments = header.program_headers(endian, data).map_err(broken)?;
        for segment in segments {
            need = need.max(segment.p_offset(endian).saturating_add(segment.p_filesz(endian)));
        }
        if need > have {
            return Err(Error::truncated(path, have, need));
        }
        if !segments.iter().any(|s| s.p_type(endian) == PT_LOAD) {
            return Err(Error::not_a_kernel(path, "an ELF file without anything to load"));
        }
        let pvh = segments.iter().any(|s| has_pvh_note(s, endian, data));
        let config = find_config(data);
        Ok(Vmlinux { release: find_release(data), pvh, config })
    }
}

/// Tells the machine a file is for from its first 20 bytes.
fn check_header(data: &[u8], path: &Path) -> Result<()> {
    if data.len() < 64 {
        return Err(Error::truncated(path, data.len() as u64, 64));
    }
    let little = data[5] == 1;
    let machine = if little { [data[18], data[19]] } else { [data[19], data[18]] };
    let machine = u16::from_le_bytes(machine);
    match (data[4], machine) {
        (2, m) if m == EM_X86_64.0 => Ok(()),
        (_, machine) => Err(Error::WrongArch { path: path.to_owned(), arch: arch_name(machine) }),
    }
}

/// The architecture's name by ELF's e_machine, for those that run Linux widely.
fn arch_name(machine: u16) -> String {
    match machine {
        3 => "32-bit x86".to_owned(),
        8 => "MIPS".to_owned(),
        20 | 21 => "PowerPC".to_owned(),
        22 => "S/390".to_owned(),
        40 => "32-bit ARM".to_owned(),
        62 => "x32".to_owned(),
        183 => "ARM64".to_owned(),
        243 => "RISC-V".to_owned(),
        258 => "LoongArch".to_owned(),
        other => format!("another machine (ELF e_machine {other})"),
    }
}

fn has_pvh_note(segment: &ProgramHeader64<Endianness>, endian: Endianness, data: &[u8]) -> bool {
    let Ok(Some(mut notes)) = segment.notes(endian, data) else { return false };
    while let Ok(Some(note)) = notes.next() {
        if note.name() == b"Xen" && note.n_type(endian) == XEN_ELFNOTE_PHYS32_ENTRY {
            return true;
        }
    }
    false
}

/// The release from the banner, `Linux version RELEASE (builder) ...`.
fn find_release(data: &[u8]) -> Option<String> {
    memchr::memmem::find_iter(data, BANNER).find_map(|at| {
        let text = data[at + BANNER.len()..].iter().take(100);
        let word: Vec<u8> = text.copied().take_while(u8::is_ascii_graphic).collect();
        // A format string has a percent sign here.
        let word = String::from_utf8(word).ok()?;
        word.starts_with(|c: char| c.is_ascii_digit()).then_some(word)
    })
}

/// The configuration that CONFIG_IKCONFIG puts into the kernel, gzipped between two marks.
fn find_config(data: &[u8]) -> Option<String> {
    let start = memchr::memmem::find(data, b"IKCFG_ST\x1f\x8b")? + 8;
    let config = Codec::Gzip.unpack(&data[start..], 0, MAX_CONFIG).ok()?;
    String::from_utf8(config).ok()
}

/// The `key=value` strings in the `.modinfo` section of the module at `path`, whose content is `data`.
pub(crate) fn modinfo(path: &Path, data: &[u8]) -> Result<Vec<(String, String)>> {
    let broken = |e| Error::bad_module(path, e);
    let header = Header::parse(data).map_err(broken)?;
    if !header.is_supported() {
        return Err(Error::bad_module(path, "not a 64-bit ELF file"));
    }
    let endian = header.endian().map_err(broken)?;
    let sections = header.sections(endian, data).map_err(broken)?;
    let (_, section) = sections
        .section_by_name(endian, b".modinfo")
        .ok_or_else(|| Error::bad_module(path, "it has no section .modinfo"))?;
    let strings = section.data(endian, data).map_err(broken)?;
    let pairs = strings.split(|&b| b == 0).filter_map(|s| {
        let (key, value) = std::str::from_utf8(s).ok()?.split_once('=')?;
        Some((key.to_owned(), value.to_owned()))
    });
    Ok(pairs.collect())
}
