//! QEMUs in the cache: each a tree of its package and all that this depends on.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use dmarig_digest::sha256_hex;
use serde::{Deserialize, Serialize};

use crate::cache::{NewestVersion, remove};
use crate::fetch::{Debs, Fetched, Plan};
use crate::initramfs::AddedFile;
use crate::kernel::PackageId;
use crate::launcher::{self, PROGRAM, ROOT};
use crate::package_tree::Tree;
use crate::progress::Progress;
use crate::recipe::is_word;
use crate::{Cache, Error, Recipe, Result, store};

/// Raised whenever the same packages come to be unpacked otherwise.
const LAYOUT: u32 = 1;

/// A QEMU that was fetched, as it is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuTree {
    /// The recipe's name.
    pub name: String,
    /// The package's version.
    pub version: String,
    /// A file that takes the arguments of QEMU: it starts it with the loader, the libraries, the
    /// modules and the firmware of the tree.
    pub program: PathBuf,
    /// The unpacked packages, a root directory with a merged /usr. All its links stay inside.
    pub root: PathBuf,
}

/// A QEMU that is in the cache under a recipe's name.
#[derive(Clone, Debug)]
pub struct CachedQemu {
    /// How it is run.
    pub tree: QemuTree,
    /// Disk space in bytes.
    pub size: u64,
    /// When it was fetched.
    pub fetched: SystemTime,
    /// The newest version the archive had when it was last asked; `None` if it wasn't.
    pub newest: Option<String>,
    /// What it was unpacked from: first its own package, then what that depends on.
    pub packages: Vec<PackageId>,
    /// Whether it is the QEMU that is meant by `qemu`.
    pub is_default: bool,
}

/// The content of `qemus/NAME.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct QemuManifest {
    name: String,
    version: String,
    pub(crate) tree: String,
    packages: Vec<PackageId>,
    /// Seconds since 1970.
    fetched: u64,
}

/// The content of `trees/ID/tree.json`, which is written last.
#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    packages: Vec<PackageId>,
}

impl QemuTree {
    /// The program in a guest that was given [`files`](Self::files).
    pub const IN_A_GUEST: &str = "/usr/bin/qemu-system-x86_64";

    /// All that this QEMU runs with, as files of a guest whose root is the tree.
    ///
    /// # Errors
    /// [`Error::NoQemu`] where something has gone from the tree.
    pub fn files(&self) -> Result<Vec<AddedFile>> {
        let files = launcher::needed_files(&self.root, &self.name)?;
        let added = |path: PathBuf| {
            let host = self.root.join(&path);
            let shown = path.display().to_string();
            // The tree's /usr is merged, and programs name their loader by the place before that.
            let guest = shown
                .strip_prefix("usr/lib64/")
                .map_or_else(|| format!("/{shown}"), |loader| format!("/lib64/{loader}"));
            AddedFile { guest, host }
        };
        Ok(files.into_iter().map(added).collect())
    }
}

impl Cache {
    /// The QEMU that was fetched by the recipe of this name; `qemu` means the default one. `None`
    /// where there is no such recipe: it may be the name of a program.
    ///
    /// # Errors
    /// [`Error::NotFetched`] where there is a recipe, and no whole tree.
    pub fn qemu(&self, name: &str) -> Result<Option<QemuTree>> {
        let recipe = self.recipes().qemu(name);
        let own = recipe.map_or(name, |recipe| recipe.name.as_str());
        match self.qemu_manifest(own)?.filter(|manifest| self.is_tree(&manifest.tree)) {
            Some(manifest) => {
                store::touch(&self.tree_dir(&manifest.tree));
                Ok(Some(self.qemu_tree(&manifest)))
            }
            None if recipe.is_some() => Err(Error::NotFetched { name: own.to_owned() }),
            None => Ok(None),
        }
    }

    /// The QEMUs that are here under a recipe's name, by name.
    pub fn qemus(&self) -> Result<Vec<CachedQemu>> {
        let manifests = self.qemu_manifests()?.into_iter();
        let whole = manifests.filter(|manifest| self.is_tree(&manifest.tree));
        whole.map(|manifest| self.describe_qemu(manifest)).collect()
    }

    fn describe_qemu(&self, manifest: QemuManifest) -> Result<CachedQemu> {
        let known: Option<NewestVersion> = store::read_json(&self.known_file(&manifest.name))?;
        Ok(CachedQemu {
            tree: self.qemu_tree(&manifest),
            size: store::disk_usage(&self.tree_dir(&manifest.tree)),
            fetched: SystemTime::UNIX_EPOCH + Duration::from_secs(manifest.fetched),
            newest: known.map(|known| known.version),
            is_default: self.recipes().default_qemu().name == manifest.name,
            packages: manifest.packages,
        })
    }

