use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use dmarig_images::{AddedFile, Cache, Error, Initramfs, InitramfsSpec, ModuleFile};

use crate::synthetic::{module, xz};

fn modules(dir: &Path) -> Vec<ModuleFile> {
    let tree = dir.join("tree");
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("b.ko"), module(&["depends=a"])).unwrap();
    fs::write(tree.join("a.ko.xz"), xz(&module(&["depends="]))).unwrap();
    cache(dir).closure(&tree, &["b"]).unwrap()
}

fn cache(dir: &Path) -> Cache {
    Cache::open(Some(&dir.join("cache"))).unwrap()
}

fn added(dir: &Path, guest: &str) -> AddedFile {
    let host = dir.join("tool");
    fs::write(&host, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&host, fs::Permissions::from_mode(0o755)).unwrap();
    AddedFile { guest: guest.to_owned(), host }
}

fn pack(dir: &Path, files: &[AddedFile]) -> Result<Initramfs, Error> {
    let modules = modules(dir);
    cache(dir).pack(&InitramfsSpec { agent: b"\x7fELF agent", modules: &modules, files })
}

#[test]
fn packs_the_same_input_into_the_same_bytes() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let packed = pack(one.path(), &[added(one.path(), "/opt/bin/tool")]).unwrap();
    let again = pack(two.path(), &[added(two.path(), "/opt/bin/tool")]).unwrap();
    assert_eq!(packed.modules, ["a", "b"]);
    assert_eq!(packed.sha256, again.sha256);
    assert_eq!(fs::read(&packed.path).unwrap(), fs::read(&again.path).unwrap());
    // From the cache, and without it.
    assert_eq!(pack(one.path(), &[added(one.path(), "/opt/bin/tool")]).unwrap(), packed);
    fs::remove_file(&packed.path).unwrap();
    assert_eq!(pack(one.path(), &[added(one.path(), "/opt/bin/tool")]).unwrap(), packed);
    assert_ne!(pack(one.path(), &[]).unwrap().sha256, packed.sha256);
}

#[test]
fn packs_an_archive_that_cpio_reads() {
    let dir = tempfile::tempdir().unwrap();
    let packed = pack(dir.path(), &[added(dir.path(), "/opt/bin/tool")]).unwrap();
    let archive = fs::File::open(&packed.path).unwrap();
    let cpio = Command::new("cpio").args(["-tvn", "--quiet"]).stdin(Stdio::from(archive)).output();
    let Ok(listing) = cpio else {
        eprintln!("cpio isn't installed: not tested against it");
        return;
    };
    assert!(listing.status.success(), "{listing:?}");
    let listing = String::from_utf8(listing.stdout).unwrap();
    let lines: Vec<Vec<&str>> = listing.lines().map(|l| l.split_whitespace().collect()).collect();
    let found: Vec<_> = lines.iter().map(|l| (l[0], *l.last().unwrap())).collect();
    assert_eq!(
        found,
        [
            ("drwxr-xr-x", "dev"),
            ("crw-------", "dev/console"),
            ("-rwxr-xr-x", "init"),
            ("drwxr-xr-x", "lib"),
            ("drwxr-xr-x", "lib/dmarig"),
            ("drwxr-xr-x", "lib/dmarig/modules"),
            ("-rw-r--r--", "lib/dmarig/modules.order"),
            ("-rw-r--r--", "lib/dmarig/modules/00-a.ko"),
            ("-rw-r--r--", "lib/dmarig/modules/01-b.ko"),
            ("drwxr-xr-x", "opt"),
            ("drwxr-xr-x", "opt/bin"),
            ("-rwxr-xr-x", "opt/bin/tool"),
            ("drwxr-xr-x", "proc"),
            ("drwxr-xr-x", "run"),
            ("drwxr-xr-x", "sys"),
            ("drwxrwxrwt", "tmp"),
        ]
    );
    let bytes = fs::read(&packed.path).unwrap();
    let has = |part: &[u8]| bytes.windows(part.len()).any(|w| w == part);
    assert!(has(b"/lib/dmarig/modules/00-a.ko\n/lib/dmarig/modules/01-b.ko\n"));
    assert!(has(&module(&["depends="])), "modules are unpacked");
}

#[test]
fn refuses_bad_additions() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["relative", "/", "/a/../init", "/init", "/lib/dmarig/modules", "/init/x", "/dir/"];
    for guest in names {
        let error = pack(dir.path(), &[added(dir.path(), guest)]).unwrap_err();
        assert!(matches!(&error, Error::BadAddition { guest: g, .. } if g == guest), "{error}");
    }
    let host = dir.path().join("tree");
    let error = pack(dir.path(), &[AddedFile { guest: "/x".into(), host }]).unwrap_err();
    assert!(error.to_string().contains("regular file"), "{error}");
    let host = dir.path().join("gone");
    let error = pack(dir.path(), &[AddedFile { guest: "/x".into(), host }]).unwrap_err();
    assert!(error.to_string().contains("gone"), "{error}");
}
