//! The kernel's console, for what can't be told the rig and for runs without one.

use std::{fs::OpenOptions, io::Write};

/// Writes a problem on the console, marked as the agent's.
pub(crate) fn say(text: &str) {
    print(&format!("dmarig-agent: {text}"));
}

/// Writes lines on the console. Where that fails there is nobody left to tell.
pub(crate) fn print(text: &str) {
    // One write for all, so that the kernel's own lines don't land in the middle.
    let lines = format!("{}\n", text.trim_end());
    let console = OpenOptions::new().write(true).open("/dev/console");
    let _ = match console {
        Ok(mut console) => console.write_all(lines.as_bytes()),
        Err(_) => std::io::stderr().write_all(lines.as_bytes()),
    };
}
