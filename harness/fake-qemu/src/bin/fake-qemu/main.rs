//! Speaks as QEMU does, and behaves as the script that its file name names.

mod agent;
mod guest;
mod monitor;

use std::{io::Write, os::unix::net::UnixStream, process::ExitCode};

use dmarig_fake_qemu::{NOTIFY, QEMU_LAST_WORDS, QemuScript, Role};

fn main() -> ExitCode {
    let script = QemuScript::of_this_process();
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.windows(2).any(|pair| pair == ["-M", "none"]) {
        return monitor::inspected(script);
    }
    match script {
        QemuScript::AsItsKernel => guest::play(script_of_kernel(&arguments), &arguments),
        _ => guest::play(script, &arguments),
    }
}

/// The script that the kernel on the command line names.
fn script_of_kernel(arguments: &[String]) -> QemuScript {
    let at = arguments.iter().position(|argument| argument == "-kernel").expect("a kernel");
    let image = std::fs::read(&arguments[at + 1]).expect("a kernel that can be read");
    QemuScript::named_in_kernel(&image).expect("a kernel that names a script")
}

/// Hangs for ever, and notifies the test that waits for it.
fn hang() -> ! {
    let notified = std::env::var_os(NOTIFY).and_then(|path| {
        let mut socket = UnixStream::connect(path).ok()?;
        socket.write_all(b"hanging\n").ok()?;
        // Kept open: it closes when this process dies.
        Some(socket)
    });
    loop {
        std::thread::park();
        std::hint::black_box(&notified);
    }
}

fn die() -> ! {
    eprintln!("{QEMU_LAST_WORDS}");
    std::process::exit(1)
}
