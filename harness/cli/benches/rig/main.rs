//! What the rig costs, as ratios within one run: absolute times swing with whatever else a machine
//! does. `ci/bench` calls this; words after `--` name the parts to run.

mod bare;
mod report;
mod trace;

use std::{path::PathBuf, process::Command, time::Instant};

use serde_json::Value;

use crate::{
    bare::Bare,
    report::{median, show},
};

/// Pairs of each comparison; the first of each side warms up and is not counted.
const PAIRS: usize = 10;

fn main() {
    let asked: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|word| word == name);
    let rig = Rig::new();
    if wanted("trace") {
        trace::bench();
    }
    if wanted("overhead") {
        overhead(&rig);
    }
    if wanted("boot") {
        boot(&rig);
    }
    if wanted("makespan") {
        makespan(&rig);
    }
    if wanted("memory") {
        memory(&rig);
    }
    // Kernels must have been built for it.
    if asked.iter().any(|word| word == "kernels") {
        kernels(&rig);
    }
}

/// The binary under measurement, with a place of its own for records.
struct Rig {
    runs: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        Self { runs: tempfile::tempdir().expect("a directory for records") }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dmarig"));
        command
            .args(words)
            .args(["--accel", "tcg", "--format", "json", "--runs"])
            .arg(self.runs.path());
        command
    }

    /// Runs and gives the seconds that it took and its document.
    fn run(&self, words: &[&str]) -> (f64, Value) {
        let start = Instant::now();
        let output = self.command(words).output().expect("dmarig starts");
        let seconds = start.elapsed().as_secs_f64();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "dmarig {words:?} failed:\n{told}");
        (seconds, serde_json::from_slice(&output.stdout).expect("a document"))
    }

    /// The observation of the only cell of a run.
    fn observation(&self, run: &Value) -> Value {
        let path: PathBuf =
            self.runs.path().join(run["run"].as_str().expect("an id")).join("cells.jsonl");
        let text = std::fs::read_to_string(path).expect("a record");
        let record: Value =
            serde_json::from_str(text.lines().next().expect("a cell")).expect("a record");
        record["observation"].clone()
    }
}

/// Alternates two measurements, the order changing from pair to pair, and gives the ratios.
fn pairs(mut ours: impl FnMut() -> f64, mut theirs: impl FnMut() -> f64) -> Vec<f64> {
    ours();
    theirs();
    (0..PAIRS)
        .map(|pair| {
            let (a, b) = if pair % 2 == 0 {
                let a = ours();
                (a, theirs())
            } else {
                let b = theirs();
                (ours(), b)
            };
            a / b
        })
        .collect()
}

/// An idle cell against a bare QEMU that boots the same kernel and initramfs to power-off.
fn overhead(rig: &Rig) {
    let (_, document) = rig.run(&["run", "boot"]);
    let bare = Bare::like(&rig.observation(&document), "");
    let mut phases: Vec<Vec<(String, f64)>> = Vec::new();
    let ratios = pairs(
        || {
            let (seconds, document) = rig.run(&["run", "boot"]);
            phases.push(phases_of(&rig.observation(&document), seconds));
            seconds
        },
        || bare.run(),
    );
    show("idle cell / bare QEMU, same vmlinux and initramfs", &ratios, ..=1.10);
    println!("  where a cell's time goes (median share; command: outside of the guest's phases)");
    let names: Vec<String> = phases[0].iter().map(|(name, _)| name.clone()).collect();
    for name in names {
        let shares =
            phases.iter().filter_map(|run| Some(run.iter().find(|(phase, _)| *phase == name)?.1));
        println!("    {name:10} {:5.1} %", 100.0 * median(&shares.collect::<Vec<_>>()));
    }
}

/// Shares of the phases in the whole command's time.
fn phases_of(observation: &Value, seconds: f64) -> Vec<(String, f64)> {
    let phases = observation["phases"].as_array().expect("phases");
    let mut shares: Vec<(String, f64)> = phases
        .iter()
        .map(|phase| {
            let name = phase["name"].as_str().expect("a name").to_owned();
            (name, phase["us"].as_f64().expect("a time") / 1e6 / seconds)
        })
        .collect();
    let inside: f64 = shares.iter().map(|(_, share)| share).sum();
    shares.push(("command".to_owned(), 1.0 - inside));
    shares
}

/// A judged cell against a bare QEMU that boots the distribution's own image, as people do it.
fn boot(rig: &Rig) {
    let cell = ["run", "smoke", "--cell", "caching-mode=on,policy=lazy"];
    let stock = ["run", "boot", "--stock-boot"];
    let (_, document) = rig.run(&stock);
    let bare = Bare::like(&rig.observation(&document), "");
    let ratios = pairs(|| rig.run(&cell).0, || bare.run());
    show("judged cell / bare QEMU with the stock bzImage", &ratios, ..=0.45);
}

/// A kernel of ours against the distribution's of the same version: from QEMU's start to the agent's
/// first words.
fn kernels(rig: &Rig) {
    let boot = |kernel: &str, more: &[&str]| {
        let (_, document) = rig.run(&[&["run", "boot", "--kernel", kernel], more].concat());
        let observation = rig.observation(&document);
        let phases = observation["phases"].as_array().expect("phases");
        let until = ["spawn", "firmware", "kernel", "agent"];
        let counted = phases.iter().filter(|phase| until.iter().any(|name| phase["name"] == *name));
        counted.map(|phase| phase["us"].as_f64().expect("a time")).sum::<f64>()
    };
    for version in ["5.10", "6.1", "6.12", "7.3"] {
        let (ours, stock) = (&format!("linux-{version}"), &format!("debian-{version}"));
        for (how, more) in
            [("as it is shipped", &["--stock-boot"][..]), ("as fast as it goes", &[])]
        {
            let ratios = pairs(|| boot(ours, &[]), || boot(stock, more));
            show(&format!("{ours} / {stock} {how}, to the agent"), &ratios, ..=0.50);
        }
    }
}

/// Two guests at once against the sum of the cells' own times.
fn makespan(rig: &Rig) {
    let ratios: Vec<f64> = (0..5)
        .map(|_| {
            let (seconds, document) = rig.run(&["run", "smoke", "--jobs", "2"]);
            let cells = document["cells"].as_array().expect("cells");
            let own: f64 = cells.iter().filter_map(|cell| cell["duration_us"].as_f64()).sum();
            seconds / (own / 1e6 / 2.0)
        })
        .collect();
    show("smoke with --jobs 2 / half the sum of its cells", &ratios, ..=1.15);
}

/// The rig's own memory with a hundred cells queued.
fn memory(rig: &Rig) {
    // Each memory size is a cell of its own; an idle guest has room in the smallest.
    let sizes: Vec<String> = (0..100).map(|n| format!("{}MiB", 256 + n)).collect();
    let set = format!("memory={}", sizes.join(","));
    let mut command = rig.command(&["run", "boot", "--jobs", "2", "--set", &set]);
    let quiet = std::process::Stdio::null;
    let mut child = command.stdout(quiet()).stderr(quiet()).spawn().expect("dmarig starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0u64;
    while child.try_wait().expect("dmarig is a child").is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    println!("memory of the rig for 100 cells: {:.1} MiB (limit 100)", peak as f64 / 1024.0);
}
