//! Numbers that left their noise.

use dmarig_report::number::{change, quantity};
use maud::{Markup, html};

use crate::{
    chart::{spark, way},
    index::Index,
    noise::{BAND, LEAST, Segment},
    page::{changed, scrolling},
    text::Safe,
};

/// Most rows of a list of numbers.
pub(crate) const MOST: usize = 40;
/// Points of a small picture.
const RECENT: usize = 60;

/// A number that left its noise.
pub(crate) struct Outlier {
    series: usize,
    at: usize,
    /// How far from the level that it had, in standard deviations.
    away: f64,
}

/// The numbers of some runs, as far as they could be held against their levels.
pub(crate) struct Moves {
    /// Those outside their noise, the farthest first.
    pub(crate) moves: Vec<Outlier>,
    /// How many have a level.
    judged: usize,
    /// How many there are.
    all: usize,
}

/// Points of these runs that lie outside the noise of those before them.
pub(crate) fn moves(of: &Index, runs: &[usize]) -> Moves {
    let points = || runs.iter().filter_map(|run| of.points.get(*run)).flatten();
    let mut found = Moves { moves: Vec::new(), judged: 0, all: points().count() };
    for &(series, at) in points() {
        let Some(away) = away(of, series, at) else { continue };
        found.judged += 1;
        if away.abs() > BAND {
            found.moves.push(Outlier { series, at, away });
        }
    }
    found.moves.sort_by(|a, b| b.away.abs().total_cmp(&a.away.abs()));
    found
}

/// The part of its series that a point comes after.
fn before(of: &Index, series: usize, at: usize) -> Option<&Segment> {
    let before = at.checked_sub(1)?;
    of.segments[series].iter().find(|part| (part.start..part.end).contains(&before))
}

/// How far a point lies from the level that its series had before it, in standard deviations; `None` where it had
/// none.
fn away(of: &Index, series: usize, at: usize) -> Option<f64> {
    let segment = before(of, series, at).filter(|segment| segment.is_level())?;
    let away = of.site.series[series].points[at].value - segment.level;
    // Counts that repeat exactly have no noise: then any other value is far away.
    let sd = segment.sd.max(segment.level.abs() * 1e-3).max(f64::MIN_POSITIVE);
    away.is_finite().then_some(if away == 0.0 { 0.0 } else { away / sd })
}

/// What is said of the numbers that are not outside their noise: those without a level are not within it.
fn others(of: &Moves) -> String {
    let without = of.all - of.judged;
    let needed = format!("that takes {LEAST} points in one environment");
    match (of.all, of.judged, of.moves.len()) {
        (0, ..) => "There are no numbers.".to_owned(),
        (1, 0, _) => format!("The only number has no level yet: {needed}."),
        (all, 0, _) => format!("None of {all} numbers has a level yet: {needed}."),
        (all, judged, 0) if judged == all => "Every number lies within its noise.".to_owned(),
        (all, _, 0) => format!(
            "Every number that has a level lies within its noise; {without} of {all} numbers have no level yet: {needed}."
        ),
        (all, ..) if without > 0 => {
            format!("{without} of {all} numbers have no level yet: {needed}.")
        }
        _ => String::new(),
    }
}

/// A table of numbers that moved, as many as asked for, and what is to be said of the others.
pub(crate) fn moves_table(of: &Index, moves: &Moves, most: usize, root: &str) -> Markup {
    let others = others(moves);
    html! {
        @if !moves.moves.is_empty() { (table(of, &moves.moves, most, root)) }
        @if !others.is_empty() {
            p.quiet { (others) }
        }
    }
}

fn table(of: &Index, moves: &[Outlier], most: usize, root: &str) -> Markup {
    let environment = |one: &Outlier| of.site.series[one.series].environment;
    let shown = &moves[..moves.len().min(most)];
    let several = shown.iter().any(|one| environment(one) != environment(&shown[0]));
    scrolling(
        "Numbers that left their noise",
        &html! {
            table {
                thead {
                    tr {
                        th scope="col" { "series" }
                        th scope="col" { "kernel" }
                        th scope="col" { "lately" }
                        th.number scope="col" { "before" }
                        th.number scope="col" { "now" }
                        th.number scope="col" { "change" }
                    }
                }
                tbody {
                    @for one in shown {
                        @let series = &of.site.series[one.series];
                        @let level = before(of, one.series, one.at)
                            .map_or(f64::NAN, |part| part.level);
                        @let value = series.points[one.at].value;
                        @let recent: Vec<f64> = series
                            .points[(one.at + 1).saturating_sub(RECENT)..=one.at]
                            .iter()
                            .map(|point| point.value)
                            .collect();
                        tr {
                            td {
                                a href={ (root) (of.series_path(one.series)) } {
                                    strong { (Safe(&series.metric)) }
                                }
                                " "
                                span.muted { (Safe(&series.case)) " " (Safe(&series.variant)) }
                                @if several {
                                    br;
                                    small.muted { (Safe(of.environment(series.environment))) }
                                }
                            }
                            td { (Safe(&series.kernel)) }
                            td { (spark(&recent)) }
                            td.number { (quantity(level, &series.unit)) }
                            td.number { (quantity(value, &series.unit)) }
                            td.number {
                                ({
                                    changed(
                                        way(series.better, level, value),
                                        &change(level, value),
                                    )
                                })
                            }
                        }
                    }
                }
            }
        },
    )
}
