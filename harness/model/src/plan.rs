//! The plan to launch one guest: every argument and every word, before anything is started.

use std::borrow::Cow;

use dmarig_viommu::{Viommu, mode::Settings, tables::PAGE_BYTES};
use dmarig_wire::{JOB_PARAMETER, Job, encode_job};

use crate::{
    axes::{Accelerator, Axes, Device, Passthrough, Policy, ScalableMode},
    disk::{DISK_BYTES, DISK_FILE},
    kernel::Kernel,
    nested::OUTER_DEVICE,
    probe,
    qemu::{Qemu, VFIO_USER},
    skip::{CommandLineTooLong, MAX_CMDLINE, SkipReason},
    viommu,
};

/// Words of the kernel's command line that make the boot faster and change nothing under test.
pub const BOOT_LEVERS: &[&str] = &["cryptomgr.notests", "noreplace-smp"];

/// Words without which an emulated guest on a busy host is told from a kernel that is broken by the
/// host's mood alone: the kernel measures itself in wall-clock time, and QEMU may get none of it.
///
/// A kernel that knows no hypervisor counts timer ticks over a few milliseconds of its boot and
/// panics ("timer doesn't work through Interrupt-remapped IO-APIC") where too few came; one that
/// runs under KVM, Hyper-V or VMware does not by itself. It also calibrates the TSC over a few
/// milliseconds, and was seen to be wrong by a factor of 13: each of its clocks and timeouts then
/// runs as much too fast, until it finds out. The HPET is QEMU's own clock and always right. The
/// watchdogs are stretched as far as they go; a guest that really hangs is found by the rig's
/// deadlines.
pub const PATIENCE: &[&str] = &[
    "no_timer_check",
    "tsc=unstable",
    "rcupdate.rcu_cpu_stall_timeout=300",
    "watchdog_thresh=60",
    "workqueue.watchdog_thresh=300",
];

/// The trace FIFO's name in the guest's directory.
pub const TRACE_FIFO: &str = "trace.fifo";

/// The probe's socket in the guest's directory.
pub const PROBE_SOCKET: &str = "probe.sock";

/// Memory that a guest needs beside the mappings that its driver keeps, in bytes.
const BESIDE_LIVE_MAPPINGS: u64 = 256 << 20;

/// What a plan is made of besides the cell's axes.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The QEMU that runs it.
    pub qemu: &'a Qemu,
    /// The kernel under test.
    pub kernel: &'a Kernel,
    /// Path of the initramfs.
    pub initramfs: &'a str,
    /// The accelerator that was found for this QEMU; never `Auto`.
    pub accelerator: Accelerator,
    /// Leave [`BOOT_LEVERS`] away and boot the bzImage's way.
    pub stock_boot: bool,
    /// More words for the kernel's command line.
    pub append: &'a [String],
    /// Arguments by which QEMU gets a device of the host's; empty where none is named.
    pub host_device: &'a [String],
    /// How the case wants its probe.
    pub probe: &'a probe::Knobs,
}

/// The plan to launch one guest. Paths of channels are relative to the guest's own directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchPlan {
    /// The QEMU binary.
    pub program: String,
    /// Arguments that make the machine.
    pub machine: Vec<String>,
    /// Arguments that tie it to the rig.
    pub channels: Vec<String>,
    /// The kernel's image, initramfs and command line as arguments.
    pub boot: Vec<String>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Those words of it that are boot levers.
    pub levers: Vec<String>,
    /// Whether there is a disk to make, of [`DISK_BYTES`].
    pub disk: bool,
    /// The probe that serves the device, where one does.
    pub probe: Option<probe::Settings>,
    /// Trace events of a counting window.
    pub trace_events: Vec<&'static str>,
}

