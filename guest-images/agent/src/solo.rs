//! One job by hand, without a rig: `dmarig.solo=` on the kernel's command line.

use std::fmt::Write;

use anyhow::{Context, Result, bail, ensure};
use dmarig_wire::{BlockJob, Device, Environment, ExecJob, Job, NetJob, Report};

use crate::{console, environment, serve::Agent};

const HELP: &str = "dmarig.solo takes idle, block, net or exec, such as \
                    block,device=nvme,ops=2000,block-size=64K,queue-depth=8 or exec,/add/program";

/// Runs the job that the text names and prints what came of it on the console.
///
/// # Errors
/// Where the text is no job, or the job can't be done.
pub(crate) fn run(text: &str) -> Result<()> {
    let (job, device) = parse(text)?;
    let mut agent = Agent::default();
    let targets = match device {
        Some(device) => agent.targets(device)?,
        None => Vec::new(),
    };
    console::print(&surroundings(&environment::describe(targets)?));
    let report = agent.run(&job)?;
    console::print(&summary(&report));
    Ok(())
}

/// The job, and the device that it needs.
fn parse(text: &str) -> Result<(Job, Option<Device>)> {
    let (kind, rest) = text.split_once(',').unwrap_or((text, ""));
    if kind == "exec" {
        ensure!(!rest.is_empty(), "exec needs a program: {HELP}");
        let argv = rest.split(',').map(str::to_owned).collect();
        return Ok((Job::Exec(ExecJob { argv, echo: false }), None));
    }
    let mut options = Options::parse(rest)?;
    let (job, device) = match kind {
        "idle" => {
            let device = options.take("device").map(device).transpose()?;
            (Job::Idle, device)
        }
        "block" => {
            let device = options.take("device").map_or(Ok(Device::Nvme), device)?;
            let job = BlockJob {
                device,
                block_size: options.number("block-size", 65536)?,
                queue_depth: options.number("queue-depth", 8)?,
                ops: options.number("ops", 1000)?,
                read_percent: options.number("read-percent", 50)?,
                threads: options.number("threads", 1)?,
                span: options.number("span", 0)?,
                seed: options.number("seed", 1)?,
                used: options.number::<u8>("used", 0)? != 0,
                linger_ms: options.number("linger", 0)?,
            };
            (Job::Block(job), Some(device))
        }
        "net" => {
            let device = options.take("device").map_or(Ok(Device::VirtioNet), device)?;
            let job = NetJob {
                device,
                frame_size: options.number("frame-size", 1514)?,
                frames: options.number("frames", 1000)?,
                window: options.number("window", 64)?,
                seed: options.number("seed", 1)?,
            };
            (Job::Net(job), Some(device))
        }
        other => bail!("no job is called {other:?}: {HELP}"),
    };
    options.finish(kind)?;
    Ok((job, device))
}

fn device(name: &str) -> Result<Device> {
    Ok(match name {
        "nvme" => Device::Nvme,
        "virtio-blk" => Device::VirtioBlk,
        "e1000e" => Device::E1000e,
        "virtio-net" => Device::VirtioNet,
        _ => bail!("no device is called {name:?}: nvme, virtio-blk, e1000e or virtio-net"),
    })
}

/// `name=value` options that were not asked for yet.
struct Options<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Options<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let words = text.split(',').filter(|word| !word.is_empty());
        let pairs = words.map(|word| {
            word.split_once('=').with_context(|| format!("{word:?} is not of the form name=value"))
        });
        Ok(Self(pairs.collect::<Result<_>>()?))
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|(key, _)| *key == name)?;
        Some(self.0.remove(at).1)
    }

    /// A whole number, with a suffix K, M or G for powers of 1024.
    fn number<N: TryFrom<u64>>(&mut self, name: &str, default: u64) -> Result<N> {
        let Some(text) = self.take(name) else {
            return N::try_from(default).ok().context("a default is out of range");
        };
        let (digits, shift) = match text.as_bytes().last() {
            Some(b'K') => (&text[..text.len() - 1], 10),
            Some(b'M') => (&text[..text.len() - 1], 20),
            Some(b'G') => (&text[..text.len() - 1], 30),
            _ => (text, 0),
        };
        let value = digits.parse::<u64>().ok().and_then(|value| value.checked_mul(1 << shift));
        value
            .and_then(|value| N::try_from(value).ok())
            .with_context(|| format!("{name}={text} is no number, or out of range"))
    }

    fn finish(self, kind: &str) -> Result<()> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => bail!("{kind} has no option {name:?}, or it is there twice"),
        }
    }
}

fn surroundings(environment: &Environment) -> String {
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

fn summary(report: &Report) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_parsed_with_defaults_for_the_rest() {
        let (job, device) =
            parse("block,device=virtio-blk,ops=2000,block-size=64K,queue-depth=4").unwrap();
        let expected = BlockJob {
            device: Device::VirtioBlk,
            block_size: 65536,
            queue_depth: 4,
            ops: 2000,
            read_percent: 50,
            threads: 1,
            span: 0,
            seed: 1,
            used: false,
            linger_ms: 0,
        };
        assert_eq!((job, device), (Job::Block(expected), Some(Device::VirtioBlk)));
        assert_eq!(parse("idle").unwrap(), (Job::Idle, None));
        assert_eq!(parse("idle,device=nvme").unwrap(), (Job::Idle, Some(Device::Nvme)));
        let (job, device) = parse("net,device=e1000e,frames=10").unwrap();
        assert!(matches!(job, Job::Net(NetJob { frames: 10, window: 64, .. })));
        assert_eq!(device, Some(Device::E1000e));
        let argv = vec!["/add/prog".to_owned(), "-x=1".to_owned()];
        assert_eq!(
            parse("exec,/add/prog,-x=1").unwrap(),
            (Job::Exec(ExecJob { argv, echo: false }), None)
        );
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, words: &str| {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(words), "{error}");
        };
        check("", "no job is called \"\"");
        check("blok,ops=1", "no job is called \"blok\"");
        check("exec", "needs a program");
        check("block,ops", "\"ops\" is not of the form");
        check("block,op=1", "no option \"op\"");
        check("block,ops=1,ops=2", "there twice");
        check("block,ops=many", "ops=many is no number");
        check("block,read-percent=300", "out of range");
        check("block,ops=99999999999G", "out of range");
        check("net,device=ne2000", "no device is called \"ne2000\"");
    }
}
