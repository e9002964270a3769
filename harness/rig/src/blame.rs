//! Attributes the end of a guest: to QEMU, to its probe, to the guest's kernel or to the host.
//!
//! What a guest makes of a device that fails says nothing of its kernel. So a probe that exits or
//! misbehaves is the cause of whatever QEMU and the guest report at the same time.

use std::{fmt::Display, io, time::Duration};

use dmarig_model::observation::End;

use crate::{
    agent::AgentError,
    probe::{ProbeError, ProbeLink, ProbeProcess, reports_device_trouble},
    process::Process,
    qmp::QmpError,
};

/// Time that a probe gets to be seen dead after QEMU exited or complained of it: if both happen, the
/// probe's exit is the cause.
const PROBE_EXIT_GRACE: Duration = Duration::from_millis(500);
/// Characters of the probe's standard error that are shown behind that of its QEMU.
const PROBE_STDERR_SHOWN: usize = 400;

/// Why a wait failed.
#[derive(Debug)]
pub(crate) enum WaitError {
    /// For this reason.
    Reason(End),
    /// A channel was closed. QEMU's exit is the usual cause and says more than this reason.
    ChannelClosed(End),
}

impl From<AgentError> for WaitError {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Failed(what) => Self::Reason(End::AgentFailed { what }),
            AgentError::NotInTime { what, after_ms } => Self::Reason(End::TimedOut {
                waiting_for: "usable device".to_owned(),
                after_ms,
                last: what,
            }),
            AgentError::Io(_) => Self::ChannelClosed(channel_broken(error)),
            other => Self::Reason(channel_broken(other)),
        }
    }
}

impl From<QmpError> for WaitError {
    fn from(error: QmpError) -> Self {
        match error {
            QmpError::Closed => Self::ChannelClosed(host_fault(&error)),
            other => Self::Reason(host_fault(&other)),
        }
    }
}

impl From<ProbeError> for WaitError {
    fn from(error: ProbeError) -> Self {
        match error {
            ProbeError::Closed | ProbeError::Io(_) => Self::ChannelClosed(host_fault(&error)),
            other => Self::Reason(host_fault(&other)),
        }
    }
}

impl From<io::Error> for WaitError {
    fn from(error: io::Error) -> Self {
        Self::ChannelClosed(host_fault(&error))
    }
}

/// The end of a guest that the host is to blame for.
pub(crate) fn host_fault(error: &dyn Display) -> End {
    End::HostFault { what: error.to_string() }
}

/// The end of a guest whose agent broke the protocol.
pub(crate) fn channel_broken(error: AgentError) -> End {
    End::ChannelBroken { what: error.to_string() }
}

/// Waits for QEMU's exit and attributes it to QEMU itself or to its probe.
pub(crate) async fn qemu_exit(qemu: &mut Process, probe: Option<&mut ProbeProcess>) -> End {
    let status = qemu.wait_for_exit().await;
    let mut stderr = qemu.stderr().await;
    let Some(probe) = probe else { return End::QemuDied { status, stderr } };
    if has_exited(probe).await {
        return probe_exit(probe).await;
    }
    if let Some(line) = stderr.lines().find(|line| reports_device_trouble(line)) {
        return device_trouble(line, probe).await;
    }
    // Whoever it was, nobody should have to look for it (QEMU 11.1 crashes on half a reply).
    let probe_stderr = probe.process.stderr().await;
    let surplus = probe_stderr.chars().count().saturating_sub(PROBE_STDERR_SHOWN);
    if !probe_stderr.is_empty() {
        stderr.push_str("\nthe probe's last words: ");
        stderr.extend(probe_stderr.chars().skip(surplus));
    }
    End::QemuDied { status, stderr }
}

/// Waits for the exit of a probe that nobody told to quit.
pub(crate) async fn probe_exit(probe: &mut ProbeProcess) -> End {
    let status = probe.process.wait_for_exit().await;
    let stderr = probe.process.stderr().await;
    End::HostFault {
        what: format!("the probe ended by itself ({status}); its last words: {stderr}"),
    }
}

/// The end of a guest whose QEMU complains of the probe in `line` of its standard error.
pub(crate) async fn device_trouble(line: &str, probe: &mut ProbeProcess) -> End {
    if has_exited(probe).await {
        return probe_exit(probe).await;
    }
    let stderr = probe.process.stderr().await;
    End::HostFault {
        what: format!("QEMU printed about the probe: {line}; the probe's last output: {stderr}"),
    }
}

/// The end of a guest whose probe lost its connection to a QEMU that lives on.
pub(crate) async fn probe_disconnected(what: &str, probe: &mut ProbeProcess) -> End {
    let stderr = probe.process.stderr().await;
    End::HostFault {
        what: format!("QEMU disconnected from the probe: {what}; the probe's last words: {stderr}"),
    }
}

/// Attributes `end` to the probe if QEMU complained of it, or if the guest came to no good end and
/// the probe does not answer `within` the time.
pub(crate) async fn attribute(
    end: End,
    qemu: &Process,
    probe: Option<&mut ProbeProcess>,
    link: Option<&mut ProbeLink>,
    within: Duration,
) -> End {
    let Some(probe) = probe else { return end };
    if matches!(end, End::HostFault { .. } | End::Interrupted) {
        return end;
    }
    let qemu_stderr = qemu.stderr_tail().text();
    if let Some(line) = qemu_stderr.lines().find(|line| reports_device_trouble(line)) {
        return device_trouble(line, probe).await;
    }
    if end == End::Completed {
        return end;
    }
    let Some(link) = link else { return end };
    match link.check_responsive(within).await {
        Ok(()) => end,
        Err(error) => {
            let stderr = probe.process.stderr().await;
            let what = format!("the probe no longer works: {error}; its last words: {stderr}");
            End::HostFault { what }
        }
    }
}

async fn has_exited(probe: &mut ProbeProcess) -> bool {
    tokio::time::timeout(PROBE_EXIT_GRACE, probe.process.wait_for_exit()).await.is_ok()
}
