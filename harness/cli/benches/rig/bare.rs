//! A QEMU without the rig: the same machine, booted to power-off.

use std::{
    fs::File,
    process::{Command, Stdio},
    time::Instant,
};

use serde_json::Value;

/// A command that boots a guest to power-off.
pub(crate) struct Bare {
    words: Vec<String>,
    directory: tempfile::TempDir,
}

impl Bare {
    /// The machine of an observed cell, without the rig's channels; its init powers off at once.
    pub(crate) fn like(observation: &Value, append: &str) -> Self {
        let argv = observation["setup"]["argv"].as_array().expect("arguments");
        let argv = argv.iter().map(|word| word.as_str().expect("a word").to_owned());
        // The channels come last, from the first character device on.
        let mut words: Vec<String> = argv.take_while(|word| word != "-chardev").collect();
        let cmdline = words.last_mut().expect("the kernel's command line");
        cmdline.push_str(" dmarig.poweroff");
        cmdline.push_str(append);
        words.extend(["-serial", "file:console.log", "-serial", "null"].map(str::to_owned));
        let directory = tempfile::tempdir().expect("a directory");
        let disk = File::create(directory.path().join("disk.img")).expect("a disk");
        disk.set_len(256 << 20).expect("a sparse disk");
        Self { words, directory }
    }

    /// Runs it and gives the seconds that it took.
    pub(crate) fn run(&self) -> f64 {
        let start = Instant::now();
        let status = Command::new(&self.words[0])
            .args(&self.words[1..])
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .status()
            .expect("QEMU starts");
        assert!(status.success(), "QEMU ended with {status}");
        let console = std::fs::read_to_string(self.directory.path().join("console.log"));
        assert!(console.unwrap_or_default().contains("Power down"), "the guest did not power off");
        start.elapsed().as_secs_f64()
    }
}
