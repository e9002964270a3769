//! What is read off a guest from both sides: its IOMMU by the hypervisor, itself by its agent.

use dmarig_model::{
    observation::{End, KernelLog, LogSource, Observation},
    viommu,
};
use dmarig_viommu::mode::Registers;
use dmarig_wire::{Hello, LogRecord, Reply, Request};
use qapi::qmp::{human_monitor_command, qom_get};

use super::Session;
use crate::{agent::expect_reply, blame::channel_broken, launch::Launch};

/// QOM path of the virtual IOMMU, by the id that the plan gives it.
const VIOMMU: &str = "/machine/peripheral/viommu";
/// Pieces of a kernel log that are taken from an agent before it is taken for endless.
const MAX_LOG_PIECES: usize = 64;
/// Bytes of all pieces together: more than a kernel's buffer holds, as text and in memory.
const MAX_LOG_BYTES: usize = 32 << 20;

impl Session {
    pub(super) async fn look_from_the_host(
        &mut self,
        launch: &Launch<'_>,
        observation: &mut Observation,
    ) -> Result<(), End> {
        for property in &launch.iommu_properties {
            let get = qom_get { path: VIOMMU.into(), property: property.clone() };
            let value = self.qmp(launch, get).await?;
            observation.qom.insert(property.clone(), value);
        }
        if let Some(addresses) = viommu::for_axes(launch.axes).register_addresses() {
            let cap = self.register(launch, addresses.capability).await?;
            let ecap = self.register(launch, addresses.extended_capability).await?;
            observation.registers = Some(Registers { cap, ecap });
        }
        Ok(())
    }

    pub(super) async fn register(&mut self, launch: &Launch<'_>, address: u64) -> Result<u64, End> {
        let command_line = format!("xp /1gx {address:#x}");
        let text =
            self.qmp(launch, human_monitor_command { cpu_index: None, command_line }).await?;
        parse_register(&text).ok_or_else(|| End::HostFault {
            what: format!("QEMU's monitor gave no register at {address:#x}: {text:?}"),
        })
    }

    pub(super) async fn greeting(&mut self, launch: &Launch<'_>) -> Result<Hello, End> {
        let after = launch.deadlines.boot;
        let what =
            "greeting of the agent (it comes over the second UART once the guest has booted)";
        let reply = self.vitals.race(what, after, self.agent.receive()).await?;
        expect_reply!(reply, Reply::Hello(hello) => hello, "a greeting").map_err(channel_broken)
    }

    pub(super) async fn describe(
        &mut self,
        launch: &Launch<'_>,
    ) -> Result<dmarig_wire::Environment, End> {
        let request = Request::Describe(launch.axes.device.wire());
        let after = launch.deadlines.request;
        let reply = self.ask("description of the guest by its agent", after, &request).await?;
        expect_reply!(reply, Reply::Environment(seen) => *seen, "its environment")
            .map_err(channel_broken)
    }

    pub(super) async fn read_log(
        &mut self,
        launch: &Launch<'_>,
        log: &mut KernelLog,
    ) -> Result<(), End> {
        log.source = LogSource::Kmsg;
        let mut bytes = 0;
        for _ in 0..MAX_LOG_PIECES {
            let after = launch.deadlines.request;
            let reply = self.ask("kernel log from the agent", after, &Request::ReadLog).await?;
            let piece = expect_reply!(reply, Reply::Log(log) => log, "a piece of the log")
                .map_err(channel_broken)?;
            let size = |record: &LogRecord| record.text.len() + size_of::<LogRecord>();
            bytes += piece.records.iter().map(size).sum::<usize>();
            if bytes > MAX_LOG_BYTES {
                break;
            }
            log.records.extend(piece.records);
            log.lost = log.lost.saturating_add(piece.lost);
            if !piece.more {
                return Ok(());
            }
        }
        Err(End::ChannelBroken { what: "the agent sends a kernel log without end".into() })
    }
}

/// `00000000fed90008: 0x00d2008c22260286`
fn parse_register(text: &str) -> Option<u64> {
    let (_, value) = text.trim().split_once(": 0x")?;
    u64::from_str_radix(value.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_a_register_of_the_monitor() {
        assert_eq!(
            parse_register("00000000fed90008: 0x00d2008c22260286\r\n"),
            Some(0x00d2_008c_2226_0286)
        );
        assert_eq!(parse_register("Cannot access memory\r\n"), None);
    }
}
