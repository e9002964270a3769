//! A number that was judged by others: those of earlier runs, or a baseline's. Every table that
//! shows one, on a terminal or on a page, takes its columns and their texts from here.

use comfy_table::{
    Attribute, Cell as Field, CellAlignment, Color, ContentArrangement, Table, presets,
};
use dmarig_history::{HistoryMetric, HistoryVerdict};
use dmarig_model::text::shown;
use dmarig_records::{MetricComparison, MetricResult};
use dmarig_stats::{median, paired::Judgement};

use crate::number::{percent, quantity, ratio_as_change, ratio_interval};

/// By what numbers are judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reference {
    /// The same numbers of earlier runs.
    #[default]
    EarlierRuns,
    /// A baseline that ran at the same time.
    Baseline,
}

/// A column of a table of judged numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// The name of the metric.
    Metric,
    /// The value.
    Value,
    /// The value that it is judged by.
    Reference,
    /// The change between the two.
    Change,
    /// Where the change lies, or where the value usually lies.
    Range,
    /// How much worse it may be.
    Limit,
    /// The verdict.
    Verdict,
    /// The noise of the values, or the number of runs that it was judged by.
    Basis,
    /// The finest limit that could be decided.
    Resolution,
}

impl Column {
    /// All columns, in their order.
    pub const ALL: [Self; 9] = [
        Self::Metric,
        Self::Value,
        Self::Reference,
        Self::Change,
        Self::Range,
        Self::Limit,
        Self::Verdict,
        Self::Basis,
        Self::Resolution,
    ];

    /// The head of the column.
    #[must_use]
    pub const fn head(self, reference: Reference) -> &'static str {
        match (self, reference) {
            (Self::Metric, _) => "metric",
            (Self::Value, Reference::EarlierRuns) => "now",
            (Self::Value, Reference::Baseline) => "candidate",
            (Self::Reference, Reference::EarlierRuns) => "level",
            (Self::Reference, Reference::Baseline) => "baseline",
            (Self::Change, _) => "change",
            (Self::Range, Reference::EarlierRuns) => "usual",
            (Self::Range, Reference::Baseline) => "interval",
            (Self::Limit, _) => "limit",
            (Self::Verdict, _) => "verdict",
            (Self::Basis, Reference::EarlierRuns) => "runs",
            (Self::Basis, Reference::Baseline) => "noise",
            (Self::Resolution, _) => "resolves",
        }
    }
}

/// The verdict on a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MetricVerdict {
    /// It has no limit.
    #[default]
    NoLimit,
    /// It was judged.
    Judged(Judgement),
    /// It has a limit and was not decided.
    Open,
    /// It was only estimated, since its values are no pairs.
    Unpaired {
        /// Whether the estimate's interval leaves out that both are equal.
        differs: bool,
    },
    /// There was nothing to judge it by.
    NotCompared,
}

impl MetricVerdict {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoLimit => "-",
            Self::Judged(judgement) => judgement.name(),
            Self::Open => "open",
            Self::Unpaired { differs: true } => "differ, unpaired",
            Self::Unpaired { differs: false } => "unpaired",
            Self::NotCompared => "not compared",
        }
    }

    /// Whether it is good; `None` where that is not sure.
    #[must_use]
    pub const fn is_good(self) -> Option<bool> {
        match self {
            Self::Judged(Judgement::Pass) => Some(true),
            Self::Judged(Judgement::Fail) => Some(false),
            _ => None,
        }
    }
}

/// Where a change lies, or where a value usually lies.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Range {
    /// Nothing is known of it.
    #[default]
    Unknown,
    /// Bounds of the ratio; too few values have none.
    Ratio(Option<f64>, Option<f64>),
    /// Bounds of the values of a run for which nothing has changed, in the metric's unit.
    Usual(f64, f64),
}

/// What a verdict rests on.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Basis {
    /// Nothing.
    #[default]
    Unknown,
    /// Values with this noise, as a share.
    Noise(f64),
    /// So many earlier runs.
    Runs(usize),
}

/// A number that was judged by others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JudgedMetric {
    /// The name of the metric.
    pub name: String,
    /// Its unit; `1` for none.
    pub unit: String,
    /// Its value, in the unit.
    pub value: Option<f64>,
    /// The value that it is judged by, in the unit.
    pub reference: Option<f64>,
    /// The value over the one that it is judged by.
    pub ratio: Option<f64>,
    /// Where the ratio or the value lies.
    pub range: Range,
    /// How many percent worse it may be.
    pub limit: Option<f64>,
    /// The verdict.
    pub verdict: MetricVerdict,
    /// What the verdict rests on.
    pub basis: Basis,
    /// The finest limit that could be decided, in percent.
    pub resolution: Option<f64>,
}

