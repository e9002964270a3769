//! QEMUs fetched from an archive that is made here. The program in them is one of this system, with
//! this system's loader and libc, so that it runs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dmarig_images::{Cache, Error, Fetched, Progress, Silent, Unit};
use tar::EntryType::{Fifo, Link, Regular, Symlink};

use crate::repository::{Content, Repository, below};

const RECIPE: &str = "name: q, suite: new, package: qemu-test";
const LAYERED: &str = "name: q-bpo, suite: new-backports, base: new, package: qemu-test";
const PROGRAM: &str = "./usr/bin/qemu-system-x86_64";

/// A file of the system, where a program that is linked with glibc finds it.
fn host(names: &[&str]) -> Vec<u8> {
    let found = names.iter().map(Path::new).find(|path| path.is_file());
    fs::read(found.unwrap_or_else(|| panic!("none of {names:?}: apt is, and glibc isn't?")))
        .unwrap()
}

fn qemu() -> Content {
    let entries = vec![
        (PROGRAM.to_owned(), Regular, host(&["/usr/bin/echo"])),
        ("./usr/bin/kvm".to_owned(), Symlink, b"qemu-system-x86_64".to_vec()),
        ("./usr/share/doc/qemu/copyright".to_owned(), Regular, b"long".to_vec()),
    ];
    Content { depends: "libc (>= 2), firmware", entries }
}

/// As before /usr was merged.
fn libc() -> Content {
    let loader = host(&["/lib64/ld-linux-x86-64.so.2"]);
    let libc = host(&["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6"]);
    let dir = "./lib/x86_64-linux-gnu";
    let entries = vec![
        (format!("{dir}/ld-linux-x86-64.so.2"), Regular, loader),
        (
            "./lib64/ld-linux-x86-64.so.2".to_owned(),
            Symlink,
            b"/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2".to_vec(),
        ),
        (format!("{dir}/libc-2.so"), Regular, libc),
        (format!("{dir}/libc.so.6"), Link, format!("{dir}/libc-2.so").into_bytes()),
    ];
    Content { depends: "", entries }
}

fn firmware(bytes: &[u8]) -> Content {
    let entries = vec![("./usr/share/qemu/bios.bin".to_owned(), Regular, bytes.to_vec())];
    Content { depends: "", entries }
}

/// A suite with a QEMU, what it depends on, and something else.
fn publish(repository: &Repository, version: &str) {
    let other = firmware(b"of somebody else");
    repository.publish(
        "new",
        &[
            ("qemu-test", version, qemu()),
            ("libc", "2.1", libc()),
            ("firmware", "1", firmware(b"one")),
            ("other", "1", other),
        ],
    );
}

fn fetch(repository: &Repository, cache: &Cache, name: &str) -> Result<Fetched, Error> {
    let recipe = cache.recipes().qemu(name).unwrap().clone();
    cache.fetch(&recipe, &repository.options(), &Silent)
}

