//! Queries the version and capabilities of a QEMU.

use std::{
    collections::BTreeSet, fs, io, os::unix::fs::MetadataExt, path::Path, process::Stdio,
    time::Duration,
};

use dmarig_model::{axes::Device, qemu::Qemu, version::Version, viommu::VIOMMUS};
use qapi::qmp::{device_list_properties, qom_list_properties, query_version, quit};
use tokio::{io::AsyncReadExt, process::Command};

use crate::{
    process::die_with_parent,
    qmp::{Qmp, QmpError, QueryCommandLineOptions},
};

/// Types that are queried in addition to those of the device axis and of virtual IOMMUs.
const MORE_TYPES: &[&str] = &["vfio-pci", "vfio-user-pci", "iommufd"];
/// Version of the queries: raised with every change of them, so that no older answer is used.
const QUERY_VERSION: u32 = 3;
/// Accelerators that a cell may want.
const ACCELERATORS: &[&str] = &["kvm", "tcg"];

/// Why a QEMU could not be inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It could not be started.
    #[error("can't start {path}: {error}; install QEMU for x86 or name another binary with --qemu")]
    Start {
        /// The binary.
        path: String,
        /// The system's error.
        error: io::Error,
    },
    /// It exited, or its answers make no sense.
    #[error("{path} does not answer as QEMU does: {error}{stderr}")]
    Answer {
        /// The binary.
        path: String,
        /// What went wrong.
        error: String,
        /// The end of its standard error; empty if there is none.
        stderr: String,
    },
}

/// As [`inspect`], but uses earlier answers if the binary is still the same file, and adds the hash of
/// `binary`: `path` itself, or the program that it starts.
///
/// # Errors
/// [`InspectError`]
pub async fn inspect_cached(
    name: &str,
    path: &Path,
    binary: &Path,
    directory: &Path,
    deadline: Duration,
) -> Result<Qemu, InspectError> {
    let stamp = stamp(binary);
    let file = directory
        .join(format!("{}.json", stamp.replace(|c: char| !c.is_ascii_alphanumeric(), "_")));
    let cached = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Qemu>(&bytes).ok());
    if let Some(mut qemu) = cached
        && Path::new(&qemu.path) == path
    {
        name.clone_into(&mut qemu.name);
        return Ok(qemu);
    }
    let sha256 = dmarig_digest::sha256_file(binary).unwrap_or_default();
    let qemu = Qemu { sha256, ..inspect(name, path, deadline).await? };
    let kept = fs::create_dir_all(directory).and_then(|()| {
        let new = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer(&new, &qemu)?;
        new.persist(&file)?;
        Ok(())
    });
    if let Err(error) = kept {
        tracing::warn!("can't save what {} reported of itself: {error}", path.display());
    }
    Ok(qemu)
}

/// Changes when the binary is replaced.
fn stamp(path: &Path) -> String {
    fs::metadata(path)
        .map(|meta| {
            let (file, size) = ((meta.dev(), meta.ino()), (meta.size(), meta.mtime()));
            format!("{QUERY_VERSION}-{}-{}-{}-{}", file.0, file.1, size.0, size.1)
        })
        .unwrap_or_default()
}

/// Starts the binary without a machine and queries it; `deadline` is for one answer.
///
/// # Errors
/// [`InspectError`]
pub async fn inspect(name: &str, path: &Path, deadline: Duration) -> Result<Qemu, InspectError> {
    let shown = path.display().to_string();
    let arguments =
        ["-M", "none", "-nodefaults", "-no-user-config", "-display", "none", "-qmp", "stdio"];
    let mut command = Command::new(path);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    die_with_parent(&mut command);
    let mut child =
        command.spawn().map_err(|error| InspectError::Start { path: shown.clone(), error })?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let mut stderr = child.stderr.take();
    let inspection = async {
        let (Some(input), Some(output)) = (input, output) else { return Err(QmpError::Closed) };
        let (mut qmp, _events) = Qmp::open(tokio::io::join(output, input), None, deadline).await?;
        let qemu = query(&mut qmp, name, &shown).await?;
        let _ = qmp.execute(quit {}).await;
        Ok(qemu)
    };
    match inspection.await {
        Ok(qemu) => {
            let _ = tokio::time::timeout(deadline, child.wait()).await;
            Ok(qemu)
        }
        Err(error) => {
            let _ = child.kill().await;
            let mut words = Vec::new();
            if let Some(stderr) = &mut stderr {
                // A few KiB say enough.
                let _ =
                    tokio::time::timeout(deadline, stderr.take(4096).read_to_end(&mut words)).await;
            }
            let words = String::from_utf8_lossy(&words).trim().to_owned();
            let stderr = if words.is_empty() { words } else { format!("; it printed: {words}") };
            Err(InspectError::Answer { path: shown, error: error.to_string(), stderr })
        }
    }
}

async fn query(qmp: &mut Qmp, name: &str, path: &str) -> Result<Qemu, QmpError> {
    let version = qmp.execute(query_version {}).await?;
    let number = |part: i64| u32::try_from(part).unwrap_or(0);
    let parts = Version::new(
        number(version.qemu.major),
        number(version.qemu.minor),
        number(version.qemu.micro),
    );
    let package = &version.package;
    let mut devices = BTreeSet::new();
    let wanted = Device::ALL.iter().map(|device| Qemu::device_type(*device));
    let viommus = VIOMMUS.iter().map(|viommu| viommu.qemu().device_type);
    for name in wanted.chain(viommus).chain(MORE_TYPES.iter().copied()) {
        if has_type(qmp, name).await? {
            devices.insert(name.to_owned());
        }
    }
    let mut accelerators = BTreeSet::new();
    for name in ACCELERATORS {
        if has_type(qmp, &format!("{name}-accel")).await? {
            accelerators.insert((*name).to_owned());
        }
    }
    let viommu = VIOMMUS[0].qemu().device_type;
    let iommu = if devices.contains(viommu) {
        let list = device_list_properties { typename: viommu.into() };
        qmp.execute(list).await?
    } else {
        Vec::new()
    };
    let options = qmp.execute(QueryCommandLineOptions {}).await?;
    Ok(Qemu {
        name: name.to_owned(),
        path: path.to_owned(),
        sha256: String::new(),
        version: parts,
        full_version: format!("{parts} {package}").trim().to_owned(),
        devices,
        iommu: iommu
            .into_iter()
            .map(|property| (property.name, property.default_value.unwrap_or_default()))
            .collect(),
        accelerators,
        sandbox: options.iter().any(|option| option.option == "sandbox"),
    })
}

/// Whether QEMU has this type. It is queried by its name: to list all types QEMU loads every module it
/// finds, and it aborts on one that was built for another QEMU.
async fn has_type(qmp: &mut Qmp, typename: &str) -> Result<bool, QmpError> {
    match qmp.execute(qom_list_properties { typename: typename.to_owned() }).await {
        Ok(_) => Ok(true),
        Err(QmpError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
