//! Runs one guest from its launch to its end.

use std::time::Duration;

use dmarig_model::observation::{End, Observation};
use tokio::sync::watch;

use crate::{
    console::LastLine,
    launch::{Launch, Stage},
    session::Session,
    vitals::PhaseClock,
};

/// Interval at which a new last line of the console is reported.
const CONSOLE_REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Runs one guest to its end and reports its stages to `progress`.
///
/// The observation has everything that happened, errors included. Processes and directories of the
/// guest are gone afterwards, also if the future is dropped.
pub async fn run(
    launch: &Launch<'_>,
    interrupt: watch::Receiver<bool>,
    progress: &dyn Fn(Stage),
) -> Observation {
    let (cell, case, setup) = (launch.cell, launch.case, launch.setup.clone());
    let mut observation = Observation::unseen(cell, case, launch.axes, setup, End::Completed);
    let mut clock = PhaseClock::start(launch.planned_in);
    progress(Stage::Starting);
    let end = match Session::start(launch, interrupt).await {
        Ok(mut session) => {
            clock.lap("spawn");
            let last_line = session.last_line();
            let driven = tokio::select! {
                driven = session.drive(launch, &mut observation, &mut clock, progress) => driven,
                never = report_console_lines(&last_line, progress) => never,
            };
            progress(Stage::Ending);
            let end = session.finish(launch, &mut observation, driven).await;
            clock.lap("teardown");
            end
        }
        Err(end) => end,
    };
    observation.end = end;
    observation.phases = clock.into_phases();
    observation
}

/// Reports each new last line of the console, for ever: a guest within a guest takes minutes to boot.
async fn report_console_lines<T>(console: &LastLine, progress: &dyn Fn(Stage)) -> T {
    let mut reported = String::new();
    loop {
        tokio::time::sleep(CONSOLE_REPORT_INTERVAL).await;
        let line = console.get();
        if line != reported {
            progress(Stage::ConsoleLine(line.clone()));
            reported = line;
        }
    }
}
