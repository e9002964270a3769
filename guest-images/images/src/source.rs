//! Sources of kernels in the cache: each a tree, unpacked from Debian's package of it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dmarig_digest::sha256_hex;
use serde::{Deserialize, Serialize};

use crate::cache::{NewestVersion, remove};
use crate::codec::Codec;
use crate::fetch::{Debs, Fetched, Plan, no_package};
use crate::kernel::PackageId;
use crate::package_tree::Tree;
use crate::recipe::is_word;
use crate::{Cache, Error, Recipe, Result, deb, store};

/// Raised whenever the same package comes to be unpacked otherwise.
const LAYOUT: u32 = 3;
/// The source's directory in its tree of the cache.
const ROOT: &str = "source";

/// The source of a kernel, as it is in the cache. Nothing may be written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTree {
    /// The recipe's name.
    pub name: String,
    /// The package's version.
    pub version: String,
    /// What tells this source from all others.
    pub id: String,
    /// The directory with its `Makefile`.
    pub root: PathBuf,
    /// The package it was unpacked from.
    pub package: PackageId,
}

/// A source that is in the cache under a recipe's name.
#[derive(Clone, Debug)]
pub struct CachedSource {
    /// Where it is.
    pub tree: SourceTree,
    /// Disk space in bytes.
    pub size: u64,
    /// When it was fetched.
    pub fetched: SystemTime,
    /// The newest version the archive had when it was last asked; `None` if it wasn't.
    pub newest: Option<String>,
}

/// The content of `sources/NAME.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SourceManifest {
    name: String,
    version: String,
    pub(crate) tree: String,
    package: PackageId,
    /// Seconds since 1970.
    fetched: u64,
}

/// The content of `trees/ID/tree.json`, which is written last.
#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    package: PackageId,
    /// [`LAYOUT`] of who unpacked it.
    #[serde(default)]
    layout: u32,
}

impl Cache {
    /// The source that was fetched by the recipe of this name. `None` where there is no such
    /// recipe.
    ///
    /// # Errors
    /// [`Error::SourceNotFetched`] where there is a recipe, and no whole tree.
    pub fn source(&self, name: &str) -> Result<Option<SourceTree>> {
        match self.source_manifest(name)?.filter(|manifest| self.is_source(&manifest.tree)) {
            Some(manifest) => {
                store::touch(&self.tree_dir(&manifest.tree));
                Ok(Some(self.source_tree(manifest)))
            }
            None if self.recipes().source(name).is_some() => {
                Err(Error::SourceNotFetched { name: name.to_owned() })
            }
            None => Ok(None),
        }
    }

    /// The sources that are here under a recipe's name, by name.
    pub fn sources(&self) -> Result<Vec<CachedSource>> {
        let manifests = self.source_manifests()?.into_iter();
        let whole = manifests.filter(|manifest| self.is_source(&manifest.tree));
        whole.map(|manifest| self.describe_source(manifest)).collect()
    }

    fn describe_source(&self, manifest: SourceManifest) -> Result<CachedSource> {
        let known: Option<NewestVersion> = store::read_json(&self.known_file(&manifest.name))?;
        Ok(CachedSource {
            size: store::disk_usage(&self.tree_dir(&manifest.tree)),
            fetched: SystemTime::UNIX_EPOCH + Duration::from_secs(manifest.fetched),
            newest: known.map(|known| known.version),
            tree: self.source_tree(manifest),
        })
    }

    fn source_tree(&self, manifest: SourceManifest) -> SourceTree {
        SourceTree {
            root: self.tree_dir(&manifest.tree).join(ROOT),
            name: manifest.name,
            version: manifest.version,
            id: manifest.tree,
            package: manifest.package,
        }
    }

    /// What there is to say of a plan that was carried out before.
    pub(crate) fn known_source(&self, recipe: &Recipe, plan: &Plan) -> Result<Option<Fetched>> {
        let id = tree_id(plan);
        if !self.is_source(&id) {
            return Ok(None);
        }
        let manifest = match self.source_manifest(&recipe.name)?.filter(|m| m.tree == id) {
            Some(manifest) => manifest,
            // Another recipe or a run that was killed at its end has unpacked it.
            None => self.commit_source(recipe, plan, &id)?,
        };
        Ok(Some(fetched(manifest, true, 0)))
    }

    /// Unpacks what was downloaded into a tree, which appears whole or not at all.
    pub(crate) fn install_source(
        &self,
        recipe: &Recipe,
        plan: &Plan,
        debs: &Debs,
    ) -> Result<Fetched> {
        let Some((path, sha256)) = debs.first() else {
            return Err(no_package(recipe, &recipe.package, "nothing was downloaded"));
        };
        let work = self.scratch.dir()?;
        let new = work.path().join("tree");
        let root = new.join(ROOT);
        let package = unpack(path, &root)?.id(sha256);
        if !root.join("Makefile").is_file() {
            return Err(no_package(recipe, &plan.packages[0].name, "it has no kernel's source"));
        }
        self.scratch.write_json(&new.join("tree.json"), &Contents { package, layout: LAYOUT })?;
        let id = tree_id(plan);
        self.publish_tree(&work, &id, |id| self.is_source(id))?;
        let manifest = self.commit_source(recipe, plan, &id)?;
        self.prune()?;
        Ok(fetched(manifest, false, plan.packages.iter().map(|p| p.size).sum()))
    }

