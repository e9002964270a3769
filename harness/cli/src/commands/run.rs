//! `dmarig run`

mod baseline;
mod history;

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use dmarig_history::{CaseText, Comparison, RECORD_SCHEMA, Recorder, RunMeta, Standing};
use dmarig_model::{
    document::{DOCUMENT_SCHEMA, Document},
    matrix::Cell,
    observation::Outcome,
    plan::shell_line,
    sweep::Sweep,
};
use dmarig_report::Footing;
use dmarig_stats::paired::Judgement;
use tokio::sync::watch;

use crate::{
    cases::{Selected, check_kernel, check_kernels, open_cache, select},
    exit::{Exit, Failure},
    hearing::Hearing,
    host,
    host_device::HostDevice,
    options::{HistoryFile, Places, Selection},
    output::{Screen, print},
    report::{Events, Lines, Live},
    scheduler::Ended,
    work::{Done, Work, memory_mib},
};

use self::{baseline::Against, history::Before};

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    against: Against,
    #[command(flatten)]
    history: HistoryFile,
    #[command(flatten)]
    output: Output,
    /// Guests at once [default: by cores and free memory]
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Tell each stage of a guest in a line, where no terminal is
    #[arg(long, hide = true)]
    stages: bool,
}

/// How results are told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Output {
    /// What to print on standard output
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Also write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people
    Table,
    /// One JSON document (`dmarig schema result`)
    Json,
}

impl Run {
    pub(crate) fn execute(self, words: Vec<String>) -> Result<Exit, Failure> {
        let cache = open_cache(&self.places)?;
        let selected = select(&self.selection, &cache)?;
        check_kernels(&selected, &cache)?;
        if let Some(reference) = &self.selection.reference {
            check_kernel("--reference", reference, &cache)?;
        }
        self.against.check(&self.selection, &selected, &cache)?;
        let before = Before::open(&self.history, &selected)?;
        let runs = super::runs(&self.places)?;
        for left in dmarig_rig::workdir::sweep() {
            tracing::info!("removed {}, which a killed run had left", left.display());
        }
        // Where it is dropped, every guest is killed and its directory removed.
        let mut hearing = Hearing::new()?;
        let interrupted = hearing.interrupted();
        let run = self.run(&cache, &selected, before, words, &runs, interrupted);
        hearing.run(run).unwrap_or(Ok(Exit::Interrupted))
    }

    async fn run(
        &self,
        cache: &dmarig_images::Cache,
        selected: &Selected,
        before: Option<Before>,
        words: Vec<String>,
        runs: &Path,
        interrupted: watch::Receiver<bool>,
    ) -> Result<Exit, Failure> {
        let mut meta = meta(selected, words.clone());
        meta.reference.clone_from(&self.selection.reference);
        let mut recorder = Recorder::create(runs, &mut meta)?;
        let live = std::io::stderr().is_terminal().then(|| Live::new(selected.cells.len()));
        let lines = Lines::new(self.stages);
        let events: &dyn Events = live.as_ref().map_or(&lines, |live| live);
        let say = |text: &str| events.say(text);
        let memory = u64::from(memory_mib(selected)) << 20;
        // Before the guests in this function, so that it is given back after they have ended.
        let device = self.selection.device.take(memory, runs, &say)?;
        let work = Work {
            cache,
            selection: &self.selection,
            selected,
            device: device.as_ref(),
            jobs: self.jobs.map(usize::from),
            interrupted: &interrupted,
            events,
            say: &say,
        };
        let Done { ended, sweeps } = work.run(&mut recorder).await;
        // What was seen is told first, whatever becomes of the device.
        let restored = device.map_or(Ok(()), HostDevice::restore);
        if let Some(live) = &live {
            live.clear();
        }
        let standing =
            before.map(|before| before.judge(recorder.directory(), selected, &self.against));
        let compared =
            self.against.run(cache, &self.selection, selected, &words, runs, &interrupted).await?;
        let again = |cell: &Cell| again(&self.selection, selected, cell);
        let logs = |cell: &Cell| {
            let directory = recorder.directory().join("cells").join(cell.id.replace('/', "_"));
            directory.display().to_string()
        };
        let standing = standing.transpose();
        let found = standing.as_ref().map_or(None, Option::as_ref);
        let told = Told { ended: &ended, sweeps: &sweeps, compared: &compared, standing: found };
        tell(&self.output, &meta.id, &told, &again, &logs)?;
        for sweep in &sweeps {
            picture(sweep, recorder.directory())?;
        }
        errln!("record: {}", recorder.directory().display());
        restored?;
        let exit = told.exit();
        standing?;
        let interrupted = *interrupted.borrow();
        Ok(if interrupted { Exit::Interrupted } else { exit })
    }
}

/// What came of a run.
pub(crate) struct Told<'a> {
    pub(crate) ended: &'a [Ended],
    pub(crate) sweeps: &'a [Sweep],
    /// Its kernels beside its baseline.
    pub(crate) compared: &'a [Comparison],
    /// Its numbers beside those of earlier runs.
    pub(crate) standing: Option<&'a Standing>,
}

