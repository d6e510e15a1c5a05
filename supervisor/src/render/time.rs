//! Points in time and lengths of time as people read them.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit};
use policies::{Millis, Wall};

/// `2026-11-23T05:20:07Z`; for files.
pub fn utc(at: Wall) -> String {
    timestamp(at).map_or_else(|| "?".to_owned(), |at| at.round(Unit::Second).unwrap_or(at).to_string())
}

/// Local date and time with a relative one: `2026-11-23 06:20:07 (3m ago)`.
pub fn at(at: Wall, now: Wall, zone: &TimeZone) -> String {
    format!("{} ({})", local(at, zone), ago(at, now))
}

/// Local date and time: `2026-11-23 06:20:07`.
pub fn local(at: Wall, zone: &TimeZone) -> String {
    let Some(at) = timestamp(at) else {
        return "?".to_owned();
    };
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Local time of day with milliseconds, for time lines: `06:20:07.123`.
pub fn clock(at: Wall, zone: &TimeZone) -> String {
    let Some(at) = timestamp(at) else {
        return "?".to_owned();
    };
    at.to_zoned(zone.clone()).strftime("%H:%M:%S.%3f").to_string()
}

/// `3m ago`, `now`, or `in 2s` when two machines' clocks differ.
pub fn ago(at: Wall, now: Wall) -> String {
    match now.0.checked_sub(at.0) {
        Some(past) if past < 1000 => "now".to_owned(),
        Some(past) => format!("{} ago", length(Millis(past))),
        None => format!("in {}", length(at.since(now))),
    }
}

/// The two largest units of a length of time: `850ms`, `12s`, `3m 5s`, `2h 10m`, `9d 4h`.
pub fn length(length: Millis) -> String {
    let seconds = length.0 / 1000;
    let pair = |large: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit} {small}{small_unit}"),
    };
    match seconds {
        0 => format!("{}ms", length.0),
        1..60 => format!("{seconds}s"),
        60..3600 => pair(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => pair(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

fn timestamp(at: Wall) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_local_and_relative() {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let then = Wall(1_795_411_207_123);
        assert_eq!(at(then, Wall(then.0 + 185_000), &zone), "2026-11-23 06:20:07 (3m 5s ago)");
        assert_eq!(clock(then, &zone), "06:20:07.123");
        assert_eq!(utc(then), "2026-11-23T05:20:07Z");
        assert_eq!(ago(then, then), "now");
        assert_eq!(ago(Wall(then.0 + 2000), then), "in 2s");
        assert_eq!(local(Wall(u64::MAX), &zone), "?");
    }

    #[test]
    fn lengths_have_two_units_at_most() {
        for (ms, text) in
            [(0, "0ms"), (850, "850ms"), (60_000, "1m"), (3_900_000, "1h 5m"), (9 * 86_400_000 + 1, "9d")]
        {
            assert_eq!(length(Millis(ms)), text);
        }
    }
}
