//! The Linux driver for Intel's IOMMU: its option, its parameter and its tracepoints.

use dmarig_viommu::{
    DmaTracepoints,
    command_line::{CommandLine, DriverParameter, DriverWord, KernelDefaults, KernelOption, read},
    mode::{Policy, Settings},
    version::Version,
};

pub(crate) const OPTION: KernelOption =
    KernelOption { name: "CONFIG_INTEL_IOMMU", purpose: "the Intel IOMMU driver" };

/// The first kernels whose Intel driver follows `iommu.strict`.
pub(crate) const FOLLOWS_IOMMU_STRICT: Version = Version::new(5, 15, 0);

pub(crate) const DMA_TRACEPOINTS: DmaTracepoints = DmaTracepoints {
    maps: &["intel_iommu:map_single", "intel_iommu:map_sg"],
    unmaps: &["intel_iommu:unmap_single"],
    list_unmaps: &["intel_iommu:unmap_sg"],
};

fn follows_iommu_strict(kernel: Option<Version>) -> bool {
    kernel.is_none_or(|version| version >= FOLLOWS_IOMMU_STRICT)
}

pub(crate) fn words(defaults: &KernelDefaults, settings: &Settings) -> Vec<String> {
    let mut driver = vec!["intel_iommu=on"];
    let mut kernel = Vec::new();
    match settings.policy {
        Policy::Strict if follows_iommu_strict(defaults.version) => kernel.push("iommu.strict=1"),
        Policy::Strict => driver.push("strict"),
        // The default of nearly all kernels, so it is given only to those with another default.
        Policy::Lazy if defaults.strict => kernel.push("iommu.strict=0"),
        Policy::Passthrough => kernel.push("iommu=pt"),
        Policy::Lazy => {}
    }
    if settings.policy != Policy::Passthrough && defaults.passthrough {
        kernel.push("iommu.passthrough=0");
    }
    if settings.page_tables.is_scalable() {
        driver.push("sm_on");
    }
    if settings.single_pages {
        driver.push("sp_off");
    }
    std::iter::once(driver.join(",")).chain(kernel.into_iter().map(str::to_owned)).collect()
}

pub(crate) fn read_command_line(text: &str, kernel: Option<Version>) -> CommandLine {
    let parameter = DriverParameter {
        name: "intel_iommu",
        decode: driver_word,
        follows_iommu_strict: follows_iommu_strict(kernel),
    };
    read(text, &parameter)
}

fn driver_word(value: &str) -> Option<DriverWord> {
    match value {
        "on" => Some(DriverWord::Power(true)),
        "off" => Some(DriverWord::Power(false)),
        "strict" => Some(DriverWord::Strict),
        "sm_on" => Some(DriverWord::ScalableMode(true)),
        "sm_off" => Some(DriverWord::ScalableMode(false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use dmarig_viommu::mode::PageTables;

    use super::*;

    const SETTINGS: Settings = Settings {
        caching_mode: false,
        pass_through: true,
        device_iotlb: false,
        page_tables: PageTables::Legacy,
        address_bits: None,
        policy: Policy::Lazy,
        single_pages: false,
    };

    fn defaults(version: &str) -> KernelDefaults {
        KernelDefaults { version: version.parse().ok(), strict: false, passthrough: false }
    }

    #[test]
    fn requests_settings_in_the_words_of_each_version() {
        let lazy = SETTINGS;
        let strict = Settings { policy: Policy::Strict, ..SETTINGS };
        let passthrough = Settings { policy: Policy::Passthrough, ..SETTINGS };
        let first_stage = Settings { page_tables: PageTables::FirstStage, ..SETTINGS };
        let single_pages = Settings { single_pages: true, ..SETTINGS };
        for (version, settings, expected) in [
            ("5.10.262", strict, "intel_iommu=on,strict"),
            ("6.1.176", strict, "intel_iommu=on iommu.strict=1"),
            ("unknown", strict, "intel_iommu=on iommu.strict=1"),
            ("6.1.176", lazy, "intel_iommu=on"),
            ("5.10.1", passthrough, "intel_iommu=on iommu=pt"),
            ("6.12", first_stage, "intel_iommu=on,sm_on"),
            ("6.12", single_pages, "intel_iommu=on,sp_off"),
        ] {
            assert_eq!(words(&defaults(version), &settings).join(" "), expected);
        }
    }

    #[test]
    fn overrides_a_kernels_other_default() {
        let passthrough = Settings { policy: Policy::Passthrough, ..SETTINGS };
        let strict_kernel = KernelDefaults { strict: true, ..defaults("6.1") };
        let passthrough_kernel = KernelDefaults { passthrough: true, ..defaults("6.1") };
        for (kernel, settings, expected) in [
            (strict_kernel, SETTINGS, "intel_iommu=on iommu.strict=0"),
            (passthrough_kernel, SETTINGS, "intel_iommu=on iommu.passthrough=0"),
            (passthrough_kernel, passthrough, "intel_iommu=on iommu=pt"),
        ] {
            assert_eq!(words(&kernel, &settings).join(" "), expected);
        }
    }

    #[test]
    fn reads_the_last_of_contradicting_words() {
        use Policy::{Lazy, Passthrough, Strict};
        for (text, version, off, policy, scalable_mode) in [
            ("quiet", "6.1", false, Lazy, None),
            ("intel_iommu=on iommu.strict=1", "6.1", false, Strict, None),
            ("intel_iommu=on iommu.strict=1", "5.10", false, Lazy, None),
            ("intel_iommu=on,strict", "5.10", false, Strict, None),
            ("intel_iommu=strict iommu.strict=0", "6.1", false, Lazy, None),
            ("intel_iommu=off", "6.1", true, Lazy, None),
            ("intel_iommu=off intel_iommu=on,sm_on", "6.1", false, Lazy, Some(true)),
            ("intel_iommu=on,sm_on,sm_off", "6.1", false, Lazy, Some(false)),
            ("intel_iommu=on iommu=off", "6.1", true, Lazy, None),
            ("iommu=pt iommu.strict=1", "6.1", false, Passthrough, None),
            ("iommu=pt iommu=nopt", "6.1", false, Lazy, None),
        ] {
            let expected = CommandLine { off, policy, scalable_mode };
            assert_eq!(read_command_line(text, version.parse().ok()), expected, "{text}");
        }
    }
}
