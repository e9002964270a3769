//! Ctrl-C once and twice, and a dmarig that is killed.

use std::{fs, io::Read, process::Command, time::Duration};

use dmarig_fake_qemu::QemuScript;
use rustix::process::Signal;

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
fn stops_on_first_signal_and_keeps_judged_cells() {
    let place = Place::new();
    let scripts = [QemuScript::Passes, QemuScript::HangsInWorkload, QemuScript::Panics];
    let running = place.start(dmarig(&place, &scripts, PATIENT));
    let mut qemu = place.hanging();
    running.signal(Signal::INT);
    let ended = running.wait();
    ended.exits(130);
    qemu.read_to_end(&mut Vec::new()).unwrap();
    place.nothing_is_left();
    let qemu = |script| place.qemu(script);
    assert_eq!(ended.cells().len(), 2, "the third was never started");
    came_out(&ended.cell("qemu", &qemu(QemuScript::Passes)), "passed");
    came_out(&ended.cell("qemu", &qemu(QemuScript::HangsInWorkload)), "errored");
    let outcomes: Vec<_> =
        place.record().iter().map(|cell| cell["verdict"]["outcome"].clone()).collect();
    assert_eq!(outcomes, ["passed", "errored"]);
    let interrupted = ended.cell("qemu", &qemu(QemuScript::HangsInWorkload));
    assert_eq!(place.end(&interrupted)["how"], "interrupted");
    let judged = place.run(&["judge"]);
    judged.exits(3);
    insta::assert_snapshot!("interrupted_run", place.redact(&judged.stderr));
}

#[test]
fn ends_at_once_on_second_signal() {
    let place = Place::new();
    let scripts = [QemuScript::Passes, QemuScript::HangsAndIgnoresTerm];
    let running = place.start(dmarig(&place, &scripts, PATIENT));
    let mut qemu = place.hanging();
    running.signal(Signal::INT);
    // Two signals of a kind are one until the first is taken, so one more may be needed.
    while !running.ends(Duration::from_millis(100)) {
        running.signal(Signal::INT);
    }
    running.wait().exits(130);
    qemu.read_to_end(&mut Vec::new()).unwrap();
    place.nothing_is_left();
    assert_eq!(place.record().len(), 1, "what was judged is kept");
}

#[test]
fn stops_qemu_that_never_connects() {
    for script in [QemuScript::NeverConnects, QemuScript::IsMute] {
        let place = Place::new();
        let running = place.start(dmarig(&place, &[script], PATIENT));
        let mut qemu = place.hanging();
        running.signal(Signal::INT);
        let ended = running.wait();
        ended.exits(130);
        came_out(&ended.cells()[0], "errored");
        qemu.read_to_end(&mut Vec::new()).unwrap();
        place.nothing_is_left();
    }
}

#[test]
fn stops_qemu_that_never_answers() {
    let place = Place::new();
    let running = place.start(dmarig(&place, &[QemuScript::HangsWhenAsked], PATIENT));
    let mut qemu = place.hanging();
    running.signal(Signal::TERM);
    running.wait().exits(130);
    qemu.read_to_end(&mut Vec::new()).unwrap();
    place.nothing_is_left();
}

#[test]
fn leaves_no_qemu_and_readable_record_after_kill() {
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
    judged.exits(3);
    insta::assert_snapshot!("killed_run", place.redact(&judged.stderr));
    assert_eq!(judged.cells().len(), 1);
    came_out(&judged.cells()[0], "passed");
    let history = |words: &[&str]| {
        let ended = place.start(place.dmarig(&[&["history"], words].concat())).wait();
        ended.exits(0);
        ended
    };
    history(&["add", "last"]);
    history(&["list"]);
    history(&["show"]);
    let early = &history(&["list", "--json"]).document()["runs"][0]["ended_early"];
    assert_eq!((&early["planned"], &early["not_run"]), (&2.into(), &1.into()));
    // The next one does it.
    let next = place.start(dmarig(&place, &[QemuScript::Passes], &[])).wait();
    next.exits(0);
    place.nothing_is_left();
}
