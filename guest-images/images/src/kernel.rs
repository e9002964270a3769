use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A kernel that QEMU can start, and what is known about it.
#[derive(Clone, Debug)]
pub struct KernelImage {
    /// What the user called it: a recipe's name or a path.
    pub label: String,
    /// As `uname -r` will say, as in `6.1.0-50-amd64`.
    pub release: String,
    /// The file to give to QEMU's `-kernel`.
    pub image: PathBuf,
    /// How that file is entered.
    pub boot: Boot,
    /// The bzImage it came from, where there is one.
    pub bzimage: Option<PathBuf>,
    /// Of the file the kernel was found in: the bzImage, or the vmlinux that was given.
    pub image_sha256: String,
    /// Its configuration, where one was found beside or inside it.
    pub config: Option<KernelConfig>,
    /// The file that the configuration was read from.
    pub config_file: Option<PathBuf>,
    /// A tree like `/lib/modules/RELEASE`, or a build tree; `None` when there is none to be found.
    pub modules: Option<PathBuf>,
    /// The packages it was unpacked from; empty for a bare file.
    pub packages: Vec<PackageId>,
    /// What the user should know: why the slower way to boot is taken, what looked stale.
    pub notes: Vec<String>,
}

/// How QEMU enters a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boot {
    /// An ELF vmlinux, by its PVH note. Nothing is decompressed in the guest, which halves the
    /// time of a boot under TCG.
    Pvh,
    /// A bzImage, which unpacks itself.
    BzImage,
}

/// A binary package, as precisely as it can be named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageId {
    /// As in `linux-image-6.1.0-50-amd64`.
    pub name: String,
    /// As in `6.1.176-1`.
    pub version: String,
    /// Source package and its version, as in `linux-signed-amd64 6.1.176+1`.
    pub source: String,
    /// Of the .deb.
    pub sha256: String,
}

/// A kernel's `.config`. Kept as text: a run asks for a handful of its thousands of options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelConfig {
    text: String,
}

/// What a configuration says about one option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigValue {
    /// Built in.
    Yes,
    /// Built as a module.
    Module,
    /// Off, or unknown to this kernel.
    No,
    /// A number or a string, without its quotes.
    Text(String),
}

impl KernelConfig {
    /// Takes the text of a `.config`.
    pub fn parse(text: &str) -> KernelConfig {
        KernelConfig { text: text.to_owned() }
    }

    /// The value of an option, as in `CONFIG_NVME`.
    pub fn get(&self, option: &str) -> ConfigValue {
        match self.value(option) {
            None | Some("n") => ConfigValue::No,
            Some("y") => ConfigValue::Yes,
            Some("m") => ConfigValue::Module,
            Some(text) => {
                let bare = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
                ConfigValue::Text(bare.unwrap_or(text).to_owned())
            }
        }
    }

    /// What is behind `option=` at the start of a line.
    fn value(&self, option: &str) -> Option<&str> {
        let assignment = format!("{option}=");
        let mut places = memchr::memmem::find_iter(self.text.as_bytes(), &assignment);
        let at = places.find(|&at| at == 0 || self.text.as_bytes()[at - 1] == b'\n')?;
        self.text[at + assignment.len()..].lines().next().map(str::trim)
    }

    /// Whether the option is built in or a module.
    pub fn is_on(&self, option: &str) -> bool {
        matches!(self.get(option), ConfigValue::Yes | ConfigValue::Module)
    }

    /// Whether no option is set, as in a file that is no configuration.
    pub fn is_empty(&self) -> bool {
        !self.text.starts_with("CONFIG_") && !self.text.contains("\nCONFIG_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_values_of_each_kind() {
        let config = KernelConfig::parse(
            "# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_C=m\nCONFIG_D=\"a=b\"\nCONFIG_E=64\nrubbish\n",
        );
        assert_eq!(config.get("CONFIG_A"), ConfigValue::No);
        assert_eq!(config.get("CONFIG_B"), ConfigValue::Yes);
        assert_eq!(config.get("CONFIG_C"), ConfigValue::Module);
        assert_eq!(config.get("CONFIG_D"), ConfigValue::Text("a=b".to_owned()));
        assert_eq!(config.get("CONFIG_E"), ConfigValue::Text("64".to_owned()));
        assert_eq!(config.get("CONFIG_Z"), ConfigValue::No);
        assert!(config.is_on("CONFIG_C") && !config.is_on("CONFIG_A"));
        assert_eq!(
            KernelConfig::parse("XCONFIG_B=y\nA_CONFIG_B=y").get("CONFIG_B"),
            ConfigValue::No
        );
        assert!(KernelConfig::parse("# nothing\n").is_empty() && !config.is_empty());
    }
}
