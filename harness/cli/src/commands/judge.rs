//! `dmarig judge`

use clap::Args;
use dmarig_history::{Comparison, StoredRun};
use dmarig_model::{
    axes::Axis, case::Case, document::CellResult, judge::judge, matrix::Cell, plan::shell_line,
    text::shown,
};

use crate::{
    commands::run::{Output, Told, tell},
    exit::{Exit, Failure},
    interleave::judge_again,
    options::Places,
    scheduler::{Ended, compare},
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
        let runs = super::runs(&self.places)?;
        let run = StoredRun::load(&self.run, &runs).map_err(Failure::usage)?;
        if run.torn {
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
        let (compares, going_on) = (run.compares(), run.going_on);
        let found = StoredRun::find(&self.run, &runs).map_err(Failure::usage)?;
        let compared = Comparison::read(&found).map_err(Failure::usage)?;
        let early = run.ended_early();
        let mut ended = Vec::new();
        for record in run.cells {
            let observation = record.observation;
            let case = cases.iter().find(|case| case.name == observation.case);
            let case = case.ok_or_else(|| {
                anyhow::anyhow!(
                    "the record has a cell of case {} and not that case",
                    observation.case
                )
            })?;
            let verdict = match compares {
                true => judge_again(case, &observation),
                false => judge(case, &observation),
            };
            let cell = Cell {
                id: observation.cell.clone(),
                case: observation.case.clone(),
                axes: observation.axes.clone(),
                varied: Axis::ALL.into_iter().filter(|axis| case.axes.count(*axis) > 1).collect(),
            };
            let result = CellResult::new(&observation, &verdict);
            ended.push(Ended { cell, observation, verdict, result });
        }
        // Cells are recorded as they end; people compare them in the order of the matrix.
        ended.sort_by(|a, b| (&a.cell.case, &a.cell.axes).cmp(&(&b.cell.case, &b.cell.axes)));
        let sweeps = compare(&cases, &mut ended);
        let again = |cell: &Cell| format!("dmarig run {} --cell '{}'", cell.case, cell.id);
        let logs = |cell: &Cell| {
            runs.join(&run.meta.id)
                .join("cells")
                .join(cell.id.replace('/', "_"))
                .display()
                .to_string()
        };
        // What it stood beside of earlier runs is told in its record.
        let told =
            Told { ended: &ended, sweeps: &sweeps, compared: compared.as_slice(), standing: None };
        tell(&self.output, &run.meta.id, &told, &again, &logs)?;
        let exit = told.exit();
        let early = match early {
            None if compares && compared.is_none() && !going_on => {
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
