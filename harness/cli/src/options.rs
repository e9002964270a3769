//! Options that several commands share.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::Args;
use dmarig_model::axes::Accelerator;

use dmarig_hostdev::{Address, Interface};
use dmarig_images::Cache;
use dmarig_records::RunOptions;
use dmarig_runner::{
    bisect::{JudgeSpec, case_of},
    host_device::DeviceRequest,
    request::Selection,
};

use crate::exit::Failure;

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

impl Places {
    /// Opens the cache, with the user's recipes if there are any.
    pub(crate) fn open_cache(&self) -> Result<Cache, Failure> {
        let cache = Cache::open(self.cache.as_deref())?;
        match &self.recipes {
            Some(path) => {
                let recipes = dmarig_images::Recipes::load(path).map_err(Failure::usage)?;
                Ok(cache.with_recipes(recipes))
            }
            None => Ok(cache),
        }
    }

    /// Directory of the records of runs.
    pub(crate) fn runs(&self) -> Result<PathBuf, Failure> {
        self.runs.clone().or_else(dmarig_records::runs_directory).ok_or_else(Failure::no_place)
    }
}

impl HistoryFile {
    /// The file.
    pub(crate) fn path(&self) -> Result<PathBuf, Failure> {
        self.history.clone().or_else(dmarig_history::history_file).ok_or_else(|| {
            Failure::usage(anyhow!(
                "there is no place for a history: neither HOME nor XDG_STATE_HOME is set; give --history FILE"
            ))
        })
    }
}

/// Which cells, on what.
#[derive(Debug, Clone, Args)]
pub(crate) struct SelectionOptions {
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

impl SelectionOptions {
    /// What they request.
    pub(crate) fn selection(&self) -> Selection {
        Selection {
            cases: self.cases.clone(),
            cells: self.cells.clone(),
            kernels: self.kernels.clone(),
            reference: self.reference.clone(),
            modules: self.modules.clone(),
            qemus: self.qemus.clone(),
            accelerator: self.accelerator,
            sets: self.sets.clone(),
            stock_boot: self.stock_boot,
            append: self.append.clone(),
            adds: self.adds.clone(),
            device: self.device.request(),
            probe_program: self.probe_program.clone(),
            outer_kernel: self.outer_kernel.clone(),
            load: self.load.clone(),
            patience: self.patience,
        }
    }

    /// The options that a cell depends on, for commands that run one of the cells again.
    pub(crate) fn recorded(&self, places: &Places) -> RunOptions {
        let mut others: Vec<String> = Vec::new();
        let mut option = |name: &str, value: String| others.extend([name.to_owned(), value]);
        if self.accelerator != Accelerator::Auto {
            option("--accel", self.accelerator.name().to_owned());
        }
        // Of values for one axis the last ones apply.
        let sets: BTreeMap<&str, &str> =
            self.sets.iter().filter_map(|set| set.split_once('=')).collect();
        for (axis, values) in sets {
            option("--set", format!("{axis}={values}"));
        }
        let path = |path: &PathBuf| path.display().to_string();
        for (name, variable, given) in [
            ("--modules", None, &self.modules),
            ("--cache", Some("DMARIG_CACHE"), &places.cache),
            ("--runs", Some("DMARIG_RUNS"), &places.runs),
            ("--recipes", None, &places.recipes),
        ] {
            let Some(given) = given else { continue };
            // What the environment says is still there when the command is run again.
            let from_environment =
                variable.and_then(std::env::var_os).is_some_and(|value| *value == **given);
            if !from_environment {
                option(name, path(given));
            }
        }
        for words in &self.append {
            option("--append", words.clone());
        }
        for file in &self.adds {
            option("--add", path(file));
        }
        for name in &self.load {
            option("--module", name.clone());
        }
        if let Some(kernel) = &self.outer_kernel {
            option("--outer-kernel", kernel.clone());
        }
        others.extend(self.device.words());
        if self.stock_boot {
            others.push("--stock-boot".to_owned());
        }
        RunOptions {
            cases: self.cases.clone(),
            kernels_named: !self.kernels.is_empty() || self.reference.is_some(),
            qemus_named: !self.qemus.is_empty(),
            others,
        }
    }
}

/// Which device of the host to pass through, and how.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DeviceOptions {
    /// Pass a device of this host's through: host=0000:03:00.0. Its disk is written to
    #[arg(long, value_name = "host=ADDRESS", value_parser = host_address)]
    device: Option<Address>,
    /// Take this device although the host uses it, or it holds data (may be repeated)
    #[arg(long, value_name = "ADDRESS")]
    force_device: Vec<Address>,
    /// Hand over this one as well, because it shares the device's group (may be repeated)
    #[arg(long, value_name = "ADDRESS")]
    device_companion: Vec<Address>,
    /// The kernel's interface: legacy or iommufd [default: iommufd where host and QEMU have it]
    #[arg(long, value_name = "legacy|iommufd")]
    device_interface: Option<Interface>,
}

impl DeviceOptions {
    /// What they request.
    pub(crate) fn request(&self) -> DeviceRequest {
        DeviceRequest {
            address: self.device,
            forced: self.force_device.clone(),
            companions: self.device_companion.clone(),
            interface: self.device_interface,
        }
    }

