//! Processes that are killed at any time lose nothing that was acknowledged.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use dmarig_history::{History, ImportOptions};
use dmarig_records::{CellRecord, StoredRun, run_directories};
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    fixtures::run,
    recorded_cells::{begin, cell, record},
};

/// Environment variable with the working directory of the process to be killed.
const PLACE: &str = "DMARIG_TEST_PLACE";

/// Smallest length of a line to be truncated, in bytes: writing it takes many pages.
const LONG: usize = 1 << 20;

/// A cell with a long line. The long text is not part of the history.
fn long_cell() -> CellRecord {
    let mut cell = cell("a", 1);
    cell.observation.qemu_stderr = "x".repeat(LONG);
    cell
}

/// Records cells until this process is killed.
fn record_until_killed(place: &Path) -> ! {
    let cell = long_cell();
    let mut recorder = begin(&place.join("runs"), |_| ());
    let mut number = 0;
    loop {
        number += 1;
        println!("\nbegun {number}");
        recorder.add(&cell).unwrap();
        println!("\ndone {number}");
    }
}

/// Adds runs to a history until this process is killed.
fn add_until_killed(place: &Path) -> ! {
    let mut history = History::create(&place.join("history.sqlite")).unwrap();
    let mut day = history.runs(None).unwrap().len() as u32;
    loop {
        println!("\nbegun {}", day + 1);
        history.insert_runs([&run(day, f64::from(day))]).unwrap();
        println!("\ndone {}", day + 1);
        day += 1;
    }
}

/// Starts the process to be killed: the same test with [`PLACE`] in its environment.
fn start(test: &str, place: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("killed::{test}"), "--exact", "--nocapture", "--test-threads=1"]);
    command.env(PLACE, place).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// The progress that a process printed before it was dead: how many writes it had begun, and how
/// many it had acknowledged.
#[derive(Debug, Default)]
struct Progress {
    begun: usize,
    done: usize,
}

impl Progress {
    fn read(&mut self, line: &str) {
        let number = |word| line.strip_prefix(word)?.trim().parse().ok();
        if let Some(number) = number("begun") {
            self.begun = number;
        } else if let Some(number) = number("done") {
            self.done = number;
        }
    }

    /// Whether it was killed during a write.
    fn is_within_write(&self) -> bool {
        self.begun > self.done
    }

    /// Asserts that a number of writes is possible: all acknowledged ones, and at most the begun
    /// ones.
    #[track_caller]
    fn check(&self, found: usize) {
        assert!((self.done..=self.begun).contains(&found), "{found} of {self:?}");
    }
}

/// Waits for `until` acknowledgements and for `instant`, and kills the process.
fn kill(mut child: Child, until: usize, instant: impl FnOnce(&mut Child)) -> Progress {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut progress = Progress::default();
    for _ in 0..until {
        let before = progress.done;
        while progress.done == before {
            progress.read(&lines.next().expect("it lives"));
        }
    }
    instant(&mut child);
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    // It may have continued until it was dead.
    lines.for_each(|line| progress.read(&line));
    child.wait().unwrap();
    progress
}

fn below(random: &mut Pcg64, limit: usize) -> usize {
    random.next_u64() as usize % limit
}

fn newest_record(runs: &Path) -> PathBuf {
    run_directories(runs).unwrap().pop().unwrap()
}

#[test]
fn keeps_acknowledged_cells_of_killed_runs() {
    if let Some(place) = std::env::var_os(PLACE) {
        record_until_killed(place.as_ref());
    }
    let place = tempfile::tempdir().unwrap();
    let runs = place.path().join("runs");
    let mut history = History::create(&place.path().join("history.sqlite")).unwrap();
    let mut random = Pcg64::seed_from_u64(9);
    let expected = long_cell();
    let mut within = 0;
    for turn in 0..100 {
        let child = start("keeps_acknowledged_cells_of_killed_runs", place.path());
        let (more, pause) = (1 + below(&mut random, LONG), below(&mut random, 10_000));
        let progress = kill(child, turn % 3 + 1, |child| match turn % 2 {
            // Kills it when its record has grown by less than a line.
            0 => {
                let file = newest_record(&runs).join("cells.jsonl");
                let size = || fs::metadata(&file).unwrap().len();
                let enough = size() + more as u64;
                while size() < enough && child.try_wait().unwrap().is_none() {
                    std::thread::yield_now();
                }
            }
            _ => std::thread::sleep(Duration::from_micros(pause as u64)),
        });
        let directory = newest_record(&runs);
        let run = StoredRun::read(&directory).unwrap();
        progress.check(run.cells.len());
        assert!(!run.truncated || run.cells.len() + 1 == progress.begun, "{progress:?}");
        assert!(run.cells.iter().all(|cell| *cell == expected));
        within += usize::from(progress.is_within_write());
        // The run has ended and is imported, truncated or not.
        let imported =
            history.import(std::slice::from_ref(&directory), ImportOptions::default()).unwrap();
        assert_eq!(
            (imported.added.len(), imported.truncated.len()),
            (1, usize::from(run.truncated))
        );
        assert_eq!(history.cells(&run.meta.id).unwrap().len(), run.cells.len());
        fs::remove_dir_all(directory).unwrap();
    }
    assert!(within > 0, "none of the kills came while it wrote");
}

/// Truncates a record at each byte, since a kill may truncate it anywhere.
#[test]
fn reads_all_complete_lines_of_a_truncated_record() {
    let place = tempfile::tempdir().unwrap();
    let mut short = cell("a", 1);
    short.observation.windows.truncate(1);
    short.observation.log = Default::default();
    let directory = record(&place.path().join("runs"), &[short.clone(), short.clone(), short]);
    let path = directory.join("cells.jsonl");
    let text = fs::read(&path).unwrap();
    let ends: Vec<usize> = (1..=text.len()).filter(|end| text[end - 1] == b'\n').collect();
    assert_eq!((ends.len(), ends[2]), (3, text.len()));
    let whole = StoredRun::read(&directory).unwrap().cells;
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for end in (ends[0]..=text.len()).rev() {
        file.set_len(end as u64).unwrap();
        let run = StoredRun::read(&directory).unwrap();
        let lines = ends.iter().filter(|at| **at <= end).count();
        assert_eq!(run.cells, whole[..lines], "cut at byte {end}");
        let truncated = end != ends[lines - 1];
        assert_eq!(
            (run.truncated, run.bytes),
            (truncated, ends[lines - 1] as u64),
            "cut at byte {end}"
        );
    }
}

#[test]
fn keeps_acknowledged_runs_of_killed_histories() {
    if let Some(place) = std::env::var_os(PLACE) {
        add_until_killed(place.as_ref());
    }
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("history.sqlite");
    let mut random = Pcg64::seed_from_u64(10);
    let mut within = 0;
    for turn in 0..100 {
        let child = start("keeps_acknowledged_runs_of_killed_histories", place.path());
        let pause = Duration::from_micros(below(&mut random, 10_000) as u64);
        let progress = kill(child, turn % 3 + 1, |_| std::thread::sleep(pause));
        let history = History::open(&file).unwrap();
        let info = history.summary().unwrap();
        progress.check(info.runs as usize);
        within += usize::from(progress.is_within_write());
        // A run is inserted with all of its cells and samples, or not at all.
        assert_eq!((info.cells, info.points, info.samples), (info.runs, info.runs, 3 * info.runs));
    }
    assert!(within > 0, "none of the kills came while it wrote");
    let connection = rusqlite::Connection::open(&file).unwrap();
    let sound: String =
        connection.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
}
