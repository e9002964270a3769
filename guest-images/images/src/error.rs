use std::io;
use std::path::{Path, PathBuf};

/// Why a kernel, a QEMU or an initramfs can't be had. The text says where, what, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing failed for a reason that has no variant of its own.
    #[error("{}: can't {action}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "read".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file system of the cache has no room, or the user no quota.
    #[error(
        "{}: no space left on its file system. Free some with `dmarig images rm NAME`, or point \
         XDG_CACHE_HOME at a larger one; nothing half-written is kept",
        path.display()
    )]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// The file exists and this user may not touch it.
    #[error(
        "{}: no permission to {action}. Run as a user that may, or copy it and `chmod +r` the copy \
         (distributions keep /boot/vmlinuz-* for root)",
        path.display()
    )]
    NoPermission {
        /// What was tried, as a verb: "read".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
    },
    /// There is no place for the cache.
    #[error(
        "no cache directory: neither XDG_CACHE_HOME nor HOME is set to an absolute path. Set one"
    )]
    NoHome,
    /// A file of recipes doesn't parse or contradicts itself.
    #[error("{}: not a valid list of recipes: {reason}", path.display())]
    Recipes {
        /// The file.
        path: PathBuf,
        /// What and where, with the names that would have been right.
        reason: String,
    },
    /// The host has no apt.
    #[error(
        "`{program}` isn't installed, and kernels and QEMUs are fetched with it. On Debian or Ubuntu \
         install the package apt; elsewhere give a kernel by path (a bzImage, vmlinux, .deb or build \
         directory) and a QEMU by --qemu"
    )]
    NoApt {
        /// The program that isn't there.
        program: String,
    },
    /// No mirror is set and the host's apt doesn't know one.
    #[error(
        "no {archive} mirror: {setting} isn't set and {looked_at}. Set {setting} to the URL of a mirror, \
         which ends in /{archive}"
    )]
    NoMirror {
        /// `debian` or `debian-security`.
        archive: &'static str,
        /// The environment variable that would help.
        setting: &'static str,
        /// Where one was looked for.
        looked_at: String,
    },
    /// A mirror's URL that apt could not use.
    #[error(
        "{setting}=`{url}` isn't a mirror's URL: it must start with http://, https:// or file:/ and hold no blanks"
    )]
    BadMirror {
        /// The environment variable it came from.
        setting: &'static str,
        /// Its value.
        url: String,
    },
    /// Signatures can't be verified.
    #[error(
        "{}: the archive's keyring is missing, so signatures can't be verified. Install the package \
         debian-archive-keyring, or name another file under `keyring:` in the recipe",
        path.display()
    )]
    NoKeyring {
        /// The keyring that the recipe names.
        path: PathBuf,
    },
    /// apt said no: no network, a package that has just been replaced.
    #[error(
        "`{command}` failed ({status}) for the suite {suite}:\n{output}\n\
         What is already in the cache stays usable; try again with a refresh when the mirror answers"
    )]
    Apt {
        /// What was run, without the path of the configuration.
        command: String,
        /// How it ended.
        status: String,
        /// The suite it was about.
        suite: String,
        /// The end of its output.
        output: String,
    },
    /// The suite isn't signed by a key of the keyring.
    #[error(
        "the suite {suite} isn't signed by a key in {}:\n{output}\n\
         On a release older than the suite, update the package debian-archive-keyring, or name a newer \
         keyring under `keyring:` in the recipe. Otherwise don't trust the mirror",
        keyring.display()
    )]
    BadSignature {
        /// The suite.
        suite: String,
        /// The keyring that the recipe names.
        keyring: PathBuf,
        /// The end of apt's output.
        output: String,
    },
    /// The suite has no such package, or the package leads to no kernel.
    #[error(
        "{package} in the suite {suite}: {reason}. Check `suite` and `package` of the recipe {recipe}"
    )]
    NoPackage {
        /// The recipe's name.
        recipe: String,
        /// The suite.
        suite: String,
        /// The package that was looked at.
        package: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A downloaded file isn't what the signed index promised.
    #[error("{}: sha256 is {found}, but the index has {expected}. Fetch again; if it persists, the mirror is broken", path.display())]
    Checksum {
        /// The downloaded file.
        path: PathBuf,
        /// From the index.
        expected: String,
        /// Of the file.
        found: String,
    },
    /// A .deb that doesn't unpack.
    #[error("{}: not a usable .deb: {reason}. Fetch or build it again", path.display())]
    BadDeb {
        /// The package.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A .deb that would write where it must not, or without end.
    #[error("{}: refused, its entry `{entry}` {reason}. No package of the archive has this: don't trust it", path.display())]
    UnsafeDeb {
        /// The package.
        path: PathBuf,
        /// The entry's name, escaped.
        entry: String,
        /// What it would do.
        reason: &'static str,
    },
    /// A .deb without a kernel: a meta package, headers, modules only.
    #[error("{}: the package {package} holds no kernel (no /boot/vmlinuz-*){}", path.display(), hint_depends(depends))]
    NoKernelInDeb {
        /// The package.
        path: PathBuf,
        /// Its name.
        package: String,
        /// What it depends on, where a kernel might be.
        depends: String,
    },
    /// A recipe's kernel or QEMU that isn't in the cache.
    #[error("{name} isn't in the cache. Run `dmarig images fetch {name}`")]
    NotFetched {
        /// The recipe's name.
        name: String,
    },
    /// A recipe's source that isn't in the cache.
    #[error("the source {name} isn't in the cache. Run `dmarig images fetch {name}`")]
    SourceNotFetched {
        /// The recipe's name.
        name: String,
    },
    /// A kernel that isn't built, though there is a source of that name, or was one.
    #[error(
        "{name} is not built. Run `dmarig kernel build {name}`; `dmarig kernel list` shows what is built"
    )]
    NotBuilt {
        /// The kernel's name.
        name: String,
    },
    /// A name that a built kernel can't have.
    #[error(
        "`{}` can't be the name of a built kernel: letters, digits and `.+-_` only, starting with a letter \
         or digit, and not the name of a kernel that is fetched. Give another by --name",
        name.escape_default()
    )]
    BadKernelName {
        /// As given.
        name: String,
    },
    /// Packages that make no QEMU that could run.
    #[error(
        "{recipe}: its packages make no QEMU that runs: {reason}. Check `suite`, `base` and `package` of \
         the recipe"
    )]
    NoQemu {
        /// The recipe's name.
        recipe: String,
        /// What is missing.
        reason: String,
    },
    /// A cache at a path that a QEMU can't be run from.
    #[error(
        "{}: a fetched QEMU can't run from a path with `:`, `;` or `$` in it, which the dynamic loader \
         reads as signs of its own. Name another cache by --cache",
        path.display()
    )]
    BadCachePath {
        /// The cache.
        path: PathBuf,
    },
    /// Neither a name nor a path.
    #[error(
        "`{spec}` is neither a kernel's name nor an existing path{} (names: {})",
        did_you_mean(spec, known),
        known.join(", ")
    )]
    UnknownKernel {
        /// As given.
        spec: String,
        /// Names of kernels.
        known: Vec<String>,
    },
    /// A directory that is no kernel build tree.
    #[error(
        "{}: a directory without a kernel (neither arch/x86/boot/bzImage nor vmlinux){}. Run `make bzImage` \
         there, or name the kernel's file",
        path.display(),
        hint_found(found)
    )]
    NoKernelInDir {
        /// The directory.
        path: PathBuf,
        /// A file in it that looks like a kernel.
        found: Option<PathBuf>,
    },
    /// A file of no bytes.
    #[error("{}: the file is empty. Build or copy it again", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A file that ends before its own header says.
    #[error("{}: truncated: {have} bytes, its header asks for at least {need}. Build or copy it again", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        have: u64,
        /// What its header needs in bytes.
        need: u64,
    },
    /// A kernel for another machine.
    #[error("{}: a kernel for {arch}; the rig boots 64-bit x86 only. Build with ARCH=x86_64", path.display())]
    WrongArch {
        /// The file.
        path: PathBuf,
        /// The machine it is for.
        arch: String,
    },
    /// A file that is no kernel.
    #[error("{}: not a kernel: {found}. Give a bzImage, vmlinux, .deb or build directory", path.display())]
    NotAKernel {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// The kernel in a bzImage doesn't unpack.
    #[error("{}: its {compression} payload doesn't unpack: {reason}. The file is damaged: build or copy it again", path.display())]
    BadPayload {
        /// The bzImage.
        path: PathBuf,
        /// How it is compressed.
        compression: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A vmlinux that QEMU can't enter.
    #[error(
        "{}: this vmlinux has no PVH entry (note XEN_ELFNOTE_PHYS32_ENTRY), so QEMU can't start it. Build \
         with CONFIG_PVH=y, or give the bzImage of the same build",
        path.display()
    )]
    NoPvh {
        /// The vmlinux.
        path: PathBuf,
    },
    /// A directory or package that was given for modules and has none.
    #[error("{}: no modules for {release} here. Give the directory that `make modules_install` or the package made, as in /lib/modules/{release}", path.display())]
    NoModules {
        /// As given.
        path: PathBuf,
        /// The kernel's release.
        release: String,
    },
    /// A module that is neither a file nor built in.
    #[error(
        "{}: no module `{name}`{}, and it isn't built in. Give the full set of modules with `--modules`, \
         or a kernel that has it",
        dir.display(),
        hint_needed(needed_by)
    )]
    NoModule {
        /// The module's name, with underscores.
        name: String,
        /// The module that depends on it, when it wasn't asked for itself.
        needed_by: Option<String>,
        /// The tree that was searched.
        dir: PathBuf,
    },
    /// Modules that depend on each other.
    #[error("{}: the modules {chain} depend on each other in a circle. Rebuild the modules", dir.display())]
    ModuleCycle {
        /// The names, joined by arrows.
        chain: String,
        /// The tree.
        dir: PathBuf,
    },
    /// A file that should be a module.
    #[error("{}: not a usable kernel module: {reason}. Rebuild or fetch it again", path.display())]
    BadModule {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file that can't be added to the initramfs.
    #[error("can't add `{guest}` to the initramfs: {reason}")]
    BadAddition {
        /// The path in the guest.
        guest: String,
        /// What is wrong and what would be right.
        reason: String,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Error {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull { path },
            io::ErrorKind::PermissionDenied => Error::NoPermission { action, path },
            _ => Error::Io { action, path, source },
        }
    }

    pub(crate) fn bad_deb(path: &Path, reason: impl ToString) -> Error {
        Error::BadDeb { path: path.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn bad_module(path: &Path, reason: impl ToString) -> Error {
        Error::BadModule { path: path.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn not_a_kernel(path: &Path, found: impl ToString) -> Error {
        Error::NotAKernel { path: path.to_owned(), found: found.to_string() }
    }

    pub(crate) fn truncated(path: &Path, have: u64, need: u64) -> Error {
        Error::Truncated { path: path.to_owned(), have, need }
    }
}

/// A hint at the name that is nearest to `given`, if one is near.
#[must_use]
pub fn did_you_mean(given: &str, names: &[String]) -> String {
    let distance = |name: &&String| strsim::osa_distance(given, name);
    match names.iter().min_by_key(distance) {
        Some(name) if distance(&name) <= 1 + given.len().min(name.len()) / 3 => {
            format!("; did you mean `{name}`?")
        }
        _ => String::new(),
    }
}

fn hint_depends(depends: &str) -> String {
    if depends.is_empty() {
        ". Give the linux-image package".to_owned()
    } else {
        format!(". It depends on: {depends}. Give the package that holds the image")
    }
}

fn hint_found(found: &Option<PathBuf>) -> String {
    found.as_ref().map(|p| format!("; did you mean {}?", p.display())).unwrap_or_default()
}

fn hint_needed(needed_by: &Option<String>) -> String {
    needed_by.as_ref().map(|name| format!(" (needed by {name})")).unwrap_or_default()
}
