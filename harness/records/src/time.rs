//! Formatting of times, and ids that contain times.

use jiff::Timestamp;

/// Formats seconds since 1970 as `2026-11-22 12:50`, in UTC.
#[must_use]
pub fn utc(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds);
    time.map_or_else(|_| "-".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M").to_string())
}

/// Formats microseconds since 1970 as `2026-11-22T12:50:49.123456Z`.
#[must_use]
pub fn rfc3339(us: i64) -> String {
    Timestamp::from_microsecond(us).map_or_else(|_| String::new(), |time| time.to_string())
}

/// A unique name that contains the current time: see [`began_us`].
#[must_use]
pub fn new_name() -> String {
    new_id(Timestamp::now())
}

/// A unique id that sorts by time, such as `20261122T125049.123456Z-1a2b3c`.
pub(crate) fn new_id(now: Timestamp) -> String {
    let mut random = [0u8; 3];
    // Without random bytes, the time alone must be unique.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK);
    let [a, b, c] = random;
    format!("{}-{a:02x}{b:02x}{c:02x}", now.strftime("%Y%m%dT%H%M%S%.6fZ"))
}

/// The start of a run in microseconds since 1970: exact if its id contains the time, as those of
/// [`new_name`] do, and in whole seconds otherwise.
#[must_use]
pub fn began_us(id: &str, started: i64) -> i64 {
    let time = id.split_once('-').and_then(|(time, _)| time.parse::<Timestamp>().ok());
    match time {
        Some(time) if time.as_second() == started => time.as_microsecond(),
        _ => started.saturating_mul(1_000_000),
    }
}
