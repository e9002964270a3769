//! The kernel's log, from `/dev/kmsg`.
//!
//! Each read gives one record, `priority,sequence,time,flags[,...];text`, with lines of properties
//! behind it that start with a space (Documentation/ABI/testing/dev-kmsg).

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
};

use anyhow::{Context, Result};
use dmarig_wire::{Log, LogRecord};

/// Most records in one piece of the log.
const MAX_RECORDS: usize = 4000;
/// Most bytes of text in one piece of the log, but for its last record.
const MAX_BYTES: usize = 1 << 20;
/// More than the kernel makes of one record (`PRINTK_MESSAGE_MAX`); it refuses a smaller buffer.
const RECORD: usize = 16 << 10;

/// Reads the log on from where the last reading ended.
#[derive(Debug)]
pub(crate) struct Kmsg<R> {
    source: R,
    next_seq: u64,
}

impl Kmsg<File> {
    /// Opens the log at its oldest record.
    ///
    /// # Errors
    /// Where `/dev/kmsg` can't be opened.
    pub(crate) fn open() -> Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_NONBLOCK);
        Ok(Self::new(options.open("/dev/kmsg").context("can't open /dev/kmsg")?))
    }
}

impl<R: Read> Kmsg<R> {
    fn new(source: R) -> Self {
        Self { source, next_seq: 0 }
    }

    /// The next piece of the log, bounded.
    ///
    /// # Errors
    /// Where it can't be read.
    pub(crate) fn read(&mut self) -> Result<Log> {
        let mut log = Log { records: Vec::new(), lost: 0, more: false };
        let mut buffer = vec![0; RECORD];
        let mut bytes = 0;
        while log.records.len() < MAX_RECORDS && bytes < MAX_BYTES {
            let count = match self.source.read(&mut buffer) {
                Ok(0) => return Ok(log),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(log),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // Overwritten before it was read; the gap in the sequence tells how much.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => continue,
                Err(error) => return Err(error).context("can't read /dev/kmsg"),
            };
            let Some(record) = parse(&buffer[..count]) else { continue };
            log.lost += record.seq.saturating_sub(self.next_seq);
            self.next_seq = record.seq + 1;
            bytes += record.text.len();
            log.records.push(record);
        }
        log.more = true;
        Ok(log)
    }
}

/// Parses one record; `None` if it is not valid.
fn parse(record: &[u8]) -> Option<LogRecord> {
    let end = record.iter().position(|&byte| byte == b';')?;
    let header = std::str::from_utf8(&record[..end]).ok()?;
    let mut fields = header.split(',');
    let priority: u64 = fields.next()?.parse().ok()?;
    let seq = fields.next()?.parse().ok()?;
    let time_us = fields.next()?.parse().ok()?;
    let text = record[end + 1..].split(|&byte| byte == b'\n').next().unwrap_or_default();
    // The rest of the priority is the facility, which is not needed.
    Some(LogRecord { level: (priority & 7) as u8, seq, time_us, text: unescape(text) })
}

/// Undoes the kernel's `\xNN`, which stands for a byte that is unprintable, over 126, or `\`.
fn unescape(text: &[u8]) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let code = match rest {
            [b'\\', b'x', high, low, ..] => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match code {
            Some((high, low)) => {
                plain.push(high << 4 | low);
                rest = &rest[4..];
            }
            None => {
                plain.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, io};

    use super::*;

    /// Gives one record, or one error, for each read.
    struct Fake(VecDeque<Result<Vec<u8>, i32>>);

    impl Read for Fake {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let next = self.0.pop_front().unwrap_or(Err(libc::EAGAIN));
            let record = next.map_err(io::Error::from_raw_os_error)?;
            buffer[..record.len()].copy_from_slice(&record);
            Ok(record.len())
        }
    }

    fn kmsg<const N: usize>(reads: [Result<&str, i32>; N]) -> Kmsg<Fake> {
        let reads = reads.into_iter().map(|read| read.map(|text| text.as_bytes().to_vec()));
        Kmsg::new(Fake(reads.collect()))
    }

    #[test]
    fn parses_a_record_without_its_properties() {
        let text = "30,7,1234567,-,caller=T1;pci 0000:00:03.0: Adding to iommu group 2\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:03.0\n";
        let record = parse(text.as_bytes()).unwrap();
        assert_eq!((record.level, record.seq, record.time_us), (6, 7, 1_234_567));
        assert_eq!(record.text, "pci 0000:00:03.0: Adding to iommu group 2");
    }

    #[test]
    fn unescapes_only_complete_escapes() {
        assert_eq!(
            unescape(br"a\x09b\x5cx41 \xc3\xa9 \xff \x4 \y"),
            "a\tb\\x41 \u{e9} \u{fffd} \\x4 \\y"
        );
    }

    #[test]
    fn skips_invalid_records() {
        for hostile in ["", ";", "6;x", "6,1;x", "6,1,z,-;x", "a,1,2,-;x", "6,1,2,-"] {
            assert_eq!(parse(hostile.as_bytes()), None, "{hostile}");
        }
    }

    #[test]
    fn counts_overwritten_records() {
        let mut kmsg = kmsg([
            Ok("6,3,1,-;first\n"),
            Ok("6,4,1,-;second\n"),
            Err(libc::EPIPE),
            Ok("6,10,1,-;third\n"),
            Err(libc::EAGAIN),
            Ok("6,11,1,-;later\n"),
        ]);
        let log = kmsg.read().unwrap();
        assert_eq!((log.records.len(), log.lost, log.more), (3, 3 + 5, false));
        let log = kmsg.read().unwrap();
        assert_eq!((log.records.len(), log.lost, log.more), (1, 0, false));
    }

    #[test]
    fn returns_a_long_log_in_pieces() {
        let records = (0..MAX_RECORDS + 5).map(|seq| Ok(format!("6,{seq},1,-;x\n").into_bytes()));
        let mut kmsg = Kmsg::new(Fake(records.collect()));
        let piece = kmsg.read().unwrap();
        assert_eq!((piece.records.len(), piece.lost, piece.more), (MAX_RECORDS, 0, true));
        let rest = kmsg.read().unwrap();
        assert_eq!((rest.records.len(), rest.lost, rest.more), (5, 0, false));
    }
}
