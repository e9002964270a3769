//! QEMUs that misbehave, and guests that do: each beside one that behaves.

use dmarig_fake_qemu::{CONSOLE_FLOOD, QemuScript, Role, TRACE_FLOOD, VERSION};
use rstest::rstest;
use serde_json::Value;

use crate::place::{CASE, Ended, Place, came_out, reasons};

/// Deadlines of a second on a guest under emulation, for what never comes.
const SHORT_BOOT: &str = "time-limits: {boot: 250ms}\n";
const SHORT_WORKLOAD: &str = "time-limits: {workload: 250ms}\n";

/// The rig's own deadlines at a tenth.
const HURRY: &[&str] = &["--patience", "0.1"];

/// Runs a script after a QEMU that behaves; gives the script's cell once the other has passed.
#[track_caller]
fn run(
    place: &Place,
    script: QemuScript,
    more: &str,
    arguments: &[&str],
    code: i32,
) -> (Ended, Value) {
    let case = place.file("case.yaml", format!("{CASE}{more}"));
    let (kernel, good, bad) = (place.kernel(), place.qemu(QemuScript::Passes), place.qemu(script));
    let fixed = ["run", &case, "--format", "json", "--kernel", &kernel, "--jobs", "1"];
    let mut all = fixed.to_vec();
    all.extend(["--qemu", &bad]);
    if script != QemuScript::Passes {
        all.extend(["--qemu", &good]);
    }
    all.extend(arguments);
    let ended = place.run(&all);
    let first = ended.cells().iter().map(reasons).collect::<Vec<_>>();
    assert_eq!(ended.code, Some(code), "{script:?}: {first:?} {ended:?}");
    came_out(&ended.cell("qemu", &good), "passed");
    let cell = ended.cell("qemu", &bad);
    assert_eq!(place.record().len(), ended.cells().len());
    (ended, cell)
}

/// The exit code of a run with a cell of this outcome.
fn exit_code(outcome: &str) -> i32 {
    match outcome {
        "passed" | "skipped" => 0,
        "errored" => 3,
        _ => 1,
    }
}

#[rstest]
#[case::is_old(QemuScript::IsOld, "skipped")]
#[case::dies_when_asked(QemuScript::DiesWhenAsked, "errored")]
#[case::babbles_when_asked(QemuScript::BabblesWhenAsked, "errored")]
#[case::dies(QemuScript::Dies, "errored")]
#[case::dies_after_many_words(QemuScript::DiesAfterManyWords, "errored")]
#[case::dies_when_connected(QemuScript::DiesWhenConnected, "errored")]
#[case::dies_in_workload(QemuScript::DiesInWorkload, "errored")]
#[case::aborts(QemuScript::Aborts, "errored")]
#[case::refuses(QemuScript::Refuses, "errored")]
#[case::closes_monitor(QemuScript::ClosesMonitor, "errored")]
#[case::stops(QemuScript::Stops, "errored")]
#[case::has_no_space(QemuScript::HasNoSpace, "errored")]
#[case::contradicts(QemuScript::Contradicts, "errored")]
#[case::panics(QemuScript::Panics, "failed")]
#[case::reboots(QemuScript::Reboots, "failed")]
#[case::sends_garbage(QemuScript::SendsGarbage, "errored")]
#[case::claims_too_much(QemuScript::ClaimsTooMuch, "errored")]
#[case::sends_greetings(QemuScript::SendsGreetings, "errored")]
#[case::sends_the_wrong_kind(QemuScript::SendsTheWrongKind, "errored")]
#[case::fails(QemuScript::Fails, "errored")]
#[case::has_no_disk(QemuScript::HasNoDisk, "timed-out")]
#[case::sends_logs(QemuScript::SendsLogs, "errored")]
fn judges_cell_of_qemu_that(#[case] script: QemuScript, #[case] outcome: &str) {
    let place = Place::new();
    let (_, cell) = run(&place, script, "", &[], exit_code(outcome));
    came_out(&cell, outcome);
    insta::assert_snapshot!(script.file_name(), place.verdict(&cell));
}

