//! The proof of the rig: kernels with seeded bugs must be caught, and good kernels must pass.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use dmarig_images::{Cache, Mirrors, Progress};
use dmarig_kernels::{Bug, Bugs, Builder, Edits, Fault, Source, Spec};
use dmarig_model::windows::Side;
use dmarig_records::Recorder;

use crate::{
    builds::{self, NewBuildProgress, fetch_source},
    cell_run::CellRun,
    error::{Error, RequestError},
    event::{Event, Reporter},
    meta::run_meta,
    paired::{CompareOutcome, CompareRequest, compare, fresh_seed},
    prepare::qemu_program,
    request::Selection,
    run::remove_left_directories,
    schedule::FinishedCell,
    select::select,
    signals::InterruptibleRuntime,
    slower,
    trial::{Trial, Verdict},
};

/// The kernels to try and how to try them.
#[derive(Debug, Clone)]
pub struct ProofRequest {
    /// Sources whose kernels are tried. Without any, all sources with built-in bugs.
    pub kernels: Vec<String>,
    /// Ids of the bugs to try. Without any, all bugs. The good kernel is always tried.
    pub bugs: Vec<String>,
    /// File of bugs that replaces the built-in ones.
    pub bug_file: Option<PathBuf>,
    /// The case to run: a built-in one's name or a file.
    pub case: String,
    /// QEMU: a fetched one's name, or a program.
    pub qemu: String,
    /// Guests and compilers at a time. Without a number, by processors and free memory.
    pub jobs: Option<u16>,
    /// Factor by which every deadline is stretched.
    pub patience: f64,
    /// The program that serves probes. Without one, this program.
    pub probe_program: Option<PathBuf>,
    /// Mirrors for sources that have to be fetched.
    pub mirrors: Mirrors,
    /// Directory of the records.
    pub runs: PathBuf,
    /// The command line that records name.
    pub command: Vec<String>,
}

/// Surroundings of a proof.
pub struct ProofSetup<'a> {
    /// Kernels and QEMUs.
    pub cache: &'a Cache,
    /// The runtime of builds and guests.
    pub runtime: InterruptibleRuntime,
    /// Consumes the events.
    pub reporter: &'a dyn Reporter,
    /// Creates the progress of a build.
    pub build_progress: NewBuildProgress,
    /// The progress of a fetch.
    pub fetch_progress: &'a dyn Progress,
}

/// A source with the bugs to try in it.
type KernelBugs = (String, Vec<Bug>);

/// A proof that has been checked and can start.
pub struct Proof<'a> {
    request: ProofRequest,
    setup: ProofSetup<'a>,
    kernels: Vec<KernelBugs>,
}

impl<'a> Proof<'a> {
    /// Checks a request before anything is fetched or built.
    ///
    /// # Errors
    /// [`Error::Request`] or [`Error::Kernels`]
    pub fn new(request: ProofRequest, setup: ProofSetup<'a>) -> Result<Self, Error> {
        let kernels = request.kernel_bugs()?;
        for case in [request.case.as_str(), slower::CASE] {
            select(&request.selection(case, "a-kernel"), setup.cache)?;
        }
        qemu_program(setup.cache, &request.qemu).map_err(RequestError::Qemu)?;
        Ok(Self { request, setup, kernels })
    }

    /// Tries one kernel after the other and appends each to `trials`, which also has those before an
    /// error. Returns whether all were tried; the user may have stopped it.
    ///
    /// # Errors
    /// [`Error`]
    pub fn run(&mut self, trials: &mut Vec<Trial>) -> Result<bool, Error> {
        remove_left_directories();
        for (kernel, bugs) in std::mem::take(&mut self.kernels) {
            let ProofSetup { cache, fetch_progress, .. } = self.setup;
            if let Some(fetched) =
                fetch_source(cache, &kernel, &self.request.mirrors, fetch_progress)?
            {
                let name = &fetched.name;
                self.report(&Event::SourceFetched { name, version: &fetched.version });
            }
            for bug in std::iter::once(None).chain(bugs.iter().map(Some)) {
                let Some(trial) = self.try_kernel(&kernel, bug)? else { return Ok(false) };
                self.report(&Event::TrialFinished(&trial));
                trials.push(trial);
            }
        }
        Ok(true)
    }

