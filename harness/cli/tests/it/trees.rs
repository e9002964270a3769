//! QEMUs that `dmarig images fetch` brings: told how to get, and run with nothing of the system's.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use dmarig_fake_qemu::QemuScript;
use dmarig_images::QemuTree;

use crate::place::{CASE, Place, REAL_KERNEL, came_out, real_cache};

/// Those that this user has fetched. Tests of them find nothing to do where there are none.
fn fetched() -> Vec<QemuTree> {
    let cache = real_cache();
    let trees: Vec<_> = cache.qemus().unwrap().into_iter().map(|qemu| qemu.tree).collect();
    if trees.is_empty() {
        eprintln!("nothing to test: no QEMU is in the cache; see `dmarig images fetch qemu`");
    }
    trees
}

#[test]
fn one_that_was_not_fetched_is_told_how_to_get() {
    let place = Place::new();
    let (case, kernel, good) =
        (place.file("case.yaml", CASE), place.kernel(), place.qemu(QemuScript::Passes));
    let fixed = ["run", &case, "--format", "json", "--kernel", &kernel, "--qemu", &good];
    let ended = place.run(&[&fixed[..], &["--qemu", "qemu-7.2", "--qemu", "qemu"]].concat());
    ended.exits(3);
    came_out(&ended.cell("qemu", &good), "passed", "");
    came_out(&ended.cell("qemu", "qemu-7.2"), "errored", "`dmarig images fetch qemu-7.2`");
    came_out(&ended.cell("qemu", "qemu"), "errored", "`dmarig images fetch qemu-11.1`");
}

#[test]
fn the_list_names_them_and_a_wrong_name_is_refused() {
    let place = Place::new();
    let ended = place.run(&["images", "list"]);
    ended.exits(0);
    for line in ["qemu-10.0 ", "qemu-11.1 (default) ", "dmarig images fetch qemu-7.2"] {
        assert!(ended.stdout.contains(line), "no `{line}` in\n{}", ended.stdout);
    }
    let ended = place.run(&["images", "fetch", "qemu-11"]);
    ended.exits(2).says(&["there is no recipe for `qemu-11`", "linux-7.3, qemu-7.2, qemu-10.0"]);
    place.run(&["images", "rm", "qemu"]).exits(3).says(&["qemu-11.1 isn't in the cache"]);
}

#[test]
fn what_is_here_stays_where_only_the_missing_is_fetched() {
    let place = Place::new();
    place.run(&["images", "list"]).exits(0);
    let manifest = r#"{"name": "debian-6.1", "release": "6.1.0-1-amd64", "version": "6.1.1-1", "object": "0",
        "bzimage_sha256": "0", "packages": [], "fetched": 0}"#;
    fs::write(place.path("cache/kernels/debian-6.1.json"), manifest).unwrap();
    // There is nobody to ask for a newer one.
    let words = ["images", "fetch", "--missing", "debian-6.1", "--mirror", "http://127.0.0.1:1"];
    place.run(&words).exits(0).says(&["debian-6.1 6.1.1-1 stays as it is"]);
    place.run(&[&words[..], &["--refresh"]].concat()).exits(2);
}

#[test]
fn nothing_of_the_system_is_loaded() {
    for tree in fetched() {
        let mut qemu = Command::new(&tree.program)
            .args(["-M", "none", "-nodefaults", "-display", "none", "-qmp", "stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut input, output) = (qemu.stdin.take().unwrap(), qemu.stdout.take().unwrap());
        let mut lines = BufReader::new(output).lines().map(Result::unwrap);
        assert!(lines.next().unwrap().contains("QMP"));
        let mut ask = |command: &str| {
            writeln!(input, r#"{{"execute": "{command}"}}"#).unwrap();
            lines.next().unwrap_or_else(|| panic!("{} died of {command}", tree.name))
        };
        ask("qmp_capabilities");
        // It loads every module that it finds, and aborts on one of another build.
        assert!(ask("qom-list-types").contains("virtio-gpu-device"));
        let maps = fs::read_to_string(format!("/proc/{}/maps", qemu.id())).unwrap();
        ask("quit");
        assert!(qemu.wait().unwrap().success());
        let files = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
        let own = tree.program.parent().unwrap();
        let foreign: Vec<_> = files.filter(|file| !Path::new(file).starts_with(own)).collect();
        assert!(foreign.iter().all(|file| file.starts_with("/memfd:")), "{foreign:?}");
        assert!(maps.contains(&format!("{}/usr/lib", tree.root.display())), "{maps}");
    }
}

#[test]
fn each_runs_a_kernel_in_a_guest() {
    let trees = fetched();
    if trees.is_empty() {
        return;
    }
    let place = Place::real();
    let mut words = vec!["run", "smoke", "--kernel", REAL_KERNEL, "--accel", "tcg"];
    words.extend(["--format", "json", "--cell", "caching-mode=on,policy=strict"]);
    trees.iter().for_each(|tree| words.extend(["--qemu", &tree.name]));
    let ended = place.run(&words);
    for tree in &trees {
        let cell = ended.cell("qemu", &tree.name);
        came_out(&cell, "passed", "");
        // `1:11.1.3+ds-1~bpo13+1` in Debian's words is `11.1.3` in QEMU's.
        let version = cell["qemu_version"].as_str().unwrap();
        assert!(version.contains(&tree.version), "{version} is not {}", tree.version);
    }
    assert_eq!(ended.cells().len(), trees.len());
    ended.exits(0);
}
