//! A sequential test: pairs in random order, evaluated at a few looks. Each look uses an equal
//! share of the error probability.
//!
//! Since the order within a pair is random, losses are symmetric about the true one for any drift
//! of the machine between both runs. The signed-rank test requires nothing else.

use serde::{Deserialize, Serialize};

use crate::{
    paired::{Arm, Better, Estimate, Judgement, RESOLVED},
    random::Stream,
    signed_rank::{Null, Walsh, spread},
};

/// Number of pairs of the first look. With fewer, nothing can be decided at an error of 2 %.
const FIRST: usize = 8;

/// The looks and the error probability of a test.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rule {
    error: f64,
    looks: Vec<usize>,
}

/// Why a rule is impossible.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BadRule {
    /// An invalid error probability.
    #[error("invalid error probability {0}: it must be above 0 and below 0.5")]
    Error(f64),
    /// Too few pairs.
    #[error("{cap} pairs can't decide with an error of {error}: allow {needed} or more")]
    TooFew {
        /// Largest number of pairs.
        cap: usize,
        /// The error probability.
        error: f64,
        /// Number of pairs that can decide.
        needed: usize,
    },
}

impl Default for Rule {
    /// Looks at 8, 12, 20 and 30 pairs, each with an error of 0.5 % on either side: 2 % over all
    /// looks.
    fn default() -> Self {
        Self { error: 0.02, looks: vec![FIRST, 12, 20, 30] }
    }
}

impl Rule {
    /// A rule that needs a decision, as in a bisection. Each look has half as many pairs again as
    /// the one before, up to `cap` pairs (at most 1,000). The probabilities of a false PASS and of
    /// a false FAIL are each at most `error` over all looks.
    ///
    /// # Errors
    /// [`BadRule`]
    pub fn until(error: f64, cap: usize) -> Result<Self, BadRule> {
        if !(error > 0.0 && error < 0.5) {
            return Err(BadRule::Error(error));
        }
        let cap = cap.min(1000);
        let mut first = FIRST;
        loop {
            let mut looks = Vec::new();
            let mut next = first;
            while next < cap {
                looks.push(next);
                next = (next * 3).div_ceil(2);
            }
            looks.push(cap);
            if first >= needed(error / looks.len() as f64) && cap >= first {
                return Ok(Self { error, looks });
            }
            if first > cap {
                // The number for a single look.
                let needed = FIRST.max(needed(error));
                return Err(BadRule::TooFew { cap, error, needed });
            }
            first += 1;
        }
    }

    /// The rule for one of several comparisons that are reported together. Each gets an equal part
    /// of the error, so that the sum is that of one comparison. If the first look has too few pairs
    /// for that, it is moved, or dropped if the next one is nearer.
    ///
    /// # Panics
    /// If `parts` is 0.
    #[must_use]
    pub fn shared(&self, parts: usize) -> Self {
        assert!(parts > 0, "nothing shares the error");
        let error = self.error / parts as f64;
        let mut looks = self.looks.clone();
        loop {
            let level = error / looks.len() as f64;
            let [first, next, ..] = looks.as_mut_slice() else { break };
            let needed = needed(level);
            if *first >= needed {
                break;
            }
            if needed < *next && needed - *first < *next - needed {
                *first = needed;
                break;
            }
            looks.remove(0);
        }
        Self { error, looks }
    }

    /// Largest probability of a false PASS, and of a false FAIL, over all looks.
    #[must_use]
    pub fn error(&self) -> f64 {
        self.error
    }

    /// Numbers of pairs at which the test is evaluated; the last one is the largest number of
    /// pairs.
    #[must_use]
    pub fn looks(&self) -> &[usize] {
        &self.looks
    }

    fn cap(&self) -> usize {
        self.looks.last().copied().unwrap_or(0)
    }

    /// Error probability of one look on either side.
    #[must_use]
    pub fn level(&self) -> f64 {
        self.error / self.looks.len() as f64
    }
}

/// Smallest number of pairs that can decide at this level, if all of them are on one side.
fn needed(level: f64) -> usize {
    (-level.log2()).ceil() as usize
}

/// A compared metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Name.
    pub name: String,
    /// The better direction.
    pub better: Better,
    /// Largest allowed worsening of the candidate, in percent; null if the metric is only
    /// estimated.
    pub limit: Option<f64>,
}

/// The plan of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Random seed for the order of pairs.
    pub seed: u64,
    /// The rule.
    pub rule: Rule,
    /// The metrics.
    pub metrics: Vec<Metric>,
}

/// Why a plan is not valid.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BadPlan {
    /// It has no metrics.
    #[error("there is no metric to compare")]
    Empty,
    /// It has an invalid limit.
    #[error(
        "metric `{metric}` can't be limited to {percent} % worse: it must be above 0, and below \
         100 where higher is better"
    )]
    Limit {
        /// The metric.
        metric: String,
        /// The limit, in percent.
        percent: f64,
    },
}

