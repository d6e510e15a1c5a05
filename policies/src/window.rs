//! When a policy may act by itself: hours on days of the week, in UTC, as `Mon..Fri 08:00-18:00`.
//!
//! Why it exists: some failovers are only wanted while somebody is there who can look after them, others only at night. What
//! it never does: ask for the time. Days are written as in systemd.time(7).

use crate::waiting::Waiting;
use crate::words::{Millis, Wall};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The days of a week, in the order of ISO 8601.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// Their whole names, which may be written, too.
const DAYS_WHOLE: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
/// 1970-01-01 was a Thursday.
const FIRST_DAY: u64 = 3;
const DAY: u64 = 24 * 60;
const WEEK: u64 = 7 * DAY;
const MINUTE: u64 = 60_000;
/// Longest text of a window in bytes: all days, one by one, with room to spare.
const TEXT_MAX: usize = 100;

/// Hours on some days of the week, in UTC. One that ends before it begins lasts until the next day.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    /// On which days it begins, Monday first.
    days: [bool; 7],
    /// Minute of the day at which it begins.
    from: u64,
    /// Minute of the day at which it ends, 1 to 1440.
    to: u64,
}

/// Why a text is not a window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a window: {why}")]
pub struct BadWindow {
    text: String,
    why: String,
}

impl Window {
    /// For how long it has been open at this moment; `None`: it is not.
    pub fn open_for(&self, at: Wall) -> Option<Millis> {
        let past = self.begins().map(|begin| since(begin, at));
        past.min().filter(|past| past.0 < self.length() * MINUTE)
    }

    /// How long ago it was open last, at a moment at which it is not.
    fn closed_for(&self, at: Wall) -> Millis {
        let ends = self.begins().map(|begin| since((begin + self.length()) % WEEK, at));
        ends.min().unwrap_or_default()
    }

    /// When it begins next, after this moment.
    fn next(&self, at: Wall) -> Wall {
        let ahead = self.begins().map(|begin| WEEK * MINUTE - since(begin, at).0).min();
        Wall(at.0.saturating_add(ahead.unwrap_or_default()))
    }

    /// The minutes of the week at which it begins.
    fn begins(&self) -> impl Iterator<Item = u64> {
        (0..).zip(self.days).filter(|(_, on)| *on).map(|(day, _)| day * DAY + self.from)
    }

    /// In minutes, at most a day.
    fn length(&self) -> u64 {
        if self.to > self.from { self.to - self.from } else { self.to + DAY - self.from }
    }
}

/// The time since a minute of the week was last.
fn since(minute: u64, at: Wall) -> Millis {
    let now = (at.0 % (WEEK * MINUTE) + FIRST_DAY * DAY * MINUTE) % (WEEK * MINUTE);
    Millis((now + WEEK * MINUTE - minute * MINUTE) % (WEEK * MINUTE))
}

/// A moment with regard to some windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hour {
    /// There are no windows.
    Any,
    /// Inside of one.
    Inside {
        /// Which: the one that has been open for longest.
        window: Window,
        /// For how long.
        since: Millis,
    },
    /// Outside of all.
    Outside {
        /// Since when.
        since: Millis,
        /// When the next one begins.
        begins: Wall,
    },
}

impl Hour {
    /// Of a moment.
    pub fn of(windows: &[Window], at: Wall) -> Hour {
        let open = windows.iter().filter_map(|window| Some((window.open_for(at)?, *window)));
        if let Some((since, window)) = open.max_by_key(|(since, _)| *since) {
            return Hour::Inside { window, since };
        }
        let since = windows.iter().map(|window| window.closed_for(at)).min();
        let begins = windows.iter().map(|window| window.next(at)).min();
        since.zip(begins).map_or(Hour::Any, |(since, begins)| Hour::Outside { since, begins })
    }

    /// For how long it has been so; `None`: always.
    pub(crate) fn since(&self) -> Option<Millis> {
        match self {
            Hour::Any => None,
            Hour::Inside { since, .. } | Hour::Outside { since, .. } => Some(*since),
        }
    }

