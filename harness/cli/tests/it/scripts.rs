//! The scripts that people and CI jobs call, with programs in the place of all that they would build and run.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    process::Command,
};

use dmarig_fake_qemu::QemuScript;

use crate::place::{CASE, Ended, Place};

const NIGHTLY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ci/nightly");

/// Whatever a script looks for before it builds: all of it is there, and new enough.
const TOOL: &str = r#"#!/bin/sh
case "${0##*/} $*" in
'rustc --version') echo 'rustc 99.0.0' ;;
'cargo metadata'*) echo '{"target_directory":"HERE/target"}' ;;
'cc -print-file-name=libc.a') echo /lib/libc.a ;;
# Whoever writes to it must not find the pipe closed.
'cc -E -') cat ;;
esac
"#;

const TOOLS: [&str; 11] = [
    "cargo",
    "rustc",
    "cc",
    "qemu-system-x86_64",
    "make",
    "flex",
    "bison",
    "bc",
    "perl",
    "git",
    "strip",
];

/// A dmarig whose exit codes and reports lie beside it, by the step.
const DMARIG: &str = r#"#!/bin/sh
for word; do last=$word; done
case $1 in
run) step=$(basename "$last" .xml) ;;
*) step=$1 ;;
esac
[ ! -e "$0.$step.xml" ] || cp "$0.$step.xml" "$last"
[ ! -e "$0.$step" ] || exit "$(cat "$0.$step")"
"#;

/// Steps of a night that exit so; others exit with 0.
type Steps<'a> = &'a [(&'a str, u8)];

/// What comes of a night of these steps, whose matrix has this report.
fn night(place: &Place, fail_on: &str, steps: Steps<'_>, report: Option<&str>) -> Ended {
    // That of another night must not be taken for this one's.
    let target = place.path("target");
    let _ = fs::remove_dir_all(&target);
    let program = |name: &str, text: &str| {
        let text = text.replace("HERE/target", &target.display().to_string());
        let path = place.file(name, text);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("tools/tool", TOOL);
    for tool in TOOLS {
        let _ = symlink("tool", place.path("tools").join(tool));
    }
    program("target/release/dmarig", DMARIG);
    for (step, code) in steps {
        place.file(&format!("target/release/dmarig.{step}"), code.to_string());
    }
    if let Some(report) = report {
        place.file("target/release/dmarig.matrix.xml", report);
    }
    let mut command = Command::new(NIGHTLY);
    let out = format!("out={}", place.path("out").display());
    command.args(["cases=full", "prove=linux-6.12", &format!("fail-on={fail_on}"), &out]);
    place.settle(&mut command);
    let path = format!("{}:/usr/bin:/bin", place.path("tools").display());
    command.env("PATH", path).env("SSL_CERT_FILE", "/dev/null");
    place.start(command).wait()
}

/// The report of a cell that panicked, and of those of other QEMUs.
fn report(place: &Place, others: &[QemuScript]) -> String {
    let (case, kernel) = (place.file("case.yaml", CASE), place.kernel());
    let junit = place.path("junit.xml").display().to_string();
    let mut words = vec!["run", &case, "--kernel", &kernel, "--junit", &junit];
    let scripts = [&[QemuScript::PanicsInColour], others].concat();
    let qemus: Vec<String> = scripts.into_iter().map(|script| place.qemu(script)).collect();
    qemus.iter().for_each(|qemu| words.extend(["--qemu", qemu]));
    place.run(&words).exits(1);
    fs::read_to_string(&junit).unwrap()
}

#[test]
fn fails_night_by_fail_on() {
    let place = Place::new();
    let [failed, errored] = [&[][..], &[QemuScript::Dies]].map(|others| report(&place, others));
    let (failed, errored) = (Some(failed.as_str()), Some(errored.as_str()));
    let nights: [(Steps<'_>, Option<&str>, [i32; 2]); 12] = [
        // What exits so, its report, and the night's exit code by fail-on=all and fail-on=new.
        (&[], None, [0, 0]),
        (&[("matrix", 1)], failed, [1, 0]),
        (&[("matrix", 1)], errored, [1, 3]),
        (&[("matrix", 3)], errored, [3, 3]),
        // Without a report, or with half of one, it is not known what errored.
        (&[("matrix", 1)], None, [1, 3]),
        (&[("matrix", 1)], Some("<?xml"), [1, 3]),
        (&[("matrix", 1), ("alerts", 1)], errored, [1, 1]),
        (&[("alerts", 1)], None, [1, 1]),
        (&[("prove", 1)], None, [1, 1]),
        (&[("prove", 3)], None, [3, 3]),
        (&[("history", 3), ("prove", 1)], None, [1, 1]),
        (&[("matrix", 130), ("alerts", 1)], None, [130, 130]),
    ];
    for (steps, report, codes) in nights {
        for (fail_on, code) in ["all", "new"].into_iter().zip(codes) {
            let ended = night(&place, fail_on, steps, report);
            assert_eq!(ended.code, Some(code), "{fail_on} {steps:?} {report:?}: {ended:?}");
        }
    }
}