/// A pair that is to be run next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Number, from 0.
    pub number: usize,
    /// Order of the sides.
    pub order: [Arm; 2],
}

/// The values of a pair, in the order of the plan's metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Values of the candidate.
    pub candidate: Vec<f64>,
    /// Values of the baseline.
    pub baseline: Vec<f64>,
}

/// Why a pair is rejected.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BadPair {
    /// It does not have one value for each metric.
    #[error(
        "a pair has {candidate} values of the candidate and {baseline} of the baseline for \
         {metrics} metrics"
    )]
    Shape {
        /// Number of values of the candidate.
        candidate: usize,
        /// Number of values of the baseline.
        baseline: usize,
        /// Number of metrics in the plan.
        metrics: usize,
    },
    /// It has values that are not positive.
    #[error("metric `{metric}` has no ratio of {candidate} to {baseline}: both must be above 0")]
    NoRatio {
        /// The metric.
        metric: String,
        /// The candidate's value.
        candidate: f64,
        /// The baseline's value.
        baseline: f64,
    },
    /// The comparison has ended.
    #[error("the comparison has ended: no more pairs are needed")]
    Over,
}

/// The result for one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The metric.
    pub metric: Metric,
    /// The judgement; null while more pairs are needed, and without a limit.
    pub judgement: Option<Judgement>,
    /// The estimate at the time of the judgement, or now without one; null before the second pair.
    pub estimate: Option<Estimate>,
    /// Largest probability of this judgement if it is wrong, over all looks, and for a FAIL over
    /// all metrics. Null if inconclusive or not judged.
    pub error: Option<f64>,
    /// Whether the pairs of the first look are too noisy for the limit; null before, and without a
    /// limit.
    pub too_fine: Option<bool>,
}

#[derive(Debug, Clone)]
struct Track {
    metric: Metric,
    limit: Option<f64>,
    losses: Vec<f64>,
    /// Smallest probabilities so far, times the number of looks: of such values if the candidate is
    /// not worse than the limit, and if it is not better.
    worse: f64,
    better: f64,
    too_fine: Option<bool>,
    /// Judgement, error, and the number of pairs at that time.
    judged: Option<(Judgement, Option<f64>, usize)>,
}

/// A running comparison: add the pair that is due until none is.
#[derive(Debug, Clone)]
pub struct Sequence {
    rule: Rule,
    stream: Stream,
    warm_ups: [Arm; 2],
    order: [Arm; 2],
    pairs: usize,
    tracks: Vec<Track>,
}

impl Sequence {
    /// Starts a comparison.
    ///
    /// # Errors
    /// [`BadPlan`]
    pub fn new(plan: Plan) -> Result<Self, BadPlan> {
        let track =
            |metric: Metric| {
                let limit =
                    match metric.limit {
                        None => None,
                        Some(percent) => Some(metric.better.limit(percent).ok_or_else(|| {
                            BadPlan::Limit { metric: metric.name.clone(), percent }
                        })?),
                    };
                Ok(Track {
                    metric,
                    limit,
                    losses: Vec::new(),
                    worse: 1.0,
                    better: 1.0,
                    too_fine: None,
                    judged: None,
                })
            };
        let tracks = plan.metrics.into_iter().map(track).collect::<Result<Vec<_>, _>>()?;
        if tracks.is_empty() {
            return Err(BadPlan::Empty);
        }
        let mut stream = Stream::new(plan.seed);
        let (warm_ups, order) = (draw(&mut stream), draw(&mut stream));
        Ok(Self { rule: plan.rule, stream, warm_ups, order, pairs: 0, tracks })
    }

    /// The sides to run before the first pair, with discarded results: they fill caches and settle
    /// the clock of the host's CPU.
    #[must_use]
    pub fn warm_ups(&self) -> [Arm; 2] {
        self.warm_ups
    }

    /// The pair that is due. It stays the same until it is [added](Self::add), so a failed pair can
    /// be repeated. `None` if the comparison has ended.
    #[must_use]
    pub fn due(&self) -> Option<Turn> {
        match self.is_over() {
            true => None,
            false => Some(Turn { number: self.pairs, order: self.order }),
        }
    }

    /// The pairs that are due up to the next look, for a caller that must plan them in advance.
    /// Empty if the comparison has ended.
    #[must_use]
    pub fn batch(&self) -> Vec<Turn> {
        let look = self.rule.looks.iter().find(|look| **look > self.pairs);
        let Some(look) = look.filter(|_| !self.is_over()) else { return Vec::new() };
        let (mut stream, mut order) = (self.stream.clone(), self.order);
        let turn =
            |number| Turn { number, order: std::mem::replace(&mut order, draw(&mut stream)) };
        (self.pairs..*look).map(turn).collect()
    }

