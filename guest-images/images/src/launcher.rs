//! Makes a tree's QEMU start by a file that behaves like a QEMU of the system.
//!
//! ```text
//! qemu-system-x86_64          a script: the file to run
//! loader/qemu-system-x86_64   a copy of the tree's dynamic loader
//! loader/qemu-bundle          a link to root
//! root/                       the unpacked packages
//! ```
//!
//! The loader is run rather than the QEMU, since the latter names a loader of the system by its
//! absolute path. QEMU takes the directory of the program that runs, `/proc/self/exe`, for its own
//! and looks for `qemu-bundle` there, which its build makes to run it uninstalled (QEMU:
//! util/cutils.c, `get_relocated_path`, since 7.1). All paths that are compiled in then start there:
//! firmware, configuration and modules. So a module of the system's QEMU, on which another build
//! aborts, is not seen; and no namespace and no privilege is needed.
//! (`/run/qemu/VERSION`, which is not looked for there, has modules of this very build, if any.)

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use object::Endianness;
use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader64};
use object::read::elf::{Dynamic, FileHeader};

use crate::{Error, Result, package_tree, store};

/// The file to run, and the name of the program in the tree.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";
/// The unpacked packages.
pub(crate) const ROOT: &str = "root";
const LOADER: &str = "loader";
/// As the psABI has it, and where Debian's architecture has its libraries.
const INTERPRETER: &str = "usr/lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const MODULES: &str = "usr/lib/x86_64-linux-gnu/qemu";
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// Installs the program that starts the QEMU of `recipe` in the tree at `dir`.
///
/// # Errors
/// [`Error::NoQemu`] if the tree lacks something that the QEMU is linked with.
pub(crate) fn install_launcher(dir: &Path, recipe: &str) -> Result<()> {
    let root = dir.join(ROOT);
    let program = root.join("usr/bin").join(PROGRAM);
    let interpreter = root.join(INTERPRETER);
    for path in [&program, &interpreter] {
        if !path.is_file() {
            return Err(no_qemu(recipe, format!("there is no {}", within(&root, path))));
        }
    }
    let libraries = libraries(&root, program, recipe)?.dirs;
    let loader = dir.join(LOADER);
    store::create_dir(&loader)?;
    // Processes are listed under its name.
    let copy = loader.join(PROGRAM);
    fs::copy(&interpreter, &copy).map_err(|e| Error::io("write", &copy, e))?;
    let bundle = loader.join("qemu-bundle");
    symlink(Path::new("..").join(ROOT), &bundle).map_err(|e| Error::io("create", &bundle, e))?;
    let launcher = dir.join(PROGRAM);
    fs::write(&launcher, script(&libraries)).map_err(|e| Error::io("write", &launcher, e))?;
    for path in [&copy, &launcher] {
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(path, mode).map_err(|e| Error::io("write", path, e))?;
    }
    Ok(())
}

/// Whether the tree in `dir` has all that starts it.
pub(crate) fn is_whole(dir: &Path) -> bool {
    let program = Path::new(ROOT).join("usr/bin").join(PROGRAM);
    [PROGRAM.into(), Path::new(LOADER).join(PROGRAM), program]
        .iter()
        .all(|path: &PathBuf| fs::metadata(dir.join(path)).is_ok_and(|meta| meta.len() > 0))
}

