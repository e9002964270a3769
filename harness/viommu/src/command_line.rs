//! The kernel's command line, as far as it concerns the IOMMU.

use crate::{mode::Policy, version::Version};

/// An option of the kernel's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelOption {
    /// Its name, such as `CONFIG_PCI_ATS`.
    pub name: &'static str,
    /// What it is for, such as `ATS`.
    pub purpose: &'static str,
}

/// A kernel's version and defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelDefaults {
    /// The version, if it is known.
    pub version: Option<Version>,
    /// Whether the policy is strict by default.
    pub strict: bool,
    /// Whether devices are mapped one to one by default.
    pub passthrough: bool,
}

/// What a command line requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandLine {
    /// Whether it turns the IOMMU off.
    pub off: bool,
    /// The policy that it requests.
    pub policy: Policy,
    /// Whether it turns scalable mode on or off; `None` if it does neither.
    pub scalable_mode: Option<bool>,
}

/// A value of the driver's parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverWord {
    /// Turns the IOMMU on or off.
    Power(bool),
    /// Requests the strict policy.
    Strict,
    /// Turns scalable mode on or off.
    ScalableMode(bool),
}

/// The parameter of a driver.
#[derive(Debug, Clone, Copy)]
pub struct DriverParameter {
    /// Its name on the command line.
    pub name: &'static str,
    /// Decodes one of its values; they are separated by commas.
    pub decode: fn(&str) -> Option<DriverWord>,
    /// Whether this kernel's driver follows `iommu.strict`.
    pub follows_iommu_strict: bool,
}

/// Reads a command line: the kernel's own words and those of one driver. If two words contradict each
/// other, the last one wins.
#[must_use]
pub fn read(text: &str, parameter: &DriverParameter) -> CommandLine {
    let (mut driver_off, mut all_off) = (false, false);
    let (mut strict, mut passthrough) = (false, false);
    let mut scalable_mode = None;
    let is_on = |value: &str| matches!(value, "1" | "on" | "y");
    for word in text.split_ascii_whitespace() {
        let Some((name, values)) = word.split_once('=') else { continue };
        match name {
            "iommu.passthrough" => passthrough = is_on(values),
            "iommu.strict" if parameter.follows_iommu_strict => strict = is_on(values),
            "iommu" => {
                for value in values.split(',') {
                    match value {
                        "off" => all_off = true,
                        "pt" => passthrough = true,
                        "nopt" => passthrough = false,
                        _ => {}
                    }
                }
            }
            _ if name == parameter.name => {
                for driver_word in values.split(',').filter_map(parameter.decode) {
                    match driver_word {
                        DriverWord::Power(on) => driver_off = !on,
                        DriverWord::Strict => strict = true,
                        DriverWord::ScalableMode(on) => scalable_mode = Some(on),
                    }
                }
            }
            _ => {}
        }
    }
    let policy = match (passthrough, strict) {
        (true, _) => Policy::Passthrough,
        (false, true) => Policy::Strict,
        (false, false) => Policy::Lazy,
    };
    CommandLine { off: driver_off || all_off, policy, scalable_mode }
}
