//! The interface between the harness and a virtual IOMMU. Everything here is plain data or a pure
//! function, and nothing here holds for one vendor only.
//!
//! A virtual IOMMU is a crate with one type that implements [`Viommu`], and a line in the list of the
//! model.

pub mod command_line;
pub mod log;
pub mod mode;
pub mod qemu;
pub mod tables;
pub mod trace;
pub mod version;

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

use crate::{
    command_line::{CommandLine, KernelDefaults, KernelOption},
    log::{Advice, BootFact, DmaFault, FaultReason, FindingPattern, LogFact, WarningSpelling},
    mode::{Capabilities, PageTables, Registers, ReportedMode, Settings},
    qemu::{QemuFacts, Unsupported},
    tables::{BadPrint, FunctionTables, GuestPages, Leaf, PrintedTables, WalkError},
    trace::{TraceEvent, TraceFacts},
    version::Version,
};

/// Properties of a QEMU device by name.
pub type Properties = BTreeMap<String, Value>;

/// What the harness needs to know about one virtual IOMMU.
pub trait Viommu: fmt::Debug + Sync {
    /// Facts about its device in QEMU.
    fn qemu(&self) -> &'static QemuFacts;

    /// The value of QEMU's `-device` for these settings. `properties` are those that the device of
    /// this QEMU has; they are empty if it has no such device.
    ///
    /// # Errors
    /// [`Unsupported`] if this QEMU cannot be configured in this way.
    fn qemu_device(
        &self,
        properties: &Properties,
        settings: &Settings,
    ) -> Result<String, Unsupported>;

    /// The mode according to the device's properties as a guest runs; `None` if they were not read.
    fn reported_mode(&self, properties: &Properties) -> Option<ReportedMode>;

    /// The kernel option of its driver.
    fn driver_option(&self) -> KernelOption;

    /// Words for the kernel's command line that turn the driver on and request these settings.
    /// A kernel of unknown version is treated as a recent one.
    fn kernel_words(&self, defaults: &KernelDefaults, settings: &Settings) -> Vec<String>;

    /// What a kernel's command line requests from the driver and from the kernel's IOMMU layer.
    fn read_command_line(&self, text: &str, kernel: Option<Version>) -> CommandLine;

    /// The first kernels whose driver follows `iommu.strict`; `None` if all of them do.
    fn follows_iommu_strict_since(&self) -> Option<Version>;

    /// Tracepoints of its driver that count DMA operations.
    fn dma_tracepoints(&self) -> &'static DmaTracepoints;

    /// Physical addresses of its registers in QEMU's machine; `None` if it has none to read.
    fn register_addresses(&self) -> Option<RegisterAddresses>;

    /// Decodes the capability registers.
    fn capabilities(&self, registers: Registers) -> Capabilities;

    /// The capability registers in words, one capability each.
    fn describe_capabilities(&self, registers: Registers) -> Vec<String>;

    /// Names of its trace events.
    fn trace(&self) -> &'static TraceFacts;

    /// Trace events of a counting window with these settings.
    fn counting_events(&self, settings: &Settings) -> Vec<&'static str>;

    /// Decodes one line of QEMU's trace, given as the event's name and the rest of the line; `None`
    /// for an event of something else, or in an unknown form.
    fn trace_event<'a>(&self, name: &[u8], rest: &'a [u8]) -> Option<TraceEvent<'a>>;

    /// What every line of the kernel's log from this driver begins with, in its different forms.
    fn log_prefixes(&self) -> &'static [&'static str];

    /// The name that the driver gives to the unit with this number.
    fn unit_name(&self, number: u32) -> String;

    /// Spellings of the warning that batching is off because the IOMMU is virtual.
    fn warning_spellings(&self) -> &'static [WarningSpelling];

    /// What a line of a kernel log, without its time stamp, says about the mode. A line may hold
    /// several facts, because some of the driver's messages end without a newline.
    fn log_facts(&self, line: &str) -> Vec<LogFact>;

    /// The DMA or interrupt remapping fault that a line of a kernel log reports.
    fn fault(&self, line: &str) -> Option<DmaFault>;

    /// What a line of a kernel log says about the driver's start beyond [`Self::log_facts`].
    fn boot_facts(&self, line: &str) -> Vec<BootFact>;

    /// Patterns of lines that a kernel log must not hold, each for one kind of finding.
    fn findings(&self) -> &'static [FindingPattern];

    /// What a fault reason means; `None` for a number that is not assigned.
    fn fault_reason(&self, number: u8) -> Option<FaultReason>;

    /// Sentences for a person who reads a report on a kernel log.
    fn advice(&self) -> &'static Advice;

    /// Walks the page tables of a PCI function in the guest's memory. `root` is the register at
    /// [`RegisterAddresses::table_root`].
    ///
    /// # Errors
    /// [`WalkError`] if an entry has an unknown form, or the walk does not end.
    fn walk(
        &self,
        memory: &dyn GuestPages,
        root: u64,
        function: tables::PciFunction,
    ) -> Result<FunctionTables, WalkError>;

    /// The files in which the guest's kernel prints page tables; `None` if its driver prints none.
    fn printed_tables(&self) -> Option<PrintedTables>;

    /// The leaves of a device in a print of page tables; `None` if the device is not in it.
    ///
    /// # Errors
    /// [`BadPrint`] with the line that has an unknown form.
    fn parse_printed_tables(&self, text: &str, device: &str)
    -> Result<Option<Vec<Leaf>>, BadPrint>;
}

/// Tracepoints that count DMA operations, each as `group:event`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaTracepoints {
    /// Events of which each is a map.
    pub maps: &'static [&'static str],
    /// Events of which each is an unmap.
    pub unmaps: &'static [&'static str],
    /// Events of unmaps that some kernels report a second time under [`Self::unmaps`].
    pub list_unmaps: &'static [&'static str],
}

/// Physical addresses of 64-bit registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisterAddresses {
    /// The register that becomes [`Registers::cap`].
    pub capability: u64,
    /// The register that becomes [`Registers::ecap`].
    pub extended_capability: u64,
    /// The register that says where the page tables begin.
    pub table_root: u64,
}

impl PageTables {
    /// Whether scalable mode is on.
    #[must_use]
    pub const fn is_scalable(self) -> bool {
        !matches!(self, Self::Legacy)
    }
}
