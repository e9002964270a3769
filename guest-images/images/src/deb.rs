//! Reads a .deb, and unpacks what a kernel needs from it, without dpkg and without trust in it.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Component, Path, PathBuf};

use crate::codec::Codec;
use crate::kernel::PackageId;
use crate::store;
use crate::{Error, Result, deb822};

/// What one package may unpack to. The largest of Debian's kernels takes 0.4 GiB.
const MAX_TOTAL: u64 = 4 << 30;
const MAX_CONTROL: u64 = 16 << 20;
const MAX_ENTRIES: usize = 100_000;

/// What a package says of itself.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) package: String,
    pub(crate) version: String,
    pub(crate) source: String,
    pub(crate) depends: String,
    architecture: String,
}

impl Control {
    pub(crate) fn id(&self, sha256: &str) -> PackageId {
        PackageId {
            name: self.package.clone(),
            version: self.version.clone(),
            source: self.source.clone(),
            sha256: sha256.to_owned(),
        }
    }
}

/// Unpacks the image, its configuration and its modules into `dir`, as `bzImage`, `config` and
/// `modules/`, whichever of them the package has.
pub(crate) fn unpack(path: &Path, dir: &Path) -> Result<Control> {
    read(path, |tar| unpack_data(path, tar, dir))
}

/// Reads a package; `data` gets its files, as a tar.
pub(crate) fn read(path: &Path, data: impl FnOnce(&mut dyn Read) -> Result<()>) -> Result<Control> {
    let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    let mut archive = ar::Archive::new(file);
    let mut control = None;
    while let Some(entry) = archive.next_entry() {
        let entry = entry.map_err(|e| Error::bad_deb(path, e))?;
        let name = String::from_utf8_lossy(entry.header().identifier()).into_owned();
        if name.starts_with("control.tar") {
            control = Some(read_control(path, tar_reader(path, entry)?)?);
        } else if name.starts_with("data.tar") {
            let control = control.ok_or_else(|| Error::bad_deb(path, "data before control"))?;
            data(&mut *tar_reader(path, entry)?)?;
            return Ok(control);
        }
    }
    Err(Error::bad_deb(path, "it has no data.tar: it is cut short, or no package"))
}

fn tar_reader<'a>(path: &Path, mut entry: impl Read + Seek + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut head = [0; 6];
    let got = entry.read(&mut head).map_err(|e| Error::bad_deb(path, e))?;
    entry.rewind().map_err(|e| Error::bad_deb(path, e))?;
    match Codec::detect(&head[..got]) {
        // dpkg writes blocks that can be unpacked side by side.
        Some(Codec::Xz) => {
            let workers = std::thread::available_parallelism().map_or(1, |n| n.get().min(8));
            let reader = lzma_rust2::XzReaderMt::new(entry, false, workers as u32);
            Ok(Box::new(reader.map_err(|e| Error::bad_deb(path, e))?))
        }
        Some(codec) => codec.reader(entry).map_err(|e| Error::bad_deb(path, e)),
        None => Ok(Box::new(entry)),
    }
}

fn read_control(path: &Path, tar: impl Read) -> Result<Control> {
    let mut tar = tar::Archive::new(tar.take(MAX_CONTROL));
    for entry in tar.entries().map_err(|e| Error::bad_deb(path, e))? {
        let mut entry = entry.map_err(|e| Error::bad_deb(path, e))?;
        if entry.path_bytes().strip_prefix(b"./").unwrap_or(&entry.path_bytes()) != b"control" {
            continue;
        }
        let mut text = String::new();
        entry.read_to_string(&mut text).map_err(|e| Error::bad_deb(path, e))?;
        return parse_control(path, &text);
    }
    Err(Error::bad_deb(path, "it has no control file"))
}

