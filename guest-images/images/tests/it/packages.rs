use std::fs;
use std::path::{Path, PathBuf};

use dmarig_images::{Boot, Cache, Error, KernelImage};
use tar::EntryType::{self, Regular};

use crate::synthetic::{CONFIG, Packing, RELEASE, bzimage, control, deb, module, vmlinux};

type Entries<'a> = [(&'a str, EntryType, &'a [u8])];

fn kernel() -> Vec<u8> {
    bzimage(Packing::Xz, &vmlinux(true))
}

fn resolve(dir: &Path, data: &[u8]) -> Result<(Cache, KernelImage), Error> {
    let path = dir.join("linux.deb");
    fs::write(&path, data).unwrap();
    let cache = Cache::open(Some(&dir.join("cache"))).unwrap();
    let image = cache.resolve(path.to_str().unwrap(), None)?;
    Ok((cache, image))
}

#[track_caller]
fn check_refused(data: &[u8], matches: fn(&Error) -> bool, text: &str) {
    let dir = tempfile::tempdir().unwrap();
    let error = resolve(dir.path(), data).unwrap_err();
    assert!(matches(&error), "{error:?}");
    assert!(error.to_string().contains(text), "`{text}` isn't in: {error}");
    for part in ["tmp", "objects"] {
        let left = fs::read_dir(dir.path().join("cache").join(part)).unwrap().count();
        assert_eq!(left, 0, "something is left in {part}");
    }
}

#[test]
fn resolves_a_whole_package() {
    let (kernel, module) = (kernel(), module(&["name=a", "depends="]));
    let modules = format!("./lib/modules/{RELEASE}");
    let names: Vec<_> = ["kernel/a-b.ko", "modules.builtin", "build/Makefile", "modules.order"]
        .iter()
        .map(|name| format!("{modules}/{name}"))
        .collect();
    let data = deb(
        &control("linux-image-x"),
        &[
            ("./boot/", EntryType::Directory, b""),
            ("./boot/vmlinuz-x", Regular, &kernel),
            ("./boot/config-x", Regular, CONFIG.as_bytes()),
            ("./boot/System.map-x", Regular, b"map"),
            (&names[0], Regular, &module),
            (&names[1], Regular, b"kernel/b.ko\n"),
            (&names[2], Regular, b"all:\n"),
            (&names[3], Regular, b"kernel/a-b.ko\n"),
        ],
    );
    let dir = tempfile::tempdir().unwrap();
    let (cache, image) = resolve(dir.path(), &data).unwrap();
    assert_eq!((image.boot, image.release.as_str()), (Boot::Pvh, RELEASE));
    assert_eq!(image.packages[0].source, "linux-image-x 1");
    assert!(image.config.unwrap().is_on("CONFIG_PVH"));
    let modules = image.modules.unwrap();
    let mut files: Vec<PathBuf> =
        fs::read_dir(&modules).unwrap().map(|e| e.unwrap().file_name().into()).collect();
    files.sort();
    assert_eq!(files, ["kernel", "modules.builtin", "modules.order"].map(PathBuf::from));
    assert_eq!(cache.closure(&modules, &["a_b", "b"]).unwrap().len(), 1);
}

#[test]
fn takes_modules_from_a_separate_package() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = kernel();
    let data = deb(&control("linux-binary"), &[("./usr/lib/modules/x/vmlinuz", Regular, &kernel)]);
    let (cache, image) = resolve(dir.path(), &data).unwrap();
    assert_eq!(image.modules, None);
    assert!(image.notes[0].contains("--modules"), "{:?}", image.notes);
    let modules = dir.path().join("modules.deb");
    let entries: &Entries = &[("./usr/lib/modules/x/modules.builtin", Regular, b"")];
    fs::write(&modules, deb(&control("linux-modules"), entries)).unwrap();
    let image = cache.resolve(&image.label, Some(&modules)).unwrap();
    assert!(image.modules.unwrap().join("modules.builtin").exists());
}

#[test]
fn refuses_traversal_and_links() {
    let unsafe_deb = |e: &Error| matches!(e, Error::UnsafeDeb { .. });
    let kernel = kernel();
    let names = ["../x", "./boot/../../x", "/etc/x", "./lib/modules/x/../../../../x.ko"];
    for name in names {
        let entries: &Entries = &[("./boot/vmlinuz-x", Regular, &kernel), (name, Regular, b"x")];
        check_refused(&deb(&control("x"), entries), unsafe_deb, "leaves the directory");
    }
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::Fifo] {
        let entries: &Entries = &[("./boot/vmlinuz-x", kind, b"")];
        check_refused(&deb(&control("x"), entries), unsafe_deb, "link or a device");
    }
    // What isn't needed isn't written, so a link there does no harm: packages have `build`.
    let entries: &Entries = &[
        ("./lib/modules/x/build", EntryType::Symlink, b""),
        ("./boot/vmlinuz-x", Regular, &kernel),
    ];
    let dir = tempfile::tempdir().unwrap();
    assert!(resolve(dir.path(), &deb(&control("x"), entries)).is_ok());
}

#[test]
fn reports_packages_without_a_kernel() {
    let no_kernel = |e: &Error| matches!(e, Error::NoKernelInDeb { .. });
    let dir = tempfile::tempdir().unwrap();
    let meta = deb(&control("linux-image-amd64"), &[("./usr/share/doc/x", Regular, b"x")]);
    let error = resolve(dir.path(), &meta).unwrap_err();
    assert!(no_kernel(&error), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("linux-image-amd64") && text.contains("depends on: linux-image-x"),
        "{text}"
    );
}

#[test]
fn refuses_damaged_packages() {
    let bad = |e: &Error| matches!(e, Error::BadDeb { .. });
    let kernel = kernel();
    let entries: &Entries = &[("./boot/vmlinuz-x", Regular, &kernel)];
    let whole = deb(&control("x"), entries);
    for size in [100, 400, whole.len() / 2, whole.len() - 1000] {
        check_refused(&whole[..size], bad, "not a usable .deb");
    }
    check_refused(&deb("Version: 1\n", entries), bad, "no Package");
    let twice = [entries, entries].concat();
    check_refused(&deb(&control("x"), &twice), bad, "two files");
    let arm = control("x").replace("amd64", "arm64");
    check_refused(&deb(&arm, entries), |e| matches!(e, Error::WrongArch { .. }), "arm64");
}
