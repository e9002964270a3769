//! Numbers that left their noise.

use maud::{Markup, html};

use crate::{
    chart::{spark, way},
    dashboard::Dashboard,
    noise::BAND,
    page::{changed, scrolling},
    text::{Safe, change, quantity},
};

/// Most rows of a list of numbers.
pub(crate) const MOST: usize = 40;
/// Points of a small picture.
const RECENT: usize = 60;

/// A number that left its noise.
pub(crate) struct Move {
    series: usize,
    at: usize,
    /// How far from the level that it had, in standard deviations.
    away: f64,
}

/// Points of these runs that lie outside the noise of those before them, the farthest first.
pub(crate) fn moves(of: &Dashboard, runs: &[usize]) -> Vec<Move> {
    let points = runs.iter().filter_map(|run| of.points.get(*run)).flatten();
    let mut moves: Vec<Move> = points
        .filter_map(|&(series, at)| {
            let away = away(of, series, at)?;
            (away.abs() > BAND).then_some(Move { series, at, away })
        })
        .collect();
    moves.sort_by(|a, b| b.away.abs().total_cmp(&a.away.abs()));
    moves
}

/// How far a point lies from the level that its series had before it, in standard deviations.
fn away(of: &Dashboard, series: usize, at: usize) -> Option<f64> {
    let points = &of.site.series[series].points;
    let before = at.checked_sub(1)?;
    let segment =
        of.segments[series].iter().find(|part| (part.start..part.end).contains(&before))?;
    if segment.end - segment.start < 4 {
        return None;
    }
    let away = points[at].value - segment.level;
    // Counts that repeat exactly have no noise: then any other value is far away.
    let sd = segment.sd.max(segment.level.abs() * 1e-3).max(f64::MIN_POSITIVE);
    (away.is_finite() && away != 0.0).then_some(away / sd)
}

/// A table of numbers that moved, as many as asked for.
pub(crate) fn moves_table(of: &Dashboard, moves: &[Move], most: usize, root: &str) -> Markup {
    if moves.is_empty() {
        return html! { p.quiet { "Every number lies within its noise." } };
    }
    table(of, moves, most, root)
}

fn table(of: &Dashboard, moves: &[Move], most: usize, root: &str) -> Markup {
    let environment = |one: &Move| of.site.series[one.series].environment;
    let shown = &moves[..moves.len().min(most)];
    let several = shown.iter().any(|one| environment(one) != environment(&shown[0]));
    scrolling(
        "Numbers that left their noise",
        &html! { table {
                thead { tr {
                    th scope="col" { "series" } th scope="col" { "kernel" } th scope="col" { "lately" }
                    th.number scope="col" { "before" } th.number scope="col" { "now" } th.number scope="col" { "change" }
                } }
                tbody { @for one in shown {
                    @let series = &of.site.series[one.series];
                    @let level = of.segments[one.series].iter().find(|part| (part.start..part.end).contains(&(one.at - 1))).map_or(f64::NAN, |part| part.level);
                    @let value = series.points[one.at].value;
                    @let recent: Vec<f64> = series.points[(one.at + 1).saturating_sub(RECENT)..=one.at].iter().map(|point| point.value).collect();
                    tr {
                        td { a href={ (root) (of.series_path(one.series)) } { strong { (Safe(&series.metric)) } } " "
                            span.muted { (Safe(&series.case)) " " (Safe(&series.variant)) }
                            @if several { br; small.muted { (Safe(of.environment(series.environment))) } } }
                        td { (Safe(&series.kernel)) }
                        td { (spark(&recent)) }
                        td.number { (quantity(level, &series.unit)) }
                        td.number { (quantity(value, &series.unit)) }
                        td.number { (changed(way(series.better, level, value), &change(level, value))) }
                    }
                } }
            }
        },
    )
}
