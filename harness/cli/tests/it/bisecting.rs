//! Bisections from the command line, of histories whose kernels are none: their Makefile copies an image,
//! which says how the guest behaves.

use std::{
    fs,
    io::{BufRead as _, BufReader, BufWriter, Write},
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{ChildStdin, Command, Stdio},
};

use dmarig_fake_qemu::QemuScript;

use crate::place::{CASE, EM_X86_64, Place, vmlinux_with};

/// A kernel's makefile, as far as a build needs it.
const MAKEFILE: &str = "\
allnoconfig:\n\tcp $(KCONFIG_ALLCONFIG) $(O)/.config\n\
%:\n\t@test ! -f broken || { echo \"$(CURDIR)/iommu.c:7:1: error: expected a semicolon\" >&2; \
	exit 1; }\n\
\tmkdir -p $(O)/include/config\n\techo 6.1.0-fake > $(O)/include/config/kernel.release\n\
\tcp image $(O)/vmlinux\n";

/// What a history's commits are: a script, or `broken`.
const WORDS: [&str; 10] = [
    "passes", "passes", "broken", "passes", "panics", "broken", "passes", "reboots", "broken",
    "reboots",
];

/// A bare repository with these commits, each with the tag `c` and its number.
fn history(place: &Place, words: &[&str]) -> String {
    imported(place, |stream| commits(stream, words))
}

fn commits(stream: &mut impl Write, words: &[&str]) {
    for (at, word) in words.iter().enumerate() {
        let message = format!("{word} {at}");
        let script = match *word {
            "broken" => QemuScript::Passes,
            name => QemuScript::from_name(name).expect("the name of a script"),
        };
        // The number makes each image another one.
        let image = vmlinux_with(EM_X86_64, &format!("{}{at}", script.kernel_marker()));
        write!(
            stream,
            "commit refs/heads/main\nmark :{}\ncommitter A <a@b> {} +0000\n",
            at + 1,
            1_000_000 + at
        )
        .unwrap();
        data(stream, message.as_bytes());
        if at > 0 {
            writeln!(stream, "from :{at}").unwrap();
        }
        writeln!(stream, "deleteall").unwrap();
        let broken = (*word == "broken").then_some(("broken", &b"x"[..]));
        let files = [("Makefile", MAKEFILE.as_bytes()), ("Kconfig", b""), ("image", &image)];
        for (name, content) in files.into_iter().chain(broken) {
            writeln!(stream, "M 100644 inline {name}").unwrap();
            data(stream, content);
        }
        write!(stream, "\nreset refs/tags/c{at}\nfrom :{}\n\n", at + 1).unwrap();
    }
}

/// A bare repository of what is written for `git fast-import`.
pub(crate) fn imported(place: &Place, write: impl FnOnce(&mut BufWriter<ChildStdin>)) -> String {
    let tree = place.path("linux.git");
    git(&place.path(""), &["init", "-q", "--bare", "--initial-branch=main", "linux.git"]);
    // Half a gigabyte is sooner written than compressed.
    git(&tree, &["config", "core.compression", "0"]);
    let mut import = Command::new("git")
        .args(["fast-import", "--quiet"])
        .current_dir(&tree)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stream = BufWriter::new(import.stdin.take().unwrap());
    write(&mut stream);
    stream.into_inner().unwrap();
    assert!(import.wait().unwrap().success());
    tree.display().to_string()
}

/// A block of data of `git fast-import`.
pub(crate) fn data(stream: &mut impl Write, content: &[u8]) {
    writeln!(stream, "data {}", content.len()).unwrap();
    stream.write_all(content).unwrap();
    stream.write_all(b"\n").unwrap();
}

/// Git in a directory.
pub(crate) fn git(directory: &Path, words: &[&str]) {
    let status = Command::new("git").args(words).current_dir(directory).status().unwrap();
    assert!(status.success(), "{words:?}");
}

