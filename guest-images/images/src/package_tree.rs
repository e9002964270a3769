//! Unpacks whole packages into one tree that can be the root of a system, or a kernel's source,
//! without dpkg and without trust in them.
//!
//! The root of a system has a merged /usr, whatever the packages have. No entry is written through a link, and
//! no link leads out of the tree, so nothing outside can be read or written by way of it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::deb::{self, Control};
use crate::{Error, Result, store};

/// What all packages of a tree may unpack to. A QEMU with its libraries takes 0.2 GiB.
const MAX_TOTAL: u64 = 4 << 30;
const MAX_ENTRIES: usize = 200_000;
/// Directories that are below /usr in a merged tree, and links to there at its top.
const MERGED: [&str; 6] = ["bin", "lib", "lib32", "lib64", "libx32", "sbin"];
/// Parts of /usr/share for people to read.
const LEFT_OUT: [&str; 7] = ["bug", "doc", "doc-base", "info", "lintian", "locale", "man"];

/// A tree that packages are unpacked into.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    layout: Layout,
    bytes_left: u64,
    entries_left: usize,
}

/// Where the entries of an archive go.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// Below the root of a system, with a merged /usr.
    System,
    /// Without the directory that all are in, as a kernel's source is packed; what no x86 kernel is
    /// built from is left out.
    Source,
}

impl Layout {
    /// The place of an entry; `None` when it is left out.
    fn place<'a>(self, parts: &[&'a str]) -> Option<Vec<&'a str>> {
        match self {
            Layout::System => {
                let place = merged(parts);
                let left_out =
                    matches!(&place[..], ["usr", "share", part, ..] if LEFT_OUT.contains(part));
                (!left_out).then_some(place)
            }
            Layout::Source => {
                let place = parts.get(1..)?;
                is_built_from(place).then(|| place.to_vec())
            }
        }
    }
}

/// Whether a file of a kernel's source can matter to a kernel for x86. Half of the source is for
/// other machines, or for people to read.
fn is_built_from(place: &[&str]) -> bool {
    // Those of all machines are read for each: fs/hostfs/Makefile includes one of arch/um.
    let is_for_make = |name: &&str| name.starts_with("Kconfig") || name.starts_with("Makefile");
    let is_for_make = place.last().is_some_and(is_for_make);
    match place {
        ["arch", arch, _, ..] => *arch == "x86" || is_for_make,
        ["Documentation", _, ..] => is_for_make,
        ["tools", "perf" | "testing", ..] => false,
        _ => true,
    }
}

/// The dynamic loader of a QEMU takes these in a path for separators and variables.
pub(crate) fn check_path(cache: &Path) -> Result<()> {
    match cache.as_os_str().as_encoded_bytes().iter().any(|b| b":;$".contains(b)) {
        true => Err(Error::BadCachePath { path: cache.to_owned() }),
        false => Ok(()),
    }
}

impl Tree {
    /// Starts an empty root of a system, in a directory that isn't there yet.
    pub(crate) fn new(root: &Path) -> Result<Tree> {
        Tree::empty(root, Layout::System)
    }

    /// Unpacks the tar of a kernel's source into a directory that isn't there yet. Its files keep
    /// their times, by which `make` tells what is new. `archive` is where the tar is from.
    pub(crate) fn unpack_source(root: &Path, archive: &Path, tar: &mut dyn Read) -> Result<()> {
        Tree::empty(root, Layout::Source)?.unpack_data(archive, tar)
    }

    fn empty(root: &Path, layout: Layout) -> Result<Tree> {
        store::create_dir(root)?;
        let root = root.to_owned();
        Ok(Tree { root, layout, bytes_left: MAX_TOTAL, entries_left: MAX_ENTRIES })
    }

    /// Adds a package's files.
    pub(crate) fn unpack(&mut self, deb: &Path) -> Result<Control> {
        deb::read(deb, |tar| self.unpack_data(deb, tar))
    }

    /// Adds the links at the top, such as `lib64`: programs name their loader by them.
    pub(crate) fn finish(self) -> Result<()> {
        for name in MERGED.iter().filter(|name| self.root.join("usr").join(name).is_dir()) {
            let link = self.root.join(name);
            symlink(Path::new("usr").join(name), &link)
                .map_err(|e| Error::io("create", &link, e))?;
        }
        Ok(())
    }

