//! The history, as its commands show it.

use std::fs;

use dmarig_fake_qemu::QemuScript;
use dmarig_records::utc;
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
fn prints(ended: &Ended, texts: &[&str]) {
    for text in texts {
        assert!(ended.stdout.contains(text), "no `{text}` in\n{}", ended.stdout);
    }
}

fn strings<'a>(of: &'a [Value], field: &str) -> Vec<&'a str> {
    of.iter().map(|one| one[field].as_str().unwrap()).collect()
}

#[test]
fn adds_and_shows_runs() {
    let place = Place::new();
    let (id, reference) = run(&place);
    insta::assert_snapshot!("no_history", place.run_all(3, &[&["history", "list"]]));
    let add = [&["history", "add"][..], &["history", "add"], &["history", "add", "--rebuild"]];
    insta::assert_snapshot!("added_runs", place.run_all(0, &add));

    let listed = place.run(&["history", "list"]);
    prints(listed.exits(0), &[&id]);
    let document = place.run(&["history", "list", "--json"]).document();
    assert_eq!(document["runs"][0]["reference"], *reference);
    assert_eq!(document["runs"][0]["outcomes"]["passed"], 2);
    let shown = place.run(&["history", "show", "--json"]).document();
    let environment = &shown["cells"][0]["environment"];
    assert_eq!(environment["qemu_sha256"].as_str().unwrap().len(), 64, "{environment}");
    assert!(shown["run"]["rules"].as_str().unwrap().contains('+'), "{}", shown["run"]);
    prints(place.run(&["history", "show", &id]).exits(0), &["timed/"]);

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
    prints(place.run(&["history", "show", one]).exits(0), &[&id]);
    for (format, text) in [
        ("openmetrics", "# EOF"),
        ("influx", "dmarig,case=timed"),
        ("bencher", "elapsed-ns"),
        ("csv", &id),
    ] {
        let ended = place.run(&["history", "export", "--format", format]);
        prints(ended.exits(0), &[text]);
    }
}

