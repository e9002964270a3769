//! Facts about Intel's IOMMU (VT-d), behind the interface of a virtual IOMMU: QEMU's `intel-iommu`
//! device and its trace, the Linux driver's parameter and log, registers, fault reasons and page
//! tables. No other crate names them.

mod faults;
mod kernel;
mod log;
mod printed;
mod qemu;
mod registers;
mod tables;
mod trace;

use dmarig_viommu::{
    DmaTracepoints, Properties, RegisterAddresses, Viommu,
    command_line::{CommandLine, KernelDefaults, KernelOption},
    log::{Advice, BootFact, DmaFault, FaultReason, FindingPattern, LogFact, WarningSpelling},
    mode::{Capabilities, Registers, ReportedMode, Settings},
    qemu::{QemuFacts, Unsupported},
    tables::{BadPrint, FunctionTables, GuestPages, Leaf, PciFunction, PrintedTables, WalkError},
    trace::{TraceEvent, TraceFacts},
    version::Version,
};

/// Intel's IOMMU.
#[derive(Debug, Clone, Copy)]
pub struct Vtd;

impl Viommu for Vtd {
    fn qemu(&self) -> &'static QemuFacts {
        &qemu::FACTS
    }

    fn qemu_device(
        &self,
        properties: &Properties,
        settings: &Settings,
    ) -> Result<String, Unsupported> {
        qemu::device(properties, settings)
    }

    fn reported_mode(&self, properties: &Properties) -> Option<ReportedMode> {
        qemu::reported_mode(properties)
    }

    fn driver_option(&self) -> KernelOption {
        kernel::OPTION
    }

    fn kernel_words(&self, defaults: &KernelDefaults, settings: &Settings) -> Vec<String> {
        kernel::words(defaults, settings)
    }

    fn read_command_line(&self, text: &str, kernel: Option<Version>) -> CommandLine {
        kernel::read_command_line(text, kernel)
    }

    fn follows_iommu_strict_since(&self) -> Option<Version> {
        Some(kernel::FOLLOWS_IOMMU_STRICT)
    }

    fn dma_tracepoints(&self) -> &'static DmaTracepoints {
        &kernel::DMA_TRACEPOINTS
    }

    fn register_addresses(&self) -> Option<RegisterAddresses> {
        Some(registers::ADDRESSES)
    }

    fn capabilities(&self, registers: Registers) -> Capabilities {
        registers::capabilities(registers)
    }

    fn describe_capabilities(&self, registers: Registers) -> Vec<String> {
        registers::words(registers)
    }

    fn trace(&self) -> &'static TraceFacts {
        &trace::FACTS
    }

    fn counting_events(&self, settings: &Settings) -> Vec<&'static str> {
        trace::counting_events(settings)
    }

    fn trace_event<'a>(&self, name: &[u8], rest: &'a [u8]) -> Option<TraceEvent<'a>> {
        trace::event(name, rest)
    }

    fn log_prefixes(&self) -> &'static [&'static str] {
        log::PREFIXES
    }

    fn unit_name(&self, number: u32) -> String {
        format!("dmar{number}")
    }

    fn warning_spellings(&self) -> &'static [WarningSpelling] {
        log::warning_spellings()
    }

    fn log_facts(&self, line: &str) -> Vec<LogFact> {
        log::facts(line)
    }

    fn fault(&self, line: &str) -> Option<DmaFault> {
        log::fault(line)
    }

    fn boot_facts(&self, line: &str) -> Vec<BootFact> {
        log::boot_facts(line)
    }

    fn findings(&self) -> &'static [FindingPattern] {
        log::findings()
    }

    fn fault_reason(&self, number: u8) -> Option<FaultReason> {
        faults::reason(number)
    }

    fn advice(&self) -> &'static Advice {
        &log::ADVICE
    }

    fn walk(
        &self,
        memory: &dyn GuestPages,
        root: u64,
        function: PciFunction,
    ) -> Result<FunctionTables, WalkError> {
        tables::walk(memory, root, function)
    }

    fn printed_tables(&self) -> Option<PrintedTables> {
        Some(printed::FILES)
    }

    fn parse_printed_tables(
        &self,
        text: &str,
        device: &str,
    ) -> Result<Option<Vec<Leaf>>, BadPrint> {
        printed::parse(text, device)
    }
}
