//! The commands.

mod alerts;
mod analyze;
mod bisect;
pub(crate) mod bisect_step;
mod cells;
pub(crate) mod compare;
mod dashboard;
mod doctor;
mod history;
mod images;
mod judge;
mod kernel;
mod plan;
mod probe;
mod prove;
mod run;
mod runs;
mod schema;

use clap::Subcommand;

use crate::exit::{self, Exit, Failure};

/// A command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run cells on real guests and judge them
    #[command(after_long_help = exit::OF_CELLS)]
    Run(#[command(flatten)] run::Run),
    /// List the cells that `run` would run
    Cells(#[command(flatten)] cells::Cells),
    /// Print the QEMU command of a cell, and a command that runs the cell without dmarig
    Plan(#[command(flatten)] plan::Plan),
    /// Judge a recorded run again, by its own cases or by others
    #[command(after_long_help = exit::OF_CELLS)]
    Judge(#[command(flatten)] judge::Judge),
    /// List recorded runs
    Runs(#[command(flatten)] runs::Runs),
    /// Compare two kernels, QEMUs or variants in interleaved pairs, or two recorded runs
    #[command(after_long_help = exit::OF_CELLS)]
    Compare(#[command(flatten)] compare::Compare),
    /// Write a site of runs, series and alerts, or serve it on this machine
    Dashboard(#[command(flatten)] dashboard::Dashboard),
    /// Keep results over months and machines: add, list, show, merge, export
    #[command(after_long_help = exit::OF_HISTORY)]
    History(#[command(flatten)] history::HistoryCommand),
    /// List level changes and failing cells of the history, and record decisions about them
    #[command(after_long_help = exit::OF_ALERTS)]
    Alerts(#[command(flatten)] alerts::Alerts),
    /// Analyze the IOMMU messages of a kernel log, from any machine or from a recorded run
    #[command(after_long_help = exit::OF_ANALYZE)]
    Analyze(#[command(flatten)] analyze::Analyze),
    /// Find the commit that broke a cell or made a metric worse
    #[command(after_long_help = exit::OF_BISECT)]
    Bisect(#[command(flatten)] Box<bisect::Bisect>),
    /// Judge the checked-out revision, with exit codes for `git bisect run`
    #[command(after_long_help = exit::OF_BISECT_STEP)]
    BisectStep(#[command(flatten)] Box<bisect_step::BisectStep>),
    /// Fetch, list and remove guest kernels, their sources, and QEMUs
    Images(#[command(flatten)] images::Images),
    /// Build guest kernels from source; list and remove them
    #[command(after_long_help = exit::OF_KERNEL)]
    Kernel(#[command(flatten)] kernel::Kernel),
    /// Show what this host can run, and what it will skip and why
    Doctor(#[command(flatten)] doctor::Doctor),
    /// Prove that dmarig catches kernels with seeded bugs and passes good kernels
    #[command(after_long_help = exit::OF_PROVE)]
    Prove(#[command(flatten)] prove::Prove),
    /// Serve the device of one guest over vfio-user; dmarig starts it when needed
    #[command(hide = true)]
    Probe(#[command(flatten)] probe::Probe),
    /// Print the JSON Schema of case files or of results
    Schema(#[command(flatten)] schema::Schema),
}

/// Carries out one command; `words` is the command line, for records.
pub(crate) fn dispatch(command: Command, words: Vec<String>) -> Result<Exit, Failure> {
    match command {
        Command::Run(run) => run.execute(words),
        Command::Cells(cells) => cells.execute(),
        Command::Plan(plan) => plan.execute(),
        Command::Judge(judge) => judge.execute(),
        Command::Runs(runs) => runs.execute(),
        Command::Compare(compare) => compare.execute(words),
        Command::Dashboard(dashboard) => dashboard.execute(),
        Command::History(history) => history.execute(),
        Command::Alerts(alerts) => alerts.execute(),
        Command::Analyze(analyze) => analyze.execute(),
        Command::Bisect(bisect) => bisect.execute(words),
        Command::BisectStep(step) => step.execute(words),
        Command::Images(images) => images.execute(),
        Command::Kernel(kernel) => kernel.execute(),
        Command::Doctor(doctor) => doctor.execute(),
        Command::Prove(prove) => prove.execute(words),
        Command::Probe(probe) => probe.execute(),
        Command::Schema(schema) => schema.execute(),
    }
}

/// A runtime on this thread alone: QEMU is tied to the life of the thread that starts it.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
