//! Small files with the shape of the real ones.

use std::io::Write;

/// The release that synthetic kernels have.
pub(crate) const RELEASE: &str = "6.6.6-test";
/// The configuration that they hold.
pub(crate) const CONFIG: &str = "CONFIG_PVH=y\n# CONFIG_NVME is not set\nCONFIG_E1000E=m\n";

/// How a bzImage's payload is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Gzip,
    Bzip2,
    Lzma,
    Xz,
    Lz4,
    Lzo,
    Zstd,
}

/// An x86-64 ELF file with one segment of text and, if asked for, a PVH note.
pub(crate) fn vmlinux(pvh: bool) -> Vec<u8> {
    sized_vmlinux(pvh, 400_000)
}

/// The same with this many bytes of something that is neither constant nor random.
pub(crate) fn sized_vmlinux(pvh: bool, size: usize) -> Vec<u8> {
    let mut text =
        format!("\0\0Linux version %s\0Linux version {RELEASE} (me@here)\0").into_bytes();
    text.extend(b"IKCFG_ST");
    text.extend(gzip(CONFIG.as_bytes()));
    text.extend(b"IKCFG_ED");
    let mut state = 1u32;
    text.extend((0..size).map(|i| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if i % 16 == 0 { (state >> 24) as u8 } else { 0 }
    }));
    let mut note = Vec::new();
    for word in [4u32, 4, if pvh { 18 } else { 17 }] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(0x0100_0000u32.to_le_bytes());
    elf(62, &[(1, &text), (4, &note)])
}

/// An ELF file with program headers of the given types.
pub(crate) fn elf(machine: u16, segments: &[(u32, &[u8])]) -> Vec<u8> {
    let headers = 64 + 56 * segments.len();
    let mut file = elf_header(2, machine);
    file[32..40].copy_from_slice(&64u64.to_le_bytes());
    file[56..58].copy_from_slice(&(segments.len() as u16).to_le_bytes());
    let mut offset = headers as u64;
    for (kind, content) in segments {
        let size = content.len() as u64;
        file.extend(kind.to_le_bytes());
        file.extend(4u32.to_le_bytes());
        for field in [offset, 0, 0, size, size, 4] {
            file.extend(field.to_le_bytes());
        }
        offset += size;
    }
    segments.iter().for_each(|(_, content)| file.extend(*content));
    file
}

fn elf_header(kind: u16, machine: u16) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(64, 0);
    file[16..18].copy_from_slice(&kind.to_le_bytes());
    file[18..20].copy_from_slice(&machine.to_le_bytes());
    file[20] = 1;
    file[52..60].copy_from_slice(&[64, 0, 56, 0, 0, 0, 64, 0]);
    file
}

/// A kernel module with a `.modinfo` of these strings.
pub(crate) fn module(info: &[&str]) -> Vec<u8> {
    let mut file = elf_header(1, 62);
    let names = b"\0.modinfo\0.shstrtab\0";
    let info: Vec<u8> = info.iter().flat_map(|s| [s.as_bytes(), b"\0"].concat()).collect();
    let sections = [(0u32, 0u32, &b""[..]), (1, 1, &info), (10, 3, names)];
    let mut headers = Vec::new();
    for (name, kind, content) in sections {
        headers.extend(name.to_le_bytes());
        headers.extend(kind.to_le_bytes());
        for field in [0, 0, file.len() as u64, content.len() as u64, 0, 1, 0] {
            headers.extend(field.to_le_bytes());
        }
        // sh_link and sh_info are halves of one 64-bit field, which is zero.
        file.extend(content);
    }
    let at = file.len() as u64;
    file[40..48].copy_from_slice(&at.to_le_bytes());
    file[60..64].copy_from_slice(&[3, 0, 2, 0]);
    file.extend(headers);
    file
}

/// A bzImage around a payload, as arch/x86/boot lays it out.
pub(crate) fn bzimage(packing: Packing, kernel: &[u8]) -> Vec<u8> {
    let mut payload = pack(packing, kernel);
    if packing != Packing::Gzip {
        payload.extend((kernel.len() as u32).to_le_bytes());
    }
    bzimage_of(&payload)
}

