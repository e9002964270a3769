//! The init of a `dmarig` guest: it brings the guest up, does the rig's work and answers on a UART.
//!
//! It is process 1 of an initramfs and the only program there, so it never returns: it powers the
//! guest off, by request or because it can't go on. `dmarig-wire` has the requests and replies;
//! `dmarig.job=` on the kernel's command line runs one job without a rig.

mod block;
mod boot;
mod cmdline;
mod console;
mod counters;
mod device;
mod environment;
mod exec;
mod files;
mod group;
mod kmsg;
mod link;
mod net;
mod serve;
mod standalone;
mod sys;
mod tally;

use anyhow::{Context, Result};

use crate::{cmdline::Cmdline, link::Link};

fn main() {
    if !rustix::process::getpid().is_init() {
        eprintln!("dmarig-agent is the init of a dmarig guest and does nothing elsewhere");
        std::process::exit(2);
    }
    boot::power_off_on_panic();
    if let Err(error) = run() {
        console::print_problem(&format!("{error:#}"));
    }
    boot::power_off();
}

fn run() -> Result<()> {
    boot::mount_first()?;
    let text = std::fs::read_to_string("/proc/cmdline").context("can't read /proc/cmdline")?;
    let cmdline = Cmdline::parse(&text);
    let modules = boot::load_modules(&text);
    if cmdline.power_off {
        return Ok(());
    }
    if let Some(job) = &cmdline.job {
        boot::mount_rest();
        for (name, error) in &modules {
            if let Some(error) = error {
                console::print_problem(&format!("{name}: {error}"));
            }
        }
        return standalone::run(job);
    }
    let mut link = Link::open(&cmdline.control)?;
    link.send(&boot::hello(modules))?;
    boot::mount_rest();
    serve::serve(&mut link)
}
