//! Probes that misbehave.

use dmarig_fake_qemu::{DEVICE_TROUBLE, PROBE_LAST_WORDS, ProbeScript, QemuScript};

use crate::place::{Place, came_out, log_of, reasons};

/// The fake guest's kernel says nothing of batching: that is not what is judged here.
const CASE: &str = "\
case: hostile
axes: {policy: strict, caching-mode: on, passthrough: [none, probe]}
workload: {block: {ops: 64}}
standard: false
expect:
  - {name: all buffers go, when: {passthrough: probe}, leaked-requests: 0}
";

/// Asserts what becomes of a cell whose probe plays a script, beside one that is not passed through.
#[track_caller]
fn check(script: ProbeScript, words: &[&str], outcome: &str, reason: &str, code: i32) {
    let place = Place::new();
    let case = place.file("case.yaml", CASE);
    let (kernel, qemu, probe) =
        (place.kernel(), place.qemu(QemuScript::Passes), place.probe(script));
    let fixed = ["run", &case, "--format", "json", "--kernel", &kernel, "--qemu", &qemu];
    let ended = place.run(&[&fixed[..], &["--probe-program", &probe], words].concat());
    let all = ended.cells().iter().map(reasons).collect::<Vec<_>>();
    assert_eq!(ended.code, Some(code), "{script:?}: {all:?} {ended:?}");
    came_out(&ended.cell("passthrough", "none"), "passed", "");
    came_out(&ended.cell("passthrough", "probe"), outcome, reason);
    if outcome != "skipped" {
        let log = log_of(&place, "passthrough=probe", "probe.log");
        assert!(log.contains(PROBE_LAST_WORDS), "{log}");
    }
}

#[test]
fn one_that_serves() {
    check(ProbeScript::Serves, &[], "passed", "", 0);
}

#[test]
fn one_that_dies() {
    check(ProbeScript::Dies, &[], "errored", PROBE_LAST_WORDS, 3);
    check(ProbeScript::DiesInWorkload, &[], "errored", "the probe ended by itself", 3);
}

#[test]
fn one_that_stalls() {
    let hurry = &["--patience", "0.1"];
    check(ProbeScript::Stalls, hurry, "errored", "the probe did not answer", 3);
}

#[test]
fn one_that_says_what_is_no_answer() {
    check(ProbeScript::Babbles, &[], "errored", "the probe said what is no answer", 3);
}

#[test]
fn one_that_loses_its_client() {
    let words = "QEMU has closed the device's socket";
    check(ProbeScript::LosesItsClient, &[], "errored", words, 3);
    // The guest behind such a QEMU may hang for long: it is not waited for.
    check_with_qemu(QemuScript::HangsInWorkload, ProbeScript::LosesItsClientMeanwhile, "", words);
}

#[test]
fn one_that_qemu_complains_of() {
    let words = format!("QEMU says of the probe: {DEVICE_TROUBLE}");
    check_with_qemu(QemuScript::HasDeviceTrouble, ProbeScript::Serves, "", &words);
    check_with_qemu(QemuScript::DiesOfDeviceTrouble, ProbeScript::Serves, "", &words);
    check_with_qemu(
        QemuScript::HasDeviceTrouble,
        ProbeScript::DiesInWorkload,
        "",
        "the probe ended",
    );
    // QEMU's own end stays its own.
    let own = "QEMU ended by itself (exit code 1)";
    check_with_qemu(QemuScript::DiesInWorkload, ProbeScript::LosesItsClientMeanwhile, "", own);
}

#[test]
fn one_that_hangs_is_to_blame_for_a_guest_that_does() {
    let words = "the probe is of no use any more: the probe failed: the controller takes no turn";
    check_with_qemu(
        QemuScript::HangsInWorkload,
        ProbeScript::Hangs,
        "time-limits: {workload: 250ms}\n",
        words,
    );
}

/// Asserts that a cell is errored whose QEMU and probe play these scripts, with the probe's log.
#[track_caller]
fn check_with_qemu(qemu: QemuScript, probe: ProbeScript, more: &str, reason: &str) {
    let place = Place::new();
    let case = CASE.replace("[none, probe]", "probe") + more;
    let case = place.file("case.yaml", case);
    let (kernel, qemu, probe) = (place.kernel(), place.qemu(qemu), place.probe(probe));
    let fixed = ["run", &case, "--format", "json", "--kernel", &kernel, "--qemu", &qemu];
    let ended = place.run(&[&fixed[..], &["--probe-program", &probe]].concat());
    ended.exits(3);
    let cell = ended.cell("passthrough", "probe");
    came_out(&cell, "errored", reason);
    assert!(
        reason.starts_with("QEMU ended") || reasons(&cell).contains(PROBE_LAST_WORDS),
        "without the probe's log: {}",
        reasons(&cell)
    );
}

#[test]
fn what_it_saw_is_judged() {
    check(ProbeScript::SeesWrong, &[], "failed", "corrupt sectors", 1);
    check(ProbeScript::SeesWrong, &[], "failed", "leaked-requests", 1);
}
