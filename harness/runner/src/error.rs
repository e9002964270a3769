//! Errors of the runner.

use std::{io, path::PathBuf, sync::Arc};

use dmarig_images::did_you_mean;
use dmarig_kernels::Fault;
use dmarig_model::{axes::Axis, case::CaseErrors, matrix::MatrixError};
use dmarig_records::RecordError;

/// Who has to act on an error. The exit code of a command follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The request is wrong.
    Request,
    /// The rig or its host failed.
    Host,
    /// The kernel's source does not build, or lacks what an edit or an option needs.
    Source,
    /// The user stopped it.
    Interrupted,
}

/// Why a run could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A kernel or a QEMU could not be looked up.
    #[error(transparent)]
    Images(#[from] dmarig_images::Error),
    /// A kernel could not be built.
    #[error(transparent)]
    Kernels(#[from] dmarig_kernels::Error),
    /// A bisection could not be begun or continued.
    #[error(transparent)]
    Bisect(#[from] dmarig_bisect::Error),
    /// The specification of a judge, in a journal, is not this version's.
    #[error("this version of dmarig cannot read how the bisection judges: {0}")]
    Specification(serde_json::Error),
    /// A record could not be written, or signals not be listened to.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A record could not be read back.
    #[error(transparent)]
    Load(#[from] RecordError),
    /// The history could not be read.
    #[error(transparent)]
    History(#[from] dmarig_history::HistoryError),
    /// A device of the host could not be handed over or given back.
    #[error(transparent)]
    HostDevice(#[from] dmarig_hostdev::Error),
    /// A device of the host is in use, or would lose data.
    #[error("{address} is not passed through:\n  {}", obstacles.join("\n  "))]
    DeviceRefused {
        /// The device.
        address: String,
        /// Each reason.
        obstacles: Vec<String>,
    },
}

impl Error {
    /// Who has to act.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Request(_) => ErrorClass::Request,
            Self::Kernels(error) => kernel_error_class(error),
            Self::Bisect(error) => match error {
                dmarig_bisect::Error::NoRepository { .. }
                | dmarig_bisect::Error::NoRevision { .. }
                | dmarig_bisect::Error::SameEnds(_)
                | dmarig_bisect::Error::Unrelated { .. }
                | dmarig_bisect::Error::Reversed { .. }
                | dmarig_bisect::Error::Unknown { .. } => ErrorClass::Request,
                dmarig_bisect::Error::Interrupted(_) => ErrorClass::Interrupted,
                _ => ErrorClass::Host,
            },
            Self::Images(_)
            | Self::Specification(_)
            | Self::Io(_)
            | Self::Load(_)
            | Self::History(_)
            | Self::HostDevice(_)
            | Self::DeviceRefused { .. } => ErrorClass::Host,
        }
    }
}

/// The class of a build's error.
#[must_use]
pub fn kernel_error_class(error: &dmarig_kernels::Error) -> ErrorClass {
    match error.fault() {
        Fault::Source => ErrorClass::Source,
        Fault::Request => ErrorClass::Request,
        Fault::Host => ErrorClass::Host,
        Fault::Interrupted => ErrorClass::Interrupted,
    }
}

/// What is wrong with a request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Mistakes in case files.
    #[error(transparent)]
    Cases(#[from] CaseErrors),
    /// Values of an axis, or a pattern that selects no cell.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// A kernel that does not exist.
    #[error(transparent)]
    Kernel(dmarig_images::Error),
    /// A kernel that an option names and that does not exist.
    #[error("{option}: {error}")]
    KernelOption {
        /// The option.
        option: &'static str,
        /// What is wrong.
        error: dmarig_images::Error,
    },
    /// Neither a file nor a built-in case.
    #[error(
        "there is no case file {name} and no built-in case of that name{} (there are {})",
        did_you_mean(name, known),
        known.join(", ")
    )]
    UnknownCase {
        /// The word that was given.
        name: String,
        /// Names of the built-in cases.
        known: Vec<String>,
    },
    /// A case file that cannot be read.
    #[error("can't read {path}")]
    UnreadableCase {
        /// The file.
        path: String,
        /// The system's error.
        source: io::Error,
    },
    /// Values of one axis from two options.
    #[error("{axis} is given both by --set and by --{axis}: give it once")]
    AxisGivenTwice {
        /// The axis.
        axis: Axis,
    },
    /// A metric that cannot be timed.
    #[error("{option}: {what}")]
    Metric {
        /// The option.
        option: &'static str,
        /// What is wrong.
        what: String,
    },
    /// Two limits for one metric.
    #[error("--limit {metric} is given twice: give it once")]
    LimitGivenTwice {
        /// The metric.
        metric: String,
    },
    /// Control windows on both sides of a comparison.
    #[error(
        "control=on stands on both sides: a kernel that is made to batch is compared with itself as it is"
    )]
    ControlOnBothSides,
    /// Control windows and different cells.
    #[error(
        "control=on compares a kernel with itself in one boot: give other values to both by --set"
    )]
    ControlWithOtherValues,
    /// A case without a workload cannot be timed.
    #[error("case {case} does nothing that could be timed")]
    IdleCase {
        /// The case.
        case: String,
    },
    /// The two sides of a comparison have no cell in common.
    #[error(
        "no cell of the candidate has its like among the baseline's: `dmarig cells` lists them"
    )]
    NothingInCommon,
    /// A QEMU that does not exist.
    #[error(transparent)]
    Qemu(PrepareError),
    /// A baseline and a device of the host.
    #[error(
        "--baseline boots two kernels in turn, and --device lends the device to one run: compare two \
         runs with `dmarig compare` instead"
    )]
    BaselineWithDevice,
    /// A baseline and no limits.
    #[error(
        "no selected case has `limits`, so nothing would be judged against {baseline}: give --limit, as \
         in --limit elapsed=5"
    )]
    NothingJudgedByBaseline {
        /// The baseline.
        baseline: String,
    },
    /// A baseline that is the only kernel.
    #[error("{baseline} would be compared with itself")]
    BaselineIsKernel {
        /// The baseline.
        baseline: String,
    },
    /// A name that is no accelerator.
    #[error("invalid accelerator `{name}`: expected auto, kvm or tcg")]
    Accelerator {
        /// What was given.
        name: String,
    },
    /// A source tree that cannot be read.
    #[error("can't read {}", path.display())]
    Tree {
        /// Its directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file of bugs that does not name its kernel.
    #[error("{}: name the one kernel that its bugs are for by --kernel", path.display())]
    KernelOfBugs {
        /// The file.
        path: PathBuf,
    },
    /// A metric that cannot be judged as requested.
    #[error("{0}")]
    Comparison(String),
    /// A metric and several cells.
    #[error(
        "a metric is judged by one cell, and {count} are selected ({cells}, ...): name one with --case or --cell"
    )]
    SeveralCells {
        /// How many.
        count: usize,
        /// The first of them.
        cells: String,
    },
}

