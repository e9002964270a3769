//! A job as one word of a kernel's command line.
//!
//! The word is the job's JSON, so a person can read and edit it. The kernel splits its command line at
//! white space, so within strings everything that is not printable ASCII is written as `\uXXXX`.

use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter};

use crate::Job;

/// Name of the kernel parameter whose value is a job.
pub const JOB_PARAMETER: &str = "dmarig.job";

/// Writes a job as the value of [`JOB_PARAMETER`].
#[must_use]
pub fn encode_job(job: &Job) -> String {
    let mut word = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut word, WordFormatter);
    job.serialize(&mut serializer).expect("every job can be written as JSON");
    // The formatter writes ASCII alone.
    String::from_utf8_lossy(&word).into_owned()
}

/// Reads a job from the value of [`JOB_PARAMETER`].
///
/// # Errors
/// [`serde_json::Error`] with the column of the mistake.
pub fn decode_job(word: &str) -> Result<Job, serde_json::Error> {
    serde_json::from_str(word)
}

/// JSON without white space and of printable ASCII alone.
struct WordFormatter;

impl Formatter for WordFormatter {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for character in fragment.chars() {
            if character.is_ascii_graphic() {
                writer.write_all(&[character as u8])?;
            } else {
                write_escape(writer, character)?;
            }
        }
        Ok(())
    }

    fn write_char_escape<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        match escape {
            CharEscape::Quote => writer.write_all(b"\\u0022"),
            CharEscape::ReverseSolidus => writer.write_all(b"\\\\"),
            CharEscape::Solidus => writer.write_all(b"/"),
            CharEscape::Backspace => writer.write_all(b"\\b"),
            CharEscape::FormFeed => writer.write_all(b"\\f"),
            CharEscape::LineFeed => writer.write_all(b"\\n"),
            CharEscape::CarriageReturn => writer.write_all(b"\\r"),
            CharEscape::Tab => writer.write_all(b"\\t"),
            CharEscape::AsciiControl(byte) => write_escape(writer, char::from(byte)),
        }
    }
}

fn write_escape<W: io::Write + ?Sized>(writer: &mut W, character: char) -> io::Result<()> {
    for unit in character.encode_utf16(&mut [0; 2]) {
        write!(writer, "\\u{unit:04x}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ExecJob;

    fn exec(argv: Vec<String>) -> Job {
        Job::Exec(ExecJob { argv, echo: false })
    }

    proptest! {
        #[test]
        fn keeps_every_argument_without_white_space(
            argv in prop::collection::vec("\\PC{0,40}|[ \t\n\"'\\\\,]{0,9}", 0..5),
        ) {
            let job = exec(argv);
            let word = encode_job(&job);
            prop_assert!(word.bytes().all(|byte| byte.is_ascii_graphic()), "{}", word);
            // The kernel takes quotes in pairs; a blank behind an odd one would not end the word.
            prop_assert_eq!(word.matches('"').count() % 2, 0);
            prop_assert_eq!(decode_job(&word).unwrap(), job);
        }
    }

    #[test]
    fn writes_commas_blanks_and_quotes_of_arguments() {
        let job = exec(vec!["/add/x".into(), "a,b c".into(), "say \"hi\"".into(), "it's".into()]);
        assert_eq!(
            encode_job(&job),
            r#"{"Exec":{"argv":["/add/x","a,b\u0020c","say\u0020\u0022hi\u0022","it's"],"echo":false}}"#
        );
    }

    #[test]
    fn reports_the_column_of_a_mistake() {
        let error = decode_job(r#"{"Blok":{}}"#).unwrap_err();
        assert_eq!((error.line(), error.column()), (1, 7), "{error}");
    }
}
