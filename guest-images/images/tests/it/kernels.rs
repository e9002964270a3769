use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dmarig_images::{Boot, Cache, ConfigValue, Error, KernelConfig, KernelImage};
use tempfile::TempDir;

use crate::synthetic::{
    CONFIG, Packing, RELEASE, bzimage, bzimage_of, elf, sized_vmlinux, vmlinux,
};

struct Bench {
    dir: TempDir,
    cache: Cache,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(&dir.path().join("cache"))).unwrap();
        Bench { dir, cache }
    }

    fn file(&self, name: &str, data: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, data).unwrap();
        path
    }

    fn resolve(&self, path: &Path) -> Result<KernelImage, Error> {
        self.cache.resolve(path.to_str().unwrap(), None)
    }
}

#[track_caller]
fn check_refused(data: impl AsRef<[u8]>, matches: fn(&Error) -> bool, text: &str) {
    let bench = Bench::new();
    let path = bench.file("kernel", data);
    let error = bench.resolve(&path).unwrap_err();
    assert!(matches(&error), "{error:?}");
    let message = error.to_string();
    assert!(message.contains(text) && message.contains("kernel"), "`{text}` isn't in: {message}");
    // What failed must fail again, and leave nothing.
    assert!(bench.resolve(&path).is_err());
    assert_eq!(fs::read_dir(bench.cache.dir().join("tmp")).unwrap().count(), 0);
}

#[test]
fn unpacks_each_compression() {
    // LZ4 has blocks of 8 MiB.
    let kernel = sized_vmlinux(true, 9 << 20);
    use Packing::*;
    for packing in [Gzip, Bzip2, Lzma, Xz, Lz4, Zstd] {
        let bench = Bench::new();
        let path = bench.file("bzImage", bzimage(packing, &kernel));
        let image = bench.resolve(&path).unwrap_or_else(|e| panic!("{packing:?}: {e}"));
        assert_eq!(image.boot, Boot::Pvh, "{packing:?}");
        assert_eq!(image.release, RELEASE);
        assert!(fs::read(&image.image).unwrap() == kernel, "{packing:?}");
        assert_eq!(image.bzimage.as_deref(), Some(path.canonicalize().unwrap().as_path()));
        assert_eq!(image.config.unwrap().get("CONFIG_E1000E"), ConfigValue::Module);
        assert_eq!(image.notes, [""; 0]);
    }
}

#[test]
fn boots_the_bzimage_without_pvh_or_with_lzo() {
    let lzo = (bzimage(Packing::Lzo, b""), "LZO");
    let no_pvh = (bzimage(Packing::Zstd, &vmlinux(false)), "CONFIG_PVH");
    for (data, reason) in [lzo, no_pvh] {
        let bench = Bench::new();
        let path = bench.file("bzImage", data);
        let image = bench.resolve(&path).unwrap();
        assert_eq!(image.boot, Boot::BzImage);
        assert_eq!(image.image, path.canonicalize().unwrap());
        assert!(image.notes[0].contains(reason), "{:?}", image.notes);
        // The note is remembered too.
        assert_eq!(bench.resolve(&path).unwrap().notes, image.notes);
    }
}

#[test]
fn resolves_a_bare_vmlinux() {
    let bench = Bench::new();
    let path = bench.file("vmlinux", vmlinux(true));
    let image = bench.resolve(&path).unwrap();
    assert_eq!((image.boot, image.release.as_str()), (Boot::Pvh, RELEASE));
    assert_eq!(image.image, path.canonicalize().unwrap());
    assert!(image.bzimage.is_none());
    check_refused(vmlinux(false), |e| matches!(e, Error::NoPvh { .. }), "CONFIG_PVH=y");
}

#[test]
fn reports_what_a_file_is_instead_of_a_kernel() {
    let not_a_kernel = |e: &Error| matches!(e, Error::NotAKernel { .. });
    check_refused("", |e| matches!(e, Error::Empty { .. }), "empty");
    check_refused("#!/bin/sh\n", not_a_kernel, "a script");
    check_refused(crate::synthetic::gzip(b"x"), not_a_kernel, "packed with gzip");
    check_refused("070701rest", not_a_kernel, "cpio");
    check_refused("\u{1}\u{2}\u{3}\u{4}", not_a_kernel, "01 02 03 04");
    check_refused(elf(62, &[(1, b"a program")]), not_a_kernel, "a Linux version");
}

#[test]
fn reports_kernels_of_other_architectures() {
    let wrong_arch = |e: &Error| matches!(e, Error::WrongArch { .. });
    let mut arm64 = vec![0; 4096];
    arm64[..2].copy_from_slice(b"MZ");
    arm64[0x38..0x3c].copy_from_slice(b"ARM\x64");
    check_refused(arm64, wrong_arch, "ARM64");
    check_refused(elf(183, &[(1, b"x")]), wrong_arch, "ARM64");
    check_refused(elf(243, &[(1, b"x")]), wrong_arch, "RISC-V");
    let mut x86_32 = bzimage_of(b"\x1f\x8bpayload");
    x86_32[0x236] = 0;
    check_refused(x86_32, wrong_arch, "32-bit x86");
}

