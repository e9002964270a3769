//! Probes that misbehave.

use dmarig_fake_qemu::{PROBE_LAST_WORDS, ProbeScript, QemuScript, Role};
use rstest::rstest;

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

/// The rig's own deadlines at a tenth.
const HURRY: &[&str] = &["--patience", "0.1"];

#[rstest]
#[case::serves(ProbeScript::Serves, &[], "passed", 0)]
#[case::dies(ProbeScript::Dies, &[], "errored", 3)]
#[case::dies_in_workload(ProbeScript::DiesInWorkload, &[], "errored", 3)]
#[case::stalls(ProbeScript::Stalls, HURRY, "errored", 3)]
#[case::babbles(ProbeScript::Babbles, &[], "errored", 3)]
#[case::loses_its_client(ProbeScript::LosesItsClient, &[], "errored", 3)]
#[case::sees_wrong(ProbeScript::SeesWrong, &[], "failed", 1)]
fn judges_cell_of_probe_that(
    #[case] script: ProbeScript,
    #[case] arguments: &[&str],
    #[case] outcome: &str,
    #[case] code: i32,
) {
    let place = Place::new();
    let case = place.file("case.yaml", CASE);
    let (kernel, qemu, probe) =
        (place.kernel(), place.qemu(QemuScript::Passes), place.probe(script));
    let fixed = ["run", &case, "--format", "json", "--kernel", &kernel, "--qemu", &qemu];
    let ended = place.run(&[&fixed[..], &["--probe-program", &probe], arguments].concat());
    let all = ended.cells().iter().map(reasons).collect::<Vec<_>>();
    assert_eq!(ended.code, Some(code), "{script:?}: {all:?} {ended:?}");
    came_out(&ended.cell("passthrough", "none"), "passed");
    let cell = ended.cell("passthrough", "probe");
    came_out(&cell, outcome);
    insta::assert_snapshot!(script.file_name(), place.verdict(&cell));
    let log = log_of(&place, "passthrough=probe", "probe.log");
    assert!(log.contains(PROBE_LAST_WORDS), "{log}");
}

#[rstest]
// The guest behind such a QEMU may hang for long: the rig does not wait for it.
#[case::hangs_without_its_client(
    QemuScript::HangsInWorkload,
    ProbeScript::LosesItsClientMeanwhile,
    ""
)]
#[case::has_device_trouble(QemuScript::HasDeviceTrouble, ProbeScript::Serves, "")]
#[case::dies_of_device_trouble(QemuScript::DiesOfDeviceTrouble, ProbeScript::Serves, "")]
#[case::has_trouble_with_a_dead_probe(
    QemuScript::HasDeviceTrouble,
    ProbeScript::DiesInWorkload,
    ""
)]
#[case::hangs_with_a_hanging_probe(
    QemuScript::HangsInWorkload,
    ProbeScript::Hangs,
    "time-limits: {workload: 250ms}\n"
)]
fn blames_the_probe_where_qemu(
    #[case] qemu: QemuScript,
    #[case] probe: ProbeScript,
    #[case] more: &str,
) {
    let verdict = verdict_of(qemu, probe, more);
    assert!(verdict.contains(PROBE_LAST_WORDS), "without the probe's log: {verdict}");
    let name = format!("{}-{}", qemu.file_name(), probe.file_name());
    insta::assert_snapshot!(name, verdict);
}

#[test]
fn blames_qemu_that_dies_by_itself() {
    let (qemu, probe) = (QemuScript::DiesInWorkload, ProbeScript::LosesItsClientMeanwhile);
    insta::assert_snapshot!(verdict_of(qemu, probe, ""));
}

/// What becomes of an errored cell whose QEMU and probe play these scripts.
#[track_caller]
fn verdict_of(qemu: QemuScript, probe: ProbeScript, more: &str) -> String {
    let place = Place::new();
    let case = CASE.replace("[none, probe]", "probe") + more;
    let case = place.file("case.yaml", case);
    let (kernel, qemu, probe) = (place.kernel(), place.qemu(qemu), place.probe(probe));
    let fixed = ["run", &case, "--format", "json", "--kernel", &kernel, "--qemu", &qemu];
    let ended = place.run(&[&fixed[..], &["--probe-program", &probe]].concat());
    ended.exits(3);
    let cell = ended.cell("passthrough", "probe");
    came_out(&cell, "errored");
    place.verdict(&cell)
}
