//! Fetches a recipe's kernel, source or QEMU: the only part that uses the network.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::apt::{self, AptRoot, AptSource, IndexEntry};
use crate::cache::{Manifest, NewestVersion};
use crate::image::{Object, object_id};
use crate::kernel::PackageId;
use crate::progress::{Progress, step};
use crate::recipe::Kind;
use crate::store::{self, Lock};
use crate::{Cache, Error, Mirrors, Recipe, Result, UpdateSuite, deb822, package_tree};

const ETC_APT: &str = "/etc/apt";

/// How to fetch.
#[derive(Clone, Debug, Default)]
pub struct FetchOptions {
    /// The mirrors that the user set.
    pub mirrors: Mirrors,
    /// Whether to ask the archive although its index here is younger than six hours.
    pub refresh: bool,
}

/// A kernel, a source or a QEMU that is in the cache now.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The recipe's name.
    pub name: String,
    /// As `uname -r` will say in a guest with this kernel; `None` for a source or a QEMU.
    pub release: Option<String>,
    /// The package's version.
    pub version: String,
    /// Whether there was nothing to do.
    pub already_cached: bool,
    /// What it was unpacked from.
    pub packages: Vec<PackageId>,
    /// Bytes downloaded, without the index.
    pub bytes: u64,
}

/// What to download.
pub(crate) struct Plan {
    pub(crate) version: String,
    /// The first is the one after which the version is.
    pub(crate) packages: Vec<IndexEntry>,
}

/// Downloaded packages, each with its sha256.
pub(crate) type Debs = Vec<(PathBuf, String)>;

impl Cache {
    /// Fetches the newest version of a recipe's kernel, source or QEMU, verifies, unpacks and remembers it
    /// under the recipe's name. The version that was there before loses the name; its files stay for a day
    /// at least, since a run may be using them.
    pub fn fetch(
        &self,
        recipe: &Recipe,
        options: &FetchOptions,
        progress: &dyn Progress,
    ) -> Result<Fetched> {
        if recipe.kind == Kind::Qemu {
            package_tree::check_path(self.dir())?;
        }
        let _lock = self.fetch_lock(recipe, progress)?;
        let (root, plan) = self.ask(recipe, options, options.refresh, progress)?;
        if let Some(fetched) = self.already_cached(recipe, &plan)? {
            return Ok(fetched);
        }
        let debs = match download(&root, recipe, &plan, progress) {
            Ok(debs) => debs,
            // The index may be hours old and its version gone from the mirror.
            Err(Error::Apt { .. }) if !is_new(&root) => {
                drop(root);
                return self.fetch_afresh(recipe, options, progress);
            }
            Err(e) => return Err(e),
        };
        self.install(recipe, &plan, &debs, progress)
    }

    fn fetch_afresh(
        &self,
        recipe: &Recipe,
        options: &FetchOptions,
        progress: &dyn Progress,
    ) -> Result<Fetched> {
        progress.message("the mirror has moved on; reading its index again");
        let (root, plan) = self.ask(recipe, options, true, progress)?;
        if let Some(fetched) = self.already_cached(recipe, &plan)? {
            return Ok(fetched);
        }
        let debs = download(&root, recipe, &plan, progress)?;
        self.install(recipe, &plan, &debs, progress)
    }

    /// Asks the archive for the newest version of a recipe's kernel, source or QEMU, and downloads none.
    pub fn newest(
        &self,
        recipe: &Recipe,
        options: &FetchOptions,
        progress: &dyn Progress,
    ) -> Result<String> {
        let _lock = self.fetch_lock(recipe, progress)?;
        let (_, plan) = self.ask(recipe, options, options.refresh, progress)?;
        Ok(plan.version)
    }

    /// One fetch from a suite at a time: apt would fail where it should wait.
    fn fetch_lock(&self, recipe: &Recipe, progress: &dyn Progress) -> Result<Lock> {
        let path = self.lock_file(&format!("fetch-{}", recipe.suite));
        Lock::take(&path, || progress.message("waiting for another fetch from the same suite"))
    }

