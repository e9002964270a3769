//! Compares what the device was told of its mappings with the guest's own page tables, when the guest
//! is at rest.

use dmarig_model::{
    coherence::{Coherence, Mapping, TablesSource, mapping_of_leaf},
    observation::{End, Observation},
    probe::{Reply, Request, Tables},
    viommu,
};
use dmarig_viommu::tables::{BadPrint, PrintedTables};
use dmarig_wire::{Reply as AgentReply, Request as AgentRequest};

use super::Session;
use crate::{
    agent::expect_reply,
    blame::{WaitError, channel_broken},
    launch::Launch,
    probe::{ProbeLink, unexpected_reply},
};

/// Longest print of page tables, in bytes.
const MAX_PRINTED: usize = 64 << 20;

impl Session {
    /// Compares by all sources that there are. A batch that waits for its flush is given time.
    pub(super) async fn coherence(
        &mut self,
        launch: &Launch<'_>,
        observation: &mut Observation,
    ) -> Result<Vec<Coherence>, End> {
        let target = observation.guest.as_ref().and_then(|guest| guest.targets.first());
        let Some(address) = target.map(|target| target.address.clone()) else {
            return Ok(Vec::new());
        };
        let Some((bus, devfn)) = bus_and_function(&address) else {
            return Err(End::ChannelBroken { what: format!("invalid PCI address {address:?}") });
        };
        let Some(addresses) = viommu::for_axes(launch.axes).register_addresses() else {
            return Ok(Vec::new());
        };
        let root = self.register(launch, addresses.table_root).await?;
        let Some(first) = self.compare(launch, Request::Compare { root, bus, devfn }).await? else {
            return Ok(Vec::new());
        };
        let mut found = vec![self.settled(launch, observation, first, root, (bus, devfn)).await?];
        let printed = self.printed(launch, &address).await?;
        found.extend(match printed {
            Some(file) => Some(self.with_printed(launch, observation, &file, &address).await?),
            None => None,
        });
        Ok(found)
    }

    /// Reads again until both sides are equal or time is up.
    async fn settled(
        &mut self,
        launch: &Launch<'_>,
        observation: &mut Observation,
        mut found: Coherence,
        root: u64,
        (bus, devfn): (u8, u8),
    ) -> Result<Coherence, End> {
        let deadline = tokio::time::Instant::now() + launch.deadlines.request / 10;
        while !found.holds() && tokio::time::Instant::now() < deadline {
            // Each answer of the agent takes a turn of the guest, in which its timers run.
            self.read_log(launch, &mut observation.log).await?;
            let reads = found.reads + 1;
            let again = self.compare(launch, Request::Compare { root, bus, devfn }).await?;
            found = Coherence { reads, ..again.unwrap_or(found) };
        }
        Ok(found)
    }

    async fn compare(
        &mut self,
        launch: &Launch<'_>,
        request: Request,
    ) -> Result<Option<Coherence>, End> {
        let reply = self.ask_probe(launch, &request).await?;
        match reply {
            Reply::Compared { tables: Tables::SecondStage, coherence } => Ok(coherence),
            Reply::Compared { .. } => Ok(None),
            other => Err(End::HostFault { what: unexpected_reply(&other).to_string() }),
        }
    }

    async fn ask_probe(&mut self, launch: &Launch<'_>, request: &Request) -> Result<Reply, End> {
        let Some(probe) = &mut self.probe else {
            return Err(End::HostFault { what: "there is no probe to ask".into() });
        };
        let after = launch.deadlines.workload + launch.deadlines.qmp;
        let asked = async { ProbeLink::request(probe, request).await.map_err(WaitError::from) };
        self.vitals.race("the probe", after, asked).await
    }

