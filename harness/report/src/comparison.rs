//! How a comparison is told: tables with small distributions, and Markdown.

use std::{collections::BTreeMap, fmt::Write};

use dmarig_model::text::shown;
use dmarig_records::{CellComparison, CellEnd, Comparison, MetricResult};

use crate::{
    folded::folded,
    judged::{Column, JudgedMetric, Reference, judged_table},
    number::{percent, quantity, significant},
};

/// Columns of a small distribution.
const BINS: usize = 32;

/// The comparison for a terminal of this width.
pub fn comparison_table(comparison: &Comparison, width: u16, colour: bool) -> String {
    let mut text = format!("\n{}\n", comparison_heading(comparison));
    for cell in comparison.cells.iter().filter(|cell| !cell.is_empty()) {
        let _ = writeln!(text, "\n{}\n", shown(&cell.label));
        let metrics = cell.metrics.iter().map(JudgedMetric::from);
        text.push_str(&judged_table(Reference::Baseline, metrics, width, colour));
        text.push_str(&distributions(cell));
        for line in counts(cell) {
            let _ = writeln!(text, "  {line}");
        }
    }
    text.push('\n');
    // Of the others a note tells how they ended.
    let silent = |cell: &&CellComparison| cell.is_empty() && cell.ended == CellEnd::Done;
    let silent = comparison.cells.iter().filter(silent).count();
    if silent > 0 {
        let all = comparison.cells.len();
        let _ = writeln!(
            text,
            "cells of which nothing was timed and no count differs: {silent} of {all}"
        );
    }
    for note in comparison_notes(comparison) {
        let _ = writeln!(text, "{}", folded(&note, width, "  "));
    }
    text
}

/// Text from elsewhere within a line of Markdown: nothing in it is markup, a link or HTML, calls anybody
/// or refers to anything.
fn plain(text: &str) -> String {
    let text = shown(text);
    let text = text.trim();
    let mut out = String::with_capacity(text.len());
    for (at, sign) in text.char_indices() {
        let rest = &text[at + sign.len_utf8()..];
        match sign {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '$' | '#' | '!' => {
                out.extend(['\\', sign]);
            }
            _ => out.push(sign),
        }
        // Forges look for names, numbers and addresses in what is rendered, where no escape is left:
        // a blank of no width keeps them from it.
        let refers = match sign {
            '@' | '#' | ':' => rest.starts_with(|next: char| !next.is_whitespace()),
            'w' | 'W' => rest.starts_with('.'),
            _ => false,
        };
        if refers {
            out.push_str("&#8203;");
        }
    }
    out
}

/// A line of [`plain`] text that begins neither a list nor a heading.
fn paragraph(text: &str) -> String {
    let number = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, rest) = text.split_at(number);
    let begins = match number {
        "" => rest.starts_with(['-', '+', '=']),
        _ => rest.starts_with(['.', ')']),
    };
    if begins { format!("{number}\\{rest}") } else { text.to_owned() }
}

/// The comparison as Markdown.
pub fn comparison_markdown(comparison: &Comparison) -> String {
    let mut text = format!("**{}**\n", plain(&comparison_heading(comparison)));
    for cell in comparison.cells.iter().filter(|cell| !cell.is_empty()) {
        let _ = writeln!(text, "\n`{}`\n", shown(&cell.label).replace('`', "'"));
        let heads = Column::ALL.map(|column| column.head(Reference::Baseline));
        let _ = writeln!(text, "| {} |", heads.join(" | "));
        let _ = writeln!(text, "|---|{}", "--:|".repeat(heads.len() - 1));
        for metric in cell.metrics.iter().map(JudgedMetric::from) {
            let fields = Column::ALL.map(|column| plain(&metric.text(column)));
            let _ = writeln!(text, "| {} |", fields.join(" | "));
        }
        let counts: Vec<String> = counts(cell).iter().map(|count| plain(count)).collect();
        if !counts.is_empty() {
            let _ = writeln!(text, "\n{}", paragraph(&counts.join("; ")));
        }
    }
    for note in comparison_notes(comparison) {
        let _ = writeln!(text, "\n{}", paragraph(&plain(&note)));
    }
    text
}

