//! `dmarig prove`

use std::{os::fd::AsFd, path::PathBuf};

use anyhow::anyhow;
use clap::Args;
use dmarig_report::{folded, trial_line, trials_document, trials_text};
use dmarig_runner::{
    Event, Reporter,
    proof::{Proof, ProofRequest, ProofSetup},
    signals::InterruptibleRuntime,
    trial::{Trial, Verdict},
};

use crate::{
    commands::{
        images::{Bars, MirrorOptions},
        kernel::new_bar,
        run::Format,
    },
    exit::{Exit, Failure},
    options::Places,
    output::{self, print},
    report::{Notes, on_interrupt},
};

/// The case that is run where no other is named.
const CASE: &str = "prove";
/// The QEMU that is taken where no other is named: passed-through devices need a new one.
const QEMU: &str = "qemu";

#[derive(Debug, Args)]
pub(crate) struct Prove {
    #[command(flatten)]
    places: ProofPlaces,
    /// Kernel source to try, with and without bugs (may be repeated) [default: all sources with built-in
    /// bugs]
    #[arg(long = "kernel", short = 'k', value_name = "RECIPE")]
    kernels: Vec<String>,
    /// Try only this bug (may be repeated). The good kernel is always tried
    #[arg(long = "bug", value_name = "ID")]
    bugs: Vec<String>,
    /// File of bugs that replaces the built-in ones, for the kernel that the file or --kernel names
    #[arg(long = "bugs", value_name = "FILE")]
    file: Option<PathBuf>,
    /// The case to run: the name of a built-in case, or a case file
    #[arg(long, value_name = "CASE", default_value = CASE)]
    case: String,
    /// QEMU: the name of a fetched QEMU, or a program
    #[arg(long, value_name = "NAME|PATH", default_value = QEMU)]
    qemu: String,
    /// Format of the results on standard output
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Number of guests or compilers to run at a time [default: by processors and free memory]
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Multiply every deadline by this factor
    #[arg(
        long = "timeout-factor",
        alias = "patience",
        value_name = "FACTOR",
        default_value_t = 1.0
    )]
    patience: f64,
    /// Program that serves probes [default: this one]
    #[arg(long, value_name = "PATH", hide = true)]
    probe_program: Option<PathBuf>,
    #[command(flatten)]
    mirrors: MirrorOptions,
}

/// Where things are kept. Proofs have a place of their own: kernels that are bad on purpose would be
/// failures in the history of what is recorded beside them.
#[derive(Debug, Args)]
struct ProofPlaces {
    /// Cache of kernels, QEMUs and initramfs images [default: $XDG_CACHE_HOME/dmarig]
    #[arg(long, value_name = "DIR", env = "DMARIG_CACHE", hide_env = true)]
    cache: Option<PathBuf>,
    /// Records of proofs, which are kept apart from other runs [default: $XDG_STATE_HOME/dmarig/proofs]
    #[arg(long, value_name = "DIR", env = "DMARIG_PROOFS", hide_env = true)]
    runs: Option<PathBuf>,
    /// Recipes of kernels and QEMUs that replace the built-in ones
    #[arg(long, value_name = "FILE")]
    recipes: Option<PathBuf>,
}

impl ProofPlaces {
    /// Where runs are recorded.
    fn runs(&self) -> Result<PathBuf, Failure> {
        self.runs.clone().or_else(dmarig_records::proofs_directory).ok_or_else(|| {
            Failure::usage(anyhow!(
                "there is no place for records: neither HOME nor XDG_STATE_HOME is set; give --runs DIR"
            ))
        })
    }

    /// The same for what all commands have in common.
    fn common(&self) -> Places {
        let Self { cache, runs, recipes } = self;
        Places { cache: cache.clone(), runs: runs.clone(), recipes: recipes.clone() }
    }
}

