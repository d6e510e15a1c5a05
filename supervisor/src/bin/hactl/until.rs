//! Points in time as people type them.

use jiff::civil::{DateTime, Time};
use jiff::{Span, Timestamp, ToSpan, Zoned};
use policies::{Millis, Wall};

/// A point in time that is typed now, in the time zone of this machine.
pub(crate) fn from_now(text: &str) -> Result<Wall, String> {
    parse(text, &Zoned::now())
}

/// `2h` from now, the next `06:00`, `2026-11-26T06:00` here, or a time with its offset.
fn parse(text: &str, now: &Zoned) -> Result<Wall, String> {
    let at = if let Ok(length) = text.parse::<Millis>() {
        now.timestamp().checked_add(i64::try_from(length.0).unwrap_or(i64::MAX).milliseconds()).ok()
    } else if let Ok(at) = text.parse::<Timestamp>() {
        Some(at)
    } else if let Ok(here) = text.parse::<DateTime>() {
        here.to_zoned(now.time_zone().clone()).ok().map(|at| at.timestamp())
    } else {
        text.parse::<Time>().ok().and_then(|time| next(time, now))
    };
    let at = at.and_then(|at| u64::try_from(at.as_millisecond()).ok());
    at.map(Wall)
        .ok_or_else(|| format!("{text:?} is no time: give 2h, 06:00, 2026-11-26T06:00 or 2026-11-26T06:00Z"))
}

/// The next time that clocks here show this.
fn next(time: Time, now: &Zoned) -> Option<Timestamp> {
    let on = |days: Span| {
        now.date().checked_add(days).ok()?.to_datetime(time).to_zoned(now.time_zone().clone()).ok()
    };
    let today = on(0.days())?;
    if today > *now { Some(today.timestamp()) } else { Some(on(1.days())?.timestamp()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_mean_them() {
        let now: Zoned = "2026-11-25T17:30:00+01:00[Europe/Berlin]".parse().unwrap();
        let read = |text: &str| {
            let at =
                parse(text, &now).map(|at| Timestamp::from_millisecond(at.0 as i64).unwrap().to_string());
            at.unwrap_or_else(|why| why)
        };
        assert_eq!(read("2h"), "2026-11-25T18:30:00Z");
        assert_eq!(read("18:00"), "2026-11-25T17:00:00Z");
        assert_eq!(read("06:00"), "2026-11-26T05:00:00Z");
        assert_eq!(read("2026-12-01T06:00"), "2026-12-01T05:00:00Z");
        assert_eq!(read("2026-12-01 06:00"), "2026-12-01T05:00:00Z");
        assert_eq!(read("2026-12-01T06:00:00Z"), "2026-12-01T06:00:00Z");
        for wrong in ["soon", "", "25:00", "-2h", "1969-01-01T00:00"] {
            assert!(read(wrong).contains("is no time"), "{wrong}: {}", read(wrong));
        }
    }
}
