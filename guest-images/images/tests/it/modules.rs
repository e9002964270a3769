use std::fs;
use std::path::Path;

use dmarig_images::{Cache, Error};
use tempfile::TempDir;

use crate::synthetic::{gzip, module, xz, zstd};

fn tree() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let net = dir.path().join("tree/kernel/net");
    fs::create_dir_all(&net).unwrap();
    let write = |file: &str, data: Vec<u8>| fs::write(net.join(file), data).unwrap();
    write(
        "top-one.ko",
        module(&["name=top_one", "depends=mid,core-a", "softdep=pre: soft gone post: late"]),
    );
    write("mid.ko.xz", xz(&module(&["depends=core_a,builtin_b", "name=mid"])));
    write("core-a.ko.zst", zstd(&module(&["depends=", "name=core_a"])));
    write("soft.ko.gz", gzip(&module(&["depends="])));
    write("late.ko", module(&["depends="]));
    write("broken.ko", b"\x7fELF and nothing".to_vec());
    write("lonely.ko", module(&["depends=missing"]));
    write("ring.ko", module(&["depends=ring2"]));
    write("ring2.ko", module(&["depends=ring"]));
    fs::write(dir.path().join("tree/modules.builtin"), "kernel/x/builtin-b.ko\n").unwrap();
    dir
}

fn closure(dir: &Path, wanted: &[&str]) -> Result<Vec<String>, Error> {
    let cache = Cache::open(Some(&dir.join("cache"))).unwrap();
    let modules = cache.closure(&dir.join("tree"), wanted)?;
    assert!(modules.iter().all(|m| m.path.exists() && m.sha256.len() == 64));
    Ok(modules.into_iter().map(|m| m.name).collect())
}

#[test]
fn orders_dependencies_first() {
    let dir = tree();
    // The second time from the index.
    for _ in 0..2 {
        let order = closure(dir.path(), &["top-one", "core_a", "builtin-b"]).unwrap();
        assert_eq!(order, ["core_a", "mid", "soft", "top_one"]);
    }
    assert_eq!(closure(dir.path(), &[]).unwrap(), [""; 0]);
}

#[test]
fn reports_damaged_or_missing_modules() {
    let dir = tree();
    let error = closure(dir.path(), &["no-such"]).unwrap_err();
    assert!(matches!(&error, Error::NoModule { name, needed_by: None, .. } if name == "no_such"));
    let error = closure(dir.path(), &["lonely"]).unwrap_err();
    assert!(error.to_string().contains("no module `missing` (needed by lonely)"), "{error}");
    let error = closure(dir.path(), &["ring"]).unwrap_err();
    assert!(error.to_string().contains("ring -> ring2 -> ring"), "{error}");
    let error = closure(dir.path(), &["broken"]).unwrap_err();
    assert!(matches!(&error, Error::BadModule { path, .. } if path.ends_with("broken.ko")));
}

#[test]
fn rereads_a_changed_tree() {
    let dir = tree();
    assert!(closure(dir.path(), &["lonely"]).is_err());
    let net = dir.path().join("tree/kernel/net");
    fs::write(net.join("missing.ko"), module(&["depends=late"])).unwrap();
    assert_eq!(closure(dir.path(), &["lonely"]).unwrap(), ["late", "missing", "lonely"]);
    fs::write(net.join("missing.ko"), module(&["depends=", "new=1"])).unwrap();
    assert_eq!(closure(dir.path(), &["lonely"]).unwrap(), ["missing", "lonely"]);
    fs::rename(net.join("late.ko"), dir.path().join("tree/kernel/late.ko")).unwrap();
    assert_eq!(closure(dir.path(), &["late"]).unwrap(), ["late"]);
}

#[test]
fn lists_the_modules_of_a_build_tree() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("drivers")).unwrap();
    fs::write(tree.join("Makefile"), "").unwrap();
    fs::write(tree.join("modules.order"), "drivers/new.o\nkernel/drivers/old.ko\ndrivers/gone.o\n")
        .unwrap();
    fs::write(tree.join("drivers/new.ko"), module(&["depends=old"])).unwrap();
    fs::write(tree.join("drivers/old.ko"), module(&["depends="])).unwrap();
    assert_eq!(closure(dir.path(), &["new"]).unwrap(), ["old", "new"]);
    assert!(closure(dir.path(), &["gone"]).is_err());
}
