//! A private place to run dmarig in, and the proof that it leaves nothing there.

use std::{
    fs::{self, File},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use dmarig_fake_qemu::{NOTIFY, ProbeScript, QemuScript, RelayFault, Role};
use dmarig_images::Cache;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use serde_json::Value;
use tempfile::TempDir;

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
    /// Its arguments.
    pub(crate) arguments: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// One that is still running.
pub(crate) struct Running {
    arguments: String,
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
    pub(crate) fn qemu(&self, script: QemuScript) -> String {
        self.program(script)
    }

    /// A probe that plays a script.
    pub(crate) fn probe(&self, script: ProbeScript) -> String {
        self.program(script)
    }

    /// A probe for real QEMUs, with a fault.
    pub(crate) fn relayed_probe(&self, fault: RelayFault) -> String {
        self.program(fault)
    }

    fn program(&self, role: impl Role) -> String {
        role.link_in(&self.path("bin")).display().to_string()
    }

    /// The build directory of a kernel that needs no modules; all that a fake QEMU needs.
    pub(crate) fn kernel(&self) -> String {
        self.kernel_without("kernel", &[])
    }

    /// As that, in another directory, with these options not set.
    pub(crate) fn kernel_without(&self, name: &str, unset: &[&str]) -> String {
        dmarig_fake_qemu::write_kernel_tree(&self.path(name), unset);
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

    /// Text for a snapshot: what differs from one run of a test to the next is replaced by its kind.
    pub(crate) fn redact(&self, text: &str) -> String {
        let root = regex::escape(&self.root.path().display().to_string());
        let dmarig = regex::escape(env!("CARGO_BIN_EXE_dmarig"));
        let kinds = [
            (root.as_str(), "[PLACE]"),
            (dmarig.as_str(), "dmarig"),
            (r"\x1b\[[0-9;]*m", ""),
            (r"\bdmarig(::\w+)+", "[MODULE]"),
            (r"\bdmarig-guest-\w+-\w+", "dmarig-guest-[ID]"),
            (r"\.tmp\w{6}\b", ".tmp[ID]"),
            (r"\d{8}T\d{6}\.\d{6}Z-[0-9a-f]+", "[RUN]"),
            (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?( UTC|Z)?", "[TIME]"),
            (r"\b([0-9a-f]{12}|[0-9a-f]{20}|[0-9a-f]{40}|[0-9a-f]{64})\b", "[HASH]"),
            (r"\bprocess \d+", "process [ID]"),
            // As many as one read happened to bring.
            (r"\b\d+ bytes on the agent's channel", "[N] bytes on the agent's channel"),
        ];
        kinds.iter().fold(text.to_owned(), |text, (pattern, kind)| {
            regex::Regex::new(pattern).unwrap().replace_all(&text, *kind).into_owned()
        })
    }

    /// What commands printed and how they ended, for a snapshot.
    pub(crate) fn transcript<'a>(&self, all: impl IntoIterator<Item = &'a Ended>) -> String {
        let transcripts = all.into_iter().map(|ended| {
            let code = ended.code.map_or("a signal".to_owned(), |code| format!("exit code {code}"));
            format!("$ dmarig {}\n{}{}[{code}]\n", ended.arguments, ended.stdout, ended.stderr)
        });
        self.redact(&transcripts.collect::<Vec<_>>().join("\n"))
    }

    /// Runs dmarig once for each list of arguments, asserts that each run ends with this exit code, and returns the
    /// transcript of all.
    #[track_caller]
    pub(crate) fn run_all(&self, code: i32, all: &[&[&str]]) -> String {
        let ended: Vec<Ended> = all.iter().map(|arguments| self.run(arguments)).collect();
        for one in &ended {
            one.exits(code);
        }
        self.transcript(&ended)
    }

    /// Starts a command whose output is kept.
    pub(crate) fn start(&self, mut command: Command) -> Running {
        let output = tempfile::tempdir_in(self.root.path()).unwrap().keep();
        let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
        let arguments = arguments.collect::<Vec<_>>().join(" ");
        let file = |name: &str| File::create(output.join(name)).unwrap();
        let child = command.stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap();
        Running { arguments, child, output }
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

    /// Puts the recorded runs into the history, and returns how many it did not have.
    #[track_caller]
    pub(crate) fn runs_added_to_the_history(&self) -> usize {
        let runs = || match self.run(&["history", "list", "--all", "--json"]) {
            listed if listed.code == Some(0) => listed.document()["runs"].as_array().unwrap().len(),
            _ => 0,
        };
        let before = runs();
        self.run(&["history", "add"]).exits(0);
        runs() - before
    }

    /// The cells of the only run's record, as they stand in it.
    pub(crate) fn record(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.run_directory().join("cells.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// How the guest of a cell ended, as it stands in the only run's record.
    #[track_caller]
    pub(crate) fn end(&self, cell: &Value) -> Value {
        let recorded = self
            .record()
            .into_iter()
            .find(|recorded| recorded["observation"]["cell"] == cell["id"]);
        recorded.unwrap_or_else(|| panic!("no record of {cell}"))["observation"]["end"].clone()
    }

    /// A cell's outcome and reasons, for a snapshot.
    pub(crate) fn verdict(&self, cell: &Value) -> String {
        self.redact(&format!("{}\n{}", cell["outcome"].as_str().unwrap(), reasons(cell)))
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
        let arguments = self.arguments.clone();
        Ended { arguments, code: None, stdout: read("stdout"), stderr: read("stderr") }
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
}

/// Asserts a cell's outcome.
#[track_caller]
pub(crate) fn came_out(cell: &Value, outcome: &str) {
    let reasons = reasons(cell);
    assert!(cell["outcome"] == outcome, "{} is not {outcome}: {reasons}", cell["outcome"]);
}

/// A cell's reasons, a line each.
pub(crate) fn reasons(cell: &Value) -> String {
    let reasons = cell["reasons"].as_array().unwrap().iter();
    reasons.map(|reason| reason.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

/// Whether a path is on this host at all.
pub(crate) fn exists(path: &str) -> bool {
    Path::new(path).exists()
}
