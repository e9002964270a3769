//! How much worse than a baseline's a metric may be.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{metrics::Better, text::shown};

/// Limit on a metric in comparison with a baseline.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Limit {
    /// Name of the metric.
    pub metric: String,
    /// The better of two values. Only needed for a metric of a program whose unit does not determine
    /// it.
    #[serde(default)]
    pub better: Option<Better>,
    /// Percentage by which the metric may be worse: above 0, and below 100 if higher is better.
    pub percent: f64,
}

/// Limit on a metric in comparison with earlier runs.
///
/// A count is judged directly. A time is judged as ratio to the reference kernel of the run, because
/// the speed of a machine varies from run to run.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HistoryLimit {
    /// Name of the metric: a time, a count, or a metric of a program.
    pub metric: String,
    /// The better of two values. Only needed for a metric of a program whose unit does not determine
    /// it.
    #[serde(default)]
    pub better: Option<Better>,
    /// Percentage by which the metric may be worse: above 0, and below 100 if higher is better.
    pub percent: f64,
    /// Largest number of earlier runs to judge by: the newest ones since the last level change of the
    /// series.
    #[serde(default = "usual_runs")]
    #[schemars(range(min = LEAST_RUNS, max = MOST_RUNS))]
    pub runs: u32,
}

/// Fewest earlier runs by which a metric is judged: see `dmarig_stats::prediction::LEAST`.
pub const LEAST_RUNS: u32 = 24;

/// Most of them that may be asked for.
pub const MOST_RUNS: u32 = 1000;

/// Fewest samples of a time in each of two cells for which the noise in them bounds their ratio: see
/// `dmarig_stats::unpaired::beyond`.
pub const LEAST_SAMPLES: u32 = 4;

const fn usual_runs() -> u32 {
    50
}

/// A limit that cannot be applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidLimit {
    /// There is no `=`.
    #[error("expected METRIC=PERCENT, as in elapsed=5")]
    Form,
    /// The percentage is not a number.
    #[error("`{0}` is not a number")]
    Number(String),
    /// The wrong value is called better.
    #[error("`{metric}` is better if it is {}", better.name())]
    Direction {
        /// The metric.
        metric: String,
        /// The better value.
        better: Better,
    },
    /// The percentage is out of range.
    #[error(
        "invalid limit of {percent} % for `{metric}`: it must be above 0, and below 100 if higher is better"
    )]
    Percent {
        /// The metric.
        metric: String,
        /// The percentage.
        percent: f64,
    },
}

impl Limit {
    /// Parses `METRIC=PERCENT`, `METRIC:lower=PERCENT` or `METRIC:higher=PERCENT`.
    ///
    /// # Errors
    /// [`InvalidLimit`]
    pub fn parse(text: &str) -> Result<Self, InvalidLimit> {
        let (name, percent) = text.rsplit_once('=').ok_or(InvalidLimit::Form)?;
        let percent = percent.trim().trim_end_matches('%').trim_end();
        let percent: f64 = percent.parse().map_err(|_| InvalidLimit::Number(shown(percent)))?;
        let (metric, better) = match name.rsplit_once(':') {
            Some((metric, "lower")) => (metric, Some(Better::Lower)),
            Some((metric, "higher")) => (metric, Some(Better::Higher)),
            _ => (name, None),
        };
        let limit = Self { metric: metric.trim().to_owned(), better, percent };
        limit.mistake().map_or(Ok(limit), Err)
    }

    /// The reason why the limit is invalid, if it is.
    #[must_use]
    pub fn mistake(&self) -> Option<InvalidLimit> {
        let Self { metric, better, percent } = self;
        let known = Better::of(metric, "");
        if let (Some(_), Some(known)) = (better, known)
            && *better != Some(known)
        {
            return Some(InvalidLimit::Direction { metric: metric.clone(), better: known });
        }
        let most = match better.or(known) {
            Some(Better::Higher) => 100.0,
            _ => f64::INFINITY,
        };
        if *percent > 0.0 && *percent < most {
            return None;
        }
        Some(InvalidLimit::Percent { metric: metric.clone(), percent: *percent })
    }
}

impl HistoryLimit {
    /// The reason why the limit is invalid, if it is, without regard to the number of runs.
    #[must_use]
    pub fn mistake(&self) -> Option<InvalidLimit> {
        let Self { metric, better, percent, .. } = self;
        Limit { metric: metric.clone(), better: *better, percent: *percent }.mistake()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_better_is_known_by_name_or_unit() {
        assert_eq!(Better::of("throughput", "bytes/s"), Some(Better::Higher));
        assert_eq!(Better::of("latency-p99", "ns"), Some(Better::Lower));
        assert_eq!(Better::of("psi-per-unmap", "1"), Some(Better::Lower));
        assert_eq!(Better::of("my-rate", "frames/s"), Some(Better::Higher));
        assert_eq!(Better::of("my-time", "ms"), Some(Better::Lower));
        assert_eq!(Better::of("my-score", "points"), None);
    }

    #[test]
    fn limits_are_read_with_their_direction() {
        let limit = |text| {
            let Limit { metric, better, percent } = Limit::parse(text).unwrap();
            (metric, better, percent)
        };
        assert_eq!(limit("elapsed=5"), ("elapsed".into(), None, 5.0));
        assert_eq!(limit("score:higher=2.5%"), ("score".into(), Some(Better::Higher), 2.5));
        assert_eq!(limit("a:b=1"), ("a:b".into(), None, 1.0));
        assert_eq!(limit("elapsed=250"), ("elapsed".into(), None, 250.0));
    }

    #[test]
    fn what_can_not_be_judged_is_refused() {
        for text in [
            "elapsed",
            "elapsed=much",
            "elapsed=0",
            "elapsed=-5",
            "elapsed=NaN",
            "elapsed=inf",
            "throughput=100",
            "elapsed:higher=5",
        ] {
            assert!(Limit::parse(text).is_err(), "{text}");
        }
    }
}
