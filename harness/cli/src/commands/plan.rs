//! `dmarig plan`

use clap::Args;
use dmarig_model::{matrix::select_one, plan::shell_words};
use tokio::sync::watch;

use dmarig_runner::{
    prepare::{NotLaunched, Preparer},
    request::Selection,
    select::select,
};

use crate::{
    exit::{Exit, Failure},
    options::{DeviceOptions, Places},
    report::Notes,
};

#[derive(Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    places: Places,
    /// The cell: its id, or a part or a glob that fits one alone
    #[arg(value_name = "CELL")]
    cell: String,
    #[command(flatten)]
    options: Options,
}

/// As `run` takes them, but for the cases, which are named by --case here.
#[derive(Debug, Args)]
struct Options {
    /// Cases to look for the cell in [default: the one that the id begins with]
    #[arg(long = "case", value_name = "CASE")]
    cases: Vec<String>,
    /// Kernel under test (see `dmarig run --help`)
    #[arg(long = "kernel", short = 'k', value_name = "NAME|PATH")]
    kernels: Vec<String>,
    /// The kernel's modules
    #[arg(long, value_name = "DIR")]
    modules: Option<std::path::PathBuf>,
    /// QEMU binary
    #[arg(long = "qemu", value_name = "PATH", env = "DMARIG_QEMU", hide_env = true)]
    qemus: Vec<String>,
    /// Accelerator
    #[arg(long = "accel", value_name = "auto|kvm|tcg", default_value = "auto")]
    accelerator: dmarig_model::axes::Accelerator,
    /// Values of an axis instead of the case's
    #[arg(long = "set", short = 's', value_name = "AXIS=VALUE,...")]
    sets: Vec<String>,
    #[command(flatten)]
    device: DeviceOptions,
    /// Boot without the levers that make it faster
    #[arg(long)]
    stock_boot: bool,
    /// Additional words for the kernel command line
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    append: Vec<String>,
    /// Put a file into the guest, below /add
    #[arg(long = "add", value_name = "FILE")]
    adds: Vec<std::path::PathBuf>,
    /// Kernel of the outer guest of a nested cell [default: debian-6.12]
    #[arg(long, value_name = "NAME|PATH")]
    outer_kernel: Option<String>,
    /// Load one more of the kernel's modules, with those that it needs
    #[arg(long = "module", value_name = "NAME")]
    load: Vec<String>,
}

impl Plan {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        let cache = self.places.open_cache()?;
        let selection = self.options.selection(&self.cell);
        let selected = select(&selection, &cache)?;
        let cell = select_one(&selected.cells, &self.cell).map_err(Failure::usage)?;
        let (_sender, interrupted) = watch::channel(false);
        let prepared = super::runtime()?.block_on(async {
            let device = selection.device.planned();
            let mut preparer =
                Preparer::new(&cache, &selection, device.as_ref(), interrupted, &Notes);
            preparer.prepare(selected.case(cell), cell).await
        });
        match prepared.launch {
            Ok(ready) => {
                outln!("# {}", cell.id);
                outln!("# what `dmarig run` starts, in a directory of the guest's own:");
                outln!("{}\n", shell_words(ready.plan.argv().iter()));
                match ready.plan.by_hand(&ready.job) {
                    Ok(command) => {
                        outln!(
                            "# by hand, with the console on the terminal (in an empty directory):"
                        );
                        outln!("{command}");
                    }
                    Err(error) => outln!("# by hand it can't run: with the job, {error}"),
                }
                Ok(Exit::Passed)
            }
            Err(NotLaunched::Skipped(reason)) => {
                errln!("dmarig: {} would be skipped: {reason}", cell.id);
                Ok(Exit::Nothing)
            }
            Err(NotLaunched::Failed(error)) => Err(error.into()),
        }
    }
}

impl Options {
    fn selection(self, cell: &str) -> Selection {
        let named = cell.split_once('/').map_or("smoke", |(case, _)| case).to_owned();
        let cases = if self.cases.is_empty() { vec![named] } else { self.cases };
        Selection {
            cases,
            kernels: self.kernels,
            modules: self.modules,
            qemus: self.qemus,
            accelerator: self.accelerator,
            sets: self.sets,
            stock_boot: self.stock_boot,
            append: self.append,
            adds: self.adds,
            device: self.device.request(),
            outer_kernel: self.outer_kernel,
            load: self.load,
            ..Selection::default()
        }
    }
}
