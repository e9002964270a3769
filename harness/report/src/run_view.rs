//! The results of a run, as every report shows them.

use dmarig_history::HistoryJudgement;
use dmarig_model::{
    document::{CellResult, DOCUMENT_SCHEMA, Document},
    matrix::Cell,
    observation::Outcome,
    sweep::Sweep,
};
use dmarig_records::Comparison;
use dmarig_stats::paired::Judgement;

use crate::{
    comparison::{comparison_json, comparison_table},
    junit::junit,
    number::seconds,
    standing::standing_table,
    sweep::sweep_lines,
    table::{TableContext, table},
};

/// A cell with its result.
#[derive(Debug, Clone)]
pub struct CellView {
    /// The cell.
    pub cell: Cell,
    /// Its result.
    pub result: CellResult,
}

/// The results of a run: what the terminal, JSON and JUnit show of it.
#[derive(Debug, Clone)]
pub struct RunView {
    /// The run's id.
    pub id: String,
    /// Version of the dmarig that recorded the run.
    pub dmarig: String,
    /// Its cells, in the order of the matrix.
    pub cells: Vec<CellView>,
    /// Its sweeps over live mappings.
    pub sweeps: Vec<Sweep>,
    /// Its kernels next to its baseline.
    pub comparisons: Vec<Comparison>,
    /// Its numbers next to those of earlier runs.
    pub standing: Option<HistoryJudgement>,
}

impl RunView {
    /// The outcomes of all that was judged. What was not compared, or is inconclusive, is no failure.
    pub fn outcomes(&self) -> impl Iterator<Item = Outcome> {
        let cells = self.cells.iter().map(|cell| cell.result.outcome);
        let comparisons = self.comparisons.iter().map(Comparison::outcome);
        let is_worse = match self.standing.as_ref().and_then(HistoryJudgement::judgement) {
            Some(Judgement::Fail) => Some(Outcome::Failed),
            _ => None,
        };
        cells.chain(comparisons).chain(is_worse)
    }

    /// The tables for a terminal.
    #[must_use]
    pub fn table(&self, context: &TableContext<'_>) -> String {
        let TableContext { width, colour, .. } = *context;
        let sweeps: String = self.sweeps.iter().map(sweep_lines).collect();
        let mut text = table(&self.rows(), &sweeps, context);
        for comparison in &self.comparisons {
            text.push_str(&comparison_table(comparison, width, colour));
        }
        if let Some(standing) = &self.standing {
            text.push_str(&standing_table(standing, width, colour));
        }
        text
    }

    /// The JSON document.
    ///
    /// # Errors
    /// Where it can't be written as JSON, which is a mistake of this program.
    pub fn json(&self) -> serde_json::Result<String> {
        let comparisons = self.comparisons.iter().map(comparison_json);
        let document = Document {
            schema: DOCUMENT_SCHEMA,
            run: self.id.clone(),
            dmarig: self.dmarig.clone(),
            cells: self.cells.iter().map(|cell| cell.result.clone()).collect(),
            comparisons: comparisons.collect::<Result<_, _>>()?,
            history: self.standing.as_ref().map(serde_json::to_value).transpose()?,
        };
        Ok(serde_json::to_string_pretty(&document)? + "\n")
    }

    /// The JUnit document.
    ///
    /// # Errors
    /// Where the XML can't be written, which is a mistake of this program.
    pub fn junit(&self) -> Result<String, quick_junit::SerializeError> {
        junit(&self.rows(), &self.comparisons, self.standing.as_ref())
    }

    fn rows(&self) -> Vec<(&Cell, &CellResult)> {
        self.cells.iter().map(|cell| (&cell.cell, &cell.result)).collect()
    }
}

/// What was observed in a cell, in short.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CellFacts {
    /// Whether the kernel logged that batching is off because the IOMMU is virtual.
    pub warning: Option<bool>,
    /// The type of the device's IOMMU group.
    pub group_type: Option<String>,
    /// Page-selective invalidations.
    pub psi: Option<u64>,
    /// Domain-selective invalidations.
    pub dsi: Option<u64>,
    /// Page-table entries that a hypervisor walked in vain.
    pub walked_in_vain: Option<u64>,
    /// Requests of the device to memory that was given back.
    pub stale_requests: Option<f64>,
    /// DMA operations.
    pub operations: Option<u64>,
    /// How long it took, in microseconds.
    pub duration_us: u64,
}

impl From<&CellResult> for CellFacts {
    fn from(result: &CellResult) -> Self {
        let stale = result.metrics.iter().find(|metric| metric.name == "stale-requests");
        Self {
            warning: result.warning,
            group_type: result.group_type.clone(),
            psi: result.counts.psi,
            dsi: result.counts.dsi,
            walked_in_vain: result.counts.page_walk_in_vain,
            stale_requests: stale.map(|metric| metric.value),
            operations: result.counts.dma_ops,
            duration_us: result.duration_us,
        }
    }
}

/// A column of a table of cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactColumn {
    /// Whether the kernel warned.
    Warning,
    /// The type of the IOMMU group.
    Group,
    /// Page-selective invalidations.
    Psi,
    /// Domain-selective invalidations.
    Dsi,
    /// Entries that were walked in vain.
    InVain,
    /// Stale requests.
    Stale,
    /// DMA operations.
    Operations,
    /// Seconds.
    Seconds,
}

impl FactColumn {
    /// All columns, in their order.
    pub const ALL: [Self; 8] = [
        Self::Warning,
        Self::Group,
        Self::Psi,
        Self::Dsi,
        Self::InVain,
        Self::Stale,
        Self::Operations,
        Self::Seconds,
    ];

    /// The head of the column.
    #[must_use]
    pub const fn head(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Group => "group",
            Self::Psi => "PSI",
            Self::Dsi => "DSI",
            Self::InVain => "in vain",
            Self::Stale => "stale",
            Self::Operations => "ops",
            Self::Seconds => "s",
        }
    }

    /// Whether a cell has it only where it was counted.
    #[must_use]
    pub const fn is_count(self) -> bool {
        !matches!(self, Self::Warning | Self::Group | Self::Seconds)
    }
}

impl CellFacts {
    /// The text of a column; `None` where it was not observed.
    #[must_use]
    pub fn text(&self, column: FactColumn) -> Option<String> {
        let count = |count: Option<u64>| count.map(|count| count.to_string());
        match column {
            FactColumn::Warning => {
                self.warning.map(|warned| if warned { "yes" } else { "no" }.to_owned())
            }
            FactColumn::Group => self.group_type.clone(),
            FactColumn::Psi => count(self.psi),
            FactColumn::Dsi => count(self.dsi),
            FactColumn::InVain => count(self.walked_in_vain),
            FactColumn::Stale => self.stale_requests.map(|requests| requests.to_string()),
            FactColumn::Operations => count(self.operations),
            FactColumn::Seconds => Some(seconds(self.duration_us)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_that_were_not_observed_have_no_text() {
        let facts = CellFacts { psi: Some(0), duration_us: 2_949_999, ..CellFacts::default() };
        let texts: Vec<_> =
            FactColumn::ALL.into_iter().filter_map(|column| facts.text(column)).collect();
        assert_eq!(texts, ["0", "2.9"]);
    }
}
