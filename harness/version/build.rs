//! Passes the revision and the date of the source to the compiler.
//!
//! A source without a repository, such as an unpacked archive, has no revision. A packager can set
//! `DMARIG_REVISION` and `DMARIG_DATE`.

use std::{path::Path, process::Command};

fn main() {
    println!("cargo:rerun-if-env-changed=DMARIG_REVISION");
    println!("cargo:rerun-if-env-changed=DMARIG_DATE");
    // A commit appends to the log of HEAD; a checkout does, too.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    } else {
        println!("cargo:rerun-if-changed=build.rs");
    }
    let revision = setting("DMARIG_REVISION").or_else(revision);
    let date = setting("DMARIG_DATE").or_else(|| own_git(&["log", "-1", "--format=%cs"]));
    let package = env!("CARGO_PKG_VERSION");
    let version = match (revision, date) {
        (Some(revision), Some(date)) => format!("{package} ({revision} {date})"),
        (Some(revision), None) => format!("{package} ({revision})"),
        _ => package.to_owned(),
    };
    println!("cargo:rustc-env=DMARIG_VERSION={version}");
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn revision() -> Option<String> {
    own_git(&["rev-parse", "--short=12", "HEAD"])
}

/// Output of git in this project's repository. The source may lie unpacked inside of another one, whose
/// revisions say nothing about it.
fn own_git(arguments: &[&str]) -> Option<String> {
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    let same = Path::new(&top).canonicalize().ok()? == ours.canonicalize().ok()?;
    if same { git(arguments) } else { None }
}

fn git(arguments: &[&str]) -> Option<String> {
    let directory = env!("CARGO_MANIFEST_DIR");
    let output = Command::new("git").arg("-C").arg(directory).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
