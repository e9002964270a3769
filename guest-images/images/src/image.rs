//! Makes a kernel's file bootable and remembers the result by the file's hash; unpacks packages
//! and remembers those.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use dmarig_digest::sha256_hex;
use serde::{Deserialize, Serialize};

use crate::elf::Vmlinux;
use crate::kernel::{Boot, PackageId};
use crate::payload::{BzImage, Payload};
use crate::{Cache, Error, Result, deb, store};

/// The content of `images/SHA256/image.json`: what was learnt from a bzImage or vmlinux.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Image {
    pub(crate) release: String,
    pub(crate) boot: Boot,
    /// The unpacked kernel's size in bytes, when it is here.
    vmlinux: Option<u64>,
    /// How the payload was packed.
    pub(crate) compression: Option<String>,
    pub(crate) note: Option<String>,
}

/// The content of `objects/ID/object.json`: packages that were unpacked together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Object {
    #[serde(skip)]
    pub(crate) id: String,
    pub(crate) packages: Vec<PackageId>,
    pub(crate) bzimage_sha256: Option<String>,
    /// Of the first package, to say where its kernel might be.
    pub(crate) depends: String,
}

impl Cache {
    /// The bootable form of a bzImage.
    pub(crate) fn bzimage(&self, path: &Path, sha256: &str) -> Result<Image> {
        self.image(sha256, || inspect_bzimage(path))
    }

    /// What a vmlinux is; it is booted from where it is.
    pub(crate) fn vmlinux(&self, path: &Path, sha256: &str) -> Result<Image> {
        self.image(sha256, || inspect_vmlinux(path))
    }

    /// The unpacked kernel's place.
    pub(crate) fn vmlinux_file(&self, sha256: &str) -> PathBuf {
        self.image_dir(sha256).join("vmlinux")
    }

    fn image(
        &self,
        sha256: &str,
        inspect: impl FnOnce() -> Result<(Image, Option<Vec<u8>>, Option<String>)>,
    ) -> Result<Image> {
        let dir = self.image_dir(sha256);
        let known: Option<Image> = store::read_json(&dir.join("image.json"))?;
        let whole = |image: &Image| {
            let size = fs::metadata(dir.join("vmlinux")).map(|meta| meta.len()).ok();
            image.vmlinux.is_none() || image.vmlinux == size
        };
        if let Some(image) = known.filter(whole) {
            store::touch(&dir);
            return Ok(image);
        }
        store::remove_tree(&dir)?;
        let (image, vmlinux, config) = inspect()?;
        let work = self.scratch.dir()?;
        let new = work.path().join("image");
        store::create_dir(&new)?;
        if let Some(vmlinux) = vmlinux {
            let path = new.join("vmlinux");
            self.scratch.write(&path, &vmlinux)?;
            let read_only = fs::Permissions::from_mode(0o444);
            fs::set_permissions(&path, read_only).map_err(|e| Error::io("write", &path, e))?;
        }
        if let Some(config) = config {
            self.scratch.write(&new.join("config"), config.as_bytes())?;
        }
        self.scratch.write_json(&new.join("image.json"), &image)?;
        work.publish("image", &dir)?;
        self.prune()?;
        Ok(image)
    }

    /// Unpacks packages, each with its sha256, into one object, unless they are there already.
    pub(crate) fn object(&self, debs: &[(PathBuf, String)]) -> Result<Object> {
        let id = object_id(debs.iter().map(|(_, sha256)| sha256.as_str()));
        if let Some(object) = self.known_object(&id)? {
            store::touch(&self.object_dir(&id));
            return Ok(object);
        }
        let work = self.scratch.dir()?;
        let new = work.path().join("object");
        store::create_dir(&new)?;
        let controls: Vec<_> =
            debs.iter().map(|(path, _)| deb::unpack(path, &new)).collect::<Result<_>>()?;
        let bzimage = new.join("bzImage");
        let bzimage_sha256 = bzimage.exists().then(|| store::sha256_file(&bzimage)).transpose()?;
        let packages = controls.iter().zip(debs).map(|(control, (_, sha))| control.id(sha));
        let depends = controls.first().map(|c| c.depends.clone()).unwrap_or_default();
        let object =
            Object { id: id.clone(), packages: packages.collect(), bzimage_sha256, depends };
        self.scratch.write_json(&new.join("object.json"), &object)?;
        work.publish("object", &self.object_dir(&id))?;
        Ok(object)
    }

    pub(crate) fn known_object(&self, id: &str) -> Result<Option<Object>> {
        let object: Option<Object> = store::read_json(&self.object_dir(id).join("object.json"))?;
        Ok(object.map(|object| Object { id: id.to_owned(), ..object }))
    }
}

/// The name under which packages are unpacked, from their hashes in any order.
pub(crate) fn object_id<'a>(sha256s: impl Iterator<Item = &'a str>) -> String {
    let mut all: Vec<_> = sha256s.collect();
    all.sort_unstable();
    sha256_hex(all.join("\n").as_bytes())
}

fn inspect_bzimage(path: &Path) -> Result<(Image, Option<Vec<u8>>, Option<String>)> {
    let data = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let header = BzImage::parse(&data, path)?;
    let slower =
        |why: &str| format!("{}: boots as a bzImage, which is slower: {why}", path.display());
    let (compression, vmlinux) = match header.unpack(path)? {
        Payload::Elf { compression, vmlinux } => (compression, vmlinux),
        Payload::Opaque { reason } => {
            let release = header.release.ok_or_else(|| no_release(path))?;
            let note = Some(slower(&reason));
            let boot = Boot::BzImage;
            return Ok((
                Image { release, boot, vmlinux: None, compression: None, note },
                None,
                None,
            ));
        }
    };
    let kernel = Vmlinux::parse(&vmlinux, path)?;
    let release = header.release.or(kernel.release).ok_or_else(|| no_release(path))?;
    let image = Image {
        release,
        boot: if kernel.pvh { Boot::Pvh } else { Boot::BzImage },
        vmlinux: kernel.pvh.then_some(vmlinux.len() as u64),
        compression: Some(compression.to_owned()),
        note: (!kernel.pvh).then(|| slower("it was built without CONFIG_PVH")),
    };
    Ok((image, kernel.pvh.then_some(vmlinux), kernel.config))
}

fn inspect_vmlinux(path: &Path) -> Result<(Image, Option<Vec<u8>>, Option<String>)> {
    let data = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let kernel = Vmlinux::parse(&data, path)?;
    // Asked before PVH: any other ELF file fails both, and this says more about it.
    let release = kernel.release.ok_or_else(|| no_release(path))?;
    if !kernel.pvh {
        return Err(Error::NoPvh { path: path.to_owned() });
    }
    let image = Image { release, boot: Boot::Pvh, vmlinux: None, compression: None, note: None };
    Ok((image, None, kernel.config))
}

fn no_release(path: &Path) -> Error {
    Error::not_a_kernel(path, "it does not contain a Linux version")
}
