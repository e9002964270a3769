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
fn finds_first_bad_commit_and_leaves_clone_unchanged() {
    let place = Place::new();
    let (tree, case) = (history(&place, &WORDS), place.file("case.yaml", CASE));
    let before = fingerprint(Path::new(&tree));
    let ended = place.run(&refs(&words(&tree, &case, &place.qemu(QemuScript::AsItsKernel))));
    ended.exits(0);
    insta::assert_snapshot!("bisection", place.redact(&ended.stdout));
    assert!(fingerprint(Path::new(&tree)) == before, "the user's clone is not as it was");
    let again = place.run(&["bisect", "--resume", "--format", "json"]);
    again.exits(0);
    assert_eq!(again.document()["conclusion"]["commit"]["subject"], "reboots 7");
    let mail = place.run(&["bisect", "--resume", "--format", "mail"]);
    mail.exits(0);
    insta::assert_snapshot!("bisection_as_mail", place.redact(&mail.stdout));
    // Kernels that were bad on the way are none of the history's.
    assert_eq!(place.runs_added_to_the_history(), 0);
    let records = place.path("runs/bisections").read_dir().unwrap().flatten();
    let records: Vec<_> = records.map(|entry| entry.path().join("runs")).collect();
    assert!(matches!(&records[..], [one] if one.is_dir()), "{records:?}");
}

#[test]
fn resumes_after_kill() {
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
            assert!(output.status.success(), "{output:?}");
            break;
        }
        assert!(line < 100, "it comes to no end");
    }
    let ended = place.run(&["bisect", "--resume", "--format", "json"]);
    assert_eq!(ended.exits(0).document()["conclusion"]["commit"]["subject"], "reboots 7");
}

#[test]
fn blames_no_commit_for_host_faults() {
    let place = Place::new();
    let (tree, case) = (history(&place, &WORDS), place.file("case.yaml", CASE));
    let ended = place.run(&refs(&words(&tree, &case, &place.qemu(QemuScript::Dies))));
    ended.exits(3);
    let message = ended.stderr.lines().last().unwrap_or_default();
    insta::assert_snapshot!("qemu_that_dies", place.redact(message));
    // Both ends are judged first.
    let qemu = place.qemu(QemuScript::AsItsKernel);
    let with = |good: &str, bad: &str| {
        place.run(&[
            "bisect", "--tree", &tree, "--good", good, "--bad", bad, "--case", &case, "--qemu",
            &qemu, "--accel", "tcg",
        ])
    };
    let ends = [(2, with("c7", "c9")), (2, with("c0", "c6")), (4, with("c0", "c8"))];
    for (code, ended) in &ends {
        ended.exits(*code);
    }
    let printed: Vec<&str> = ends.iter().map(|(_, ended)| ended.stdout.as_str()).collect();
    insta::assert_snapshot!("ends_that_are_no_ends", place.redact(&printed.join("\n")));
}

#[test]
fn rejects_invalid_options_before_building() {
    let place = Place::new();
    let (tree, case) = (history(&place, &WORDS), place.file("case.yaml", CASE));
    let ends = ["bisect", "--tree", &tree, "--good", "c0", "--bad", "c9"];
    let step = ["bisect-step", "--rev", "c1"];
    let steps = [
        [&step[..], &["--tree", "/nonexistent", "--case", &case]].concat(),
        [&step[..], &["--tree", &tree, "--case", &case, "--qemu", "nope"]].concat(),
    ];
    let steps: Vec<&[&str]> = steps.iter().map(Vec::as_slice).collect();
    insta::assert_snapshot!("rejected_steps", place.run_all(129, &steps));
    let more = [
        &["--case", "nope"][..],
        &["--case", "smoke", "--cell", "nope"],
        &["--case", "smoke", "--metric", "elapsed"],
        &["--case", &case, "--limit", "0", "--metric", "elapsed"],
        &["--case", &case, "--error", "70"],
        &["--case", &case, "--qemu", "nope"],
        &["--case", &case, "--config", "kasn"],
        &["--case", &case, "--edit", "nope.yaml"],
        &["--case", &case, "--metric", "elapsed", "--pairs", "2"],
        // Enough for one judgement, and not for its share of the error among all of them.
        &["--case", &case, "--metric", "elapsed", "--pairs", "8"],
        &["--case", &case, "--metric", "score"],
        &["--case", &case, "--metric", "elapsed:higher"],
    ];
    let bisections: Vec<_> = more.iter().map(|more| [&ends[..], more].concat()).collect();
    let bisections: Vec<&[&str]> = bisections.iter().map(Vec::as_slice).collect();
    insta::assert_snapshot!("rejected_options", place.run_all(2, &bisections));
    let bisections = [("c9", "c0"), ("c1", "c1"), ("x", "c1")].map(|(good, bad)| {
        ["bisect", "--tree", &tree, "--good", good, "--bad", bad, "--case", &case]
    });
    let bisections = bisections.each_ref().map(|words| &words[..]);
    insta::assert_snapshot!("rejected_ends", place.run_all(2, &bisections));
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
    let rejected = [
        &words[..],
        // Nothing of all that was begun.
        &["bisect", "--resume"],
        // A bisection goes on with the options that it was begun with.
        &["bisect", "--resume", "--patience", "3"],
        &["bisect", "--resume", "--qemu=x"],
    ];
    insta::assert_snapshot!("rejected_trees_and_resumptions", place.run_all(2, &rejected));
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
fn exits_with_codes_of_git_bisect_run() {
    let place = Place::new();
    let (tree, case) = (history(&place, &WORDS), place.file("case.yaml", CASE));
    let qemu = place.qemu(QemuScript::AsItsKernel);
    let steps = [("c0", 0), ("c7", 1), ("c2", 125), ("c4", 125)].map(|(rev, code)| {
        let ended = place.run(&step(&tree, rev, &case, &qemu));
        ended.exits(code);
        format!("{rev}: {}", ended.stdout)
    });
    insta::assert_snapshot!("steps", place.redact(&steps.concat()));
    let dead = place.qemu(QemuScript::Dies);
    place.run(&step(&tree, "c0", &case, &dead)).exits(128);
    place.run(&step(&tree, "c0", &case, "no-such-qemu")).exits(129);
    place.run(&step(&tree, "c0", "nope", &qemu)).exits(129);
    place.run(&["bisect-step", "--nope"]).exits(129);
    place.run(&["bisect-step"]).exits(129);
    place.run(&["bisect-step", "--help"]).exits(0);
    // Neither the history nor `bisect --resume` takes a step for something of theirs.
    assert_eq!(place.runs_added_to_the_history(), 0);
    place.run(&["bisect", "--resume"]).exits(2);
}

#[test]
fn finds_same_commit_under_git_bisect_run() {
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
    // Git's words.
    assert!(ended.stdout.contains("is the first bad commit"), "{ended:?}");
    assert!(ended.stdout.contains("reboots 7"), "{ended:?}");
    place.no_process_is_left();
}