    fn ask<'a>(
        &self,
        recipe: &'a Recipe,
        options: &FetchOptions,
        refresh: bool,
        progress: &dyn Progress,
    ) -> Result<(AptRoot<'a>, Plan)> {
        apt::require()?;
        let sources = apt_sources(recipe, &options.mirrors, Path::new(ETC_APT), progress)?;
        let root = AptRoot::open(self, recipe, &sources)?;
        root.update(refresh, progress)?;
        let plan = match recipe.kind {
            Kind::Kernel => kernel_plan(&root, recipe)?,
            Kind::Source => source_plan(&root, recipe)?,
            Kind::Qemu => qemu_plan(&root, recipe)?,
        };
        let known = NewestVersion { version: plan.version.clone() };
        self.scratch.write_json(&self.known_file(&recipe.name), &known)?;
        Ok((root, plan))
    }

    fn already_cached(&self, recipe: &Recipe, plan: &Plan) -> Result<Option<Fetched>> {
        match recipe.kind {
            Kind::Kernel => {}
            Kind::Source => return self.known_source(recipe, plan),
            Kind::Qemu => return self.known_qemu(recipe, plan),
        }
        let id = object_id(plan.packages.iter().map(|p| p.sha256.as_str()));
        let Some(object) = self.known_object(&id)? else { return Ok(None) };
        let manifest = self.manifest(&recipe.name)?.filter(|m| m.object == id);
        let manifest = match manifest {
            Some(manifest) => manifest,
            // Another recipe or a run that was killed at its end has unpacked it.
            None => self.commit(recipe, plan, &object)?,
        };
        Ok(Some(fetched(manifest, true, 0)))
    }

    fn install(
        &self,
        recipe: &Recipe,
        plan: &Plan,
        debs: &Debs,
        progress: &dyn Progress,
    ) -> Result<Fetched> {
        let what = format!("unpacking {}", recipe.name);
        let bytes = plan.packages.iter().map(|p| p.size).sum();
        match recipe.kind {
            Kind::Kernel => {}
            Kind::Source => {
                return step(progress, &what, None, || self.install_source(recipe, plan, debs));
            }
            Kind::Qemu => {
                let install = || self.install_qemu(recipe, plan, debs, progress);
                return step(progress, &what, Some(bytes), install);
            }
        }
        let manifest = step(progress, &what, None, || {
            let object = self.object(debs)?;
            self.commit(recipe, plan, &object)
        })?;
        Ok(fetched(manifest, false, bytes))
    }

    /// Puts an object under the recipe's name, once its kernel has proved to be usable.
    fn commit(&self, recipe: &Recipe, plan: &Plan, object: &Object) -> Result<Manifest> {
        let Some(bzimage_sha256) = object.bzimage_sha256.clone() else {
            let packages = plan.packages.iter().map(|p| p.name.as_str()).collect::<Vec<_>>();
            let reason = format!("no kernel in {}", packages.join(", "));
            return Err(no_package(recipe, &recipe.package, &reason));
        };
        let bzimage = self.object_dir(&object.id).join("bzImage");
        let image = self.bzimage(&bzimage, &bzimage_sha256)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let manifest = Manifest {
            name: recipe.name.clone(),
            release: image.release,
            version: plan.version.clone(),
            object: object.id.clone(),
            bzimage_sha256,
            packages: object.packages.clone(),
            fetched: now.as_secs(),
        };
        self.put_manifest(&manifest)?;
        Ok(manifest)
    }
}

