//! The history, as its commands show it.

use std::fs;

use dmarig_fake_qemu::QemuScript;
use dmarig_history::utc;
use serde_json::Value;

use crate::place::{Ended, Place};

const TIMED: &str = "\
case: timed
axes: {policy: strict}
workload: {block: {ops: 64}}
windows: {time: 3}
";

/// A run of two kernels, of which one is the reference.
fn run(place: &Place) -> (String, String) {
    let (case, kernel, qemu) =
        (place.file("case.yaml", TIMED), place.kernel(), place.qemu(QemuScript::Passes));
    let reference = place.kernel_without("reference", &[]);
    let words = ["run", &case, "--format", "json", "--kernel", &kernel, "--qemu", &qemu];
    let ended = place.run(&[&words[..], &["--reference", &reference]].concat());
    ended.exits(0);
    assert_eq!(ended.cells().len(), 2, "the reference is run besides");
    (ended.document()["run"].as_str().unwrap().to_owned(), reference)
}

#[track_caller]
fn tells(ended: &Ended, texts: &[&str]) {
    for text in texts {
        assert!(ended.stdout.contains(text), "no `{text}` in\n{}", ended.stdout);
    }
}

fn strings<'a>(of: &'a [Value], field: &str) -> Vec<&'a str> {
    of.iter().map(|one| one[field].as_str().unwrap()).collect()
}

#[test]
fn runs_go_in_and_are_told() {
    let place = Place::new();
    let (id, reference) = run(&place);
    place.run(&["history", "list"]).exits(3).says(&["there is no history", "history add"]);
    place.run(&["history", "add"]).exits(0).says(&["1 added"]);
    place.run(&["history", "add"]).exits(0).says(&["0 added, 1 known"]);
    place.run(&["history", "add", "--rebuild"]).exits(0).says(&["1 known"]);

    let listed = place.run(&["history", "list"]);
    tells(listed.exits(0), &[&id, "2 passed", "1 of 1 runs"]);
    let document = place.run(&["history", "list", "--json"]).document();
    assert_eq!(document["runs"][0]["reference"], *reference);
    assert_eq!(document["runs"][0]["outcomes"]["passed"], 2);
    let shown = place.run(&["history", "show", "--json"]).document();
    let environment = &shown["cells"][0]["environment"];
    assert_eq!(environment["qemu_sha256"].as_str().unwrap().len(), 64, "{environment}");
    assert!(shown["run"]["rules"].as_str().unwrap().contains('+'), "{}", shown["run"]);
    tells(place.run(&["history", "show", &id]).exits(0), &["timed/", "passed", "accelerator"]);

    let ratios = place.run(&["history", "series", "--ratios", "--metric", "elapsed", "--json"]);
    let ratios = ratios.document()["series"].as_array().unwrap().clone();
    assert_eq!(ratios.len(), 1);
    assert!(ratios[0]["key"]["reference"].as_str().unwrap().starts_with(&reference));
    let series = place.run(&["history", "series", "--metric", "elapsed", "--json"]).document();
    let plain = series["series"].as_array().unwrap().clone();
    assert_eq!(plain.len(), 3);
    let one = strings(&plain, "id")[0];
    let points = place.run(&["history", "show", one, "--json"]).document();
    assert_eq!(points["samples"].as_array().unwrap().len(), 3);
    tells(place.run(&["history", "show", one]).exits(0), &[&id]);
    for (format, text) in [
        ("openmetrics", "# EOF"),
        ("influx", "dmarig,case=timed"),
        ("bencher", "elapsed-ns"),
        ("csv", &id),
    ] {
        let ended = place.run(&["history", "export", "--format", format]);
        tells(ended.exits(0), &[text]);
    }
}

