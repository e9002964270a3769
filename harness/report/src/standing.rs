//! How a run beside its history is told.

use std::fmt::Write;

use dmarig_history::{CellKey, HistoryJudgement, HistoryMetric, HistoryVerdict};
use dmarig_model::text::shown;
use dmarig_stats::{paired::Judgement, prediction::Prediction};

use crate::{
    judged::{JudgedMetric, Reference, judged_table},
    number::{percent, ratio_as_change},
};

/// The standing for a terminal of this width; nothing where no case asks for it.
pub(crate) fn standing_table(standing: &HistoryJudgement, width: u16, colour: bool) -> String {
    let mut text = String::new();
    if standing.metrics.is_empty() {
        return text;
    }
    let _ = writeln!(text, "\nagainst the history {}", shown(&standing.history));
    let mut places: Vec<&CellKey> = standing.metrics.iter().map(|metric| &metric.place).collect();
    places.dedup();
    for place in places {
        let _ = writeln!(text, "\n{}\n", shown(&place.to_string()));
        let metrics = standing.metrics.iter().filter(|metric| metric.place == *place);
        let metrics = metrics.map(JudgedMetric::from);
        text.push_str(&judged_table(Reference::EarlierRuns, metrics, width, colour));
    }
    text.push('\n');
    for note in standing_notes(standing) {
        let _ = writeln!(text, "{note}");
    }
    text
}

/// What a reader must know.
pub fn standing_notes(standing: &HistoryJudgement) -> Vec<String> {
    let mut notes = Vec::new();
    let mut judged = false;
    for metric in &standing.metrics {
        let what = format!("{}, {}", shown(&metric.place.to_string()), shown(&metric.metric));
        match (&metric.result, metric.not_compared()) {
            (HistoryVerdict::Judged { found, set_aside, .. }, _) => {
                judged = true;
                notes.extend(inconclusive(metric, found).map(|why| format!("{what}: {why}")));
                if !set_aside.is_empty() {
                    notes.push(format!(
                        "{what}: the newest {} before it are set aside: each was worse than the limit itself",
                        set_aside.len()
                    ));
                }
            }
            (_, why) => {
                notes.push(format!("{what}: not compared ({})", shown(&why.unwrap_or_default())));
            }
        }
    }
    if judged {
        notes.push(format!(
            "a run for which nothing has changed lies outside of what is usual with a probability of {} % on \
             either side",
            standing.error * 100.0
        ));
    }
    notes
}

fn inconclusive(metric: &HistoryMetric, found: &Prediction) -> Option<String> {
    (found.judgement == Judgement::Inconclusive).then(|| {
        format!(
            "neither within {} % nor beyond it for sure; this history resolves {}; `--baseline` decides in pairs",
            metric.limit,
            percent(found.resolvable)
        )
    })
}

/// What one number came to, in a line.
pub(crate) fn standing_message(metric: &HistoryMetric) -> String {
    match (&metric.result, metric.not_compared()) {
        (HistoryVerdict::Judged { found, earlier, .. }, _) => format!(
            "{}: {} to the level of {} runs, limit {} % worse, resolved {}",
            found.judgement.name(),
            ratio_as_change(found.ratio),
            earlier.len(),
            metric.limit,
            percent(found.resolvable)
        ),
        (_, why) => format!("not compared: {}", why.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use dmarig_history::{HISTORY_JUDGEMENT_SCHEMA, SeriesKey};
    use dmarig_stats::{
        paired::Better,
        prediction::{ERROR, LEAST, RULE_VERSION, Subject, judge},
    };

    use super::*;

    fn metric(name: &str, value: Option<f64>, result: HistoryVerdict) -> HistoryMetric {
        let place = CellKey {
            case: "timing".into(),
            variant: "caching-mode=on,policy=lazy".into(),
            kernel: "mine\u{1b}[31m".into(),
        };
        let key = SeriesKey {
            place: place.clone(),
            metric: name.into(),
            unit: "ns".into(),
            reference: Some("debian-6.12@a".into()),
            environment: "e".into(),
        };
        HistoryMetric {
            place,
            environment: "e".into(),
            metric: name.into(),
            limit: 5.0,
            better: None,
            series: value.map(|_| (key.id(), key)),
            value,
            beside: None,
            result,
        }
    }

    fn judged(name: &str, value: f64, set_aside: usize) -> HistoryMetric {
        let earlier: Vec<f64> = (0..30).map(|at| 1.0 + f64::from(at * 7 % 10) / 1e3).collect();
        let found = judge(&[Subject::new(Better::Lower, 5.0, &earlier, 50, value).unwrap()]);
        let runs = earlier.into_iter().map(|value| ("r".to_owned(), value)).collect();
        let set_aside = vec![("s".to_owned(), 1.2); set_aside];
        let found = found[0].clone();
        metric(name, Some(value), HistoryVerdict::Judged { found, earlier: runs, set_aside })
    }

    #[test]
    fn each_number_is_told_with_what_it_was_judged_by() {
        let few =
            HistoryVerdict::TooFew { runs: 3, needed: LEAST, changed: true, other_samples: 0 };
        let standing = HistoryJudgement {
            schema: HISTORY_JUDGEMENT_SCHEMA,
            run: "r".into(),
            history: "history.sqlite".into(),
            rule: RULE_VERSION,
            error: ERROR,
            metrics: vec![
                judged("elapsed", 1.2, 2),
                judged("latency-p50", 1.0, 0),
                judged("latency-p99", 1.055, 0),
                metric("throughput", Some(0.9), few),
                metric(
                    "iops",
                    None,
                    HistoryVerdict::NotCompared { why: "it was not measured".into() },
                ),
            ],
        };
        let text = standing_table(&standing, 110, false);
        for part in [
            "against the history history.sqlite",
            "FAIL",
            "+19.",
            "5 % worse",
            "pass",
            "inconclusive",
            "this history resolves",
            "the newest 2 before it are set aside",
            "throughput: not compared (3 runs since the series changed, 24 needed)",
            "iops: not compared (it was not measured)",
            "2 %",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with(" metric")).count(), 1, "{text}");
        let message = standing_message(&standing.metrics[0]);
        assert!(message.starts_with("FAIL: +19.") && message.contains("of 30 runs"), "{message}");
        let empty = HistoryJudgement { metrics: Vec::new(), ..standing };
        assert_eq!(standing_table(&empty, 110, false), "");
    }
}
