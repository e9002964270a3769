//! QEMUs that misbehave, and guests that do: each beside one that behaves.

use serde_json::Value;

use crate::{
    fake_qemu::{CONSOLE_FLOOD, LAST_WORDS, Script, TRACE_FLOOD, VERSION},
    place::{CASE, Ended, Place, came_out, reasons},
};

/// Deadlines of a second on a guest under emulation: only for what never comes.
const SHORT_BOOT: &str = "time-limits: {boot: 250ms}\n";
const SHORT_WORKLOAD: &str = "time-limits: {workload: 250ms}\n";

/// Runs a script after a QEMU that behaves; gives the script's cell once the other has passed.
#[track_caller]
fn run(place: &Place, script: Script, more: &str, words: &[&str], code: i32) -> (Ended, Value) {
    let case = place.file("case.yaml", format!("{CASE}{more}"));
    let (kernel, good, bad) = (place.kernel(), place.qemu(Script::Passes), place.qemu(script));
    let fixed = ["run", &case, "--format", "json", "--kernel", &kernel, "--jobs", "1"];
    let mut all = fixed.to_vec();
    all.extend(["--qemu", &bad]);
    if script != Script::Passes {
        all.extend(["--qemu", &good]);
    }
    all.extend(words);
    let ended = place.run(&all);
    let first = ended.cells().iter().map(reasons).collect::<Vec<_>>();
    assert_eq!(ended.code, Some(code), "{script:?}: {first:?} {ended:?}");
    came_out(&ended.cell("qemu", &good), "passed", "");
    let cell = ended.cell("qemu", &bad);
    assert_eq!(place.record().len(), ended.cells().len());
    (ended, cell)
}

/// Asserts what becomes of a script.
#[track_caller]
fn check(script: Script, more: &str, outcome: &str, reason: &str) {
    check_with(script, more, &[], outcome, reason);
}

/// As [`check`], with more words on the command line.
#[track_caller]
fn check_with(script: Script, more: &str, words: &[&str], outcome: &str, reason: &str) {
    let code = match outcome {
        "passed" | "skipped" => 0,
        "errored" => 3,
        _ => 1,
    };
    let (_, cell) = run(&Place::new(), script, more, words, code);
    came_out(&cell, outcome, reason);
}

/// The rig's own deadlines at a tenth.
const HURRY: &[&str] = &["--patience", "0.1"];

pub(crate) fn a_missing_one_harms_no_other_cell() {
    let place = Place::new();
    let (case, kernel, good) =
        (place.file("case.yaml", CASE), place.kernel(), place.qemu(Script::Passes));
    let text = place.file("text", "I am no program\n");
    let fixed = ["run", &case, "--format", "json", "--kernel", &kernel, "--qemu", &good];
    let ended = place.run(&[&fixed[..], &["--qemu", "/nowhere/qemu", "--qemu", &text]].concat());
    ended.exits(3);
    came_out(&ended.cell("qemu", &good), "passed", "");
    came_out(&ended.cell("qemu", "/nowhere/qemu"), "errored", "no QEMU `/nowhere/qemu`");
    came_out(
        &ended.cell("qemu", &text),
        "errored",
        "install it (on Debian: apt-get install qemu-system-x86)",
    );
}

pub(crate) fn one_that_can_not_be_asked() {
    // The end of the stream tells, not the end of the patience.
    for (script, words) in [
        (Script::DiesWhenAsked, LAST_WORDS),
        (Script::BabblesWhenAsked, "does not answer as QEMU does"),
    ] {
        let (_, cell) = run(&Place::new(), script, "", &[], 3);
        came_out(&cell, "errored", words);
        assert!(!reasons(&cell).contains("elapsed"), "{}", reasons(&cell));
    }
}

pub(crate) fn one_that_is_too_old() {
    check(Script::IsOld, "", "skipped", "QEMU 5.2.0 is too old: dmarig needs 6.2");
}

pub(crate) fn one_that_dies() {
    check(Script::Dies, "", "errored", LAST_WORDS);
    check(Script::DiesAfterManyWords, "", "errored", LAST_WORDS);
    check(Script::DiesWhenConnected, "", "errored", LAST_WORDS);
    check(Script::DiesInWorkload, "", "errored", LAST_WORDS);
    check(Script::Aborts, "", "errored", "signal 6");
}

pub(crate) fn one_that_speaks_no_qmp() {
    check_with(
        Script::NeverConnects,
        "",
        HURRY,
        "errored",
        "did not connect its channels within 3s",
    );
    check_with(Script::Babbles, "", HURRY, "errored", "no QMP greeting");
    check_with(Script::IsMute, "", HURRY, "errored", "no QMP greeting");
}

