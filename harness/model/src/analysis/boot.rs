//! What a boot says of itself besides what the judge needs: which kernel, on what firmware, told what.

use std::{collections::BTreeMap, sync::LazyLock};

use dmarig_viommu::log::{Access, BootFact};
use dmarig_wire::LogRecord;
use regex::Regex;

use crate::{
    log::{Fault, fault_in, line},
    text::{message, shown},
    version::Version,
    viommu::VIOMMUS,
};

/// Groups' devices and faulting devices that are told apart.
const MAX_DEVICES: usize = 4096;

/// A kernel, as a log names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kernel {
    /// `uname -r`.
    pub(super) release: String,
    pub(super) version: Option<Version>,
    /// Why the version may not tell what the kernel does.
    pub(super) doubt: Option<&'static str>,
    /// Whether it is known from a splat alone.
    pub(super) from_splat: bool,
}

/// Faults of one device.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    pub(super) count: u64,
    /// How often each reason, and the kernel's words for it.
    pub(super) reasons: BTreeMap<u8, (u64, String)>,
    pub(super) accesses: BTreeMap<&'static str, u64>,
    pub(super) addresses: (u64, u64),
    pub(super) first: String,
}

/// What a boot says.
#[derive(Debug, Default)]
pub(super) struct Boot {
    pub(super) kernel: Option<Kernel>,
    pub(super) command_line: Option<String>,
    /// The OEM in the line of the firmware's table for the IOMMU.
    pub(super) firmware_table: Option<String>,
    /// Whether ACPI tables are listed at all.
    pub(super) tables: bool,
    pub(super) disabled: bool,
    pub(super) opted_in: bool,
    /// Whether its IOMMU is AMD's.
    pub(super) amd: bool,
    /// The lines of it that tell how the default domain and the policy were set.
    pub(super) domain_by_user: bool,
    pub(super) policy_by_user: bool,
    /// The driver read its own word for the strict policy.
    pub(super) strict_option: bool,
    /// Scalable mode was requested.
    pub(super) scalable_option: bool,
    pub(super) scalable_off: bool,
    pub(super) groups: BTreeMap<u32, Vec<String>>,
    pub(super) faults: BTreeMap<String, Faults>,
    pub(super) suppressed: u64,
    /// Records of the lines between which the warning stands.
    pub(super) invalidation_at: Option<usize>,
    pub(super) success_at: Option<usize>,
    last_time_us: u64,
    /// Whether programs were started.
    programs: bool,
}

struct Lines {
    splat: Regex,
    command_line: Regex,
    group: Regex,
    amd: Regex,
    amd_fault: Regex,
    ubuntu: Regex,
    vendor: Regex,
}

static LINES: LazyLock<Lines> = LazyLock::new(|| {
    let regex = |text: &str| Regex::new(text).expect("a pattern of ours");
    Lines {
        splat: regex(
            r"^CPU: \d+ .*(?:[Nn]ot [Tt]ainted|Tainted: .*?) (?<release>\d+\.\d+[^\s]*) #\S+(?<rest>.*)",
        ),
        command_line: regex(r"^(?:Kernel command line|Command line): (.*)"),
        group: regex(
            r"^(?:\S+ (?<new>[0-9a-f]{4}:[0-9a-f:.]+): Adding to iommu group (?<to>\d+)|iommu: Adding device (?<old>\S+) to group (?<in>\d+))$",
        ),
        amd: regex(r"^(?:\S+ [0-9a-f:.]{7,16}: )?(?:AMD-Vi: |Event logged \[[A-Z_]+ )"),
        amd_fault: regex(
            r"^(?:\S+ (?<by>[0-9a-f:.]{7,16}): )?(?:AMD-Vi: )?Event logged \[IO_PAGE_FAULT (?:device=(?<device>[0-9a-f:.]{7,16}) )?.{0,40}?address=0x(?<address>[0-9a-f]{1,16}) flags=0x(?<flags>[0-9a-f]{1,4})",
        ),
        ubuntu: regex(r"\(Ubuntu \S+ (\d+\.\d+\.\d+)\)"),
        vendor: regex(r"\.el\d|\.fbk|^\d+\.\d+\.\d+-1[0-9]{5}\.|-default$"),
    }
});

/// Reads a boot.
pub(super) fn read(records: &[LogRecord]) -> Boot {
    let mut boot = Boot::default();
    for (index, record) in records.iter().enumerate() {
        boot.last_time_us = boot.last_time_us.max(record.time_us);
        for text in message(&record.text).split('\n') {
            boot.line(text.trim_end(), index, record);
        }
    }
    boot
}

impl Boot {
    /// The kernel's version, where it tells what the kernel does.
    pub(super) fn version(&self) -> Option<Version> {
        self.kernel
            .as_ref()
            .filter(|kernel| kernel.doubt.is_none())
            .and_then(|kernel| kernel.version)
    }

    /// Whether the log goes on beyond the kernel's start, in which the driver comes up or never does.
    pub(super) fn started(&self) -> bool {
        self.programs || self.last_time_us > 20_000_000
    }

