//! What can go wrong in the rack, as values that travel over its control API and come from its command line.
//!
//! Why it exists: one list of faults for the demo, the tests and whoever plays with it.
//! What it never does: it carries nothing out.

use policies::Millis;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A cable of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// First network card: heartbeats, probes.
    A,
    /// Second network card: heartbeats, probes.
    B,
    /// Both network cards.
    All,
    /// The way to the storage array. Its sessions stall, they do not end.
    Storage,
}

/// Something that happens to a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "fault", deny_unknown_fields)]
pub enum Fault {
    /// The power button: on.
    PowerOn,
    /// The power button held: off.
    PowerOff,
    /// Everything stands still for good, the kernel answers nothing; only power helps.
    Hang,
    /// The kernel panics: programs gone, power on.
    Panic {
        /// The panic hook still sends a farewell.
        gasp: bool,
    },
    /// Everything stands still, for a while: [`Fault::Thaw`] lets it go on as if nothing had happened.
    Freeze,
    /// Ends a freeze.
    Thaw,
    /// Only the agent stands still: the machine works, but looks dead.
    StopAgent,
    /// Machine and BMC lose their supply.
    PowerLoss,
    /// A cable is pulled.
    CutNic {
        /// Which.
        path: Path,
    },
    /// All cables are plugged in, the supply is back, the BMC is itself. A machine that lost its supply stays off.
    Heal,
    /// The BMC, or the power behind it, begins to behave like this.
    BmcMood {
        /// How.
        mood: MoodChange,
    },
}

/// Whether the power does what the BMC is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Honesty {
    /// Yes.
    #[default]
    Honest,
    /// It accepts "off" and then reports "off" while the machine runs on.
    Lying,
    /// It accepts "off", does nothing and reports "on".
    IgnoresOff,
    /// It accepts every command, but the operating system does not listen to the power button.
    IgnoresSoft,
    /// It refuses every power command.
    Refuses,
}

/// How a BMC behaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mood {
    /// It answers nothing at all.
    pub dead: bool,
    /// Each answer takes this long.
    pub reply_delay: Millis,
    /// Switching off takes this long after the command was accepted, or the operating system has shut down.
    pub off_delay: Millis,
    /// Whether power commands do what they say.
    pub honesty: Honesty,
    /// Sessions at the same time.
    pub sessions_max: usize,
}

/// Sessions that a BMC allows at once. Real ones allow 4 to 15 (facts/performance.md §3c).
pub const SESSIONS_MAX: usize = 15;

impl Default for Mood {
    fn default() -> Self {
        Mood {
            dead: false,
            reply_delay: Millis(0),
            off_delay: Millis(0),
            honesty: Honesty::Honest,
            sessions_max: SESSIONS_MAX,
        }
    }
}

/// One change of a mood; the rest of the mood stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "mood", content = "value")]
pub enum MoodChange {
    /// Well-behaved in every respect.
    Ok,
    /// No answers.
    Dead,
    /// Late answers.
    Slow(Millis),
    /// Late power-off.
    OffDelay(Millis),
    /// See [`Honesty::Lying`].
    Lying,
    /// See [`Honesty::IgnoresOff`].
    IgnoreOff,
    /// See [`Honesty::IgnoresSoft`].
    IgnoreSoft,
    /// See [`Honesty::Refuses`].
    Refuse,
    /// This many sessions at once.
    Sessions(usize),
}

impl Mood {
    /// The mood after the change.
    pub fn change(&mut self, change: MoodChange) {
        match change {
            MoodChange::Ok => *self = Mood::default(),
            MoodChange::Dead => self.dead = true,
            MoodChange::Slow(delay) => self.reply_delay = delay,
            MoodChange::OffDelay(delay) => self.off_delay = delay,
            MoodChange::Lying => self.honesty = Honesty::Lying,
            MoodChange::IgnoreOff => self.honesty = Honesty::IgnoresOff,
            MoodChange::IgnoreSoft => self.honesty = Honesty::IgnoresSoft,
            MoodChange::Refuse => self.honesty = Honesty::Refuses,
            MoodChange::Sessions(max) => self.sessions_max = max,
        }
    }
}

/// Why a text is no mood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no mood: use ok, dead, slow[=200ms], off-delay[=1s], lying, ignore-off, ignore-soft, refuse or \
     sessions[=1]"
)]
pub struct BadMood {
    text: String,
}

