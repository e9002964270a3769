//! A kernel of the cache as files that a guest gets, so that a dmarig in there can boot it.

use std::path::{Path, PathBuf};

use crate::initramfs::AddedFile;
use crate::{Cache, Error, KernelImage, ModuleFile, Result};

/// A kernel as it stands in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// What it is called there: the recipe's name, or a path.
    pub spec: String,
    /// Its modules there, where they have to be named.
    pub modules: Option<String>,
    /// The directory that is the cache there.
    pub cache: String,
    /// All its files.
    pub files: Vec<AddedFile>,
    at: String,
}

impl Cache {
    /// The files by which a guest has this kernel with these of its modules, all below the
    /// directory `at`. One of a recipe keeps its name and all that is known of its packages.
    ///
    /// # Errors
    /// Where the cache can't be read.
    pub fn export(&self, image: &KernelImage, modules: &[ModuleFile], at: &str) -> Result<Export> {
        let mut export = Export {
            spec: image.label.clone(),
            modules: None,
            cache: format!("{at}/cache"),
            files: Vec::new(),
            at: at.to_owned(),
        };
        match self.manifest(&image.label)? {
            Some(manifest) => {
                let object = self.object_dir(&manifest.object);
                let unpacked = self.image_dir(&manifest.bzimage_sha256);
                export.add_cached(self.dir(), &self.manifest_file(&manifest.name))?;
                for file in ["object.json", "config", "bzImage"] {
                    export.add_cached(self.dir(), &object.join(file))?;
                }
                for file in ["image.json", "config", "vmlinux"] {
                    export.add_cached(self.dir(), &unpacked.join(file))?;
                }
                for module in modules {
                    export.add_cached(self.dir(), &module.path)?;
                }
            }
            None => export.add_plain(image, modules),
        }
        Ok(export)
    }
}

impl Export {
    /// A file of the cache at its place in the other one, if it is there.
    fn add_cached(&mut self, cache: &Path, file: &Path) -> Result<()> {
        if !file.exists() {
            return Ok(());
        }
        // Modules that were named by hand are elsewhere.
        let Ok(place) = file.strip_prefix(cache) else {
            self.add_module(file);
            return Ok(());
        };
        let guest = format!("{}/{}", self.cache, text(place)?);
        self.files.push(AddedFile { guest, host: file.to_owned() });
        Ok(())
    }

    fn add_module(&mut self, file: &Path) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let modules = format!("{}/modules", self.at);
        let guest = format!("{modules}/kernel/{name}");
        self.files.push(AddedFile { guest, host: file.to_owned() });
        self.modules = Some(modules);
    }

    /// A kernel that is a plain file, under plain names.
    fn add_plain(&mut self, image: &KernelImage, modules: &[ModuleFile]) {
        self.spec = format!("{}/boot/vmlinuz", self.at);
        let host = image.bzimage.as_ref().unwrap_or(&image.image).clone();
        self.files.push(AddedFile { guest: self.spec.clone(), host });
        if let Some(config) = &image.config_file {
            let guest = format!("{}/boot/config-{}", self.at, image.release);
            self.files.push(AddedFile { guest, host: config.clone() });
        }
        modules.iter().for_each(|module| self.add_module(&module.path));
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        let other = std::io::Error::other("its name is not UTF-8");
        Error::io("read", &PathBuf::from(path), other)
    })
}
