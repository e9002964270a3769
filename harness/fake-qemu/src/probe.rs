use clap::ValueEnum;

use crate::role::Role;

/// What fake and relayed probes print on standard error when they start.
pub const PROBE_LAST_WORDS: &str = "fake-probe: the shadow is gone";

/// How a fake probe behaves. It serves no device: the fake QEMU uses none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProbeScript {
    /// Answers as a probe does whose guest behaves well.
    Serves,
    /// Dies before it has made its socket.
    Dies,
    /// Dies while the workload runs.
    DiesInWorkload,
    /// Answers nothing once counting has begun.
    Stalls,
    /// Sends an invalid answer.
    Babbles,
    /// When it is asked for its counts, fails because its device has lost its QEMU.
    LosesItsClient,
    /// Reports the loss of QEMU when it happens, and still answers.
    LosesItsClientMeanwhile,
    /// Can't read its counts.
    Hangs,
    /// Reports a corrupt sector and a buffer that was never unmapped.
    SeesWrong,
}

impl Role for ProbeScript {
    const PROGRAM: &'static str = "fake-probe";
}

/// How a relayed probe fails once a window has begun. It is the real probe behind a relay that breaks the
/// vfio-user protocol, and works with a real QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RelayFault {
    /// Does not fail.
    None,
    /// Sends an invalid header.
    BadHeader,
    /// Sends a header with a size that is less than a header's.
    BadSize,
    /// Sends a reply with fewer bytes than its header says, and goes on.
    Truncates,
    /// Sends a reply that belongs to no request.
    AnswersNothing,
    /// Sends a reply that is larger than the room for it.
    TooLarge,
    /// Sends replies without end.
    Endless,
    /// Sends nothing more to QEMU.
    Stalls,
    /// Closes the socket.
    Drops,
    /// Dies.
    Dies,
}

impl Role for RelayFault {
    const PROGRAM: &'static str = "relayed-probe";
}