    /// Puts a tree under the recipe's name. One that had the name counts as used until now.
    fn commit_source(&self, recipe: &Recipe, plan: &Plan, id: &str) -> Result<SourceManifest> {
        let _lock = self.commit_lock()?;
        let contents: Option<Contents> = store::read_json(&self.tree_dir(id).join("tree.json"))?;
        // Somebody may have cleaned the cache in the moment before the lock.
        let not_fetched = || Error::SourceNotFetched { name: recipe.name.clone() };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let manifest = SourceManifest {
            name: recipe.name.clone(),
            version: plan.version.clone(),
            tree: id.to_owned(),
            package: contents.ok_or_else(not_fetched)?.package,
            fetched: now.as_secs(),
        };
        if let Some(before) = self.source_manifest(&manifest.name)? {
            store::touch(&self.tree_dir(&before.tree));
        }
        self.scratch.write_json(&self.source_file(&manifest.name), &manifest)?;
        Ok(manifest)
    }

    /// Drops a source; the caller holds the commit lock. `None` where there is none of that name.
    pub(crate) fn rm_source(&self, name: &str) -> Result<Option<u64>> {
        let Some(gone) = self.source_manifest(name)? else { return Ok(None) };
        store::remove_file(&self.source_file(name))?;
        match self.source_manifests()?.iter().any(|m| m.tree == gone.tree) {
            true => Ok(Some(0)),
            false => remove(&self.tree_dir(&gone.tree)).map(Some),
        }
    }

    pub(crate) fn source_manifests(&self) -> Result<Vec<SourceManifest>> {
        self.read_all("sources")
    }

    fn source_manifest(&self, name: &str) -> Result<Option<SourceManifest>> {
        if is_word(name) { store::read_json(&self.source_file(name)) } else { Ok(None) }
    }

    fn source_file(&self, name: &str) -> PathBuf {
        self.dir().join("sources").join(format!("{name}.json"))
    }

    fn is_source(&self, id: &str) -> bool {
        let dir = self.tree_dir(id);
        let contents = store::read_json::<Contents>(&dir.join("tree.json"));
        contents.is_ok_and(|contents| contents.is_some_and(|contents| contents.layout == LAYOUT))
            && dir.join(ROOT).join("Makefile").is_file()
    }
}

fn fetched(manifest: SourceManifest, already_cached: bool, bytes: u64) -> Fetched {
    let SourceManifest { name, version, package, .. } = manifest;
    Fetched { name, release: None, version, already_cached, packages: vec![package], bytes }
}

/// Unpacks the tar that the package holds.
fn unpack(deb: &Path, root: &Path) -> Result<deb::Control> {
    let mut found = false;
    let control = deb::read(deb, |data| {
        let mut data = tar::Archive::new(data);
        for entry in data.entries().map_err(|e| Error::bad_deb(deb, e))? {
            let entry = entry.map_err(|e| Error::bad_deb(deb, e))?;
            let name = entry.path().map_err(|e| Error::bad_deb(deb, e))?.into_owned();
            let Some(parts) = deb::relative_parts(&name) else { continue };
            let ["usr", "src", name] = &parts[..] else { continue };
            if name.starts_with("linux-source-") && name.contains(".tar") && !found {
                found = true;
                unpack_tar(deb, entry, root)?;
            }
        }
        Ok(())
    })?;
    match found {
        true => Ok(control),
        false => Err(Error::bad_deb(deb, "it has no usr/src/linux-source-*.tar.*")),
    }
}

fn unpack_tar(deb: &Path, mut packed: impl Read, root: &Path) -> Result<()> {
    let mut head = [0; 6];
    packed.read_exact(&mut head).map_err(|e| Error::bad_deb(deb, e))?;
    let whole = head.chain(packed);
    let Some(codec) = Codec::detect(&head) else {
        return Err(Error::bad_deb(deb, "its source is packed in a way that isn't known here"));
    };
    let mut tar = codec.reader(whole).map_err(|e| Error::bad_deb(deb, e))?;
    Tree::unpack_source(root, deb, &mut tar)
}

/// The name of the tree of this package.
fn tree_id(plan: &Plan) -> String {
    let all: Vec<_> = plan.packages.iter().map(|p| p.sha256.as_str()).collect();
    let mut id = sha256_hex(format!("source {LAYOUT}\n{}", all.join("\n")).as_bytes());
    id.truncate(20);
    id
}