pub(crate) fn one_that_refuses_or_falls_silent() {
    check(Script::Refuses, "", "errored", "QEMU refused `cont`: the guest is not at home");
    check(Script::ClosesMonitor, "", "errored", "QEMU closed its monitor");
}

pub(crate) fn one_that_ends_by_force_alone() {
    check_with(Script::IsStubborn, "", HURRY, "passed", "");
}

pub(crate) fn one_that_stops_its_guest() {
    check(Script::Stops, "", "errored", "QEMU has stopped the guest by itself");
    check(Script::HasNoSpace, "", "errored", "no space is left for the file of the guest's disk");
}

pub(crate) fn registers_that_contradict_properties() {
    let what =
        "not what you asked for: caching-mode is on, not off (registers read by the hypervisor)";
    check(Script::Contradicts, "", "errored", what);
}

pub(crate) fn panics() {
    check(Script::Panics, "", "failed", "the guest's kernel panicked: ");
    check(Script::Panics, "", "failed", "No working init found.");
    let (ended, cell) = run(&Place::new(), Script::PanicsInColour, "", &[], 1);
    came_out(&cell, "failed", r"not syncing: \u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}");
    for text in [&ended.stdout, &ended.stderr] {
        assert!(!text.contains(['\x1b', '\x07', '\u{202e}']), "{text:?}");
    }
}

pub(crate) fn an_agent_that_never_comes() {
    check(Script::HasNoAgent, SHORT_BOOT, "timed-out", "no greeting of the agent");
}

pub(crate) fn a_reboot() {
    check(Script::Reboots, "", "failed", "the guest went down by itself (guest-reset)");
}

pub(crate) fn a_workload_without_end() {
    check(
        Script::HangsInWorkload,
        SHORT_WORKLOAD,
        "timed-out",
        "no end of the workload after 1.000 s",
    );
}

pub(crate) fn a_flood_on_the_console() {
    let place = Place::new();
    let (_, cell) = run(&place, Script::FloodsConsole, "", &[], 0);
    came_out(&cell, "passed", "");
    let log =
        place.run_directory().join("cells").join(cell["id"].as_str().unwrap().replace('/', "_"));
    let log = std::fs::read(log.join("console.log")).unwrap();
    assert!(log.len() < 5 << 20 && CONSOLE_FLOOD > 100_000, "{} bytes of log", log.len());
    let text = String::from_utf8_lossy(&log);
    assert!(text.contains("bytes of the console left out here"));
    assert!(text.ends_with("Run /init as init process\r\n"));
}

pub(crate) fn a_flood_of_short_lines_makes_no_large_record() {
    let place = Place::new();
    let (_, cell) = run(&place, Script::FloodsConsoleAndPanics, "", &[], 1);
    came_out(&cell, "failed", "not syncing: enough");
    let size = std::fs::metadata(place.run_directory().join("cells.jsonl")).unwrap().len();
    assert!(size < 16 << 20, "a record of {size} bytes");
}

pub(crate) fn a_flood_in_the_trace_is_counted_exactly() {
    let (_, cell) = run(&Place::new(), Script::FloodsTrace, "", &[], 0);
    came_out(&cell, "passed", "");
    assert_eq!(cell["counts"]["psi"], TRACE_FLOOD);
    assert_eq!(cell["counts"]["unmaps"], TRACE_FLOOD);
    assert!(cell["qemu_version"].as_str().unwrap().starts_with(VERSION));
}

pub(crate) fn what_is_no_message() {
    check(Script::SendsGarbage, "", "errored", "the agent's channel broke: ");
    check(Script::ClaimsTooMuch, "", "errored", "over the limit");
    check(Script::ClaimsMoreThanItHas, SHORT_BOOT, "timed-out", "no greeting of the agent");
}

pub(crate) fn messages_that_nobody_asked_for() {
    check(
        Script::SendsGreetings,
        "",
        "errored",
        "the agent sent a greeting where its environment was due",
    );
    check(
        Script::SendsTheWrongKind,
        "",
        "errored",
        "the agent sent a farewell where its environment was due",
    );
    check(Script::Fails, "", "errored", "the agent failed: I'd rather not");
    check(
        Script::HasNoDisk,
        "",
        "timed-out",
        "no usable device after 60.000 s; last seen: 0000:00:01.0 (nvme) has no node",
    );
}

pub(crate) fn a_log_without_end() {
    check(Script::SendsLogs, "", "errored", "a kernel log without end");
}