/// The suites that a recipe takes packages from. An archive of updates for which no mirror is known
/// is left out with a message, so that a host with a single mirror can fetch.
fn apt_sources<'a>(
    recipe: &'a Recipe,
    mirrors: &Mirrors,
    etc_apt: &Path,
    progress: &dyn Progress,
) -> Result<Vec<AptSource<'a>>> {
    let mirror = mirrors.url(recipe.archive, etc_apt)?;
    let suites = std::iter::once(&recipe.suite).chain(&recipe.base);
    let mut sources: Vec<_> =
        suites.map(|suite| AptSource { mirror: mirror.clone(), suite }).collect();
    for UpdateSuite { suite, archive } in &recipe.updates {
        match mirrors.url(*archive, etc_apt) {
            Ok(mirror) => sources.push(AptSource { mirror, suite }),
            Err(Error::NoMirror { .. }) => progress.message(&format!(
                "no mirror of {} known, so updates from {suite} are left out; set {}",
                archive.name(),
                archive.setting()
            )),
            Err(error) => return Err(error),
        }
    }
    Ok(sources)
}

fn fetched(manifest: Manifest, already_cached: bool, bytes: u64) -> Fetched {
    let Manifest { name, release, version, packages, .. } = manifest;
    let release = Some(release);
    Fetched { name, release, version, already_cached, packages, bytes }
}

fn is_new(root: &AptRoot<'_>) -> bool {
    let age = root.updated().and_then(|t| t.elapsed().ok());
    age.is_some_and(|age| age.as_secs() < 60)
}

/// Follows the meta package to the packages that make up a kernel. Up to Debian 13 that is one;
/// from 7.3 on the image package is a small one beside linux-binary (the kernel), linux-modules
/// and linux-base (the configuration).
fn kernel_plan(root: &AptRoot<'_>, recipe: &Recipe) -> Result<Plan> {
    const IMAGE: &str = "linux-image-";
    let show = |name: &str| {
        root.show(name)?.ok_or_else(|| no_package(recipe, name, "there is no such package"))
    };
    let meta = show(&recipe.package)?;
    let image = deb822::depends(&meta.depends).find(|name| name.starts_with(IMAGE));
    let image = match image {
        Some(name) => show(name)?,
        // The recipe names the image itself.
        None if meta.name.starts_with(IMAGE) => meta,
        None => return Err(no_package(recipe, &meta.name, "it depends on no linux-image-*")),
    };
    let release = image.name.trim_start_matches(IMAGE).trim_start_matches("unsigned-");
    let parts: Vec<_> = deb822::depends(&image.depends)
        .filter(|name| {
            ["linux-base-", "linux-binary-", "linux-modules-"].iter().any(|p| name.starts_with(p))
                && name.ends_with(&format!("-{release}"))
        })
        .collect();
    let version = image.version.clone();
    let mut packages = parts.into_iter().map(show).collect::<Result<Vec<_>>>()?;
    // First the one after which the kernel is named.
    packages.insert(0, image);
    Ok(Plan { version, packages })
}

/// Follows the meta package to the one that has the source of the newest kernel.
fn source_plan(root: &AptRoot<'_>, recipe: &Recipe) -> Result<Plan> {
    let show = |name: &str| {
        root.show(name)?.ok_or_else(|| no_package(recipe, name, "there is no such package"))
    };
    let meta = show(&recipe.package)?;
    let source = deb822::depends(&meta.depends).find(|name| name.starts_with("linux-source-"));
    let package = match source {
        Some(name) => show(name)?,
        // The recipe names the source itself, which may depend on programs that unpack it.
        None if meta.name.starts_with("linux-source-") => meta,
        None => return Err(no_package(recipe, &meta.name, "it depends on no linux-source-*")),
    };
    Ok(Plan { version: package.version.clone(), packages: vec![package] })
}

/// The package with the QEMU, and all that it depends on.
fn qemu_plan(root: &AptRoot<'_>, recipe: &Recipe) -> Result<Plan> {
    let no_package = || no_package(recipe, &recipe.package, "there is no such package");
    let mut packages = root.with_dependencies(&recipe.package)?.ok_or_else(no_package)?;
    let named = packages.iter().position(|p| p.name == recipe.package).ok_or_else(no_package)?;
    packages.swap(0, named);
    Ok(Plan { version: packages[0].version.clone(), packages })
}

