//! Options that several commands share.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::{Args, builder::Resettable};
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

/// Directories that dmarig uses.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Directories")]
pub(crate) struct Places {
    /// Cache of kernels, QEMUs and initramfs images [default: $XDG_CACHE_HOME/dmarig]
    #[arg(long, value_name = "DIR", env = "DMARIG_CACHE", global = true, hide_env = true)]
    pub(crate) cache: Option<PathBuf>,
    /// Records of runs [default: $XDG_STATE_HOME/dmarig/runs]
    #[arg(long, value_name = "DIR", env = "DMARIG_RUNS", global = true, hide_env = true)]
    pub(crate) runs: Option<PathBuf>,
    /// Recipes of kernels and QEMUs that replace the built-in ones
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) recipes: Option<PathBuf>,
}

/// The history's file.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Directories")]
pub(crate) struct HistoryFile {
    /// File of the history [default: $XDG_STATE_HOME/dmarig/history.sqlite]
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

/// The cells to run, and their surroundings.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cells")]
pub(crate) struct SelectionOptions {
    /// Cases: names of built-in cases, or case files
    #[arg(value_name = "CASE", default_value = "smoke", help_heading = Resettable::Reset)]
    pub(crate) cases: Vec<String>,
    /// Only cells whose id is PATTERN, contains it, or matches it as a glob (may be repeated)
    #[arg(long = "cell", short = 'c', value_name = "PATTERN")]
    pub(crate) cells: Vec<String>,
    /// Kernel under test: the name of a fetched or built kernel, or a bzImage, vmlinux, .deb or build
    /// directory (may be repeated) [default: debian-6.1]
    #[arg(long = "kernel", short = 'k', value_name = "NAME|PATH")]
    pub(crate) kernels: Vec<String>,
    /// Reference kernel: it also runs, and the history stores times as ratios to it, so that a drift of
    /// the machine does not show
    #[arg(long, value_name = "NAME|PATH")]
    pub(crate) reference: Option<String>,
    /// Directory of the kernel's modules, if they are not next to the kernel
    #[arg(long, value_name = "DIR")]
    pub(crate) modules: Option<PathBuf>,
    /// QEMU: the name of a fetched QEMU, or a program (may be repeated) [default: qemu-system-x86_64]
    #[arg(long = "qemu", value_name = "NAME|PATH", env = "DMARIG_QEMU", hide_env = true)]
    pub(crate) qemus: Vec<String>,
    /// Accelerator; auto uses KVM if a guest runs under it, and TCG otherwise
    #[arg(long = "accel", value_name = "auto|kvm|tcg", default_value = "auto")]
    pub(crate) accelerator: Accelerator,
    /// Values of an axis that replace the case's, as in caching-mode=on,off (may be repeated)
    #[arg(long = "set", short = 's', value_name = "AXIS=VALUE,...")]
    pub(crate) sets: Vec<String>,
    /// Boot the kernel as a distribution does, without the parameters that make it boot faster
    #[arg(long, help_heading = "Guest")]
    pub(crate) stock_boot: bool,
    /// Additional words for the kernel command line
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true, help_heading = "Guest")]
    pub(crate) append: Vec<String>,
    /// Copy a file into the guest's directory /add (may be repeated)
    #[arg(long = "add", value_name = "FILE", help_heading = "Guest")]
    pub(crate) adds: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceOptions,
    /// Program that serves probes [default: this one]
    #[arg(long, value_name = "PATH", hide = true)]
    pub(crate) probe_program: Option<PathBuf>,
    /// Kernel of the outer guest of nested cells [default: debian-6.12]
    #[arg(long, value_name = "NAME|PATH", help_heading = "Guest")]
    pub(crate) outer_kernel: Option<String>,
    /// Load an additional kernel module and its dependencies (may be repeated)
    #[arg(long = "module", value_name = "NAME", help_heading = "Guest")]
    pub(crate) load: Vec<String>,
    /// Multiply every deadline by this factor
    #[arg(
        long = "timeout-factor",
        alias = "patience",
        value_name = "FACTOR",
        default_value_t = 1.0,
        help_heading = "Guest"
    )]
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

