//! How fast the probe is: reads a second beside QEMU's own NVMe device, and where the time goes that
//! translation costs. All in pairs that alternate, on one kernel. `ci/bench-probe` calls this; words
//! after `--` name kernel and QEMU otherwise than by default (`kernel=debian-5.10 qemu=qemu-11.1`),
//! how many pairs there are (`pairs=5`), and the probe (`probe-program=PATH`).

#[path = "../rig/report.rs"]
mod report;

use std::{collections::BTreeMap, path::PathBuf, process::Command};

use serde_json::Value;

use crate::report::{median, show};

/// Requests in flight.
const DEPTHS: [u32; 3] = [1, 8, 32];
/// Requests of a window.
const OPS: u32 = 4000;

fn main() {
    let asked = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let asked: BTreeMap<String, String> = asked
        .filter_map(|word| word.split_once('=').map(|(name, value)| (name.into(), value.into())))
        .collect();
    let get =
        |name: &str, default: &str| asked.get(name).map_or(default, String::as_str).to_owned();
    let bench = Bench {
        directory: tempfile::tempdir().expect("a directory"),
        kernel: get("kernel", "debian-6.1"),
        qemu: get("qemu", "qemu"),
        program: asked.get("probe-program").cloned(),
    };
    let pairs: usize = get("pairs", "5").parse().expect("a number of pairs");
    println!("{} on {}, 4 KiB reads", bench.kernel, bench.qemu);
    for depth in DEPTHS {
        bench.depth(depth, pairs);
    }
}

struct Bench {
    directory: tempfile::TempDir,
    kernel: String,
    qemu: String,
    /// The probe, where it is another than that of the rig.
    program: Option<String>,
}

/// What one guest did, each a median over its windows and in nanoseconds for each request.
#[derive(Debug, Clone, Copy)]
struct Cost {
    all: f64,
    socket: f64,
    shadow: f64,
}

impl Bench {
    /// A round is a guest of each kind, the order turning from round to round.
    fn depth(&self, depth: u32, rounds: usize) {
        let kinds = [
            ("probe", "passthrough"),
            ("none", "passthrough"),
            ("none", "strict"),
            ("probe", "strict"),
        ];
        let mut costs: Vec<[Cost; 4]> = Vec::new();
        for round in 0..rounds {
            let mut order = [0, 1, 2, 3];
            if round % 2 == 1 {
                order.reverse();
            }
            let mut round = [Cost { all: f64::NAN, socket: 0.0, shadow: 0.0 }; 4];
            for kind in order {
                round[kind] = self.guest(depth, kinds[kind].0, kinds[kind].1);
            }
            costs.push(round);
        }
        let ratios: Vec<f64> = costs.iter().map(|[probe, none, ..]| none.all / probe.all).collect();
        show(&format!("depth {depth}: probe / emulated, iommu=pt"), &ratios, 1.0..);
        let strict: Vec<f64> = costs.iter().map(|[.., none, probe]| none.all / probe.all).collect();
        show(&format!("depth {depth}: probe / emulated, strict"), &strict, ..);
        let us = |of: &dyn Fn(&[Cost; 4]) -> f64| {
            median(&costs.iter().map(of).collect::<Vec<_>>()) / 1000.0
        };
        let without = us(&|[probe, ..]| probe.all);
        let with = us(&|[.., probe]| probe.all);
        let more = us(&|[pt, .., strict]| strict.all - pt.all);
        let (socket, shadow) = (us(&|[.., probe]| probe.socket), us(&|[.., probe]| probe.shadow));
        let driver = us(&|[_, pt, strict, _]| strict.all - pt.all);
        println!(
            "  us a request: {without:.1} with iommu=pt, {with:.1} strict; the {more:.1} more are"
        );
        println!(
            "    {driver:5.1}  the driver's and the virtual IOMMU's, as with the emulated device"
        );
        println!("    {socket:5.1}  the socket, as the probe sees it");
        println!("    {shadow:5.1}  the shadow");
        println!(
            "    {:5.1}  QEMU: page walks, notifiers, its own side of the socket",
            more - driver - socket - shadow
        );
    }

    fn guest(&self, depth: u32, passthrough: &str, policy: &str) -> Cost {
        let case = self.directory.path().join("probe-bench.yaml");
        let text = format!(
            "case: probe-bench\naxes: {{caching-mode: on, device: nvme, memory: 1GiB}}\n\
             probe: {{queues: 1, queue-entries: 64}}\n\
             workload: {{block: {{block-size: 4KiB, queue-depth: {depth}, ops: {OPS}, \
             read-percent: 100, span: 64MiB, seed: 1}}}}\n\
             windows: {{count: false, time: 7, warm-up: 1}}\n"
        );
        std::fs::write(&case, text).expect("a case");
        let sets = [format!("passthrough={passthrough}"), format!("policy={policy}")];
        let output = Command::new(env!("CARGO_BIN_EXE_dmarig"))
            .arg("run")
            .arg(&case)
            .args(["--set", &sets[0], "--set", &sets[1], "--kernel", &self.kernel])
            .args(["--qemu", &self.qemu, "--accel", "tcg", "--format", "json", "--runs"])
            .arg(self.directory.path())
            .args(self.program.iter().map(|program| format!("--probe-program={program}")))
            .output()
            .expect("dmarig starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "dmarig run {sets:?} failed:\n{told}");
        let run: Value = serde_json::from_slice(&output.stdout).expect("a document");
        self.cost(run["run"].as_str().expect("an id"))
    }

    fn cost(&self, run: &str) -> Cost {
        let path: PathBuf = self.directory.path().join(run).join("cells.jsonl");
        let text = std::fs::read_to_string(path).expect("a record");
        let record: Value =
            serde_json::from_str(text.lines().next().expect("a cell")).expect("JSON");
        let windows = record["observation"]["windows"].as_array().expect("windows");
        let timed: Vec<&Value> =
            windows.iter().filter(|window| window["kind"] == "timing").collect();
        let each = |of: &dyn Fn(&Value) -> Option<f64>| {
            let costs = timed.iter().map(|window| of(window).unwrap_or(0.0) / f64::from(OPS));
            median(&costs.collect::<Vec<_>>())
        };
        Cost {
            all: each(&|window| window["report"]["elapsed_ns"].as_f64()),
            socket: each(&|window| window["probe"]["socket_ns"].as_f64()),
            shadow: each(&|window| window["probe"]["shadow_ns"].as_f64()),
        }
    }
}
