//! What the planner knows of a kernel, and how a kernel of that version is asked for a policy.

use std::collections::BTreeMap;

use dmarig_viommu::{command_line::KernelDefaults, mode::Settings, tables::PAGE_BYTES};
use serde::{Deserialize, Serialize};

use crate::{
    axes::{Axes, Device, Toggle},
    version::Version,
    viommu::{self, VIOMMUS},
};

/// How a kernel image is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// An ELF image by its PVH note: nothing is decompressed inside the guest.
    Pvh,
    /// A bzImage by the Linux boot protocol.
    BzImage,
}

impl Boot {
    /// Its name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pvh => "pvh",
            Self::BzImage => "bzimage",
        }
    }
}

/// A configuration option's setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// Built in (or set to any value other than `m` and `n`).
    BuiltIn,
    /// A module.
    Module,
}

/// A kernel, as far as a plan depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Its name on the kernel axis.
    pub name: String,
    /// Its version; `None` where its image does not tell.
    pub version: Option<Version>,
    /// The image that QEMU loads.
    pub image: String,
    /// SHA-256 of that image.
    pub sha256: String,
    /// How it is entered.
    pub boot: Boot,
    /// The options that are set, of those in [`options`]; `None` where the configuration is not
    /// to be had.
    pub config: Option<BTreeMap<String, Setting>>,
    /// Packages it came from, each `name version sha256`.
    pub packages: Vec<String>,
    /// What it was built from.
    pub build: KernelBuild,
}

/// What a kernel was built from, as far as that is known; what is not is an empty text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelBuild {
    /// The source: a package with its hash, or a tree at a commit with what was changed in it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Git commit of the source.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub commit: String,
    /// Edits that were made to it, by name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub edits: String,
    /// SHA-256 of the configuration.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub config_sha256: String,
    /// The compiler and the linker.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub compiler: String,
}

impl KernelBuild {
    /// From what a builder tells of a kernel, a line each, such as `source: ...`, and a hash of its
    /// configuration.
    #[must_use]
    pub fn new(about: &[String], config_sha256: &str) -> Self {
        let told = |what: &str| {
            let line = about.iter().find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
            line.unwrap_or_default().to_owned()
        };
        let source = told("source");
        let is_commit =
            |word: &&str| word.len() == 40 && word.bytes().all(|c| c.is_ascii_hexdigit());
        let mut words = source.split([' ', ',', '(', ')']);
        let commit = words.find(is_commit).unwrap_or_default().to_owned();
        let config_sha256 = config_sha256.to_owned();
        Self { commit, edits: told("edits"), config_sha256, compiler: told("compiler"), source }
    }
}

/// The options that a plan asks about, besides those of [`options`].
const COMMON_OPTIONS: &[&str] = &[
    "CONFIG_BLK_DEV_INITRD",
    "CONFIG_BLK_DEV_NVME",
    "CONFIG_DEVTMPFS",
    "CONFIG_E1000E",
    "CONFIG_IOMMU_DEFAULT_DMA_STRICT",
    "CONFIG_IOMMU_DEFAULT_PASSTHROUGH",
    "CONFIG_PACKET",
    "CONFIG_PCI_ATS",
    "CONFIG_PCI_MSI",
    "CONFIG_SERIAL_8250_CONSOLE",
    "CONFIG_VFIO_IOMMU_TYPE1",
    "CONFIG_VFIO_PCI",
    "CONFIG_VIRTIO_BLK",
    "CONFIG_VIRTIO_NET",
    "CONFIG_VIRTIO_PCI",
];

/// The options that a plan asks about.
pub fn options() -> impl Iterator<Item = &'static str> {
    let drivers = VIOMMUS.iter().map(|viommu| viommu.driver_option().name);
    drivers.chain(COMMON_OPTIONS.iter().copied())
}

impl Kernel {
    fn setting(&self, option: &str) -> Option<Option<Setting>> {
        self.config.as_ref().map(|config| config.get(option).copied())
    }

