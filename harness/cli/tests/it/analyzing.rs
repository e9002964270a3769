//! Kernel logs from anywhere.

use std::{
    fs::{self, File},
    process::Command,
};

use dmarig_fake_qemu::QemuScript;

use crate::place::{CASE, Place};

const LOG: &str = include_str!("../../../model/tests/data/6.1-caching-mode.log");

#[test]
fn logs_are_told_with_their_exit_codes() {
    let place = Place::new();
    let good = place.file("good.log", LOG);
    let ended = place.run(&["analyze", &good]);
    ended.exits(0);
    for text in [
        "6.1.176 (6.1.0-50-amd64)",
        "caching mode on (CM)",
        "present, as expected",
        "odd        nothing",
    ] {
        assert!(ended.stdout.contains(text), "no `{text}` in\n{}", ended.stdout);
    }
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
    assert!(log["odd"][0].as_str().unwrap().contains("29b32839725f"), "{log}");
    let empty = place.file("empty.log", "hello\n");
    place.run(&["analyze", &empty]).exits(4).says(&["there is no kernel log in it"]);
    // A linker's words are no kernel's, a driver's are even where nothing is odd or of the IOMMU.
    let build = place.file("build.log", "WARNING: modpost: missing MODULE_DESCRIPTION() in x.o\n");
    place.run(&["analyze", &build]).exits(4).says(&["there is no kernel log in it"]);
    let ssh = place.file("ssh.log", "[ 9000.100000] box sshd[1]: hello\n");
    place.run(&["analyze", &ssh]).exits(4).says(&["there is no kernel log in it"]);
    let splat = "WARNING: CPU: 3 PID: 77 at drivers/iommu/intel/iommu.c:1234 unmap+0x11/0x22\n";
    let quoted = place.file("quoted.log", splat);
    place.run(&["analyze", &quoted]).exits(1);
    let wrapped = place.file("wrapped.log", "[ 9000.100000] usb 1-1: new high-speed USB device\n");
    place.run(&["analyze", &wrapped]).exits(0);
    let unknown = place.file("unknown.log", "x|1|DMAR: IOMMU enabled\n");
    let ended = place.run(&["analyze", &unknown]);
    ended.exits(1);
    assert!(ended.stdout.contains("`DMAR: ` behind what is no known prefix"), "{ended:?}");
    // What a disk that was full left of `dmesg -J`.
    let cut = place.file("cut.json", r#"{"dmesg": [{"pri": 3, "time": 2.5, "msg": "BUG: x"}"#);
    let ended = place.run(&["analyze", &cut]);
    ended.exits(1);
    assert!(ended.stdout.contains("(lines 1 to 1)"), "{ended:?}");
    assert!(ended.stdout.contains("bug: line 1: "), "{ended:?}");
    // And one that was forged to be too much for a sum.
    let forged = format!("[    1.000000] dmar_fault: {} callbacks suppressed\n", u64::MAX);
    let fault = "DMAR: [DMA Read] Request device [03:00.0] fault addr 0 [fault reason 06] x\n";
    let forged = place.file("forged.log", format!("{forged}{fault}"));
    place.run(&["analyze", &forged]).exits(1);
    place.run(&["analyze", "nope"]).exits(2).says(&["there is no file nope", "no run `nope`"]);
    let broken = place.file("broken.gz", b"\x1f\x8b\x08\x00broken");
    place.run(&["analyze", &broken]).exits(3).says(&["can't unpack it as gzip"]);
}

#[test]
fn packed_and_piped_logs_are_read() {
    let place = Place::new();
    let log = place.file("log", LOG);
    for (program, suffix) in [("gzip", "gz"), ("xz", "xz")] {
        let output = Command::new(program).args(["-c", &log]).output().unwrap();
        let packed = place.file(&format!("log.{suffix}"), output.stdout);
        place.run(&["analyze", &packed]).exits(0);
        let mut piped = place.dmarig(&["analyze", "-"]);
        piped.stdin(File::open(&packed).unwrap());
        let ended = place.start(piped).wait();
        ended.exits(0);
        assert!(ended.stdout.contains("present, as expected"), "{ended:?}");
    }
    // What is no regular file is a log nevertheless, and no run's name.
    place.run(&["analyze", "/dev/null"]).exits(4).says(&["there is no kernel log in it"]);
    let mut piped = place.dmarig(&["analyze", "/dev/stdin"]);
    piped.stdin(File::open(&log).unwrap());
    place.start(piped).wait().exits(0);
}

#[test]
fn a_faults_reason_is_told_in_our_words_and_the_kernels() {
    let place = Place::new();
    let fault = "[   30.0] DMAR: [DMA Write NO_PASID] Request device [03:00.0] fault addr 0xfffe1000 \
                 [fault reason 0x3a] SM: Non-zero reserved field set in Root Entry\n";
    let log = place.file("log", fault);
    let ended = place.run(&["analyze", &log]);
    ended.exits(1);
    let told = ended.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for text in [
        "1x reason 0x3a: reserved bits set in the root entry (SM: Non-zero reserved field set in Root Entry)",
        "mostly: the tables are broken",
    ] {
        assert!(told.contains(text), "no `{text}` in\n{told}");
    }
}

#[test]
fn a_recorded_runs_logs_are_read() {
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
fn a_record_that_can_not_be_read_is_told_as_one() {
    let place = Place::new();
    for (name, meta, says) in [
        ("newer", "{\"schema\": 99}", "newer/run.json has record version 99"),
        ("damaged", "{", "damaged/run.json, line 1: "),
    ] {
        let run = place.path("runs").join(name);
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("run.json"), meta).unwrap();
        fs::write(run.join("cells.jsonl"), "").unwrap();
        let ended = place.run(&["analyze", name]);
        ended.exits(3).says(&[says]);
        assert!(!ended.stderr.contains("there is no file"), "{ended:?}");
    }
}

#[test]
fn hostile_logs_steer_no_terminal() {
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
