//! Packs the agent, modules and the user's files into an initramfs: a newc cpio archive, not
//! compressed, the same bytes for the same input.
//!
//! Format: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use dmarig_digest::{Hasher, sha256_hex};
use serde::{Deserialize, Serialize};

use crate::closure::read_module;
use crate::{Cache, Error, ModuleFile, Result, store};

/// Where the modules are in the guest, without the slash at the start.
const MODULES: &str = "lib/dmarig/modules";
/// Part of the key of a packed image: to be changed with what is packed.
const LAYOUT: &str = "1";

/// What to pack.
#[derive(Clone, Copy, Debug)]
pub struct InitramfsSpec<'a> {
    /// The program that becomes `/init`.
    pub agent: &'a [u8],
    /// In load order. They become `/lib/dmarig/modules/NN-NAME.ko`, unpacked, and
    /// `/lib/dmarig/modules.order` lists their paths, one in a line.
    pub modules: &'a [ModuleFile],
    /// The user's additions.
    pub files: &'a [AddedFile],
}

/// A file of the host that the guest gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedFile {
    /// Its absolute path in the guest.
    pub guest: String,
    /// The file; its permissions are kept, so that a program stays one.
    pub host: PathBuf,
}

/// An initramfs in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initramfs {
    /// For QEMU's `-initrd`.
    pub path: PathBuf,
    /// Of the file.
    pub sha256: String,
    /// The names of its modules, in load order.
    pub modules: Vec<String>,
}

/// The content of `initramfs/KEY.json`.
#[derive(Serialize, Deserialize)]
struct PackMemo {
    sha256: String,
    size: u64,
}

/// Something in the archive, by its path without the slash at the start.
enum Entry<'a> {
    Dir { mode: u32 },
    Console,
    Bytes { mode: u32, bytes: &'a [u8] },
    Module(&'a Path),
    Host { mode: u32, path: &'a Path },
}

impl Cache {
    /// Packs an initramfs, unless the same was packed before.
    pub fn pack(&self, spec: &InitramfsSpec<'_>) -> Result<Initramfs> {
        let order = modules_order(spec.modules);
        let entries = entries(spec, &order)?;
        let memo =
            self.dir().join("initramfs").join(format!("{}.json", self.pack_key(spec, &entries)?));
        let modules = spec.modules.iter().map(|m| m.name.clone()).collect();
        let place = |sha256: &str| self.dir().join("initramfs").join(format!("{sha256}.cpio"));
        if let Some(packed) = store::read_json::<PackMemo>(&memo)? {
            let path = place(&packed.sha256);
            if fs::metadata(&path).is_ok_and(|meta| meta.len() == packed.size) {
                store::touch(&path);
                store::touch(&memo);
                return Ok(Initramfs { path, sha256: packed.sha256, modules });
            }
        }
        let work = self.scratch.dir()?;
        let new = work.path().join("cpio");
        let (sha256, size) = write_file(&new, &entries)?;
        let path = place(&sha256);
        fs::rename(&new, &path).map_err(|e| Error::io("create", &path, e))?;
        self.scratch.write_json(&memo, &PackMemo { sha256: sha256.clone(), size })?;
        self.prune()?;
        Ok(Initramfs { path, sha256, modules })
    }

    /// A hash over all that decides the archive's bytes.
    fn pack_key(
        &self,
        spec: &InitramfsSpec<'_>,
        entries: &BTreeMap<String, Entry>,
    ) -> Result<String> {
        let mut key = format!("{LAYOUT}\n{}\n", sha256_hex(spec.agent));
        for module in spec.modules {
            key.push_str(&format!("{} {}\n", module.name, module.sha256));
        }
        for (name, entry) in entries {
            if let Entry::Host { mode, path } = entry {
                key.push_str(&format!("{name:?} {mode:o} {}\n", self.hash_of(path)?));
            }
        }
        Ok(sha256_hex(key.as_bytes()))
    }
}

/// The modules' paths in the guest, one in a line, in load order.
fn modules_order(modules: &[ModuleFile]) -> String {
    (0..modules.len()).map(|n| format!("/{}\n", module_path(modules, n))).collect()
}

fn module_path(modules: &[ModuleFile], number: usize) -> String {
    let width = modules.len().to_string().len().max(2);
    format!("{MODULES}/{number:0width$}-{}.ko", modules[number].name)
}

fn entries<'a>(spec: &'a InitramfsSpec<'_>, order: &'a str) -> Result<BTreeMap<String, Entry<'a>>> {
    let mut entries = BTreeMap::new();
    for name in ["dev", "proc", "sys", "run", "lib", "lib/dmarig", MODULES] {
        entries.insert(name.to_owned(), Entry::Dir { mode: 0o755 });
    }
    entries.insert("tmp".to_owned(), Entry::Dir { mode: 0o1777 });
    entries.insert("dev/console".to_owned(), Entry::Console);
    entries.insert("init".to_owned(), Entry::Bytes { mode: 0o755, bytes: spec.agent });
    let order = Entry::Bytes { mode: 0o644, bytes: order.as_bytes() };
    entries.insert("lib/dmarig/modules.order".to_owned(), order);
    for (number, module) in spec.modules.iter().enumerate() {
        entries.insert(module_path(spec.modules, number), Entry::Module(&module.path));
    }
    for file in spec.files {
        add_file(&mut entries, file)?;
    }
    Ok(entries)
}