    fn is_set(&self, option: &str) -> bool {
        matches!(self.setting(option), Some(Some(_)))
    }

    /// What this kernel lacks to run a cell with these axes, option by option, with what each is for.
    #[must_use]
    pub fn lacks(&self, axes: &Axes) -> Vec<String> {
        let driver = viommu::for_axes(axes).driver_option();
        let everywhere = [
            (driver.name, driver.purpose),
            ("CONFIG_SERIAL_8250_CONSOLE", "a serial console"),
            ("CONFIG_BLK_DEV_INITRD", "an initramfs"),
            ("CONFIG_DEVTMPFS", "devtmpfs"),
        ];
        let ats = [("CONFIG_PCI_ATS", "ATS")];
        let ats = ats.iter().filter(|_| axes.device_iotlb == Toggle::On);
        let device = needs(axes.device).iter().map(|need| (need.option, need.what));
        let needed = everywhere.iter().chain(ats).copied().chain(device);
        needed
            .filter(|(option, _)| self.setting(option) == Some(None))
            .map(|(option, what)| format!("{what} ({option} is not set)"))
            .collect()
    }

    /// Modules that a cell with `device` needs where they are not built in.
    #[must_use]
    pub fn modules(&self, device: Device) -> Vec<&'static str> {
        self.to_load(needs(device))
    }

    /// Modules that it takes to hand a device over, where they are not built in.
    #[must_use]
    pub fn vfio_modules(&self) -> Vec<&'static str> {
        self.to_load(&VFIO)
    }

    fn to_load(&self, needs: &[Need]) -> Vec<&'static str> {
        let built_in = |need: &&Need| self.setting(need.option) == Some(Some(Setting::BuiltIn));
        needs.iter().filter(|need| !built_in(need)).map(|need| need.module).collect()
    }

    /// The words that ask this kernel for what `axes` say.
    #[must_use]
    pub fn policy_words(&self, axes: &Axes) -> Vec<String> {
        let defaults = KernelDefaults {
            version: self.version,
            strict: self.is_set("CONFIG_IOMMU_DEFAULT_DMA_STRICT"),
            passthrough: self.is_set("CONFIG_IOMMU_DEFAULT_PASSTHROUGH"),
        };
        let mut words = viommu::for_axes(axes).kernel_words(&defaults, &Settings::from(axes));
        if axes.live_mappings > 0 {
            let mib = (u64::from(axes.live_mappings) * PAGE_BYTES).div_ceil(1 << 20);
            words.push(format!("nvme.max_host_mem_size_mb={mib}"));
        }
        words
    }
}

/// A driver that a kernel may have as a module.
struct Need {
    option: &'static str,
    module: &'static str,
    what: &'static str,
}

const VFIO: [Need; 2] = [
    Need { option: "CONFIG_VFIO_PCI", module: "vfio-pci", what: "VFIO for PCI" },
    Need { option: "CONFIG_VFIO_IOMMU_TYPE1", module: "vfio_iommu_type1", what: "VFIO" },
];
const NVME: Need = Need { option: "CONFIG_BLK_DEV_NVME", module: "nvme", what: "NVMe" };
const VIRTIO: Need =
    Need { option: "CONFIG_VIRTIO_PCI", module: "virtio_pci", what: "virtio over PCI" };
const VIRTIO_BLK: Need =
    Need { option: "CONFIG_VIRTIO_BLK", module: "virtio_blk", what: "virtio-blk" };
const VIRTIO_NET: Need =
    Need { option: "CONFIG_VIRTIO_NET", module: "virtio_net", what: "virtio-net" };
const E1000E: Need = Need { option: "CONFIG_E1000E", module: "e1000e", what: "e1000e" };
const PACKET: Need = Need { option: "CONFIG_PACKET", module: "af_packet", what: "packet sockets" };

