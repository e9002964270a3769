//! Kernel logs from anywhere.

use std::{
    fs::{self, File},
    process::Command,
};

use dmarig_fake_qemu::QemuScript;
use rstest::rstest;

use crate::place::{CASE, Place};

const LOG: &str = include_str!("../../../model/tests/data/6.1-caching-mode.log");

#[test]
fn reports_missing_warning() {
    let place = Place::new();
    let good = place.file("good.log", LOG);
    let ended = place.run(&["analyze", &good]);
    ended.exits(0);
    insta::assert_snapshot!("analysis_of_a_good_log", place.redact(&ended.stdout));
    let without: String = LOG
        .lines()
        .filter(|line| !line.contains("virtualization"))
        .map(|line| format!("{line}\n"))
        .collect();
    let odd = place.file("odd.log", without);
    let ended = place.run(&["analyze", "--json", &odd]);
    ended.exits(1);
    let document = ended.document();
    assert_eq!(document["schema"], 1);
    let log = &document["logs"][0];
    assert_eq!(log["warning"]["present"], false);
    assert_eq!(log["warning"]["expected"], "present");
    // The commit that a kernel without the warning lacks.
    assert!(log["odd"][0].as_str().unwrap().contains("29b32839725f"), "{log}");
}

/// More lines than a sum can hold, of a forged log.
fn forged_count() -> String {
    format!(
        "[    1.000000] dmar_fault: {} callbacks suppressed\n\
         DMAR: [DMA Read] Request device [03:00.0] fault addr 0 [fault reason 06] x\n",
        u64::MAX
    )
}

#[rstest]
#[case::no_kernel_log("hello\n", 4)]
// A linker's words are no kernel's, a driver's are even where nothing is odd or of the IOMMU.
#[case::words_of_a_linker("WARNING: modpost: missing MODULE_DESCRIPTION() in x.o\n", 4)]
#[case::words_of_a_daemon("[ 9000.100000] box sshd[1]: hello\n", 4)]
#[case::words_of_a_driver("[ 9000.100000] usb 1-1: new high-speed USB device\n", 0)]
#[case::quoted_splat(
    "WARNING: CPU: 3 PID: 77 at drivers/iommu/intel/iommu.c:1234 unmap+0x11/0x22\n",
    1
)]
#[case::unknown_prefix("x|1|DMAR: IOMMU enabled\n", 1)]
// `dmesg -J` on a full disk.
#[case::cut_json(r#"{"dmesg": [{"pri": 3, "time": 2.5, "msg": "BUG: x"}"#, 1)]
#[case::forged_count(&forged_count(), 1)]
fn exits_with_code_for(#[case] text: &str, #[case] code: i32) {
    let place = Place::new();
    let log = place.file("log", text);
    place.run(&["analyze", &log]).exits(code);
}

#[test]
fn reports_unreadable_logs() {
    let place = Place::new();
    let empty = place.file("empty.log", "hello\n");
    let unknown = place.file("unknown.log", "x|1|DMAR: IOMMU enabled\n");
    let cut = place.file("cut.json", r#"{"dmesg": [{"pri": 3, "time": 2.5, "msg": "BUG: x"}"#);
    let broken = place.file("broken.gz", b"\x1f\x8b\x08\x00broken");
    let all = [(empty.as_str(), 4), (&unknown, 1), (&cut, 1), ("nope", 2), (&broken, 3)];
    let transcripts = all.map(|(log, code)| place.run_all(code, &[&["analyze", log]]));
    insta::assert_snapshot!(transcripts.join("\n"));
}

#[test]
fn reads_packed_and_piped_logs() {
    let place = Place::new();
    let log = place.file("log", LOG);
    for (program, suffix) in [("gzip", "gz"), ("xz", "xz")] {
        let output = Command::new(program).args(["-c", &log]).output().unwrap();
        let packed = place.file(&format!("log.{suffix}"), output.stdout);
        place.run(&["analyze", &packed]).exits(0);
        let mut piped = place.dmarig(&["analyze", "-"]);
        piped.stdin(File::open(&packed).unwrap());
        place.start(piped).wait().exits(0);
    }
    // What is no regular file is a log nevertheless, and no run's name.
    place.run(&["analyze", "/dev/null"]).exits(4);
    let mut piped = place.dmarig(&["analyze", "/dev/stdin"]);
    piped.stdin(File::open(&log).unwrap());
    place.start(piped).wait().exits(0);
}

#[test]
fn explains_a_fault_reason() {
    let place = Place::new();
    let fault = "[   30.0] DMAR: [DMA Write NO_PASID] Request device [03:00.0] fault addr 0xfffe1000 \
                 [fault reason 0x3a] SM: Non-zero reserved field set in Root Entry\n";
    let log = place.file("log", fault);
    let ended = place.run(&["analyze", &log]);
    ended.exits(1);
    insta::assert_snapshot!(place.redact(&ended.stdout));
}

#[test]
fn reads_logs_of_a_recorded_run() {
    let place = Place::new();
    let (case, kernel) = (place.file("case.yaml", CASE), place.kernel());
    let (good, panics) = (place.qemu(QemuScript::Passes), place.qemu(QemuScript::Panics));
    place.run(&["run", &case, "--kernel", &kernel, "--qemu", &good, "--qemu", &panics]).exits(1);
    let ended = place.run(&["analyze", "last", "--json"]);
    ended.exits(1);
    let document = ended.document();
    let logs = document["logs"].as_array().unwrap();
    assert_eq!(logs.len(), 2, "{document}");
    let panicked =
        logs.iter().find(|log| log["splats"].as_array().is_some_and(|all| !all.is_empty()));
    let panicked = panicked.unwrap_or_else(|| panic!("{document}"));
    assert_eq!(panicked["splats"][0]["kind"], "panic");
    assert!(panicked["name"].as_str().unwrap().contains("fake-qemu-panics"), "{panicked}");
}

#[test]
fn rejects_unreadable_records() {
    let place = Place::new();
    let all = [("newer", "{\"schema\": 99}"), ("damaged", "{")].map(|(name, meta)| {
        let run = place.path("runs").join(name);
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("run.json"), meta).unwrap();
        fs::write(run.join("cells.jsonl"), "").unwrap();
        let ended = place.run(&["analyze", name]);
        ended.exits(3);
        ended
    });
    insta::assert_snapshot!(place.transcript(&all));
}

#[test]
fn escapes_terminal_sequences_in_logs() {
    let place = Place::new();
    let evil = "\x1b]0;owned\x07[    0.000000] Linux version 6.1.0\x1b[2J\u{202e} x\n\
                [    1.0] BUG: \x07\u{202e}evil\n[    1.0] Command line: \x08\u{202e}x\n";
    let log = place.file("evil.log", evil);
    for words in [&["analyze", &log][..], &["analyze", &log, "--json"]] {
        let ended = place.run(words);
        ended.exits(1);
        assert!(!ended.stdout.contains(['\x1b', '\x07', '\x08', '\u{202e}']), "{:?}", ended.stdout);
    }
}
