//! The lines of `cells.jsonl`.

use dmarig_model::observation::{Observation, PlannedWindow, Verdict};
use dmarig_stats::paired::Arm;
use serde::{Deserialize, Serialize};

/// Version of the record's layout. Records of version 1 spell the boots of a comparison into cell
/// ids, have no planned windows, and verdicts that leave out what compares cells with each other.
pub const RECORD_SCHEMA: u32 = 2;

/// A cell that ended: what was observed, and the verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellRecord {
    /// [`RECORD_SCHEMA`] of the writer.
    pub schema: u32,
    /// Which boot of a comparison this was; absent outside of comparisons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<PairedBoot>,
    /// The windows that were planned, in their order; absent in records of version 1 and for a cell
    /// that was never launched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_windows: Option<Vec<PlannedWindow>>,
    /// What was observed.
    pub observation: Observation,
    /// The verdict. In a run that came to its end it is final.
    pub verdict: Verdict,
}

impl CellRecord {
    /// The record of a cell outside of comparisons, without its planned windows.
    #[must_use]
    pub const fn new(observation: Observation, verdict: Verdict) -> Self {
        Self { schema: RECORD_SCHEMA, boot: None, planned_windows: None, observation, verdict }
    }
}

/// Which boot of a comparison a cell was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairedBoot {
    /// The side that was booted. Where both sides share a boot, it is the candidate.
    pub arm: Arm,
    /// Number of the first pair that it is part of, from 0; absent for a warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<u32>,
    /// Whether its times are discarded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warm_up: bool,
}

impl PairedBoot {
    /// The boot that an id of a version 1 record spells out, such as
    /// `timing/policy=strict.003-pair2-candidate`.
    pub(crate) fn from_id(id: &str) -> Option<Self> {
        let (_, last) = id.rsplit_once('.')?;
        let (number, rest) = last.split_once('-')?;
        let (name, arm) = rest.rsplit_once('-')?;
        if number.len() < 3 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let arm = [Arm::Candidate, Arm::Baseline].into_iter().find(|known| known.name() == arm)?;
        if name == "warm-up" {
            return Some(Self { arm, pair: None, warm_up: true });
        }
        let pair = match name.strip_prefix("pairs").and_then(|range| range.split_once('-')) {
            Some((first, _)) => first,
            None => name.strip_prefix("pair")?,
        };
        Some(Self { arm, pair: Some(pair.parse().ok()?), warm_up: false })
    }
}

/// A verdict that changed after its cell was written, once all cells of the run had ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Amendment {
    /// [`RECORD_SCHEMA`] of the writer.
    pub(crate) schema: u32,
    /// Id of the cell.
    pub(crate) amends: String,
    /// Its final verdict.
    pub(crate) verdict: Verdict,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(id: &str, expected: Option<(Arm, Option<u32>, bool)>) {
        let expected = expected.map(|(arm, pair, warm_up)| PairedBoot { arm, pair, warm_up });
        assert_eq!(PairedBoot::from_id(id), expected, "{id}");
    }

    #[test]
    fn reads_boots_from_ids_of_version_1() {
        check(
            "timing/policy=strict,kernel=debian-6.12.003-pair2-candidate",
            Some((Arm::Candidate, Some(2), false)),
        );
        check("t/kernel=a.001-warm-up-baseline", Some((Arm::Baseline, None, true)));
        check("t/kernel=a.001-pairs9-12-candidate", Some((Arm::Candidate, Some(9), false)));
        check("smoke/kernel=debian-6.1", None);
        check("t/kernel=v6.1-rc2-candidate", None);
        check("t/kernel=a.01-x-y", None);
    }
}
