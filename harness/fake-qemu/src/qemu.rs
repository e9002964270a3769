use clap::ValueEnum;

use crate::role::Role;

/// The environment variable with the path of a socket, to which a fake QEMU connects when it hangs.
pub const NOTIFY: &str = "FAKE_QEMU_NOTIFY";
/// What a fake QEMU prints on standard error before it dies.
pub const QEMU_LAST_WORDS: &str = "fake-qemu: no luck today";
/// The version that a fake QEMU reports.
pub const VERSION: &str = "8.2.1";
/// Requests that the agent reports where it floods the trace: one unmap each.
pub const TRACE_FLOOD: u64 = 300_000;
/// Lines that [`QemuScript::FloodsConsole`] prints.
pub const CONSOLE_FLOOD: usize = 300_000;
/// A kernel in a directory of this name makes each script's workload take a fifth more time.
pub const SLOW_KERNEL: &str = "slow";
/// What a fake QEMU prints when the server of its device is gone.
pub const DEVICE_TROUBLE: &str = "qemu-system-x86_64: server closed socket";

/// Text around the name of a script in a kernel's image.
const KERNEL_MARKER: [&str; 2] = ["fake-script: ", ";"];

/// How a fake QEMU behaves. Where a script does not say otherwise, it behaves as a QEMU with a good guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum QemuScript {
    /// A good guest.
    Passes,
    /// As `Passes`, and its workload takes a fifth more time.
    IsSlow,
    /// Reports a version that is too old.
    IsOld,
    /// Dies when it is asked for its capabilities.
    DiesWhenAsked,
    /// Hangs when it is asked for its capabilities.
    HangsWhenAsked,
    /// Answers with something other than QMP when it is asked for its capabilities.
    BabblesWhenAsked,
    /// Dies before it connects.
    Dies,
    /// As `Dies`, after many warnings.
    DiesAfterManyWords,
    /// Dies when it has connected, some time after it has closed its channels.
    DiesWhenConnected,
    /// Never connects.
    NeverConnects,
    /// Sends something other than QMP.
    Babbles,
    /// Connects and sends nothing over QMP.
    IsMute,
    /// Refuses to start the guest.
    Refuses,
    /// Closes its monitor in the workload, and lives on.
    ClosesMonitor,
    /// Dies in the workload.
    DiesInWorkload,
    /// Aborts in the workload.
    Aborts,
    /// Passes, but neither `quit` nor SIGTERM ends it.
    IsStubborn,
    /// Its registers contradict its properties.
    Contradicts,
    /// Stops the guest.
    Stops,
    /// Has no space for the guest's disk.
    HasNoSpace,
    /// The kernel panics at boot.
    Panics,
    /// As `Panics`, with escape sequences of a terminal in the message.
    PanicsInColour,
    /// Boots, and its agent never comes up.
    HasNoAgent,
    /// Resets in the workload.
    Reboots,
    /// Complains of its device's server in the workload, and hangs.
    HasDeviceTrouble,
    /// As `HasDeviceTrouble`, and dies.
    DiesOfDeviceTrouble,
    /// Never ends the workload.
    HangsInWorkload,
    /// As `HangsInWorkload`, and SIGTERM does not end it.
    HangsAndIgnoresTerm,
    /// Floods its console and passes.
    FloodsConsole,
    /// Floods its console with the shortest lines and panics.
    FloodsConsoleAndPanics,
    /// Floods the trace and passes.
    FloodsTrace,
    /// Sends bytes that are no frame over the agent's UART, without end.
    SendsGarbage,
    /// Sends greetings without end.
    SendsGreetings,
    /// Sends another kind of message than requested.
    SendsTheWrongKind,
    /// Sends a kernel log without end.
    SendsLogs,
    /// Sends a frame whose header states a size above the limit.
    ClaimsTooMuch,
    /// Sends a frame that ends before the size that its header states.
    ClaimsMoreThanItHas,
    /// Its agent fails the request to run the workload.
    Fails,
    /// Its kernel drives the device, and makes no disk of it.
    HasNoDisk,
    /// Plays the script that its kernel names, see [`Self::kernel_marker`].
    AsItsKernel,
}

impl Role for QemuScript {
    const PROGRAM: &'static str = "fake-qemu";
}

impl QemuScript {
    /// The script of a name, as in the file names of programs: `panics`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::from_str(name, false).ok()
    }

    /// Text in a kernel's image that has [`Self::AsItsKernel`] play this script.
    pub fn kernel_marker(self) -> String {
        let [before, after] = KERNEL_MARKER;
        let value = self.to_possible_value().expect("no script is hidden");
        format!("{before}{}{after}", value.get_name())
    }

    /// The script that an image names by [`Self::kernel_marker`].
    pub fn named_in_kernel(image: &[u8]) -> Option<Self> {
        let [before, after] = KERNEL_MARKER;
        let text = String::from_utf8_lossy(image);
        let (_, rest) = text.split_once(before)?;
        let (name, _) = rest.split_once(after)?;
        Self::from_name(name)
    }
}
