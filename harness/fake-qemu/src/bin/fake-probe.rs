//! Answers the rig as a probe does, and behaves as the script that its file name names.

use std::{
    io::{BufRead, Write},
    os::unix::net::UnixListener,
    process::ExitCode,
};

use dmarig_fake_qemu::{PROBE_LAST_WORDS, ProbeScript, Role};
use dmarig_model::probe::{ProbeCounts, Reply, Request, Stale, Tables};

fn main() -> ExitCode {
    let script = ProbeScript::of_this_process();
    eprintln!("{PROBE_LAST_WORDS}");
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