    /// The words of a command line that request the same.
    fn words(&self) -> Vec<String> {
        let Some(address) = self.device else { return Vec::new() };
        let mut words = vec!["--device".to_owned(), format!("host={address}")];
        for address in &self.force_device {
            words.extend(["--force-device".to_owned(), address.to_string()]);
        }
        for address in &self.device_companion {
            words.extend(["--device-companion".to_owned(), address.to_string()]);
        }
        if let Some(interface) = self.device_interface {
            words.extend(["--device-interface".to_owned(), interface.name().to_owned()]);
        }
        words
    }
}

/// `host=` and an address.
fn host_address(text: &str) -> Result<Address, HostAddressError> {
    let address =
        text.strip_prefix("host=").ok_or_else(|| HostAddressError::NoHost(text.into()))?;
    Ok(address.parse()?)
}

/// A word that names no device of the host.
#[derive(Debug, thiserror::Error)]
enum HostAddressError {
    #[error("`{0}` is no device of the host's: host=0000:03:00.0")]
    NoHost(String),
    #[error(transparent)]
    Address(#[from] dmarig_hostdev::InvalidAddress),
}

/// What revisions are judged by.
#[derive(Debug, Clone, Args)]
pub(crate) struct JudgeOptions {
    /// The cell to judge by: a case, or a cell's id as `dmarig cells` lists it
    #[arg(long = "case", value_name = "CELL")]
    case: Option<String>,
    /// Of a case, only cells with this id, or whose id this is a part or a glob of (may be repeated)
    #[arg(long = "cell", short = 'c', value_name = "PATTERN")]
    cells: Vec<String>,
    /// Only this check counts, such as warning or psi-per-unmap (may be repeated) [default: those that
    /// fail at the bad end; of a single step, which knows no bad end, all]
    #[arg(long = "check", value_name = "NAME", conflicts_with = "metric")]
    checks: Vec<String>,
    /// Judge by a metric against the good kernel, such as elapsed or page-walk-in-vain-per-unmap; of a
    /// program's with the better value, as in score:higher
    #[arg(long, value_name = "NAME[:lower|higher]")]
    metric: Option<String>,
    /// How many percent worse than the good kernel a good revision may be
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0, requires = "metric")]
    limit: f64,
    /// How many percent a metric's answer may be wrong: that of the bisection, or that of a single step
    #[arg(long, value_name = "PERCENT", default_value_t = 2.0)]
    error: f64,
    /// Most pairs of runs that a revision is compared in before it is skipped
    #[arg(long, value_name = "N", default_value_t = 60)]
    pairs: usize,
    /// More configuration for each kernel: kasan, lockdep, dma-debug, or a file (may be repeated)
    #[arg(long, value_name = "FRAGMENT")]
    config: Vec<String>,
    /// Edit the source of each revision first, as `kernel build` does (may be repeated)
    #[arg(long = "edit", value_name = "EDITS")]
    edits: Vec<String>,
    /// QEMU: a fetched one's name, or a binary [default: qemu-system-x86_64]
    #[arg(long, value_name = "NAME|PATH", env = "DMARIG_QEMU", hide_env = true)]
    qemu: Option<String>,
    /// Accelerator
    #[arg(long = "accel", value_name = "auto|kvm|tcg", default_value = "auto")]
    accelerator: Accelerator,
    /// Values of an axis instead of the case's (may be repeated)
    #[arg(long = "set", short = 's', value_name = "AXIS=VALUE,...")]
    sets: Vec<String>,
    /// More words for the kernel's command line
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    append: Vec<String>,
    /// Program that serves probes, as `dmarig probe` does [default: this one]
    #[arg(long, value_name = "PATH", hide = true)]
    probe_program: Option<PathBuf>,
    /// Stretch every deadline by this factor
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    patience: f64,
    /// Compilers at once [default: by processors]
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

impl JudgeOptions {
    /// The specification that they request.
    pub(crate) fn spec(&self) -> Result<JudgeSpec, Failure> {
        let named = self.case.as_deref().ok_or_else(|| {
            Failure::usage(anyhow!(
                "say what to judge by: --case CELL, as `dmarig cells` lists them"
            ))
        })?;
        let (case, mut cells) = (case_of(named), self.cells.clone());
        if case != named {
            cells.push(named.to_owned());
        }
        let absolute = |path: &String| match Path::new(path).is_file() {
            // It is read again after a resume from anywhere.
            true => {
                std::fs::canonicalize(path).map_or(path.clone(), |path| path.display().to_string())
            }
            false => path.clone(),
        };
        Ok(JudgeSpec {
            case: absolute(&case),
            cells,
            checks: self.checks.clone(),
            metric: self.metric.clone(),
            limit: self.limit,
            pairs: self.pairs,
            config: self.config.iter().map(absolute).collect(),
            edits: self.edits.iter().map(absolute).collect(),
            qemu: self.qemu.clone(),
            accelerator: self.accelerator.name().to_owned(),
            sets: self.sets.clone(),
            append: self.append.clone(),
            probe_program: self.probe_program.clone(),
            patience: self.patience,
            jobs: self.jobs,
        })
    }

    /// The probability that the answer may be wrong by noise.
    pub(crate) fn error(&self) -> Result<f64, Failure> {
        let error = self.error / 100.0;
        match error > 0.0 && error < 0.5 {
            true => Ok(error),
            false => Err(Failure::usage(anyhow!(
                "--error {}: it must be above 0 and below 50",
                self.error
            ))),
        }
    }
}
