//! What is judged of pairs: how much worse a candidate is than a baseline, and how much worse it may
//! be.

use serde::{Deserialize, Serialize};

use crate::signed_rank::{Null, Walsh, spread};

/// The noisiest pairs (standard deviation, as a part of the limit's logarithm) with which a limit is
/// decided in some 9 to 13 of them; noisier ones may come to no end within the cap.
pub const RESOLVED: f64 = 0.6;

/// The two that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// What is judged.
    Candidate,
    /// What it is judged against.
    Baseline,
}

impl Arm {
    /// The arm's name in records and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Baseline => "baseline",
        }
    }
}

/// Which of two values is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// The lower, as of a latency.
    Lower,
    /// The higher, as of a throughput.
    Higher,
}

impl Better {
    /// How much worse the candidate was than the baseline, as a logarithm: above 0 is worse. `None`
    /// where one of them is not a positive number, which has no ratio.
    #[must_use]
    pub fn loss(self, candidate: f64, baseline: f64) -> Option<f64> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let log = (candidate.ln() - baseline.ln()) * self.sign();
        (positive(candidate) && positive(baseline)).then_some(log)
    }

    /// The ratio of candidate to baseline that is such a loss.
    #[must_use]
    pub fn ratio(self, loss: f64) -> f64 {
        (loss * self.sign()).exp()
    }

    /// The loss that is `percent` worse: so much more where lower is better, so much less where
    /// higher is. `None` where there is none: not above 0, or all that there is.
    #[must_use]
    pub fn limit(self, percent: f64) -> Option<f64> {
        let loss = match self {
            Self::Lower => (percent / 100.0).ln_1p(),
            Self::Higher => -(-percent / 100.0).ln_1p(),
        };
        (loss.is_finite() && loss > 0.0).then_some(loss)
    }

    /// How many percent worse a loss is: the inverse of [`Better::limit`].
    #[must_use]
    pub fn percent(self, loss: f64) -> f64 {
        match self {
            Self::Lower => loss.exp_m1() * 100.0,
            Self::Higher => -(-loss).exp_m1() * 100.0,
        }
    }

    fn sign(self) -> f64 {
        match self {
            Self::Lower => 1.0,
            Self::Higher => -1.0,
        }
    }
}

/// What is thought of a metric with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// The candidate is not as much worse as the limit.
    Pass,
    /// The candidate is worse by more than the limit.
    Fail,
    /// All pairs that were allowed did not tell.
    Inconclusive,
}

impl Judgement {
    /// In a report's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// How the candidate compares with the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Candidate over baseline: the Hodges-Lehmann estimate of the pairs' ratio.
    pub ratio: f64,
    /// The ratio is hardly below this one; null where the pairs are too few to bound it.
    pub low: Option<f64>,
    /// ... nor above this one.
    pub high: Option<f64>,
    /// Pairs that it rests on.
    pub pairs: usize,
    /// The noise of one pair: the standard deviation of the ratio's logarithm, so that 0.03 is about
    /// 3 %. Robust: see [`spread`].
    pub noise: f64,
    /// The finest limit that is decided at this noise in a few pairs, in percent.
    pub resolvable: f64,
}

impl Estimate {
    /// From the losses of some pairs, with bounds that err by at most `level` on either side. `None`
    /// of fewer than two. `null` must be that of as many values.
    #[must_use]
    pub fn new(losses: &[f64], better: Better, null: &Null, level: f64) -> Option<Self> {
        let walsh = Walsh::new(losses);
        let (low, high) = walsh.bounds(null, level);
        let (low, high) = match better {
            Better::Lower => (low, high),
            Better::Higher => (high, low),
        };
        let bound = |loss: f64| loss.is_finite().then(|| better.ratio(loss));
        let noise = spread(losses)?;
        Some(Self {
            ratio: better.ratio(walsh.centre()?),
            low: bound(low),
            high: bound(high),
            pairs: losses.len(),
            noise,
            resolvable: better.percent(noise / RESOLVED),
        })
    }
}