    /// Why nothing happens, with when that may change.
    pub(crate) fn excuse(&self, why: Waiting) -> Waiting {
        match self {
            Hour::Any | Hour::Inside { .. } => why,
            Hour::Outside { begins, .. } => {
                Waiting::OutsideWindow { begins: *begins, meanwhile: Box::new(why) }
            }
        }
    }

    /// For the gates of a decision; `None`: there is nothing to tell.
    pub(crate) fn told(&self) -> Option<String> {
        match self {
            Hour::Any => None,
            Hour::Inside { window, .. } => Some(format!("inside {window} UTC")),
            Hour::Outside { begins, .. } => Some(format!("outside; the next begins {}", minute(*begins))),
        }
    }
}

/// A point in time to the minute: `Mon 2026-11-30 08:00 UTC`.
pub(crate) fn minute(at: Wall) -> String {
    let (days, minutes) = (at.0 / (DAY * MINUTE), at.0 / MINUTE % DAY);
    let name = usize::try_from((days + FIRST_DAY) % 7).ok().and_then(|day| DAYS.get(day)).unwrap_or(&"?");
    // The civil calendar by whole days, as in https://howardhinnant.github.io/date_algorithms.html#civil_from_days
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, march) = (day - (153 * month + 2) / 5 + 1, month < 10);
    let (month, year) = (if march { month + 3 } else { month - 9 }, year + era * 400 + u64::from(!march));
    format!("{name} {year:04}-{month:02}-{day:02} {} UTC", clock(minutes))
}