    fn line(&mut self, text: &str, index: usize, record: &LogRecord) {
        if text.starts_with("Linux version ") {
            self.kernel = kernel_of_banner(text);
        } else if text.starts_with("CPU: ") && self.kernel.is_none() {
            self.kernel = LINES.splat.captures(text).map(|found| Kernel {
                from_splat: true,
                ..kernel(&found["release"], &format!("x {} {}", &found["release"], &found["rest"]))
            });
        } else if let Some(found) = LINES.command_line.captures(text) {
            self.command_line = Some(found[1].to_owned());
        } else if text.starts_with("ACPI: ") {
            self.tables |= text.starts_with("ACPI: RSDP ") || text.starts_with("ACPI: FACP ");
            self.driver_line(text, index, record);
        } else if let Some(found) = LINES.group.captures(text) {
            self.group(&found);
        } else if LINES.amd.is_match(text) {
            self.amd_line(text, record);
        } else if let Some(rest) = text.strip_prefix("iommu: ") {
            let by_user = rest.contains("(set via kernel command line)");
            self.domain_by_user |= by_user && rest.starts_with("Default domain type");
            self.policy_by_user |= by_user && rest.contains("invalidation policy");
        } else {
            // The kernel's last words before the first program, which a wall clock's stamps don't tell.
            self.programs |= text.starts_with("Freeing unused kernel ")
                || text.starts_with("Run ") && text.ends_with(" as init process")
                || text.starts_with("systemd[1]: ");
            self.driver_line(text, index, record);
        }
    }

    fn driver_line(&mut self, text: &str, index: usize, record: &LogRecord) {
        for fact in VIOMMUS.iter().flat_map(|viommu| viommu.boot_facts(text)) {
            match fact {
                BootFact::FirmwareTable(oem) => self.firmware_table = Some(shown(&oem)),
                BootFact::Started => {
                    self.success_at.get_or_insert(index);
                }
                BootFact::InvalidationChosen => {
                    self.invalidation_at.get_or_insert(index);
                }
                BootFact::Disabled => self.disabled = true,
                BootFact::PlatformOptIn => self.opted_in = true,
                BootFact::StrictOption => self.strict_option = true,
                BootFact::ScalableRequested => self.scalable_option = true,
                BootFact::ScalableOff => self.scalable_off = true,
                BootFact::FaultsSuppressed(count) => {
                    self.suppressed = self.suppressed.saturating_add(count);
                }
            }
        }
        if let Some(fault) = fault_in(text, index, record) {
            self.fault(&fault);
        }
    }

    fn group(&mut self, found: &regex::Captures<'_>) {
        let device = found.name("new").or_else(|| found.name("old"));
        let number = found.name("to").or_else(|| found.name("in"));
        let (Some(device), Some(number)) = (device, number) else { return };
        let Ok(number) = number.as_str().parse() else { return };
        if self.groups.values().map(Vec::len).sum::<usize>() < MAX_DEVICES {
            // In the older form a device's name is any word.
            let device = shown(device.as_str());
            // A device that was removed and came back is where it is now.
            self.groups.values_mut().for_each(|group| group.retain(|of| *of != device));
            self.groups.entry(number).or_default().push(device);
        }
    }

    fn fault(&mut self, fault: &Fault) {
        let Fault { device, address, access, seen, .. } = fault;
        if let Some(of) = self.count(device, *address, *access, &seen.line) {
            let reason = of.reasons.entry(fault.reason).or_insert_with(|| (0, fault.why.clone()));
            reason.0 += 1;
        }
    }

    /// A line of AMD's driver. Its faults have no reason.
    fn amd_line(&mut self, text: &str, record: &LogRecord) {
        const WRITE: u64 = 0x20;
        // On Intel's machines, too, a module for AMD's says that there is none.
        self.amd |= !text.contains("AMD IOMMUv2");
        let Some(found) = LINES.amd_fault.captures(text) else { return };
        let Some(device) = found.name("device").or_else(|| found.name("by")) else { return };
        let hex = |name| u64::from_str_radix(&found[name], 16).unwrap_or_default();
        let access = if hex("flags") & WRITE != 0 { Access::Write } else { Access::Read };
        self.count(device.as_str(), hex("address"), access, &line(record));
    }

    /// Counts a device's fault; nothing where there are too many devices to be true.
    fn count(
        &mut self,
        device: &str,
        address: u64,
        access: Access,
        line: &str,
    ) -> Option<&mut Faults> {
        if self.faults.len() >= MAX_DEVICES && !self.faults.contains_key(device) {
            return None;
        }
        let of = self.faults.entry(device.to_owned()).or_default();
        if of.count == 0 {
            of.addresses = (address, address);
            of.first = line.to_owned();
        }
        of.count += 1;
        let (low, high) = of.addresses;
        of.addresses = (low.min(address), high.max(address));
        *of.accesses.entry(access.name()).or_default() += 1;
        Some(of)
    }
}

fn kernel_of_banner(banner: &str) -> Option<Kernel> {
    let release = banner.split_ascii_whitespace().nth(2)?;
    Some(kernel(release, banner))
}

/// A kernel by its release and all that is said beside it.
fn kernel(release: &str, said: &str) -> Kernel {
    let ubuntu = LINES.ubuntu.captures(said).and_then(|found| found[1].parse().ok());
    let debian = Version::from_banner(&format!("Linux version {release} {said}"));
    let version = ubuntu.or(debian);
    let hidden =
        version.is_some_and(|version| version.parts[2] == 0) && release.contains("-generic");
    let doubt = if LINES.vendor.is_match(release) {
        Some("its vendor puts changes of later kernels into it")
    } else if hidden {
        Some("its release hides the patch level")
    } else {
        None
    };
    Kernel { release: shown(release), version, doubt, from_splat: false }
}