impl JudgedMetric {
    /// The text of a column; a dash where nothing is known of it.
    #[must_use]
    pub fn text(&self, column: Column) -> String {
        let in_unit = |value: f64| quantity(value, &self.unit);
        let text = match column {
            Column::Metric => Some(shown(&self.name)),
            Column::Value => self.value.map(in_unit),
            Column::Reference => self.reference.map(in_unit),
            Column::Change => self.ratio.map(ratio_as_change),
            Column::Range => match self.range {
                Range::Unknown => None,
                Range::Ratio(None, None) => Some("too few".to_owned()),
                Range::Ratio(low, high) => Some(ratio_interval(low, high)),
                Range::Usual(low, high) => Some(format!("{} .. {}", in_unit(low), in_unit(high))),
            },
            Column::Limit => self.limit.map(|limit| format!("{limit} % worse")),
            Column::Verdict => Some(self.verdict.name().to_owned()),
            Column::Basis => match self.basis {
                Basis::Unknown => None,
                Basis::Noise(noise) => Some(percent(noise * 100.0)),
                Basis::Runs(runs) => Some(runs.to_string()),
            },
            Column::Resolution => self.resolution.map(percent),
        };
        text.unwrap_or_else(|| "-".to_owned())
    }
}

/// A metric that was compared with a baseline's.
impl From<&MetricComparison> for JudgedMetric {
    fn from(metric: &MetricComparison) -> Self {
        let mut judged = Self {
            name: metric.name.clone(),
            unit: metric.unit.clone(),
            value: median(&metric.candidate),
            reference: median(&metric.baseline),
            ..Self::default()
        };
        match &metric.result {
            MetricResult::Unpaired { estimate } => {
                let differs = estimate.is_some_and(|estimate| estimate.differs());
                judged.verdict = MetricVerdict::Unpaired { differs };
                if let Some(estimate) = estimate {
                    judged.ratio = Some(estimate.ratio);
                    judged.range = Range::Ratio(estimate.low, estimate.high);
                    judged.basis = estimate.noise.map_or(Basis::Unknown, Basis::Noise);
                }
            }
            MetricResult::Paired(finding) => {
                judged.limit = finding.metric.limit;
                judged.verdict = match (finding.metric.limit, finding.judgement) {
                    (None, _) => MetricVerdict::NoLimit,
                    (Some(_), None) => MetricVerdict::Open,
                    (Some(_), Some(judgement)) => MetricVerdict::Judged(judgement),
                };
                if let Some(estimate) = finding.estimate {
                    judged.ratio = Some(estimate.ratio);
                    judged.range = Range::Ratio(estimate.low, estimate.high);
                    judged.basis = Basis::Noise(estimate.noise);
                    judged.resolution = Some(estimate.resolvable);
                }
            }
        }
        judged
    }
}

/// A metric that was compared with those of earlier runs.
impl From<&HistoryMetric> for JudgedMetric {
    fn from(metric: &HistoryMetric) -> Self {
        let unit = metric.series.as_ref().map_or("1", |(_, key)| key.value_unit());
        let mut judged = Self {
            name: metric.metric.clone(),
            unit: unit.to_owned(),
            value: metric.value,
            limit: Some(metric.limit),
            verdict: MetricVerdict::NotCompared,
            ..Self::default()
        };
        match &metric.result {
            HistoryVerdict::Judged { found, earlier, .. } => {
                judged.reference = Some(found.level);
                judged.ratio = Some(found.ratio);
                judged.range = Range::Usual(found.low, found.high);
                judged.verdict = MetricVerdict::Judged(found.judgement);
                judged.basis = Basis::Runs(earlier.len());
                judged.resolution = Some(found.resolvable);
            }
            HistoryVerdict::TooFew { runs, .. } => judged.basis = Basis::Runs(*runs),
            HistoryVerdict::NotCompared { .. } => {}
        }
        judged
    }
}

/// The numbers as a table for a terminal of this width.
pub(crate) fn judged_table(
    reference: Reference,
    metrics: impl IntoIterator<Item = JudgedMetric>,
    width: u16,
    colour: bool,
) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width)
        .set_header(Column::ALL.map(|column| {
            let head = Field::new(column.head(reference));
            if colour { head.add_attribute(Attribute::Bold) } else { head }
        }));
    for metric in metrics {
        table.add_row(Column::ALL.map(|column| {
            let field = Field::new(metric.text(column));
            match column {
                Column::Verdict if colour => paint(field, metric.verdict),
                Column::Metric | Column::Verdict => field,
                _ => field.set_alignment(CellAlignment::Right),
            }
        }));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn paint(field: Field, verdict: MetricVerdict) -> Field {
    match verdict {
        MetricVerdict::Judged(Judgement::Pass) => field.fg(Color::Green),
        MetricVerdict::Judged(Judgement::Fail) => field.fg(Color::Red),
        MetricVerdict::Judged(Judgement::Inconclusive) => field.fg(Color::Yellow),
        _ => field,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_a_dash_where_nothing_is_known() {
        let metric = JudgedMetric { name: "elapsed\u{1b}".into(), ..JudgedMetric::default() };
        let texts = Column::ALL.map(|column| metric.text(column));
        assert_eq!(texts[0], "elapsed\\u{1b}");
        assert!(texts[1..].iter().all(|text| text == "-"), "{texts:?}");
    }

    #[test]
    fn ranges_are_changes_or_values() {
        let metric = |range| JudgedMetric { unit: "ns".into(), range, ..JudgedMetric::default() };
        let text = |range| metric(range).text(Column::Range);
        assert_eq!(text(Range::Ratio(None, None)), "too few");
        assert_eq!(text(Range::Ratio(Some(0.99), None)), "-1.0 .. ? %");
        assert_eq!(text(Range::Usual(1.5e6, 2e9)), "1.5 ms .. 2 s");
    }
}
