use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dmarig_digest::sha256_hex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::kernel::PackageId;
use crate::recipe::{Recipes, is_word};
use crate::store::{self, Lock, Scratch, ScratchDir};
use crate::{Error, Result};

/// Derived entries beyond these counts are dropped, oldest first, when unused for a day.
const KEEP_OBJECTS: usize = 2;
const KEEP_IMAGES: usize = 8;
const KEEP_TREES: usize = 0;
const KEEP_BUILT: usize = 24;
const KEEP_SMALL: usize = 256;

/// A directory with kernels, sources, QEMUs and what was made from them. Several runs may share it, also at once:
/// whatever appears in it is whole.
///
/// ```text
/// kernels/NAME.json     what is cached under a recipe's name, and which object has it
/// qemus/NAME.json       the same of QEMUs, and which tree has it
/// sources/NAME.json     the same of sources of kernels
/// built/NAME.json       names of kernels that were built
/// known/NAME.json       the newest version that the archive was seen to have
/// objects/ID/           bzImage, config, modules/: unpacked packages, ID from their sha256s
/// trees/ID/             a QEMU: unpacked packages, and what starts it (launcher.rs); or a source
/// vmlinux/ID/           vmlinux, config: a kernel that was built
/// work/                 what kernels are built in (the crate dmarig-kernels)
/// images/SHA256/        vmlinux, config: what was unpacked from the bzImage of that hash
/// paths/ modules/       what was learnt of files outside: hashes, names of modules
/// initramfs/            packed images
/// apt/                  private apt roots, with the archives' indexes
/// tmp/ locks/           work in progress
/// ```
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
    recipes: Recipes,
    pub(crate) scratch: Scratch,
}

/// A kernel that is in the cache under a recipe's name.
#[derive(Clone, Debug)]
pub struct CachedKernel {
    /// The recipe's name.
    pub name: String,
    /// As `uname -r` says.
    pub release: String,
    /// The package's version.
    pub version: String,
    /// Disk space in bytes, with modules and the unpacked kernel.
    pub size: u64,
    /// When it was fetched.
    pub fetched: SystemTime,
    /// The newest version the archive had when it was last asked; `None` if it wasn't.
    pub newest: Option<String>,
    /// What it was unpacked from.
    pub packages: Vec<PackageId>,
    /// Whether it is the kernel that is taken when none is named.
    pub is_default: bool,
}

/// The content of `kernels/NAME.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) name: String,
    pub(crate) release: String,
    pub(crate) version: String,
    pub(crate) object: String,
    pub(crate) bzimage_sha256: String,
    pub(crate) packages: Vec<PackageId>,
    /// Seconds since 1970.
    pub(crate) fetched: u64,
}

/// The content of `known/NAME.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NewestVersion {
    pub(crate) version: String,
}

/// The content of `paths/*.json`: a file's hash, for as long as the file is unchanged.
#[derive(Debug, Serialize, Deserialize)]
struct FileHash {
    path: PathBuf,
    stamp: String,
    sha256: String,
}

impl Cache {
    /// Opens or creates a cache in `dir`, or else in `$XDG_CACHE_HOME/dmarig` or
    /// `~/.cache/dmarig`, and removes what killed runs left there.
    pub fn open(dir: Option<&Path>) -> Result<Cache> {
        let dir = dir.map_or_else(default_dir, |dir| Ok(dir.to_owned()))?;
        let parts = ["kernels", "qemus", "known", "objects", "trees", "images", "paths", "modules"];
        for part in parts.into_iter().chain(["initramfs", "sources", "built", "vmlinux"]) {
            store::create_dir(&dir.join(part))?;
        }
        store::create_dir(&dir.join("locks"))?;
        let dir = dir.canonicalize().map_err(|e| Error::io("open", &dir, e))?;
        let scratch = Scratch::open(dir.join("tmp"))?;
        scratch.sweep()?;
        Ok(Cache { dir, recipes: Recipes::builtin(), scratch })
    }

    /// Uses the user's recipes instead of the built-in ones.
    pub fn with_recipes(self, recipes: Recipes) -> Cache {
        Cache { recipes, ..self }
    }