/// Why a cell could not be prepared. Shared by the cells that need the same thing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PrepareError {
    /// A kernel, a module or an initramfs.
    #[error(transparent)]
    Images(#[from] Arc<dmarig_images::Error>),
    /// A QEMU did not answer.
    #[error(transparent)]
    Inspect(#[from] Arc<dmarig_rig::inspect::InspectError>),
    /// No program of that name, and no fetched QEMU.
    #[error(
        "no QEMU `{name}`: {source}{}; install it (on Debian: apt-get install qemu-system-x86), fetch one \
         (`dmarig images fetch qemu`, then --qemu qemu), or name another binary with --qemu",
        did_you_mean(name, known)
    )]
    NoQemu {
        /// The word that was given.
        name: String,
        /// Names of the QEMUs that can be fetched.
        known: Vec<String>,
        /// The look-up's error.
        source: which::Error,
    },
    /// A kernel without its modules.
    #[error(
        "kernel {kernel} has {modules} as modules, but there are none next to it: name their \
         directory with --modules"
    )]
    NoModules {
        /// The kernel.
        kernel: String,
        /// The modules that are needed.
        modules: String,
    },
    /// KVM was requested and cannot be used.
    #[error("KVM was asked for, but {why}")]
    NoKvm {
        /// Why.
        why: String,
    },
    /// A plan that was needed to prove KVM could not be made.
    #[error("{0}")]
    NoPlan(String),
    /// An added file without a name.
    #[error("--add {}: it has no plain name", path.display())]
    NamelessFile {
        /// The file.
        path: PathBuf,
    },
    /// An added file that does not exist.
    #[error("--add {}: there is no such file", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// This program's own file or libraries are not known.
    #[error("this program's own {what} not known: {source}")]
    OwnProgram {
        /// `file is` or `files are`.
        what: &'static str,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// A file of the cache could not be written.
    #[error("can't write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The kernel of a nested cell's outer guest.
    #[error("the outer guest's kernel (--outer-kernel): {0}")]
    OuterKernel(Box<PrepareError>),
    /// A device of the host cannot be passed to this QEMU.
    #[error("{0}")]
    HostDevice(String),
}

impl From<dmarig_images::Error> for PrepareError {
    fn from(error: dmarig_images::Error) -> Self {
        Self::Images(Arc::new(error))
    }
}

impl From<dmarig_rig::inspect::InspectError> for PrepareError {
    fn from(error: dmarig_rig::inspect::InspectError) -> Self {
        Self::Inspect(Arc::new(error))
    }
}
