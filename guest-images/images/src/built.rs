//! Kernels that were built from source, in the cache under names of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::cache::remove;
use crate::recipe::is_word;
use crate::{Cache, Error, Result, store};

/// A kernel that was built, as the cache keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltKernel {
    /// What tells it from all others: of its source, configuration, edits and compiler.
    pub id: String,
    /// As `uname -r` will say.
    pub release: String,
    /// The ELF image.
    pub vmlinux: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    /// What it was built from, a line each, for people.
    pub about: Vec<String>,
}

/// A built kernel that has a name.
#[derive(Clone, Debug)]
pub struct NamedKernel {
    /// Its name on the kernel axis.
    pub name: String,
    /// What it is.
    pub kernel: BuiltKernel,
    /// Disk space in bytes.
    pub size: u64,
    /// When it got the name.
    pub named: SystemTime,
}

/// The content of `built/NAME.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BuiltManifest {
    pub(crate) name: String,
    pub(crate) id: String,
    /// Seconds since 1970.
    named: u64,
}

/// The content of `vmlinux/ID/kernel.json`, which is written last.
#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    release: String,
    about: Vec<String>,
    /// The image's size in bytes.
    size: u64,
}

impl Cache {
    /// The kernel of this id, if it was built before.
    pub fn built(&self, id: &str) -> Result<Option<BuiltKernel>> {
        let dir = self.built_dir(id);
        let Some(contents) = store::read_json::<Contents>(&dir.join("kernel.json"))? else {
            return Ok(None);
        };
        let (vmlinux, config) = (dir.join("vmlinux"), dir.join("config"));
        let size = fs::metadata(&vmlinux).map(|meta| meta.len()).ok();
        if size != Some(contents.size) || !config.is_file() {
            return Ok(None);
        }
        store::touch(&dir);
        let Contents { release, about, .. } = contents;
        Ok(Some(BuiltKernel { id: id.to_owned(), release, vmlinux, config, about }))
    }

    /// Takes a kernel into the cache, as copies of its files; it appears whole or not at all.
    pub fn add_built(&self, kernel: &BuiltKernel) -> Result<BuiltKernel> {
        let id = &kernel.id;
        if !is_word(id) {
            return Err(Error::BadKernelName { name: id.clone() });
        }
        let work = self.scratch.dir()?;
        let new = work.path().join("kernel");
        store::create_dir(&new)?;
        let copy = |from: &Path, name: &str| {
            let to = new.join(name);
            fs::copy(from, &to).map_err(|e| Error::io("write", &to, e))
        };
        let size = copy(&kernel.vmlinux, "vmlinux")?;
        copy(&kernel.config, "config")?;
        let (release, about) = (kernel.release.clone(), kernel.about.clone());
        self.scratch.write_json(&new.join("kernel.json"), &Contents { release, about, size })?;
        // Without this a power cut could leave an image with nothing in it.
        store::sync_all(&new)?;
        {
            let _lock = self.commit_lock()?;
            if self.built(id)?.is_none() {
                // Somebody took files out of it.
                store::remove_tree(&self.built_dir(id))?;
            }
            work.publish("kernel", &self.built_dir(id))?;
        }
        self.prune()?;
        self.built(id)?.ok_or_else(|| Error::NotBuilt { name: id.clone() })
    }

    /// Gives a built kernel a name, by which [`Cache::resolve`] finds it. One that had the name
    /// loses it, and stays for a day at least.
    ///
    /// # Errors
    /// [`Error::BadKernelName`] where it can't be a name, or is that of a kernel that is fetched.
    pub fn name_built(&self, name: &str, id: &str) -> Result<()> {
        self.check_name(name)?;
        let _lock = self.commit_lock()?;
        if self.built(id)?.is_none() {
            return Err(Error::NotBuilt { name: name.to_owned() });
        }
        let named = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (name, id, named) = (name.to_owned(), id.to_owned(), named.as_secs());
        self.scratch.write_json(&self.built_file(&name), &BuiltManifest { name, id, named })
    }

    /// Whether a built kernel may have a name, before an hour is spent on building it.
    ///
    /// # Errors
    /// [`Error::BadKernelName`] where it can't be a name, or is that of a kernel that is fetched.
    pub fn check_name(&self, name: &str) -> Result<()> {
        match is_word(name) && self.recipes().get(name).is_none() {
            true => Ok(()),
            false => Err(Error::BadKernelName { name: name.to_owned() }),
        }
    }

    /// The built kernel of this name.
    pub fn built_named(&self, name: &str) -> Result<Option<BuiltKernel>> {
        match self.built_manifest(name)? {
            Some(manifest) => self.built(&manifest.id),
            None => Ok(None),
        }
    }

    /// The built kernels that have a name, by name.
    pub fn all_built(&self) -> Result<Vec<NamedKernel>> {
        let mut named = Vec::new();
        for manifest in self.built_manifests()? {
            let Some(kernel) = self.built(&manifest.id)? else { continue };
            named.push(NamedKernel {
                size: store::disk_usage(&self.built_dir(&manifest.id)),
                named: SystemTime::UNIX_EPOCH + Duration::from_secs(manifest.named),
                name: manifest.name,
                kernel,
            });
        }
        named.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(named)
    }

    /// Drops a built kernel's name, and the kernel if it has no other. Returns the bytes freed.
    ///
    /// # Errors
    /// [`Error::NotBuilt`] where there is none of that name.
    pub fn rm_built(&self, name: &str) -> Result<u64> {
        let _lock = self.commit_lock()?;
        let Some(gone) = self.built_manifest(name)? else {
            return Err(Error::NotBuilt { name: name.to_owned() });
        };
        store::remove_file(&self.built_file(name))?;
        match self.built_manifests()?.iter().any(|m| m.id == gone.id) {
            true => Ok(0),
            false => remove(&self.built_dir(&gone.id)),
        }
    }

    pub(crate) fn built_manifests(&self) -> Result<Vec<BuiltManifest>> {
        self.read_all("built")
    }

    fn built_manifest(&self, name: &str) -> Result<Option<BuiltManifest>> {
        if is_word(name) { store::read_json(&self.built_file(name)) } else { Ok(None) }
    }

    pub(crate) fn built_dir(&self, id: &str) -> PathBuf {
        self.dir().join("vmlinux").join(id)
    }

    fn built_file(&self, name: &str) -> PathBuf {
        self.dir().join("built").join(format!("{name}.json"))
    }
}
