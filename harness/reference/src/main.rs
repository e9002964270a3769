//! `dmarig-reference pages|man DIRECTORY`

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};

/// Generates dmarig's reference pages or manual pages
#[derive(Debug, Parser)]
struct Arguments {
    /// Kind of pages
    kind: Kind,
    /// Directory to write to; created if necessary
    directory: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// Chapters of the documentation, as Markdown
    Pages,
    /// Manual pages, as roff
    Man,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match write(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot write to {}: {error}", arguments.directory.display());
            ExitCode::FAILURE
        }
    }
}

fn write(arguments: &Arguments) -> io::Result<()> {
    std::fs::create_dir_all(&arguments.directory)?;
    match arguments.kind {
        Kind::Pages => {
            for (name, text) in dmarig_reference::pages() {
                std::fs::write(arguments.directory.join(name), text)?;
            }
            Ok(())
        }
        Kind::Man => clap_mangen::generate_to(dmarig::command(), &arguments.directory),
    }
}
