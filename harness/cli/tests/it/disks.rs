//! File systems without room, and places that can't be used.

use std::{
    fs::{self, File},
    process::{Command, Stdio},
};

use dmarig_fake_qemu::QemuScript;

use crate::place::{CASE, Ended, Place, came_out, exists};

/// Words that run one fake guest.
fn words(place: &Place) -> Vec<String> {
    let (case, kernel, qemu) =
        (place.file("case.yaml", CASE), place.kernel(), place.qemu(QemuScript::Passes));
    ["run", &case, "--format", "json", "--kernel", &kernel, "--qemu", &qemu]
        .map(str::to_owned)
        .into()
}

fn refs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[test]
fn errors_when_results_can_not_be_written() {
    let place = Place::new();
    let mut all = words(&place);
    all.extend(["--junit".to_owned(), "/dev/full".to_owned()]);
    let ended = place.run(&refs(&all));
    ended.exits(3);
    insta::assert_snapshot!("full_junit_file", last_line(&place, &ended));
    // Output that is cut short must not look like success; a reader that has gone is none of ours.
    for (target, code) in
        [(Stdio::from(File::options().write(true).open("/dev/full").unwrap()), 3), (gone(), 0)]
    {
        let mut command = place.dmarig(&refs(&words(&place)));
        let output = command.stdout(target).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
    }
    place.nothing_is_left();
}

/// The last line of standard error, without what differs.
fn last_line(place: &Place, ended: &Ended) -> String {
    place.redact(ended.stderr.lines().last().unwrap_or_default())
}

/// A terminal or a `tee` that has gone is no end to the work, nor another exit code.
#[test]
fn ignores_unwritable_standard_error() {
    let place = Place::new();
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let empty = place.file("empty", "");
    for (words, code) in [
        (words(&place), 0),
        (vec!["analyze".to_owned(), empty], 4),
        (["bisect-step", "--case", "nope"].map(str::to_owned).to_vec(), 129),
    ] {
        for stderr in [full(), gone()] {
            let mut command = place.dmarig(&refs(&words));
            command.env("DMARIG_LOG", "debug").stdout(Stdio::null()).stderr(stderr);
            assert_eq!(command.status().unwrap().code(), Some(code), "{words:?}");
        }
    }
    place.nothing_is_left();
}

/// A pipe that nobody reads.
fn gone() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn errors_when_directories_can_not_be_made() {
    let place = Place::new();
    let file = place.file("file", "");
    let run = |name: &str, value: &str| {
        let mut command = place.dmarig(&refs(&words(&place)));
        command.env(name, value);
        let ended = place.start(command).wait();
        place.nothing_is_left();
        ended
    };
    let ended = run("TMPDIR", "/nowhere");
    ended.exits(3);
    came_out(&ended.cells()[0], "errored");
    insta::assert_snapshot!("tmpdir_that_is_missing", place.verdict(&ended.cells()[0]));
    for name in ["DMARIG_RUNS", "DMARIG_CACHE"] {
        let ended = run(name, &file);
        ended.exits(3);
        insta::assert_snapshot!(format!("{name}_that_is_a_file"), last_line(&place, &ended));
    }
}

#[test]
fn errors_when_socket_paths_are_too_long() {
    let place = Place::new();
    let deep = place.path("tmp").join("deep".repeat(30));
    fs::create_dir(&deep).unwrap();
    let mut command = place.dmarig(&refs(&words(&place)));
    command.env("TMPDIR", &deep);
    let ended = place.start(command).wait();
    ended.exits(3);
    came_out(&ended.cells()[0], "errored");
    insta::assert_snapshot!(place.verdict(&ended.cells()[0]));
    fs::remove_dir(&deep).unwrap();
    place.nothing_is_left();
}

/// Runs dmarig with `directory` of the place on a small file system of its own, and a part of that
/// taken; `None` where this user may not mount one.
fn on_a_small_disk(
    place: &Place,
    directory: &str,
    options: &str,
    taken: u32,
    words: &[String],
) -> Option<Ended> {
    let script = r#"mount -t tmpfs -o "$1" none "$2" && head -c "$3" /dev/zero > "$2/taken"; shift 3; exec "$@""#;
    let target = place.path(directory);
    fs::create_dir_all(&target).unwrap();
    let shell = |options: &str, rest: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh", options]);
        command.arg(&target).arg(taken.to_string()).args(rest);
        command
    };
    let mounts = exists("/usr/bin/unshare")
        && shell("size=1m", &["grep", "-q", &target.display().to_string(), "/proc/mounts"])
            .status()
            .is_ok_and(|status| status.success());
    if !mounts {
        eprintln!("not tested: this user may not mount a file system of its own (unshare --mount)");
        return None;
    }
    let mut command = shell(options, &[env!("CARGO_BIN_EXE_dmarig")]);
    command.args(words);
    place.settle(&mut command);
    let ended = place.start(command).wait();
    place.nothing_is_left();
    Some(ended)
}

#[test]
fn errors_on_full_file_systems() {
    let place = Place::new();
    let words = words(&place);
    let Some(ended) = on_a_small_disk(&place, "runs", "size=16k", 16 << 10, &words) else { return };
    ended.exits(3);
    insta::assert_snapshot!("no_room_for_a_record", last_line(&place, &ended));

    // Room for the run's beginning: its cell is judged, and its record is not kept.
    let ended = on_a_small_disk(&place, "runs", "size=32k", 24 << 10, &words).unwrap();
    ended.exits(3);
    came_out(&ended.cells()[0], "errored");
    insta::assert_snapshot!("no_room_for_a_cell", place.verdict(&ended.cells()[0]));

    let ended = on_a_small_disk(&place, "cache", "size=64k", 0, &words).unwrap();
    ended.exits(3);
    came_out(&ended.cells()[0], "errored");
    insta::assert_snapshot!("no_room_in_the_cache", place.verdict(&ended.cells()[0]));

    let ended = on_a_small_disk(&place, "tmp", "nr_inodes=2", 0, &words).unwrap();
    ended.exits(3);
    came_out(&ended.cells()[0], "errored");
    insta::assert_snapshot!("no_inodes_for_a_guest", place.verdict(&ended.cells()[0]));
}

#[test]
fn errors_when_disk_under_test_is_full_in_a_guest() {
    let place = Place::real();
    let words = ["run", "smoke", "--set", "caching-mode=off", "--set", "policy=lazy"];
    let more = ["--set", "device=nvme,virtio-blk", "--accel", "tcg", "--format", "json"];
    let words = [&words[..], &more[..]].concat().into_iter().map(str::to_owned);
    let words: Vec<String> = words.collect();
    let Some(ended) = on_a_small_disk(&place, "tmp", "size=1m", 0, &words) else { return };
    ended.exits(3);
    // Each of QEMU's devices has its own way to tell.
    for device in ["nvme", "virtio-blk"] {
        let cell = ended.cell("device", device);
        came_out(&cell, "errored");
        assert_eq!(place.end(&cell)["how"], "host-fault");
    }
}
