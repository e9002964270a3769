//! Runs one job without a rig: `dmarig.job=` on the kernel's command line.

use std::fmt::Write;

use anyhow::{Context, Result};
use dmarig_wire::{Environment, JOB_PARAMETER, Report, decode_job};

use crate::{console, environment, serve::Agent};

/// Runs the job that `word` describes and prints its result on the console.
///
/// # Errors
/// Where `word` is not the JSON of a job, or the job can't be run.
pub(crate) fn run(word: &str) -> Result<()> {
    let job = decode_job(word).with_context(|| {
        format!(
            "invalid {JOB_PARAMETER}={word}: expected a job as `dmarig plan` prints it, in JSON with \
             \\u0020 for each blank"
        )
    })?;
    let mut agent = Agent::default();
    let targets = match job.device() {
        Some(device) => agent.targets(device)?,
        None => Vec::new(),
    };
    console::print(&describe_environment(&environment::describe(targets)?));
    let report = agent.run(&job)?;
    console::print(&summarize(&report));
    Ok(())
}

fn describe_environment(environment: &Environment) -> String {
    let mut text = format!("{}\ncommand line: {}\n", environment.version, environment.cmdline);
    for (name, registers) in &environment.iommus {
        let register = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".to_owned());
        let (cap, ecap) = (register(&registers.cap), register(&registers.ecap));
        let _ = writeln!(text, "{name}: cap {cap} ecap {ecap}");
    }
    for target in &environment.targets {
        let group = environment.groups.iter().find(|group| Some(group.number) == target.group);
        let kind = group.and_then(|group| group.kind.as_deref()).unwrap_or("none");
        let node = target.node.as_deref().unwrap_or("no node");
        let _ = writeln!(text, "{}: {node}, IOMMU group type {kind}", target.address);
    }
    text
}

fn summarize(report: &Report) -> String {
    let seconds = report.elapsed_ns as f64 / 1e9;
    let mut text = format!(
        "{:?}: {} operations in {seconds:.3} s, {} reads, {} writes, {} bytes\n\
         {} errors, {} lost, {} corrupt\n",
        report.interface,
        report.ops,
        report.reads,
        report.writes,
        report.bytes,
        report.errors,
        report.lost,
        report.corrupt
    );
    if let Some(latency) = &report.latency {
        let us = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        let _ = writeln!(
            text,
            "latency in us: min {:.1}, median {:.1}, 99% {:.1}, max {:.1}",
            us(latency.min_ns),
            us(latency.p50_ns),
            us(latency.p99_ns),
            us(latency.max_ns)
        );
    }
    for problem in &report.problems {
        let _ = writeln!(text, "problem: {}", problem.what);
    }
    if let Some(exit) = report.exit {
        let _ = writeln!(text, "ended by {exit:?}; its output:");
    }
    text.push_str(report.output.as_deref().unwrap_or_default());
    text
}
