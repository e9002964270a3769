//! Observations made up for tests: what a sound guest would have shown, to be spoilt.

use std::collections::BTreeMap;

use dmarig_model::{
    axes::{Accelerator, Axes, Device, Passthrough, Policy, ScalableMode, Toggle},
    case::Case,
    judge::judge,
    kernel::KernelBuild,
    observation::{
        End, KernelLog, LogSource, OBSERVATION_SCHEMA, Observation, Outcome, Phase, Setup,
        TraceCounts, Verdict, Window, WindowKind,
    },
    probe::{ProbeCounts, Spread, Stale},
};
use dmarig_viommu::mode::Registers;
use dmarig_wire::{
    DmaCounts, Environment, Interface, IommuGroup, IommuRegisters, Latency, LogRecord, Report,
    Target,
};
use serde_json::json;

/// Unmaps (and maps) in a made-up counting window.
pub(crate) const OPS: u64 = 400;

/// What a guest's kernel does with its invalidations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Profile {
    /// One page-selective invalidation per unmap, and per map with caching mode on.
    Strict,
    /// One domain-selective one per batch.
    Batched,
    /// None.
    Nothing,
}

/// A guest in a few words.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) axes: Axes,
    pub(crate) kernel: &'static str,
    pub(crate) warning: bool,
    pub(crate) group: &'static str,
    pub(crate) profile: Profile,
}

impl Guest {
    /// A guest of Linux `kernel`.
    pub(crate) fn new(kernel: &'static str, caching_mode: Toggle, policy: Policy) -> Self {
        let axes = Axes { caching_mode, policy, kernel: kernel.to_owned(), ..Axes::default() };
        Self { axes, kernel, warning: false, group: "DMA", profile: Profile::Strict }
    }

    pub(crate) fn warned(self) -> Self {
        Self { warning: true, ..self }
    }

    pub(crate) fn shows(self, group: &'static str, profile: Profile) -> Self {
        Self { group, profile, ..self }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Axes)) -> Self {
        change(&mut self.axes);
        self
    }

    /// What would be seen of it.
    pub(crate) fn observe(&self) -> Observation {
        let axes = &self.axes;
        let guest = environment(self);
        let (cap, ecap) = registers(axes);
        Observation {
            schema: OBSERVATION_SCHEMA,
            cell: format!(
                "made-up/caching-mode={},policy={},kernel={}",
                axes.caching_mode, axes.policy, axes.kernel
            ),
            case: "made-up".to_owned(),
            axes: axes.clone(),
            end: End::Completed,
            setup: setup(&guest.cmdline),
            release: Some(format!("{}-test", self.kernel)),
            module_errors: BTreeMap::new(),
            guest_after: Some(guest.clone()),
            guest: Some(guest),
            qom: qom(axes),
            registers: Some(Registers { cap, ecap }),
            log: KernelLog { source: LogSource::Kmsg, records: records(&log(self)), lost: 0 },
            qemu_stderr: String::new(),
            events: Vec::new(),
            attacks: Vec::new(),
            windows: vec![window(self)],
            phases: vec![Phase { name: "kernel".to_owned(), us: 1_000_000 }],
            outer: None,
        }
    }

    /// The verdict on it, with its observation spoilt first.
    pub(crate) fn judged(&self, spoil: impl FnOnce(&mut Observation)) -> Verdict {
        let mut observation = self.observe();
        spoil(&mut observation);
        judge(&case_for(self.axes.device), &observation)
    }

    #[track_caller]
    pub(crate) fn passes(&self) {
        let verdict = self.judged(|_| ());
        assert_eq!((verdict.outcome, &*verdict.reasons), (Outcome::Passed, &[][..]), "{self:?}");
    }

    /// It fails, and exactly these checks do not hold.
    #[track_caller]
    pub(crate) fn fails(&self, checks: &[&str]) {
        let verdict = self.judged(|_| ());
        let failed: Vec<&str> = verdict
            .checks
            .iter()
            .filter(|check| check.held == Some(false))
            .map(|check| &*check.name)
            .collect();
        assert_eq!((verdict.outcome, &*failed), (Outcome::Failed, checks), "{:?}", verdict.reasons);
    }
}

/// A case without expectations of its own.
pub(crate) fn case_for(device: Device) -> Case {
    let text = format!(
        "case: made-up\naxes: {{device: {device}}}\nworkload: {{{}: {{}}}}\n",
        if device.is_network() { "net" } else { "block" }
    );
    Case::parse("made-up.yaml", &text).unwrap()
}

/// Records of a log, one line each.
pub(crate) fn records(text: &str) -> Vec<LogRecord> {
    let record = |(index, line): (usize, &str)| LogRecord {
        level: 6,
        seq: index as u64,
        time_us: 1000 + index as u64,
        text: line.to_owned(),
    };
    text.lines().enumerate().map(record).collect()
}

/// So many DMA faults, each in the two lines in which the kernel tells of it.
pub(crate) fn fault_flood(count: usize) -> String {
    let pair = "DMAR: DRHD: handling fault status reg 2\n\
        DMAR: [DMA Read NO_PASID] Request device [00:03.0] fault addr 0xdead000 [fault reason 0x06] PTE Read access is not set\n";
    pair.repeat(count)
}

