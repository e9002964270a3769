//! `dmarig runs`, and names that are nearly right.

use dmarig_fake_qemu::QemuScript;
use rstest::rstest;

use crate::place::{CASE, Place};

#[test]
fn lists_recorded_runs_newest_first() {
    let place = Place::new();
    let (case, kernel) = (place.file("case.yaml", CASE), place.kernel());
    for (script, code) in [(QemuScript::Passes, 0), (QemuScript::Dies, 3)] {
        let qemu = place.qemu(script);
        place.run(&["run", &case, "--kernel", &kernel, "--qemu", &qemu]).exits(code);
    }
    place.file("runs/20200102T030405.000000Z-abcdef/run.json", "no JSON");
    place.file("runs/20200102T030405.000000Z-abcdef/cells.jsonl", "");

    let listed = place.run(&["runs"]);
    listed.exits(0);
    // Widths of columns depend on the length of the directory's name.
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = place.redact(&listed.stdout).lines().map(words).collect();
    insta::assert_snapshot!("recorded_runs", lines.join("\n"));

    let document = place.run(&["runs", "--json", "-n", "2"]).document();
    let runs = document["runs"].as_array().unwrap();
    let outcomes: Vec<_> = runs.iter().map(|run| run["outcomes"].to_string()).collect();
    assert_eq!(outcomes, [r#"{"errored":1}"#, r#"{"passed":1}"#]);
}

#[test]
fn lists_no_runs_where_none_are_recorded() {
    let listed = Place::new().run(&["runs"]);
    listed.exits(0);
    assert_eq!(listed.stdout, "");
}

#[rstest]
#[case::case(&["run", "smoek"])]
#[case::kernel(&["run", "--kernel", "debian-6.21"])]
#[case::qemu(&["run", "--qemu", "qemu-11.2"])]
#[case::cell(&["run", "--cell", "smoke/caching-mode=on,policy=lasy"])]
fn suggests_the_nearest_name_before_anything_runs(#[case] words: &[&str]) {
    let place = Place::new();
    let ended = place.run(words);
    ended.exits(2);
    assert!(!place.path("runs").read_dir().unwrap().any(|_| true), "nothing is recorded");
    insta::allow_duplicates! {
        let name = format!("nearest_{}", words[1].trim_start_matches("--"));
        insta::assert_snapshot!(name, place.redact(&ended.stderr));
    }
}