/// What is compared, and how it was measured.
pub fn comparison_heading(comparison: &Comparison) -> String {
    let (candidate, baseline) = (shown(&comparison.candidate), shown(&comparison.baseline));
    match &comparison.pairing {
        None => format!("{candidate} and {baseline}: UNPAIRED, estimated and not judged"),
        Some(pairing) => {
            let place = if pairing.one_boot { "in one boot" } else { "each in a boot of its own" };
            format!("{candidate} against {baseline}, in pairs, {place}; seed {}", pairing.seed)
        }
    }
}

/// What both gave, each over the same span.
fn distributions(cell: &CellComparison) -> String {
    let mut text = String::new();
    for metric in cell.metrics.iter().filter(|metric| metric.candidate.len() > 2) {
        let all = || metric.candidate.iter().chain(&metric.baseline).copied();
        let (low, high) =
            (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        let _ = writeln!(
            text,
            "\n  {}, from {} to {}",
            shown(&metric.name),
            quantity(low, &metric.unit),
            quantity(high, &metric.unit)
        );
        for (name, values) in [("candidate", &metric.candidate), ("baseline", &metric.baseline)] {
            let _ = writeln!(text, "  {name:>9} |{}| {}", strip(values, low, high), values.len());
        }
    }
    text
}

/// A histogram of one line.
fn strip(values: &[f64], low: f64, high: f64) -> String {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let mut bins = [0_usize; BINS];
    for value in values {
        let part = if high > low { (value - low) / (high - low) } else { 0.5 };
        bins[((part * BINS as f64) as usize).min(BINS - 1)] += 1;
    }
    let most = bins.iter().copied().max().unwrap_or(0).max(1);
    bins.iter().map(|count| BARS[(count * 8).div_ceil(most)]).collect()
}

fn counts(cell: &CellComparison) -> Vec<String> {
    let told = cell.counts.iter().map(|count| {
        format!(
            "{}: {}, not {}",
            shown(&count.name),
            quantity(count.candidate, "1"),
            quantity(count.baseline, "1")
        )
    });
    told.collect()
}

/// What a reader must know.
pub fn comparison_notes(comparison: &Comparison) -> Vec<String> {
    let mut notes: Vec<String> = comparison.notes.iter().map(|note| shown(note)).collect();
    if let Some(pairing) = &comparison.pairing {
        let all = if comparison.cells.len() > 1 { ", all cells together" } else { "" };
        let looks = pairing.looks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let mut note = format!(
            "a wrong pass and a wrong failure each have a probability of at most {} %{all}, looked at after \
             {looks} pairs",
            significant(pairing.error * 100.0, 2)
        );
        if let Some(level) = pairing.level {
            let level = significant(level * 100.0, 2);
            note += &format!(
                "; of an interval that leaves the true change out it is {level} % on either side"
            );
        }
        notes.push(note);
    }
    // Many are left out for the same reason.
    let mut left: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for cell in &comparison.cells {
        let (how, why) = match &cell.ended {
            CellEnd::Done => continue,
            CellEnd::Skipped { why } => ("skipped", why),
            CellEnd::Stopped { why } => ("stopped", why),
        };
        left.entry((how, why)).or_default().push(&cell.label);
    }
    for ((how, why), labels) in left {
        let were = if labels.len() == 1 { "was" } else { "were" };
        let (labels, why) = (shown(&labels.join("; ")), shown(why));
        notes.push(format!("{labels} {were} {how}: {why}"));
    }
    for cell in &comparison.cells {
        notes.extend(boots(cell));
        for metric in &cell.metrics {
            let MetricResult::Paired(finding) = &metric.result else { continue };
            let (Some(limit), Some(true), Some(estimate)) =
                (finding.metric.limit, finding.too_fine, finding.estimate)
            else {
                continue;
            };
            notes.push(format!(
                "{}, {}: {limit} % is finer than this machine resolves in a few pairs; it could decide {}",
                shown(&cell.label),
                shown(&metric.name),
                percent(estimate.resolvable)
            ));
        }
    }
    notes
}

/// Of each side of which boots did not pass: how many, and why the first.
fn boots(cell: &CellComparison) -> Vec<String> {
    let sides =
        cell.boots.iter().flat_map(|boots| ["candidate", "baseline"].into_iter().zip(boots));
    let told = sides.filter_map(|(side, boots)| {
        let first = boots.bad.first()?;
        Some(format!(
            "{}: {} of {} boots of the {side} did not pass by themselves; {}: {}: {}",
            shown(&cell.label),
            boots.bad.len(),
            boots.all,
            shown(&first.cell),
            first.outcome.name(),
            shown(&first.reason)
        ))
    });
    told.collect()
}

/// The comparison as a document of its own, with what is thought of all of it.
///
/// # Errors
/// Where it can't be written as JSON, which is a mistake of this program.
pub fn comparison_json(comparison: &Comparison) -> serde_json::Result<serde_json::Value> {
    let mut document = serde_json::to_value(comparison)?;
    document["outcome"] = serde_json::to_value(comparison.outcome())?;
    document["judgement"] = serde_json::to_value(comparison.judgement())?;
    Ok(document)
}

#[cfg(test)]
mod tests {
    use dmarig_model::observation::Outcome;
    use dmarig_records::{
        BadBoot, Boots, COMPARISON_SCHEMA, CountDifference, MetricComparison, Pairing,
    };
    use dmarig_stats::sequence::{Metric, Pair, Plan, Rule, Sequence};

    use super::*;

    /// Pairs of so many percent worse, judged by a limit of 5 %.
    fn comparison(percent: f64) -> Comparison {
        let metric = Metric {
            name: "elapsed".into(),
            better: dmarig_stats::paired::Better::Lower,
            limit: Some(5.0),
        };
        let plan = Plan { seed: 7, rule: Rule::default(), metrics: vec![metric] };
        let mut sequence = Sequence::new(plan).unwrap();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        while let Some(turn) = sequence.due() {
            let baseline = 1.2e9 + 1e6 * (turn.number * 7 % 5) as f64;
            let candidate = baseline * (1.0 + percent / 100.0) + 1e6 * (turn.number % 3) as f64;
            sequence.add(&Pair { candidate: vec![candidate], baseline: vec![baseline] }).unwrap();
            ours.push(candidate);
            theirs.push(baseline);
        }
        let result = MetricResult::Paired(sequence.findings().remove(0));
        let metric = MetricComparison {
            name: "elapsed".into(),
            unit: "ns".into(),
            candidate: ours,
            baseline: theirs,
            result,
        };
        let count = CountDifference { name: "psi|x".into(), candidate: 2.0, baseline: 1.0 };
        Comparison {
            schema: COMPARISON_SCHEMA,
            candidate: "debian-6.12".into(),
            baseline: "debian-6.1".into(),
            pairing: Some(Pairing {
                seed: 7,
                error: 0.02,
                level: Some(0.005),
                looks: vec![8, 12, 20, 30],
                rule: 1,
                one_boot: false,
            }),
            cells: vec![CellComparison {
                label: "timing/policy=strict".into(),
                metrics: vec![metric],
                counts: vec![count],
                boots: Some(Default::default()),
                ended: CellEnd::Done,
            }],
            notes: vec!["\u{1b}[31mred".into()],
        }
    }

    #[test]
    fn a_verdict_is_told_with_what_it_rests_on() {
        let text = comparison_table(&comparison(9.0), 110, false);
        for part in ["FAIL", "+9.", "5 % worse", "1.2", "debian-6.12 against debian-6.1", "seed 7"]
        {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
        assert!(text.contains('█') && text.contains("psi|x: 2, not 1"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(comparison_table(&comparison(0.0), 110, false).contains(" pass"));
    }

    #[test]
    fn boots_that_did_not_pass_and_cells_that_ended_early_are_told() {
        let mut found = comparison(0.0);
        assert_eq!(found.outcome(), Outcome::Passed);
        let bad = |outcome| BadBoot { cell: "c.003".into(), outcome, reason: "oops\u{1b}".into() };
        let boots = |outcome| Boots { all: 18, bad: vec![bad(outcome)] };
        // The baseline's are no failure of the candidate, nor what is the rig's fault.
        found.cells[0].boots = Some([boots(Outcome::Errored), boots(Outcome::Failed)]);
        assert_eq!(found.outcome(), Outcome::Passed);
        found.cells[0].boots = Some([boots(Outcome::TimedOut), Boots::default()]);
        assert_eq!(found.outcome(), Outcome::Failed);
        let ended = [
            CellEnd::Skipped { why: "no such device".into() },
            CellEnd::Stopped { why: "interrupted".into() },
        ];
        for (at, ended) in ended.into_iter().enumerate() {
            let label = format!("timing/{at}");
            let (metrics, counts) = (Vec::new(), Vec::new());
            found.cells.push(CellComparison { label, metrics, counts, boots: None, ended });
        }
        let text = comparison_table(&found, 110, false).replace("\n  ", " ");
        for part in [
            "timing/policy=strict: 1 of 18 boots of the candidate did not pass by themselves; c.003: timed out: oops",
            "timing/0 was skipped: no such device",
            "timing/1 was stopped: interrupted",
            "at most 2 %, all cells together, looked at after 8, 12, 20, 30 pairs",
            "it is 0.5 % on either side",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(!text.contains("nothing was timed"), "{text}");
        found.cells[0].boots = None;
        assert_eq!(found.outcome(), Outcome::Errored);
        found.cells.drain(..1);
        found.cells.pop();
        assert_eq!(found.outcome(), Outcome::Skipped);
        let document = comparison_json(&found).unwrap();
        assert_eq!((&document["outcome"], &document["judgement"]), (&"skipped".into(), &().into()));
    }

    #[test]
    fn markdown_has_a_column_for_each_head() {
        let text = comparison_markdown(&comparison(0.0));
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), 3, "{text}");
        assert!(rows.iter().all(|row| row.matches('|').count() == Column::ALL.len() + 1), "{text}");
        assert!(text.contains("psi\\|x"), "{text}");
    }

    #[test]
    fn names_from_a_guest_are_no_markdown() {
        for (text, plainly) in [
            ("<img src=x>", "&lt;img src=x&gt;"),
            ("a&amp;b", "a&amp;amp;b"),
            ("[x](http://y)", r"\[x\](http:&#8203;//y)"),
            ("![x](y)", r"\!\[x\](y)"),
            ("https://y www.y", "https:&#8203;//y www&#8203;.y"),
            ("`a` *b* _c_ ~~d~~ $e$", r"\`a\` \*b\* \_c\_ \~\~d\~\~ \$e\$"),
            ("@somebody, a@b.c #1", r"@&#8203;somebody, a@&#8203;b.c \#&#8203;1"),
            (r"a\|b", r"a\\\|b"),
            ("a\nb", r"a\\nb"),
            ("p99: 1.5 ms, -", "p99: 1.5 ms, -"),
        ] {
            assert_eq!(plain(text), plainly);
        }
        for (text, line) in [
            ("- a", r"\- a"),
            ("===", r"\==="),
            ("12. a", r"12\. a"),
            ("1) a", r"1\) a"),
            ("12 a.", "12 a."),
            ("a", "a"),
            ("", ""),
        ] {
            assert_eq!(paragraph(text), line);
        }
        let mut hostile = comparison(0.0);
        let evil = "<img src=x>|[a](b)`@somebody`";
        hostile.candidate = evil.into();
        hostile.cells[0].label = evil.into();
        hostile.cells[0].metrics[0].name = evil.into();
        hostile.cells[0].counts[0].name = evil.into();
        hostile.notes = vec![evil.into()];
        let text = comparison_markdown(&hostile);
        // Within a code span nothing is markup.
        let lines = text.lines().filter(|line| !line.starts_with('`'));
        for line in lines {
            assert!(!line.contains("<img") && !line.contains("@somebody"), "{line}");
        }
        assert!(text.contains("\n`<img src=x>|[a](b)'@somebody'`\n"), "{text}");
    }

    #[test]
    fn a_strip_shows_where_values_lie() {
        let strip = strip(&[0.0, 0.0, 0.0, 0.0, 10.0], 0.0, 10.0);
        assert_eq!(strip.chars().count(), BINS);
        assert!(strip.starts_with('█') && strip.ends_with('▂'), "{strip}");
    }
}
