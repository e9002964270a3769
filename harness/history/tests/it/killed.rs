//! Killed for good at any instant: what was acknowledged is there.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use dmarig_history::{History, How, StoredRun, run_directories};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    made::run,
    recorded::{begin, cell},
};

/// Where the process that is to be killed works.
const PLACE: &str = "DMARIG_TEST_PLACE";

/// No test of its own: what the others start.
#[test]
fn to_be_killed_while_it_records() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let cell = cell("a", 1);
    let mut recorder = begin(&Path::new(&place).join("runs"), |_| ());
    for number in 1.. {
        recorder.add(&cell).unwrap();
        println!("\ncells {number}");
    }
}

/// Likewise.
#[test]
fn to_be_killed_while_it_adds() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let mut history = History::create(&Path::new(&place).join("history.sqlite")).unwrap();
    let there = history.runs(None).unwrap().len() as u32;
    for day in there.. {
        history.put([&run(day, f64::from(day))]).unwrap();
        println!("\nruns {}", day + 1);
    }
}

fn start(test: &str, place: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("killed::{test}"), "--exact", "--nocapture", "--test-threads=1"]);
    command.env(PLACE, place).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Lets it live until it has acknowledged so much, and a little longer; gives what it had acknowledged.
fn kill(mut child: Child, word: &str, until: usize) -> usize {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let counts = lines
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix(word)?.trim().parse::<usize>().ok());
    let mut counts = counts.peekable();
    let mut last = counts.by_ref().take(until).last().unwrap();
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    // Until it is dead it may well have gone on.
    last = counts.last().unwrap_or(last);
    child.wait().unwrap();
    last
}

#[test]
fn a_run_that_is_killed_a_hundred_times_loses_no_cell() {
    let place = tempfile::tempdir().unwrap();
    let runs = place.path().join("runs");
    let expected = cell("a", 1);
    let mut torn = 0;
    for turn in 0..100 {
        let acknowledged =
            kill(start("to_be_killed_while_it_records", place.path()), "cells", turn % 5 + 1);
        let directories = run_directories(&runs).unwrap();
        let run = StoredRun::read(directories.last().unwrap()).unwrap();
        assert!(run.cells.len() >= acknowledged, "{} of {acknowledged}", run.cells.len());
        assert!(run.cells.iter().all(|cell| *cell == expected));
        torn += usize::from(run.torn);
    }
    // All of them are over, and go in, torn or not.
    let directories = run_directories(&runs).unwrap();
    let mut history = History::create(&place.path().join("history.sqlite")).unwrap();
    let imported = history.import(&directories, How::default()).unwrap();
    assert_eq!((imported.added.len(), imported.torn.len()), (100, torn));
}

#[test]
fn a_history_that_is_killed_a_hundred_times_loses_no_run() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("history.sqlite");
    for turn in 0..100 {
        let acknowledged =
            kill(start("to_be_killed_while_it_adds", place.path()), "runs", turn % 3 + 1);
        let history = History::open(&file).unwrap();
        let info = history.info().unwrap();
        assert!(info.runs >= acknowledged as u64, "{} of {acknowledged}", info.runs);
        // A run is in with all of its cells and samples, or not at all.
        assert_eq!((info.cells, info.points, info.samples), (info.runs, info.runs, 3 * info.runs));
    }
    let connection = rusqlite::Connection::open(&file).unwrap();
    let sound: String =
        connection.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
}