#[test]
fn comparisons_are_ratios_of_pairs() {
    let place = Place::new();
    let (case, kernel, qemu) =
        (place.file("case.yaml", TIMED), place.kernel(), place.qemu(QemuScript::Passes));
    let baseline = place.kernel_without("baseline", &[]);
    let words = ["compare", &kernel, &baseline, "--case", &case, "--qemu", &qemu, "--seed", "7"];
    place.run(&words).exits(0);
    place.run(&["history", "add"]).exits(0).says(&["1 added"]);
    let ratios = place.run(&["history", "series", "--ratios", "--metric", "elapsed", "--json"]);
    let ratios = ratios.document()["series"].as_array().unwrap().clone();
    assert_eq!(ratios.len(), 1, "{ratios:?}");
    assert!(ratios[0]["key"]["reference"].as_str().unwrap().starts_with(&baseline));
    let shown = place.run(&["history", "show", strings(&ratios, "id")[0], "--json"]).document();
    let samples = shown["samples"].as_array().unwrap().iter();
    let pairs: Vec<u64> =
        samples.map(|sample| sample["sample"]["pair"].as_u64().unwrap()).collect();
    assert!(pairs.len() >= 8 && pairs.is_sorted(), "{pairs:?}");
}

#[test]
fn old_records_go_when_they_are_in() {
    let place = Place::new();
    let (id, _) = run(&place);
    place.run(&["history", "gc", "--keep", "0"]).exits(3);
    place.run(&["history", "add"]).exits(0);
    let record = place.run_directory();
    tells(place.run(&["history", "gc", "--keep", "1"]).exits(0), &["0 removed", "1 kept"]);
    let dry = place.run(&["history", "gc", "--keep", "0", "--dry-run"]);
    tells(dry.exits(0), &[&id, "would be removed"]);
    assert!(record.exists());
    let removed = place.run(&["history", "gc", "--keep", "0"]);
    removed.exits(0).says(&["runs without a record here: 1"]);
    tells(&removed, &[&id, "1 removed"]);
    assert!(!record.exists());
    // It stays in the history, whatever is made again.
    place.run(&["history", "add", "--rebuild"]).exits(0);
    tells(place.run(&["history", "list"]).exits(0), &[&id]);
}

#[test]
fn histories_of_machines_come_together() {
    let place = Place::new();
    let (id, _) = run(&place);
    let theirs = place.path("theirs.sqlite").display().to_string();
    place.run(&["history", "--history", &theirs, "add"]).exits(0).says(&["1 added"]);
    place.run(&["history", "merge", &theirs]).exits(0).says(&["1 runs added"]);
    place.run(&["history", "merge", &theirs]).exits(0).says(&["1 known"]);
    let runs = place.path("runs").display().to_string();
    place.run(&["history", "merge", &runs]).exits(0).says(&["0 added, 1 known"]);
    tells(place.run(&["history", "list"]).exits(0), &[&id]);
    // A record of a newer dmarig is told by its name, and the others go in.
    let newer = place.path("runs/newer");
    fs::create_dir(&newer).unwrap();
    fs::write(newer.join("run.json"), "{\"schema\": 2}").unwrap();
    fs::write(newer.join("cells.jsonl"), "").unwrap();
    let ended = place.run(&["history", "add"]);
    ended.exits(3).says(&["runs/newer/run.json has record version 2", "1 known"]);
}

#[test]
fn one_that_can_not_be_merged_keeps_no_other_out() {
    let place = Place::new();
    let (id, _) = run(&place);
    let theirs = place.path("theirs.sqlite").display().to_string();
    place.run(&["history", "--history", &theirs, "add"]).exits(0);
    let empty = place.path("empty").display().to_string();
    fs::create_dir(&empty).unwrap();
    let ended = place.run(&["history", "merge", &empty, "nowhere", &theirs, &empty]);
    ended.exits(3).says(&["there is no run in", "no history at nowhere", "1 runs added"]);
    tells(place.run(&["history", "list"]).exits(0), &[&id]);
    place.run(&["history", "merge", &empty, &theirs]).exits(2).says(&["1 known"]);
}

