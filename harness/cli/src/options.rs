//! Options that several commands share.

use std::path::PathBuf;

use clap::Args;
use dmarig_model::axes::Accelerator;

use crate::{exit::Failure, host_device::DeviceOptions};

/// Where things are kept.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Places {
    /// Cache of kernels and initramfs images [default: $XDG_CACHE_HOME/dmarig]
    #[arg(long, value_name = "DIR", env = "DMARIG_CACHE", global = true, hide_env = true)]
    pub(crate) cache: Option<PathBuf>,
    /// Records of runs [default: $XDG_STATE_HOME/dmarig/runs]
    #[arg(long, value_name = "DIR", env = "DMARIG_RUNS", global = true, hide_env = true)]
    pub(crate) runs: Option<PathBuf>,
    /// Recipes of kernels instead of the built-in ones
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) recipes: Option<PathBuf>,
}

/// Where the history is.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct HistoryFile {
    /// The history [default: $XDG_STATE_HOME/dmarig/history.sqlite]
    #[arg(long, value_name = "FILE", env = "DMARIG_HISTORY", global = true, hide_env = true)]
    pub(crate) history: Option<PathBuf>,
}

impl HistoryFile {
    /// The file.
    pub(crate) fn path(&self) -> Result<PathBuf, Failure> {
        self.history.clone().or_else(dmarig_history::history_file).ok_or_else(|| {
            Failure::usage(anyhow::anyhow!(
                "there is no place for a history: neither HOME nor XDG_STATE_HOME is set; give --history FILE"
            ))
        })
    }
}

impl Default for Selection {
    /// What a command line without options gives, but for the case.
    fn default() -> Self {
        Self {
            cases: Vec::new(),
            cells: Vec::new(),
            kernels: Vec::new(),
            reference: None,
            modules: None,
            qemus: Vec::new(),
            accelerator: Accelerator::Auto,
            sets: Vec::new(),
            stock_boot: false,
            append: Vec::new(),
            adds: Vec::new(),
            device: DeviceOptions::default(),
            probe_program: None,
            outer_kernel: None,
            load: Vec::new(),
            patience: 1.0,
        }
    }
}

/// Which cells, on what.
#[derive(Debug, Clone, Args)]
pub(crate) struct Selection {
    /// Cases: names of built-in ones or case files
    #[arg(value_name = "CASE", default_value = "smoke")]
    pub(crate) cases: Vec<String>,
    /// Only cells with this id, or whose id this is a part or a glob of (may be repeated)
    #[arg(long = "cell", short = 'c', value_name = "PATTERN")]
    pub(crate) cells: Vec<String>,
    /// Kernel under test: a fetched one's name, or a bzImage, vmlinux, .deb or build directory
    /// (may be repeated) [default: debian-6.1]
    #[arg(long = "kernel", short = 'k', value_name = "NAME|PATH")]
    pub(crate) kernels: Vec<String>,
    /// Kernel that is run besides, and to which the history sets the others in relation: a machine that
    /// drifts from night to night then does not show in the numbers
    #[arg(long, value_name = "NAME|PATH")]
    pub(crate) reference: Option<String>,
    /// The kernel's modules, where they are not beside it
    #[arg(long, value_name = "DIR")]
    pub(crate) modules: Option<PathBuf>,
    /// QEMU: a fetched one's name, or a binary (may be repeated) [default: qemu-system-x86_64]
    #[arg(long = "qemu", value_name = "NAME|PATH", env = "DMARIG_QEMU", hide_env = true)]
    pub(crate) qemus: Vec<String>,
    /// Accelerator: auto takes KVM only where a guest is seen to run under it
    #[arg(long = "accel", value_name = "auto|kvm|tcg", default_value = "auto")]
    pub(crate) accelerator: Accelerator,
    /// Values of an axis instead of the case's, such as caching-mode=on,off (may be repeated)
    #[arg(long = "set", short = 's', value_name = "AXIS=VALUE,...")]
    pub(crate) sets: Vec<String>,
    /// Boot without the levers that make it faster
    #[arg(long)]
    pub(crate) stock_boot: bool,
    /// More words for the kernel's command line
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub(crate) append: Vec<String>,
    /// Put a file into the guest, below /add (may be repeated)
    #[arg(long = "add", value_name = "FILE")]
    pub(crate) adds: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceOptions,
    /// Program that serves probes, as `dmarig probe` does [default: this one]
    #[arg(long, value_name = "PATH", hide = true)]
    pub(crate) probe_program: Option<PathBuf>,
    /// Kernel of the outer guest of nested cells [default: debian-6.12]
    #[arg(long, value_name = "NAME|PATH")]
    pub(crate) outer_kernel: Option<String>,
    /// Load one more of the kernel's modules, with those that it needs (may be repeated)
    #[arg(long = "module", value_name = "NAME")]
    pub(crate) load: Vec<String>,
    /// Stretch every deadline by this factor
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub(crate) patience: f64,
}
