//! A comparison that goes on until it can tell: pairs in random order, looked at a few times, each
//! time with a share of the error that may be made in all.
//!
//! The losses of pairs whose order is drawn by a coin are symmetric about the true one whatever the
//! machine's drift was between the two runs, which is all that the signed-rank test asks for.

use serde::{Deserialize, Serialize};

use crate::{
    paired::{Arm, Better, Estimate, Judgement, RESOLVED},
    random::Stream,
    signed_rank::{Null, Walsh, spread},
};

/// Pairs of the first look, and what a pilot is: with fewer nothing can be told at 2 %.
const FIRST: usize = 8;

/// When it is looked at, and how much error may be made in all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rule {
    error: f64,
    looks: Vec<usize>,
}

/// Why there is no such rule.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BadRule {
    /// An error that is none.
    #[error("an error of {0} can't be promised: it must be above 0 and below 0.5")]
    Error(f64),
    /// Too few pairs.
    #[error("{cap} pairs can't tell with an error of {error}: allow {needed} or more")]
    TooFew {
        /// Pairs that may be made.
        cap: usize,
        /// The error.
        error: f64,
        /// Pairs that could tell.
        needed: usize,
    },
}

impl Default for Rule {
    /// Looks at 8, 12, 20 and 30 pairs, each of which may err by 0.5 % on either side: 2 % in all.
    fn default() -> Self {
        Self { error: 0.02, looks: vec![FIRST, 12, 20, 30] }
    }
}

impl Rule {
    /// For one who needs an answer, such as a bisection: goes on, with looks half as many pairs again
    /// apart, until the probability of a wrong PASS and that of a wrong FAIL are each at most `error`
    /// over all looks, or until `cap` pairs have been made (at most 1,000).
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
                // With a single look.
                let needed = FIRST.max(needed(error));
                return Err(BadRule::TooFew { cap, error, needed });
            }
            first += 1;
        }
    }

    /// For one of so many comparisons that are told together: each may err by an equal part, so that all
    /// of them err by no more than one would. Where the first look is too few pairs for that it is made
    /// later, or left out where the next one is nearer.
    ///
    /// # Panics
    /// Where there are no parts.
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

    /// The probability of a wrong PASS, and that of a wrong FAIL, are each at most this, all looks
    /// together.
    #[must_use]
    pub fn error(&self) -> f64 {
        self.error
    }

    /// The numbers of pairs at which it is looked at; the last is the most that are made.
    #[must_use]
    pub fn looks(&self) -> &[usize] {
        &self.looks
    }

    fn cap(&self) -> usize {
        self.looks.last().copied().unwrap_or(0)
    }

    /// What one look may err by on either side.
    #[must_use]
    pub fn level(&self) -> f64 {
        self.error / self.looks.len() as f64
    }
}

/// Pairs without which nothing can be told at this level: all of them on one side are the most that there
/// is to see.
fn needed(level: f64) -> usize {
    (-level.log2()).ceil() as usize
}

/// Something that is measured of both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Which is better.
    pub better: Better,
    /// How many percent worse the candidate may be; null where it is only estimated.
    pub limit: Option<f64>,
}

/// What is compared, and how.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// From which the order of each pair is drawn.
    pub seed: u64,
    /// When it is looked at.
    pub rule: Rule,
    /// What is measured.
    pub metrics: Vec<Metric>,
}

/// Why a plan can't be followed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BadPlan {
    /// Nothing to measure.
    #[error("there is no metric to compare")]
    Empty,
    /// A limit that is none.
    #[error(
        "metric `{metric}` can't be limited to {percent} % worse: it must be above 0, and below 100 where \
         higher is better"
    )]
    Limit {
        /// The metric.
        metric: String,
        /// The limit, in percent.
        percent: f64,
    },
}

/// A pair that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Its number, from 0 on.
    pub number: usize,
    /// Which is run first, and which then.
    pub order: [Arm; 2],
}

/// What a pair gave, in the order of the plan's metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// What the candidate gave.
    pub candidate: Vec<f64>,
    /// What the baseline gave.
    pub baseline: Vec<f64>,
}

