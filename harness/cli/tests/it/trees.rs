//! QEMUs that `dmarig images fetch` brings: told how to get, and run with nothing of the system's.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use dmarig_fake_qemu::QemuScript;
use dmarig_images::QemuTree;

use crate::place::{CASE, Place, REAL_KERNEL, came_out, real_cache, reasons};

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
fn names_fetch_command_of_missing_qemu() {
    let place = Place::new();
    let (case, kernel, good) =
        (place.file("case.yaml", CASE), place.kernel(), place.qemu(QemuScript::Passes));
    let fixed = ["run", &case, "--format", "json", "--kernel", &kernel, "--qemu", &good];
    let ended = place.run(&[&fixed[..], &["--qemu", "qemu-7.2", "--qemu", "qemu"]].concat());
    ended.exits(3);
    came_out(&ended.cell("qemu", &good), "passed");
    let missing = ["qemu-7.2", "qemu"].map(|name| {
        let cell = ended.cell("qemu", name);
        came_out(&cell, "errored");
        reasons(&cell)
    });
    insta::assert_snapshot!(place.redact(&missing.join("\n")));
}

#[test]
fn lists_qemus_and_rejects_unknown_names() {
    let place = Place::new();
    let list = place.run(&["images", "list"]);
    list.exits(0);
    let unknown = place.run(&["images", "fetch", "qemu-11"]);
    unknown.exits(2);
    let missing = place.run(&["images", "rm", "qemu"]);
    missing.exits(3);
    insta::assert_snapshot!(place.transcript([&list, &unknown, &missing]));
}

#[test]
fn keeps_present_images_with_missing() {
    let place = Place::new();
    place.run(&["images", "list"]).exits(0);
    let manifest = r#"{"name": "debian-6.1", "release": "6.1.0-1-amd64", "version": "6.1.1-1", "object": "0",
        "bzimage_sha256": "0", "packages": [], "fetched": 0}"#;
    fs::write(place.path("cache/kernels/debian-6.1.json"), manifest).unwrap();
    // There is nobody to ask for a newer one.
    let words = ["images", "fetch", "--missing", "debian-6.1", "--mirror", "http://127.0.0.1:1"];
    place.run(&words).exits(0);
    assert_eq!(fs::read_to_string(place.path("cache/kernels/debian-6.1.json")).unwrap(), manifest);
    place.run(&[&words[..], &["--refresh"]].concat()).exits(2);
}

#[test]
fn loads_no_library_of_the_system() {
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
fn runs_each_qemu_in_a_guest() {
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
        came_out(&cell, "passed");
        // `1:11.1.3+ds-1~bpo13+1` in Debian's words is `11.1.3` in QEMU's.
        let version = cell["qemu_version"].as_str().unwrap();
        assert!(version.contains(&tree.version), "{version} is not {}", tree.version);
    }
    assert_eq!(ended.cells().len(), trees.len());
    ended.exits(0);
}