fn parse_control(path: &Path, text: &str) -> Result<Control> {
    let lines: Vec<_> = text.lines().collect();
    let need = |key| {
        deb822::field(&lines, key)
            .ok_or_else(|| Error::bad_deb(path, format!("its control file has no {key}")))
    };
    let (package, version) = (need("Package")?, need("Version")?);
    let control = Control {
        source: deb822::source(&lines, &package, &version),
        depends: deb822::field(&lines, "Depends").unwrap_or_default(),
        architecture: need("Architecture")?,
        package,
        version,
    };
    match control.architecture.as_str() {
        "amd64" | "all" => Ok(control),
        other => Err(Error::WrongArch { path: path.to_owned(), arch: other.to_owned() }),
    }
}

fn unpack_data(path: &Path, tar: impl Read, dir: &Path) -> Result<()> {
    let mut tar = tar::Archive::new(tar.take(MAX_TOTAL));
    for (number, entry) in tar.entries().map_err(|e| Error::bad_deb(path, e))?.enumerate() {
        let mut entry = entry.map_err(|e| Error::bad_deb(path, e))?;
        let name = entry.path().map_err(|e| Error::bad_deb(path, e))?.into_owned();
        let refuse = |reason| {
            let entry = name.to_string_lossy().escape_default().to_string();
            Err(Error::UnsafeDeb { path: path.to_owned(), entry, reason })
        };
        if number >= MAX_ENTRIES {
            return refuse("is one of too many");
        }
        let Some(parts) = relative_parts(&name) else {
            return refuse("leaves the directory it is unpacked into");
        };
        let Some(target) = target(&parts) else { continue };
        if entry.header().entry_type().is_dir() {
            continue;
        }
        if !entry.header().entry_type().is_file() {
            return refuse("is a link or a device where a file must be");
        }
        write_entry(path, &mut entry, &dir.join(target))?;
    }
    Ok(())
}

/// The components of a path, or `None` when it is absolute or climbs.
pub(crate) fn relative_parts(name: &Path) -> Option<Vec<&str>> {
    let parts = name.components().filter(|c| *c != Component::CurDir);
    parts
        .map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect()
}

/// Where an entry goes, or `None` when it isn't needed.
fn target(parts: &[&str]) -> Option<PathBuf> {
    let parts = if parts.first() == Some(&"usr") { &parts[1..] } else { parts };
    match parts {
        ["boot", name] if name.starts_with("vmlinuz-") => Some("bzImage".into()),
        ["boot", name] if name.starts_with("config-") => Some("config".into()),
        ["lib", "modules", _, "vmlinuz"] => Some("bzImage".into()),
        ["lib", "modules", _, "config"] => Some("config".into()),
        ["lib", "modules", _, rest @ ..] => {
            let name = rest.last()?;
            let index = ["modules.builtin", "modules.builtin.modinfo", "modules.order"];
            let wanted = index.contains(name) || crate::closure::module_name(name).is_some();
            wanted.then(|| Path::new("modules").join(rest.iter().collect::<PathBuf>()))
        }
        _ => None,
    }
}

fn write_entry(path: &Path, entry: &mut impl Read, target: &Path) -> Result<()> {
    store::create_dir(target.parent().unwrap_or(target))?;
    // A second entry of the same name would otherwise be written over the first.
    let mut file = match File::create_new(target) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Error::bad_deb(path, format!("two files for {}", target.display())));
        }
        result => result.map_err(|e| Error::io("create", target, e))?,
    };
    copy(entry, &mut file, path, target).inspect_err(|_| {
        let _ = fs::remove_file(target);
    })
}

/// Copies, and tells errors of the source from those of the target.
pub(crate) fn copy(
    from: &mut impl Read,
    to: &mut File,
    source: &Path,
    target: &Path,
) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer).map_err(|e| Error::bad_deb(source, e))? {
            0 => return Ok(()),
            n => {
                io::Write::write_all(to, &buffer[..n]).map_err(|e| Error::io("write", target, e))?
            }
        }
    }
}
