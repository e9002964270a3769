//! What a history holds, for people and for programs.

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use dmarig_history::{CellEntry, History, HistoryError, RunRow, SeriesFilter, SeriesRow};
use dmarig_model::text::shown;
use dmarig_records::utc;
use dmarig_report::{kernel_name, number::quantity};
use serde_json::json;

use crate::{
    exit::{Exit, Failure},
    output::print,
};

#[derive(Debug, Args)]
pub(super) struct List {
    /// How many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    count: u32,
    /// All of them
    #[arg(long, conflicts_with = "count")]
    all: bool,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// Which series are told.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Only of this case
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
    /// Only of this kernel
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Only of this metric
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// Only ratios to the reference kernel
    #[arg(long)]
    ratios: bool,
}

impl Which {
    pub(super) fn filter(self) -> SeriesFilter {
        let Self { case, kernel, metric, ratios } = self;
        let ratios = ratios.then_some(true);
        SeriesFilter { case, kernel, metric, ratios, ..SeriesFilter::default() }
    }
}

#[derive(Debug, Args)]
pub(super) struct Series {
    #[command(flatten)]
    which: Which,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// A run's id, `last`, or a series' id as `dmarig history series` shows it
    #[arg(value_name = "RUN|SERIES", default_value = "last")]
    name: String,
    /// One JSON document; of a series with all samples
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) fn execute(self, history: &History) -> Result<Exit, Failure> {
        let runs = history.runs((!self.all).then_some(self.count))?;
        let info = history.summary()?;
        if self.json {
            return print_json(&json!({ "history": info, "runs": runs }));
        }
        let mut table = table(["run", "started", "cells", "", "reference"]);
        for run in &runs {
            table.add_row([
                shown(&run.id),
                utc(run.started),
                run.outcomes.values().sum::<u64>().to_string(),
                outcomes(run),
                run.reference.as_deref().map_or("-".to_owned(), shown),
            ]);
        }
        right(&mut table, 2);
        let mut text = rendered(&table);
        text.push_str(&format!(
            "\n{} of {} runs; {} series, {} samples: {}\n",
            runs.len(),
            info.runs,
            info.series,
            info.samples,
            history.path().display()
        ));
        if info.synthetic > 0 {
            text.push_str(&format!("{} of the runs were MADE UP, not measured\n", info.synthetic));
        }
        print(&text)?;
        Ok(Exit::Passed)
    }
}

impl Series {
    pub(super) fn execute(self, history: &History) -> Result<Exit, Failure> {
        let all = history.series(&self.which.filter())?;
        if self.json {
            return print_json(&json!({ "history": history.summary()?, "series": all }));
        }
        let mut table = table(["series", "of", "environment", "points", "last"]);
        for SeriesRow { id, key, points, last } in &all {
            table.add_row([
                id.clone(),
                shown(&key.to_string()),
                key.environment.clone(),
                points.to_string(),
                utc(*last),
            ]);
        }
        right(&mut table, 3);
        print(&(rendered(&table) + &made_up(history)?))?;
        Ok(Exit::Passed)
    }
}

impl Show {
    pub(super) fn execute(self, history: &History) -> Result<Exit, Failure> {
        let run = match self.name.as_str() {
            "last" => match history.runs(Some(1))?.pop() {
                Some(run) => Some(run),
                None => {
                    return Err(Failure::usage(anyhow::anyhow!(
                        "the history {} is empty: `dmarig history add` puts runs in",
                        history.path().display()
                    )));
                }
            },
            name => match history.run(name) {
                Err(HistoryError::Unknown { .. }) => None,
                run => Some(run?),
            },
        };
        match run {
            Some(run) => self.run(history, &run),
            None => self.series(history),
        }
    }

