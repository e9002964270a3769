//! Exit codes.

use dmarig_model::observation::Outcome;
use dmarig_runner::{ErrorClass, RequestError, kernel_error_class};

/// Help after the list of commands.
pub(crate) const HELP: &str = "\
Each command's --help lists its exit codes. All have 0 for success, 2 for wrong
usage, 3 if dmarig or the host failed, and 130 if they were interrupted.

Environment:
  DMARIG_CACHE, DMARIG_RUNS, DMARIG_PROOFS  directories of the cache, of runs and of proofs
  DMARIG_HISTORY                            file of the history
  DMARIG_QEMU                               default of --qemu
  DMARIG_MIRROR, DMARIG_SECURITY_MIRROR     package mirrors
  DMARIG_MACHINE                            name of this machine, if another is identical
  DMARIG_LOG                                debug output, as in debug or dmarig_rig=trace";

/// Exit codes of `run`, `judge` and `compare`.
pub(crate) const OF_CELLS: &str = "\
Exit codes:
  0    every cell that ran passed; a comparison found nothing worse than its limit
  1    a cell failed or timed out; a candidate is worse than its limit or than earlier runs
  2    wrong usage, or a mistake in a case file
  3    a cell errored: dmarig or the host failed; or a recorded run ended early
  4    nothing ran
  130  interrupted";

/// Exit codes of `analyze`.
pub(crate) const OF_ANALYZE: &str = "\
Exit codes:
  0    nothing unusual in the log
  1    something unusual
  2    wrong usage
  3    the log cannot be read
  4    the input contains no kernel log";

/// Exit codes of `bisect`.
pub(crate) const OF_BISECT: &str = "\
Exit codes:
  0    the guilty commit was found and confirmed
  1    it could not be separated from others
  2    wrong usage, or an end does not behave as stated
  3    dmarig or the host failed; --resume continues
  4    an end cannot be judged
  130  interrupted; --resume continues";

/// Exit codes of `bisect-step`.
pub(crate) const OF_BISECT_STEP: &str = "\
Exit codes, for `git bisect run`:
  0    good
  1    bad
  125  cannot be tested: it does not build or boot, or the result is inconclusive
  128  dmarig or the host failed
  129  wrong usage
  130  interrupted";

/// Exit codes of `prove`.
pub(crate) const OF_PROVE: &str = "\
Exit codes:
  0    every bug was caught by its own checks, and every good kernel passed
  1    a bug was missed, or a good kernel failed
  2    wrong usage
  3    a kernel errored or was not built, or the host failed
  130  interrupted";

/// Exit codes of `kernel`.
pub(crate) const OF_KERNEL: &str = "\
Exit codes of `kernel build`:
  0    built
  1    the source does not build, or lacks what an edit or option needs
  2    wrong usage, or unreadable configuration or edits
  3    the host failed
  130  interrupted";

/// Exit codes of `history`.
pub(crate) const OF_HISTORY: &str = "\
Exit codes:
  0    done
  2    wrong usage
  3    a record (the others were added) or the history cannot be read";

/// Exit codes of `alerts`.
pub(crate) const OF_ALERTS: &str = "\
Exit codes:
  0    done; with --check: there is no new alert
  1    with --check: there is a new alert
  2    wrong usage
  3    the history cannot be read";

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
