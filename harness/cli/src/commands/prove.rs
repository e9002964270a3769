//! `dmarig prove`

mod matrix;

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::anyhow;
use clap::Args;
use dmarig_images::Cache;
use dmarig_kernels::{Bug, Bugs, Builder, Edits, Fault, Source, Spec};
use dmarig_model::windows::Side;
use dmarig_runner::{
    paired::{CompareOutcome, CompareRequest, compare, fresh_seed},
    prepare::qemu_program,
    remove_left_directories,
    request::Selection,
    select::select,
    signals::InterruptibleRuntime,
    slower,
    trial::{Trial, TrialCells, Verdict, run_cells},
};

use crate::{
    commands::{
        images::MirrorOptions,
        kernel::{build_until_interrupted, fetch_source},
        run::Format,
    },
    exit::{Exit, Failure},
    options::Places,
    output::{self, print},
    report::{Notes, folded, on_interrupt},
};

/// The case that is run where no other is named.
const CASE: &str = "prove";
/// The QEMU that is taken where no other is named: passed-through devices need a new one.
const QEMU: &str = "qemu";

#[derive(Debug, Args)]
pub(crate) struct Prove {
    #[command(flatten)]
    places: ProofPlaces,
    /// Sources whose kernels are tried, good and with bugs (may be repeated) [default: all that there
    /// are built-in bugs for]
    #[arg(long = "kernel", short = 'k', value_name = "RECIPE")]
    kernels: Vec<String>,
    /// Only these bugs (may be repeated); the good kernel is tried in any case
    #[arg(long = "bug", value_name = "ID")]
    bugs: Vec<String>,
    /// Bugs of your own instead of the built-in ones, for the kernel that the file or --kernel names
    #[arg(long = "bugs", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Case to run, built-in or a file
    #[arg(long, value_name = "CASE", default_value = CASE)]
    case: String,
    /// QEMU: a fetched one's name, or a binary
    #[arg(long, value_name = "NAME|PATH", default_value = QEMU)]
    qemu: String,
    /// What to print on standard output
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Guests and compilers at once [default: by processors and free memory]
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Stretch every deadline by this factor
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    patience: f64,
    /// Program that serves probes, as `dmarig probe` does [default: this one]
    #[arg(long, value_name = "PATH", hide = true)]
    probe_program: Option<PathBuf>,
    #[command(flatten)]
    mirrors: MirrorOptions,
}

