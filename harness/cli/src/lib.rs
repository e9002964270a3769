//! The `dmarig` command line: which cells to run, on what, in which order, and how their outcome
//! is told. The work itself is in the other crates.

#[macro_use]
mod output;

mod commands;
mod complete;
mod exit;
mod options;
mod report;

use std::ffi::OsString;

use clap::{CommandFactory, Parser};
pub use exit::Exit;

/// A test rig for the Linux Intel IOMMU driver: it boots kernels in QEMU behind a virtual IOMMU,
/// drives DMA through it, and judges what kernel and hypervisor did.
#[derive(Debug, Parser)]
#[command(name = "dmarig", version = dmarig_version::VERSION, max_term_width = 100, after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: commands::Command,
}

/// The definition of the command line, for documentation.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line, program name first, and gives the process' exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> std::process::ExitCode {
    complete::answer(Cli::command);
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if !for_git(&arguments) {
        return run(arguments).into();
    }
    // A panic's own exit code would be a verdict to git.
    let exit = std::panic::catch_unwind(|| run(arguments)).unwrap_or(Exit::Errored);
    commands::bisect_step::git_code(exit).into()
}

/// Whether git reads the exit code, as far as words that may be wrong tell.
fn for_git(arguments: &[OsString]) -> bool {
    let words = arguments.iter().skip(1).take_while(|word| *word != "--");
    words.into_iter().any(|word| word == commands::bisect_step::NAME)
}

/// Runs the command line, program name first, and tells how it ended.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. A closed pipe is no reason to fail.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Passed };
        }
    };
    // A second call in one process, as in tests, keeps the first one's.
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // It would be told on standard error that standard error is gone.
        .log_internal_errors(false)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("DMARIG_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
        .without_time()
        .try_init();
    let command: Vec<String> =
        arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    match commands::dispatch(cli.command, command) {
        Ok(exit) => exit,
        Err(failure) => {
            report::diagnose(&failure.error);
            failure.exit
        }
    }
}