    fn unpack_data(&mut self, deb: &Path, tar: &mut dyn Read) -> Result<()> {
        let mut tar = tar::Archive::new(tar.take(self.bytes_left));
        for entry in tar.entries().map_err(|e| Error::bad_deb(deb, e))? {
            let mut entry = entry.map_err(|e| Error::bad_deb(deb, e))?;
            let name = entry.path().map_err(|e| Error::bad_deb(deb, e))?.into_owned();
            match self.entries_left.checked_sub(1) {
                Some(left) => self.entries_left = left,
                None => return Err(refusal(deb, &name, "is one of too many")),
            }
            if let Some(reason) = self.add(deb, &name, &mut entry)? {
                return Err(refusal(deb, &name, reason));
            }
        }
        self.bytes_left = tar.into_inner().limit();
        Ok(())
    }

    /// Adds an entry, or says why it is refused.
    fn add(
        &self,
        deb: &Path,
        name: &Path,
        entry: &mut tar::Entry<'_, impl Read>,
    ) -> Result<Option<&'static str>> {
        let Some(parts) = deb::relative_parts(name) else {
            return Ok(Some("leaves the directory it is unpacked into"));
        };
        let Some(place) = self.layout.place(&parts) else { return Ok(None) };
        let kind = entry.header().entry_type();
        // A link from `lib` to `usr/lib` comes with `finish`.
        let made_later = kind.is_symlink() && matches!(&parts[..], [top] if MERGED.contains(top));
        let Some((_, parents)) = place.split_last().filter(|_| !made_later) else {
            return Ok(None);
        };
        if !self.make_dirs(if kind.is_dir() { &place } else { parents })? {
            return Ok(Some("lies below a link or a file"));
        }
        let target = self.path(&place);
        if kind.is_file() {
            self.write(deb, entry, &target)?;
        } else if kind.is_symlink() || kind.is_hard_link() {
            let to = entry.link_name().map_err(|e| Error::bad_deb(deb, e))?;
            let to = to.ok_or_else(|| Error::bad_deb(deb, "a link without a target"))?;
            if kind.is_symlink() {
                let above = &parts[..parts.len() - 1];
                let Some(to) = link_target(above, &to) else {
                    return Ok(Some("is a link out of the directory it is unpacked into"));
                };
                // What it leads to may have been left out.
                let Some(to) = self.layout.place(&to) else { return Ok(None) };
                make(deb, &target, symlink(relative(parents, &to), &target))?;
            } else {
                let Some(source) =
                    deb::relative_parts(&to).and_then(|to| self.file(&self.layout.place(&to)?))
                else {
                    return Ok(Some("is a second name of no file of the package"));
                };
                make(deb, &target, fs::hard_link(source, &target))?;
            }
        } else if !kind.is_dir() {
            return Ok(Some("is neither a file, a directory nor a link"));
        }
        Ok(None)
    }

    fn path(&self, parts: &[&str]) -> PathBuf {
        parts.iter().fold(self.root.clone(), |path, part| path.join(part))
    }

    /// Makes the directories that aren't there; false where one is something else.
    fn make_dirs(&self, parts: &[&str]) -> Result<bool> {
        let mut path = self.root.clone();
        for part in parts {
            path.push(part);
            match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => {}
                Ok(_) => return Ok(false),
                Err(_) => {
                    fs::create_dir(&path)
                        .map_err(|e| Error::io("create the directory", &path, e))?;
                }
            }
        }
        Ok(true)
    }

    /// The path of a file of the tree that is reached without a link.
    fn file(&self, parts: &[&str]) -> Option<PathBuf> {
        let (_, parents) = parts.split_last()?;
        let is_dir = |count| {
            let meta = fs::symlink_metadata(self.path(&parents[..count]));
            meta.is_ok_and(|meta| meta.is_dir())
        };
        let path = self.path(parts);
        let is_file = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file());
        ((1..=parents.len()).all(is_dir) && is_file).then_some(path)
    }

    /// Writes a file that whoever may enter the cache may read or run. It gets no other rights:
    /// what is set-user-ID in a package is not here.
    fn write(
        &self,
        deb: &Path,
        entry: &mut tar::Entry<'_, impl Read>,
        target: &Path,
    ) -> Result<()> {
        let runs = entry.header().mode().map_err(|e| Error::bad_deb(deb, e))? & 0o111 != 0;
        let mut file = make(deb, target, File::create_new(target))?;
        deb::copy(entry, &mut file, deb, target)?;
        let mode = fs::Permissions::from_mode(if runs { 0o755 } else { 0o644 });
        file.set_permissions(mode).map_err(|e| Error::io("write", target, e))?;
        if let Layout::Source = self.layout {
            let seconds = entry.header().mtime().map_err(|e| Error::bad_deb(deb, e))?;
            // Times of the far future would overflow; no archive has them.
            let seconds = Duration::from_secs(seconds.min(u64::from(u32::MAX)));
            file.set_modified(SystemTime::UNIX_EPOCH + seconds)
                .map_err(|e| Error::io("write", target, e))?;
        }
        Ok(())
    }
}