    /// The recipes whose names [`Cache::resolve`] knows.
    pub fn recipes(&self) -> &Recipes {
        &self.recipes
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The kernels that are here under a recipe's name, by name.
    pub fn list(&self) -> Result<Vec<CachedKernel>> {
        let manifests = self.manifests()?;
        manifests.into_iter().map(|manifest| self.describe(manifest)).collect()
    }

    fn describe(&self, manifest: Manifest) -> Result<CachedKernel> {
        let object = store::disk_usage(&self.object_dir(&manifest.object));
        let image = store::disk_usage(&self.image_dir(&manifest.bzimage_sha256));
        let known: Option<NewestVersion> = store::read_json(&self.known_file(&manifest.name))?;
        Ok(CachedKernel {
            size: object + image,
            fetched: SystemTime::UNIX_EPOCH + Duration::from_secs(manifest.fetched),
            newest: known.map(|known| known.version),
            is_default: self.recipes.default_recipe().name == manifest.name,
            name: manifest.name,
            release: manifest.release,
            version: manifest.version,
            packages: manifest.packages,
        })
    }

    /// Drops a kernel, a source or a QEMU that was fetched, and what nothing else shares with it. Returns the bytes freed.
    /// Guests that run keep the files they have open.
    pub fn rm(&self, name: &str) -> Result<u64> {
        let _lock = self.commit_lock()?;
        let Some(gone) = self.manifest(name)? else {
            return match self.rm_source(name)? {
                Some(freed) => Ok(freed),
                None => self.rm_qemu(name),
            };
        };
        store::remove_file(&self.manifest_file(name))?;
        let rest = self.manifests()?;
        let mut freed = 0;
        if rest.iter().all(|m| m.object != gone.object) {
            freed += remove(&self.object_dir(&gone.object))?;
        }
        if rest.iter().all(|m| m.bzimage_sha256 != gone.bzimage_sha256) {
            freed += remove(&self.image_dir(&gone.bzimage_sha256))?;
        }
        Ok(freed)
    }

    /// Drops what can be made again without the network: initramfs images, hashes, kernels that
    /// were given by path. Returns the bytes freed.
    pub fn clean(&self) -> Result<u64> {
        let _lock = self.commit_lock()?;
        let mut freed = 0;
        for part in ["images", "paths", "modules", "initramfs"] {
            freed += remove(&self.dir.join(part))?;
            store::create_dir(&self.dir.join(part))?;
        }
        let kept = self.referenced()?;
        for part in ["objects", "trees", "vmlinux"] {
            let dir = self.dir.join(part);
            let entries = fs::read_dir(&dir).map_err(|e| Error::io("read", &dir, e))?;
            for path in entries.flatten().map(|e| e.path()).filter(|path| !kept.contains(path)) {
                freed += remove(&path)?;
            }
        }
        Ok(freed)
    }

    /// The hash of a file, from memory when the file is unchanged since.
    pub(crate) fn hash_of(&self, path: &Path) -> Result<String> {
        let path = path.canonicalize().map_err(|e| Error::io("read", path, e))?;
        let meta = fs::metadata(&path).map_err(|e| Error::io("read", &path, e))?;
        let stamp = store::stamp(&meta);
        let memo = self.memo_file("paths", &path);
        let known: Option<FileHash> = store::read_json(&memo)?;
        if let Some(known) = known.filter(|k| k.stamp == stamp && k.path == path) {
            return Ok(known.sha256);
        }
        let sha256 = store::sha256_file(&path)?;
        if store::is_settled(&meta) {
            let hashed = FileHash { path, stamp, sha256: sha256.clone() };
            self.scratch.write_json(&memo, &hashed)?;
        }
        Ok(sha256)
    }

    /// Drops derived entries that nobody used lately; called when one is added.
    pub(crate) fn prune(&self) -> Result<()> {
        let _lock = self.commit_lock()?;
        let kept = self.referenced()?;
        store::prune(&self.dir.join("objects"), KEEP_OBJECTS, &kept)?;
        store::prune(&self.dir.join("images"), KEEP_IMAGES, &kept)?;
        store::prune(&self.dir.join("trees"), KEEP_TREES, &kept)?;
        store::prune(&self.dir.join("vmlinux"), KEEP_BUILT, &kept)?;
        for part in ["paths", "modules", "initramfs"] {
            store::prune(&self.dir.join(part), KEEP_SMALL, &kept)?;
        }
        Ok(())
    }

    /// The objects, images, trees and built kernels that belong to a name.
    fn referenced(&self) -> Result<BTreeSet<PathBuf>> {
        let both = |m: &Manifest| [self.object_dir(&m.object), self.image_dir(&m.bzimage_sha256)];
        let mut kept: BTreeSet<_> = self.manifests()?.iter().flat_map(both).collect();
        kept.extend(self.qemu_manifests()?.iter().map(|m| self.tree_dir(&m.tree)));
        kept.extend(self.source_manifests()?.iter().map(|m| self.tree_dir(&m.tree)));
        kept.extend(self.built_manifests()?.iter().map(|m| self.built_dir(&m.id)));
        Ok(kept)
    }

    fn manifests(&self) -> Result<Vec<Manifest>> {
        self.read_all("kernels")
    }

    /// All manifests of a kind, by name.
    pub(crate) fn read_all<T: DeserializeOwned>(&self, part: &str) -> Result<Vec<T>> {
        let dir = self.dir.join(part);
        let entries = fs::read_dir(&dir).map_err(|e| Error::io("read", &dir, e))?;
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let manifests = paths.iter().map(|path| store::read_json(path));
        manifests.filter_map(Result::transpose).collect()
    }

    /// What is cached under a recipe's name.
    pub(crate) fn manifest(&self, name: &str) -> Result<Option<Manifest>> {
        if is_word(name) { store::read_json(&self.manifest_file(name)) } else { Ok(None) }
    }

    /// Puts a kernel under its name. One that had the name counts as used until now.
    pub(crate) fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        let _lock = self.commit_lock()?;
        if !self.object_dir(&manifest.object).exists() {
            // Somebody cleaned the cache in the moment before the lock.
            return Err(Error::NotFetched { name: manifest.name.clone() });
        }
        if let Some(before) = self.manifest(&manifest.name)? {
            store::touch(&self.object_dir(&before.object));
            store::touch(&self.image_dir(&before.bzimage_sha256));
        }
        self.scratch.write_json(&self.manifest_file(&manifest.name), manifest)
    }

