//! One directory a run: `run.json` says what was asked, `cells.jsonl` has a line for each cell that
//! has ended, synced as it is written, and `cells/` the logs of each guest.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use dmarig_model::observation::{OBSERVATION_SCHEMA, Observation, Verdict};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::environment::hash;

/// Version of the record's layout.
pub const RECORD_SCHEMA: u32 = 1;

/// What a run is, in its directory.
const META: &str = "run.json";
/// Its cells.
const CELLS: &str = "cells.jsonl";

/// What a run is, written before its first cell starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunMeta {
    /// [`RECORD_SCHEMA`] of the writer.
    pub schema: u32,
    /// The run's id, also its directory's name.
    pub id: String,
    /// Seconds since 1970.
    pub started: i64,
    /// Version of dmarig.
    pub dmarig: String,
    /// The command line that started it.
    pub command: Vec<String>,
    /// The host.
    pub host: HostFacts,
    /// The case files, as they were.
    pub cases: Vec<CaseText>,
    /// Which rules judge: a hash of the standard table; empty in records of old.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rules: String,
    /// Name of the kernel that the history sets the others in relation to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Cells that are to run; not known in records of old, nor where it is decided on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<u32>,
}

/// The host that a run was made on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// `uname -r`.
    pub kernel: String,
    /// The CPU's model name.
    pub cpu: String,
    /// CPUs online.
    pub cpus: u32,
    /// Memory, in KiB.
    pub memory_kib: u64,
    /// The three load averages at the start.
    pub load: String,
    /// Version of the CPU's microcode, as the kernel says it; empty where it does not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub microcode: String,
    /// Frequency governor of the first CPU; empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub governor: String,
    /// Simultaneous multithreading, in the words of `/sys/devices/system/cpu/smt/control`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub smt: String,
    /// What its user calls it; empty where that was not said. All else is the same on two machines alike.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub machine: String,
}

impl HostFacts {
    /// Memory in GiB, rounded: some KiB of it differ from boot to boot.
    #[must_use]
    pub const fn memory_gib(&self) -> u64 {
        const KIB_PER_GIB: u64 = 1 << 20;
        self.memory_kib.saturating_add(KIB_PER_GIB / 2) / KIB_PER_GIB
    }
}

/// A case file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseText {
    /// Where it was read.
    pub file: String,
    /// What stood in it.
    pub text: String,
}

/// One cell: what was seen, and what was thought of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellRecord {
    /// [`RECORD_SCHEMA`] of the writer.
    pub schema: u32,
    /// What was seen.
    pub observation: Observation,
    /// What was thought of it by itself, without comparisons within the run.
    pub verdict: Verdict,
}

/// Where runs are kept: `$XDG_STATE_HOME/dmarig/runs` or `~/.local/state/dmarig/runs`.
#[must_use]
pub fn runs_directory() -> Option<PathBuf> {
    Some(state_directory()?.join("runs"))
}

/// Where the runs of proofs are kept, on kernels that are bad on purpose: `$XDG_STATE_HOME/dmarig/proofs`
/// or `~/.local/state/dmarig/proofs`.
#[must_use]
pub fn proofs_directory() -> Option<PathBuf> {
    Some(state_directory()?.join("proofs"))
}

/// What is kept beyond a cache: `$XDG_STATE_HOME/dmarig` or `~/.local/state/dmarig`.
pub(crate) fn state_directory() -> Option<PathBuf> {
    let given =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = given("XDG_STATE_HOME").or_else(|| Some(given("HOME")?.join(".local/state")))?;
    Some(state.join("dmarig"))
}

/// Seconds since 1970 for people: `2026-11-22 12:50`, in UTC.
#[must_use]
pub fn utc(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds);
    time.map_or_else(|_| "-".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M").to_string())
}

/// Microseconds since 1970 for programs: `2026-11-22T12:50:49.123456Z`.
pub(crate) fn rfc3339(us: i64) -> String {
    Timestamp::from_microsecond(us).map_or_else(|_| String::new(), |time| time.to_string())
}

/// The rules that this dmarig judges by: a hash of the standard table, with the version.
#[must_use]
pub fn rules() -> String {
    let table = hash([dmarig_model::expect::STANDARD_TEXT], 12);
    format!("{}+{table}", env!("CARGO_PKG_VERSION"))
}