#[test]
fn detects_damaged_kernels() {
    let truncated = |e: &Error| matches!(e, Error::Truncated { .. });
    let kernel = vmlinux(true);
    let whole = bzimage(Packing::Gzip, &kernel);
    for size in [0x210, 0x300, 2000, whole.len() / 2, whole.len() - 16] {
        check_refused(&whole[..size], truncated, "truncated");
    }
    check_refused(&whole[..0x100], truncated, "truncated");
    for size in [70, 1000, kernel.len() - 30] {
        check_refused(&kernel[..size], truncated, "truncated");
    }
    let bad = |e: &Error| matches!(e, Error::BadPayload { .. });
    for packing in [Packing::Gzip, Packing::Xz, Packing::Lz4, Packing::Zstd] {
        let mut damaged = bzimage(packing, &kernel);
        let middle = damaged.len() / 2;
        damaged[middle..middle + 4000].fill(0x55);
        check_refused(damaged, bad, "payload");
    }
    // A size that promises too much, as from a bomb.
    let mut greedy = crate::synthetic::xz(b"x");
    greedy.extend(u32::MAX.to_le_bytes());
    check_refused(bzimage_of(&greedy), bad, "4294967295 bytes");
}

#[test]
fn resolves_names_and_paths() {
    let bench = Bench::new();
    let error = bench.cache.resolve("debian-6.1", None).unwrap_err();
    assert!(error.to_string().contains("dmarig images fetch debian-6.1"), "{error}");
    let error = bench.cache.resolve("debain-6.1", None).unwrap_err();
    assert!(
        matches!(&error, Error::UnknownKernel { known, .. } if known.iter().any(|name| name == "debian-7.3"))
    );
    let error = bench.cache.resolve("/dev/null", None).unwrap_err();
    assert!(matches!(error, Error::NotAKernel { .. }), "{error}");
    let path = bench.file("vmlinuz-x", "x");
    let error = bench.resolve(bench.dir.path()).unwrap_err();
    assert!(
        matches!(&error, Error::NoKernelInDir { found: Some(p), .. } if *p == path.canonicalize().unwrap())
    );
}

#[test]
fn reports_an_unreadable_kernel() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    let path = bench.file("vmlinuz", bzimage(Packing::Gzip, &vmlinux(true)));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    // Root reads it all the same.
    if let Err(error) = bench.resolve(&path) {
        assert!(matches!(error, Error::NoPermission { .. }), "{error}");
        assert!(error.to_string().contains("chmod"));
    }
}

#[test]
fn resolves_a_build_directory() {
    let bench = Bench::new();
    let packed = bench.file("linux/arch/x86/boot/bzImage", bzimage(Packing::Xz, &vmlinux(true)));
    bench.file("linux/.config", "CONFIG_NVME=y\n");
    bench.file("linux/modules.order", "");
    let top = bench.dir.path().join("linux").canonicalize().unwrap();
    for path in [&top, &packed] {
        let image = bench.resolve(path).unwrap();
        assert_eq!(image.boot, Boot::Pvh);
        assert!(image.image.starts_with(bench.cache.dir()));
        assert_eq!(image.config.unwrap().get("CONFIG_NVME"), ConfigValue::Yes);
        assert_eq!(image.modules.as_ref(), Some(&top));
    }
    // `make vmlinux` leaves the bzImage of the build before.
    let plain = bench.file("linux/vmlinux", vmlinux(true));
    let later = SystemTime::now() + Duration::from_secs(60);
    fs::File::open(&plain).unwrap().set_modified(later).unwrap();
    let image = bench.resolve(&top).unwrap();
    assert_eq!(image.image, plain.canonicalize().unwrap());
    assert!(image.notes[0].contains("older than"), "{:?}", image.notes);
}

#[test]
fn finds_modules_and_configuration_next_to_the_kernel() {
    let bench = Bench::new();
    let path = bench.file("boot/vmlinuz-x", bzimage(Packing::Gzip, &vmlinux(true)));
    let image = bench.resolve(&path).unwrap();
    assert_eq!(image.modules, None);
    assert_eq!(image.config, Some(KernelConfig::parse(CONFIG)));
    bench.file(&format!("boot/config-{RELEASE}"), "CONFIG_BESIDE=y\n");
    bench.file(&format!("lib/modules/{RELEASE}/modules.order"), "");
    let image = bench.resolve(&path).unwrap();
    assert!(image.config.unwrap().is_on("CONFIG_BESIDE"));
    assert!(image.modules.unwrap().ends_with(format!("lib/modules/{RELEASE}")));
    let spec = path.to_str().unwrap();
    let given = bench.file("other/modules.builtin", "");
    let given = given.parent().unwrap().canonicalize().unwrap();
    assert_eq!(bench.cache.resolve(spec, Some(&given)).unwrap().modules, Some(given));
    let error = bench.cache.resolve(spec, Some(&bench.dir.path().join("boot"))).unwrap_err();
    assert!(matches!(error, Error::NoModules { .. }), "{error}");
}

#[test]
fn rereads_a_changed_file() {
    let bench = Bench::new();
    let path = bench.file("vmlinux", vmlinux(true));
    std::thread::sleep(Duration::from_millis(150));
    let first = bench.resolve(&path).unwrap().image_sha256;
    let mut other = vmlinux(true);
    *other.last_mut().unwrap() ^= 1;
    fs::write(&path, other).unwrap();
    assert_ne!(bench.resolve(&path).unwrap().image_sha256, first);
}

#[test]
fn repairs_a_damaged_cache() {
    let bench = Bench::new();
    let path = bench.file("bzImage", bzimage(Packing::Gzip, &vmlinux(true)));
    let image = bench.resolve(&path).unwrap().image;
    fs::remove_file(&image).unwrap();
    fs::write(&image, "half").unwrap();
    assert_eq!(fs::read(bench.resolve(&path).unwrap().image).unwrap(), vmlinux(true));
    assert!(bench.cache.clean().unwrap() > 0);
    assert!(!image.exists());
    assert!(bench.resolve(&path).unwrap().image.exists());
}
