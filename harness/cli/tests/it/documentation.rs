//! Commands in the documentation.

use std::path::{Path, PathBuf};

use dmarig_fake_qemu::QemuScript;

use crate::place::{CASE, Place};

/// A `dmarig` command in a shell block of a document.
pub(crate) struct Documented {
    place: String,
    /// The program's name, then its arguments.
    words: Vec<String>,
}

impl Documented {
    /// Its arguments.
    pub(crate) fn arguments(&self) -> Vec<&str> {
        self.words[1..].iter().map(String::as_str).collect()
    }

    /// The first argument.
    pub(crate) fn subcommand(&self) -> &str {
        &self.words[1]
    }

    /// Runs it, and asserts that it neither rejects its arguments nor fails for another reason than a
    /// kernel.
    pub(crate) fn check(&self, place: &Place) {
        let ended = place.run(&self.arguments());
        assert!(matches!(ended.code, Some(0 | 1)), "{}: {ended:?}", self.place);
    }
}

/// Every command of the documentation.
pub(crate) fn commands() -> Vec<Documented> {
    let mut commands = Vec::new();
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for (number, line) in shell_lines(&text) {
            let place = format!("{}:{number}", document.display());
            commands
                .extend(commands_of(line).map(|words| Documented { place: place.clone(), words }));
        }
    }
    assert!(commands.len() > 40, "only {} commands were found", commands.len());
    commands
}

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let chapters = std::fs::read_dir(root.join("docs/src")).unwrap();
    let chapters = chapters.map(|entry| entry.unwrap().path());
    let markdown = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let mut documents: Vec<PathBuf> = chapters.filter(markdown).collect();
    documents.extend(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    documents.sort();
    documents
}

/// Lines of the shell blocks of a document, with their numbers.
fn shell_lines(text: &str) -> Vec<(usize, &str)> {
    let mut lines = Vec::new();
    let mut shell = None;
    for (index, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), shell) {
            (Some(language), None) => shell = Some(language.starts_with("sh")),
            (Some(_), Some(_)) => shell = None,
            (None, Some(true)) => lines.push((index + 1, line)),
            (None, _) => {}
        }
    }
    lines
}

fn commands_of(line: &str) -> impl Iterator<Item = Vec<String>> {
    let words = shlex::split(line).unwrap_or_default();
    let segments = words.split(|word| matches!(word.as_str(), "&&" | "|" | ";"));
    let from_dmarig = |segment: &[String]| {
        let start = segment.iter().position(|word| word == "dmarig")?;
        let has_arguments = segment.len() > start + 1;
        has_arguments.then(|| segment[start..].to_vec())
    };
    segments.filter_map(from_dmarig).collect::<Vec<_>>().into_iter()
}

/// The case file that the chapter about cases shows.
pub(crate) fn documented_case() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/writing-cases.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, block) = text.split_once("```yaml\n").unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

#[test]
fn accepts_every_documented_command() {
    for command in commands() {
        let parsed = dmarig::command().try_get_matches_from(&command.words);
        assert!(parsed.is_ok(), "{}: {}", command.place, parsed.unwrap_err());
    }
}

#[test]
fn runs_documented_commands_that_need_no_guest() {
    let place = Place::new();
    let case = place.file("case.yaml", CASE);
    let (kernel, qemu) = (place.kernel(), place.qemu(QemuScript::Passes));
    place.run(&["run", &case, "--kernel", &kernel, "--qemu", &qemu]).exits(0);
    place.file("my-disk.yaml", documented_case());
    place.file("dmesg.txt", "[    0.1] DMAR: IOMMU enabled\n");

    let needs_nothing = |command: &&Documented| {
        let arguments = command.arguments();
        match command.subcommand() {
            "analyze" => !arguments.contains(&"-"),
            "history" => !matches!(arguments[1], "show" | "merge"),
            "alerts" => !arguments.contains(&"set"),
            "dashboard" => !arguments.contains(&"--serve"),
            "images" => arguments[1] == "list",
            "cells" | "judge" | "schema" => true,
            _ => false,
        }
    };
    let commands = commands();
    let runnable: Vec<&Documented> = commands.iter().filter(needs_nothing).collect();
    assert!(runnable.len() > 10, "only {} commands can run", runnable.len());
    for command in runnable {
        command.check(&place);
    }
}
