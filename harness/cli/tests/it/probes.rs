//! Probes that misbehave.

use crate::{
    fake_probe::{LAST_WORDS, ProbeScript},
    fake_qemu::Script,
    place::{Place, came_out, log_of, reasons},
};

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
    let (kernel, qemu, probe) = (place.kernel(), place.qemu(Script::Passes), place.probe(script));
    let fixed = ["run", &case, "--format", "json", "--kernel", &kernel, "--qemu", &qemu];
    let ended = place.run(&[&fixed[..], &["--probe-program", &probe], words].concat());
    let all = ended.cells().iter().map(reasons).collect::<Vec<_>>();
    assert_eq!(ended.code, Some(code), "{script:?}: {all:?} {ended:?}");
    came_out(&ended.cell("passthrough", "none"), "passed", "");
    came_out(&ended.cell("passthrough", "probe"), outcome, reason);
    if outcome != "skipped" {
        let log = log_of(&place, "passthrough=probe", "probe.log");
        assert!(log.contains(LAST_WORDS), "{log}");
    }
}

pub(crate) fn one_that_serves() {
    check(ProbeScript::Serves, &[], "passed", "", 0);
}

pub(crate) fn one_that_dies() {
    check(ProbeScript::Dies, &[], "errored", LAST_WORDS, 3);
    check(ProbeScript::DiesInWorkload, &[], "errored", "the probe ended by itself", 3);
}

pub(crate) fn one_that_stalls() {
    let hurry = &["--patience", "0.1"];
    check(ProbeScript::Stalls, hurry, "errored", "the probe did not answer", 3);
}

pub(crate) fn one_that_says_what_is_no_answer() {
    check(ProbeScript::Babbles, &[], "errored", "the probe said what is no answer", 3);
}

pub(crate) fn one_that_loses_its_client() {
    let words = "QEMU has closed the device's socket";
    check(ProbeScript::LosesItsClient, &[], "errored", words, 3);
}

pub(crate) fn what_it_saw_is_judged() {
    check(ProbeScript::SeesWrong, &[], "failed", "corrupt sectors", 1);
    check(ProbeScript::SeesWrong, &[], "failed", "leaked-requests", 1);
}
