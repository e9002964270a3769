//! The words of the kernel's command line that are the agent's.

use dmarig_wire::JOB_PARAMETER;

/// The UART that the rig is behind, unless the command line names another.
const CONTROL: &str = "/dev/ttyS1";

/// What the kernel's command line asks of the agent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cmdline {
    /// `dmarig.poweroff`: nothing but boot, to time it.
    pub(crate) power_off: bool,
    /// `dmarig.control=`: the UART that the rig is behind.
    pub(crate) control: String,
    /// [`JOB_PARAMETER`]: the job to run without a rig, not yet parsed.
    pub(crate) job: Option<String>,
}

impl Cmdline {
    /// Reads `/proc/cmdline`; of a word that is there twice, the last one holds, as in the kernel.
    pub(crate) fn parse(text: &str) -> Self {
        let mut parsed = Self { power_off: false, control: CONTROL.to_owned(), job: None };
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some(("dmarig.control", tty)) => parsed.control = tty.to_owned(),
                Some((JOB_PARAMETER, job)) => parsed.job = Some(job.to_owned()),
                None if word == "dmarig.poweroff" => parsed.power_off = true,
                _ => {}
            }
        }
        parsed
    }
}

/// The parameters that the command line has for a module (`nvme.poll_queues=2`), for the kernel
/// applies them itself only to what is built in.
pub(crate) fn module_parameters(text: &str, module: &str) -> String {
    let module = module.replace('-', "_");
    let own = text.split_whitespace().filter_map(|word| {
        let (name, parameter) = word.split_once('.')?;
        (name.replace('-', "_") == module).then_some(parameter)
    });
    own.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_agent_are_found_among_others() {
        let parsed = Cmdline::parse(
            "console=ttyS0 dmarig.control=/dev/ttyS3 dmarig.job=\"Idle\" dmarig.poweroff quiet\n",
        );
        assert!(parsed.power_off);
        assert_eq!(parsed.control, "/dev/ttyS3");
        assert_eq!(parsed.job.as_deref(), Some("\"Idle\""));
        let none = Cmdline::parse("console=ttyS0 xdmarig.poweroff dmarig.poweroff=1");
        assert_eq!(none, Cmdline { power_off: false, control: "/dev/ttyS1".to_owned(), job: None });
    }

    #[test]
    fn a_module_gets_its_own_parameters() {
        let text = "nvme.a=1 nvme_core.multipath=N nvme-core.x intel_iommu=on nvme.b\n";
        assert_eq!(module_parameters(text, "nvme"), "a=1 b");
        assert_eq!(module_parameters(text, "nvme-core"), "multipath=N x");
        assert_eq!(module_parameters(text, "e1000e"), "");
    }
}