/// Why a pair is not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BadPair {
    /// Not one value for each metric.
    #[error(
        "a pair has {candidate} values of the candidate and {baseline} of the baseline for {metrics} metrics"
    )]
    Shape {
        /// Values of the candidate.
        candidate: usize,
        /// Values of the baseline.
        baseline: usize,
        /// Metrics of the plan.
        metrics: usize,
    },
    /// Values without a ratio.
    #[error("metric `{metric}` has no ratio of {candidate} to {baseline}: both must be above 0")]
    NoRatio {
        /// The metric.
        metric: String,
        /// The candidate's value.
        candidate: f64,
        /// The baseline's value.
        baseline: f64,
    },
    /// It is over.
    #[error("all is decided: no more pairs are needed")]
    Over,
}

/// What was found of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The metric.
    pub metric: Metric,
    /// What is thought of it; null as long as more pairs are needed, and without a limit.
    pub judgement: Option<Judgement>,
    /// How the two compare, when it was judged or else now; null before the second pair.
    pub estimate: Option<Estimate>,
    /// The most that the probability of such a judgement is if it is wrong, all looks together; for a
    /// FAIL also all metrics together. Null where there is none.
    pub error: Option<f64>,
    /// Whether the first look's pairs were so noisy that the limit is finer than this machine
    /// resolves; null before, and without a limit.
    pub too_fine: Option<bool>,
}

#[derive(Debug, Clone)]
struct Track {
    metric: Metric,
    limit: Option<f64>,
    losses: Vec<f64>,
    /// Smallest probabilities so far, times the number of looks: of such values if the candidate
    /// were no worse than the limit, and if it were no better.
    worse: f64,
    better: f64,
    too_fine: Option<bool>,
    /// Judgement, error, and the pairs that it was made after.
    judged: Option<(Judgement, Option<f64>, usize)>,
}

/// A comparison under way: give it the pair that is due until none is.
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
    /// A comparison without any pair yet.
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

    /// What is to be run before the first pair, and thrown away: caches, and the clock of the host's
    /// CPU, then stand for neither.
    #[must_use]
    pub fn warm_ups(&self) -> [Arm; 2] {
        self.warm_ups
    }

    /// The pair that is due; the same one until it was [added](Self::add), so that a pair that came to
    /// nothing can be made again. `None` when all is decided or the cap is reached.
    #[must_use]
    pub fn due(&self) -> Option<Turn> {
        (!self.over()).then_some(Turn { number: self.pairs, order: self.order })
    }

    /// The pairs up to the next look, of which the first is due: for one who has to say beforehand what
    /// is run. Empty when none is due.
    #[must_use]
    pub fn batch(&self) -> Vec<Turn> {
        let look = self.rule.looks.iter().find(|look| **look > self.pairs);
        let Some(look) = look.filter(|_| !self.over()) else { return Vec::new() };
        let (mut stream, mut order) = (self.stream.clone(), self.order);
        let turn =
            |number| Turn { number, order: std::mem::replace(&mut order, draw(&mut stream)) };
        (self.pairs..*look).map(turn).collect()
    }

    /// Takes the pair that was due.
    ///
    /// # Errors
    /// [`BadPair`], and then nothing of it was taken.
    pub fn add(&mut self, pair: &Pair) -> Result<(), BadPair> {
        if self.over() {
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

    /// What is thought of all metrics with limits together: FAIL if one fails, PASS if all pass.
    /// `None` as long as a pair is due, and where nothing has a limit.
    #[must_use]
    pub fn decision(&self) -> Option<Judgement> {
        if !self.over() {
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

    /// What is known of each metric, at any time.
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

    fn over(&self) -> bool {
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
        self.fail();
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

    /// Fails metrics as Holm (1979) has it: the more of them there are, the more each must show, since
    /// a single one is enough to fail the whole. To pass, all must pass, and that errs no more often
    /// than the one that should not have.
    fn fail(&mut self) {
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
