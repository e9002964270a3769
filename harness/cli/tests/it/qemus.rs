//! QEMUs that misbehave, and guests that do: each beside one that behaves.

use dmarig_fake_qemu::{CONSOLE_FLOOD, QEMU_LAST_WORDS, QemuScript, TRACE_FLOOD, VERSION};
use serde_json::Value;

use crate::place::{CASE, Ended, Place, came_out, reasons};

/// Deadlines of a second on a guest under emulation: only for what never comes.
const SHORT_BOOT: &str = "time-limits: {boot: 250ms}\n";
const SHORT_WORKLOAD: &str = "time-limits: {workload: 250ms}\n";

/// Runs a script after a QEMU that behaves; gives the script's cell once the other has passed.
#[track_caller]
fn run(place: &Place, script: QemuScript, more: &str, words: &[&str], code: i32) -> (Ended, Value) {
    let case = place.file("case.yaml", format!("{CASE}{more}"));
    let (kernel, good, bad) = (place.kernel(), place.qemu(QemuScript::Passes), place.qemu(script));
    let fixed = ["run", &case, "--format", "json", "--kernel", &kernel, "--jobs", "1"];
    let mut all = fixed.to_vec();
    all.extend(["--qemu", &bad]);
    if script != QemuScript::Passes {
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
fn check(script: QemuScript, more: &str, outcome: &str, reason: &str) {
    check_with(script, more, &[], outcome, reason);
}

/// As [`check`], with more words on the command line.
#[track_caller]
fn check_with(script: QemuScript, more: &str, words: &[&str], outcome: &str, reason: &str) {
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

#[test]
fn a_missing_one_harms_no_other_cell() {
    let place = Place::new();
    let (case, kernel, good) =
        (place.file("case.yaml", CASE), place.kernel(), place.qemu(QemuScript::Passes));
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

#[test]
fn one_that_can_not_be_asked() {
    // The end of the stream tells, not the end of the patience.
    for (script, words) in [
        (QemuScript::DiesWhenAsked, QEMU_LAST_WORDS),
        (QemuScript::BabblesWhenAsked, "does not answer as QEMU does"),
    ] {
        let (_, cell) = run(&Place::new(), script, "", &[], 3);
        came_out(&cell, "errored", words);
        assert!(!reasons(&cell).contains("elapsed"), "{}", reasons(&cell));
    }
}

#[test]
fn one_that_is_too_old() {
    check(QemuScript::IsOld, "", "skipped", "QEMU 5.2.0 is too old: dmarig needs 6.2");
}

#[test]
fn one_that_dies() {
    check(QemuScript::Dies, "", "errored", QEMU_LAST_WORDS);
    check(QemuScript::DiesAfterManyWords, "", "errored", QEMU_LAST_WORDS);
    check(QemuScript::DiesWhenConnected, "", "errored", QEMU_LAST_WORDS);
    check(QemuScript::DiesInWorkload, "", "errored", QEMU_LAST_WORDS);
    check(QemuScript::Aborts, "", "errored", "signal 6");
}

#[test]
fn one_that_speaks_no_qmp() {
    check_with(
        QemuScript::NeverConnects,
        "",
        HURRY,
        "errored",
        "did not connect its channels within 3s",
    );
    check_with(QemuScript::Babbles, "", HURRY, "errored", "no QMP greeting");
    check_with(QemuScript::IsMute, "", HURRY, "errored", "no QMP greeting");
}

#[test]
fn one_that_refuses_or_falls_silent() {
    check(QemuScript::Refuses, "", "errored", "QEMU refused `cont`: the guest is not at home");
    check(QemuScript::ClosesMonitor, "", "errored", "QEMU closed its monitor");
}

#[test]
fn one_that_ends_by_force_alone() {
    check_with(QemuScript::IsStubborn, "", HURRY, "passed", "");
}

#[test]
fn one_that_stops_its_guest() {
    check(QemuScript::Stops, "", "errored", "QEMU has stopped the guest by itself");
    check(
        QemuScript::HasNoSpace,
        "",
        "errored",
        "no space is left for the file of the guest's disk",
    );
}

#[test]
fn registers_that_contradict_properties() {
    let what =
        "not what you asked for: caching-mode is on, not off (registers read by the hypervisor)";
    check(QemuScript::Contradicts, "", "errored", what);
}

#[test]
fn panics() {
    check(QemuScript::Panics, "", "failed", "the guest's kernel panicked: ");
    check(QemuScript::Panics, "", "failed", "No working init found.");
    let (ended, cell) = run(&Place::new(), QemuScript::PanicsInColour, "", &[], 1);
    came_out(&cell, "failed", r"not syncing: \u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}");
    for text in [&ended.stdout, &ended.stderr] {
        assert!(!text.contains(['\x1b', '\x07', '\u{202e}']), "{text:?}");
    }
}

#[test]
fn an_agent_that_never_comes() {
    check(QemuScript::HasNoAgent, SHORT_BOOT, "timed-out", "no greeting of the agent");
}

#[test]
fn a_reboot() {
    check(QemuScript::Reboots, "", "failed", "the guest went down by itself (guest-reset)");
}

#[test]
fn a_workload_without_end() {
    check(
        QemuScript::HangsInWorkload,
        SHORT_WORKLOAD,
        "timed-out",
        "no end of the workload after 1.000 s",
    );
}

#[test]
fn a_flood_on_the_console() {
    let place = Place::new();
    let (_, cell) = run(&place, QemuScript::FloodsConsole, "", &[], 0);
    came_out(&cell, "passed", "");
    let log =
        place.run_directory().join("cells").join(cell["id"].as_str().unwrap().replace('/', "_"));
    let log = std::fs::read(log.join("console.log")).unwrap();
    assert!(log.len() < 5 << 20 && CONSOLE_FLOOD > 100_000, "{} bytes of log", log.len());
    let text = String::from_utf8_lossy(&log);
    assert!(text.contains("bytes of the console left out here"));
    assert!(text.ends_with("Run /init as init process\r\n"));
}

#[test]
fn a_flood_of_short_lines_makes_no_large_record() {
    let place = Place::new();
    let (_, cell) = run(&place, QemuScript::FloodsConsoleAndPanics, "", &[], 1);
    came_out(&cell, "failed", "not syncing: enough");
    let size = std::fs::metadata(place.run_directory().join("cells.jsonl")).unwrap().len();
    assert!(size < 16 << 20, "a record of {size} bytes");
}

#[test]
fn a_flood_in_the_trace_is_counted_exactly() {
    let (_, cell) = run(&Place::new(), QemuScript::FloodsTrace, "", &[], 0);
    came_out(&cell, "passed", "");
    assert_eq!(cell["counts"]["psi"], TRACE_FLOOD);
    assert_eq!(cell["counts"]["unmaps"], TRACE_FLOOD);
    assert!(cell["qemu_version"].as_str().unwrap().starts_with(VERSION));
}

#[test]
fn what_is_no_message() {
    check(QemuScript::SendsGarbage, "", "errored", "the agent's channel broke: ");
    check(QemuScript::ClaimsTooMuch, "", "errored", "over the limit");
    check(QemuScript::ClaimsMoreThanItHas, SHORT_BOOT, "timed-out", "no greeting of the agent");
}

#[test]
fn messages_that_nobody_asked_for() {
    check(
        QemuScript::SendsGreetings,
        "",
        "errored",
        "the agent sent a greeting where its environment was due",
    );
    check(
        QemuScript::SendsTheWrongKind,
        "",
        "errored",
        "the agent sent a farewell where its environment was due",
    );
    check(QemuScript::Fails, "", "errored", "the agent failed: I'd rather not");
    check(
        QemuScript::HasNoDisk,
        "",
        "timed-out",
        "no usable device after 60.000 s; last seen: 0000:00:01.0 (nvme) has no node",
    );
}

#[test]
fn a_log_without_end() {
    check(QemuScript::SendsLogs, "", "errored", "a kernel log without end");
}
