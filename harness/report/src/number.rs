//! The formatting of numbers, for every table, page and message.
//!
//! The rules: a value with a unit is scaled to the unit that people read it in and has four
//! significant digits ([`quantity`]). A change is in percent, with a sign and one decimal
//! ([`change`], [`ratio_as_change`]). A share is in percent with one decimal ([`percent`],
//! [`share`]). Columns of one table have a fixed number of decimals so that they can be compared by
//! eye ([`per_operation`], [`coarse_time`], [`coarse_bytes`], [`megabytes_per_second`]).

use crate::text::safe;

/// Stands where there is no number.
const NOT_A_NUMBER: &str = "\u{2013}";

/// A value in the unit that people read it in, such as `1.235 s` for nanoseconds.
#[must_use]
pub fn quantity(value: f64, unit: &str) -> String {
    let (scale, name) = readable_unit(value, unit);
    match name {
        "" => number(value / scale),
        name => format!("{} {}", number(value / scale), safe(name)),
    }
}

/// The unit in which people read values of this size: how many of `unit` it is, and its name.
#[must_use]
pub fn readable_unit(value: f64, unit: &str) -> (f64, &str) {
    let steps: &[(f64, &str)] = match unit {
        "ns" => &[(1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns")],
        "bytes/s" => &[(1_073_741_824.0, "GiB/s"), (1_048_576.0, "MiB/s"), (1024.0, "KiB/s")],
        "1" => &[(1.0, "")],
        unit => return (1.0, unit),
    };
    let fitting = steps.iter().find(|(size, _)| value.abs() >= *size);
    *fitting.or(steps.last()).unwrap_or(&(1.0, ""))
}

/// Four significant digits; a dash where the value is not finite.
#[must_use]
pub fn number(value: f64) -> String {
    significant(value, 4)
}

/// So many significant digits, without zeros at the end; all digits of a whole number. A dash where
/// the value is not finite.
#[must_use]
pub fn significant(value: f64, digits: u8) -> String {
    if !value.is_finite() {
        return NOT_A_NUMBER.to_owned();
    }
    let whole = value.abs().log10().floor();
    let places = f64::from(digits) - 1.0 - whole;
    let places = if whole.is_finite() { places.clamp(0.0, 9.0) as usize } else { 0 };
    let text = format!("{value:.places$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    if text == "-0" { "0".to_owned() } else { text }
}

/// How much a metric grows: two decimals, none from 100 on, an exponent below 0.01.
#[must_use]
pub fn growth(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => whole(value),
        small if small < 0.01 && small > 0.0 => format!("{value:.1e}"),
        _ => format!("{value:.2}"),
    }
}

/// The change from one value to another, in percent; as a factor from tenfold on. There is none
/// from zero: that is `new`.
#[must_use]
pub fn change(before: f64, after: f64) -> String {
    if before == after {
        return "0 %".to_owned();
    }
    let percent = (after / before - 1.0) * 100.0;
    if !percent.is_finite() {
        return if before == 0.0 { "new" } else { NOT_A_NUMBER }.to_owned();
    }
    match percent.abs() {
        large if large >= 1000.0 => format!("\u{d7}{}", number(after / before)),
        large if large >= 100.0 => format!("{percent:+.0} %"),
        small if small < 0.05 => "0.0 %".to_owned(),
        _ => format!("{percent:+.1} %"),
    }
}

/// A ratio as a change in percent, such as `+9.1 %` for 1.091.
#[must_use]
pub fn ratio_as_change(ratio: f64) -> String {
    format!("{} %", signed_percent(ratio))
}

/// The bounds of a ratio as changes in percent; `?` for one that is not known.
#[must_use]
pub fn ratio_interval(low: Option<f64>, high: Option<f64>) -> String {
    let bound = |bound: Option<f64>| bound.map_or_else(|| "?".to_owned(), signed_percent);
    format!("{} .. {} %", bound(low), bound(high))
}

fn signed_percent(ratio: f64) -> String {
    format!("{:+.1}", (ratio - 1.0) * 100.0)
}

/// A value that is in percent already, with one decimal.
#[must_use]
pub fn percent(percent: f64) -> String {
    format!("{percent:.1} %")
}

/// A share of 1 in percent; what is there at all is not shown as zero.
#[must_use]
pub fn share(share: f64) -> String {
    let value = share * 100.0;
    if value > 0.0 && value < 0.1 { "<0.1 %".to_owned() } else { percent(value) }
}

/// A ratio of counts with two decimals; none from 1,000 on.
#[must_use]
pub fn per_operation(value: f64) -> String {
    if value >= 1000.0 { whole(value) } else { format!("{value:.2}") }
}

/// A count without decimals.
#[must_use]
pub fn whole(value: f64) -> String {
    format!("{value:.0}")
}

/// Microseconds as seconds with one decimal, without the unit.
#[must_use]
pub fn seconds(microseconds: u64) -> String {
    format!("{:.1}", std::time::Duration::from_micros(microseconds).as_secs_f64())
}

/// Nanoseconds as microseconds, milliseconds or seconds.
#[must_use]
pub fn coarse_time(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 1e6 => format!("{:.0} us", ns / 1e3),
        ns if ns < 1e8 => format!("{:.1} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

/// Bytes as KiB or MiB.
#[must_use]
pub fn coarse_bytes(bytes: f64) -> String {
    match bytes {
        small if small < 1024.0 * 1024.0 => format!("{:.0} KiB", small / 1024.0),
        large => format!("{:.1} MiB", large / 1024.0 / 1024.0),
    }
}

/// Bytes per second as megabytes (of 1,000,000 bytes) per second.
#[must_use]
pub fn megabytes_per_second(bytes_per_second: f64) -> String {
    format!("{:.2} MB/s", bytes_per_second / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_quantities_to_the_unit_that_people_read() {
        assert_eq!(quantity(1_234_567_890.0, "ns"), "1.235 s");
        assert_eq!(quantity(999.0, "ns"), "999 ns");
        assert_eq!(quantity(3_145_728.0, "bytes/s"), "3 MiB/s");
        assert_eq!(quantity(12_345.6, "frames"), "12346 frames");
        assert_eq!(quantity(0.0, "ns"), "0 ns");
        assert_eq!(quantity(0.02763, "1"), "0.02763");
        assert_eq!(quantity(f64::NAN, "1"), "\u{2013}");
    }

    #[test]
    fn keeps_significant_digits_and_drops_zeros_at_the_end() {
        assert_eq!(
            [2.0, 0.5, 0.123, 98.6].map(|value| significant(value, 2)),
            ["2", "0.5", "0.12", "99"]
        );
        assert_eq!([-0.0, 1200.0].map(number), ["0", "1200"]);
    }

    #[test]
    fn growth_has_an_exponent_where_it_is_small() {
        let texts = [0.0, 0.004, 0.25, 12.34, 25_000.4].map(growth);
        assert_eq!(texts, ["0.00", "4.0e-3", "0.25", "12.34", "25000"]);
    }

    #[test]
    fn changes_are_in_percent_up_to_tenfold() {
        assert_eq!(change(100.0, 107.3), "+7.3 %");
        assert_eq!(change(1.0, 2.5), "+150 %");
        assert_eq!(change(1.0, 33.0), "\u{d7}33");
        assert_eq!((change(0.0, 0.0), change(0.0, 1.0)), ("0 %".into(), "new".into()));
        assert_eq!(ratio_as_change(1.091), "+9.1 %");
        assert_eq!(ratio_interval(Some(0.98), None), "-2.0 .. ? %");
    }

    #[test]
    fn columns_have_a_fixed_number_of_decimals() {
        assert_eq!([0.0, 0.0004, 0.25].map(share), ["0.0 %", "<0.1 %", "25.0 %"]);
        let times = [38_400.0, 9_700_000.0, 1.5e9].map(coarse_time);
        assert_eq!(times, ["38 us", "9.7 ms", "1.50 s"]);
        assert_eq!([4096.0, 3.5e6].map(coarse_bytes), ["4 KiB", "3.3 MiB"]);
        assert_eq!([0.004, 12.0, 25_000.4].map(per_operation), ["0.00", "12.00", "25000"]);
        assert_eq!(megabytes_per_second(1_234_567.0), "1.23 MB/s");
        assert_eq!(seconds(2_949_999), "2.9");
    }
}
