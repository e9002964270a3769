//! Sources of kernels from an archive, and kernels that were built.

use std::fs;

use dmarig_images::{Boot, BuiltKernel, Cache, ConfigValue, Error, Silent};
use tar::EntryType::Regular;

use crate::repository::{Content, Repository};
use crate::synthetic::{vmlinux, xz};

const RECIPE: &str = "name: linux-9, suite: sid, package: linux-source";

/// What `linux-source-9.9` holds.
fn packed(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_600_000_000);
        tar.append_data(&mut header, format!("linux-source-9.9/{name}"), text.as_bytes()).unwrap();
    }
    xz(&tar.into_inner().unwrap())
}

fn publish(repository: &Repository, name: &str, version: &str, data: Vec<u8>) {
    let entries = vec![(name.to_owned(), Regular, data)];
    let meta = Content { depends: "linux-source-9.9", ..Content::default() };
    let source = Content { entries, ..Content::default() };
    let packages = [("linux-source", version, meta), ("linux-source-9.9", version, source)];
    repository.publish("sid", &packages);
}

#[test]
fn fetches_a_source_by_its_meta_package() {
    let Some(repository) = Repository::new() else { return };
    let files = [("Makefile", "all:"), ("Kconfig", ""), ("arch/arm/a.c", ""), ("a/b.c", "int b;")];
    publish(&repository, "./usr/src/linux-source-9.9.tar.xz", "9.9.1-1", packed(&files));
    let cache = repository.cache_of("sources", "cache", &[RECIPE]);
    assert!(matches!(cache.source("linux-9"), Err(Error::SourceNotFetched { .. })));
    assert!(cache.source("other").unwrap().is_none());
    let recipe = cache.recipes().source("linux-9").unwrap().clone();
    let fetched = cache.fetch(&recipe, &repository.options(), &Silent).unwrap();
    assert_eq!((fetched.version.as_str(), fetched.already_cached), ("9.9.1-1", false));
    let source = cache.source("linux-9").unwrap().unwrap();
    assert_eq!(source.package.name, "linux-source-9.9");
    assert_eq!(fs::read_to_string(source.root.join("a/b.c")).unwrap(), "int b;");
    assert!(!source.root.join("arch").exists());
    assert!(cache.fetch(&recipe, &repository.options(), &Silent).unwrap().already_cached);
    assert_eq!(cache.sources().unwrap().len(), 1);
    // One that an earlier version unpacked otherwise is fetched again.
    let contents = source.root.with_file_name("tree.json");
    let text = fs::read_to_string(&contents).unwrap();
    fs::write(&contents, text.replace("\"layout\"", "\"other\"")).unwrap();
    assert!(matches!(cache.source("linux-9"), Err(Error::SourceNotFetched { .. })));
    assert!(!cache.fetch(&recipe, &repository.options(), &Silent).unwrap().already_cached);
    assert!(cache.source("linux-9").unwrap().is_some());
    // It is no kernel: what it takes to be one is told.
    let error = cache.resolve("linux-9", None).unwrap_err().to_string();
    assert!(error.contains("dmarig kernel build linux-9"), "{error}");

    let files = [("Makefile", "all: more"), ("Kconfig", "")];
    publish(&repository, "./usr/src/linux-source-9.9.tar.xz", "9.9.2-1", packed(&files));
    assert!(!cache.fetch(&recipe, &repository.options(), &Silent).unwrap().already_cached);
    let newer = cache.source("linux-9").unwrap().unwrap();
    assert_ne!(newer.id, source.id);
    // Who builds from the older one is not harmed.
    assert!(source.root.join("Makefile").exists());
    assert!(cache.rm("linux-9").unwrap() > 0);
    assert!(!newer.root.exists());
}

