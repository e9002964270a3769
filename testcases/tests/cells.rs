//! Each cell as a test of its own: `smoke::` those of the smoke case, `night::` the whole matrix; and
//! `prove::`, that kernels with known bugs are caught.
//!
//! A test is a `dmarig run` of one cell, so that what passes here is what a user runs. The kernels
//! are taken from the cache; `ci/test` fetches them.

use std::{ffi::OsString, process::ExitCode};

use dmarig::Exit;
use dmarig_images::Cache;
use dmarig_runner::{request::Selection, select::select};
use libtest_mimic::{Arguments, Failed, Trial};

/// The cases whose cells are tests, the prefix of those tests, the kernels they run on (the default
/// one, or all that there are recipes for), and the QEMU (the system's, or the newest there is a
/// recipe for).
const SUITES: &[(&str, &str, &[&str], Option<&str>)] = &[
    ("smoke", "smoke", &[], None),
    ("night", "smoke", ALL, None),
    ("night", "full", ALL, None),
    ("night", "qemu-functional", ALL, None),
    ("night", "passthrough", ALL, NEWEST),
    ("night", "attacks", ALL, NEWEST),
    ("night", "policies", ALL, NEWEST),
    ("night", "queued", ALL, NEWEST),
    // Each takes minutes: the oldest and the newest way of the driver.
    ("night", "nested", &["debian-5.10", "debian-7.3"], NEWEST),
];

/// Proofs on kernels with known bugs: the test, and the words of `dmarig prove`.
const PROOFS: &[(&str, &[&str])] = &[
    ("prove::linux-5.10-fix-reverted", &["--kernel=linux-5.10", "--bug=fix-reverted"]),
    ("night::prove::linux-5.10", &["--kernel=linux-5.10"]),
    ("night::prove::linux-6.12", &["--kernel=linux-6.12"]),
];

const NEWEST: Option<&str> = Some("qemu");

const ALL: &[&str] = &["debian-5.10", "debian-6.1", "debian-6.12", "debian-7.3"];

fn main() -> ExitCode {
    // A cell with a probe starts this very program for it, and an outer guest runs it, as they do
    // with `dmarig`.
    if std::env::args_os().nth(1).is_some_and(|word| word == "probe" || word == "run") {
        return dmarig::main(std::env::args_os());
    }
    let arguments = Arguments::from_args();
    let cache = Cache::open(None).expect("there is a place for a cache");
    let mut trials = Vec::new();
    for (prefix, case, kernels, qemu) in SUITES {
        let selection = Selection {
            cases: vec![(*case).to_owned()],
            kernels: kernels.iter().map(|kernel| (*kernel).to_owned()).collect(),
            qemus: qemu.iter().map(|name| (*name).to_owned()).collect(),
            ..Selection::default()
        };
        let selected = select(&selection, &cache).expect("the cases of this crate are valid");
        let kernels = kernels.iter().map(|kernel| format!("--kernel={kernel}"));
        let qemu = qemu.map(|name| format!("--qemu={name}"));
        let options: Vec<String> =
            std::iter::once((*case).to_owned()).chain(kernels).chain(qemu).collect();
        for cell in selected.cells {
            let options = options.clone();
            let name = format!("{prefix}::{}", cell.id);
            trials.push(Trial::test(name, move || run(&options, &cell.id)));
        }
    }
    for (name, options) in PROOFS {
        trials.push(Trial::test(*name, || prove(options)));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn prove(options: &[&str]) -> Result<(), Failed> {
    let words = ["dmarig", "prove"].iter().chain(options).map(OsString::from);
    match dmarig::run(words) {
        Exit::Passed => Ok(()),
        exit => Err(format!("dmarig prove ended with exit code {}", exit.code()).into()),
    }
}

fn run(options: &[String], id: &str) -> Result<(), Failed> {
    let words = ["dmarig", "run", "--jobs=1", "--cell", id].map(OsString::from);
    let words = words.into_iter().chain(options.iter().map(OsString::from));
    match dmarig::run(words) {
        // A cell that this QEMU or kernel can't run has said why; it is no failure of theirs.
        Exit::Passed | Exit::Nothing => Ok(()),
        exit => Err(format!("{id} ended with exit code {}", exit.code()).into()),
    }
}