/// A name for something that begins now: it sorts by time, and two of one second differ.
#[must_use]
pub fn new_name() -> String {
    new_id(Timestamp::now())
}

/// Writes one run's record.
#[derive(Debug)]
pub struct Recorder {
    directory: PathBuf,
    cells: File,
}

impl Recorder {
    /// Makes the run's directory below `runs` and writes what the run is; `meta.id` and
    /// `meta.started` are set here.
    ///
    /// # Errors
    /// What the system says, with the place.
    pub fn create(runs: &Path, meta: &mut RunMeta) -> io::Result<Self> {
        let now = Timestamp::now();
        meta.started = now.as_second();
        meta.id = new_id(now);
        let directory = runs.join(&meta.id);
        let told = |error: io::Error| {
            let place = directory.display();
            io::Error::new(
                error.kind(),
                format!("can't write the run's record in {place}: {error}"),
            )
        };
        create_synced(&directory.join("cells")).map_err(told)?;
        let cells = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(directory.join(CELLS))
            .map_err(told)?;
        // As long as this process lives, the run is going on. A file system that knows no locks has
        // none that are in the way.
        let _ = flock(&cells, FlockOperation::NonBlockingLockExclusive);
        // It is a run from when it has this file, which is therefore never half of one.
        let new = directory.join("run.json.new");
        write_synced(&new, &serde_json::to_vec_pretty(meta)?).map_err(told)?;
        fs::rename(new, directory.join(META)).map_err(told)?;
        File::open(&directory).and_then(|directory| directory.sync_all()).map_err(told)?;
        Ok(Self { directory, cells })
    }

    /// The run's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the directory of one cell's logs.
    ///
    /// # Errors
    /// What the system says, with the place.
    pub fn artifacts(&self, cell: &str) -> io::Result<PathBuf> {
        let directory = self.directory.join("cells").join(cell.replace('/', "_"));
        fs::create_dir_all(&directory).map_err(|error| {
            io::Error::new(error.kind(), format!("can't make {}: {error}", directory.display()))
        })?;
        Ok(directory)
    }

    /// Appends one cell, and returns when it is on the disk.
    ///
    /// # Errors
    /// What the system says, with the place: the cell is then not recorded, and its user must be
    /// told so.
    pub fn add(&mut self, cell: &CellRecord) -> io::Result<()> {
        let mut line = serde_json::to_vec(cell)?;
        line.push(b'\n');
        let write = |file: &mut File| file.write_all(&line).and_then(|()| file.sync_data());
        whole_or_nothing(&mut self.cells, write).map_err(|error| {
            let place = self.directory.join(CELLS);
            io::Error::new(error.kind(), format!("can't record in {}: {error}", place.display()))
        })
    }
}

/// Takes back what a failed write left: on a full disk that is half a line, which the next one would
/// be glued to.
fn whole_or_nothing(
    file: &mut File,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let before = file.metadata()?.len();
    write(file).inspect_err(|_| {
        // Where even this fails, the line stays torn, as a killed run may leave it.
        let _ = file.set_len(before);
    })
}

/// Makes a directory and those above it; when this returns, the entries by which they are found are on
/// the disk. Otherwise what is synced in them may be lost with them.
fn create_synced(directory: &Path) -> io::Result<()> {
    let holders = holders_of_new(directory);
    fs::create_dir_all(directory)?;
    holders.iter().try_for_each(|holder| File::open(holder)?.sync_all())
}

/// What the directories are in that are not there yet, of `directory` and those above it.
fn holders_of_new(directory: &Path) -> Vec<PathBuf> {
    let named = |path: &&Path| !path.as_os_str().is_empty();
    let new = directory.ancestors().take_while(|path| named(path) && !path.exists());
    let holder = |new: &Path| new.parent().filter(named).unwrap_or(Path::new(".")).to_owned();
    new.map(holder).collect()
}

pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// `20261122T125049.123456Z-1a2b3c`: sorts by time, and two runs of one moment differ.
fn new_id(now: Timestamp) -> String {
    let mut random = [0u8; 3];
    // Without randomness the time alone has to do.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK);
    let [a, b, c] = random;
    format!("{}-{a:02x}{b:02x}{c:02x}", now.strftime("%Y%m%dT%H%M%S%.6fZ"))
}

/// When a run began, in microseconds since 1970: to the microsecond where its id says it, as those of
/// [`new_id`] do, and to the second otherwise.
pub(crate) fn began_us(id: &str, started: i64) -> i64 {
    let said = id.split_once('-').and_then(|(time, _)| time.parse::<Timestamp>().ok());
    match said {
        Some(said) if said.as_second() == started => said.as_microsecond(),
        _ => started.saturating_mul(1_000_000),
    }
}

/// Why a stored run can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is none of that name.
    #[error("there is no run `{name}` in {runs}; `ls {runs}` shows those that are there")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Where it was looked for.
        runs: String,
    },
    /// A file can't be read.
    #[error("can't read {path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// The system's words.
        error: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}, line {line}: {error}")]
    Damaged {
        /// The file.
        path: String,
        /// The line.
        line: usize,
        /// What is wrong.
        error: String,
    },
    /// Written by a newer dmarig.
    #[error(
        "{path} has {what} version {found}, this dmarig reads up to {known}: use a newer dmarig"
    )]
    Newer {
        /// The file.
        path: String,
        /// What of it: the record, or an observation in it.
        what: &'static str,
        /// Its version.
        found: u32,
        /// The newest that can be read.
        known: u32,
    },
}

/// Of a run that is over and was to have more cells than it has: killed, or stopped by its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EndedEarly {
    /// Cells that were to run.
    pub planned: u32,
    /// Those of them of which there is nothing.
    pub not_run: u32,
}

impl EndedEarly {
    /// Of a run that is over. `None` where all ran, or where it is not known how many were to.
    pub(crate) fn of(planned: Option<u32>, ran: u64) -> Option<Self> {
        let planned = planned?;
        let not_run = planned.saturating_sub(u32::try_from(ran).unwrap_or(u32::MAX));
        (not_run > 0).then_some(Self { planned, not_run })
    }
}

impl fmt::Display for EndedEarly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ended early, {} of {} cells did not run", self.not_run, self.planned)
    }
}

/// A run that was read back.
#[derive(Debug, Clone)]
pub struct StoredRun {
    /// What it is.
    pub meta: RunMeta,
    /// Its cells, in the order in which they ended.
    pub cells: Vec<CellRecord>,
    /// Size of all whole lines of `cells.jsonl`.
    pub bytes: u64,
    /// Whether the last line was cut short, as a killed run may leave it.
    pub torn: bool,
    /// Whether more of it may come: its recorder lives.
    pub going_on: bool,
}

/// What tells of a layout, whatever else has changed.
#[derive(Deserialize)]
struct Versions {
    schema: u32,
    observation: Option<ObservationVersion>,
}

#[derive(Deserialize)]
struct ObservationVersion {
    schema: u32,
}

/// Something with its layout's version in it.
trait Versioned: for<'de> Deserialize<'de> {
    fn versions(&self) -> Versions;
}

impl Versioned for RunMeta {
    fn versions(&self) -> Versions {
        Versions { schema: self.schema, observation: None }
    }
}

impl Versioned for CellRecord {
    fn versions(&self) -> Versions {
        let observation = ObservationVersion { schema: self.observation.schema };
        Versions { schema: self.schema, observation: Some(observation) }
    }
}

impl Versions {
    /// What of it is newer than what can be read, its version, and the newest that can.
    fn newer(&self) -> Option<(&'static str, u32, u32)> {
        let observation = self.observation.as_ref().map_or(0, |observation| observation.schema);
        let all = [
            ("record", self.schema, RECORD_SCHEMA),
            ("observation", observation, OBSERVATION_SCHEMA),
        ];
        all.into_iter().find(|(_, found, known)| found > known)
    }
}

impl StoredRun {
    /// Reads a run by its directory, its id below `runs`, or `last` for the newest there.
    ///
    /// # Errors
    /// [`LoadError`]
    pub fn load(name: &str, runs: &Path) -> Result<Self, LoadError> {
        Self::read(&find(name, runs)?)
    }