impl LaunchPlan {
    /// Plans the launch of a cell.
    ///
    /// # Errors
    /// [`SkipReason`]
    pub fn new(axes: &Axes, parts: &Parts<'_>) -> Result<Self, SkipReason> {
        let Parts { qemu, kernel, .. } = *parts;
        let viommu = viommu::for_axes(axes);
        if let Some(reason) = qemu.refuses(axes) {
            return Err(reason);
        }
        let lacks = kernel.lacks(axes);
        if !lacks.is_empty() {
            return Err(SkipReason::Kernel { name: kernel.name.clone(), options: lacks });
        }
        let probe = probe(axes, parts.probe)?;
        let levers = if parts.stock_boot { &[][..] } else { BOOT_LEVERS };
        let cmdline = cmdline(axes, kernel, parts.accelerator, levers, parts.append)?;
        let mut machine = machine(axes, parts);
        machine.extend(["-device".to_owned(), qemu.iommu_device(axes)?]);
        machine.extend(device(axes, parts.host_device)?);
        if qemu.sandbox {
            let denied = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
            machine.extend(["-sandbox".to_owned(), denied.to_owned()]);
        }
        let boot = ["-kernel", &kernel.image, "-initrd", parts.initramfs, "-append", &cmdline];
        Ok(Self {
            program: qemu.path.clone(),
            machine,
            channels: channels(viommu),
            boot: boot.map(str::to_owned).into(),
            cmdline,
            levers: levers.iter().map(|word| (*word).to_owned()).collect(),
            disk: !axes.device.is_network() && axes.passthrough == Passthrough::None,
            probe,
            trace_events: viommu.counting_events(&Settings::from(axes)),
        })
    }

    /// The whole command, binary first, as the rig runs it in the guest's directory.
    #[must_use]
    pub fn argv(&self) -> Vec<String> {
        let program = std::iter::once(&self.program);
        program.chain(&self.machine).chain(&self.boot).chain(&self.channels).cloned().collect()
    }

    /// A shell command that boots the same machine with its console on the terminal; the agent runs
    /// `job` without a rig and powers off.
    ///
    /// # Errors
    /// [`CommandLineTooLong`] where the job does not fit on the kernel's command line.
    pub fn by_hand(&self, job: &Job) -> Result<String, CommandLineTooLong> {
        let cmdline = format!("{} {JOB_PARAMETER}={}", self.cmdline, encode_job(job));
        if cmdline.len() > MAX_CMDLINE {
            return Err(CommandLineTooLong { bytes: cmdline.len() });
        }
        let mut boot = self.boot.clone();
        if let Some(argument) = boot.last_mut() {
            *argument = cmdline;
        }
        let mut words = Vec::new();
        if let Some(settings) = &self.probe {
            // A probe runs QEMU itself, once its socket is there.
            words.extend(["dmarig", "probe", PROBE_SOCKET, "--settings"].map(str::to_owned));
            // Plain numbers and booleans: that can't fail.
            words.push(serde_json::to_string(settings).unwrap_or_default());
            words.push("--".to_owned());
        }
        words.push(self.program.clone());
        words.extend(self.machine.iter().cloned());
        words.extend(boot);
        words.extend(["-serial", "stdio", "-serial", "null"].map(str::to_owned));
        let command = shell_words(words.iter());
        if self.disk {
            return Ok(format!("truncate -s {DISK_BYTES} {DISK_FILE} && {command}"));
        }
        Ok(command)
    }
}

/// Quotes words for a shell, each option on a line of its own.
pub fn shell_words<'a>(words: impl Iterator<Item = &'a String>) -> String {
    quote(words, " \\\n  ")
}

/// Quotes words for a shell, in one line.
pub fn shell_line<'a>(words: impl Iterator<Item = &'a String>) -> String {
    quote(words, " ")
}

fn quote<'a>(words: impl Iterator<Item = &'a String>, before_option: &str) -> String {
    let mut command = String::new();
    for word in words {
        if !command.is_empty() {
            command.push_str(if word.starts_with('-') { before_option } else { " " });
        }
        command.push_str(&quote_word(word));
    }
    command
}

/// Quotes one word if a shell would change it. `shlex` alone would also quote the `=` and `,` of most
/// options, which shells leave as they are outside of braces.
fn quote_word(word: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,./:@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return Cow::Borrowed(word);
    }
    // Only a NUL can't be quoted, and no program takes an argument with one.
    shlex::try_quote(word).unwrap_or_default()
}