/// A device of the host to pass through.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Device of the host")]
pub(crate) struct DeviceOptions {
    /// Pass a device of this host through, as in host=0000:03:00.0. The workload overwrites its disk
    #[arg(long, value_name = "host=ADDRESS", value_parser = host_address)]
    device: Option<Address>,
    /// Pass this device through although the host uses it or it contains data (may be repeated)
    #[arg(long, value_name = "ADDRESS")]
    force_device: Vec<Address>,
    /// Also hand this device over, because it is in the same IOMMU group (may be repeated)
    #[arg(long, value_name = "ADDRESS")]
    device_companion: Vec<Address>,
    /// VFIO interface: legacy or iommufd [default: iommufd if host and QEMU support it]
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
    #[error("invalid device `{0}`: expected host=ADDRESS, as in host=0000:03:00.0")]
    NoHost(String),
    #[error(transparent)]
    Address(#[from] dmarig_hostdev::InvalidAddress),
}

/// How revisions are judged.
#[derive(Debug, Clone, Args)]
pub(crate) struct JudgeOptions {
    /// The cells to judge by: a case, or the id of a cell as `dmarig cells` lists it
    #[arg(long = "case", value_name = "CELL")]
    case: Option<String>,
    /// Only cells whose id is PATTERN, contains it, or matches it as a glob (may be repeated)
    #[arg(long = "cell", short = 'c', value_name = "PATTERN")]
    cells: Vec<String>,
    /// Judge only by this check, as in warning or psi-per-unmap (may be repeated) [default: the checks
    /// that fail at the bad end; for a single step, all checks]
    #[arg(long = "check", value_name = "NAME", conflicts_with = "metric")]
    checks: Vec<String>,
    /// Judge by a metric in comparison with the good kernel, as in elapsed. The metric of a program may
    /// need the better direction, as in score:higher
    #[arg(long, value_name = "NAME[:lower|higher]")]
    metric: Option<String>,
    /// Percentage by which a good revision may be worse than the good kernel
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0, requires = "metric")]
    limit: f64,
    /// Probability, in percent, that the answer about a metric is wrong: of the whole bisection, or of
    /// the single step
    #[arg(long, value_name = "PERCENT", default_value_t = 2.0)]
    error: f64,
    /// Largest number of pairs in which a revision is compared before it is skipped
    #[arg(long, value_name = "N", default_value_t = 60)]
    pairs: usize,
    /// Additional kernel configuration: kasan, lockdep, dma-debug, or a file (may be repeated)
    #[arg(long, value_name = "FRAGMENT")]
    config: Vec<String>,
    /// Edit the source of each revision before the build, as `kernel build --edit` does (may be repeated)
    #[arg(long = "edit", value_name = "EDITS")]
    edits: Vec<String>,
    /// QEMU: the name of a fetched QEMU, or a program [default: qemu-system-x86_64]
    #[arg(long, value_name = "NAME|PATH", env = "DMARIG_QEMU", hide_env = true)]
    qemu: Option<String>,
    /// Accelerator
    #[arg(long = "accel", value_name = "auto|kvm|tcg", default_value = "auto")]
    accelerator: Accelerator,
    /// Values of an axis that replace the case's, as in caching-mode=on,off (may be repeated)
    #[arg(long = "set", short = 's', value_name = "AXIS=VALUE,...")]
    sets: Vec<String>,
    /// Additional words for the kernel command line
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    append: Vec<String>,
    /// Program that serves probes [default: this one]
    #[arg(long, value_name = "PATH", hide = true)]
    probe_program: Option<PathBuf>,
    /// Multiply every deadline by this factor
    #[arg(
        long = "timeout-factor",
        alias = "patience",
        value_name = "FACTOR",
        default_value_t = 1.0
    )]
    patience: f64,
    /// Number of compilers to run at a time [default: number of processors]
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

impl JudgeOptions {
    /// The specification that they request.
    pub(crate) fn spec(&self) -> Result<JudgeSpec, Failure> {
        let named = self.case.as_deref().ok_or_else(|| {
            Failure::usage(anyhow!(
                "nothing to judge by: add --case CELL, as `dmarig cells` lists them"
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
