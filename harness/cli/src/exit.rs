//! Exit codes.

use dmarig_model::observation::Outcome;
use dmarig_runner::{ErrorClass, RequestError, kernel_error_class};

/// The list of exit codes, as `--help` shows it.
pub(crate) const HELP: &str = "\
Exit codes of `run`, `judge` and `compare`:
  0    all cells that ran passed; a comparison found nothing worse than its limit
  1    a cell failed or timed out; a candidate, or a number beside earlier runs, is worse than the limit
  2    bad usage, or a mistake in a case file
  3    a cell errored: the rig's fault or the host's, nothing is said of the kernel; a recorded run ended early
  4    nothing ran
  130  interrupted

Exit codes of `analyze`: 0 nothing is odd, 1 something is, 2 bad usage, 3 the log can't be read,
4 there is no kernel log in it.
Exit codes of `bisect`: 0 the guilty commit was found and confirmed, 1 it could not be told from others,
2 bad usage, or an end is not what it is said to be, 3 the rig's fault or the host's, 4 an end can't be
judged, 130 interrupted; after 3 and 130 `--resume` goes on.
Exit codes of `bisect-step`, for `git bisect run`: 0 good, 1 bad, 125 can't be tested (it does not build or
boot, or is not decided), 128 the rig's fault or the host's, 129 bad usage, 130 interrupted.

Exit codes of `prove`: 0 each bug was caught for its own reason and no good kernel blamed, 1 one was not, 2 bad
usage, 3 a kernel errored or was not built, or the host's fault, 130 interrupted.
Exit codes of `kernel build`: 0 built, 1 the source does not build, or lacks what an edit or an option needs,
2 bad usage, or a configuration or edits that can't be read, 3 the host's fault, 130 interrupted.
Exit codes of `history`: 0 done, 2 bad usage, 3 a record could not be read (the others went in), or the
history can't be.
Exit codes of `alerts --check`: 0 there is no new one, 1 there is, 2 bad usage, 3 the history can't be read.

Settings from the environment: DMARIG_MIRROR, DMARIG_SECURITY_MIRROR (package mirrors),
DMARIG_CACHE, DMARIG_RUNS, DMARIG_PROOFS (directories), DMARIG_HISTORY (a file), DMARIG_QEMU,
DMARIG_MACHINE (this machine's name, where another one is just like it), DMARIG_LOG (debug output).";

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All that ran passed, or the command did what it was asked.
    Passed,
    /// A cell failed or timed out.
    Failed,
    /// Bad usage, or a mistake in a case file.
    Usage,
    /// The rig's fault or the host's.
    Errored,
    /// Nothing ran.
    Nothing,
    /// A revision that says nothing, for `git bisect run`.
    Untestable,
    /// Stopped by the user.
    Interrupted,
}

impl Exit {
    /// The process' exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Errored => 3,
            Self::Nothing => 4,
            Self::Untestable => 125,
            Self::Interrupted => 130,
        }
    }

    /// The exit of a run whose cells ended so. A failure is told before an error: it is about the
    /// kernel under test, and an error elsewhere does not undo it.
    pub(crate) fn of(outcomes: impl IntoIterator<Item = Outcome>) -> Self {
        let mut exit = Self::Nothing;
        for outcome in outcomes {
            let one = match outcome {
                Outcome::Skipped => Self::Nothing,
                Outcome::Passed => Self::Passed,
                Outcome::Errored => Self::Errored,
                Outcome::Failed | Outcome::TimedOut => Self::Failed,
            };
            let weight = |exit| match exit {
                Self::Nothing => 0,
                Self::Passed => 1,
                Self::Errored => 2,
                _ => 3,
            };
            if weight(one) > weight(exit) {
                exit = one;
            }
        }
        exit
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command could not be carried out.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) error: anyhow::Error,
}

impl Failure {
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Usage, error: error.into() }
    }

    /// No directory for records is known.
    pub(crate) fn no_place() -> Self {
        Self::usage(anyhow::anyhow!(
            "there is no place for records: neither HOME nor XDG_STATE_HOME is set; give --runs DIR"
        ))
    }
}

/// The exit code follows from the error: a runner's error and a kernel's say whose fault they are. All
/// others are the rig's or its host's.
impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error: anyhow::Error = error.into();
        let runner = error.downcast_ref::<dmarig_runner::Error>().map(dmarig_runner::Error::class);
        let request = error.downcast_ref::<RequestError>().map(|_| ErrorClass::Request);
        let kernels = || error.downcast_ref::<dmarig_kernels::Error>().map(kernel_error_class);
        let class = runner.or(request).or_else(kernels).unwrap_or(ErrorClass::Host);
        let exit = match class {
            ErrorClass::Request => Exit::Usage,
            ErrorClass::Host => Exit::Errored,
            ErrorClass::Source => Exit::Failed,
            ErrorClass::Interrupted => Exit::Interrupted,
        };
        Self { exit, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_news_of_the_kernel_decides() {
        use Outcome::{Errored, Failed, Passed, Skipped, TimedOut};
        for (outcomes, code) in [
            (&[][..], 4),
            (&[Skipped, Skipped][..], 4),
            (&[Skipped, Passed][..], 0),
            (&[Passed, Errored][..], 3),
            (&[Errored, Failed, Passed][..], 1),
            (&[TimedOut][..], 1),
            (&[Skipped, Errored][..], 3),
        ] {
            assert_eq!(Exit::of(outcomes.iter().copied()).code(), code, "{outcomes:?}");
        }
        // A count of failures would wrap around to success here.
        assert_eq!(Exit::of(std::iter::repeat_n(Failed, 256)).code(), 1);
    }
}