/// Every file and directory below: name, mode, times, content.
pub(crate) fn fingerprint(tree: &Path) -> Vec<(String, u32, i64, i64, Vec<u8>)> {
    let mut all = Vec::new();
    let mut left = vec![tree.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let name = path.display().to_string();
        all.push((name, meta.mode(), meta.mtime_nsec(), meta.ctime_nsec(), content));
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    all.sort();
    all
}

/// The words of a bisection of all commits.
fn words(tree: &str, case: &str, qemu: &str) -> Vec<String> {
    let words = [
        "bisect", "--tree", tree, "--good", "c0", "--bad", "c9", "--case", case, "--qemu", qemu,
        "--accel", "tcg",
    ];
    words.map(str::to_owned).into()
}

fn refs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[test]
fn the_guilty_commit_is_found_and_the_clone_left_as_it_was() {
    let place = Place::new();
    let (tree, case) = (history(&place, &WORDS), place.file("case.yaml", CASE));
    let before = fingerprint(Path::new(&tree));
    let ended = place.run(&refs(&words(&tree, &case, &place.qemu(QemuScript::AsItsKernel))));
    ended.exits(0);
    for text in [
        "(\"reboots 7\") is the first bad commit",
        "hostile: crash",
        // Which of the two in the middle comes first is by their names.
        "step         skip ",
        "(does not b",
        "judged once more at the end, with the same result",
        "git bisect log:",
        "To find it again: ",
    ] {
        assert!(ended.stdout.contains(text), "no `{text}` in\n{}\n{}", ended.stdout, ended.stderr);
    }
    assert!(fingerprint(Path::new(&tree)) == before, "the user's clone is not as it was");
    let again = place.run(&["bisect", "--resume", "--format", "json"]);
    again.exits(0);
    assert_eq!(again.document()["conclusion"]["commit"]["subject"], "reboots 7");
    let mail = place.run(&["bisect", "--resume", "--format", "mail"]);
    assert!(mail.stdout.contains("\nSubject: [REGRESSION] "), "{mail:?}");
    // Kernels that were bad on the way are none of the history's.
    assert_eq!(place.run(&["history", "add"]).exits(0).stderr.matches("0 added").count(), 1);
    let records = place.path("runs/bisections").read_dir().unwrap().flatten();
    let records: Vec<_> = records.map(|entry| entry.path().join("runs")).collect();
    assert!(matches!(&records[..], [one] if one.is_dir()), "{records:?}");
}

#[test]
fn killed_and_gone_on_with_it_finds_the_same() {
    let place = Place::new();
    let (tree, case) = (history(&place, &WORDS), place.file("case.yaml", CASE));
    let before = fingerprint(Path::new(&tree));
    let words = words(&tree, &case, &place.qemu(QemuScript::AsItsKernel));
    // One line further each time, each of which tells of an answer or of what is about to be asked.
    for line in 1.. {
        let first = ["bisect", "--resume"];
        let words = if line == 1 { refs(&words) } else { first.to_vec() };
        let mut command = place.dmarig(&words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let seen = lines
            .filter(|line| line.starts_with("  ") || line.contains(": "))
            .take(2 + line)
            .count();
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        place.no_process_is_left();
        assert!(fingerprint(Path::new(&tree)) == before, "the user's clone is not as it was");
        if seen < 2 + line {
            let stdout = String::from_utf8_lossy(&output.stdout);
            assert!(stdout.contains("(\"reboots 7\") is the first bad commit"), "{stdout}");
            break;
        }
        assert!(line < 100, "it comes to no end");
    }
    place.run(&["bisect", "--resume"]).exits(0);
}

#[test]
fn trouble_of_the_host_blames_nobody() {
    let place = Place::new();
    let (tree, case) = (history(&place, &WORDS), place.file("case.yaml", CASE));
    let ended = place.run(&refs(&words(&tree, &case, &place.qemu(QemuScript::Dies))));
    ended.exits(3).says(&["is tried once more", "nothing is said of it; go on with --resume"]);
    // The ends, told at once.
    let qemu = place.qemu(QemuScript::AsItsKernel);
    let with = |good: &str, bad: &str| {
        place.run(&[
            "bisect", "--tree", &tree, "--good", good, "--bad", bad, "--case", &case, "--qemu",
            &qemu, "--accel", "tcg",
        ])
    };
    let ended = with("c7", "c9");
    ended.exits(2);
    assert!(ended.stdout.contains("is bad as well: give an older one"), "{ended:?}");
    let ended = with("c0", "c6");
    ended.exits(2);
    assert!(ended.stdout.contains("is good: there is nothing to look for"), "{ended:?}");
    let ended = with("c0", "c8");
    ended.exits(4);
    assert!(ended.stdout.contains("can't be judged: does not build"), "{ended:?}");
}

#[test]
fn wrong_words_are_told_before_anything_is_built() {
    let place = Place::new();
    let (tree, case) = (history(&place, &WORDS), place.file("case.yaml", CASE));
    let ends = ["bisect", "--tree", &tree, "--good", "c0", "--bad", "c9"];
    let step = ["bisect-step", "--rev", "c1"];
    for (words, told) in [
        (&["--tree", "/nonexistent", "--case", &*case][..], "/nonexistent"),
        (&["--tree", &tree, "--case", &case, "--qemu", "nope"], "no QEMU `nope`"),
    ] {
        place.run(&[&step[..], words].concat()).exits(129).says(&[told]);
    }
    for (more, told) in [
        (&["--case", "nope"][..], "no case file nope"),
        (&["--case", "smoke", "--cell", "nope"], "no cell is named `nope`"),
        (&["--case", "smoke", "--metric", "elapsed"], "a metric is judged by one cell, and 6"),
        (&["--case", &case, "--limit", "0", "--metric", "elapsed"], "--limit 0"),
        (&["--case", &case, "--error", "70"], "--error 70"),
        (&["--case", &case, "--qemu", "nope"], "no QEMU `nope`"),
        (&["--case", &case, "--config", "kasn"], "kasn"),
        (&["--case", &case, "--edit", "nope.yaml"], "nope.yaml"),
        (&["--case", &case, "--metric", "elapsed", "--pairs", "2"], "--metric elapsed: "),
        // Enough for one judgement, and not for its share of the error among all of them.
        (&["--case", &case, "--metric", "elapsed", "--pairs", "8"], "--metric elapsed: "),
        (&["--case", &case, "--metric", "score"], "score:lower or score:higher"),
        (&["--case", &case, "--metric", "elapsed:higher"], "the lower value is the better one"),
    ] {
        place.run(&[&ends[..], more].concat()).exits(2).says(&[told]);
    }
    for (good, bad, told) in
        [("c9", "c0", "swap them"), ("c1", "c1", "the same commit"), ("x", "c1", "no revision `x`")]
    {
        let words = ["bisect", "--tree", &tree, "--good", good, "--bad", bad, "--case", &case];
        place.run(&words).exits(2).says(&[told]);
    }
    let letters = place.path("letters").display().to_string();
    let git = |words: &[&str]| {
        let run = Command::new("git").arg("-C").arg(&letters).args(words).output();
        assert!(run.unwrap().status.success(), "{words:?}");
    };
    fs::create_dir(&letters).unwrap();
    git(&["init", "-q"]);
    for commit in ["a", "b"] {
        let who = ["-c", "user.name=n", "-c", "user.email=e@x"];
        git(&[&who[..], &["commit", "-q", "--allow-empty", "-m", commit]].concat());
    }
    let words =
        ["bisect", "--tree", &letters, "--good", "HEAD~1", "--bad", "HEAD", "--case", &case];
    place.run(&words).exits(2).says(&["there are no Kconfig and Makefile"]);
    // Nothing of all that was begun.
    place.run(&["bisect", "--resume"]).exits(2).says(&["there is no bisection"]);
    // It goes on as it was begun, and does not seem to do otherwise.
    place.run(&["bisect", "--resume", "--patience", "3"]).exits(2).says(&["--patience"]);
    place.run(&["bisect", "--resume", "--qemu=x"]).exits(2).says(&["--qemu can't be used"]);
}

/// A step's words, for a revision of the tree.
fn step<'a>(tree: &'a str, rev: &'a str, case: &'a str, qemu: &'a str) -> Vec<&'a str> {
    vec![
        "bisect-step",
        "--tree",
        tree,
        "--rev",
        rev,
        "--case",
        case,
        "--qemu",
        qemu,
        "--accel",
        "tcg",
    ]
}

#[test]
fn steps_speak_gits_language() {
    let place = Place::new();
    let (tree, case) = (history(&place, &WORDS), place.file("case.yaml", CASE));
    let qemu = place.qemu(QemuScript::AsItsKernel);
    for (rev, code, told) in [
        ("c0", 0, "good"),
        ("c7", 1, "bad\n  hostile: crash"),
        // One line without our paths.
        ("c2", 125, "skip: does not build: iommu.c:7:1: error: expected a semicolon\n"),
        ("c4", 125, "skip: does not boot: "),
    ] {
        let ended = place.run(&step(&tree, rev, &case, &qemu));
        ended.exits(code);
        assert!(ended.stdout.starts_with(told), "{ended:?}");
    }
    let dead = place.qemu(QemuScript::Dies);
    place.run(&step(&tree, "c0", &case, &dead)).exits(128).says(&["could not be judged"]);
    place.run(&step(&tree, "c0", &case, "no-such-qemu")).exits(129);
    place.run(&step(&tree, "c0", "nope", &qemu)).exits(129);
    place.run(&["bisect-step", "--nope"]).exits(129);
    place.run(&["bisect-step"]).exits(129).says(&["--case CELL"]);
    place.run(&["bisect-step", "--help"]).exits(0);
    // Neither the history nor `bisect --resume` takes a step for something of theirs.
    assert_eq!(place.run(&["history", "add"]).exits(0).stderr.matches("0 added").count(), 1);
    place.run(&["bisect", "--resume"]).exits(2).says(&["there is no bisection"]);
}

#[test]
fn git_bisect_run_finds_the_same() {
    let place = Place::new();
    let (tree, case) = (history(&place, &WORDS), place.file("case.yaml", CASE));
    let clone = place.path("clone");
    git(&place.path(""), &["clone", "-q", &tree, "clone"]);
    git(&clone, &["bisect", "start", "c9", "c0"]);
    let qemu = place.qemu(QemuScript::AsItsKernel);
    let mut command = Command::new("git");
    let dmarig = env!("CARGO_BIN_EXE_dmarig");
    command.args([
        "bisect",
        "run",
        dmarig,
        "bisect-step",
        "--case",
        &case,
        "--qemu",
        &qemu,
        "--accel",
        "tcg",
    ]);
    place.settle(&mut command);
    command.current_dir(&clone);
    let ended = place.start(command).wait();
    ended.exits(0);
    assert!(ended.stdout.contains("is the first bad commit"), "{ended:?}");
    assert!(ended.stdout.contains("reboots 7"), "{ended:?}");
    place.no_process_is_left();
}