/// The script. It finds the tree by its own name, so a cache can be moved, and links to it work.
fn script(libraries: &[String]) -> String {
    let libraries: Vec<_> = libraries.iter().map(|dir| format!("$root/{dir}")).collect();
    let libraries = libraries.join(":");
    format!(
        r#"#!/bin/sh
# Written by dmarig: runs the QEMU next to it with its own loader, libraries, modules and firmware.
self=$0
if [ -L "$self" ]; then self=$(readlink -f -- "$self") || exit 127; fi
case $self in */*) ;; *) self=./$self ;; esac
here=$(CDPATH='' cd -- "${{self%/*}}" && pwd -P) || exit 127
root=$here/{ROOT}
# These are for the programs of the system, and so is any other place for modules.
unset LD_AUDIT LD_LIBRARY_PATH LD_PRELOAD
export QEMU_MODULE_DIR="$root/{MODULES}"
exec "$here/{LOADER}/{PROGRAM}" --inhibit-cache --library-path "{libraries}" \
    "$root/usr/bin/{PROGRAM}" "$@"
"#
    )
}

/// Lists the files that the QEMU of a tree needs to run: itself, its libraries and modules with the
/// loader, and the firmware. Each path is relative to the tree's root.
pub(crate) fn needed_files(root: &Path, recipe: &str) -> Result<Vec<PathBuf>> {
    let program = Path::new("usr/bin").join(PROGRAM);
    let mut files = libraries(root, root.join(&program), recipe)?.files;
    files.insert(root.join(INTERPRETER));
    for firmware in FIRMWARE {
        let entries = walkdir::WalkDir::new(root.join(firmware)).into_iter().flatten();
        files.extend(entries.map(walkdir::DirEntry::into_path).filter(|path| path.is_file()));
    }
    Ok(files.iter().filter_map(|path| Some(path.strip_prefix(root).ok()?.to_owned())).collect())
}

/// What a program and QEMU's modules are linked with.
struct Libraries {
    /// The directories below the root that have them.
    dirs: Vec<String>,
    /// The program, the modules and the libraries.
    files: BTreeSet<PathBuf>,
}

/// Finds all libraries below `root`; fails where one is nowhere. Some libraries name the directory
/// of others by its absolute path, which would be a directory of the system.
fn libraries(root: &Path, program: PathBuf, recipe: &str) -> Result<Libraries> {
    let mut dirs = vec![LIBRARIES.to_owned()];
    let mut files = vec![program];
    let modules = fs::read_dir(root.join(MODULES)).into_iter().flatten().flatten();
    files.extend(modules.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "so")));
    let mut seen = BTreeSet::new();
    let mut all = BTreeSet::new();
    while let Some(file) = files.pop() {
        let linked = linked(root, &file, recipe)?;
        all.insert(file.clone());
        for dir in linked.dirs {
            if !dirs.contains(&dir) && root.join(&dir).is_dir() {
                dirs.push(dir);
            }
        }
        for name in linked.needed {
            if !seen.insert(name.clone()) {
                continue;
            }
            let found = dirs.iter().map(|dir| root.join(dir).join(&name)).find(|p| p.is_file());
            files.push(found.ok_or_else(|| {
                let file = within(root, &file);
                no_qemu(recipe, format!("{file} is linked with {name}, which isn't there"))
            })?);
        }
    }
    Ok(Libraries { dirs, files: all })
}

/// What an ELF file is linked with, and where it says that this is, below the root.
struct Linked {
    needed: Vec<String>,
    dirs: Vec<String>,
}

fn linked(root: &Path, file: &Path, recipe: &str) -> Result<Linked> {
    let fail = |reason: String| no_qemu(recipe, format!("{}: {reason}", within(root, file)));
    let data = fs::read(file).map_err(|e| fail(e.to_string()))?;
    let broken = |e: object::read::Error| fail(format!("a broken ELF file ({e})"));
    let header = FileHeader64::<Endianness>::parse(&*data).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    let sections = header.sections(endian, &*data).map_err(broken)?;
    let dynamic = sections.dynamic_table(endian, &*data).map_err(broken)?;
    let mut linked = Linked { needed: Vec::new(), dirs: Vec::new() };
    for entry in dynamic.iter().filter(Dynamic::is_string) {
        let text = dynamic.string(entry).map_err(broken)?;
        let text = std::str::from_utf8(text).map_err(|e| fail(e.to_string()))?;
        match entry.tag {
            DT_NEEDED => linked.needed.push(text.to_owned()),
            DT_RPATH | DT_RUNPATH => linked.dirs.extend(text.split(':').filter_map(below_root)),
            _ => {}
        }
    }
    Ok(linked)
}

/// An absolute directory of a system as one of the tree, if it could stand in the script.
fn below_root(dir: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-".contains(c);
    let rest = dir.strip_prefix('/').filter(|rest| rest.chars().all(plain))?;
    let parts: Vec<_> = rest.split('/').filter(|part| !part.is_empty()).collect();
    (!parts.contains(&"..")).then(|| package_tree::merged(&parts).join("/"))
}

fn no_qemu(recipe: &str, reason: String) -> Error {
    Error::NoQemu { recipe: recipe.to_owned(), reason }
}

fn within(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A tree whose QEMU is a program of this system; `None` where that isn't built for glibc.
    fn tree(dir: &Path, program: &str, with_libc: bool) -> Option<PathBuf> {
        let find = |names: &[&str]| names.iter().map(PathBuf::from).find(|path| path.is_file());
        let loader = find(&["/lib64/ld-linux-x86-64.so.2"])?;
        let libc = find(&["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6"])?;
        let root = dir.join(ROOT);
        for part in ["usr/bin", "usr/lib64", LIBRARIES] {
            fs::create_dir_all(root.join(part)).unwrap();
        }
        fs::copy(program, root.join("usr/bin").join(PROGRAM)).unwrap();
        fs::copy(&loader, root.join(INTERPRETER)).unwrap();
        if with_libc {
            // The loader is a library too.
            fs::copy(&loader, root.join(LIBRARIES).join("ld-linux-x86-64.so.2")).unwrap();
            fs::copy(libc, root.join(LIBRARIES).join("libc.so.6")).unwrap();
        }
        Some(dir.join(PROGRAM))
    }

    #[track_caller]
    fn output(command: &mut Command) -> String {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn passes_arguments_and_paths_unchanged() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("it's \"a\" `cache` *\\");
        let Some(launcher) = tree(&dir, "/usr/bin/printf", true) else { return };
        install_launcher(&dir, "q").unwrap();
        assert!(is_whole(&dir));
        fs::create_dir_all(dir.join(ROOT).join("usr/share/seabios")).unwrap();
        fs::write(dir.join(ROOT).join("usr/share/seabios/bios.bin"), "x").unwrap();
        let with = needed_files(&dir.join(ROOT), "q").unwrap();
        let with: Vec<_> = with.iter().map(|path| path.to_str().unwrap()).collect();
        for file in ["usr/bin/qemu-system-x86_64", INTERPRETER, "usr/share/seabios/bios.bin"] {
            assert!(with.contains(&file), "{with:?}");
        }
        assert!(with.contains(&"usr/lib/x86_64-linux-gnu/libc.so.6"), "{with:?}");
        let words = ["%s|", "", "a b", "$HOME", "`x`", "'\"", "*", "-L", "\n"];
        let expected = words[1..].concat().len() + words.len() - 1;
        let check = |command: &mut Command| {
            let text = output(command.args(words));
            assert_eq!(text.len(), expected, "{text}");
            assert_eq!(text, words[1..].iter().map(|w| format!("{w}|")).collect::<String>());
        };
        check(&mut Command::new(&launcher));
        check(Command::new(&launcher).current_dir("/").env("CDPATH", "/usr:/"));
        check(Command::new("sh").arg(PROGRAM).current_dir(&dir));
        // By links, of which one is relative.
        let (near, far) = (dir.join("near"), outer.path().join("far"));
        symlink(PROGRAM, &near).unwrap();
        symlink(&near, &far).unwrap();
        check(&mut Command::new(&far));
        // From the PATH, and after the cache was moved.
        let moved = outer.path().join("moved");
        fs::rename(&dir, &moved).unwrap();
        check(Command::new(PROGRAM).env("PATH", format!("{}:/usr/bin:/bin", moved.display())));
    }

    #[test]
    fn removes_library_variables_from_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        let Some(launcher) = tree(dir.path(), "/usr/bin/env", true) else { return };
        install_launcher(dir.path(), "q").unwrap();
        let own = ["LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT", "QEMU_MODULE_DIR"];
        let mut command = Command::new(launcher);
        // The shell that reads the script doesn't mind them.
        own.iter().for_each(|name| {
            command.env(name, "");
        });
        let text = output(command.env("DMARIG_MARK", "x").env("QEMU_MODULE_DIR", "/elsewhere"));
        assert!(text.lines().any(|line| line == "DMARIG_MARK=x"), "{text}");
        let linker = |line: &str| line.starts_with("LD_");
        assert!(!text.lines().any(linker) && !text.contains("/elsewhere"), "{text}");
        let modules = dir.path().canonicalize().unwrap().join(ROOT).join(MODULES);
        assert!(text.contains(&format!("QEMU_MODULE_DIR={}\n", modules.display())), "{text}");
    }

    #[test]
    fn reports_missing_files() {
        let dir = tempfile::tempdir().unwrap();
        let missing = |dir: &Path| match install_launcher(dir, "q").unwrap_err() {
            Error::NoQemu { recipe, reason } if recipe == "q" => reason,
            other => panic!("{other}"),
        };
        assert_eq!(missing(dir.path()), "there is no usr/bin/qemu-system-x86_64");
        if tree(dir.path(), "/usr/bin/printf", false).is_none() {
            return;
        }
        let reason = "usr/bin/qemu-system-x86_64 is linked with libc.so.6, which isn't there";
        assert_eq!(missing(dir.path()), reason);
        fs::remove_file(dir.path().join(ROOT).join(INTERPRETER)).unwrap();
        assert_eq!(missing(dir.path()), format!("there is no {INTERPRETER}"));
        fs::write(dir.path().join(ROOT).join(INTERPRETER), "x").unwrap();
        fs::write(dir.path().join(ROOT).join("usr/bin").join(PROGRAM), "x").unwrap();
        assert!(missing(dir.path()).contains("a broken ELF file"));
        assert!(!is_whole(dir.path()));
    }

    #[test]
    fn maps_library_directories_below_the_root() {
        let below = |dir| below_root(dir);
        assert_eq!(below("/lib/x/pulse").as_deref(), Some("usr/lib/x/pulse"));
        assert_eq!(below("/usr/lib//x/").as_deref(), Some("usr/lib/x"));
        for dir in ["$ORIGIN/x", "lib", "", "/usr/../../x", "/usr/lib/$(x)", "/a b", "/a\"b"] {
            assert_eq!(below(dir), None, "{dir}");
        }
    }
}