fn cmdline(
    axes: &Axes,
    kernel: &Kernel,
    accelerator: Accelerator,
    levers: &[&str],
    append: &[String],
) -> Result<String, CommandLineTooLong> {
    // `panic=-1` reboots at once, which `-no-reboot` makes QEMU's end: a panic is never waited out.
    // `earlycon` shows what a kernel says before it has a console: that it dies there, for example.
    let mut words: Vec<String> = vec![
        "console=ttyS0,115200".into(),
        "earlycon=uart8250,io,0x3f8,115200".into(),
        "panic=-1".into(),
    ];
    if accelerator == Accelerator::Tcg {
        words.extend(PATIENCE.iter().map(|word| (*word).to_owned()));
    }
    words.extend(kernel.policy_words(axes));
    words.extend(levers.iter().map(|word| (*word).to_owned()));
    words.extend(append.iter().cloned());
    let line = words.join(" ");
    if line.len() > MAX_CMDLINE {
        return Err(CommandLineTooLong { bytes: line.len() });
    }
    Ok(line)
}

fn machine(axes: &Axes, parts: &Parts<'_>) -> Vec<String> {
    let accelerator = parts.accelerator.name();
    // A device in another process gets at the guest's memory by a file that both have open.
    let shared = axes.passthrough == Passthrough::Probe;
    // Interrupt remapping under KVM needs the split interrupt controller; TCG has no other way.
    let mut words: Vec<String> = [
        "-name",
        "dmarig",
        "-no-user-config",
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-M",
        if shared {
            "q35,kernel-irqchip=split,memory-backend=ram"
        } else {
            "q35,kernel-irqchip=split"
        },
        "-accel",
        accelerator,
    ]
    .map(str::to_owned)
    .into();
    if parts.accelerator == Accelerator::Kvm {
        words.extend(["-cpu", "host"].map(str::to_owned));
    }
    words.extend([
        "-smp".into(),
        axes.smp.to_string(),
        "-m".into(),
        format!("{}M", axes.memory_mib),
    ]);
    if shared {
        let memory = format!("memory-backend-memfd,id=ram,size={}M,share=on", axes.memory_mib);
        words.extend(["-object".to_owned(), memory]);
    }
    words
}

/// QEMU connects to sockets that the rig listens on: no waiting for a socket to appear.
fn channels(viommu: &dyn Viommu) -> Vec<String> {
    let first_event = format!("enable={}", viommu.trace().first_event);
    [
        "-chardev",
        "socket,id=console,path=console.sock",
        "-serial",
        "chardev:console",
        "-chardev",
        "socket,id=agent,path=agent.sock",
        "-serial",
        "chardev:agent",
        "-chardev",
        "socket,id=qmp,path=qmp.sock",
        "-mon",
        "chardev=qmp,mode=control",
        // One rare event at the start makes QEMU open the log; it is switched off before the guest
        // runs, and others are switched on over QMP.
        "-trace",
        &first_event,
        "-D",
        TRACE_FIFO,
        "-S",
    ]
    .map(str::to_owned)
    .into()
}

/// The probe that a cell needs.
fn probe(axes: &Axes, knobs: &probe::Knobs) -> Result<Option<probe::Settings>, SkipReason> {
    if axes.passthrough != Passthrough::Probe {
        return match axes.live_mappings {
            0 => Ok(None),
            _ => Err(SkipReason::LiveMappings),
        };
    }
    // Measured with QEMU 11.1: it sends no DMA_MAP for them, and the driver's first command fails. Without
    // translation there is nothing to follow.
    if axes.scalable_mode == ScalableMode::FirstStage && axes.policy != Policy::Passthrough {
        return Err(SkipReason::FirstStageProbe);
    }
    let needs = u64::from(axes.live_mappings) * PAGE_BYTES + BESIDE_LIVE_MAPPINGS;
    if needs > u64::from(axes.memory_mib) << 20 && axes.live_mappings > 0 {
        return Err(SkipReason::Memory {
            mappings: axes.live_mappings,
            needed: needs >> 20,
            given: axes.memory_mib,
        });
    }
    Ok(Some(knobs.settings(axes.live_mappings)))
}

fn passed_through(axes: &Axes, host: &[String]) -> Result<Vec<String>, SkipReason> {
    match axes.passthrough {
        Passthrough::Probe => {
            let socket = serde_json::json!({
                "driver": VFIO_USER,
                "id": "disk0",
                "socket": {"type": "unix", "path": PROBE_SOCKET},
            });
            Ok(vec!["-device".to_owned(), socket.to_string()])
        }
        Passthrough::Host if !host.is_empty() => Ok(host.to_vec()),
        Passthrough::Host => Err(SkipReason::NoHostDevice),
        // Planned as its two guests: see `nested`.
        Passthrough::Nested | Passthrough::None => Err(SkipReason::Passthrough(axes.passthrough)),
    }
}