    /// Builds one kernel, good or with a bug, and runs the case on it. `None` if the user stopped it.
    fn try_kernel(&mut self, kernel: &str, bug: Option<&Bug>) -> Result<Option<Trial>, Error> {
        let edits: Vec<Edits> = bug.iter().map(|bug| bug.edits.clone()).collect();
        let spec = Spec { edits, ..Spec::new(Source::Package(kernel.to_owned())) };
        let name = spec.name();
        let mut trial = Trial::new(kernel, bug);
        let start = Instant::now();
        self.report(&Event::BuildStarted { name: &name });
        let mut builder = Builder::new(self.setup.cache);
        if let Some(jobs) = self.request.jobs {
            builder = builder.with_jobs(jobs.into());
        }
        let ProofSetup { cache, runtime, build_progress, .. } = &mut self.setup;
        match builds::build(builder, spec, runtime, *build_progress) {
            Ok(built) => {
                cache.name_built(&name, &built.kernel.id)?;
                trial.built = start.elapsed();
            }
            Err(error) => match error.fault() {
                Fault::Interrupted => return Ok(None),
                // An edit that does not apply or build proves nothing. The other kernels still may.
                Fault::Source => {
                    trial.verdict = Verdict::Errored(format!("not built: {error}"));
                    return Ok(Some(trial));
                }
                Fault::Request | Fault::Host => return Err(error.into()),
            },
        }
        let start = Instant::now();
        let Some(TrialCells { cells, interrupted: false }) = self.run_cells(&name)? else {
            return Ok(None);
        };
        trial.judge(cells.iter().map(|cell| &cell.result));
        if trial.needs_pairs() {
            let good = Spec::new(Source::Package(kernel.to_owned())).name();
            let Some(outcome) = self.compare([name, good])? else { return Ok(None) };
            trial.judge_times(slower::findings(&outcome));
        }
        trial.ran = start.elapsed();
        Ok(Some(trial))
    }

    /// Runs the case's cells. `None` if the user stopped it twice.
    fn run_cells(&mut self, kernel: &str) -> Result<Option<TrialCells>, Error> {
        let ProofRequest { case, runs, jobs, command, .. } = &self.request;
        let selection = self.request.selection(case, kernel);
        let ProofSetup { cache, runtime, reporter, .. } = &mut self.setup;
        let selected = select(&selection, cache)?;
        let mut meta = run_meta(&selected, command.clone());
        let mut recorder = Recorder::create(runs, &mut meta)?;
        let interrupted = runtime.interrupted();
        let run = CellRun {
            cache,
            selection: &selection,
            selected: &selected,
            device: None,
            jobs: jobs.map(usize::from),
            interrupted: &interrupted,
            reporter: *reporter,
        };
        let Some(outcome) = runtime.run(run.run(&mut recorder)) else { return Ok(None) };
        let interrupted = *interrupted.borrow();
        Ok(Some(TrialCells { cells: outcome.cells, interrupted }))
    }

    /// Times a kernel in pairs with the good one. `None` if the user stopped it.
    fn compare(&mut self, names: [String; 2]) -> Result<Option<CompareOutcome>, Error> {
        let [candidate, baseline] = &names;
        self.report(&Event::TimingStarted { candidate, baseline });
        let selection = |name: &String| self.request.selection(slower::CASE, name);
        let request = CompareRequest {
            selections: [selection(candidate), selection(baseline)],
            names,
            sides: [Side::Own; 2],
            limits: &[],
            metrics: &[],
            seed: fresh_seed(),
        };
        let command = self.request.command.clone();
        let ProofSetup { cache, runtime, reporter, .. } = &mut self.setup;
        let interrupted = runtime.interrupted();
        let runs: &Path = &self.request.runs;
        let comparison = compare(&request, cache, command, runs, interrupted, *reporter);
        let outcome = runtime.run(comparison).transpose()?;
        Ok(outcome.filter(|outcome| !outcome.interrupted))
    }

    fn report(&self, event: &Event<'_>) {
        self.setup.reporter.report(event);
    }
}