impl Told<'_> {
    /// How a run ends of which this came. What was not compared, or is inconclusive, is no failure.
    pub(crate) fn exit(&self) -> Exit {
        let cells = self.ended.iter().map(|ended| ended.result.outcome);
        let compared = self.compared.iter().map(Comparison::outcome);
        let judged = self.standing.and_then(Standing::judgement);
        let worse = (judged == Some(Judgement::Fail)).then_some(Outcome::Failed);
        Exit::of(cells.chain(compared).chain(worse))
    }
}

/// Prints the results, and writes them as JUnit where that is asked for.
pub(crate) fn tell(
    output: &Output,
    run: &str,
    told: &Told<'_>,
    again: &dyn Fn(&Cell) -> String,
    logs: &dyn Fn(&Cell) -> String,
) -> Result<(), Failure> {
    let Told { ended, sweeps, compared, standing } = *told;
    let cells: Vec<_> = ended.iter().map(|ended| (&ended.cell, &ended.result)).collect();
    let text = match output.format {
        Format::Json => {
            let results = ended.iter().map(|ended| ended.result.clone()).collect();
            let comparisons = compared.iter().map(dmarig_report::comparison_json);
            let document = Document {
                schema: DOCUMENT_SCHEMA,
                run: run.to_owned(),
                cells: results,
                comparisons: comparisons.collect::<Result<_, _>>()?,
                history: standing.map(serde_json::to_value).transpose()?,
            };
            serde_json::to_string_pretty(&document)? + "\n"
        }
        Format::Table => {
            let Screen { width, colour } = Screen::new(80);
            let sweeps: String = sweeps.iter().map(dmarig_report::sweep_lines).collect();
            let mut text = dmarig_report::table(
                &cells,
                &Footing { width, colour, again, logs, sweeps: &sweeps },
            );
            for one in compared {
                text += &dmarig_report::comparison_table(one, width, colour);
            }
            if let Some(standing) = standing {
                text += &dmarig_report::standing_table(standing, width, colour);
            }
            text
        }
    };
    print(&text)?;
    if let Some(path) = &output.junit {
        let xml = dmarig_report::junit(&cells, compared, standing)?;
        std::fs::write(path, xml).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

/// Draws a sweep into the run's directory.
fn picture(sweep: &Sweep, directory: &Path) -> Result<(), Failure> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "=.-".contains(c) { c } else { '_' };
    let name: String = format!("sweep-{}-{}", sweep.case, sweep.label).chars().map(plain).collect();
    let path = directory.join(format!("{name}.svg"));
    std::fs::write(&path, dmarig_report::sweep_picture(sweep)?)
        .with_context(|| format!("can't write {}", path.display()))?;
    errln!("picture: {}", path.display());
    Ok(())
}

pub(crate) fn meta(selected: &Selected, command: Vec<String>) -> RunMeta {
    RunMeta {
        schema: RECORD_SCHEMA,
        id: String::new(),
        started: 0,
        dmarig: env!("CARGO_PKG_VERSION").to_owned(),
        command,
        host: host::facts(),
        cases: selected
            .cases
            .iter()
            .map(|case| CaseText { file: case.file.clone(), text: case.text.clone() })
            .collect(),
        rules: dmarig_history::rules(),
        reference: None,
        planned: u32::try_from(selected.cells.len()).ok(),
    }
}

/// A case as its user names it: a built-in one has no file.
fn case_word(file: &str) -> &str {
    let built_in = |name: &&str| dmarig_testcases::case(name).is_some();
    file.strip_suffix(".yaml").filter(built_in).unwrap_or(file)
}

/// The command that runs one cell again as it was run.
fn again(selection: &Selection, selected: &Selected, cell: &Cell) -> String {
    let mut words = vec!["dmarig".to_owned(), "run".into()];
    words.push(case_word(&selected.case(cell).file).to_owned());
    let mut option = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
    option("--cell", &cell.id);
    if !selection.kernels.is_empty() || selection.reference.is_some() {
        option("--kernel", &cell.axes.kernel);
    }
    if !selection.qemus.is_empty() {
        option("--qemu", &cell.axes.qemu);
    }
    if selection.accelerator != dmarig_model::axes::Accelerator::Auto {
        option("--accel", selection.accelerator.name());
    }
    let sets: BTreeMap<&str, &str> =
        selection.sets.iter().filter_map(|set| set.split_once('=')).collect();
    for (axis, values) in sets {
        option("--set", &format!("{axis}={values}"));
    }
    words.extend(selection.device.words());
    let mut option = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
    if let Some(modules) = &selection.modules {
        option("--modules", &modules.display().to_string());
    }
    for word in &selection.append {
        option("--append", word);
    }
    for add in &selection.adds {
        option("--add", &add.display().to_string());
    }
    for name in &selection.load {
        option("--module", name);
    }
    if let Some(kernel) = &selection.outer_kernel {
        option("--outer-kernel", kernel);
    }
    if selection.stock_boot {
        words.push("--stock-boot".into());
    }
    shell_line(words.iter())
}
