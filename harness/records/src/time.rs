//! Times and the ids that are made of them.

use jiff::Timestamp;

/// Seconds since 1970 for people: `2026-11-22 12:50`, in UTC.
#[must_use]
pub fn utc(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds);
    time.map_or_else(|_| "-".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M").to_string())
}

/// Microseconds since 1970 for programs: `2026-11-22T12:50:49.123456Z`.
#[must_use]
pub fn rfc3339(us: i64) -> String {
    Timestamp::from_microsecond(us).map_or_else(|_| String::new(), |time| time.to_string())
}

/// A name for something that begins now: it sorts by time, and two of one second differ.
#[must_use]
pub fn new_name() -> String {
    new_id(Timestamp::now())
}

/// `20261122T125049.123456Z-1a2b3c`: sorts by time, and two runs of one moment differ.
pub(crate) fn new_id(now: Timestamp) -> String {
    let mut random = [0u8; 3];
    // Without randomness the time alone has to do.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK);
    let [a, b, c] = random;
    format!("{}-{a:02x}{b:02x}{c:02x}", now.strftime("%Y%m%dT%H%M%S%.6fZ"))
}

/// When a run began, in microseconds since 1970: to the microsecond where its id says it, as those of
/// [`new_name`] do, and to the second otherwise.
#[must_use]
pub fn began_us(id: &str, started: i64) -> i64 {
    let said = id.split_once('-').and_then(|(time, _)| time.parse::<Timestamp>().ok());
    match said {
        Some(said) if said.as_second() == started => said.as_microsecond(),
        _ => started.saturating_mul(1_000_000),
    }
}
