//! `dmarig judge`

use clap::Args;
use dmarig_model::{
    axes::Axis, case::Case, document::CellResult, judge::judge, matrix::Cell, plan::shell_line,
    text::shown,
};
use dmarig_records::{Comparison, RecordFile, StoredRun, judge_boot};
use dmarig_report::RunView;
use dmarig_runner::{FinishedCell, judge_across, sweeps_of};

use crate::{
    commands::run::{Output, cell_name, cell_view, logs, print_report},
    exit::{Exit, Failure},
    options::Places,
};

#[derive(Debug, Args)]
pub(crate) struct Judge {
    #[command(flatten)]
    places: Places,
    /// The run: its id, its directory, or `last`
    #[arg(value_name = "RUN", default_value = "last")]
    run: String,
    /// Judge by this case file instead of the recorded one of the same name (may be repeated)
    #[arg(long = "case", value_name = "FILE")]
    cases: Vec<std::path::PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Judge {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        let runs = self.places.runs()?;
        let run = StoredRun::load(&self.run, &runs).map_err(Failure::usage)?;
        if run.truncated {
            errln!("dmarig: the record's last line was cut short: that cell is left out");
        }
        let mut cases = Vec::new();
        for path in &self.cases {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Failure::usage(anyhow::anyhow!("can't read {}: {error}", path.display()))
            })?;
            cases.push(Case::parse(&path.display().to_string(), &text).map_err(Failure::usage)?);
        }
        for recorded in &run.meta.cases {
            let case = Case::parse(&recorded.file, &recorded.text).map_err(Failure::usage)?;
            if cases.iter().all(|known: &Case| known.name != case.name) {
                cases.push(case);
            }
        }
        let (compares, going_on) = (run.is_comparison(), run.running);
        let found = StoredRun::find(&self.run, &runs).map_err(Failure::usage)?;
        let compared = Comparison::read(&found).map_err(Failure::usage)?;
        let early = run.ended_early();
        let mut cells = Vec::new();
        for record in run.cells {
            let boot = record.boot;
            let planned = record.planned_windows;
            let observation = record.observation;
            let case = cases.iter().find(|case| case.name == observation.case);
            let case = case.ok_or_else(|| {
                anyhow::anyhow!(
                    "the record has a cell of case {} and not that case",
                    observation.case
                )
            })?;
            let verdict = match boot {
                Some(_) => judge_boot(case, planned.as_deref(), &observation),
                None => judge(case, &observation),
            };
            let cell = Cell {
                id: observation.cell.clone(),
                case: observation.case.clone(),
                axes: observation.axes.clone(),
                varied: Axis::ALL.into_iter().filter(|axis| case.axes.count(*axis) > 1).collect(),
            };
            let result = CellResult::new(&observation, &verdict);
            cells.push(FinishedCell { cell, observation, verdict, result });
        }
        // Cells are recorded as they end; people compare them in the order of the matrix.
        cells.sort_by(|a, b| (&a.cell.case, &a.cell.axes).cmp(&(&b.cell.case, &b.cell.axes)));
        judge_across(&cases, &mut cells);
        let sweeps = sweeps_of(&cases, &cells);
        let rerun = |cell: &Cell| run.meta.rerun_command(&cell_name(cell));
        let logs = |cell: &Cell| logs(&found, cell);
        // The judgement by earlier runs is in the record.
        let is_compared = compared.is_some();
        let view = RunView {
            id: run.meta.id.clone(),
            dmarig: run.meta.dmarig.clone(),
            cells: cells.into_iter().map(cell_view).collect(),
            sweeps,
            comparisons: compared.into_iter().collect(),
            standing: None,
        };
        print_report(&self.output, &view, &rerun, &logs)?;
        let exit = Exit::of(view.outcomes());
        let early = match early {
            None if compares && !is_compared && !going_on => {
                "ended before all was compared".to_owned()
            }
            None => return Ok(exit),
            Some(early) => early.to_string(),
        };
        let again = shown(&shell_line(run.meta.command.iter()));
        errln!("dmarig: the run {early}; to run it again: {again}");
        // As if the cells that are missing had errored.
        Ok(if exit == Exit::Failed { exit } else { Exit::Errored })
    }
}