fn add_file<'a>(entries: &mut BTreeMap<String, Entry<'a>>, file: &'a AddedFile) -> Result<()> {
    let bad = |reason: &str| {
        Err(Error::BadAddition { guest: file.guest.clone(), reason: reason.to_owned() })
    };
    let mut parts = Vec::new();
    for part in Path::new(&file.guest).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_string_lossy()),
            Component::RootDir | Component::CurDir => {}
            _ => return bad("the path has `..` in it; give it without"),
        }
    }
    if !file.guest.starts_with('/') || file.guest.ends_with('/') || parts.is_empty() {
        return bad("give an absolute path that ends in the file's name");
    }
    if file.guest.contains('\0') {
        return bad("the path has a zero byte in it");
    }
    let meta = fs::metadata(&file.host).map_err(|e| Error::io("read", &file.host, e))?;
    if !meta.is_file() || meta.len() > u64::from(u32::MAX) {
        return bad(&format!(
            "{} isn't a regular file of less than 4 GiB; give files one by one",
            file.host.display()
        ));
    }
    for end in 1..parts.len() {
        match entries.entry(parts[..end].join("/")).or_insert(Entry::Dir { mode: 0o755 }) {
            Entry::Dir { .. } => {}
            _ => return bad("part of the path is a file already"),
        }
    }
    let name = parts.join("/");
    if entries.contains_key(&name) {
        return bad("the initramfs has that path already; choose another");
    }
    let mode = meta.permissions().mode() & 0o7777;
    entries.insert(name, Entry::Host { mode, path: &file.host });
    Ok(())
}

/// Writes the archive; returns its hash and size.
fn write_file(path: &Path, entries: &BTreeMap<String, Entry>) -> Result<(String, u64)> {
    let failed = |e| Error::io("write", path, e);
    let file = File::create_new(path).map_err(failed)?;
    let mut archive =
        Archive { out: BufWriter::new(file), hash: Hasher::default(), size: 0, inode: 0 };
    for (name, entry) in entries {
        let (mode, content, device) = match entry {
            Entry::Dir { mode } => (0o040000 | mode, Vec::new(), (0, 0)),
            Entry::Console => (0o020600, Vec::new(), (5, 1)),
            Entry::Bytes { mode, bytes } => (0o100000 | mode, bytes.to_vec(), (0, 0)),
            Entry::Module(from) => (0o100644, read_module(from)?, (0, 0)),
            Entry::Host { mode, path: from } => {
                let bytes = fs::read(from).map_err(|e| Error::io("read", from, e))?;
                (0o100000 | mode, bytes, (0, 0))
            }
        };
        archive.entry(name, mode, &content, device).map_err(failed)?;
    }
    let (hash, size, file) = archive.finish().map_err(failed)?;
    file.sync_all().map_err(failed)?;
    Ok((hash, size))
}

/// A newc archive being written.
struct Archive {
    out: BufWriter<File>,
    hash: Hasher,
    size: u64,
    inode: u32,
}

impl Archive {
    /// Adds an entry that belongs to root and is of the year 1970.
    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        content: &[u8],
        device: (u32, u32),
    ) -> io::Result<()> {
        self.inode += 1;
        let links = if mode & 0o170000 == 0o040000 { 2 } else { 1 };
        self.record(self.inode, name, mode, links, content, device)
    }

    fn record(
        &mut self,
        inode: u32,
        name: &str,
        mode: u32,
        links: u32,
        content: &[u8],
        device: (u32, u32),
    ) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name_size = name.len() as u32 + 1;
        let mut header = b"070701".to_vec();
        // inode, mode, uid, gid, links, mtime, size, device, device of the node, name, checksum
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        for field in fields {
            write!(header, "{field:08X}")?;
        }
        header.extend_from_slice(name.as_bytes());
        header.push(0);
        self.put(&header)?;
        self.pad(4)?;
        self.put(content)?;
        self.pad(4)
    }

    fn finish(mut self) -> io::Result<(String, u64, File)> {
        self.record(0, "TRAILER!!!", 0, 1, &[], (0, 0))?;
        self.pad(512)?;
        let file = self.out.into_inner().map_err(|e| e.into_error())?;
        Ok((self.hash.finish(), self.size, file))
    }

    fn pad(&mut self, to: u64) -> io::Result<()> {
        let missing = self.size.next_multiple_of(to) - self.size;
        self.put(&[0; 512][..missing as usize])
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}