/// Where things are kept. Proofs have a place of their own: kernels that are bad on purpose would be
/// failures in the history of what is recorded beside them.
#[derive(Debug, Args)]
struct ProofPlaces {
    /// Cache of kernels and initramfs images [default: $XDG_CACHE_HOME/dmarig]
    #[arg(long, value_name = "DIR", env = "DMARIG_CACHE", hide_env = true)]
    cache: Option<PathBuf>,
    /// Records of proofs, apart from those of runs [default: $XDG_STATE_HOME/dmarig/proofs]
    #[arg(long, value_name = "DIR", env = "DMARIG_PROOFS", hide_env = true)]
    runs: Option<PathBuf>,
    /// Recipes of kernels instead of the built-in ones
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
        let runs = self.places.runs()?;
        let lists = self.lists()?;
        // A mistake in the words is told before the first source is fetched.
        for case in [&self.case, slower::CASE] {
            select(&self.selection(case, "a-kernel"), &cache)?;
        }
        qemu_program(&cache, &self.qemu).map_err(|error| Failure::usage(anyhow!(error)))?;
        remove_left_directories();
        let mut trials = Vec::new();
        let tried = self.all(&cache, &runs, &lists, &words, &mut trials);
        // What was found before something went wrong is told all the same.
        if tried.is_ok() || !trials.is_empty() {
            self.tell(&trials)?;
        }
        if trials.iter().any(|trial| trial.cells > 0) {
            let judge = format!("`dmarig judge last --runs {0}`", runs.display());
            let line =
                format!("records of these runs: {}; {judge} judges the last again", runs.display());
            errln!("{}", folded(&line, width(std::io::stderr()), "  "));
        }
        Ok(if tried? { exit(&trials) } else { Exit::Interrupted })
    }

    /// Tries one kernel after the other; says whether it came to the end.
    fn all(
        &self,
        cache: &Cache,
        runs: &Path,
        lists: &[(String, Vec<Bug>)],
        words: &[String],
        trials: &mut Vec<Trial>,
    ) -> Result<bool, Failure> {
        for (kernel, bugs) in lists {
            fetch_source(cache, kernel, &self.mirrors)?;
            for bug in std::iter::once(None).chain(bugs.iter().map(Some)) {
                let Some(trial) = self.trial(cache, runs, kernel, bug, words)? else {
                    return Ok(false);
                };
                errln!("{}", matrix::line(&trial, width(std::io::stderr())));
                trials.push(trial);
            }
        }
        Ok(true)
    }

    /// The kernels to try, each with its bugs.
    fn lists(&self) -> Result<Vec<(String, Vec<Bug>)>, Failure> {
        let lists: Vec<(String, Bugs)> = match &self.file {
            Some(path) => {
                let bugs = Bugs::load(path)?;
                let kernel = match (self.kernels.as_slice(), &bugs.kernel) {
                    ([kernel], _) => kernel.clone(),
                    ([], Some(kernel)) => kernel.clone(),
                    _ => {
                        return Err(Failure::usage(anyhow!(
                            "{}: name the one kernel that its bugs are for by --kernel",
                            path.display()
                        )));
                    }
                };
                vec![(kernel, bugs)]
            }
            None => {
                let named = self.kernels.iter().map(String::as_str);
                let kernels: Vec<&str> = if self.kernels.is_empty() {
                    Bugs::kernels().collect()
                } else {
                    named.collect()
                };
                let load = |name: &str| Bugs::builtin(name).map(|bugs| (name.to_owned(), bugs));
                kernels.into_iter().map(load).collect::<Result<_, _>>()?
            }
        };
        let picked = |bugs: &Bugs| -> Result<Vec<Bug>, Failure> {
            if self.bugs.is_empty() {
                return Ok(bugs.bugs.clone());
            }
            let get = |id: &String| bugs.get(id).cloned();
            Ok(self.bugs.iter().map(get).collect::<Result<_, _>>()?)
        };
        lists.iter().map(|(kernel, bugs)| Ok((kernel.clone(), picked(bugs)?))).collect()
    }

    /// Builds one kernel, good or with a bug, and runs the case on it. `None` where the user
    /// stopped it.
    fn trial(
        &self,
        cache: &Cache,
        runs: &Path,
        kernel: &str,
        bug: Option<&Bug>,
        words: &[String],
    ) -> Result<Option<Trial>, Failure> {
        let edits: Vec<Edits> = bug.iter().map(|bug| bug.edits.clone()).collect();
        let spec = Spec { edits, ..Spec::new(Source::Package(kernel.to_owned())) };
        let name = spec.name();
        let mut trial = Trial::new(kernel, bug);
        let start = Instant::now();
        let mut builder = Builder::new(cache);
        if let Some(jobs) = self.jobs {
            builder = builder.with_jobs(jobs.into());
        }
        errln!("{}", folded(&format!("building {name}"), width(std::io::stderr()), "  "));
        match build_until_interrupted(builder, spec) {
            Ok(built) => {
                cache.name_built(&name, &built.kernel.id)?;
                trial.built = start.elapsed();
            }
            Err(error) => match error.fault() {
                Fault::Interrupted => return Ok(None),
                // An edit that does not apply or build proves nothing; the others still may.
                Fault::Source => {
                    trial.verdict = Verdict::Errored(format!("not built: {error}"));
                    return Ok(Some(trial));
                }
                Fault::Request | Fault::Host => return Err(error.into()),
            },
        }
        let start = Instant::now();
        let selection = self.selection(&self.case, &name);
        let jobs = self.jobs.map(usize::from);
        // When it is dropped, every guest is killed and its directory removed.
        let mut runtime = InterruptibleRuntime::new(on_interrupt)?;
        let interrupted = runtime.interrupted();
        let run = run_cells(cache, &selection, runs, jobs, words, interrupted, &Notes);
        let cells = runtime.run(run).transpose()?;
        let Some(TrialCells { cells, interrupted: false }) = cells else { return Ok(None) };
        trial.judge(cells);
        if slower::is_due(&trial) {
            let good = Spec::new(Source::Package(kernel.to_owned())).name();
            let Some(outcome) = self.compare(cache, runs, [name, good], words)? else {
                return Ok(None);
            };
            trial.judge_times(slower::findings(&outcome));
        }
        trial.ran = start.elapsed();
        Ok(Some(trial))
    }

    /// Times a kernel in pairs with the good one. `None` where the user stopped it.
    fn compare(
        &self,
        cache: &Cache,
        runs: &Path,
        names: [String; 2],
        words: &[String],
    ) -> Result<Option<CompareOutcome>, Failure> {
        errln!("timing {} beside {}", names[0], names[1]);
        let selections =
            [self.selection(slower::CASE, &names[0]), self.selection(slower::CASE, &names[1])];
        let request = CompareRequest {
            names,
            selections,
            sides: [Side::Own; 2],
            limits: &[],
            metrics: &[],
            seed: fresh_seed(),
        };
        let mut runtime = InterruptibleRuntime::new(on_interrupt)?;
        let interrupted = runtime.interrupted();
        let comparison = compare(&request, cache, words.to_vec(), runs, interrupted, &Notes);
        let outcome = runtime.run(comparison).transpose()?;
        Ok(outcome.filter(|outcome| !outcome.interrupted))
    }

    fn selection(&self, case: &str, kernel: &str) -> Selection {
        Selection {
            cases: vec![case.to_owned()],
            kernels: vec![kernel.to_owned()],
            qemus: vec![self.qemu.clone()],
            probe_program: self.probe_program.clone(),
            patience: self.patience,
            ..Selection::default()
        }
    }

    fn tell(&self, trials: &[Trial]) -> Result<(), Failure> {
        let text = match self.format {
            Format::Json => serde_json::to_string_pretty(&matrix::document(trials))? + "\n",
            Format::Table => matrix::text(trials, width(std::io::stdout())),
        };
        print(&text)
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
