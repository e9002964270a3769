//! Ctrl-C once and twice, and a dmarig that is killed.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

use dmarig_fake_qemu::QemuScript;
use rustix::process::{Pid, Signal, kill_process};

use crate::place::{CASE, Place, came_out};

/// A run of these QEMUs, one after the other.
fn dmarig(place: &Place, scripts: &[QemuScript], more: &[&str]) -> Command {
    let (case, kernel) = (place.file("case.yaml", CASE), place.kernel());
    let mut words = vec!["run", &case, "--format", "json", "--kernel", &kernel, "--jobs", "1"];
    let qemus: Vec<String> = scripts.iter().map(|script| place.qemu(*script)).collect();
    qemus.iter().for_each(|qemu| words.extend(["--qemu", qemu]));
    words.extend(more);
    place.dmarig(&words)
}

/// Deadlines that no test outlives: what ends, ends by the signal.
const PATIENT: &[&str] = &["--patience", "1000"];

#[test]
fn the_first_ends_the_run_and_keeps_what_was_judged() {
    let place = Place::new();
    let scripts = [QemuScript::Passes, QemuScript::HangsInWorkload, QemuScript::Panics];
    let running = place.start(dmarig(&place, &scripts, PATIENT));
    let mut qemu = place.hanging();
    running.signal(Signal::INT);
    let ended = running.wait();
    ended.exits(130).says(&["ending what runs", "record: "]);
    qemu.read_to_end(&mut Vec::new()).unwrap();
    place.nothing_is_left();
    let qemu = |script| place.qemu(script);
    assert_eq!(ended.cells().len(), 2, "the third was never started");
    came_out(&ended.cell("qemu", &qemu(QemuScript::Passes)), "passed", "");
    came_out(&ended.cell("qemu", &qemu(QemuScript::HangsInWorkload)), "errored", "interrupted");
    let outcomes: Vec<_> =
        place.record().iter().map(|cell| cell["verdict"]["outcome"].clone()).collect();
    assert_eq!(outcomes, ["passed", "errored"]);
    place.run(&["judge"]).exits(3).says(&["ended early, 1 of 3 cells did not run"]);
}

#[test]
fn the_second_ends_it_at_once() {
    let place = Place::new();
    let mut command =
        dmarig(&place, &[QemuScript::Passes, QemuScript::HangsAndIgnoresTerm], PATIENT);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut qemu = place.hanging();
    let interrupt = || kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    interrupt();
    // Two signals of a kind are one until the first is taken.
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("once more ends at once")));
    let interrupt = || kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    interrupt();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    qemu.read_to_end(&mut Vec::new()).unwrap();
    place.nothing_is_left();
    assert_eq!(place.record().len(), 1, "what was judged is kept");
}

#[test]
fn the_first_ends_a_qemu_that_never_connects() {
    for script in [QemuScript::NeverConnects, QemuScript::IsMute] {
        let place = Place::new();
        let running = place.start(dmarig(&place, &[script], PATIENT));
        let mut qemu = place.hanging();
        running.signal(Signal::INT);
        let ended = running.wait();
        ended.exits(130);
        came_out(&ended.cells()[0], "errored", "interrupted");
        qemu.read_to_end(&mut Vec::new()).unwrap();
        place.nothing_is_left();
    }
}

#[test]
fn the_first_ends_a_qemu_that_never_answers() {
    let place = Place::new();
    let running = place.start(dmarig(&place, &[QemuScript::HangsWhenAsked], PATIENT));
    let mut qemu = place.hanging();
    running.signal(Signal::TERM);
    running.wait().exits(130);
    qemu.read_to_end(&mut Vec::new()).unwrap();
    place.nothing_is_left();
}

#[test]
fn a_killed_run_leaves_no_qemu_and_a_readable_record() {
    let place = Place::new();
    for script in
        [QemuScript::HangsWhenAsked, QemuScript::NeverConnects, QemuScript::HangsAndIgnoresTerm]
    {
        let _ = fs::remove_dir_all(place.path("runs"));
        let running = place.start(dmarig(&place, &[QemuScript::Passes, script], PATIENT));
        let mut qemu = place.hanging();
        running.signal(Signal::KILL);
        assert_eq!(running.wait().code, None);
        // This returns when the QEMU is gone, and waits for ever if it stays.
        qemu.read_to_end(&mut Vec::new()).unwrap();
        place.no_process_is_left();
    }
    let left = fs::read_dir(place.path("tmp")).unwrap().count();
    assert!(left > 0, "a killed dmarig has no time to tidy up");
    let judged = place.start(place.dmarig(&["judge", "last", "--format", "json"])).wait();
    judged.exits(3).says(&["ended early, 1 of 2 cells did not run"]);
    assert_eq!(judged.cells().len(), 1);
    came_out(&judged.cells()[0], "passed", "");
    let history = |words: &[&str]| {
        let ended = place.start(place.dmarig(&[&["history"], words].concat())).wait();
        ended.exits(0);
        ended
    };
    history(&["add", "last"]);
    for words in [&["list"][..], &["show"]] {
        let told = "1 passed; ended early, 1 of 2 cells did not run";
        assert!(history(words).stdout.contains(told), "{words:?}");
    }
    let early = &history(&["list", "--json"]).document()["runs"][0]["ended_early"];
    assert_eq!((&early["planned"], &early["not_run"]), (&2.into(), &1.into()));
    // The next one does it.
    let next = place.start(dmarig(&place, &[QemuScript::Passes], &[])).wait();
    next.exits(0);
    place.nothing_is_left();
}