    fn qemu_tree(&self, manifest: &QemuManifest) -> QemuTree {
        let dir = self.tree_dir(&manifest.tree);
        QemuTree {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            program: dir.join(PROGRAM),
            root: dir.join(ROOT),
        }
    }

    /// What there is to say of a plan that was carried out before.
    pub(crate) fn known_qemu(&self, recipe: &Recipe, plan: &Plan) -> Result<Option<Fetched>> {
        let id = tree_id(plan);
        if !self.is_tree(&id) {
            return Ok(None);
        }
        let manifest = match self.qemu_manifest(&recipe.name)?.filter(|m| m.tree == id) {
            Some(manifest) => manifest,
            // Another recipe or a run that was killed at its end has unpacked it.
            None => self.commit_qemu(recipe, plan, &id)?,
        };
        Ok(Some(fetched(manifest, true, 0)))
    }

    /// Unpacks what was downloaded into a tree, which appears whole or not at all.
    pub(crate) fn install_qemu(
        &self,
        recipe: &Recipe,
        plan: &Plan,
        debs: &Debs,
        progress: &dyn Progress,
    ) -> Result<Fetched> {
        let work = self.scratch.dir()?;
        let new = work.path().join("tree");
        let mut tree = Tree::new(&new.join(ROOT))?;
        let mut packages = Vec::new();
        for ((path, sha256), listed) in debs.iter().zip(&plan.packages) {
            packages.push(tree.unpack(path)?.id(sha256));
            progress.advance(listed.size);
        }
        tree.finish()?;
        launcher::install_launcher(&new, &recipe.name)?;
        self.scratch.write_json(&new.join("tree.json"), &Contents { packages })?;
        let id = tree_id(plan);
        self.publish_tree(&work, &id, |id| self.is_tree(id))?;
        let manifest = self.commit_qemu(recipe, plan, &id)?;
        self.prune()?;
        Ok(fetched(manifest, false, plan.packages.iter().map(|p| p.size).sum()))
    }

    /// Puts a tree under the recipe's name. One that had the name counts as used until now.
    fn commit_qemu(&self, recipe: &Recipe, plan: &Plan, id: &str) -> Result<QemuManifest> {
        let _lock = self.commit_lock()?;
        let contents: Option<Contents> = store::read_json(&self.tree_dir(id).join("tree.json"))?;
        // Somebody may have cleaned the cache in the moment before the lock.
        let not_fetched = || Error::NotFetched { name: recipe.name.clone() };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let manifest = QemuManifest {
            name: recipe.name.clone(),
            version: plan.version.clone(),
            tree: id.to_owned(),
            packages: contents.ok_or_else(not_fetched)?.packages,
            fetched: now.as_secs(),
        };
        if let Some(before) = self.qemu_manifest(&manifest.name)? {
            store::touch(&self.tree_dir(&before.tree));
        }
        self.scratch.write_json(&self.qemu_file(&manifest.name), &manifest)?;
        Ok(manifest)
    }

    /// Drops a QEMU; the caller holds the commit lock.
    pub(crate) fn rm_qemu(&self, name: &str) -> Result<u64> {
        let name = self.recipes().qemu(name).map_or(name, |recipe| recipe.name.as_str());
        let Some(gone) = self.qemu_manifest(name)? else {
            return Err(Error::NotFetched { name: name.to_owned() });
        };
        store::remove_file(&self.qemu_file(name))?;
        match self.qemu_manifests()?.iter().any(|m| m.tree == gone.tree) {
            true => Ok(0),
            false => remove(&self.tree_dir(&gone.tree)),
        }
    }

    pub(crate) fn qemu_manifests(&self) -> Result<Vec<QemuManifest>> {
        self.read_all("qemus")
    }

    fn qemu_manifest(&self, name: &str) -> Result<Option<QemuManifest>> {
        if is_word(name) { store::read_json(&self.qemu_file(name)) } else { Ok(None) }
    }

    fn qemu_file(&self, name: &str) -> PathBuf {
        self.dir().join("qemus").join(format!("{name}.json"))
    }

    fn is_tree(&self, id: &str) -> bool {
        let dir = self.tree_dir(id);
        dir.join("tree.json").is_file() && launcher::is_whole(&dir)
    }
}

fn fetched(manifest: QemuManifest, already_cached: bool, bytes: u64) -> Fetched {
    let QemuManifest { name, version, packages, .. } = manifest;
    Fetched { name, release: None, version, already_cached, packages, bytes }
}

/// The name of the tree of these packages, in whatever order. It is a part of each command line
/// that runs the QEMU, so it is no longer than it takes to be the only one.
fn tree_id(plan: &Plan) -> String {
    let mut all: Vec<_> = plan.packages.iter().map(|p| p.sha256.as_str()).collect();
    all.sort_unstable();
    let mut id = sha256_hex(format!("{LAYOUT}\n{}", all.join("\n")).as_bytes());
    id.truncate(20);
    id
}
