//! `dmarig history list`, `series` and `show`

use clap::Args;
use dmarig_history::{History, HistoryError, RunRow, SeriesFilter};
use dmarig_model::text::shown;
use dmarig_report::{points_table, run_table, runs_table, series_table};
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

/// Filters of series.
#[derive(Debug, Args)]
pub(super) struct SeriesOptions {
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

impl SeriesOptions {
    pub(super) fn filter(self) -> SeriesFilter {
        let Self { case, kernel, metric, ratios } = self;
        let ratios = ratios.then_some(true);
        SeriesFilter { case, kernel, metric, ratios, ..SeriesFilter::default() }
    }
}

#[derive(Debug, Args)]
pub(super) struct Series {
    #[command(flatten)]
    which: SeriesOptions,
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
        let text = runs_table(&runs, &info, history.path());
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
        print(&(series_table(&all) + &made_up(history)?))?;
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
        print(&(run_table(run, &cells) + &made_up(history)?))?;
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
        print(&(points_table(&series, &points) + &made_up(history)?))?;
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

pub(in crate::commands) fn print_json(value: &serde_json::Value) -> Result<Exit, Failure> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))?;
    Ok(Exit::Passed)
}