impl FromStr for MoodChange {
    type Err = BadMood;
    fn from_str(text: &str) -> Result<Self, BadMood> {
        let bad = || BadMood { text: text.chars().take(40).collect() };
        let (word, value) = match text.split_once('=') {
            Some((word, value)) => (word, Some(value)),
            None => (text, None),
        };
        let length = |default| value.map_or(Ok(default), |value| value.parse().map_err(|_| bad()));
        match (word, value) {
            ("ok", None) => Ok(MoodChange::Ok),
            ("dead", None) => Ok(MoodChange::Dead),
            ("lying", None) => Ok(MoodChange::Lying),
            ("ignore-off", None) => Ok(MoodChange::IgnoreOff),
            ("ignore-soft", None) => Ok(MoodChange::IgnoreSoft),
            ("refuse", None) => Ok(MoodChange::Refuse),
            ("slow", _) => length(Millis(200)).map(MoodChange::Slow),
            ("off-delay", _) => length(Millis::secs(1)).map(MoodChange::OffDelay),
            ("sessions", None) => Ok(MoodChange::Sessions(1)),
            ("sessions", Some(value)) => value.parse().map(MoodChange::Sessions).map_err(|_| bad()),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for MoodChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MoodChange::Ok => write!(f, "ok"),
            MoodChange::Dead => write!(f, "dead"),
            MoodChange::Slow(delay) => write!(f, "slow={delay}"),
            MoodChange::OffDelay(delay) => write!(f, "off-delay={delay}"),
            MoodChange::Lying => write!(f, "lying"),
            MoodChange::IgnoreOff => write!(f, "ignore-off"),
            MoodChange::IgnoreSoft => write!(f, "ignore-soft"),
            MoodChange::Refuse => write!(f, "refuse"),
            MoodChange::Sessions(max) => write!(f, "sessions={max}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::PowerOn => write!(f, "is switched on by hand"),
            Fault::PowerOff => write!(f, "is switched off by hand"),
            Fault::Hang => write!(f, "hangs"),
            Fault::Panic { gasp: true } => write!(f, "panics and says so"),
            Fault::Panic { gasp: false } => write!(f, "panics"),
            Fault::Freeze => write!(f, "freezes"),
            Fault::Thaw => write!(f, "thaws"),
            Fault::StopAgent => write!(f, "loses its agent"),
            Fault::PowerLoss => write!(f, "loses its supply, and its BMC with it"),
            Fault::CutNic { path: Path::A } => write!(f, "loses network a"),
            Fault::CutNic { path: Path::B } => write!(f, "loses network b"),
            Fault::CutNic { path: Path::All } => write!(f, "loses both networks"),
            Fault::CutNic { path: Path::Storage } => write!(f, "loses the way to its storage"),
            Fault::Heal => write!(f, "is healed"),
            Fault::BmcMood { mood } => write!(f, "has a BMC in the mood {mood}"),
        }
    }
}

/// How array, switch and boot service answer requests for changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceMood {
    /// As they should.
    #[default]
    Ok,
    /// Never.
    Hang,
    /// They acknowledge and change nothing.
    Lie,
    /// They refuse.
    Refuse,
    /// A revoke removes the right but leaves sessions alive, as tgt does (facts/lab.md §2).
    KeepSessions,
}

impl fmt::Display for DeviceMood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceMood::Ok => "ok",
            DeviceMood::Hang => "hang",
            DeviceMood::Lie => "lie",
            DeviceMood::Refuse => "refuse",
            DeviceMood::KeepSessions => "keep-sessions",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moods_are_read_with_and_without_a_value() {
        let read = |text: &str| text.parse::<MoodChange>();
        assert_eq!(read("slow"), Ok(MoodChange::Slow(Millis(200))));
        assert_eq!(read("slow=5ms"), Ok(MoodChange::Slow(Millis(5))));
        assert_eq!(read("sessions=3"), Ok(MoodChange::Sessions(3)));
        let texts =
            ["ok", "dead", "slow=5ms", "off-delay=2s", "lying", "ignore-off", "ignore-soft", "refuse"];
        for text in texts.into_iter().chain(["sessions=3"]) {
            assert_eq!(read(text).unwrap().to_string(), text);
        }
        for bad in ["", "ok=1", "slow=x", "sessions=-1", "angry"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn changes_add_up_until_ok() {
        let mut mood = Mood::default();
        mood.change(MoodChange::Dead);
        mood.change(MoodChange::Lying);
        assert_eq!(mood, Mood { dead: true, honesty: Honesty::Lying, ..Mood::default() });
        mood.change(MoodChange::Ok);
        assert_eq!(mood, Mood::default());
    }
}
