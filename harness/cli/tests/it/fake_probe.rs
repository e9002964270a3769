//! A program that the rig takes for a probe, and that behaves as a script says: this very test
//! binary under another name, `fake-probe-SCRIPT`. It serves no device: the fake QEMU wants none.

pub(crate) mod relay;

use std::{
    io::{BufRead, Write},
    os::unix::net::UnixListener,
    process::ExitCode,
};

use clap::ValueEnum;
use dmarig_model::probe::{ProbeCounts, Reply, Request, Stale, Tables};

use crate::fake_qemu::{file_name, of_this_process};

/// What it says on standard error before it ends.
pub(crate) const LAST_WORDS: &str = "fake-probe: the shadow is gone";

const PREFIX: &str = "fake-probe-";

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProbeScript {
    /// Answers as a probe does whose guest behaves.
    Serves,
    /// Dies before it has made its socket.
    Dies,
    /// Dies while the workload runs.
    DiesInWorkload,
    /// Says nothing more once counting has begun.
    Stalls,
    /// Says what is no answer.
    Babbles,
    /// Says that its device has lost its QEMU when it is asked what it has counted.
    LosesItsClient,
    /// Says so when it happens, and answers all the same.
    LosesItsClientMeanwhile,
    /// Can no longer tell what it has counted.
    Hangs,
    /// Has seen a corrupt sector and a buffer that was never unmapped.
    SeesWrong,
}

impl ProbeScript {
    /// The name of a probe that plays it.
    pub(crate) fn file_name(self) -> String {
        file_name(PREFIX, &self)
    }

    /// The script that this process is to play, if it is none of the tests.
    pub(crate) fn of_this_process() -> Option<Self> {
        of_this_process(PREFIX)
    }
}

/// Plays a script to its end.
pub(crate) fn play(script: ProbeScript) -> ExitCode {
    eprintln!("{LAST_WORDS}");
    if script == ProbeScript::Dies {
        return ExitCode::FAILURE;
    }
    let path = std::env::args_os().nth(2).expect("a socket is named");
    let _listener = UnixListener::bind(path).expect("the socket can be made");
    say(&Reply::Listening);
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("the rig writes text");
        match serde_json::from_str(&line).expect("the rig writes requests") {
            Request::Quit => {
                say(&Reply::Bye);
                break;
            }
            Request::Begin => {
                say(&Reply::Begun);
                match script {
                    ProbeScript::LosesItsClientMeanwhile => {
                        say(&Reply::Lost { what: "QEMU has closed the device's socket".into() });
                    }
                    ProbeScript::DiesInWorkload => return ExitCode::FAILURE,
                    ProbeScript::Stalls => loop {
                        std::thread::park();
                    },
                    _ => {}
                }
            }
            Request::End => end(script),
            // A machine that translates nothing has no tables.
            Request::Compare { .. } => {
                say(&Reply::Compared { tables: Tables::PassThrough, coherence: None });
            }
            Request::Shadow | Request::Attack { .. } => say(&Reply::Failed { what: "no".into() }),
        }
    }
    ExitCode::SUCCESS
}

fn end(script: ProbeScript) {
    let mut counts = ProbeCounts { stale: Some(Stale::default()), ..ProbeCounts::default() };
    match script {
        ProbeScript::Babbles => return println!("{{\"is\":\"anything\"}}"),
        ProbeScript::Hangs => {
            return say(&Reply::Failed { what: "the controller takes no turn".into() });
        }
        ProbeScript::LosesItsClient => {
            return say(&Reply::Failed { what: "QEMU has closed the device's socket".into() });
        }
        ProbeScript::SeesWrong => {
            counts.corrupt = 1;
            counts.stale = Some(Stale { never: 1, ..Stale::default() });
        }
        _ => {}
    }
    say(&Reply::Counted { counts: Box::new(counts) });
}

fn say(reply: &Reply) {
    let mut line = serde_json::to_string(reply).expect("a reply is JSON");
    line.push('\n');
    let mut stdout = std::io::stdout().lock();
    // The rig may have gone.
    let _ = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
}