    /// Adds the pair that was due.
    ///
    /// # Errors
    /// [`BadPair`]; then nothing was added.
    pub fn add(&mut self, pair: &Pair) -> Result<(), BadPair> {
        if self.is_over() {
            return Err(BadPair::Over);
        }
        let (candidate, baseline, metrics) =
            (pair.candidate.len(), pair.baseline.len(), self.tracks.len());
        if (candidate, baseline) != (metrics, metrics) {
            return Err(BadPair::Shape { candidate, baseline, metrics });
        }
        let values = pair.candidate.iter().zip(&pair.baseline);
        let losses = self.tracks.iter().zip(values).map(|(track, (candidate, baseline))| {
            track.metric.better.loss(*candidate, *baseline).ok_or_else(|| BadPair::NoRatio {
                metric: track.metric.name.clone(),
                candidate: *candidate,
                baseline: *baseline,
            })
        });
        let losses = losses.collect::<Result<Vec<f64>, _>>()?;
        for (track, loss) in self.tracks.iter_mut().zip(losses) {
            track.losses.push(loss);
        }
        self.pairs += 1;
        self.order = draw(&mut self.stream);
        if self.rule.looks.contains(&self.pairs) {
            self.look();
        }
        Ok(())
    }

    /// The judgement of all metrics with limits: FAIL if one fails, PASS if all pass. `None` while
    /// a pair is due, and without limits.
    #[must_use]
    pub fn decision(&self) -> Option<Judgement> {
        if !self.is_over() {
            return None;
        }
        let judged: Vec<Judgement> = self
            .tracks
            .iter()
            .filter_map(|track| track.judged)
            .map(|(judged, ..)| judged)
            .collect();
        [Judgement::Fail, Judgement::Inconclusive, Judgement::Pass]
            .into_iter()
            .find(|judgement| judged.contains(judgement))
    }

    /// The results for all metrics so far.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let finding = |track: &Track| {
            let pairs = track.judged.map_or(self.pairs, |(.., pairs)| pairs);
            let losses = &track.losses[..pairs];
            let null = Null::new(pairs);
            Finding {
                metric: track.metric.clone(),
                judgement: track.judged.map(|(judgement, ..)| judgement),
                estimate: Estimate::new(losses, track.metric.better, &null, self.rule.level()),
                error: track.judged.and_then(|(_, error, _)| error),
                too_fine: track.too_fine,
            }
        };
        self.tracks.iter().map(finding).collect()
    }

    fn is_over(&self) -> bool {
        let mut limited = self.tracks.iter().filter(|track| track.limit.is_some()).peekable();
        let decided = limited.peek().is_some() && limited.all(|track| track.judged.is_some());
        decided || self.pairs >= self.rule.cap()
    }

    fn look(&mut self) {
        let null = Null::new(self.pairs);
        let looks = self.rule.looks.len() as f64;
        let first = self.rule.looks.first() == Some(&self.pairs);
        for track in &mut self.tracks {
            let (Some(limit), None) = (track.limit, track.judged) else { continue };
            if first {
                let noise = spread(&track.losses);
                track.too_fine = noise.map(|noise| noise > RESOLVED * limit);
            }
            let walsh = Walsh::new(&track.losses);
            track.worse = track.worse.min(looks * walsh.above(&null, limit));
            track.better = track.better.min(looks * walsh.below(&null, limit));
        }
        self.fail_metrics();
        for track in self.tracks.iter_mut().filter(|track| track.limit.is_some()) {
            if track.judged.is_some() {
                continue;
            }
            if track.better <= self.rule.error {
                track.judged = Some((Judgement::Pass, Some(track.better), self.pairs));
            } else if self.pairs >= self.rule.cap() {
                track.judged = Some((Judgement::Inconclusive, None, self.pairs));
            }
        }
    }

    /// Fails metrics. One failure fails the whole, so the probabilities are adjusted by the number
    /// of metrics (Holm 1979). A pass needs no adjustment, since all metrics must pass.
    fn fail_metrics(&mut self) {
        let pairs = self.pairs;
        let mut limited: Vec<&mut Track> =
            self.tracks.iter_mut().filter(|track| track.limit.is_some()).collect();
        limited.sort_by(|a, b| a.worse.total_cmp(&b.worse));
        let metrics = limited.len();
        let mut adjusted = 0.0_f64;
        for (rank, track) in limited.into_iter().enumerate() {
            adjusted = adjusted.max(track.worse * (metrics - rank) as f64);
            if adjusted > self.rule.error {
                break;
            }
            track.judged.get_or_insert((Judgement::Fail, Some(adjusted), pairs));
        }
    }
}

fn draw(stream: &mut Stream) -> [Arm; 2] {
    if stream.coin() { [Arm::Candidate, Arm::Baseline] } else { [Arm::Baseline, Arm::Candidate] }
}