    /// The directory of a run by its directory, its id below `runs`, or `last` for the newest there.
    ///
    /// # Errors
    /// [`LoadError::Unknown`]
    pub fn find(name: &str, runs: &Path) -> Result<PathBuf, LoadError> {
        find(name, runs)
    }

    /// Reads the run of a directory.
    ///
    /// # Errors
    /// [`LoadError`]
    pub fn read(directory: &Path) -> Result<Self, LoadError> {
        let path = directory.join(META);
        let meta = parse::<RunMeta>(&read(&path)?, &path, 1)?;
        // Before its cells are read: of what is over, all are there.
        let going_on = Ended::hold(directory)?.is_none();
        let path = directory.join(CELLS);
        let text = read(&path)?;
        let bytes = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let lines = text[..bytes].split_inclusive(|byte| *byte == b'\n').enumerate();
        let cells = lines.map(|(index, line)| parse(line, &path, index + 1));
        let cells = cells.collect::<Result<_, _>>()?;
        Ok(Self { meta, cells, bytes: bytes as u64, torn: bytes < text.len(), going_on })
    }

    /// Whether cells that were planned never ran; of a run that is going on, nobody can say.
    #[must_use]
    pub fn ended_early(&self) -> Option<EndedEarly> {
        EndedEarly::of(self.meta.planned, self.cells.len() as u64).filter(|_| !self.going_on)
    }
}

/// Directories of runs below `runs`, by name: the oldest comes first.
///
/// # Errors
/// [`LoadError::Io`]; that there is no directory of that name is no error, since it is made by the first
/// run.
pub fn run_directories(runs: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let io = |error| LoadError::Io { path: runs.display().to_string(), error };
    let entries = match fs::read_dir(runs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(io)?.path();
        if is_run(&path) && !hidden(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether it is the directory of a run.
#[must_use]
pub fn is_run(directory: &Path) -> bool {
    directory.join(META).is_file()
}

fn hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// A hold on a run that is not going on: nobody writes to it, and while this lives nobody takes it away.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Size of its `cells.jsonl`.
    pub(crate) bytes: u64,
    _lock: File,
}

impl Ended {
    /// `None` where the run is going on.
    pub(crate) fn hold(directory: &Path) -> Result<Option<Self>, LoadError> {
        let path = directory.join(CELLS);
        let io = |error| LoadError::Io { path: path.display().to_string(), error };
        let lock = File::open(&path).map_err(io)?;
        // Where there are no locks, nobody can say.
        let locked = flock(&lock, FlockOperation::NonBlockingLockShared);
        if locked == Err(rustix::io::Errno::WOULDBLOCK) {
            return Ok(None);
        }
        let bytes = lock.metadata().map_err(io)?.len();
        Ok(Some(Self { bytes, _lock: lock }))
    }
}

fn find(name: &str, runs: &Path) -> Result<PathBuf, LoadError> {
    let unknown = || LoadError::Unknown { name: name.to_owned(), runs: runs.display().to_string() };
    if name == "last" {
        let entries = fs::read_dir(runs).map_err(|_| unknown())?;
        let paths = entries.flatten().map(|entry| entry.path());
        return paths.filter(|path| is_run(path) && !hidden(path)).max().ok_or_else(unknown);
    }
    [PathBuf::from(name), runs.join(name)].into_iter().find(|path| is_run(path)).ok_or_else(unknown)
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    fs::read(path).map_err(|error| LoadError::Io { path: path.display().to_string(), error })
}

fn parse<T: Versioned>(text: &[u8], path: &Path, line: usize) -> Result<T, LoadError> {
    let parsed = serde_json::from_slice::<T>(text);
    // A newer layout may well not parse.
    let versions = match &parsed {
        Ok(parsed) => Some(parsed.versions()),
        Err(_) => serde_json::from_slice(text).ok(),
    };
    let path = path.display().to_string();
    if let Some((what, found, known)) = versions.and_then(|versions| versions.newer()) {
        return Err(LoadError::Newer { path, what, found, known });
    }
    parsed.map_err(|error| LoadError::Damaged { path, line, error: error.to_string() })
}

#[cfg(test)]
mod tests;
