//! Files that pass for kernels.

use std::{fs, path::Path};

use dmarig_model::kernel::options;

/// ELF machine of x86-64.
pub const EM_X86_64: u16 = 62;
/// ELF machine of AArch64.
pub const EM_AARCH64: u16 = 183;

/// Makes a kernel build directory: a `vmlinux`, and a `.config` with all options that dmarig looks at but
/// those in `unset`.
///
/// # Panics
/// If the directory cannot be written.
pub fn write_kernel_tree(directory: &Path, unset: &[&str]) {
    fs::create_dir_all(directory.join("arch")).unwrap();
    let set = options().filter(|name| !name.contains("DEFAULT") && !unset.contains(name));
    let config: String = set.map(|name| format!("{name}=y\n")).collect();
    fs::write(directory.join(".config"), config).unwrap();
    fs::write(directory.join("vmlinux"), vmlinux(EM_X86_64)).unwrap();
}

/// An ELF file of a machine with the text of a kernel's banner, and with the note by which QEMU finds its
/// PVH entry.
#[must_use]
pub fn vmlinux(machine: u16) -> Vec<u8> {
    vmlinux_with(machine, "")
}

/// As [`vmlinux`], with these words in it.
#[must_use]
pub fn vmlinux_with(machine: u16, words: &str) -> Vec<u8> {
    let text = format!("{:4096}\0Linux version 6.1.0-fake (me@here) #1\0{words}\0", "");
    let note = [&[4u8, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0][..], b"Xen\0", &[0, 0, 0, 1]].concat();
    let segments: [(u32, &[u8]); 2] = [(1, text.as_bytes()), (4, &note)];
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(64, 0);
    for (at, value) in
        [(16, 2), (18, machine), (20, 1), (32, 64), (52, 64), (54, 56), (56, 2), (58, 64)]
    {
        file[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    let mut offset = 64 + 56 * segments.len() as u64;
    for (kind, content) in segments {
        let size = content.len() as u64;
        file.extend(kind.to_le_bytes());
        file.extend(4u32.to_le_bytes());
        for field in [offset, 0, 0, size, size, 4] {
            file.extend(field.to_le_bytes());
        }
        offset += size;
    }
    for (_, content) in segments {
        file.extend(content);
    }
    file
}
