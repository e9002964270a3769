//! A program that speaks as QEMU does, and behaves as a script says.
//!
//! It is this very test binary under another name: `fake-qemu-SCRIPT`. So it is built with the
//! tests, ships with nothing, and one run of dmarig can have a good and a bad one side by side.

mod agent;
mod guest;
mod monitor;

use std::{ffi::OsStr, io::Write, os::unix::net::UnixStream, path::Path, process::ExitCode};

use clap::ValueEnum;

/// The environment variable with the path of a socket that is told when a script hangs.
pub(crate) const NOTIFY: &str = "FAKE_QEMU_NOTIFY";
/// What it says on standard error before it dies.
pub(crate) const LAST_WORDS: &str = "fake-qemu: no luck today";
/// The version that it claims.
pub(crate) const VERSION: &str = "8.2.1";
/// Requests that its agent claims to have done where it floods the trace: one unmap each.
pub(crate) const TRACE_FLOOD: u64 = 300_000;
/// How often [`Script::FloodsConsole`] prints its line.
pub(crate) const CONSOLE_FLOOD: usize = 300_000;

/// Directory of a kernel with which each script's workload takes a fifth more time.
pub(crate) const SLOW_KERNEL: &str = "slow";

/// What it says of a device's server that is gone.
pub(crate) const DEVICE_TROUBLE: &str = "qemu-system-x86_64: server closed socket";

const PREFIX: &str = "fake-qemu-";

/// What it does. All that is not said is done as by a QEMU with a guest that behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Script {
    /// A good guest.
    Passes,
    /// As that, and its workload takes a fifth more time.
    IsSlow,
    /// Tells of a version from long ago.
    IsOld,
    /// Dies when it is asked what it can do.
    DiesWhenAsked,
    /// Hangs when it is asked what it can do.
    HangsWhenAsked,
    /// Answers with something else than QMP when it is asked what it can do.
    BabblesWhenAsked,
    /// Dies before it connects.
    Dies,
    /// As that, after much that is no reason.
    DiesAfterManyWords,
    /// Dies when it has connected, some time after it has closed its channels.
    DiesWhenConnected,
    /// Never connects.
    NeverConnects,
    /// Speaks something else than QMP.
    Babbles,
    /// Connects and says nothing over QMP.
    IsMute,
    /// Refuses to start the guest.
    Refuses,
    /// Closes its monitor in the workload, and lives on.
    ClosesMonitor,
    /// Dies in the workload.
    DiesInWorkload,
    /// Aborts in the workload.
    Aborts,
    /// Passes, but neither `quit` nor TERM ends it.
    IsStubborn,
    /// Its registers are others than its properties say.
    Contradicts,
    /// Stops the guest.
    Stops,
    /// Has no space for the guest's disk.
    HasNoSpace,
    /// The kernel panics at boot.
    Panics,
    /// As that, and its last words would steer a terminal.
    PanicsInColour,
    /// Boots, and its agent never comes up.
    HasNoAgent,
    /// Resets in the workload.
    Reboots,
    /// Complains of its device's server in the workload, and hangs.
    HasDeviceTrouble,
    /// As that, and dies.
    DiesOfDeviceTrouble,
    /// Never ends the workload.
    HangsInWorkload,
    /// As that, and TERM does not end it.
    HangsAndIgnoresTerm,
    /// Floods its console and passes.
    FloodsConsole,
    /// Floods its console with the shortest lines and panics.
    FloodsConsoleAndPanics,
    /// Floods the trace and passes.
    FloodsTrace,
    /// Sends what is no frame over the agent's UART, without end.
    SendsGarbage,
    /// Sends greetings without end.
    SendsGreetings,
    /// Sends another kind of message than was asked for.
    SendsTheWrongKind,
    /// Sends a log without end.
    SendsLogs,
    /// Sends a frame that claims to be larger than any.
    ClaimsTooMuch,
    /// Sends a frame that claims more than it has.
    ClaimsMoreThanItHas,
    /// Says that it could not do what it was asked.
    Fails,
    /// Its kernel drives the device, and makes no disk of it.
    HasNoDisk,
    /// Plays the script that its kernel names.
    AsItsKernel,
}

/// What stands in a kernel before the name of a script, and what behind it.
pub(crate) const KERNEL_SCRIPT: [&str; 2] = ["fake-script: ", ";"];

impl Script {
    /// The name of a QEMU that plays it.
    pub(crate) fn file_name(self) -> String {
        file_name(PREFIX, &self)
    }

    /// The script that this process is to play, if it is none of the tests.
    pub(crate) fn of_this_process() -> Option<Self> {
        of_this_process(PREFIX)
    }
}

/// The name of a program that plays a script.
pub(crate) fn file_name(prefix: &str, script: &impl ValueEnum) -> String {
    let value = script.to_possible_value().expect("no script is hidden");
    format!("{prefix}{}", value.get_name())
}

/// The script that this process is to play by its name.
pub(crate) fn of_this_process<S: ValueEnum>(prefix: &str) -> Option<S> {
    let program = std::env::args_os().next()?;
    let name = Path::new(&program).file_name().and_then(OsStr::to_str)?.strip_prefix(prefix)?;
    Some(S::from_str(name, false).expect("a script of that name"))
}

/// Plays a script; gives the exit code where it comes to its end.
pub(crate) fn play(script: Script) -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.windows(2).any(|pair| pair == ["-M", "none"]) {
        monitor::inspected(script)
    } else {
        let script = if script == Script::AsItsKernel { of_kernel(&arguments) } else { script };
        guest::play(script, &arguments)
    }
}

/// The script that the kernel names which this was started with.
fn of_kernel(arguments: &[String]) -> Script {
    let at = arguments.iter().position(|word| word == "-kernel").expect("a kernel");
    let kernel = std::fs::read(&arguments[at + 1]).expect("a kernel that can be read");
    let kernel = String::from_utf8_lossy(&kernel).into_owned();
    let [before, behind] = KERNEL_SCRIPT;
    let name = kernel.split_once(before).and_then(|(_, rest)| Some(rest.split_once(behind)?.0));
    Script::from_str(name.expect("a kernel made for this"), false).expect("a script of that name")
}

/// Hangs for ever, and tells those who wait for it.
fn hang() -> ! {
    let told = std::env::var_os(NOTIFY).and_then(|path| {
        let mut socket = UnixStream::connect(path).ok()?;
        socket.write_all(b"hanging\n").ok()?;
        // Kept open: it closes when this process dies.
        Some(socket)
    });
    loop {
        std::thread::park();
        std::hint::black_box(&told);
    }
}

fn die() -> ! {
    eprintln!("{LAST_WORDS}");
    std::process::exit(1)
}