pub(crate) fn no_package(recipe: &Recipe, package: &str, reason: &str) -> Error {
    Error::NoPackage {
        recipe: recipe.name.clone(),
        suite: recipe.suite.clone(),
        package: package.to_owned(),
        reason: reason.to_owned(),
    }
}

/// Downloads, and checks each file against the index once more: what is unpacked is then what
/// was signed, whatever apt's settings are.
fn download(
    root: &AptRoot<'_>,
    recipe: &Recipe,
    plan: &Plan,
    progress: &dyn Progress,
) -> Result<Debs> {
    let what = match recipe.kind {
        Kind::Kernel | Kind::Source => &plan.packages[0].name,
        Kind::Qemu => &recipe.name,
    };
    let dir = root.download(what, &plan.packages, progress)?;
    let entries = fs::read_dir(dir).map_err(|e| Error::io("read", dir, e))?;
    let files: Vec<_> = entries.flatten().map(|e| e.path()).filter(|p| apt::is_deb(p)).collect();
    plan.packages.iter().map(|package| find_download(&files, package)).collect()
}

fn find_download(files: &[PathBuf], package: &IndexEntry) -> Result<(PathBuf, String)> {
    let start = format!("{}_", package.name);
    let named = |path: &&PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start))
    };
    let missing = || Error::Checksum {
        path: PathBuf::from(format!("{start}*.deb")),
        expected: package.sha256.clone(),
        found: "of no file: it wasn't downloaded".to_owned(),
    };
    let path = files.iter().find(named).ok_or_else(missing)?;
    let found = store::sha256_file(path)?;
    if found != package.sha256 {
        let expected = package.sha256.clone();
        return Err(Error::Checksum { path: path.clone(), expected, found });
    }
    Ok((path.clone(), found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::{Archive, Recipes};

    #[test]
    fn names_the_mirror_of_each_suite_and_leaves_out_updates_without_one() {
        let etc_apt = tempfile::tempdir().unwrap();
        let recipes = Recipes::builtin();
        let (main, security) = ("http://m.test/debian", "http://s.test/debian-security");
        let known = Mirrors { debian: Some(main.to_owned()), security: Some(security.to_owned()) };
        let one_mirror = Mirrors { security: None, ..known.clone() };
        let sources = |name: &str, mirrors: &Mirrors| {
            let recipe = recipes.get(name).or(recipes.qemu(name)).unwrap();
            let sources = apt_sources(recipe, mirrors, etc_apt.path(), &Silent)?;
            Ok(sources.iter().map(|s| format!("{} {}", s.mirror, s.suite)).collect::<Vec<_>>())
        };
        let release = ["bookworm", "bookworm-updates"].map(|suite| format!("{main} {suite}"));
        let mut all = release.to_vec();
        all.push(format!("{security} bookworm-security"));
        assert_eq!(sources("debian-6.1", &known).unwrap(), all);
        assert_eq!(sources("debian-6.1", &one_mirror).unwrap(), release);
        let backports = ["trixie-backports", "trixie"].map(|suite| format!("{main} {suite}"));
        assert_eq!(sources("qemu-11.1", &one_mirror).unwrap(), backports);
        let missing: Result<_> = sources("debian-5.10", &one_mirror);
        let setting = Archive::DebianSecurity.setting();
        assert!(matches!(missing, Err(Error::NoMirror { setting: named, .. }) if named == setting));
    }

    #[test]
    fn refuses_a_changed_download() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("linux-image-1_1_amd64.deb");
        fs::write(&path, "tampered").unwrap();
        let package = IndexEntry {
            name: "linux-image-1".into(),
            version: "1".into(),
            depends: String::new(),
            size: 8,
            sha256: dmarig_digest::sha256_hex(b"original"),
        };
        let error = find_download(std::slice::from_ref(&path), &package).unwrap_err();
        assert!(matches!(error, Error::Checksum { .. }), "{error}");
        fs::write(&path, "original").unwrap();
        assert!(find_download(&[path], &package).is_ok());
        assert!(find_download(&[], &package).is_err());
    }
}