fn clock(minutes: u64) -> String {
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

impl FromStr for Window {
    type Err = BadWindow;
    fn from_str(text: &str) -> Result<Self, BadWindow> {
        let bad = |why: String| BadWindow { text: text.chars().take(TEXT_MAX).collect(), why };
        if text.len() > TEXT_MAX {
            return Err(bad(format!("it is longer than {TEXT_MAX} bytes")));
        }
        let (days, hours) = match text.split_whitespace().collect::<Vec<_>>().as_slice() {
            [hours] => (None, *hours),
            [days, hours] => (Some(*days), *hours),
            _ => return Err(bad(EXAMPLE.to_owned())),
        };
        let (from, to) = hours.split_once('-').ok_or_else(|| bad(EXAMPLE.to_owned()))?;
        let (from, to) = (time(from).map_err(bad)?, time(to).map_err(bad)?);
        if from == to {
            return Err(bad("it begins and ends at the same time; whole days are 00:00-24:00".to_owned()));
        }
        if from == DAY {
            return Err(bad("it begins at 24:00; write 00:00 and the next day".to_owned()));
        }
        let days = days.map_or(Ok([true; 7]), days_of).map_err(bad)?;
        // Midnight is the end of the day that it ends.
        Ok(Window { days, from, to: if to == 0 { DAY } else { to } })
    }
}

const EXAMPLE: &str = "write days and hours, as in \"Mon..Fri 08:00-18:00\", or hours alone";

fn time(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no time of day; write hours and minutes, as in 08:30");
    let (hours, minutes) = text.split_once(':').ok_or_else(bad)?;
    let number = |text: &str| -> Option<u64> {
        (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
    };
    match (number(hours), number(minutes)) {
        (Some(hours @ 0..24), Some(minutes @ 0..60)) => Ok(hours * 60 + minutes),
        (Some(24), Some(0)) => Ok(DAY),
        (_, _) => Err(bad()),
    }
}

fn days_of(text: &str) -> Result<[bool; 7], String> {
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once("..").unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        if first > last {
            return Err(format!(
                "{part} runs backwards; a week begins on Monday: write its two parts, as in Mon,Sat..Sun"
            ));
        }
        days.iter_mut().take(last + 1).skip(first).for_each(|on| *on = true);
    }
    Ok(days)
}

fn day(text: &str) -> Result<usize, String> {
    let name = text.to_ascii_lowercase();
    let is_it = |(short, whole): (&&str, &&str)| short.eq_ignore_ascii_case(&name) || **whole == name;
    DAYS.iter().zip(&DAYS_WHOLE).position(is_it).ok_or_else(|| {
        let likeness = |day: &str| strsim::jaro_winkler(&name, &day.to_ascii_lowercase());
        let nearest = DAYS.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or(&"Mon");
        format!("{text:?} is no day; did you mean {nearest:?}? They are {}", DAYS.join(", "))
    })
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<(usize, &str)> =
            DAYS.iter().copied().enumerate().filter(|(day, _)| self.days.get(*day) == Some(&true)).collect();
        // Days in a row; three and more are written as a range.
        let runs = on.chunk_by(|(one, _), (next, _)| one + 1 == *next);
        let run = |run: &[(usize, &str)]| match run {
            [(_, first), _, .., (_, last)] => format!("{first}..{last}"),
            few => few.iter().map(|(_, day)| *day).collect::<Vec<_>>().join(","),
        };
        if on.len() < DAYS.len() {
            write!(f, "{} ", runs.map(run).collect::<Vec<_>>().join(","))?;
        }
        write!(f, "{}-{}", clock(self.from), clock(self.to))
    }
}
impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl TryFrom<String> for Window {
    type Error = BadWindow;
    fn try_from(text: String) -> Result<Self, BadWindow> {
        text.parse()
    }
}
impl From<Window> for String {
    fn from(window: Window) -> String {
        window.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::preview::tests::{LATER, commit, fallen, gates};
    use crate::words::Now;
    use proptest::prelude::*;

    fn window(text: &str) -> Window {
        text.parse().unwrap()
    }

    /// Minutes since Monday, 2026-11-23 00:00 UTC.
    fn at(minutes: u64) -> Wall {
        Wall(1_795_392_000_000 + minutes * MINUTE)
    }

    #[test]
    fn windows_have_one_form() {
        for (text, form) in [
            ("Mon..Fri 08:00-18:00", "Mon..Fri 08:00-18:00"),
            ("monday,Tue,WED,Fri 08:00-18:00", "Mon..Wed,Fri 08:00-18:00"),
            ("Sat,Sun 22:00-02:00", "Sat,Sun 22:00-02:00"),
            ("Mon..Sun 00:00-24:00", "00:00-24:00"),
            ("22:00-00:00", "22:00-24:00"),
        ] {
            assert_eq!(window(text).to_string(), form);
            assert_eq!(window(form), window(text));
        }
    }

    #[test]
    fn what_is_no_window_is_refused_with_what_would_be_one() {
        let why = |text: &str| text.parse::<Window>().unwrap_err().to_string();
        let example = "write days and hours, as in \"Mon..Fri 08:00-18:00\", or hours alone";
        assert_eq!(why(""), format!("\"\" is not a window: {example}"));
        assert_eq!(why("Mon"), format!("\"Mon\" is not a window: {example}"));
        assert_eq!(
            why("Mon 08:00-12:00 13:00-14:00"),
            format!("\"Mon 08:00-12:00 13:00-14:00\" is not a window: {example}")
        );
        let day = "\"Mno 08:00-18:00\" is not a window: \"Mno\" is no day; did you mean \"Mon\"? They are Mon, Tue, Wed, Thu, Fri, Sat, Sun";
        assert_eq!(why("Mno 08:00-18:00"), day);
        assert!(why("Fri..Mon 08:00-18:00").contains("Fri..Mon runs backwards"));
        for time in ["8:00-18:00", "08:60-18:00", "24:01-18:00", "25:00-18:00", "0800-1800", "+8:00-18:00"] {
            assert!(why(time).contains("is no time of day; write hours and minutes, as in 08:30"), "{time}");
        }
        assert!(why("08:00-08:00").contains("whole days are 00:00-24:00"));
        assert!(why("24:00-02:00").contains("write 00:00 and the next day"));
        assert!(why(&"Mon,".repeat(100)).contains("longer than 100 bytes"));
    }

    #[test]
    fn inside_and_outside_to_the_millisecond() {
        let windows = [window("Mon..Fri 08:00-18:00"), window("Sat 22:00-02:00")];
        let hour = |wall: Wall| Hour::of(&windows, wall);
        let eight = at(8 * 60);
        assert_eq!(minute(eight), "Mon 2026-11-23 08:00 UTC");
        let before = Wall(eight.0 - 1);
        // Since two on Sunday.
        let since = Millis(30 * 60 * MINUTE - 1);
        assert_eq!(hour(before), Hour::Outside { since, begins: eight });
        assert_eq!(hour(eight), Hour::Inside { window: windows[0], since: Millis(0) });
        let last = Wall(at(18 * 60).0 - 1);
        assert_eq!(hour(last), Hour::Inside { window: windows[0], since: Millis(10 * 60 * MINUTE - 1) });
        let tuesday = at(DAY + 8 * 60);
        assert_eq!(hour(at(18 * 60)), Hour::Outside { since: Millis(0), begins: tuesday });
        let sunday = at(6 * DAY + 60);
        assert_eq!(hour(sunday), Hour::Inside { window: windows[1], since: Millis(3 * 60 * MINUTE) });
        let next = at(WEEK + 8 * 60);
        assert_eq!(hour(at(6 * DAY + 120)), Hour::Outside { since: Millis(0), begins: next });
        assert_eq!(Hour::of(&[], eight), Hour::Any);
        assert_eq!(minute(Wall(0)), "Thu 1970-01-01 00:00 UTC");
        assert_eq!(minute(Wall(1_709_164_800_000)), "Thu 2024-02-29 00:00 UTC");
        assert!(!minute(Wall(u64::MAX)).is_empty());
    }

    #[test]
    fn a_decision_names_the_window_in_which_it_was_made_or_outside_of_which_it_was_allowed() {
        let mut engine = fallen(&[("acting.windows", "Mon..Fri 08:00-18:00")]);
        let noon = Now { wall: at(12 * 60), ..LATER };
        assert_eq!(gates(&engine, noon), ["window: inside Mon..Fri 08:00-18:00 UTC"]);
        let evening = Now { wall: at(20 * 60), ..LATER };
        let asks = "outside of the policy's windows until Tue 2026-11-24 08:00 UTC; until then web may move to s1 once \
                    somebody says `hactl failover approve web`";
        assert_eq!(gates(&engine, evening), [asks]);
        let approve = Command::Approve { instance: "web".parse().unwrap(), reason: "at once".to_owned() };
        commit(&mut engine, approve);
        let outside = "window: outside; the next begins Tue 2026-11-24 08:00 UTC";
        assert_eq!(gates(&engine, evening), [outside, "approval: test: at once"]);
    }

    prop_compose! {
        fn any_window()(days in 1..128u8, from in 0..DAY, to in 1..=DAY) -> Window {
            let days = std::array::from_fn(|day| days >> day & 1 == 1);
            Window { days, from, to: if to == from { to % DAY + 1 } else { to } }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[MonTueSat.,: 0-9-]{0,30}|\\PC{0,30}") {
            if let Ok(window) = text.parse::<Window>() {
                prop_assert_eq!(window.to_string().parse::<Window>(), Ok(window));
            }
        }

        /// As somebody would say it who walks through the week minute by minute.
        #[test]
        fn a_moment_is_where_the_days_and_hours_say(window in any_window(), moment in 0..3 * WEEK) {
            prop_assert_eq!(window.to_string().parse::<Window>(), Ok(window));
            let is_open = |moment: u64| {
                let (day, minute) = ((moment / DAY) as usize, moment % DAY);
                let (today, yesterday) = (window.days[day % 7], window.days[(day + 6) % 7]);
                match window.from < window.to {
                    true => today && (window.from..window.to).contains(&minute),
                    false => today && minute >= window.from || yesterday && minute < window.to,
                }
            };
            let hour = Hour::of(&[window], at(moment));
            prop_assert_eq!(matches!(hour, Hour::Inside { .. }), is_open(moment));
            if let Hour::Outside { begins, since } = hour {
                let next = (moment..).find(|moment| is_open(*moment)).unwrap();
                prop_assert_eq!(begins, at(next));
                let last = (0..moment + WEEK).rev().find(|moment| is_open(*moment)).unwrap() + 1;
                prop_assert_eq!(since, Millis((moment + WEEK - last) * MINUTE));
            }
        }
    }
}
