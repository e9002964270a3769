//! Results as they are told, judged again, and seen again by hand.

use std::process::{Command, Stdio};

use dmarig_fake_qemu::QemuScript;
use dmarig_model::document::Document;
use quick_junit::Report;

use crate::place::{CASE, Place, REAL_KERNEL};

#[test]
fn ignores_closed_standard_output() {
    let place = Place::new();
    for words in
        [&["cells", "full"][..], &["images", "list"], &["schema", "case"], &["kernel", "config"]]
    {
        let mut dmarig = place.dmarig(words);
        let mut child = dmarig.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success(), "{words:?}: {ended:?}");
    }
}

#[test]
fn judges_record_as_the_run_did() {
    let place = Place::new();
    let (case, kernel, junit) =
        (place.file("case.yaml", CASE), place.kernel(), place.path("junit.xml"));
    let junit = junit.display().to_string();
    let old = place.qemu(QemuScript::IsOld);
    let scripts =
        [QemuScript::Passes, QemuScript::Dies, QemuScript::PanicsInColour, QemuScript::IsOld];
    let mut words = vec!["run", &case, "--kernel", &kernel, "--format", "json", "--junit", &junit];
    let qemus = scripts.map(|script| place.qemu(script));
    qemus.iter().for_each(|qemu| words.extend(["--qemu", qemu]));
    let ended = place.run(&words);
    ended.exits(1);

    let again = place.run(&["judge", "last", "--format", "json"]);
    again.exits(1);
    // Cells stand in a record in the order in which they ended.
    let sorted = |mut cells: Vec<serde_json::Value>| {
        cells.sort_by_key(|cell| cell["id"].to_string());
        cells
    };
    assert_eq!(sorted(again.cells()), sorted(ended.cells()));
    assert_eq!(again.document()["run"], ended.document()["run"]);
    let version = ended.document()["dmarig"].as_str().unwrap().to_owned();
    assert!(version.starts_with("0."), "{version}");
    assert_eq!(again.document()["dmarig"], *version);
    place.run(&["judge"]).exits(1);
    let mut outcomes: Vec<_> =
        again.cells().iter().map(|cell| cell["outcome"].to_string()).collect();
    outcomes.sort();
    assert_eq!(
        outcomes,
        ["errored", "failed", "passed", "skipped"].map(|name| format!("{name:?}"))
    );

    // The published schema is that of this type: `schema.rs` of the model sees to that.
    let document: Document = serde_json::from_value(ended.document()).unwrap();
    assert_eq!(serde_json::to_value(&document).unwrap(), ended.document());
    assert_eq!(document.schema, 1);
    assert_eq!(ended.cell("qemu", &old)["outcome"], "skipped");

    let report = std::fs::read_to_string(&junit).unwrap();
    let report =
        Report::deserialize_from_str(&report).unwrap_or_else(|error| panic!("{error}\n{report}"));
    assert_eq!((report.tests, report.failures, report.errors), (4, 1, 1));
}

/// The shell's words that stand behind a comment of `dmarig plan`, up to an empty line.
fn command_below<'a>(plan: &'a str, comment: &str) -> &'a str {
    let (_, rest) = plan.split_once(comment).unwrap_or_else(|| panic!("no `{comment}` in {plan}"));
    let (_, rest) = rest.split_once('\n').unwrap();
    rest.split("\n\n").next().unwrap()
}

#[test]
fn plans_the_arguments_that_run_uses() {
    let place = Place::new();
    let (case, kernel, qemu) =
        (place.file("case.yaml", CASE), place.kernel(), place.qemu(QemuScript::Passes));
    let options = ["--kernel", &kernel, "--qemu", &qemu, "--append", "quiet x='a b'"];
    let ended = place.run(&[&["run", &case, "--format", "json"], &options[..]].concat());
    ended.exits(0);
    let id = ended.cells()[0]["id"].as_str().unwrap().to_owned();
    let plan = place.run(&[&["plan", &id, "--case", &case], &options[..]].concat());
    plan.exits(0);
    // The shell itself is to find the words again.
    let words =
        format!("printf '%s\\n' {}", command_below(&plan.stdout, "# what `dmarig run` starts"));
    let output = Command::new("sh").args(["-c", &words]).output().unwrap();
    let planned: Vec<String> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    let argv = place.record()[0]["observation"]["setup"]["argv"].clone();
    assert_eq!(serde_json::to_value(planned).unwrap(), argv);
}

#[test]
fn runs_by_printed_commands_in_a_guest() {
    let place = Place::real();
    let options = ["--kernel", REAL_KERNEL, "--accel", "tcg"];
    let cell = "smoke/*caching-mode=on,policy=strict*";
    let plan = place.run(&[&["plan", cell, "--case", "smoke"], &options[..]].concat());
    plan.exits(0);
    let mut command = Command::new("sh");
    command.args(["-e", "-c", command_below(&plan.stdout, "# by hand")]);
    place.settle(&mut command);
    std::fs::create_dir(place.path("by-hand")).unwrap();
    command.current_dir(place.path("by-hand"));
    let ended = place.start(command).wait();
    ended.exits(0);
    for text in
        ["command line: ", "iommu.strict=1", "400 operations", "0 errors, 0 lost, 0 corrupt"]
    {
        assert!(ended.stdout.contains(text), "no `{text}` in\n{}", ended.stdout);
    }
    place.nothing_is_left();
}
