//! The kernel's console, for errors without a rig to report to, and for runs without a rig.

use std::{fs::OpenOptions, io::Write};

/// Writes a problem of the agent on the console.
pub(crate) fn print_problem(text: &str) {
    print(&format!("dmarig-agent: {text}"));
}

/// Writes lines on the console. An error can't be reported anywhere.
pub(crate) fn print(text: &str) {
    // One write for all, so that the kernel's own lines don't land in the middle.
    let lines = format!("{}\n", text.trim_end());
    let console = OpenOptions::new().write(true).open("/dev/console");
    let _ = match console {
        Ok(mut console) => console.write_all(lines.as_bytes()),
        Err(_) => std::io::stderr().write_all(lines.as_bytes()),
    };
}
