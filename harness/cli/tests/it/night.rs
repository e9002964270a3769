//! What is asked for by name. Probes that fail under a real QEMU, in full use: whatever becomes of the
//! guest, nothing is said of its kernel. They need the QEMU that `dmarig images fetch qemu` brings. And
//! bisections of a real kernel's history.

mod bisecting;
mod linux;

pub(crate) use bisecting::a_real_history_is_bisected;

use crate::{
    fake_probe::{LAST_WORDS, relay::Fault},
    place::{Ended, Place, REAL_KERNEL, came_out, log_of},
};

const CASE: &str = "\
case: hostile
axes: {policy: strict, caching-mode: on, passthrough: probe}
workload: {block: {ops: 400, block-size: 64KiB, queue-depth: 4}}
";

fn run(fault: Fault) -> (Place, Ended) {
    let place = Place::real();
    let (case, probe) = (place.file("case.yaml", CASE), place.relayed_probe(fault));
    let words = ["run", &case, "--format", "json", "--kernel", REAL_KERNEL, "--qemu", "qemu"];
    let ended = place.run(&[&words[..], &["--accel", "tcg", "--probe-program", &probe]].concat());
    (place, ended)
}

/// Asserts that a cell is errored by a fault, for one of these reasons, and shows the probe's log.
#[track_caller]
fn check(fault: Fault, reasons: &[&str]) {
    let (place, ended) = run(fault);
    ended.exits(3);
    let cell = ended.cell("passthrough", "probe");
    came_out(&cell, "errored", LAST_WORDS);
    let text = cell["reasons"].to_string();
    assert!(reasons.iter().any(|reason| text.contains(reason)), "{text}");
    assert!(log_of(&place, "hostile", "probe.log").contains(LAST_WORDS));
}

pub(crate) fn a_relayed_probe_harms_nothing_in_a_guest() {
    let (_, ended) = run(Fault::None);
    ended.exits(0);
    came_out(&ended.cell("passthrough", "probe"), "passed", "");
}

pub(crate) fn a_probe_with_a_bad_header_in_a_guest() {
    check(Fault::BadHeader, &["unknown message type"]);
}

pub(crate) fn a_probe_with_a_bad_size_in_a_guest() {
    check(Fault::BadSize, &["bad header size"]);
}

pub(crate) fn a_probe_that_truncates_in_a_guest() {
    // QEMU 11.1 waits for the rest, gives the wait up, and then writes into what it has given back.
    let crashed = "QEMU ended by itself (signal 11)";
    check(Fault::Truncates, &[crashed, "timed out waiting for reply", "header", "message type"]);
}

pub(crate) fn a_probe_that_answers_nothing_in_a_guest() {
    check(Fault::AnswersNothing, &["unexpected reply"]);
}

pub(crate) fn a_probe_that_answers_too_much_in_a_guest() {
    check(Fault::TooLarge, &["reply larger than recv buffer"]);
}

pub(crate) fn a_probe_that_answers_without_end_in_a_guest() {
    check(Fault::Endless, &["unexpected reply"]);
}

pub(crate) fn a_probe_that_stalls_in_a_guest() {
    check(Fault::Stalls, &["timed out waiting for reply"]);
}

pub(crate) fn a_probe_that_drops_its_socket_in_a_guest() {
    check(Fault::Drops, &["server closed socket", "timed out waiting for reply"]);
}

pub(crate) fn a_probe_that_dies_in_a_guest() {
    check(Fault::Dies, &["the probe ended by itself (exit code 7)"]);
}
