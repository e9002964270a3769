//! DMA that must fault, through the probe's own mappings and through the client's IOMMU.
//!
//! It runs on the controller's thread, so that no command is completed and unmapped meanwhile.

use std::{
    sync::{Arc, mpsc::SyncSender},
    time::{Duration, Instant},
};

use dmarig_model::probe::{Attack, AttackOutcome};

use crate::{
    memory::Memory,
    nvme::NotEnabled,
    range::Range,
    server::{Client, DmaError},
    shadow::{Mapping, Shadow},
};

/// Time that an attack waits for a mapping of the kind that it needs.
const MAPPING_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval at which it looks for such a mapping: a guest's requests take longer.
const RETRY_INTERVAL: Duration = Duration::from_micros(200);
/// Bytes of an attack's access.
const BYTES: u64 = 8;
/// Where the search for an unmapped address starts: high within 39 bits, the least that a virtual
/// IOMMU has. Kernels hand out I/O virtual addresses from the top of a range downwards.
const NEVER: u64 = 0x2a_0000_0000;
/// Attempts in case the guest changes a mapping at the same moment.
const ATTEMPTS: usize = 4;

type OutcomeSender = SyncSender<Result<AttackOutcome, NotEnabled>>;

/// Attacks that wait for a mapping.
#[derive(Debug)]
pub(crate) struct Attacks {
    memory: Arc<Memory>,
    client: Arc<Client>,
    waiting: Vec<(Attack, OutcomeSender, Instant)>,
}

impl Attacks {
    pub(crate) fn new(memory: Arc<Memory>, client: Arc<Client>) -> Self {
        Self { memory, client, waiting: Vec::new() }
    }

    pub(crate) fn begin(&mut self, kind: Attack, done: OutcomeSender) {
        self.waiting.push((kind, done, Instant::now() + MAPPING_TIMEOUT));
        self.try_now();
    }

    /// When to try again; `None` if no attack waits.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.waiting.is_empty() { None } else { Some(Instant::now() + RETRY_INTERVAL) }
    }

    /// Runs the attacks for which there is a mapping, and gives up those that waited long enough.
    pub(crate) fn try_now(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        for (kind, done, deadline) in std::mem::take(&mut self.waiting) {
            match self.attack(kind) {
                Some(outcome) => {
                    // The receiver may have given up.
                    let _ = done.send(Ok(outcome));
                }
                None if Instant::now() >= deadline => {
                    let _ = done.send(Ok(AttackOutcome {
                        kind,
                        iova: None,
                        size: BYTES,
                        shadow_let_through: false,
                        hypervisor_let_through: None,
                    }));
                }
                None => self.waiting.push((kind, done, deadline)),
            }
        }
    }

    fn attack(&self, kind: Attack) -> Option<AttackOutcome> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let iova = self.target(kind)?;
            let write = kind == Attack::ReadOnly;
            let shadow_let_through = self.through_shadow(iova, write);
            let result = if write {
                self.client.dma_write(iova, &[0; BYTES as usize])
            } else {
                self.client.dma_read(iova, BYTES as u32)
            };
            let hypervisor_let_through = match result {
                Ok(()) => Some(true),
                Err(DmaError::Refused(error)) => {
                    tracing::info!(?kind, iova, %error, "refused");
                    Some(false)
                }
                Err(DmaError::NoAnswer) => None,
            };
            last = Some(AttackOutcome {
                kind,
                iova: Some(iova),
                size: BYTES,
                shadow_let_through,
                hypervisor_let_through,
            });
            // If only the hypervisor let it through, the guest may have mapped something there between
            // the two accesses.
            if shadow_let_through
                || hypervisor_let_through != Some(true)
                || !self.is_mapped(iova, write)
            {
                break;
            }
        }
        last
    }

    fn target(&self, kind: Attack) -> Option<u64> {
        match kind {
            Attack::Unmapped => self.memory.with_shadow(never_mapped),
            Attack::ReadOnly => self.memory.with_shadow(|shadow| {
                let fits = |mapping: &Mapping| {
                    mapping.access.read && !mapping.access.write && mapping.size >= BYTES
                };
                shadow.iter().find(fits).map(|mapping| mapping.iova)
            }),
            Attack::PastTheEnd => self.memory.with_shadow(past_the_end),
            Attack::AfterUnmap => {
                let ranges = self.memory.recently_unmapped();
                self.memory.with_shadow(|shadow| {
                    let is_unmapped = |range: &&Range| shadow.at(range.iova).is_none();
                    ranges.iter().find(is_unmapped).map(|range| range.iova)
                })
            }
        }
    }

    /// Whether the probe's own mappings let it through. A write doesn't change the memory.
    fn through_shadow(&self, iova: u64, write: bool) -> bool {
        let mut bytes = [0; BYTES as usize];
        let read = self.memory.read(iova, &mut bytes).is_ok();
        if write { self.memory.write(iova, &bytes).is_ok() } else { read }
    }

    fn is_mapped(&self, iova: u64, write: bool) -> bool {
        self.memory.with_shadow(|shadow| {
            let access =
                if write { crate::shadow::Access::WRITE } else { crate::shadow::Access::READ };
            shadow.resolve(iova, BYTES, access, &mut Vec::new()).is_ok()
        })
    }
}

/// The first page from [`NEVER`] on that is in no mapping.
fn never_mapped(shadow: &Shadow) -> Option<u64> {
    let mut at = NEVER;
    while let Some(mapping) = shadow.at(at) {
        at = mapping.last().checked_add(1)?;
    }
    Some(at)
}

/// Four bytes before the end of a mapping that has no neighbour there.
fn past_the_end(shadow: &Shadow) -> Option<u64> {
    let ends = shadow.iter().filter(|mapping| mapping.access.read && mapping.size >= BYTES);
    let mut ends = ends.filter_map(|mapping| mapping.last().checked_add(1));
    let end = ends.find(|end| shadow.at(*end).is_none())?;
    Some(end - BYTES / 2)
}
