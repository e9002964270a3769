//! Words on standard output.

use std::{
    fmt::Arguments,
    io::{ErrorKind, Write},
};

/// `println!` that takes a reader who has gone, as `| head` does, for no error.
macro_rules! outln {
    ($($words:tt)*) => { $crate::output::text(format_args!("{}\n", format_args!($($words)*))) };
}

/// The same of `print!`.
macro_rules! out {
    ($($words:tt)*) => { $crate::output::text(format_args!($($words)*)) };
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