#[test]
fn stores_comparisons_as_ratios_of_pairs() {
    let place = Place::new();
    let (case, kernel, qemu) =
        (place.file("case.yaml", TIMED), place.kernel(), place.qemu(QemuScript::Passes));
    let baseline = place.kernel_without("baseline", &[]);
    let words = ["compare", &kernel, &baseline, "--case", &case, "--qemu", &qemu, "--seed", "7"];
    place.run(&words).exits(0);
    assert_eq!(place.runs_added_to_the_history(), 1);
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
fn removes_old_records_that_are_in_the_history() {
    let place = Place::new();
    let (id, _) = run(&place);
    place.run(&["history", "gc", "--keep", "0"]).exits(3);
    place.run(&["history", "add"]).exits(0);
    let record = place.run_directory();
    place.run(&["history", "gc", "--keep", "1"]).exits(0);
    let dry = place.run(&["history", "gc", "--keep", "0", "--dry-run"]);
    prints(dry.exits(0), &[&id]);
    assert!(record.exists());
    let removed = place.run(&["history", "gc", "--keep", "0"]);
    prints(removed.exits(0), &[&id]);
    assert!(!record.exists());
    // It stays in the history, whatever is made again.
    place.run(&["history", "add", "--rebuild"]).exits(0);
    prints(place.run(&["history", "list"]).exits(0), &[&id]);
}

#[test]
fn merges_histories() {
    let place = Place::new();
    let (id, _) = run(&place);
    let theirs = place.path("theirs.sqlite").display().to_string();
    place.run(&["history", "--history", &theirs, "add"]).exits(0);
    let runs = place.path("runs").display().to_string();
    let merges = [
        &["history", "merge", &theirs][..],
        &["history", "merge", &theirs],
        &["history", "merge", &runs],
    ];
    insta::assert_snapshot!("merged_histories", place.run_all(0, &merges));
    prints(place.run(&["history", "list"]).exits(0), &[&id]);
    // A record of a newer dmarig is named, and the others go in.
    let newer = place.path("runs/newer");
    fs::create_dir(&newer).unwrap();
    fs::write(newer.join("run.json"), "{\"schema\": 99}").unwrap();
    fs::write(newer.join("cells.jsonl"), "").unwrap();
    insta::assert_snapshot!("newer_record", place.run_all(3, &[&["history", "add"]]));
}

#[test]
fn merges_others_despite_unreadable_history() {
    let place = Place::new();
    let (id, _) = run(&place);
    let theirs = place.path("theirs.sqlite").display().to_string();
    place.run(&["history", "--history", &theirs, "add"]).exits(0);
    let empty = place.path("empty").display().to_string();
    fs::create_dir(&empty).unwrap();
    let merge = ["history", "merge", &empty, "nowhere", &theirs, &empty];
    insta::assert_snapshot!("partly_merged_histories", place.run_all(3, &[&merge]));
    prints(place.run(&["history", "list"]).exits(0), &[&id]);
    place.run(&["history", "merge", &empty, &theirs]).exits(2);
}

#[test]
fn shows_and_sets_alerts() {
    let place = Place::new();
    let file = dmarig_demo::write_history(&place.path("demo"), 3).unwrap().display().to_string();
    let alerts = |words: &[&str]| place.run(&[&["alerts", "--history", &file], words].concat());
    alerts(&["--check"]).exits(1);
    place.run(&["history", "list", "--history", &file]).exits(0);
    let document = alerts(&["--json"]).document();
    let all = document["alerts"].as_array().unwrap();
    let new: Vec<Value> = all
        .iter()
        .filter(|alert| alert["state"] == "new" && alert["what"]["worse"] != false)
        .cloned()
        .collect();
    assert_eq!(document["new"], new.len());
    for id in strings(&new, "id") {
        alerts(&["set", id, "confirmed", "--note", "se\u{9b}en", "--author", "me"]).exits(0);
    }
    prints(alerts(&["--check"]).exits(0), &["se\\u{9b}en, me"]);
    // Builds of one tree have one release.
    let ends = new.iter().flat_map(|alert| [&alert["last_good"], &alert["first_bad"]]);
    let builds: Vec<&str> = ends.map(|end| end["kernel"].as_str().unwrap()).collect();
    prints(&alerts(&[]), &builds);
    alerts(&["set", "zzz", "fixed"]).exits(2);
}

#[test]
fn alerts_on_cell_until_it_passes() {
    let place = Place::new();
    let run = |script: QemuScript| {
        let (case, kernel, qemu) =
            (place.file("case.yaml", TIMED), place.kernel(), place.qemu(script));
        place.run(&["run", &case, "--kernel", &kernel, "--qemu", &qemu]);
        place.run(&["history", "add"]).exits(0);
    };
    let alerts = |words: &[&str]| place.run(&[&["alerts"], words].concat());
    run(QemuScript::PanicsInColour);
    alerts(&["--check"]).exits(1);
    let document = alerts(&["--json"]).document();
    assert_eq!((&document["new"], document["alerts"].as_array().unwrap().len()), (&1.into(), 1));
    let id = strings(document["alerts"].as_array().unwrap(), "id")[0].to_owned();
    alerts(&["set", &id, "confirmed"]).exits(0);
    run(QemuScript::Passes);
    let document = alerts(&["--json"]).document();
    let until = document["alerts"][0]["until"]["started"].as_i64().unwrap();
    assert_eq!(
        (&document["new"], &document["alerts"][0]["state"]),
        (&0.into(), &"confirmed".into())
    );
    prints(alerts(&["--check"]).exits(0), &[&utc(until)]);
}

#[test]
fn rejects_invalid_options() {
    let place = Place::new();
    let before = [
        &["history", "gc"][..],
        &["history", "gc", "--max-size", "5GB"],
        &["history", "add", "nope"],
    ];
    insta::assert_snapshot!("rejected_without_a_history", place.run_all(2, &before));
    place.run(&["history", "add"]).exits(0);
    let after = [
        &["history", "show"][..],
        &["history", "show", "nope"],
        &["history", "export", "--format", "csv", "--run", "nope"],
    ];
    insta::assert_snapshot!("rejected_in_an_empty_history", place.run_all(2, &after));
    place.file("text", "no database, but long enough to be read as one");
    let unreadable = [
        &["history", "merge", "nowhere"][..],
        &["history", "list", "--history", "text"],
        &["alerts", "--history", "nowhere"],
    ];
    insta::assert_snapshot!("unreadable_histories", place.run_all(3, &unreadable));
}
