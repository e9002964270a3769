//! Real packages, from the directory in `DMARIG_TEST_DEBS`; and the real archives, when `DMARIG_TEST_NETWORK=1`. A cache can be given in `DMARIG_TEST_CACHE`,
//! to see how fast a second run is.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dmarig_images::{
    Boot, Cache, Error, FetchOptions, InitramfsSpec, Progress, Recipe, Recipes, Unit,
};

#[derive(Default)]
struct ByteCounter {
    total: AtomicU64,
    bytes: AtomicU64,
}

impl Progress for ByteCounter {
    fn begin(&self, what: &str, _: Unit, total: Option<u64>) {
        eprintln!("  {what}: {total:?}");
        self.total.fetch_add(total.unwrap_or(0), Ordering::Relaxed);
    }
    fn advance(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    fn message(&self, text: &str) {
        eprintln!("  {text}");
    }
    fn end(&self) {}
}

fn wanted() -> bool {
    let wanted = env::var_os("DMARIG_TEST_NETWORK").is_some_and(|v| v == "1");
    if !wanted {
        eprintln!("skipped: DMARIG_TEST_NETWORK=1 isn't set");
    }
    wanted
}

fn check_recipe(cache: &Cache, recipe: &Recipe) {
    let progress = ByteCounter::default();
    let start = Instant::now();
    let fetched = cache.fetch(recipe, &FetchOptions::default(), &progress).unwrap();
    let took = start.elapsed();
    assert_eq!(progress.bytes.load(Ordering::Relaxed), progress.total.load(Ordering::Relaxed));
    let start = Instant::now();
    let image = cache.resolve(&recipe.name, None).unwrap();
    let resolve = start.elapsed();
    let modules = image.modules.unwrap();
    let names: &[&str] = match recipe.package.contains("cloud") {
        true => &["nvme", "virtio_net"],
        false => &["nvme", "e1000e", "virtio_net", "virtio_pci", "vfio-pci"],
    };
    let start = Instant::now();
    let closure = cache.closure(&modules, names).unwrap();
    let closed = start.elapsed();
    let start = Instant::now();
    let packed =
        cache.pack(&InitramfsSpec { agent: b"agent", modules: &closure, files: &[] }).unwrap();
    eprintln!(
        "{} {} ({:?}): fetch {took:?} cached={}, resolve {resolve:?}, closure {closed:?}, pack {:?} {:?}",
        recipe.name,
        image.release,
        image.boot,
        fetched.already_cached,
        start.elapsed(),
        packed.modules
    );
    assert_eq!(image.boot, Boot::Pvh);
    assert!(image.config.unwrap().is_on("CONFIG_INTEL_IOMMU"));
    assert_eq!(Some(image.release), fetched.release);
    assert!(!image.packages.is_empty());
}

#[test]
fn fetches_all_recipes() {
    if !wanted() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let given = env::var_os("DMARIG_TEST_CACHE").map(PathBuf::from);
    let cache = Cache::open(Some(&given.unwrap_or(dir.path().join("cache")))).unwrap();
    for recipe in cache.recipes().iter() {
        check_recipe(&cache, recipe);
    }
    let list = cache.list().unwrap();
    assert_eq!(list.len(), 4);
    for kernel in list {
        eprintln!(
            "{} {} {} MB, newest {:?}",
            kernel.name,
            kernel.version,
            kernel.size >> 20,
            kernel.newest
        );
        assert_eq!(kernel.newest, Some(kernel.version));
    }
}

#[test]
fn fetches_and_runs_all_qemus() {
    if !wanted() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let given = env::var_os("DMARIG_TEST_CACHE").map(PathBuf::from);
    let cache = Cache::open(Some(&given.unwrap_or(dir.path().join("cache")))).unwrap();
    for recipe in cache.recipes().qemus() {
        let (progress, start) = (ByteCounter::default(), Instant::now());
        let fetched = cache.fetch(recipe, &FetchOptions::default(), &progress).unwrap();
        let took = start.elapsed();
        let seen = [&progress.bytes, &progress.total].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(seen[0], seen[1]);
        let tree = cache.qemu(&recipe.name).unwrap().unwrap();
        let output = Command::new(&tree.program).arg("--version").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(&format!("(Debian {})", tree.version)), "{output:?}");
        let (packages, bytes) = (fetched.packages.len(), fetched.bytes);
        eprintln!("{} {}: {packages} packages, {bytes} bytes, {took:?}", tree.name, tree.version);
    }
    assert_eq!(cache.qemus().unwrap().len(), 3);
}