#[test]
fn takes_the_newest_version_of_a_release_and_its_updates() {
    let Some(repository) = Repository::new() else { return };
    let updates = "updates: [{suite: rel-updates, archive: debian}, \
                   {suite: rel-security, archive: debian-security}]";
    let recipe = format!("name: linux-9, suite: rel, package: linux-source, {updates}");
    let cases = [
        (["9.9.1-1", "9.9.2-1", "9.9.10-1"], "9.9.10-1"),
        (["9.9.1-1", "9.9.3-1", "9.9.2-1"], "9.9.3-1"),
        (["9.9.4-1", "9.9.3-1", "9.9.3-1+b1"], "9.9.4-1"),
    ];
    for (number, (versions, newest)) in cases.into_iter().enumerate() {
        for (suite, version) in ["rel", "rel-updates", "rel-security"].into_iter().zip(versions) {
            let name = "./usr/src/linux-source-9.9.tar.xz".to_owned();
            let entries = vec![(name, Regular, packed(&[("Makefile", version), ("Kconfig", "")]))];
            let meta = Content { depends: "linux-source-9.9", ..Content::default() };
            let source = Content { entries, ..Content::default() };
            let packages = [("linux-source", version, meta), ("linux-source-9.9", version, source)];
            repository.publish(suite, &packages);
        }
        let cache = repository.cache_of("sources", &format!("cache{number}"), &[&recipe]);
        let recipe = cache.recipes().source("linux-9").unwrap();
        let fetched = cache.fetch(recipe, &repository.options(), &Silent).unwrap();
        assert_eq!(fetched.version, newest);
        let source = cache.source("linux-9").unwrap().unwrap();
        assert_eq!(fs::read_to_string(source.root.join("Makefile")).unwrap(), newest);
    }
}

#[test]
fn refuses_a_package_without_a_source() {
    let Some(repository) = Repository::new() else { return };
    let cases = [
        ("./usr/share/doc/a", packed(&[("Makefile", "")]), "no usr/src/linux-source"),
        ("./usr/src/linux-source-9.9.tar.xz", packed(&[("a.c", "")]), "no kernel's source"),
        ("./usr/src/linux-source-9.9.tar.zip", b"PK\x03\x04 rubbish".to_vec(), "packed in a way"),
    ];
    for (number, (name, data, text)) in cases.into_iter().enumerate() {
        publish(&repository, name, &format!("9.9.{number}-1"), data);
        let cache = repository.cache_of("sources", &format!("cache{number}"), &[RECIPE]);
        let recipe = cache.recipes().source("linux-9").unwrap();
        let error = cache.fetch(recipe, &repository.options(), &Silent).unwrap_err().to_string();
        assert!(error.contains(text), "`{text}` isn't in: {error}");
        assert!(cache.source("linux-9").is_err());
    }
}

#[test]
fn keeps_a_built_kernel_and_finds_it_by_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(Some(&dir.path().join("cache"))).unwrap();
    let (image, config) = (dir.path().join("vmlinux"), dir.path().join("config"));
    fs::write(&image, vmlinux(true)).unwrap();
    fs::write(&config, "CONFIG_A=y\n").unwrap();
    let about = vec!["source: mine".to_owned()];
    let release = "9.9".to_owned();
    let given = BuiltKernel { id: "a1".into(), release, vmlinux: image.clone(), config, about };
    assert!(cache.built("a1").unwrap().is_none());
    let kept = cache.add_built(&given).unwrap();
    assert_ne!(kept.vmlinux, image);
    for name in ["mine", "mine+bug"] {
        cache.name_built(name, "a1").unwrap();
        let found = cache.resolve(name, None).unwrap();
        assert_eq!((found.boot, &found.image), (Boot::Pvh, &kept.vmlinux));
        assert_eq!(found.config.unwrap().get("CONFIG_A"), ConfigValue::Yes);
    }
    for bad in ["", "a b", "../a", "debian-6.1"] {
        assert!(matches!(cache.name_built(bad, "a1"), Err(Error::BadKernelName { .. })), "{bad}");
    }
    assert!(cache.name_built("other", "a2").is_err());
    let error = cache.resolve("misspelt", None).unwrap_err().to_string();
    assert!(error.contains("debian-7.3, mine, mine+bug"), "{error}");
    // Its files go with its last name, and half a kernel is none.
    assert_eq!(cache.rm_built("mine").unwrap(), 0);
    fs::write(&kept.vmlinux, "half").unwrap();
    assert!(cache.built("a1").unwrap().is_none());
    assert!(cache.resolve("mine+bug", None).is_err());
    cache.add_built(&given).unwrap();
    assert!(cache.resolve("mine+bug", None).is_ok());
    assert!(cache.rm_built("mine+bug").unwrap() > 0);
    assert!(matches!(cache.rm_built("mine+bug"), Err(Error::NotBuilt { .. })));
}