/// Tells a second entry of the same name from what the system may have against the first.
fn make<T>(deb: &Path, target: &Path, made: io::Result<T>) -> Result<T> {
    made.map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            Error::bad_deb(deb, format!("a second file for {}", target.display()))
        }
        _ => Error::io("create", target, e),
    })
}

fn refusal(deb: &Path, name: &Path, reason: &'static str) -> Error {
    let entry = name.to_string_lossy().escape_default().to_string();
    Error::UnsafeDeb { path: deb.to_owned(), entry, reason }
}

/// Where a path is in a tree with a merged /usr.
pub(crate) fn merged<'a>(parts: &[&'a str]) -> Vec<&'a str> {
    let below_usr = parts.first().is_some_and(|top| MERGED.contains(top));
    below_usr.then_some("usr").into_iter().chain(parts.iter().copied()).collect()
}

/// What a link in the directory `above` leads to, seen from the root; `None` when it climbs over
/// the root.
fn link_target<'a>(above: &[&'a str], to: &'a Path) -> Option<Vec<&'a str>> {
    let mut at = if to.is_absolute() { Vec::new() } else { above.to_vec() };
    for part in to.components() {
        match part {
            Component::Normal(part) => at.push(part.to_str()?),
            Component::ParentDir => {
                at.pop()?;
            }
            Component::CurDir | Component::RootDir => {}
            Component::Prefix(_) => return None,
        }
    }
    Some(at)
}