#[test]
fn reports_an_unreachable_mirror() {
    if !wanted() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(Some(dir.path())).unwrap();
    let mut options = FetchOptions::default();
    options.mirrors.debian = Some("http://127.0.0.1:9/debian".to_owned());
    let recipe = cache.recipes().default_recipe();
    let error = cache.fetch(recipe, &options, &ByteCounter::default()).unwrap_err();
    assert!(matches!(error, Error::Apt { .. }), "{error}");
    eprintln!("{error}");
    assert_eq!(cache.list().unwrap().len(), 0);
}

#[test]
fn refuses_a_signature_by_another_key() {
    if !wanted() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("recipes.yaml");
    let recipe =
        "name: old, suite: trixie-backports, archive: debian, package: linux-image-cloud-amd64";
    let keyring = "/usr/share/keyrings/debian-archive-removed-keys.gpg";
    fs::write(&file, format!("kernels:\n  - {{{recipe}, keyring: {keyring}}}\n")).unwrap();
    let cache = Cache::open(Some(&dir.path().join("cache"))).unwrap();
    let recipes = Recipes::load(&file).unwrap();
    let error = cache
        .fetch(recipes.default_recipe(), &FetchOptions::default(), &ByteCounter::default())
        .unwrap_err();
    eprintln!("{error}");
    assert!(matches!(error, Error::BadSignature { .. }), "{error}");
    assert_eq!(cache.list().unwrap().len(), 0);
}

/// Kills fetches at several moments: what is listed afterwards is whole, and nothing else stays.
#[test]
fn leaves_nothing_after_an_interrupted_fetch() {
    if !wanted() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for milliseconds in [300, 1000, 2000, 3000, 4000, 5000, 7000] {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "network::fetches_all_recipes"])
            .env("DMARIG_TEST_CACHE", dir.path())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        // apt is killed by the kernel, and closes its files a moment later.
        std::thread::sleep(Duration::from_millis(300));
        let cache = Cache::open(Some(dir.path())).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
        let kernels = cache.list().unwrap();
        eprintln!("killed after {milliseconds} ms: {} kernels", kernels.len());
        for kernel in kernels {
            assert_eq!(cache.resolve(&kernel.name, None).unwrap().boot, Boot::Pvh);
        }
    }
}

#[test]
fn resolves_real_packages() {
    let Some(debs) = env::var_os("DMARIG_TEST_DEBS") else {
        eprintln!("skipped: DMARIG_TEST_DEBS isn't set");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(Some(dir.path())).unwrap();
    let files = walkdir::WalkDir::new(debs).sort_by_file_name().into_iter().flatten();
    for path in files.map(|entry| entry.into_path()) {
        let name = path.file_name().unwrap().to_string_lossy();
        let is_package = name.ends_with(".deb") && path.is_file() && !name.contains("modules");
        if !is_package && !name.starts_with("vmlinuz") {
            continue;
        }
        let resolve = || {
            let start = Instant::now();
            (cache.resolve(path.to_str().unwrap(), None), start.elapsed())
        };
        let ((image, cold), (_, warm)) = (resolve(), resolve());
        let image = image.unwrap();
        eprintln!(
            "{name}: {} {:?} cold {cold:?} warm {warm:?} config {} modules {:?} {:?}",
            image.release,
            image.boot,
            image.config.is_some(),
            image.modules,
            image.notes
        );
        assert!(warm < Duration::from_millis(30), "{name} took {warm:?} when warm");
    }
}