#[rstest]
#[case::never_connects(QemuScript::NeverConnects, "", HURRY, "errored")]
#[case::babbles(QemuScript::Babbles, "", HURRY, "errored")]
#[case::is_mute(QemuScript::IsMute, "", HURRY, "errored")]
#[case::has_no_agent(QemuScript::HasNoAgent, SHORT_BOOT, &[], "timed-out")]
#[case::claims_more_than_it_has(QemuScript::ClaimsMoreThanItHas, SHORT_BOOT, &[], "timed-out")]
#[case::hangs_in_workload(QemuScript::HangsInWorkload, SHORT_WORKLOAD, &[], "timed-out")]
fn judges_cell_by_deadline_of_qemu_that(
    #[case] script: QemuScript,
    #[case] more: &str,
    #[case] arguments: &[&str],
    #[case] outcome: &str,
) {
    let place = Place::new();
    let (_, cell) = run(&place, script, more, arguments, exit_code(outcome));
    came_out(&cell, outcome);
    insta::assert_snapshot!(script.file_name(), place.verdict(&cell));
}

#[test]
fn rejects_files_that_are_no_qemu_and_runs_other_cells() {
    let place = Place::new();
    let (case, kernel, good) =
        (place.file("case.yaml", CASE), place.kernel(), place.qemu(QemuScript::Passes));
    let text = place.file("text", "I am no program\n");
    let fixed = ["run", &case, "--format", "json", "--kernel", &kernel, "--qemu", &good];
    let ended = place.run(&[&fixed[..], &["--qemu", "/nowhere/qemu", "--qemu", &text]].concat());
    ended.exits(3);
    came_out(&ended.cell("qemu", &good), "passed");
    let verdicts = ["/nowhere/qemu", &text].map(|qemu| place.verdict(&ended.cell("qemu", qemu)));
    insta::assert_snapshot!(verdicts.join("\n"));
}

#[test]
fn notices_the_end_of_a_qemu_before_the_deadline() {
    for script in [QemuScript::DiesWhenAsked, QemuScript::BabblesWhenAsked] {
        // A deadline that the test would not live to see.
        run(&Place::new(), script, "", &["--patience", "1000"], 3);
    }
}

#[test]
fn kills_a_qemu_that_ignores_quit_and_sigterm() {
    let (_, cell) = run(&Place::new(), QemuScript::IsStubborn, "", HURRY, 0);
    came_out(&cell, "passed");
}

#[test]
fn escapes_terminal_sequences_in_a_panic() {
    let place = Place::new();
    let (ended, cell) = run(&place, QemuScript::PanicsInColour, "", &[], 1);
    came_out(&cell, "failed");
    insta::assert_snapshot!(place.verdict(&cell));
    for text in [&ended.stdout, &ended.stderr] {
        assert!(!text.contains(['\x1b', '\x07', '\u{202e}']), "{text:?}");
    }
}

#[test]
fn shortens_the_log_of_a_flooded_console() {
    let place = Place::new();
    let (_, cell) = run(&place, QemuScript::FloodsConsole, "", &[], 0);
    came_out(&cell, "passed");
    let log =
        place.run_directory().join("cells").join(cell["id"].as_str().unwrap().replace('/', "_"));
    let log = std::fs::read(log.join("console.log")).unwrap();
    assert!(log.len() < 5 << 20 && CONSOLE_FLOOD > 100_000, "{} bytes of log", log.len());
    assert!(log.ends_with(b"Run /init as init process\r\n"));
    // The line that stands for what is left out.
    let text = String::from_utf8_lossy(&log);
    assert_eq!(text.lines().filter(|line| !line.starts_with('[')).count(), 1);
}

#[test]
fn bounds_the_record_of_a_flood_of_short_lines() {
    let place = Place::new();
    let (_, cell) = run(&place, QemuScript::FloodsConsoleAndPanics, "", &[], 1);
    came_out(&cell, "failed");
    assert_eq!(place.end(&cell)["how"], "panicked");
    let size = std::fs::metadata(place.run_directory().join("cells.jsonl")).unwrap().len();
    assert!(size < 16 << 20, "a record of {size} bytes");
}

#[test]
fn counts_a_flood_in_the_trace_exactly() {
    let (_, cell) = run(&Place::new(), QemuScript::FloodsTrace, "", &[], 0);
    came_out(&cell, "passed");
    assert_eq!(cell["counts"]["psi"], TRACE_FLOOD);
    assert_eq!(cell["counts"]["unmaps"], TRACE_FLOOD);
    assert!(cell["qemu_version"].as_str().unwrap().starts_with(VERSION));
}
