//! From what the user typed to a kernel that boots. Nothing here goes to the network.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::built::BuiltKernel;
use crate::codec::Codec;
use crate::elf::ELF_MAGIC;
use crate::image::{Image, Object};
use crate::kernel::{Boot, KernelConfig, KernelImage, PackageId};
use crate::{Cache, Error, Result, payload};

/// A kernel's file, before it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    BzImage,
    Vmlinux,
    Deb,
}

/// Where a kernel was found, and what belongs to it there.
#[derive(Debug)]
struct KernelFiles {
    image: Image,
    file: PathBuf,
    sha256: String,
    is_bzimage: bool,
    /// Where its configuration may be, best first.
    configs: Vec<PathBuf>,
    /// Where its modules may be, best first.
    modules: Vec<PathBuf>,
    packages: Vec<PackageId>,
    notes: Vec<String>,
}

impl Cache {
    /// Finds the kernel that `spec` names: a recipe's name, a built kernel's, or the path of a bzImage, vmlinux,
    /// .deb or build directory. `modules` is a directory like `/lib/modules/RELEASE` (or above
    /// it), a build tree, or a .deb; without it, they are looked for beside the kernel.
    ///
    /// The first time, the kernel is unpacked (about a second); later this takes milliseconds.
    pub fn resolve(&self, spec: &str, modules: Option<&Path>) -> Result<KernelImage> {
        let found = self.find(spec)?;
        let release = &found.image.release;
        let modules = match modules {
            Some(given) => Some(self.given_modules(given, release)?),
            None => found.modules.iter().find(|dir| has_modules(dir)).cloned(),
        };
        let unpacked = self.image_dir(&found.sha256).join("config");
        let mut configs = found.configs.iter().chain([&unpacked]);
        let read = configs.find_map(|path| Some((read_config(path)?, path.clone())));
        let (config, config_file) = read.unzip();
        let pvh = found.image.boot == Boot::Pvh;
        let mut notes = found.notes;
        notes.extend(found.image.note);
        Ok(KernelImage {
            label: spec.to_owned(),
            release: found.image.release,
            image: match found.is_bzimage && pvh {
                true => self.vmlinux_file(&found.sha256),
                false => found.file.clone(),
            },
            boot: found.image.boot,
            bzimage: found.is_bzimage.then_some(found.file),
            image_sha256: found.sha256,
            config,
            config_file,
            modules,
            packages: found.packages,
            notes,
        })
    }