impl Prove {
    pub(crate) fn execute(self, words: Vec<String>) -> Result<Exit, Failure> {
        let cache = self.places.common().open_cache()?;
        let format = self.format;
        let runs = self.places.runs()?;
        let setup = ProofSetup {
            cache: &cache,
            runtime: InterruptibleRuntime::new(on_interrupt)?,
            reporter: &TrialLines,
            build_progress: new_bar,
            fetch_progress: &Bars::default(),
        };
        let mut proof = Proof::new(self.request(runs.clone(), words), setup)?;
        let mut trials = Vec::new();
        let completed = proof.run(&mut trials);
        // Trials before an error are printed nevertheless.
        if completed.is_ok() || !trials.is_empty() {
            print(&match format {
                Format::Json => serde_json::to_string_pretty(&trials_document(&trials))? + "\n",
                Format::Table => trials_text(&trials, width(std::io::stdout())),
            })?;
        }
        if trials.iter().any(|trial| trial.cells > 0) {
            let judge = format!("`dmarig judge last --runs {0}`", runs.display());
            let line =
                format!("records of these runs: {}; {judge} judges the last again", runs.display());
            errln!("{}", folded(&line, width(std::io::stderr()), "  "));
        }
        Ok(if completed? { exit(&trials) } else { Exit::Interrupted })
    }

    fn request(self, runs: PathBuf, command: Vec<String>) -> ProofRequest {
        ProofRequest {
            kernels: self.kernels,
            bugs: self.bugs,
            bug_file: self.file,
            case: self.case,
            qemu: self.qemu,
            jobs: self.jobs,
            patience: self.patience,
            probe_program: self.probe_program,
            mirrors: self.mirrors.mirrors(),
            runs,
            command,
        }
    }
}

/// Notes, and a line per trial.
struct TrialLines;

impl Reporter for TrialLines {
    fn report(&self, event: &Event<'_>) {
        match event {
            Event::BuildStarted { name } => {
                errln!("{}", folded(&format!("building {name}"), width(std::io::stderr()), "  "));
            }
            Event::TrialFinished(trial) => {
                errln!("{}", trial_line(trial, width(std::io::stderr())));
            }
            event => Notes.report(event),
        }
    }
}

/// Columns of a terminal.
fn width(of: impl AsFd) -> u16 {
    output::width(of, 80)
}

/// A bug that is missed or caught for another's reason, and a good kernel that is blamed, are
/// failures of the rig under proof.
fn exit(trials: &[Trial]) -> Exit {
    let any = |wanted: fn(&Verdict) -> bool| trials.iter().any(|trial| wanted(&trial.verdict));
    if trials.is_empty() {
        Exit::Nothing
    } else if any(|verdict| {
        matches!(verdict, Verdict::Missed | Verdict::CaughtByOthers { .. } | Verdict::FalsePositive)
    }) {
        Exit::Failed
    } else if any(|verdict| matches!(verdict, Verdict::Errored(_))) {
        Exit::Errored
    } else {
        Exit::Passed
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Words {
        #[command(flatten)]
        prove: Prove,
    }

    fn places(words: &[&str]) -> ProofPlaces {
        Words::try_parse_from([&["prove"], words].concat()).unwrap().prove.places
    }

    #[test]
    fn proofs_are_not_recorded_among_runs() {
        let runs = dmarig_records::runs_directory().unwrap();
        let proofs = dmarig_records::proofs_directory().unwrap();
        assert!(!proofs.starts_with(&runs) && proofs.parent() == runs.parent());
        let named = places(&["--runs", "here"]);
        assert_eq!(named.runs().unwrap(), PathBuf::from("here"));
        // Nor where the environment names a place for runs.
        let command = Words::command();
        let of = |name: &str| {
            let arg = command.get_arguments().find(|arg| arg.get_id() == name).unwrap();
            arg.get_env().map(|env| env.to_string_lossy().into_owned())
        };
        assert_eq!(of("runs").as_deref(), Some("DMARIG_PROOFS"));
        assert_eq!(of("cache").as_deref(), Some("DMARIG_CACHE"));
    }
}
