//! No other crate names Intel's IOMMU: its device, parameter, trace events, log prefix or registers.

use std::{
    fs,
    path::{Path, PathBuf},
};

const WORDS: &[&str] = &["intel-iommu", "intel_iommu", "vtd_", "DMAR", "dmar", "0xfed9"];

/// Words of this project that contain one of [`WORDS`].
const OWN_WORDS: &[&str] = &["dmarig", "DMARIG", "dmarig_vtd"];

/// Files that may name the IOMMU, with the reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("harness/hostdev/src/device.rs", "facts about the host's own IOMMU, whatever the guest has"),
    ("harness/hostdev/src/obstacles.rs", "advice about the host's own IOMMU"),
    ("harness/runner/src/host.rs", "advice about the host's own IOMMU"),
    (
        "harness/dashboard/src/site_builder/run_details.rs",
        "a filter of log lines by words of all vendors",
    ),
];

#[test]
fn only_this_crate_names_the_vendors_iommu() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let mut files = Vec::new();
    for directory in ["harness", "guest-images", "testcases"] {
        sources(&root.join(directory), &mut files);
    }
    assert!(files.len() > 100, "only {} source files found", files.len());
    let mut found = Vec::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().display().to_string();
        if EXCEPTIONS.iter().any(|(exception, _)| *exception == name) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for (line, number) in product_lines(&text) {
            if names_vendor(line) {
                found.push(format!("{name}:{number}: {}", line.trim()));
            }
        }
    }
    for (exception, _) in EXCEPTIONS {
        assert!(root.join(exception).is_file(), "{exception} is gone");
    }
    assert!(found.is_empty(), "move these to harness/vtd:\n{}", found.join("\n"));
}

/// Source files of products: neither tests nor this crate.
fn sources(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_other = ["tests", "benches", "examples", "fake-qemu", "fuzz", "target", "vtd"];
        if path.is_dir() && !is_other.contains(&name.as_str()) {
            sources(&path, files);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            files.push(path);
        }
    }
}

/// Lines with their numbers, without comments and without the tests at a file's end.
fn product_lines(text: &str) -> impl Iterator<Item = (&str, usize)> {
    text.lines()
        .zip(1..)
        .take_while(|(line, _)| *line != "#[cfg(test)]")
        .filter(|(line, _)| !line.trim_start().starts_with("//"))
}

fn names_vendor(line: &str) -> bool {
    let mut rest = line.to_owned();
    for own in OWN_WORDS {
        rest = rest.replace(own, "");
    }
    WORDS.iter().any(|word| rest.contains(word))
}

#[test]
fn finds_words_but_not_in_this_projects_names() {
    for (line, expected) in [
        ("let device = \"intel-iommu\";", true),
        ("text.starts_with(\"DMAR: \")", true),
        ("const BASE: u64 = 0xfed9_0000;", true),
        ("use dmarig_vtd::Vtd;", false),
        ("std::env::var_os(\"DMARIG_MACHINE\")", false),
    ] {
        assert_eq!(names_vendor(line), expected, "{line}");
    }
}
