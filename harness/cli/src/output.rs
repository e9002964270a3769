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

/// Properties of standard output.
pub(crate) struct Screen {
    /// Columns.
    pub(crate) width: u16,
    /// Whether to print colours.
    pub(crate) colour: bool,
}

impl Screen {
    /// Standard output as it is, with `default_width` columns if it has no width.
    pub(crate) fn new(default_width: u16) -> Self {
        let stdout = std::io::stdout();
        let is_terminal = stdout.is_terminal();
        Self { width: width(&stdout, default_width), colour: has_colour(is_terminal) }
    }
}

/// Whether to print colours, by the conventions of NO_COLOR, CLICOLOR_FORCE, CLICOLOR and TERM.
fn has_colour(is_terminal: bool) -> bool {
    if anstyle_query::no_color() {
        return false;
    }
    // The library takes any value for a yes.
    let forced =
        std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0");
    let wanted = anstyle_query::clicolor().unwrap_or(true);
    forced || is_terminal && wanted && anstyle_query::term_supports_ansi_color()
}

/// Whether standard error can show progress that changes: it is a terminal, and not a dumb one.
pub(crate) fn shows_progress() -> bool {
    std::io::stderr().is_terminal() && anstyle_query::term_supports_ansi_color()
}

/// Columns of a stream, at least 60: COLUMNS if it is set, else the terminal's, else `default_width`.
pub(crate) fn width(stream: impl AsFd, default_width: u16) -> u16 {
    let setting = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let columns = setting
        .unwrap_or_else(|| rustix::termios::tcgetwinsize(stream).map_or(0, |size| size.ws_col));
    if columns == 0 { default_width } else { columns.max(60) }
}