#[test]
fn alerts_are_told_and_set() {
    let place = Place::new();
    let out = place.path("demo").display().to_string();
    place.run(&["demo-history", "--seed", "3", "--out", &out]).exits(0).says(&["made up"]);
    place.run(&["demo-history", "--seed", "3", "--out", &out]).exits(2).says(&["is there already"]);
    let file = place.path("demo/history.sqlite").display().to_string();
    let alerts = |words: &[&str]| place.run(&[&["alerts", "--history", &file], words].concat());
    tells(alerts(&["--check"]).exits(1), &["MADE UP", "mainline", "new"]);
    tells(place.run(&["history", "list", "--history", &file]).exits(0), &["MADE UP"]);
    let document = alerts(&["--json"]).document();
    let all = document["alerts"].as_array().unwrap();
    let new: Vec<Value> = all
        .iter()
        .filter(|alert| alert["state"] == "new" && alert["what"]["worse"] != false)
        .cloned()
        .collect();
    assert_eq!(document["new"], new.len());
    for id in strings(&new, "id") {
        alerts(&["set", id, "confirmed", "--note", "se\u{9b}en", "--author", "me"])
            .exits(0)
            .says(&["is confirmed"]);
    }
    tells(alerts(&["--check"]).exits(0), &["0 new", "confirmed", "se\\u{9b}en, me"]);
    // Builds of one tree have one release.
    let ends = new.iter().flat_map(|alert| [&alert["last_good"], &alert["first_bad"]]);
    let builds: Vec<&str> = ends.map(|end| end["kernel"].as_str().unwrap()).collect();
    tells(&alerts(&[]), &builds);
    alerts(&["set", "zzz", "fixed"]).exits(2).says(&["no alert whose id begins with `zzz`"]);
}

#[test]
fn a_cell_that_never_passed_is_an_alert_until_it_does() {
    let place = Place::new();
    let run = |script: QemuScript| {
        let (case, kernel, qemu) =
            (place.file("case.yaml", TIMED), place.kernel(), place.qemu(script));
        place.run(&["run", &case, "--kernel", &kernel, "--qemu", &qemu]);
        place.run(&["history", "add"]).exits(0);
    };
    let alerts = |words: &[&str]| place.run(&[&["alerts"], words].concat());
    run(QemuScript::PanicsInColour);
    tells(alerts(&["--check"]).exits(1), &["never passed", "1 new, 1 shown"]);
    let document = alerts(&["--json"]).document();
    let id = strings(document["alerts"].as_array().unwrap(), "id")[0].to_owned();
    alerts(&["set", &id, "confirmed"]).exits(0);
    run(QemuScript::Passes);
    let document = alerts(&["--json"]).document();
    let until = document["alerts"][0]["until"]["started"].as_i64().unwrap();
    tells(alerts(&["--check"]).exits(0), &[&utc(until), "confirmed", "0 new, 1 shown"]);
}

#[test]
fn wrong_words_are_told() {
    let place = Place::new();
    place.run(&["history", "gc"]).exits(2).says(&["say what to keep"]);
    place.run(&["history", "gc", "--max-size", "5GB"]).exits(2).says(&["it takes KiB"]);
    place.run(&["history", "add", "nope"]).exits(2).says(&["there is no run `nope`"]);
    place.run(&["history", "add"]).exits(0).says(&["0 added"]);
    place.run(&["history", "show"]).exits(2).says(&["is empty"]);
    place.run(&["history", "show", "nope"]).exits(2).says(&["neither a run nor a series `nope`"]);
    place
        .run(&["history", "export", "--format", "csv", "--run", "nope"])
        .exits(2)
        .says(&["no run `nope`"]);
    place.run(&["history", "merge", "nowhere"]).exits(3).says(&["there is no history at nowhere"]);
    place.file("text", "no database, but long enough to be read as one");
    place.run(&["history", "list", "--history", "text"]).exits(3).says(&["move it away"]);
    place.run(&["alerts", "--history", "nowhere"]).exits(3).says(&["there is no history"]);
}