    /// The file in which the guest's kernel prints a device's tables; `None` where it does not.
    async fn printed(&mut self, launch: &Launch<'_>, address: &str) -> Result<Option<String>, End> {
        let Some(tables) = viommu::for_axes(launch.axes).printed_tables() else {
            return Ok(None);
        };
        let PrintedTables { directory, file } = tables;
        let request = AgentRequest::ListFiles(directory.to_owned());
        let asked = self.ask("list of the guest's debugfs", launch.deadlines.request, &request);
        let names = match asked.await {
            Ok(reply) => expect_reply!(reply, AgentReply::Files(names) => names, "names of files")
                .map_err(channel_broken)?,
            Err(End::AgentFailed { .. }) => return Ok(None),
            Err(end) => return Err(end),
        };
        let of_device = format!("{address}/{file}");
        let found =
            [file, &of_device].into_iter().find(|name| names.iter().any(|have| have == name));
        Ok(found.map(|name| format!("{directory}/{name}")))
    }

    async fn with_printed(
        &mut self,
        launch: &Launch<'_>,
        observation: &mut Observation,
        file: &str,
        address: &str,
    ) -> Result<Coherence, End> {
        let deadline = tokio::time::Instant::now() + launch.deadlines.request / 10;
        let ram = u64::from(launch.axes.memory_mib) << 20;
        let mut reads = 0;
        loop {
            reads += 1;
            let text = self.read_text(launch, file).await?;
            let leaves = viommu::for_axes(launch.axes)
                .parse_printed_tables(&text, address)
                .map_err(|BadPrint(line)| broken_print(file, &format!("the line {line:?}")))?
                .ok_or_else(|| broken_print(file, &format!("no word of {address}")))?;
            let tables: Vec<Mapping> =
                leaves.iter().map(|leaf| mapping_of_leaf(leaf, ram)).collect();
            let shadow = match self.ask_probe(launch, &Request::Shadow).await? {
                Reply::Shadow { mappings } => mappings,
                other => return Err(End::HostFault { what: unexpected_reply(&other).to_string() }),
            };
            let found = Coherence::of(TablesSource::Debugfs, &tables, &shadow, reads);
            if found.holds() || tokio::time::Instant::now() >= deadline {
                return Ok(found);
            }
            self.read_log(launch, &mut observation.log).await?;
        }
    }

    async fn read_text(&mut self, launch: &Launch<'_>, path: &str) -> Result<String, End> {
        let mut bytes = Vec::new();
        loop {
            let offset = bytes.len() as u64;
            let request = AgentRequest::ReadFile { path: path.to_owned(), offset };
            let reply =
                self.ask("page tables of the guest", launch.deadlines.request, &request).await?;
            let piece =
                expect_reply!(reply, AgentReply::Piece(piece) => piece, "a piece of a file")
                    .map_err(channel_broken)?;
            if piece.is_empty() {
                return Ok(String::from_utf8_lossy(&bytes).into_owned());
            }
            bytes.extend(piece);
            if bytes.len() > MAX_PRINTED {
                return Err(broken_print(path, "no end"));
            }
        }
    }
}

fn broken_print(file: &str, what: &str) -> End {
    End::AgentFailed { what: format!("{file} of the guest has {what}") }
}

/// `0000:00:03.0` as bus number, and device and function in one.
fn bus_and_function(address: &str) -> Option<(u8, u8)> {
    let (_, rest) = address.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let number = |text: &str| u8::from_str_radix(text, 16).ok();
    let (device, function) = (number(device)?, number(function)?);
    (device < 32 && function < 8).then_some((number(bus)?, device << 3 | function))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_bus_and_function_of_an_address() {
        assert_eq!(bus_and_function("0000:00:01.0"), Some((0, 8)));
        assert_eq!(bus_and_function("0000:3a:1f.7"), Some((0x3a, 0xff)));
        for text in ["", "00:01.0", "0000:00:20.0", "0000:00:01.8", "0000:00:zz.0"] {
            assert_eq!(bus_and_function(text), None, "{text}");
        }
    }
}
