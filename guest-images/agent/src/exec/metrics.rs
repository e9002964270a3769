//! Finds `name value unit` lines in a stream of bytes that may hold anything.

use dmarig_wire::Metric;

/// Most metrics that are kept of one program.
const MAX_METRICS: usize = 1000;
/// Longest line that can be a metric, in bytes.
const MAX_LINE: usize = 256;
/// Longest name, in bytes.
const MAX_NAME: usize = 100;

/// The metrics of a stream that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    found: Vec<Metric>,
    line: Vec<u8>,
    too_long: bool,
}

impl Metrics {
    /// Takes the next piece of the stream.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            self.extend(&rest[..end]);
            self.end_line();
            rest = &rest[end + 1..];
        }
        self.extend(rest);
    }

    /// The metrics in order, at the end of the stream.
    pub(crate) fn finish(mut self) -> Vec<Metric> {
        self.end_line();
        self.found
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.too_long |= self.line.len() + bytes.len() > MAX_LINE;
        if !self.too_long {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self) {
        if !self.too_long
            && self.found.len() < MAX_METRICS
            && let Some(metric) = std::str::from_utf8(&self.line).ok().and_then(parse)
        {
            self.found.push(metric);
        }
        self.line.clear();
        self.too_long = false;
    }
}

fn parse(line: &str) -> Option<Metric> {
    let mut words = line.split_whitespace();
    let (name, value, unit) = (words.next()?, words.next()?, words.next()?);
    let in_name = |c: u8| c.is_ascii_alphanumeric() || b"_.-/".contains(&c);
    let valid_name = name.len() <= MAX_NAME && name.bytes().all(in_name);
    let value: f64 = value.parse().ok()?;
    let printable = unit.chars().all(|c| !c.is_control());
    if !valid_name || !value.is_finite() || !printable || words.next().is_some() {
        return None;
    }
    Some(Metric { name: name.to_owned(), value, unit: unit.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(stream: &[u8], step: usize) -> Vec<Metric> {
        let mut metrics = Metrics::default();
        stream.chunks(step).for_each(|piece| metrics.push(piece));
        metrics.finish()
    }

    #[test]
    fn finds_metrics_however_the_stream_is_split() {
        let stream = b"starting up\niops 1e3 1/s\r\n\tlat.p99/read-us  4.5\tus\nlast -1 %";
        for step in 1..stream.len() {
            let found = metrics(stream, step);
            let names: Vec<_> = found.iter().map(|metric| metric.name.as_str()).collect();
            assert_eq!(names, ["iops", "lat.p99/read-us", "last"]);
            assert_eq!(found[1].value, 4.5);
            assert_eq!(found[0].unit, "1/s");
        }
    }

    #[test]
    fn ignores_lines_that_are_not_metrics() {
        let long_name = format!("{} 1 s", "n".repeat(101));
        let long_line = format!("{}name 1 s", " ".repeat(300));
        for line in [
            "",
            " ",
            "name",
            "name 1",
            "name 1 s more",
            "name inf s",
            "name NaN s",
            "name 1e999 s",
            "na=me 1 s",
            "n\u{e4}me 1 s",
            "name 0x10 s",
            "name 1,5 s",
            "name 1 \u{1b}[31m",
            &long_name,
            &long_line,
        ] {
            assert_eq!(metrics(line.as_bytes(), 7), [], "{line:?}");
        }
        assert_eq!(metrics(b"name 1 \xff\nok 1 s\n", 3).len(), 1);
    }

    #[test]
    fn bounds_metrics_and_endless_lines() {
        let many: String = (0..2000).map(|i| format!("m{i} {i} s\n")).collect();
        assert_eq!(metrics(many.as_bytes(), 4096).len(), MAX_METRICS);
        let mut endless = Metrics::default();
        (0..1000).for_each(|_| endless.push(&[b'x'; 4096]));
        assert!(endless.line.len() <= MAX_LINE);
    }
}