fn registers(axes: &Axes) -> (u64, u64) {
    // QEMU 7.2's registers, without caching mode and pass-through.
    let (mut cap, mut ecap) = (0xd2_008c_2226_0206, 0xf0_0f0a);
    let set = |register: &mut u64, bit: u32, on: bool| *register |= u64::from(on) << bit;
    set(&mut cap, 7, axes.caching_mode == Toggle::On);
    set(&mut ecap, 6, axes.pt == Toggle::On);
    set(&mut ecap, 2, axes.device_iotlb == Toggle::On);
    set(&mut ecap, 43, axes.scalable_mode != ScalableMode::Off);
    set(&mut ecap, 46, axes.scalable_mode == ScalableMode::SecondStage);
    set(&mut ecap, 47, axes.scalable_mode == ScalableMode::FirstStage);
    if let Some(bits) = axes.aw_bits {
        cap = cap & !(0x3f << 16) | u64::from(bits - 1) << 16;
    }
    (cap, ecap)
}

fn qom(axes: &Axes) -> BTreeMap<String, serde_json::Value> {
    let on = |toggle| json!(toggle == Toggle::On);
    [
        ("caching-mode", on(axes.caching_mode)),
        ("pt", on(axes.pt)),
        ("device-iotlb", on(axes.device_iotlb)),
        ("x-scalable-mode", json!(axes.scalable_mode != ScalableMode::Off)),
        ("x-flts", json!(axes.scalable_mode == ScalableMode::FirstStage)),
        ("aw-bits", json!(axes.aw_bits.unwrap_or(39))),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn environment(guest: &Guest) -> Environment {
    let axes = &guest.axes;
    let (cap, ecap) = registers(axes);
    let words = match axes.policy {
        Policy::Lazy => "",
        Policy::Strict if guest.kernel.starts_with("5.10") => " intel_iommu=strict",
        Policy::Strict => " iommu.strict=1",
        Policy::Passthrough => " iommu=pt",
    };
    let address = "0000:00:03.0".to_owned();
    Environment {
        cmdline: format!("console=ttyS0 intel_iommu=on{words}"),
        version: format!("Linux version {} (me@host) (gcc) #1 SMP", guest.kernel),
        cpus: axes.smp,
        memory_kib: u64::from(axes.memory_mib) * 900,
        iommus: [(
            "dmar0".to_owned(),
            IommuRegisters { cap: Some(format!("{cap:x}")), ecap: Some(format!("{ecap:x}")) },
        )]
        .into(),
        groups: vec![IommuGroup {
            number: 2,
            kind: Some(guest.group.to_owned()),
            devices: vec![address.clone()],
        }],
        targets: vec![Target {
            address,
            driver: Some("nvme".to_owned()),
            group: Some(2),
            node: None,
        }],
    }
}

fn setup(cmdline: &str) -> Setup {
    Setup {
        qemu_version: "7.2.22".to_owned(),
        qemu_path: "qemu".to_owned(),
        qemu_sha256: String::new(),
        accelerator: Accelerator::Tcg,
        argv: Vec::new(),
        cmdline: cmdline.to_owned(),
        boot_levers: Vec::new(),
        boot: "pvh".to_owned(),
        kernel_image: "vmlinux".to_owned(),
        kernel_sha256: String::new(),
        packages: Vec::new(),
        build: KernelBuild::default(),
        initramfs_sha256: String::new(),
        modules: Vec::new(),
    }
}

fn log(guest: &Guest) -> String {
    let mut text =
        "DMAR: IOMMU enabled\niommu: DMA domain TLB invalidation policy: lazy mode\n".to_owned();
    if guest.warning {
        text.push_str("DMAR: IOMMU batching disallowed due to virtualization\n");
    }
    text
}

/// A report of [`OPS`] requests without fault.
pub(crate) fn report() -> Report {
    Report {
        interface: Interface::IoUring,
        ops: OPS,
        reads: OPS / 2,
        writes: OPS / 2,
        bytes: OPS << 16,
        errors: 0,
        lost: 0,
        elapsed_ns: 1_000_000_000,
        latency: Some(Latency {
            count: OPS,
            min_ns: 1,
            max_ns: 9,
            mean_ns: 5.0,
            p50_ns: 5,
            p90_ns: 7,
            p99_ns: 8,
            p999_ns: 9,
        }),
        problems: Vec::new(),
        corrupt: 0,
        metrics: Vec::new(),
        exit: None,
        output: None,
    }
}

fn window(guest: &Guest) -> Window {
    let maps = guest.axes.caching_mode == Toggle::On
        && guest.axes.scalable_mode != ScalableMode::FirstStage
        && guest.profile != Profile::Nothing;
    let opening = if maps { OPS } else { 0 };
    let (closing, dsi) = match guest.profile {
        Profile::Strict => (OPS, 0),
        Profile::Batched => (0, 9),
        Profile::Nothing => (0, 0),
    };
    let ops = if guest.profile == Profile::Nothing { 0 } else { OPS };
    let device_iotlb = if guest.axes.device_iotlb == Toggle::On { closing + dsi } else { 0 };
    let events = [("iommu:map", ops), ("iommu:unmap", ops)];
    Window {
        trace: Some(TraceCounts {
            psi: opening + closing,
            psi_opening: opening,
            psi_closing: closing,
            dsi,
            device_iotlb,
            ..TraceCounts::default()
        }),
        dma: Some(DmaCounts {
            events: events.map(|(name, count)| (name.to_owned(), count)).into(),
        }),
        probe: (guest.axes.passthrough == Passthrough::Probe).then(|| probe_counts(ops)),
        ..Window::new(WindowKind::Counting, None, report())
    }
}

/// What a probe sees of requests whose buffers are a page each and go when they should.
fn probe_counts(requests: u64) -> ProbeCounts {
    let gone = Spread { p50: 0, p99: 1, max: 3 };
    ProbeCounts {
        maps: requests,
        unmaps: requests,
        peak: 30,
        commands: [("read".to_owned(), requests)].into(),
        stale: Some(Stale { requests, later_requests: Some(gone), ..Stale::default() }),
        ..ProbeCounts::default()
    }
}
