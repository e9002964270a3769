//! Kernel logs from a console's output.

use dmarig_model::observation::{KernelLog, LogSource};
use dmarig_wire::LogRecord;

/// Records kept at each end of a log whose middle is left out.
const CONSOLE_RECORDS: usize = 20_000;

/// Makes a kernel log of console lines, for guests whose agent does not answer any more. Lines left
/// out of a flood count as lost.
pub(crate) fn console_log(text: &str) -> KernelLog {
    let lines = || text.lines().filter(|line| !line.trim().is_empty());
    let lost = lines().count().saturating_sub(2 * CONSOLE_RECORDS) as u64;
    let middle = CONSOLE_RECORDS as u64..CONSOLE_RECORDS as u64 + lost;
    let records = lines()
        .zip(0..)
        .filter(|(_, seq)| !middle.contains(seq))
        .map(|(line, seq)| {
            let line = line.trim_end();
            let stamped = line.strip_prefix('[').and_then(|rest| {
                let (stamp, text) = rest.split_once("] ")?;
                let (seconds, micros) = stamp.trim().split_once('.')?;
                let time = seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?;
                Some((time.checked_add(micros.parse().ok()?)?, text))
            });
            let (time_us, text) = stamped.unwrap_or((0, line));
            LogRecord { level: u8::MAX, seq, time_us, text: text.to_owned() }
        })
        .collect();
    KernelLog { source: LogSource::Console, records, lost }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_console_lines_as_records() {
        let log = console_log("SeaBIOS\r\n\r\n[    1.500000] DMAR: IOMMU enabled\r\n[oops] x\r\n");
        let records: Vec<_> = log.records.iter().map(|r| (r.time_us, r.text.as_str())).collect();
        assert_eq!(records, [(0, "SeaBIOS"), (1_500_000, "DMAR: IOMMU enabled"), (0, "[oops] x")]);
    }

    #[test]
    fn keeps_both_ends_of_a_flood() {
        let text: String = (0..3 * CONSOLE_RECORDS).map(|number| format!("{number}\n")).collect();
        let log = console_log(&text);
        assert_eq!((log.records.len(), log.lost), (2 * CONSOLE_RECORDS, CONSOLE_RECORDS as u64));
        let kept = &log.records[CONSOLE_RECORDS - 1..=CONSOLE_RECORDS];
        let kept: Vec<_> = kept.iter().map(|record| (record.seq, record.text.as_str())).collect();
        assert_eq!(kept, [(19_999, "19999"), (40_000, "40000")]);
    }
}