/// The way from a directory to a place, both seen from the root. It climbs no higher than the root,
/// as all directories above a link are real ones.
fn relative(from: &[&str], to: &[&str]) -> PathBuf {
    let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let up = from[common..].iter().map(|_| "..");
    let way: PathBuf = up.chain(to[common..].iter().copied()).collect();
    if way.as_os_str().is_empty() { ".".into() } else { way }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_link(at: &str, to: &str, expected: Option<&str>) {
        let parts: Vec<_> = at.split('/').collect();
        let above = &parts[..parts.len() - 1];
        let place = merged(&parts);
        let found = link_target(above, Path::new(to))
            .map(|to| relative(&place[..place.len() - 1], &merged(&to)));
        assert_eq!(found.as_deref(), expected.map(Path::new), "{at} -> {to}");
    }

    #[test]
    fn keeps_links_inside_the_tree() {
        check_link("lib64/ld.so", "/lib/x/ld.so", Some("../lib/x/ld.so"));
        check_link("usr/lib64/ld.so", "../lib/x/ld.so", Some("../lib/x/ld.so"));
        check_link("lib/x/liba.so", "../../usr/lib/x/liba.so.1", Some("liba.so.1"));
        check_link("usr/share/qemu/a.rom", "/usr/lib/ipxe/a.rom", Some("../../lib/ipxe/a.rom"));
        check_link("etc/a", "b/../../usr/./c", Some("../usr/c"));
        check_link("etc/self", ".", Some("."));
        check_link("usr/a/top", "/", Some("../.."));
        check_link("usr/a", "../../etc/passwd", None);
        check_link("usr/a", "/../etc/passwd", None);
        check_link("usr/a", "x/../../../b", None);
    }

    use tar::EntryType::{self, Directory, Fifo, Link, Regular, Symlink};

    /// A tar whose links have their targets as content.
    fn tar_of(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut out = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            let is_link = matches!(kind, Symlink | Link);
            // By hand: the crate would refuse the names that are tested.
            let fields = header.as_gnu_mut().unwrap();
            fields.name[..name.len()].copy_from_slice(name.as_bytes());
            if is_link {
                fields.linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            let content = if is_link { "" } else { content };
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_mode(if name.contains("bin/") { 0o6755 } else { 0o666 });
            header.set_cksum();
            out.append(&header, content.as_bytes()).unwrap();
        }
        out.into_inner().unwrap()
    }

    fn unpack(root: &Path, packages: &[&[(&str, EntryType, &str)]]) -> Result<()> {
        let mut tree = Tree::new(root)?;
        for entries in packages {
            tree.unpack_data(Path::new("x.deb"), &mut &tar_of(entries)[..])?;
        }
        tree.finish()
    }

    #[test]
    fn merges_usr_of_an_old_layout() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let libc: &[_] = &[
            ("./", Directory, ""),
            ("./lib64/", Directory, ""),
            ("./lib64/ld.so", Symlink, "/lib/x/ld.so"),
            ("./lib/x/ld.so", Regular, "loader"),
            ("./usr/lib/x/libc.so", Symlink, "/lib/x/ld.so"),
            ("./usr/share/doc/libc/copyright", Regular, "long"),
            ("./usr/share/man/evil", Fifo, ""),
        ];
        let more: &[_] = &[
            ("./bin", Symlink, "usr/bin"),
            ("./usr/bin/a", Regular, "program"),
            ("./usr/bin/b", Link, "./usr/bin/a"),
        ];
        unpack(&root, &[libc, more]).unwrap();
        for name in ["lib64/ld.so", "usr/lib64/ld.so", "lib/x/ld.so", "lib/x/libc.so"] {
            assert_eq!(fs::read_to_string(root.join(name)).unwrap(), "loader", "{name}");
        }
        assert_eq!(fs::read_link(root.join("bin")).unwrap(), Path::new("usr/bin"));
        assert_eq!(fs::read_to_string(root.join("bin/b")).unwrap(), "program");
        let mode = |name: &str| fs::metadata(root.join(name)).unwrap().permissions().mode();
        assert_eq!(mode("usr/bin/a") & 0o7777, 0o755);
        assert_eq!(mode("usr/lib/x/ld.so") & 0o7777, 0o644);
        assert!(!root.join("usr/share/doc").exists() && !root.join("usr/share/man").exists());
    }

    #[test]
    fn unpacks_a_source_without_its_top_directory_and_unused_parts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let tar = tar_of(&[
            ("linux-9/", Directory, ""),
            ("linux-9/Makefile", Regular, "all:"),
            ("linux-9/arch/Kconfig", Regular, "config"),
            ("linux-9/arch/x86/boot/a.c", Regular, "int a;"),
            ("linux-9/arch/mips/crypto/Kconfig", Regular, "config"),
            ("linux-9/arch/arm/boot/a.c", Regular, "int a;"),
            ("linux-9/arch/um/scripts/Makefile.rules", Regular, "rules"),
            ("linux-9/scripts/x86", Symlink, "../arch/x86"),
            ("linux-9/scripts/arm", Symlink, "../arch/arm/boot"),
            ("linux-9/Documentation/Kconfig", Regular, "config"),
            ("linux-9/Documentation/a.rst", Regular, "words"),
        ]);
        Tree::unpack_source(&root, Path::new("x.tar.xz"), &mut &tar[..]).unwrap();
        let kept = ["Makefile", "arch/Kconfig", "scripts/x86/boot/a.c", "Documentation/Kconfig"];
        for name in
            kept.into_iter().chain(["arch/mips/crypto/Kconfig", "arch/um/scripts/Makefile.rules"])
        {
            assert!(root.join(name).is_file(), "{name}");
        }
        for name in ["arch/arm", "scripts/arm", "Documentation/a.rst", "linux-9"] {
            assert!(fs::symlink_metadata(root.join(name)).is_err(), "{name}");
        }
        let modified = fs::metadata(root.join("Makefile")).unwrap().modified().unwrap();
        assert_eq!(modified, SystemTime::UNIX_EPOCH, "the time in the archive");
        let out = tar_of(&[("linux-9/a", Symlink, "../../outside")]);
        let refused = Tree::unpack_source(&dir.path().join("b"), Path::new("x"), &mut &out[..]);
        assert!(matches!(refused, Err(Error::UnsafeDeb { .. })));
    }

    #[track_caller]
    fn check_refused(entries: &[(&str, EntryType, &str)], text: &str) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("outside"), "mine").unwrap();
        let error = unpack(&dir.path().join("root"), &[entries]).unwrap_err();
        assert!(error.to_string().contains(text), "`{text}` isn't in: {error}");
        assert_eq!(fs::read_to_string(dir.path().join("outside")).unwrap(), "mine");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn refuses_paths_that_leave_the_tree() {
        for name in ["../outside", "./usr/../../outside", "/outside", "usr/share/doc/../../x"] {
            check_refused(&[(name, Regular, "x")], "leaves the directory");
        }
        for to in ["../outside", "../../outside", "/../outside"] {
            check_refused(&[("./a", Symlink, to)], "is a link out of");
        }
        for to in ["../outside", "./no/such", "/outside"] {
            check_refused(&[("./a", Link, to)], "is a second name of no file");
        }
        check_refused(&[("./a", Link, "")], "a link without a target");
    }

    #[test]
    fn never_writes_or_reads_through_a_link() {
        let below = "lies below a link or a file";
        for to in [".", "etc", "/"] {
            let link = ("./etc/d", Symlink, to);
            check_refused(&[link, ("./etc/d/e", Regular, "x")], below);
            check_refused(&[link, ("./etc/d/e/", Directory, "")], below);
            check_refused(&[link, ("./etc/d/", Directory, "")], below);
            check_refused(&[link, ("./etc/d", Regular, "x")], "a second file for");
            check_refused(&[link, ("./etc/d/f", Symlink, "../../outside")], below);
            check_refused(&[link, ("./b", Link, "./etc/d")], "second name of no file");
        }
        let file = ("./a", Regular, "x");
        check_refused(&[file, ("./a/b", Regular, "x")], below);
        check_refused(&[file, file], "a second file for");
        check_refused(&[file, ("./a", Symlink, "b")], "a second file for");
        check_refused(&[("./l", Symlink, "etc"), ("./b", Link, "./l/x")], "second name of no file");
    }

    #[test]
    fn refuses_devices_and_oversized_packages() {
        for kind in [Fifo, EntryType::Block, EntryType::Char, EntryType::Continuous] {
            check_refused(&[("./dev", kind, "")], "neither a file, a directory nor a link");
        }
        let dir = tempfile::tempdir().unwrap();
        let tar = tar_of(&[("./a", Regular, "0123456789"), ("./b", Regular, "x")]);
        let unpack = |bytes_left, entries_left, root: &str| {
            let mut tree = Tree { bytes_left, entries_left, ..Tree::new(&dir.path().join(root))? };
            tree.unpack_data(Path::new("x.deb"), &mut &tar[..])
        };
        assert!(unpack(1 << 20, 2, "whole").is_ok());
        assert!(matches!(unpack(1 << 20, 1, "many").unwrap_err(), Error::UnsafeDeb { .. }));
        assert!(matches!(unpack(515, 2, "large").unwrap_err(), Error::BadDeb { .. }));
    }

    #[test]
    fn refuses_a_cache_path_that_the_loader_misreads() {
        assert!(check_path(Path::new("/var/a b/'c'")).is_ok());
        for path in ["/a:b", "/a;b", "/$ORIGIN/b"] {
            let error = check_path(Path::new(path)).unwrap_err();
            assert!(error.to_string().contains(path), "{error}");
        }
    }
}