/// The cells of a trial.
#[derive(Debug)]
struct TrialCells {
    /// Those that ended.
    cells: Vec<FinishedCell>,
    /// Whether the user stopped the run.
    interrupted: bool,
}

impl ProofRequest {
    /// The kernels to try, each with its bugs.
    fn kernel_bugs(&self) -> Result<Vec<KernelBugs>, Error> {
        let lists: Vec<(String, Bugs)> = match &self.bug_file {
            Some(path) => vec![self.bugs_of_file(path)?],
            None => {
                let mut kernels: Vec<&str> = self.kernels.iter().map(String::as_str).collect();
                if kernels.is_empty() {
                    kernels = Bugs::kernels().collect();
                }
                let load = |name: &str| Bugs::builtin(name).map(|bugs| (name.to_owned(), bugs));
                kernels.into_iter().map(load).collect::<Result<_, _>>()?
            }
        };
        let selected = |bugs: Bugs| -> Result<Vec<Bug>, Error> {
            if self.bugs.is_empty() {
                return Ok(bugs.bugs);
            }
            Ok(self.bugs.iter().map(|id| bugs.get(id).cloned()).collect::<Result<_, _>>()?)
        };
        lists.into_iter().map(|(kernel, bugs)| Ok((kernel, selected(bugs)?))).collect()
    }

    fn bugs_of_file(&self, path: &Path) -> Result<(String, Bugs), Error> {
        let bugs = Bugs::load(path)?;
        let kernel = match (self.kernels.as_slice(), &bugs.kernel) {
            ([kernel], _) | ([], Some(kernel)) => kernel.clone(),
            _ => return Err(RequestError::KernelOfBugs { path: path.to_owned() }.into()),
        };
        Ok((kernel, bugs))
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
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const BUGS: &str = "\
bugs:
  - id: one
    what: it breaks
    why: somebody depends on it
    edits: [{ file: a.c, find: x, replace: y }]
    caught-by: [psi]
";

    fn request(kernels: &[&str], bugs: &[&str], bug_file: Option<PathBuf>) -> ProofRequest {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        ProofRequest {
            kernels: owned(kernels),
            bugs: owned(bugs),
            bug_file,
            case: "prove".to_owned(),
            qemu: "qemu".to_owned(),
            jobs: None,
            patience: 1.0,
            probe_program: None,
            mirrors: Mirrors::default(),
            runs: PathBuf::new(),
            command: Vec::new(),
        }
    }

    #[test]
    fn tries_all_built_in_bugs_of_all_kernels_by_default() {
        let kernels = request(&[], &[], None).kernel_bugs().unwrap();
        let names: Vec<&str> = kernels.iter().map(|(kernel, _)| kernel.as_str()).collect();
        assert_eq!(names, Bugs::kernels().collect::<Vec<_>>());
        assert!(kernels.iter().all(|(_, bugs)| !bugs.is_empty()));
    }

    #[test]
    fn tries_only_the_named_bugs() {
        let kernels = request(&["linux-5.10"], &["fix-reverted"], None).kernel_bugs().unwrap();
        let [(kernel, bugs)] = kernels.as_slice() else { panic!("{kernels:?}") };
        assert_eq!((kernel.as_str(), bugs.len()), ("linux-5.10", 1));
        assert_eq!(bugs[0].id, "fix-reverted");
    }

    #[rstest]
    #[case::bug(&["linux-5.10"], &["fix-revertd"])]
    #[case::kernel(&["linux-5.11"], &[])]
    fn rejects_an_unknown(#[case] kernels: &[&str], #[case] bugs: &[&str]) {
        let error = request(kernels, bugs, None).kernel_bugs().unwrap_err();
        assert!(matches!(error, Error::Kernels(_)), "{error:?}");
    }

    #[rstest]
    #[case::none(&[])]
    #[case::several(&["linux-5.10", "linux-6.12"])]
    fn rejects_a_file_of_bugs_for(#[case] kernels: &[&str]) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bugs.yaml");
        std::fs::write(&path, BUGS).unwrap();
        let error = request(kernels, &[], Some(path)).kernel_bugs().unwrap_err();
        assert!(matches!(error, Error::Request(RequestError::KernelOfBugs { .. })), "{error:?}");
    }
}
