//! The programs, started by their names.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use dmarig_fake_qemu::{ProbeScript, QEMU_LAST_WORDS, QemuScript, RelayFault, Role, program};

/// Starts a QEMU that is asked for its capabilities.
fn inspected(qemu: &Path) -> Command {
    let mut command = Command::new(qemu);
    command.args(["-M", "none", "-qmp", "stdio"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    command
}

#[test]
fn finds_the_programs_that_cargo_built_for_this_test() {
    for (name, built) in [
        ("fake-qemu", env!("CARGO_BIN_EXE_fake-qemu")),
        ("fake-probe", env!("CARGO_BIN_EXE_fake-probe")),
        ("relayed-probe", env!("CARGO_BIN_EXE_relayed-probe")),
        ("hand-over", env!("CARGO_BIN_EXE_hand-over")),
        ("hold-device", env!("CARGO_BIN_EXE_hold-device")),
    ] {
        assert_eq!(program(name), Path::new(built));
    }
}

#[test]
fn names_links_by_role() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    assert_eq!(
        QemuScript::PanicsInColour.link_in(directory.path()),
        path("fake-qemu-panics-in-colour")
    );
    assert_eq!(ProbeScript::Dies.link_in(directory.path()), path("fake-probe-dies"));
    assert_eq!(RelayFault::BadSize.link_in(directory.path()), path("relayed-probe-bad-size"));
    assert_eq!(
        ProbeScript::Dies.link_in(directory.path()),
        path("fake-probe-dies"),
        "a second time"
    );
}

#[test]
fn speaks_qmp() {
    let directory = tempfile::tempdir().unwrap();
    let mut qemu = inspected(&QemuScript::Passes.link_in(directory.path())).spawn().unwrap();
    let mut lines = BufReader::new(qemu.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("{\"QMP\":"));
    writeln!(qemu.stdin.take().unwrap(), r#"{{"execute": "quit"}}"#).unwrap();
    assert_eq!(lines.next().unwrap(), r#"{"return":{}}"#);
    assert!(qemu.wait().unwrap().success());
}

#[test]
fn plays_the_script_of_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let qemu = QemuScript::DiesWhenAsked.link_in(directory.path());
    let output = inspected(&qemu).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap().trim(), QEMU_LAST_WORDS);
}

#[test]
fn rejects_a_name_without_a_script() {
    let output = inspected(&program("fake-qemu")).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(stderr.contains("`fake-qemu` names no role"), "{stderr}");
}

#[test]
fn finds_the_script_in_a_kernel() {
    let image = format!("\0{}\0", QemuScript::Reboots.kernel_marker());
    assert_eq!(QemuScript::named_in_kernel(image.as_bytes()), Some(QemuScript::Reboots));
    assert_eq!(QemuScript::named_in_kernel(b"no kernel"), None);
}
