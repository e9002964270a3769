//! Answers the rig's requests, one reply each.

use std::{collections::BTreeMap, fs::File, path::Path};

use anyhow::{Context, Result, bail, ensure};
use dmarig_wire::{Device, Interface, Job, Reply, Report, Request, Target};
use rustix::process::WaitOptions;

use crate::{
    block::{self, Disk},
    counters::Counters,
    device, environment, exec, files, group,
    kmsg::Kmsg,
    link::Link,
    net,
    tally::Tally,
};

/// State that the agent keeps between requests.
#[derive(Debug, Default)]
pub(crate) struct Agent {
    kmsg: Option<Kmsg<File>>,
    disks: BTreeMap<String, Disk>,
    nodes: Vec<String>,
    counters: Option<Counters>,
    reader: files::FileReader,
}

/// Answers requests until the rig asks for power-off.
///
/// # Errors
/// Where the control channel breaks.
pub(crate) fn serve(link: &mut Link) -> Result<()> {
    let mut agent = Agent::default();
    loop {
        let request = link.receive();
        let reply = match request {
            Ok(Request::PowerOff) => return link.send_last(&Reply::Bye),
            Ok(request) => agent.answer(request),
            Err(error) => Reply::Failed { what: format!("{error:#}") },
        };
        link.send(&reply)?;
        reap_orphans();
    }
}

impl Agent {
    fn answer(&mut self, request: Request) -> Reply {
        let name = name(&request);
        self.try_answer(request).unwrap_or_else(|error| match error.downcast() {
            Ok(device::NotInTime { what }) => {
                Reply::NotInTime { what, after_ms: device::LIMIT.as_millis() as u64 }
            }
            Err(error) => Reply::Failed { what: format!("{name}: {error:#}") },
        })
    }

    fn try_answer(&mut self, request: Request) -> Result<Reply> {
        Ok(match request {
            Request::Describe(device) => {
                let targets = self.targets(device)?;
                if let Device::Nvme | Device::VirtioBlk = device {
                    self.nodes.iter().for_each(|node| block::warm_up(node));
                }
                Reply::Environment(Box::new(environment::describe(targets)?))
            }
            Request::Run(job) => Reply::Report(Box::new(self.run(&job)?)),
            Request::ReadLog => {
                let kmsg = match &mut self.kmsg {
                    Some(kmsg) => kmsg,
                    None => self.kmsg.insert(Kmsg::open()?),
                };
                Reply::Log(kmsg.read()?)
            }
            Request::CountDma(true) => {
                // Old counters go, so that the numbers start anew.
                Reply::DmaCounts(self.counters.insert(Counters::start()?).read()?)
            }
            Request::ReadDma => {
                let counters = self.counters.as_ref().context("nothing is being counted")?;
                Reply::DmaCounts(counters.read()?)
            }
            Request::CountDma(false) => {
                let counters = self.counters.take().context("nothing is being counted")?;
                Reply::DmaCounts(counters.read()?)
            }
            Request::SetGroupType { device, kind } => {
                let targets = self.targets(device)?;
                let rebound = group::change_type(Path::new("/sys"), &targets, &kind)?;
                // The driver may have to find its device again.
                let found = self.targets(device)?;
                let nodes = |targets: &[Target]| -> Vec<Option<String>> {
                    targets.iter().map(|target| target.node.clone()).collect()
                };
                ensure!(nodes(&found) == nodes(&targets), "the device came back as another node");
                Reply::GroupType { rebound }
            }
            Request::ListFiles(directory) => Reply::Files(files::list(Path::new(&directory))?),
            Request::ReadFile { path, offset } => {
                Reply::Piece(self.reader.read_piece(Path::new(&path), offset)?)
            }
            Request::PowerOff => Reply::Bye,
        })
    }

    /// Waits for the functions under test, and keeps their nodes for programs.
    ///
    /// # Errors
    /// Where they don't come in time.
    pub(crate) fn targets(&mut self, device: Device) -> Result<Vec<Target>> {
        let targets = device::wait_for(device)?;
        self.nodes = targets.iter().filter_map(|target| target.node.clone()).collect();
        Ok(targets)
    }

    /// Runs one job to its end.
    ///
    /// # Errors
    /// Where it can't start; failures of its operations are in the report.
    pub(crate) fn run(&mut self, job: &Job) -> Result<Report> {
        match job {
            Job::Idle => Ok(Tally::default().report(Interface::None, 0)),
            Job::Block(job) => {
                self.targets(job.device)?;
                let Some(node) = self.nodes.first() else { bail!("no block device") };
                let disk = self.disks.entry(node.clone()).or_insert_with(|| Disk::new(node));
                block::run(disk, job)
            }
            Job::Net(job) => {
                self.targets(job.device)?;
                let [first, second, ..] = self.nodes.as_slice() else {
                    bail!("not two interfaces")
                };
                net::run(job, [first, second])
            }
            Job::Exec(job) => exec::run(job, &self.nodes),
        }
    }
}

fn name(request: &Request) -> &'static str {
    match request {
        Request::Describe(_) => "Describe",
        Request::Run(_) => "Run",
        Request::ReadLog => "ReadLog",
        Request::CountDma(_) => "CountDma",
        Request::ReadDma => "ReadDma",
        Request::SetGroupType { .. } => "SetGroupType",
        Request::ListFiles(_) => "ListFiles",
        Request::ReadFile { .. } => "ReadFile",
        Request::PowerOff => "PowerOff",
    }
}

/// Collects processes whose parents are gone: they are children of process 1 now.
fn reap_orphans() {
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
}
