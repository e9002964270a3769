//! Builds the guest's agent, a static binary, so that it can be a part of `dmarig`.
//!
//! Cargo can't yet depend on another package's binary for another set of flags, so a second cargo
//! runs with a target directory of its own (the first one holds the lock of the outer one).

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(variable("OUT_DIR"));
    let workspace = here.join("../..");
    for path in [
        "guest-images/agent",
        "guest-images/pattern",
        "guest-images/wire",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    println!("cargo::rerun-if-env-changed=DMARIG_AGENT_TARGET");
    let target = env::var("DMARIG_AGENT_TARGET").unwrap_or_else(|_| variable("HOST"));
    let built = build(&workspace, &out.join("agent"), &target);
    std::fs::copy(&built, out.join("dmarig-agent"))
        .unwrap_or_else(|error| panic!("can't copy the agent from {}: {error}", built.display()));
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("cargo sets {name} for build scripts: {error}"))
}

/// Builds it for `target` and gives the binary's path.
fn build(workspace: &Path, target_dir: &Path, target: &str) -> PathBuf {
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .current_dir(workspace)
        .args(["build", "--profile", "agent", "--package", "dmarig-agent", "--target", target])
        .arg("--target-dir")
        .arg(target_dir)
        // A guest has no dynamic linker: glibc is linked in, as musl is by itself. An image that
        // need not be relocated starts a fifth faster under TCG.
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static");
    // What the outer cargo sets for its own compilations (lints, flags, coverage) is not for this.
    for name in
        ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CLIPPY_ARGS"]
    {
        cargo.env_remove(name);
    }
    let status = cargo.status().unwrap_or_else(|error| panic!("can't run cargo: {error}"));
    assert!(status.success(), "the guest's agent does not build for {target}: {status}");
    target_dir.join(target).join("agent/dmarig-agent")
}