fn device(axes: &Axes, host: &[String]) -> Result<Vec<String>, SkipReason> {
    if axes.passthrough != Passthrough::None {
        return passed_through(axes, host);
    }
    Ok(emulated(axes))
}

fn emulated(axes: &Axes) -> Vec<String> {
    // virtio stands behind the virtual IOMMU only as a modern device that is told so. It has address
    // translation services only as a PCIe endpoint, which it is not on the root bus.
    let ats = axes.device_iotlb == crate::axes::Toggle::On;
    let port = |n: u8| {
        ats.then(|| {
            ["-device".to_owned(), format!("pcie-root-port,id=port{n},chassis={n},slot={n}")]
        })
        .into_iter()
        .flatten()
    };
    let virtio = |n: u8| {
        let at = if ats { format!(",ats=on,bus=port{n}") } else { String::new() };
        format!("iommu_platform=on,disable-legacy=on{at}")
    };
    let disk = |device: String| -> Vec<String> {
        let file = format!("driver=file,node-name=file,filename={DISK_FILE},cache.no-flush=on");
        let raw = "driver=raw,node-name=disk,file=file".to_owned();
        ["-blockdev".to_owned(), file, "-blockdev".into(), raw, "-device".into(), device].into()
    };
    let nic = |n: u8, device: String| {
        // No option ROM: nobody boots from it, and not every host has the file.
        let device = format!("{device},id=nic{n},netdev=net{n},mac=52:54:00:dd:00:0{n},romfile=");
        let end = format!("hubport,id=net{n},hubid=0");
        ["-netdev".to_owned(), end, "-device".to_owned(), device]
    };
    match axes.device {
        Device::Nvme => {
            let slot = format!("0x{}", &OUTER_DEVICE[8..10]);
            disk(format!("nvme,id=disk0,serial=dmarig,drive=disk,addr={slot}"))
        }
        Device::VirtioBlk => {
            let device = format!("virtio-blk-pci,id=disk0,drive=disk,{}", virtio(0));
            port(0).chain(disk(device)).collect()
        }
        Device::E1000e => (0..2).flat_map(|n| nic(n, "e1000e".to_owned())).collect(),
        Device::VirtioNet => (0..2)
            .flat_map(|n| port(n).chain(nic(n, format!("virtio-net-pci,{}", virtio(n)))))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use dmarig_wire::{ExecJob, decode_job};

    use super::*;
    use crate::{
        axes::Toggle,
        kernel::tests::kernel,
        qemu::tests::{V7_2, qemu},
    };

    fn plan(axes: &Axes) -> Result<LaunchPlan, SkipReason> {
        LaunchPlan::new(
            axes,
            &Parts {
                qemu: &qemu("7.2.22", V7_2),
                kernel: &kernel("6.1.176", &[]),
                initramfs: "/cache/initramfs.cpio",
                accelerator: Accelerator::Tcg,
                stock_boot: false,
                append: &[],
                host_device: &[],
                probe: &probe::Knobs::default(),
            },
        )
    }

    #[test]
    fn a_plan_with_a_probe() {
        let axes = Axes {
            caching_mode: Toggle::On,
            passthrough: Passthrough::Probe,
            live_mappings: 1000,
            ..Axes::default()
        };
        let plan = plan(&axes).unwrap();
        insta::assert_snapshot!(shell_words(plan.argv().iter()));
        insta::assert_snapshot!(plan.by_hand(&Job::Idle).unwrap());
        assert_eq!(plan.probe.unwrap().host_memory_bytes, 1000 * PAGE_BYTES);
        assert!(!plan.disk);
    }

    #[test]
    fn live_mappings_need_a_probe_and_memory() {
        let axes = Axes { live_mappings: 100_000, ..Axes::default() };
        assert_eq!(plan(&axes).unwrap_err(), SkipReason::LiveMappings);
        let axes = Axes { passthrough: Passthrough::Probe, ..axes };
        assert_eq!(
            plan(&axes).unwrap_err(),
            SkipReason::Memory { mappings: 100_000, needed: 646, given: 512 }
        );
    }

    #[test]
    fn a_probe_is_told_of_no_first_stage_mapping() {
        let (passthrough, scalable_mode) = (Passthrough::Probe, ScalableMode::FirstStage);
        let axes = Axes { passthrough, scalable_mode, ..Axes::default() };
        let knobs = probe::Knobs::default();
        assert_eq!(probe(&axes, &knobs).unwrap_err(), SkipReason::FirstStageProbe);
        let policy = Policy::Passthrough;
        assert!(probe(&Axes { policy, ..axes.clone() }, &knobs).is_ok());
        let scalable_mode = ScalableMode::SecondStage;
        assert!(probe(&Axes { scalable_mode, ..axes }, &knobs).is_ok());
    }

    #[test]
    fn a_plan_for_a_disk() {
        let axes = Axes { caching_mode: Toggle::On, policy: Policy::Strict, ..Axes::default() };
        insta::assert_snapshot!(shell_words(plan(&axes).unwrap().argv().iter()));
    }

    #[test]
    fn a_plan_for_network_interfaces() {
        let axes = Axes { device: Device::VirtioNet, device_iotlb: Toggle::On, ..Axes::default() };
        insta::assert_snapshot!(shell_words(plan(&axes).unwrap().argv().iter()));
    }

    #[test]
    fn by_hand_the_console_is_the_terminal() {
        insta::assert_snapshot!(plan(&Axes::default()).unwrap().by_hand(&Job::Idle).unwrap());
    }

    /// The words that a shell makes of a command.
    fn words(command: &str) -> Vec<String> {
        shlex::split(command).expect("a shell command")
    }

    #[test]
    fn quotes_words_so_that_a_shell_splits_them_again() {
        let argv = ["qemu", "a b", "it's", "\"x\" $HOME `id`", "", "a=b,c:@%+", "\\^!{1,2}*\n"];
        let argv = argv.map(str::to_owned);
        assert_eq!(words(&shell_line(argv.iter())), argv);
        assert_eq!(words(&shell_words(argv.iter())), argv);
    }

    #[test]
    fn passes_a_job_with_commas_blanks_and_quotes_by_hand() {
        let argv = ["/add/x", "a,b", "c d", "e\"f", "g'h"].map(str::to_owned).to_vec();
        let job = Job::Exec(ExecJob { argv, echo: false });
        let command = plan(&Axes::default()).unwrap().by_hand(&job).unwrap();
        let words = words(&command);
        let append = words.iter().position(|word| word == "-append").unwrap();
        let job_word = words[append + 1].split(' ').next_back().unwrap();
        let value = job_word.strip_prefix("dmarig.job=").unwrap();
        assert_eq!(decode_job(value).unwrap(), job);
    }

    #[test]
    fn refuses_a_job_that_exceeds_the_kernels_command_line_by_hand() {
        let job = Job::Exec(ExecJob { argv: vec!["x".repeat(2000)], echo: false });
        let error = plan(&Axes::default()).unwrap().by_hand(&job).unwrap_err();
        assert!(error.bytes > MAX_CMDLINE);
    }

    #[test]
    fn a_command_line_that_no_kernel_takes_is_refused() {
        let mut long = kernel("6.1.176", &[]);
        long.name = "long".into();
        let append = ["x".repeat(3000)];
        let error = LaunchPlan::new(
            &Axes::default(),
            &Parts {
                qemu: &qemu("7.2.22", V7_2),
                kernel: &long,
                initramfs: "/i",
                accelerator: Accelerator::Tcg,
                stock_boot: true,
                append: &append,
                host_device: &[],
                probe: &probe::Knobs::default(),
            },
        )
        .unwrap_err();
        assert!(matches!(error, SkipReason::CommandLine(_)), "{error}");
    }

    #[test]
    fn a_kernel_without_the_device_is_told_so_by_name() {
        let mut bare = kernel("6.1.176", &[]);
        bare.config.as_mut().unwrap().remove("CONFIG_BLK_DEV_NVME");
        let parts = Parts {
            qemu: &qemu("7.2.22", V7_2),
            kernel: &bare,
            initramfs: "/i",
            accelerator: Accelerator::Tcg,
            stock_boot: false,
            append: &[],
            host_device: &[],
            probe: &probe::Knobs::default(),
        };
        assert_eq!(
            LaunchPlan::new(&Axes::default(), &parts).unwrap_err(),
            SkipReason::Kernel {
                name: "linux-6.1.176".to_owned(),
                options: vec!["NVMe (CONFIG_BLK_DEV_NVME is not set)".to_owned()],
            }
        );
    }
}