const fn needs(device: Device) -> &'static [Need] {
    match device {
        Device::Nvme => &[NVME],
        Device::VirtioBlk => &[VIRTIO, VIRTIO_BLK],
        Device::E1000e => &[E1000E, PACKET],
        Device::VirtioNet => &[VIRTIO, VIRTIO_NET, PACKET],
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::axes::Policy;

    pub(crate) fn kernel(version: &str, set: &[(&str, Setting)]) -> Kernel {
        let everything = options()
            .filter(|option| !option.contains("DEFAULT"))
            .map(|option| (option.to_owned(), Setting::BuiltIn));
        Kernel {
            name: format!("linux-{version}"),
            version: Some(version.parse().unwrap()),
            image: "/cache/vmlinux".into(),
            sha256: "0".repeat(64),
            boot: Boot::Pvh,
            config: Some(
                everything
                    .chain(set.iter().map(|(name, set)| ((*name).to_owned(), *set)))
                    .collect(),
            ),
            packages: Vec::new(),
            build: KernelBuild::default(),
        }
    }

    #[test]
    fn requests_what_the_axes_and_the_kernels_defaults_call_for() {
        let strict = [("CONFIG_IOMMU_DEFAULT_DMA_STRICT", Setting::BuiltIn)];
        let through = [("CONFIG_IOMMU_DEFAULT_PASSTHROUGH", Setting::BuiltIn)];
        let lazy = Axes::default();
        let live = Axes { live_mappings: 512, policy: Policy::Strict, ..Axes::default() };
        for (set, axes, words) in [
            (&[][..], &lazy, "intel_iommu=on"),
            (&strict[..], &lazy, "intel_iommu=on iommu.strict=0"),
            (&through[..], &lazy, "intel_iommu=on iommu.passthrough=0"),
            (&[][..], &live, "intel_iommu=on,sp_off iommu.strict=1 nvme.max_host_mem_size_mb=2"),
        ] {
            assert_eq!(kernel("6.1", set).policy_words(axes).join(" "), words);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut bare = kernel("6.1", &[]);
        let config = bare.config.as_mut().unwrap();
        config.remove("CONFIG_E1000E");
        config.remove("CONFIG_INTEL_IOMMU");
        config.remove("CONFIG_PCI_ATS");
        let mut axes = Axes { device: Device::E1000e, ..Axes::default() };
        let missing = [
            "the Intel IOMMU driver (CONFIG_INTEL_IOMMU is not set)",
            "ATS (CONFIG_PCI_ATS is not set)",
            "e1000e (CONFIG_E1000E is not set)",
        ];
        assert_eq!(bare.lacks(&axes), [missing[0], missing[2]]);
        axes.device_iotlb = Toggle::On;
        assert_eq!(bare.lacks(&axes), missing);
        bare.config = None;
        assert!(bare.lacks(&axes).is_empty());
    }

    #[test]
    fn only_what_is_not_built_in_is_loaded() {
        let modules = ["CONFIG_BLK_DEV_NVME", "CONFIG_VFIO_PCI"];
        let kernel = kernel("6.1", &modules.map(|option| (option, Setting::Module)));
        assert_eq!(kernel.modules(Device::Nvme), ["nvme"]);
        assert!(kernel.modules(Device::VirtioBlk).is_empty());
        assert_eq!(kernel.vfio_modules(), ["vfio-pci"]);
    }

    #[test]
    fn a_commit_is_found_in_what_a_builder_tells() {
        let commit = "29b32839725f8c89a41cb6ee054c85f3116ea8b5";
        let about = [
            format!("source: linux.git at {commit}, and a changed file"),
            "more configuration: none".into(),
            "edits: none".into(),
            "compiler: gcc 12.2.0".into(),
        ];
        let build = KernelBuild::new(&about, "abc");
        assert_eq!((build.commit.as_str(), build.compiler.as_str()), (commit, "gcc 12.2.0"));
        assert_eq!((build.edits.as_str(), build.config_sha256.as_str()), ("none", "abc"));
        assert_eq!(KernelBuild::new(&[], ""), KernelBuild::default());
    }
}
