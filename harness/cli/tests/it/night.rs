//! What is asked for by name. Probes that fail under a real QEMU, in full use: whatever becomes of the
//! guest, nothing is said of its kernel. They need the QEMU that `dmarig images fetch qemu` brings. And
//! bisections of a real kernel's history.

mod bisecting;
mod documentation;
mod linux;

use dmarig_fake_qemu::{PROBE_LAST_WORDS, RelayFault};

use crate::place::{Ended, Place, REAL_KERNEL, came_out, log_of};

const CASE: &str = "\
case: hostile
axes: {policy: strict, caching-mode: on, passthrough: probe}
workload: {block: {ops: 400, block-size: 64KiB, queue-depth: 4}}
";

fn run(fault: RelayFault) -> (Place, Ended) {
    let place = Place::real();
    let (case, probe) = (place.file("case.yaml", CASE), place.relayed_probe(fault));
    let words = ["run", &case, "--format", "json", "--kernel", REAL_KERNEL, "--qemu", "qemu"];
    let ended = place.run(&[&words[..], &["--accel", "tcg", "--probe-program", &probe]].concat());
    (place, ended)
}

/// Asserts that a cell is errored by a fault, for one of these reasons, and shows the probe's log.
#[track_caller]
fn check(fault: RelayFault, reasons: &[&str]) {
    let (place, ended) = run(fault);
    ended.exits(3);
    let cell = ended.cell("passthrough", "probe");
    came_out(&cell, "errored");
    let text = cell["reasons"].to_string();
    assert!(text.contains(PROBE_LAST_WORDS), "{text}");
    assert!(reasons.iter().any(|reason| text.contains(reason)), "{text}");
    assert!(log_of(&place, "hostile", "probe.log").contains(PROBE_LAST_WORDS));
}

#[test]
fn passes_with_relayed_probe_in_a_guest() {
    let (_, ended) = run(RelayFault::None);
    ended.exits(0);
    came_out(&ended.cell("passthrough", "probe"), "passed");
}

#[test]
fn errors_on_bad_header_of_probe_in_a_guest() {
    check(RelayFault::BadHeader, &["unknown message type"]);
}

#[test]
fn errors_on_bad_size_of_probe_in_a_guest() {
    check(RelayFault::BadSize, &["bad header size"]);
}

#[test]
fn errors_on_truncated_reply_of_probe_in_a_guest() {
    // QEMU 11.1 waits for the rest, gives the wait up, and then writes into what it has given back.
    let crashed = "QEMU ended by itself (signal 11)";
    check(
        RelayFault::Truncates,
        &[crashed, "timed out waiting for reply", "header", "message type"],
    );
}

#[test]
fn errors_on_unrequested_reply_of_probe_in_a_guest() {
    check(RelayFault::AnswersNothing, &["unexpected reply"]);
}

#[test]
fn errors_on_oversized_reply_of_probe_in_a_guest() {
    check(RelayFault::TooLarge, &["reply larger than recv buffer"]);
}

#[test]
fn errors_on_endless_replies_of_probe_in_a_guest() {
    check(RelayFault::Endless, &["unexpected reply"]);
}

#[test]
fn errors_on_stalled_probe_in_a_guest() {
    check(RelayFault::Stalls, &["timed out waiting for reply"]);
}

#[test]
fn errors_on_closed_socket_of_probe_in_a_guest() {
    check(RelayFault::Drops, &["server closed socket", "timed out waiting for reply"]);
}

#[test]
fn errors_on_dead_probe_in_a_guest() {
    check(RelayFault::Dies, &["the probe ended by itself (exit code 7)"]);
}

#[test]
fn bisects_a_real_history() {
    bisecting::bisect_a_real_history();
}