    fn find(&self, spec: &str) -> Result<KernelFiles> {
        if let Some(manifest) = self.manifest(spec)?
            && let Some(object) = self.known_object(&manifest.object)?
        {
            return self.find_in_object(&object, Path::new(spec));
        }
        if self.recipes().get(spec).is_some() {
            return Err(Error::NotFetched { name: spec.to_owned() });
        }
        if let Some(built) = self.built_named(spec)? {
            return self.find_built(built);
        }
        let path = Path::new(spec);
        let meta = match fs::metadata(path) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
                return Err(self.unknown_kernel_error(spec)?);
            }
            result => result.map_err(|e| Error::io("read", path, e))?,
        };
        // QEMU may be started elsewhere.
        let path = path.canonicalize().map_err(|e| Error::io("read", path, e))?;
        if meta.is_dir() { self.find_in_dir(&path) } else { self.find_file(&path) }
    }

    /// The error for a word that names no kernel: [`Error::UnknownKernel`] or [`Error::NotBuilt`].
    /// `None` for a name in the recipes, also before it is fetched or built, and for an existing path.
    ///
    /// # Errors
    /// The cache cannot be read.
    pub fn unknown_kernel(&self, spec: &str) -> Result<Option<Error>> {
        let recipes = self.recipes();
        let is_known = recipes.get(spec).is_some()
            || recipes.source(spec).is_some()
            || self.built_named(spec)?.is_some()
            // Any other fault of a path is reported when it is read.
            || !matches!(fs::metadata(spec), Err(error) if error.kind() == io::ErrorKind::NotFound);
        if is_known { Ok(None) } else { self.unknown_kernel_error(spec).map(Some) }
    }

    fn unknown_kernel_error(&self, spec: &str) -> Result<Error> {
        if self.recipes().source(spec).is_some() {
            return Ok(Error::NotBuilt { name: spec.to_owned() });
        }
        let built = self.all_built()?.into_iter().map(|built| built.name);
        let known: Vec<_> = self.recipes().names().map(str::to_owned).chain(built).collect();
        Ok(Error::UnknownKernel { spec: spec.to_owned(), known })
    }

    /// A built kernel has everything built in, and its configuration beside it.
    fn find_built(&self, built: BuiltKernel) -> Result<KernelFiles> {
        let sha256 = self.hash_of(&built.vmlinux)?;
        let image = self.vmlinux(&built.vmlinux, &sha256)?;
        let (packages, notes) = (Vec::new(), Vec::new());
        Ok(KernelFiles {
            image,
            file: built.vmlinux,
            sha256,
            is_bzimage: false,
            configs: vec![built.config],
            modules: Vec::new(),
            packages,
            notes,
        })
    }

    fn find_file(&self, path: &Path) -> Result<KernelFiles> {
        let kind = sniff(path)?;
        let sha256 = self.hash_of(path)?;
        if kind == Kind::Deb {
            let object = self.object(&[(path.to_owned(), sha256)])?;
            return self.find_in_object(&object, path);
        }
        let is_bzimage = kind == Kind::BzImage;
        let image = match is_bzimage {
            true => self.bzimage(path, &sha256)?,
            false => self.vmlinux(path, &sha256)?,
        };
        let (configs, modules) = beside(path, &image.release);
        let file = path.to_owned();
        let (packages, notes) = (Vec::new(), Vec::new());
        Ok(KernelFiles { image, file, sha256, is_bzimage, configs, modules, packages, notes })
    }

    fn find_in_object(&self, object: &Object, path: &Path) -> Result<KernelFiles> {
        let dir = self.object_dir(&object.id);
        let file = dir.join("bzImage");
        let Some(sha256) = object.bzimage_sha256.clone() else {
            return Err(Error::NoKernelInDeb {
                path: path.to_owned(),
                package: object.packages.first().map(|p| p.name.clone()).unwrap_or_default(),
                depends: object.depends.clone(),
            });
        };
        let image = self.bzimage(&file, &sha256)?;
        let modules = vec![dir.join("modules")];
        let mut notes = Vec::new();
        if !has_modules(&modules[0]) {
            notes.push(format!(
                "{}: no modules in it; give them with `--modules`, as a directory or as the \
                 linux-modules package",
                path.display()
            ));
        }
        let packages = object.packages.clone();
        let configs = vec![dir.join("config")];
        Ok(KernelFiles { image, file, sha256, is_bzimage: true, configs, modules, packages, notes })
    }

    /// Looks for a kernel in a build directory. A plain `make vmlinux` leaves an older bzImage
    /// beside the new kernel; then the new one is taken.
    fn find_in_dir(&self, dir: &Path) -> Result<KernelFiles> {
        let (bzimage, vmlinux) = (dir.join("arch/x86/boot/bzImage"), dir.join("vmlinux"));
        let modified = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
        match (modified(&bzimage), modified(&vmlinux)) {
            (Some(packed), Some(plain)) if plain > packed => {
                let stale = format!("{}: older than {}", bzimage.display(), vmlinux.display());
                let (mut found, note) = match self.find_file(&vmlinux) {
                    Err(Error::NoPvh { .. }) => {
                        (self.find_file(&bzimage)?, "booted all the same; run `make bzImage`")
                    }
                    result => (result?, "the newer is booted"),
                };
                found.notes.push(format!("{stale}; {note}"));
                Ok(found)
            }
            (Some(_), _) => self.find_file(&bzimage),
            (None, Some(_)) => self.find_file(&vmlinux),
            (None, None) => Err(no_kernel_in(dir)),
        }
    }

    fn given_modules(&self, given: &Path, release: &str) -> Result<PathBuf> {
        let meta = fs::metadata(given).map_err(|e| Error::io("read modules", given, e))?;
        let given = given.canonicalize().map_err(|e| Error::io("read modules", given, e))?;
        let mut places = if meta.is_dir() {
            let below = ["lib/modules", "usr/lib/modules", ""].map(|d| given.join(d).join(release));
            below.to_vec()
        } else {
            let object = self.object(&[(given.clone(), self.hash_of(&given)?)])?;
            vec![self.object_dir(&object.id).join("modules")]
        };
        places.push(given.clone());
        places
            .into_iter()
            .find(|dir| has_modules(dir))
            .ok_or_else(|| Error::NoModules { path: given, release: release.to_owned() })
    }
}

/// Whether `dir` is a tree of modules: what the kernel's build leaves at its root is there.
fn has_modules(dir: &Path) -> bool {
    ["modules.builtin", "modules.order", "modules.dep", "kernel"]
        .iter()
        .any(|name| dir.join(name).exists())
}