fn run(program: &Path) -> String {
    let output = Command::new(program).args(["-M", "a b"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn fetches_a_qemu_with_its_dependencies() {
    let Some(repository) = Repository::new() else { return };
    publish(&repository, "1:7+b1");
    let cache = repository.cache("it's a cache", &[RECIPE]);
    let error = cache.qemu("qemu").unwrap_err();
    assert!(error.to_string().contains("Run `dmarig images fetch q`"), "{error}");
    assert_eq!(cache.qemu("qemu-system-x86_64").unwrap(), None);
    let fetched = fetch(&repository, &cache, "qemu").unwrap();
    assert!(!fetched.already_cached && fetched.bytes > 0 && fetched.release.is_none());
    let names: Vec<_> = fetched.packages.iter().map(|p| (p.name.as_str(), &*p.version)).collect();
    assert_eq!(names[0], ("qemu-test", "1:7+b1"));
    assert_eq!(names.len(), 3, "{names:?}");
    let tree = cache.qemu("q").unwrap().unwrap();
    assert_eq!(cache.qemu("qemu").unwrap().as_ref(), Some(&tree));
    assert_eq!((tree.name.as_str(), tree.version.as_str()), ("q", "1:7+b1"));
    assert_eq!(run(&tree.program), "-M a b\n");
    let files = [
        "lib",
        "lib64",
        "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
        "usr/lib/x86_64-linux-gnu/libc-2.so",
        "usr/lib/x86_64-linux-gnu/libc.so.6",
        "usr/lib64/ld-linux-x86-64.so.2",
        "usr/share/qemu/bios.bin",
    ];
    let found = below(&tree.root);
    let rest: Vec<_> = found.iter().filter(|f| !f.contains("bin/") && *f != "bin").collect();
    assert_eq!(rest, files);
    // The same again is nothing to do; a QEMU stands in the list until it is removed.
    assert!(fetch(&repository, &cache, "q").unwrap().already_cached);
    let list = cache.qemus().unwrap();
    assert!(list.len() == 1 && list[0].is_default && list[0].size > 1 << 20);
    assert_eq!(list[0].newest.as_deref(), Some("1:7+b1"));
    cache.clean().unwrap();
    assert_eq!(run(&tree.program), "-M a b\n");
    assert_eq!(cache.rm("qemu").unwrap(), list[0].size);
    assert!(cache.qemus().unwrap().is_empty() && !tree.root.exists());
    assert!(matches!(cache.rm("q").unwrap_err(), Error::NotFetched { .. }));
}

#[test]
fn fetches_backports_with_packages_of_their_base() {
    let Some(repository) = Repository::new() else { return };
    publish(&repository, "7");
    let newer = [("qemu-test", "9", qemu()), ("firmware", "2", firmware(b"two"))];
    repository.publish("new-backports", &newer);
    let cache = repository.cache("cache", &[RECIPE, LAYERED]);
    assert_eq!(fetch(&repository, &cache, "q").unwrap().version, "7");
    assert_eq!(fetch(&repository, &cache, "q-bpo").unwrap().version, "9");
    for (name, content) in [("q", "one"), ("q-bpo", "two")] {
        let tree = cache.qemu(name).unwrap().unwrap();
        assert_eq!(fs::read_to_string(tree.root.join("usr/share/qemu/bios.bin")).unwrap(), content);
        assert_eq!(run(&tree.program), "-M a b\n");
    }
    // Each without the other.
    cache.rm("q").unwrap();
    assert_eq!(run(&cache.qemu("q-bpo").unwrap().unwrap().program), "-M a b\n");
}

#[test]
fn replaces_an_older_qemu_without_removing_its_files() {
    let Some(repository) = Repository::new() else { return };
    publish(&repository, "7");
    let cache = repository.cache("cache", &[RECIPE]);
    fetch(&repository, &cache, "q").unwrap();
    let before = cache.qemu("q").unwrap().unwrap();
    publish(&repository, "8");
    assert_eq!(fetch(&repository, &cache, "q").unwrap().version, "8");
    let after = cache.qemu("q").unwrap().unwrap();
    assert_ne!(before.program, after.program);
    assert_eq!(run(&before.program), run(&after.program));
    assert_eq!(cache.qemus().unwrap().len(), 1);
    assert!(cache.clean().unwrap() > 0 && !before.root.exists() && after.root.exists());
}

#[test]
fn fetches_a_damaged_tree_again() {
    let Some(repository) = Repository::new() else { return };
    publish(&repository, "7");
    let cache = repository.cache("cache", &[RECIPE]);
    fetch(&repository, &cache, "q").unwrap();
    let tree = cache.qemu("q").unwrap().unwrap();
    let parts = [&tree.program, &tree.root.join("usr/bin/qemu-system-x86_64")];
    for part in parts {
        fs::remove_file(part).unwrap();
        assert!(matches!(cache.qemu("q").unwrap_err(), Error::NotFetched { .. }));
        assert!(cache.qemus().unwrap().is_empty());
        assert!(!fetch(&repository, &cache, "q").unwrap().already_cached);
        assert_eq!(run(&cache.qemu("q").unwrap().unwrap().program), "-M a b\n");
    }
}

/// Fetches a suite that has something wrong.
#[track_caller]
fn check_refused(
    repository: &Repository,
    change: impl FnOnce(&Repository, &mut Vec<(&str, &str, Content)>),
    matches: fn(&Error) -> bool,
    text: &str,
) {
    let mut packages = vec![
        ("qemu-test", "7", qemu()),
        ("libc", "2.1", libc()),
        ("firmware", "1", firmware(b"one")),
    ];
    repository.publish("new", &packages);
    change(repository, &mut packages);
    let cache = repository.cache("cache", &[RECIPE]);
    let error = fetch(repository, &cache, "q").unwrap_err();
    assert!(matches(&error), "{error:?}");
    assert!(error.to_string().contains(text), "`{text}` isn't in: {error}");
    for part in ["tmp", "trees", "qemus"] {
        assert_eq!(below(&cache.dir().join(part)), [""; 0], "something is left in {part}");
    }
    assert!(matches!(cache.qemu("q").unwrap_err(), Error::NotFetched { .. }));
    fs::remove_dir_all(cache.dir()).unwrap();
}

#[test]
fn reports_a_broken_archive_and_keeps_nothing() {
    let Some(repository) = Repository::new() else { return };
    let hostile = |name: &'static str, kind, data: &'static [u8]| {
        move |repository: &Repository, packages: &mut Vec<(&str, &str, Content)>| {
            packages[2].2.entries.push((name.to_owned(), kind, data.to_vec()));
            repository.publish("new", packages);
        }
    };
    let unsafe_deb = |e: &Error| matches!(e, Error::UnsafeDeb { .. });
    check_refused(
        &repository,
        hostile("./usr/../../../x", Regular, b"x"),
        unsafe_deb,
        "leaves the directory",
    );
    check_refused(&repository, hostile("./etc/x", Symlink, b"../../x"), unsafe_deb, "link out of");
    check_refused(&repository, hostile("./dev/x", Fifo, b""), unsafe_deb, "neither a file");
    let bad_deb = |e: &Error| matches!(e, Error::BadDeb { .. });
    check_refused(&repository, hostile(PROGRAM, Regular, b"mine"), bad_deb, "a second file for");
    let no_qemu = |e: &Error| matches!(e, Error::NoQemu { .. });
    let without = |index: usize| {
        move |repository: &Repository, packages: &mut Vec<(&str, &str, Content)>| {
            packages[index].2.entries.remove(0);
            repository.publish("new", packages);
        }
    };
    check_refused(&repository, without(0), no_qemu, "there is no usr/bin/qemu-system-x86_64");
    check_refused(&repository, without(1), no_qemu, "there is no usr/lib64/ld-linux-x86-64.so.2");
    let no_libc = |repository: &Repository, packages: &mut Vec<(&str, &str, Content)>| {
        packages[1].2.entries.truncate(2);
        repository.publish("new", packages);
    };
    check_refused(&repository, no_libc, no_qemu, "libc.so.6, which isn't there");
}

#[test]
fn refuses_an_archive_with_wrong_hashes_or_signatures() {
    let Some(repository) = Repository::new() else { return };
    let apt = |e: &Error| matches!(e, Error::Apt { .. });
    let tampered = |repository: &Repository, _: &mut Vec<(&str, &str, Content)>| {
        let file = repository.file("firmware", "1");
        let mut data = fs::read(&file).unwrap();
        *data.last_mut().unwrap() ^= 1;
        fs::write(file, data).unwrap();
    };
    check_refused(
        &repository,
        tampered,
        |e| matches!(e, Error::Apt { .. } | Error::Checksum { .. }),
        "",
    );
    let resigned = |repository: &Repository, _: &mut Vec<(&str, &str, Content)>| {
        let file = repository.path("debian/dists/new/InRelease");
        let text = fs::read_to_string(&file).unwrap().replace("Origin: test", "Origin: me");
        fs::write(file, text).unwrap();
        fs::remove_file(repository.path("debian/dists/new/Release")).unwrap();
    };
    check_refused(
        &repository,
        resigned,
        |e| matches!(e, Error::Apt { .. } | Error::BadSignature { .. }),
        "new",
    );
    let unmet = |repository: &Repository, packages: &mut Vec<(&str, &str, Content)>| {
        packages.remove(1);
        repository.publish("new", packages);
    };
    check_refused(&repository, unmet, apt, "apt-get install");
    let renamed = |repository: &Repository, packages: &mut Vec<(&str, &str, Content)>| {
        packages[0].0 = "qemu-other";
        repository.publish("new", packages);
    };
    let no_package = |e: &Error| matches!(e, Error::NoPackage { .. });
    check_refused(
        &repository,
        renamed,
        no_package,
        "qemu-test in the suite new: there is no such package",
    );
}

#[test]
fn refuses_an_unusable_cache_path_before_fetching() {
    let Some(repository) = Repository::new() else { return };
    let cache = repository.cache("a:b", &[RECIPE]);
    let error = fetch(&repository, &cache, "q").unwrap_err();
    assert!(matches!(error, Error::BadCachePath { .. }), "{error}");
}

#[test]
fn two_concurrent_fetches_make_one_tree() {
    let Some(repository) = Repository::new() else { return };
    publish(&repository, "7");
    let caches = [repository.cache("cache", &[RECIPE]), repository.cache("cache", &[RECIPE])];
    let fetched = std::thread::scope(|scope| {
        let fetches = caches
            .each_ref()
            .map(|cache| scope.spawn(|| fetch(&repository, cache, "q").unwrap().already_cached));
        fetches.map(|fetch| fetch.join().unwrap())
    });
    assert_eq!(fetched.iter().filter(|cached| **cached).count(), 1);
    assert_eq!(fs::read_dir(caches[0].dir().join("trees")).unwrap().count(), 1);
    assert_eq!(run(&caches[1].qemu("q").unwrap().unwrap().program), "-M a b\n");
}

/// Dies in the midst of unpacking.
struct Dying;

impl Progress for Dying {
    fn begin(&self, _: &str, _: Unit, _: Option<u64>) {}
    fn advance(&self, _: u64) {
        let work = env::var_os("DMARIG_TEST_WORK").map(PathBuf::from).unwrap();
        if below(&work).iter().any(|file| file.ends_with("usr/bin/qemu-system-x86_64")) {
            std::process::abort();
        }
    }
    fn message(&self, _: &str) {}
    fn end(&self) {}
}

/// The other half of the next test, as a process of its own.
#[test]
fn dies_while_it_unpacks() {
    let Some(work) = env::var_os("DMARIG_TEST_WORK").map(PathBuf::from) else { return };
    let top = work.parent().and_then(Path::parent).unwrap();
    let recipes = dmarig_images::Recipes::load(&top.join("recipes.yaml")).unwrap();
    let cache = Cache::open(work.parent()).unwrap().with_recipes(recipes);
    let mut options = dmarig_images::FetchOptions::default();
    options.mirrors.debian = Some(format!("file://{}", top.join("debian").display()));
    let _ = cache.fetch(cache.recipes().default_qemu(), &options, &Dying);
}

#[test]
fn ignores_what_a_killed_fetch_left() {
    let Some(repository) = Repository::new() else { return };
    publish(&repository, "7");
    let cache = repository.cache("cache", &[RECIPE]);
    let work = cache.dir().join("tmp");
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "qemus::dies_while_it_unpacks"])
        .env("DMARIG_TEST_WORK", &work)
        .output()
        .unwrap();
    assert!(!output.status.success(), "{output:?}");
    assert!(below(&work).iter().any(|file| file.ends_with("qemu-system-x86_64")));
    assert!(matches!(cache.qemu("q").unwrap_err(), Error::NotFetched { .. }));
    assert_eq!(fs::read_dir(cache.dir().join("trees")).unwrap().count(), 0);
    // Whoever comes next cleans up.
    let cache = repository.cache("cache", &[RECIPE]);
    assert_eq!(below(&work), [""; 0]);
    assert!(!fetch(&repository, &cache, "q").unwrap().already_cached);
    assert_eq!(run(&cache.qemu("q").unwrap().unwrap().program), "-M a b\n");
}
