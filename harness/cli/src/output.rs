//! Words on standard output and on standard error.

use std::{
    fmt::Arguments,
    io::{ErrorKind, IsTerminal, Write},
    os::fd::AsFd,
};

use anyhow::Context;

use crate::exit::Failure;

/// `println!` that takes a reader who has gone, as `| head` does, for no error.
macro_rules! outln {
    ($($words:tt)*) => { $crate::output::text(format_args!("{}\n", format_args!($($words)*))) };
}

/// The same of `print!`.
macro_rules! out {
    ($($words:tt)*) => { $crate::output::text(format_args!($($words)*)) };
}

/// `eprintln!` that goes on where nobody can be told any more: a night of work must not end since a
/// terminal has gone, nor its exit code be another.
macro_rules! errln {
    ($($words:tt)*) => { $crate::output::aside(format_args!("{}\n", format_args!($($words)*))) };
}

/// Writes a text to standard error, if that can be.
pub(crate) fn aside(words: Arguments<'_>) {
    let _ = std::io::stderr().write_fmt(words);
}

/// Writes a text.
///
/// # Panics
/// Where it can't be written although somebody reads, as `print!` does.
pub(crate) fn text(words: Arguments<'_>) {
    match std::io::stdout().write_fmt(words) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        Err(error) => panic!("can't write to standard output: {error}"),
        Ok(()) => {}
    }
}

/// Writes results.
///
/// # Errors
/// Where they can't be written although somebody reads.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // A reader that has gone, as `| head` does, is no error.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written.context("can't write the results to standard output")?),
    }
}

/// What standard output looks like.
pub(crate) struct Screen {
    /// Columns.
    pub(crate) width: u16,
    /// Whether colours are wanted.
    pub(crate) colour: bool,
}

impl Screen {
    /// As it is; so many columns where it is none, or does not say.
    pub(crate) fn new(otherwise: u16) -> Self {
        let stdout = std::io::stdout();
        let width = width(&stdout, otherwise);
        let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { width, colour }
    }
}

/// Columns of a terminal, 60 at least; `otherwise` where it is none, or does not say.
pub(crate) fn width(of: impl AsFd, otherwise: u16) -> u16 {
    let columns = rustix::termios::tcgetwinsize(of).map_or(0, |size| size.ws_col);
    if columns == 0 { otherwise } else { columns.max(60) }
}
