//! What is other than the night before: verdicts that turned, and numbers that left their noise.

use std::collections::BTreeMap;

use dmarig_model::observation::Outcome;
use maud::{Markup, html};

use crate::{
    chart::{spark, way},
    dashboard::{Dashboard, anchor},
    noise::BAND,
    page::{changed, outcome, scrolling},
    site::Cell,
    text::{Safe, change, many, quantity},
};

/// Most rows of a list of numbers.
const MOST: usize = 40;
/// Points of a small picture.
const RECENT: usize = 60;

/// A cell that ended otherwise than before.
pub(crate) struct Turn {
    pub(crate) cell: usize,
    pub(crate) run: usize,
    pub(crate) before: Option<Outcome>,
    pub(crate) after: Option<Outcome>,
}

/// A number that left its noise.
pub(crate) struct Move {
    pub(crate) series: usize,
    pub(crate) at: usize,
    /// How far from the level that it had, in standard deviations.
    pub(crate) away: f64,
}

/// Cells that ended otherwise in the second of two lots, the worst first; a cell that is in one of them
/// alone has no other end.
pub(crate) fn turns(
    before: &BTreeMap<usize, (usize, Outcome)>,
    after: &BTreeMap<usize, (usize, Outcome)>,
) -> Vec<Turn> {
    let mut turns: Vec<Turn> = after
        .iter()
        .filter_map(|(cell, (run, after))| {
            let before = before.get(cell).map(|(_, outcome)| *outcome);
            (before != Some(*after)).then_some(Turn {
                cell: *cell,
                run: *run,
                before,
                after: Some(*after),
            })
        })
        .collect();
    let gone = before.iter().filter(|(cell, _)| !after.contains_key(cell));
    turns.extend(gone.map(|(cell, (run, before))| Turn {
        cell: *cell,
        run: *run,
        before: Some(*before),
        after: None,
    }));
    let rank = |turn: &Turn| match (turn.before, turn.after) {
        (_, Some(Outcome::Failed | Outcome::TimedOut)) => 0,
        (_, Some(Outcome::Errored)) => 1,
        (Some(_), Some(_)) => 2,
        (None, _) => 3,
        (_, None) => 4,
    };
    turns.sort_by_key(|turn| (rank(turn), turn.cell));
    turns
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

/// A table of turned verdicts.
pub(crate) fn turns_table(of: &Dashboard, turns: &[Turn], root: &str) -> Markup {
    if turns.is_empty() {
        return html! { p.quiet { "No verdict turned." } };
    }
    let unknown = Cell::default();
    let cell = |turn: &Turn| of.site.cells.get(turn.cell).unwrap_or(&unknown).clone();
    let told =
        |of: Option<Outcome>| of.map_or_else(|| html! { span.muted { "not there" } }, outcome);
    scrolling(
        "Verdicts that turned",
        &html! { table {
            thead { tr { th scope="col" { "cell" } th scope="col" { "kernel" } th scope="col" { "before" } th scope="col" { "now" } } }
            tbody { @for turn in turns.iter().take(MOST) {
                @let cell = cell(turn);
                tr {
                    td { a href={ (root) (of.run_path(turn.run)) "#" (anchor(turn.cell, &cell.id)) } { strong { (Safe(&cell.case)) } " " (Safe(&cell.variant)) } }
                    td { (Safe(&cell.kernel)) }
                    td { (told(turn.before)) }
                    td { (told(turn.after)) }
                }
            } }
        }
        @if turns.len() > MOST { p.muted { "and " (many(turns.len() - MOST, "cell")) " more" } } },
    )
}

/// A table of numbers that moved.
pub(crate) fn moves_table(of: &Dashboard, moves: &[Move], root: &str) -> Markup {
    if moves.is_empty() {
        return html! { p.quiet { "Every number lies within its noise." } };
    }
    scrolling(
        "Numbers that left their noise",
        &html! { table {
            thead { tr {
                th scope="col" { "series" } th scope="col" { "kernel" } th scope="col" { "lately" }
                th.number scope="col" { "before" } th.number scope="col" { "now" } th.number scope="col" { "change" }
            } }
            tbody { @for one in moves.iter().take(MOST) {
                @let series = &of.site.series[one.series];
                @let level = of.segments[one.series].iter().find(|part| (part.start..part.end).contains(&(one.at - 1))).map_or(f64::NAN, |part| part.level);
                @let value = series.points[one.at].value;
                @let recent: Vec<f64> = series.points[(one.at + 1).saturating_sub(RECENT)..=one.at].iter().map(|point| point.value).collect();
                tr {
                    td { a href={ (root) (of.series_path(one.series)) } { strong { (Safe(&series.metric)) } } " "
                        span.muted { (Safe(&series.case)) " " (Safe(&series.variant)) } }
                    td { (Safe(&series.kernel)) }
                    td { (spark(&recent)) }
                    td.number { (quantity(level, &series.unit)) }
                    td.number { (quantity(value, &series.unit)) }
                    td.number { (changed(way(series.better, level, value), &change(level, value))) }
                }
            } }
        }
        @if moves.len() > MOST { p.muted { "and " (many(moves.len() - MOST, "number")) " more" } } },
    )
}
