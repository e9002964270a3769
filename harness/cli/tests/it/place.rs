//! A private place to run dmarig in, and the proof that it leaves nothing there.

use std::{
    fs::{self, File},
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use dmarig_images::Cache;
use dmarig_model::kernel::options;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    fake_probe::{ProbeScript, relay::Fault},
    fake_qemu::{NOTIFY, Script},
};

/// What nothing takes that is not stuck, however busy the machine is.
const STUCK: Duration = Duration::from_secs(900);

/// The kernel that real guests run on.
pub(crate) const REAL_KERNEL: &str = "debian-6.1";

/// A case that a fake guest passes.
pub(crate) const CASE: &str =
    "case: hostile\naxes: {policy: strict}\nworkload: {block: {ops: 64}}\n";

/// Directories of one test's own.
pub(crate) struct Place {
    root: TempDir,
    real: bool,
    notes: UnixListener,
}

/// How a run of dmarig ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// One that is still running.
pub(crate) struct Running {
    child: Child,
    output: PathBuf,
}

/// The user's cache, as a run finds it.
pub(crate) fn real_cache() -> Cache {
    let named = std::env::var_os("DMARIG_CACHE").map(PathBuf::from);
    Cache::open(named.as_deref()).unwrap()
}

impl Place {
    /// A place with a cache of its own, for kernels and QEMUs that are none.
    pub(crate) fn new() -> Self {
        let root = tempfile::Builder::new().prefix("it-").tempdir().unwrap();
        for name in ["tmp", "bin", "runs"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let notes = UnixListener::bind(root.path().join("notes.sock")).unwrap();
        Self { root, real: false, notes }
    }

    /// A place for real guests, on the user's cache.
    pub(crate) fn real() -> Self {
        let cache = real_cache();
        if let Err(error) = cache.resolve(REAL_KERNEL, None) {
            panic!(
                "this test boots {REAL_KERNEL}: run `dmarig images fetch {REAL_KERNEL}` ({error})"
            );
        }
        Self { real: true, ..Self::new() }
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Makes a file, and its directories.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// A QEMU that plays a script.
    pub(crate) fn qemu(&self, script: Script) -> String {
        self.this_binary(&script.file_name())
    }

    /// A probe that plays a script.
    pub(crate) fn probe(&self, script: ProbeScript) -> String {
        self.this_binary(&script.file_name())
    }

    /// A probe for real QEMUs, with a fault.
    pub(crate) fn relayed_probe(&self, fault: Fault) -> String {
        self.this_binary(&fault.file_name())
    }

    fn this_binary(&self, name: &str) -> String {
        let path = self.path("bin").join(name);
        if !path.exists() {
            symlink(std::env::current_exe().unwrap(), &path).unwrap();
        }
        path.display().to_string()
    }

    /// The build directory of a kernel that needs no modules; all that a fake QEMU needs.
    pub(crate) fn kernel(&self) -> String {
        self.kernel_without("kernel", &[])
    }

    /// As that, in another directory, with these options not set.
    pub(crate) fn kernel_without(&self, name: &str, unset: &[&str]) -> String {
        fs::create_dir_all(self.path(name).join("arch")).unwrap();
        let set = options().filter(|name| !name.contains("DEFAULT") && !unset.contains(name));
        let config: String = set.map(|name| format!("{name}=y\n")).collect();
        self.file(&format!("{name}/.config"), config);
        self.file(&format!("{name}/vmlinux"), vmlinux(EM_X86_64));
        self.path(name).display().to_string()
    }

    /// dmarig with these words, in this place.
    pub(crate) fn dmarig(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dmarig"));
        command.args(words);
        self.settle(&mut command);
        command
    }

    /// Has a command do what it does in this place.
    pub(crate) fn settle(&self, command: &mut Command) {
        let own = ["DMARIG_QEMU", "DMARIG_LOG", "DMARIG_MIRROR", "DMARIG_SECURITY_MIRROR"];
        own.iter().for_each(|name| {
            command.env_remove(name);
        });
        if !self.real {
            command.env("DMARIG_CACHE", self.path("cache"));
        }
        command
            .env("DMARIG_RUNS", self.path("runs"))
            .env("DMARIG_HISTORY", self.path("history.sqlite"))
            .env("TMPDIR", self.path("tmp"))
            .env(NOTIFY, self.path("notes.sock"))
            .current_dir(self.root.path())
            .stdin(Stdio::null());
    }

    /// Runs dmarig to its end, and sees that nothing is left of it.
    #[track_caller]
    pub(crate) fn run(&self, words: &[&str]) -> Ended {
        let ended = self.start(self.dmarig(words)).wait();
        self.nothing_is_left();
        ended
    }

    /// Starts a command whose output is kept.
    pub(crate) fn start(&self, mut command: Command) -> Running {
        let output = tempfile::tempdir_in(self.root.path()).unwrap().keep();
        let file = |name: &str| File::create(output.join(name)).unwrap();
        let child = command.stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap();
        Running { child, output }
    }

    /// Waits until a QEMU hangs; what this returns reads its end when that QEMU is gone.
    pub(crate) fn hanging(&self) -> impl std::io::Read + use<> {
        self.notes.set_nonblocking(false).unwrap();
        let (socket, _) = self.notes.accept().unwrap();
        let mut line = [0; 8];
        let mut socket = std::io::BufReader::new(socket);
        std::io::Read::read_exact(&mut socket, &mut line).unwrap();
        socket
    }

    /// No process of this place, and no file in its TMPDIR.
    #[track_caller]
    pub(crate) fn nothing_is_left(&self) {
        self.no_process_is_left();
        let left: Vec<_> = fs::read_dir(self.path("tmp")).unwrap().flatten().collect();
        assert!(left.is_empty(), "left in TMPDIR: {left:?}");
    }

    /// Those that were killed need a moment to be gone; those that were not never will be.
    #[track_caller]
    pub(crate) fn no_process_is_left(&self) {
        for process in self.processes() {
            let Ok(handle) = pidfd_open(process, PidfdFlags::empty()) else { continue };
            let words = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            assert!(ends(&handle, Duration::from_secs(60)), "left running: {process} {words}");
        }
    }

    /// Processes that stand or were started in this place.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let root = self.root.path().display().to_string();
        let here = |pid: &i32| {
            let link = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            link.starts_with(&root) || String::from_utf8_lossy(&words).contains(&root)
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(here)
            .filter_map(Pid::from_raw)
            .collect()
    }

    /// The cells of the only run's record, as they stand in it.
    pub(crate) fn record(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.run_directory().join("cells.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The directory of the only run.
    pub(crate) fn run_directory(&self) -> PathBuf {
        let mut runs = fs::read_dir(self.path("runs")).unwrap().flatten();
        let run = runs.next().expect("a run").path();
        assert!(runs.next().is_none(), "more than one run");
        run
    }
}

/// A file among the logs of the cell whose id holds `part`.
pub(crate) fn log_of(place: &Place, part: &str, name: &str) -> String {
    let cells = fs::read_dir(place.run_directory().join("cells")).unwrap().flatten();
    let mut found = cells.filter(|cell| cell.file_name().to_string_lossy().contains(part));
    let path = found.next().expect(part).path().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn ends(handle: &impl std::os::fd::AsFd, within: Duration) -> bool {
    let within = Timespec::try_from(within).unwrap();
    poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&within)).unwrap() > 0
}

impl Running {
    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(self) -> Ended {
        self.wait_within(STUCK)
    }

    /// Waits for the end of what may take long.
    #[track_caller]
    pub(crate) fn wait_within(mut self, within: Duration) -> Ended {
        let stuck = !self.ends(within);
        if stuck {
            self.child.kill().unwrap();
        }
        let code = self.child.wait().unwrap().code();
        let ended = Ended { code, ..self.output() };
        assert!(!stuck, "it has not ended after {within:?}: {ended:?}");
        ended
    }

    /// Whether it ends within that time.
    pub(crate) fn ends(&self, within: Duration) -> bool {
        ends(&pidfd_open(self.pid(), PidfdFlags::empty()).unwrap(), within)
    }

    /// What it has written so far.
    pub(crate) fn output(&self) -> Ended {
        let read = |name: &str| {
            String::from_utf8_lossy(&fs::read(self.output.join(name)).unwrap()).into_owned()
        };
        Ended { code: None, stdout: read("stdout"), stderr: read("stderr") }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Ended {
    /// The JSON document that it printed.
    #[track_caller]
    pub(crate) fn document(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The cells of its JSON document.
    #[track_caller]
    pub(crate) fn cells(&self) -> Vec<Value> {
        self.document()["cells"].as_array().unwrap().clone()
    }

    /// The cell one of whose axes is this.
    #[track_caller]
    pub(crate) fn cell(&self, axis: &str, value: &str) -> Value {
        let mut cells = self.cells().into_iter();
        let found = cells.find(|cell| cell["axes"][axis] == value);
        found.unwrap_or_else(|| panic!("no cell with {axis} {value}: {self:?}"))
    }

    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Asserts that standard error has these texts.
    #[track_caller]
    pub(crate) fn says(&self, texts: &[&str]) -> &Self {
        for text in texts {
            assert!(self.stderr.contains(text), "no `{text}` in\n{}", self.stderr);
        }
        self
    }
}

/// Asserts a cell's outcome, and that its reasons hold a text.
#[track_caller]
pub(crate) fn came_out(cell: &Value, outcome: &str, reason: &str) {
    let reasons = reasons(cell);
    assert!(cell["outcome"] == outcome, "{} is not {outcome}: {reasons}", cell["outcome"]);
    assert!(reasons.contains(reason), "no `{reason}` in\n{reasons}");
}

/// A cell's reasons, a line each.
pub(crate) fn reasons(cell: &Value) -> String {
    let reasons = cell["reasons"].as_array().unwrap().iter();
    reasons.map(|reason| reason.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

pub(crate) const EM_X86_64: u16 = 62;
pub(crate) const EM_AARCH64: u16 = 183;

/// An ELF file that says that it is a kernel, with the note by which QEMU finds its PVH entry.
pub(crate) fn vmlinux(machine: u16) -> Vec<u8> {
    vmlinux_with(machine, "")
}

/// As that, with these words in it.
pub(crate) fn vmlinux_with(machine: u16, words: &str) -> Vec<u8> {
    let text = format!("{:4096}\0Linux version 6.1.0-fake (me@here) #1\0{words}\0", "");
    let note = [&[4u8, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0][..], b"Xen\0", &[0, 0, 0, 1]].concat();
    let segments: [(u32, &[u8]); 2] = [(1, text.as_bytes()), (4, &note)];
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(64, 0);
    for (at, value) in
        [(16, 2), (18, machine), (20, 1), (32, 64), (52, 64), (54, 56), (56, 2), (58, 64)]
    {
        file[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    let mut offset = 64 + 56 * segments.len() as u64;
    for (kind, content) in segments {
        let size = content.len() as u64;
        file.extend(kind.to_le_bytes());
        file.extend(4u32.to_le_bytes());
        [offset, 0, 0, size, size, 4].iter().for_each(|field| file.extend(field.to_le_bytes()));
        offset += size;
    }
    segments.iter().for_each(|(_, content)| file.extend(*content));
    file
}

/// Whether a path is on this host at all.
pub(crate) fn exists(path: &str) -> bool {
    Path::new(path).exists()
}
