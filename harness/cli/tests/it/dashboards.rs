//! The dashboard of recorded runs: written, and served while more of them come.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use dmarig_fake_qemu::QemuScript;
use rustix::process::{Pid, Signal, kill_process};

use crate::place::{CASE, Place};

/// How long the server may take for anything.
const STUCK: Duration = Duration::from_secs(60);

/// dmarig with a state of its own, where the history is kept.
fn dmarig(place: &Place, words: &[&str]) -> Command {
    let mut command = place.dmarig(words);
    command.env("XDG_STATE_HOME", place.path("state")).env_remove("DMARIG_HISTORY");
    command
}

/// A case and a kernel.
fn subject(place: &Place) -> [String; 2] {
    [place.file("case.yaml", CASE), place.kernel()]
}

fn run(place: &Place, script: QemuScript) {
    run_in(place, "runs", script);
}

/// Records a run in this directory.
fn run_in(place: &Place, runs: &str, script: QemuScript) {
    let [case, kernel] = subject(place);
    let qemu = place.qemu(script);
    // Beside a server, which is not left but goes on.
    let words = ["run", &case, "--kernel", &kernel, "--qemu", &qemu, "--runs", runs];
    place.start(place.dmarig(&words)).wait();
}

/// A server, which ends with the test that started it.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All pages of a directory of the site.
fn pages(place: &Place, directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir(place.path(directory)).unwrap().flatten();
    entries.map(|entry| std::fs::read_to_string(entry.path()).unwrap()).collect()
}

#[test]
fn writes_site_of_recorded_runs() {
    let place = Place::new();
    run(&place, QemuScript::Passes);
    run(&place, QemuScript::PanicsInColour);
    let site = place.path("site").display().to_string();
    let write = || place.start(dmarig(&place, &["dashboard", "--out", &site])).wait();
    let ended = write();
    ended.exits(0);
    assert_eq!(ended.stdout.trim(), format!("{site}/index.html"));
    let first = std::fs::read_to_string(place.path("site/index.html")).unwrap();
    assert!(!first.contains("Synthetic"), "{first}");
    let runs = pages(&place, "site/runs");
    assert_eq!(runs.len(), 2);
    let panicked: Vec<&String> =
        runs.iter().filter(|page| page.contains("fake-qemu-panics-in-colour")).collect();
    let [page] = panicked.as_slice() else { panic!("{runs:?}") };
    assert!(page.contains("--cell") && !page.contains('\u{1b}'), "{page}");
    assert!(!pages(&place, "site/series").is_empty());

    // Again, with one more; and nothing that was there before is in the way.
    let ([case, kernel], qemu) = (subject(&place), place.qemu(QemuScript::Panics));
    let mut command = place.dmarig(&["run", &case, "--kernel", &kernel]);
    command.env("DMARIG_QEMU", &qemu);
    place.start(command).wait();
    write().exits(0);
    let runs = pages(&place, "site/runs");
    assert_eq!(runs.len(), 3);
    // The command to see it again has the QEMU that the environment named.
    let again = format!("--qemu {qemu}</code>");
    let with_qemu = runs.iter().filter(|page| page.contains(&again)).count();
    assert_eq!(with_qemu, 1, "pages with {again}");

    // Of older runs nothing beside the history is read, and their pages say so.
    for run in std::fs::read_dir(place.path("runs")).unwrap().flatten() {
        std::fs::write(run.path().join("history.json"), "{").unwrap();
    }
    let with = |part: &str| {
        let runs = pages(&place, "site/runs");
        runs.iter().filter(|page| page.contains(part)).count()
    };
    write().exits(0);
    assert_eq!((with("history.json, line 1"), with("--detailed")), (3, 0));
    let words = ["dashboard", "--out", &site, "--detailed", "1"];
    place.start(dmarig(&place, &words)).wait().exits(0);
    assert_eq!((with("history.json, line 1"), with("--detailed")), (1, 2));
    histories_of_others_are_shown_as_they_are(&place);
}

/// Whose history it is decides what is put into it.
fn histories_of_others_are_shown_as_they_are(place: &Place) {
    let runs = |file: &str| {
        let words = ["history", "--history", file, "list", "--all", "--json"];
        let ended = place.start(place.dmarig(&words)).wait();
        ended.exits(0);
        ended.document()["runs"].as_array().unwrap().len()
    };
    let show = |words: &[&str]| {
        let words = [&["dashboard", "--out", "other"], words].concat();
        place.start(place.dmarig(&words)).wait().exits(0);
    };
    // What was recorded here stays out of another machine's, and goes into a new one and into its own.
    show(&["--history", "new.sqlite"]);
    assert_eq!(runs("new.sqlite"), 3);
    run_in(place, "theirs", QemuScript::Passes);
    show(&["--history", "new.sqlite", "--runs", "theirs"]);
    assert_eq!(runs("new.sqlite"), 3);
    run(place, QemuScript::Passes);
    show(&["--history", "new.sqlite", "--no-add"]);
    assert_eq!(runs("new.sqlite"), 3);
    show(&["--history", "new.sqlite"]);
    assert_eq!(runs("new.sqlite"), 4);
}

#[test]
fn rejects_invalid_destinations() {
    let place = Place::new();
    let mine = place.file("mine/thesis.txt", "");
    let mine = mine.strip_suffix("/thesis.txt").unwrap();
    let rejected = [
        &["dashboard", "--out", mine][..],
        &["dashboard", "--out", "site", "--no-add", "--history", "nothing.sqlite"],
        &["dashboard"],
        &["dashboard", "--serve", "0.0.0.0:0"],
        &["dashboard", "--serve", "somewhere"],
    ]
    .map(|arguments| place.start(dmarig(&place, arguments)).wait());
    for ended in &rejected {
        ended.exits(2);
    }
    insta::assert_snapshot!(place.transcript(&rejected));
}

/// An answer as it came.
fn get(address: &str, host: &str, path: &str) -> String {
    let mut stream = ask(address, host, path);
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn ask(address: &str, host: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(STUCK)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

#[test]
fn refreshes_served_site_on_new_records() {
    let place = Place::new();
    run(&place, QemuScript::Passes);
    // A history that is named is no other.
    let mut command = place.dmarig(&["dashboard", "--serve", "127.0.0.1:0"]);
    let mut server = Server(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut said = BufReader::new(server.0.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    let address = address.unwrap_or_else(|| panic!("{line}")).to_owned();

    assert!(get(&address, &address, "/").starts_with("HTTP/1.1 200"));
    assert!(get(&address, "evil.example", "/").starts_with("HTTP/1.1 421"));
    assert!(get(&address, &address, "/../run.json").starts_with("HTTP/1.1 404"));

    let mut events = BufReader::new(ask(&address, &address, "/events")).lines();
    let mut wait_for = |text: &str| {
        let found = events.by_ref().map(|line| line.unwrap()).find(|line| line.contains(text));
        assert!(found.is_some(), "no {text} came");
    };
    wait_for("data: 0");
    let before = get(&address, &address, "/runs.html").matches("<tr>").count();
    run(&place, QemuScript::Passes);
    wait_for("data: 1");
    let after = get(&address, &address, "/runs.html").matches("<tr>").count();
    assert_eq!(after, before + 1);

    // What somebody says of an alert is shown at once, too.
    let said = r#"{"schema":1,"id":"1","time":0,"subject":"s","run":"r","state":"fixed","note":"","author":""}"#;
    place.file("history.alerts.jsonl", format!("{said}\n"));
    wait_for("data: 2");

    kill_process(Pid::from_child(&server.0), Signal::INT).unwrap();
    assert!(server.0.wait().unwrap().success());
}