    fn run(&self, history: &History, run: &RunRow) -> Result<Exit, Failure> {
        let cells = history.cells(&run.id)?;
        if self.json {
            let numbers: Vec<_> = history
                .numbers(&run.id)?
                .into_iter()
                .map(|(key, value)| json!({ "series": key.id(), "key": key, "value": value }))
                .collect();
            return print_json(&json!({ "run": run, "cells": cells, "numbers": numbers }));
        }
        let mut text = format!("run {}, {} UTC\n", shown(&run.id), utc(run.started));
        let told = [
            ("command", run.command.join(" ")),
            ("dmarig", run.dmarig.clone()),
            ("rules", run.rules.clone()),
            ("reference", run.reference.clone().unwrap_or_default()),
        ];
        for (what, value) in told.iter().filter(|(_, value)| !value.is_empty()) {
            text.push_str(&format!("{what}: {}\n", shown(value)));
        }
        let mut environments: Vec<_> = cells.iter().map(|cell| &cell.environment).collect();
        environments.sort();
        environments.dedup();
        for environment in environments {
            let parts = environment.parts().into_iter().filter(|(_, value)| !value.is_empty());
            let parts: Vec<String> = parts.map(|(what, value)| format!("{what} {value}")).collect();
            let told = format!("{}: {}", environment.fingerprint(), parts.join(", "));
            text.push_str(&format!("environment {}\n", shown(&told)));
        }
        text.push('\n');
        let mut table = table(["cell", "", "kernel", "why"]);
        for CellEntry { id, outcome, build, release, reasons, .. } in &cells {
            let kernel =
                kernel_name(release.as_deref(), &build.short()).unwrap_or_else(|| "-".into());
            let why = reasons.first().map_or_else(String::new, |reason| shown(reason));
            table.add_row([shown(id), outcome.name().to_owned(), kernel, why]);
        }
        text.push_str(&rendered(&table));
        text.push_str(&format!("\n{}\n", outcomes(run)));
        print(&(text + &made_up(history)?))?;
        Ok(Exit::Passed)
    }

    fn series(&self, history: &History) -> Result<Exit, Failure> {
        let series = history.series_by_id(&self.name).map_err(|error| match error {
            HistoryError::Unknown { .. } => Failure::usage(anyhow::anyhow!(
                "there is neither a run nor a series `{}` in {}: `dmarig history list` and `dmarig history \
                 series` show what there is",
                shown(&self.name),
                history.path().display()
            )),
            error => error.into(),
        })?;
        let points = history.points(&series.id)?;
        if self.json {
            let samples = history.samples(&series.id)?.into_iter();
            let samples: Vec<_> =
                samples.map(|(run, sample)| json!({ "run": run, "sample": sample })).collect();
            return print_json(&json!({ "series": series, "points": points, "samples": samples }));
        }
        let mut table = table(["run", "started", "kernel", "value"]);
        for point in &points {
            let kernel = kernel_name(point.release.as_deref(), &point.build.short());
            table.add_row([
                shown(&point.run),
                utc(point.started),
                kernel.unwrap_or_else(|| "-".into()),
                quantity(point.value, series.key.value_unit()),
            ]);
        }
        right(&mut table, 3);
        let head = format!("{}\nin {}\n\n", shown(&series.key.to_string()), series.key.environment);
        print(&(head + &rendered(&table) + &made_up(history)?))?;
        Ok(Exit::Passed)
    }
}

/// A line below every table of what was never measured.
pub(in crate::commands) fn made_up(history: &History) -> Result<String, Failure> {
    Ok(match history.is_synthetic()? {
        true => "\nMADE UP: there are synthetic runs in this history\n".to_owned(),
        false => String::new(),
    })
}

/// How a run's cells ended, and whether some never ran.
fn outcomes(run: &RunRow) -> String {
    let cells = run.outcomes.iter().map(|(outcome, count)| format!("{count} {}", outcome.name()));
    let cells = cells.collect::<Vec<_>>().join(", ");
    match run.ended_early {
        None => cells,
        Some(early) if cells.is_empty() => early.to_string(),
        Some(early) => format!("{cells}; {early}"),
    }
}

pub(in crate::commands) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

fn right(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

pub(in crate::commands) fn rendered(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

pub(in crate::commands) fn print_json(value: &serde_json::Value) -> Result<Exit, Failure> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))?;
    Ok(Exit::Passed)
}