fn read_config(path: &Path) -> Option<KernelConfig> {
    let config = KernelConfig::parse(&fs::read_to_string(path).ok()?);
    (!config.is_empty()).then_some(config)
}

/// Where the configuration and the modules of a kernel's file may be.
fn beside(path: &Path, release: &str) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let dir = path.parent().unwrap_or(Path::new("/"));
    // arch/x86/boot/bzImage, or a vmlinux at the top.
    let build = [dir.ancestors().nth(3), Some(dir)]
        .into_iter()
        .flatten()
        .find(|top| top.join(".config").exists() && top.join("arch").is_dir());
    if let Some(top) = build {
        return (vec![top.join(".config")], vec![top.to_owned()]);
    }
    let above = dir.parent().unwrap_or(dir);
    let below = |root: &Path| {
        ["lib/modules", "usr/lib/modules"].map(|d| root.join(d).join(release)).to_vec()
    };
    let mut modules = below(above);
    if dir.ends_with(release) {
        modules.insert(0, dir.to_owned());
    }
    modules.extend(below(Path::new("/")));
    let mut configs = vec![dir.join(format!("config-{release}"))];
    if path.file_name().is_some_and(|name| name == "vmlinuz") {
        configs.push(dir.join("config"));
    }
    configs.extend(modules.iter().map(|dir| dir.join("config")));
    (configs, modules)
}

fn sniff(path: &Path) -> Result<Kind> {
    let unreadable = |e| Error::io("read", path, e);
    let meta = fs::metadata(path).map_err(unreadable)?;
    if !meta.is_file() {
        return Err(Error::not_a_kernel(path, "not a regular file"));
    }
    let mut head = Vec::new();
    File::open(path).and_then(|f| f.take(4096).read_to_end(&mut head)).map_err(unreadable)?;
    let wrong_arch = |arch: &str| Error::WrongArch { path: path.to_owned(), arch: arch.to_owned() };
    if head.is_empty() {
        return Err(Error::Empty { path: path.to_owned() });
    } else if payload::is_bzimage(&head) {
        return Ok(Kind::BzImage);
    } else if head.starts_with(ELF_MAGIC) {
        return Ok(Kind::Vmlinux);
    } else if head.starts_with(b"!<arch>\ndebian-binary") {
        return Ok(Kind::Deb);
    }
    // Image headers: Documentation/arch/arm64/booting.rst, riscv/boot-image-header.rst.
    match head.get(0x38..0x3c) {
        Some(b"ARM\x64") => return Err(wrong_arch("ARM64")),
        Some(b"RSC\x05") => return Err(wrong_arch("RISC-V")),
        _ => {}
    }
    if head.starts_with(b"MZ") && head.len() < 0x206 {
        return Err(Error::truncated(path, meta.len(), 0x206));
    }
    Err(Error::not_a_kernel(path, describe(&head)))
}

/// Says what a file is that is no kernel.
fn describe(head: &[u8]) -> String {
    const MAGIC: [(&[u8], &str); 7] = [
        (b"070701", "a cpio archive, as an initramfs is"),
        (b"QFI\xfb", "a disk image (qcow2)"),
        (b"!<arch>", "an ar archive, but no .deb"),
        (b"\xed\xab\xee\xdb", "an RPM package; unpack it and give its vmlinuz"),
        (b"MZ", "a program for EFI without a Linux setup header"),
        (b"\x27\x05\x19\x56", "an image for U-Boot"),
        (b"#!", "a script"),
    ];
    if let Some((_, what)) = MAGIC.iter().find(|(magic, _)| head.starts_with(magic)) {
        return (*what).to_owned();
    }
    if let Some(codec) = Codec::detect(head) {
        return format!("a file packed with {}; unpack it first", codec.name());
    }
    let bytes: Vec<_> = head.iter().take(4).map(|b| format!("{b:02x}")).collect();
    format!("a file that starts with the bytes {}", bytes.join(" "))
}

/// Explains why there is no kernel in a directory.
fn no_kernel_in(dir: &Path) -> Error {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) => return Error::io("read", dir, e),
    };
    for (arch, image) in [("arm64", "Image"), ("riscv", "Image"), ("arm", "zImage")] {
        let path = dir.join("arch").join(arch).join("boot").join(image);
        if path.exists() {
            return Error::WrongArch { path, arch: arch.to_owned() };
        }
    }
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    names.sort();
    let found = names.into_iter().rev().find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let kernel = ["vmlinuz", "bzImage"].iter().any(|start| name.starts_with(start));
        kernel || (name.starts_with("linux-image-") && name.ends_with(".deb"))
    });
    Error::NoKernelInDir { path: dir.to_owned(), found }
}