    /// Moves the subdirectory `tree` of a scratch directory to its place among the trees. A tree of
    /// this name that another run installed stays, unless it has lost files since.
    pub(crate) fn publish_tree(
        &self,
        work: &ScratchDir,
        id: &str,
        is_whole: impl FnOnce(&str) -> bool,
    ) -> Result<()> {
        // Without this a power cut could leave a tree with empty files in it.
        store::sync_all(work.path())?;
        let _lock = self.commit_lock()?;
        if !is_whole(id) {
            store::remove_tree(&self.tree_dir(id))?;
        }
        work.publish("tree", &self.tree_dir(id))
    }

    /// Held while a kernel's files are put in their place, or taken away.
    pub(crate) fn commit_lock(&self) -> Result<Lock> {
        Lock::take(&self.lock_file("commit"), || ())
    }

    pub(crate) fn lock_file(&self, name: &str) -> PathBuf {
        self.dir.join("locks").join(name)
    }

    pub(crate) fn object_dir(&self, id: &str) -> PathBuf {
        self.dir.join("objects").join(id)
    }

    pub(crate) fn tree_dir(&self, id: &str) -> PathBuf {
        self.dir.join("trees").join(id)
    }

    pub(crate) fn image_dir(&self, sha256: &str) -> PathBuf {
        self.dir.join("images").join(sha256)
    }

    pub(crate) fn known_file(&self, name: &str) -> PathBuf {
        self.dir.join("known").join(format!("{name}.json"))
    }

    pub(crate) fn manifest_file(&self, name: &str) -> PathBuf {
        self.dir.join("kernels").join(format!("{name}.json"))
    }

    /// Where something learnt about `path` is kept.
    pub(crate) fn memo_file(&self, kind: &str, path: &Path) -> PathBuf {
        let key = sha256_hex(path.as_os_str().as_encoded_bytes());
        self.dir.join(kind).join(format!("{key}.json"))
    }
}

fn default_dir() -> Result<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Ok(cache.ok_or(Error::NoHome)?.join("dmarig"))
}

pub(crate) fn remove(tree: &Path) -> Result<u64> {
    let size = store::disk_usage(tree);
    store::remove_tree(tree)?;
    Ok(size)
}
