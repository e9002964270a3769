//! Real kernels in a real QEMU, with a program in them that does what it should not.

use std::{fs, path::PathBuf, process::Command, sync::OnceLock};

use serde_json::{Value, json};

use crate::place::{Ended, Place, REAL_KERNEL, came_out, reasons};

/// Runs in the guest; its first argument says what it does.
const PROGRAM: &str = r#"
use std::{fs::OpenOptions, io::Write};

fn pour(path: &str, chunk: &[u8], times: usize) {
    let mut file = OpenOptions::new().write(true).open(path).expect(path);
    for _ in 0..times {
        file.write_all(chunk).expect(path);
    }
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("flood") => pour("/dev/console", &b"flood ".repeat(171), 256),
        Some("garble") => {
            pour("/dev/ttyS1", &[0x55; 1024], 128);
            loop { std::thread::park() }
        }
        Some("reboot") => {
            pour("/proc/sysrq-trigger", b"b", 1);
            loop { std::thread::park() }
        }
        Some("fail") => std::process::exit(3),
        Some("abort") => std::process::abort(),
        Some("measure") => println!("starting\nanswers 42 1\nspeed 1.5e3 m/s\nnot a metric at all"),
        _ => loop { std::thread::park() },
    }
}
"#;

fn program() -> String {
    static PROGRAM_FILE: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM_FILE.get_or_init(|| built("program", PROGRAM)).display().to_string()
}

/// A program from its source, without need of a dynamic linker.
pub(crate) fn built(name: &str, text: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    // Other test processes may be doing the same.
    let own = tempfile::tempdir_in(&directory).unwrap();
    let (source, built) = (own.path().join("program.rs"), own.path().join(name));
    fs::write(&source, text).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["-O", "--edition=2021", "-C", "target-feature=+crt-static"])
        .args(["-C", "strip=symbols", "-o"])
        .args([&built, &source])
        .output()
        .expect("rustc, which has built this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = directory.join(name);
    fs::rename(built, &file).unwrap();
    file
}

/// Runs the program in a guest, with more lines for the case file.
#[track_caller]
fn run(place: &Place, what: &str, more: &str) -> Ended {
    let case = format!(
        "case: program\nstandard: false\nworkload: {{exec: {{argv: [/add/program, {what}]}}}}\nwindows: {{count: false, time: 1}}\n{more}"
    );
    let case = place.file("case.yaml", case);
    let words = ["run", &case, "--add", &program(), "--kernel", REAL_KERNEL, "--accel", "tcg"];
    place.run(&[&words[..], &["--format", "json"]].concat())
}

/// Asserts what becomes of the guest; gives its cell, and its end as it was recorded.
#[track_caller]
fn check(what: &str, more: &str, outcome: &str, code: i32) -> (Value, Value) {
    let place = Place::real();
    let ended = run(&place, what, more);
    let cell = ended.cells().remove(0);
    came_out(&cell, outcome);
    ended.exits(code);
    let end = place.end(&cell);
    (cell, end)
}

#[test]
fn fails_without_init_in_a_guest() {
    let place = Place::real();
    let words = ["run", "boot", "--kernel", REAL_KERNEL, "--accel", "tcg", "--format", "json"];
    let ended = place.run(&[&words[..], &["--append", "rdinit=/nonexistent"]].concat());
    ended.exits(1);
    came_out(&ended.cells()[0], "failed");
    assert_eq!(place.end(&ended.cells()[0])["how"], "panicked");
}

#[test]
fn times_out_on_hanging_program_in_a_guest() {
    let (_, end) = check("hang", "time-limits: {workload: 500ms}\n", "timed-out", 1);
    assert_eq!((&end["how"], &end["after_ms"]), (&"timed-out".into(), &2000.into()), "{end}");
}

#[test]
fn passes_despite_flooded_console_in_a_guest() {
    let place = Place::real();
    let ended = run(&place, "flood", "");
    came_out(&ended.cells()[0], "passed");
    ended.exits(0);
    let cells = fs::read_dir(place.run_directory().join("cells")).unwrap();
    let log = cells.flatten().next().unwrap().path().join("console.log");
    assert!(fs::metadata(log).unwrap().len() > 256 << 10);
}

#[test]
fn errors_on_garbage_over_agent_uart_in_a_guest() {
    let (_, end) = check("garble", "", "errored", 3);
    assert_eq!(end["how"], "channel-broken", "{end}");
}

#[test]
fn fails_on_reboot_in_a_guest() {
    let (_, end) = check("reboot", "", "failed", 1);
    assert_eq!(end, json!({"how": "went-down", "reason": "guest-reset"}));
}

#[test]
fn fails_on_exit_code_of_program_in_a_guest() {
    let (cell, _) = check("fail", "", "failed", 1);
    assert!(reasons(&cell).contains("exit code 3"), "{cell}");
}

#[test]
fn fails_on_killed_program_in_a_guest() {
    let (cell, _) = check("abort", "", "failed", 1);
    assert!(reasons(&cell).contains("signal 6"), "{cell}");
}

#[test]
fn reads_metrics_of_program_in_a_guest() {
    let (cell, _) = check("measure", "", "passed", 0);
    let metric = |name: &str| {
        let metrics = cell["metrics"].as_array().unwrap();
        metrics.iter().find(|metric| metric["name"] == name).cloned().unwrap_or_default()
    };
    assert_eq!(
        (&metric("answers")["value"], &metric("answers")["unit"]),
        (&42.0.into(), &"1".into())
    );
    assert_eq!(
        (&metric("speed")["value"], &metric("speed")["unit"]),
        (&1500.0.into(), &"m/s".into())
    );
    assert_eq!(metric("not"), Value::Null);
}
