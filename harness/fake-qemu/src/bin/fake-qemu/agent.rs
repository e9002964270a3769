//! The agent of the guest.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
};

use dmarig_fake_qemu::{QemuScript, SLOW_KERNEL, TRACE_FLOOD};
use dmarig_wire::{
    Decoder, DmaCounts, Environment, Hello, Interface, IommuGroup, IommuRegisters, Job, Log,
    LogRecord, Reply, Report, Request, Target, encode,
};

use crate::{
    guest::{Channels, Machine, interfere},
    hang,
};

pub(crate) struct Agent {
    pub(crate) script: QemuScript,
    pub(crate) machine: Machine,
    pub(crate) channels: Channels,
    pub(crate) log_pieces: u32,
}

/// Whether the workload of this script has no end of its own.
pub(crate) fn never_answers(script: QemuScript) -> bool {
    matches!(
        script,
        QemuScript::HangsInWorkload
            | QemuScript::HasDeviceTrouble
            | QemuScript::HangsAndIgnoresTerm
            | QemuScript::Stops
            | QemuScript::HasNoSpace
            | QemuScript::ClosesMonitor
    )
}

impl Agent {
    /// Greets and answers until the rig goes.
    pub(crate) fn serve(mut self) {
        let hello = Reply::Hello(Hello {
            agent: "fake".into(),
            release: "6.1.0-fake".into(),
            uptime_us: 1,
            modules: Vec::new(),
        });
        match self.script {
            QemuScript::SendsGarbage => while self.write(&[0x55; 4096]) {},
            QemuScript::ClaimsTooMuch => {
                let mut frame = encode(&hello).unwrap();
                frame[8..16].fill(0xff);
                self.write(&frame);
                hang()
            }
            QemuScript::ClaimsMoreThanItHas => {
                let frame = encode(&hello).unwrap();
                self.write(&frame[..frame.len() - 1]);
                hang()
            }
            QemuScript::SendsGreetings => while self.send(&hello) {},
            _ => {}
        }
        self.send(&hello);
        let mut decoder = Decoder::default();
        let mut buffer = [0; 4096];
        let mut unmaps = 0;
        loop {
            while let Some(request) = decoder.next_message().expect("the rig frames its requests") {
                let reply = self.answer(request, &mut unmaps);
                self.send(&reply);
            }
            match self.channels.agent.read(&mut buffer) {
                Ok(length @ 1..) => decoder.push(&buffer[..length]),
                _ => return,
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> bool {
        self.channels.agent.write_all(bytes).is_ok()
    }

    fn send(&mut self, reply: &Reply) -> bool {
        self.write(&encode(reply).unwrap())
    }

    fn answer(&mut self, request: Request, unmaps: &mut u64) -> Reply {
        match (request, self.script) {
            (Request::Describe(_), QemuScript::SendsTheWrongKind) => Reply::Bye,
            (Request::Describe(_), QemuScript::HasNoDisk) => Reply::NotInTime {
                what: "0000:00:01.0 (nvme) has no node".into(),
                after_ms: 60_000,
            },
            (Request::Run(_), QemuScript::Fails) => Reply::Failed { what: "I'd rather not".into() },
            (Request::Describe(_), _) => Reply::Environment(Box::new(self.environment())),
            (Request::CountDma(_) | Request::ReadDma, _) => {
                let events = ["iommu:map", "iommu:unmap"].map(|name| (name.to_owned(), *unmaps));
                Reply::DmaCounts(Some(DmaCounts { events: BTreeMap::from(events) }))
            }
            (Request::Run(job), script) => {
                interfere(script, &mut self.channels);
                let ops = match job {
                    _ if script == QemuScript::FloodsTrace => TRACE_FLOOD,
                    Job::Block(job) => job.ops,
                    _ => 0,
                };
                *unmaps += ops;
                self.trace(ops);
                let is_slow = script == QemuScript::IsSlow || has_slow_kernel();
                let elapsed_ns = if is_slow { 1_200_000 } else { 1_000_000 };
                Reply::Report(Box::new(report(ops, elapsed_ns)))
            }
            (Request::ReadLog, script) => {
                // It does end, at more bytes than a kernel can hold and in fewer pieces than it may.
                self.log_pieces += 1;
                let endless = script == QemuScript::SendsLogs && self.log_pieces < 40;
                let text = if endless { "x".repeat(4 << 20) } else { "all is well".into() };
                let record = LogRecord { level: 6, seq: 1, time_us: 1, text };
                Reply::Log(Log { records: vec![record], lost: 0, more: endless })
            }
            (Request::SetGroupType { .. }, _) => Reply::GroupType { rebound: false },
            (Request::ListFiles(_) | Request::ReadFile { .. }, _) => {
                Reply::Failed { what: "there are no files".into() }
            }
            (Request::PowerOff, _) => Reply::Bye,
        }
    }

    /// What the hypervisor writes for as many strict unmaps.
    fn trace(&mut self, unmaps: u64) {
        let mut lines = String::new();
        for number in 0..unmaps {
            lines.push_str(&format!(
                "vtd_inv_desc_iotlb_pages iotlb invalidate domain 0x2 addr {:#x} mask 0x4\n",
                0xfff0_0000 - (number << 16 & 0x0fff_ffff)
            ));
            if lines.len() > 60 << 10 || number + 1 == unmaps {
                self.channels.trace.write_all(lines.as_bytes()).unwrap();
                lines.clear();
            }
        }
    }

    fn environment(&self) -> Environment {
        let (cap, ecap) = self.machine.registers();
        let registers =
            IommuRegisters { cap: Some(format!("{cap:x}")), ecap: Some(format!("{ecap:x}")) };
        let address = "0000:00:02.0".to_owned();
        Environment {
            cmdline: self.machine.cmdline.clone(),
            version: "Linux version 6.1.0-fake (me@here)".into(),
            cpus: self.machine.cpus,
            memory_kib: self.machine.memory_mib * 1000,
            iommus: [("dmar0".to_owned(), registers)].into(),
            groups: vec![IommuGroup {
                number: 1,
                kind: Some("DMA".into()),
                devices: vec![address.clone()],
            }],
            targets: vec![Target {
                address,
                driver: Some("nvme".into()),
                group: Some(1),
                node: Some("nvme0n1".into()),
            }],
        }
    }
}

fn report(ops: u64, elapsed_ns: u64) -> Report {
    Report {
        interface: Interface::IoUring,
        ops,
        reads: ops,
        writes: 0,
        bytes: ops << 16,
        errors: 0,
        lost: 0,
        elapsed_ns,
        latency: None,
        problems: Vec::new(),
        corrupt: 0,
        metrics: Vec::new(),
        exit: None,
        output: None,
    }
}

/// Whether its kernel is one that takes a fifth more time: it is in the directory [`SLOW_KERNEL`].
fn has_slow_kernel() -> bool {
    std::env::args().any(|word| word.ends_with(&format!("/{SLOW_KERNEL}/vmlinux")))
}