/// A bzImage with the payload as it is.
pub(crate) fn bzimage_of(payload: &[u8]) -> Vec<u8> {
    const SETUP: usize = 3 * 512;
    const BEFORE: usize = 0x2c0;
    let mut file = vec![0; SETUP + BEFORE];
    let body = (BEFORE + payload.len()).next_multiple_of(16);
    let put = |file: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(&mut file, 0, b"MZ");
    put(&mut file, 0x1f1, &[2]);
    put(&mut file, 0x1f4, &((body / 16) as u32).to_le_bytes());
    put(&mut file, 0x1fe, b"\x55\xaa");
    put(&mut file, 0x202, b"HdrS");
    put(&mut file, 0x206, &0x020fu16.to_le_bytes());
    put(&mut file, 0x20e, &0x0200u16.to_le_bytes());
    put(&mut file, 0x236, &0x3fu16.to_le_bytes());
    put(&mut file, 0x248, &(BEFORE as u32).to_le_bytes());
    put(&mut file, 0x24c, &(payload.len() as u32).to_le_bytes());
    put(&mut file, 0x400, format!("{RELEASE} (me@here) #1\0").as_bytes());
    file.extend(payload);
    file.resize(SETUP + body, 0);
    file
}

fn pack(packing: Packing, data: &[u8]) -> Vec<u8> {
    match packing {
        Packing::Gzip => gzip(data),
        Packing::Bzip2 => {
            let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            out.write_all(data).unwrap();
            out.finish().unwrap()
        }
        Packing::Lzma => {
            let options = lzma_rust2::LzmaOptions::with_preset(0);
            let mut out =
                lzma_rust2::LzmaWriter::new_use_header(Vec::new(), &options, None).unwrap();
            out.write_all(data).unwrap();
            out.finish().unwrap()
        }
        Packing::Xz => xz(data),
        Packing::Lz4 => {
            let blocks = data.chunks(8 << 20).map(lz4_flex::block::compress);
            let framed = blocks.flat_map(|b| [&(b.len() as u32).to_le_bytes(), &b[..]].concat());
            b"\x02\x21\x4c\x18".iter().copied().chain(framed).collect()
        }
        Packing::Lzo => b"\x89LZO\0\x0d\x0a\x1a\x0a and so on".to_vec(),
        Packing::Zstd => zstd(data),
    }
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

pub(crate) fn xz(data: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(0);
    let mut out = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

pub(crate) fn zstd(data: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest)
}

/// A .deb whose data has these entries, under their names as they are. What a link has for its
/// content is its target.
pub(crate) fn deb(control: &str, entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let file = |name: &str, data: &[u8]| tar_of(&[(name, tar::EntryType::Regular, data)]);
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", gzip(&file("./control", control.as_bytes()))),
        ("data.tar.xz", xz(&tar_of(entries))),
    ];
    let mut out = ar::Builder::new(Vec::new());
    for (name, data) in members {
        let header = ar::Header::new(name.as_bytes().to_vec(), data.len() as u64);
        out.append(&header, &data[..]).unwrap();
    }
    out.into_inner().unwrap()
}

fn tar_of(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (name, kind, data) in entries {
        let mut header = tar::Header::new_gnu();
        // By hand: the crate would refuse the names that are tested.
        let fields = header.as_gnu_mut().unwrap();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        let is_link = kind.is_symlink() || kind.is_hard_link();
        if is_link {
            fields.linkname[..data.len()].copy_from_slice(data);
        }
        let data: &[u8] = if is_link { b"" } else { data };
        header.set_entry_type(*kind);
        header.set_size(data.len() as u64);
        header.set_mode(if name.contains("bin/") { 0o4755 } else { 0o644 });
        header.set_cksum();
        out.append(&header, data).unwrap();
    }
    out.into_inner().unwrap()
}

/// The control file of a package.
pub(crate) fn control(package: &str) -> String {
    format!("Package: {package}\nVersion: 1\nArchitecture: amd64\nDepends: linux-image-x\n")
}
