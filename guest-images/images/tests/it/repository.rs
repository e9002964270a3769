//! A Debian archive on this machine, signed by a key of its own.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use dmarig_digest::sha256_hex;
use dmarig_images::{Cache, FetchOptions, Recipes};
use tar::EntryType;
use tempfile::TempDir;

use crate::synthetic::deb;

/// What a package has besides its name and version.
#[derive(Clone, Default)]
pub(crate) struct Content {
    pub(crate) depends: &'static str,
    pub(crate) entries: Vec<(String, EntryType, Vec<u8>)>,
}

/// An archive with suites of packages.
pub(crate) struct Repository {
    dir: TempDir,
    published: AtomicU64,
}

impl Repository {
    /// An empty one; `None` where this machine has no gpg or no apt.
    pub(crate) fn new() -> Option<Repository> {
        let has = |program: &str| {
            let mut command = Command::new(program);
            command.arg("--version").stdout(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        if let Some(program) = ["gpg", "gpgconf", "apt-get"].into_iter().find(|p| !has(p)) {
            eprintln!("skipped: there is no {program}");
            return None;
        }
        let repository =
            Repository { dir: tempfile::tempdir().unwrap(), published: AtomicU64::new(0) };
        fs::DirBuilder::new().mode(0o700).create(repository.path("gnupg")).unwrap();
        repository.gpg(&["--passphrase", "", "--quick-gen-key", "test", "ed25519", "sign", "0"]);
        let keyring = repository.path("keyring.gpg").display().to_string();
        repository.gpg(&["--output", &keyring, "--export"]);
        Some(repository)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn gpg(&self, words: &[&str]) {
        let fixed = ["--quiet", "--batch", "--yes", "--pinentry-mode", "loopback", "--homedir"];
        let mut command = Command::new("gpg");
        command.args(fixed).arg(self.path("gnupg")).args(words);
        assert!(command.status().unwrap().success(), "gpg {words:?}");
    }

    /// Where a package's file is, below the archive.
    pub(crate) fn file(&self, name: &str, version: &str) -> PathBuf {
        let version = version.replace(':', "%3a");
        self.path("debian/pool").join(format!("{name}_{version}_amd64.deb"))
    }

    /// Writes a suite of these packages, each of a name and a version. One of backports is what apt
    /// takes nothing from unless it is told to.
    pub(crate) fn publish(&self, suite: &str, packages: &[(&str, &str, Content)]) {
        let mut index = String::new();
        fs::create_dir_all(self.path("debian/pool")).unwrap();
        for (name, version, content) in packages {
            let entries = content.entries.iter();
            let entries: Vec<_> =
                entries.map(|(name, kind, data)| (name.as_str(), *kind, data.as_slice())).collect();
            let mut control = format!(
                "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: me <me@here>\n\
                 Description: a test\n"
            );
            if !content.depends.is_empty() {
                control.push_str(&format!("Depends: {}\n", content.depends));
            }
            let data = deb(&control, &entries);
            let file = self.file(name, version);
            fs::write(&file, &data).unwrap();
            let file = file.strip_prefix(self.path("debian")).unwrap().display().to_string();
            let (size, sha256) = (data.len(), sha256_hex(&data));
            index.push_str(&format!(
                "{control}Filename: {file}\nSize: {size}\nSHA256: {sha256}\n\n"
            ));
        }
        let dir = self.path("debian/dists").join(suite);
        let packages = "main/binary-amd64/Packages";
        fs::create_dir_all(dir.join(packages).parent().unwrap()).unwrap();
        fs::write(dir.join(packages), &index).unwrap();
        let kept_back = suite.ends_with("-backports");
        let kept_back =
            if kept_back { "NotAutomatic: yes\nButAutomaticUpgrades: yes\n" } else { "" };
        let release = format!(
            "Origin: test\nSuite: {suite}\nCodename: {suite}\nArchitectures: amd64\n\
             Components: main\n{kept_back}Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {} {} {packages}\n",
            sha256_hex(index.as_bytes()),
            index.len()
        );
        fs::write(dir.join("Release"), release).unwrap();
        let (signed, release) = (dir.join("InRelease"), dir.join("Release"));
        let path = signed.to_str().unwrap();
        self.gpg(&["--output", path, "--clearsign", release.to_str().unwrap()]);
        // apt takes a file for unchanged that has the same time, in seconds.
        let number = self.published.fetch_add(1, Ordering::Relaxed);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + 60 * number);
        fs::File::options().append(true).open(signed).unwrap().set_modified(time).unwrap();
    }

    /// A cache with these recipes of QEMUs, each the inside of a YAML mapping.
    pub(crate) fn cache(&self, name: &str, recipes: &[&str]) -> Cache {
        self.cache_of("qemus", name, recipes)
    }

    /// A cache with these recipes of a kind, by its key in a list of recipes.
    pub(crate) fn cache_of(&self, key: &str, name: &str, recipes: &[&str]) -> Cache {
        let keyring = self.path("keyring.gpg");
        let lines = recipes.iter().map(|recipe| {
            format!("  - {{{recipe}, archive: debian, keyring: {}}}\n", keyring.display())
        });
        let file = self.path("recipes.yaml");
        fs::write(&file, format!("{key}:\n{}", lines.collect::<String>())).unwrap();
        let cache = Cache::open(Some(&self.path(name))).unwrap();
        cache.with_recipes(Recipes::load(&file).unwrap())
    }

    /// To fetch from here, asking anew each time.
    pub(crate) fn options(&self) -> FetchOptions {
        let mut options = FetchOptions { refresh: true, ..FetchOptions::default() };
        let mirror = format!("file://{}", self.path("debian").display());
        options.mirrors.debian = Some(mirror.clone());
        options.mirrors.security = Some(mirror);
        options
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        // It is started by gpg, and would stay.
        let home = self.path("gnupg");
        let _ = Command::new("gpgconf").arg("--homedir").arg(home).args(["--kill", "all"]).status();
    }
}

/// All files and links below `dir`.
pub(crate) fn below(dir: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter().flatten();
    let files = entries.filter(|entry| !entry.file_type().is_dir());
    files.map(|f| f.path().strip_prefix(dir).unwrap().display().to_string()).collect()
}
