//! The small words: ids, indexes, times. One word per idea; `docs/GLOSSARY.md` explains each.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a name: use 1 to 63 of a-z, 0-9, '-', '.' and '_', beginning with a letter or a digit"
)]
pub struct BadName {
    text: String,
}

fn check_name(text: &str) -> Result<(), BadName> {
    let fits = (1..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b));
    if fits { Ok(()) } else { Err(BadName { text: text.chars().take(80).collect() }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $type {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                check_name(text).map(|()| $type(text.to_owned()))
            }
        }
        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                check_name(&text).map(|()| $type(text))
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// A physical server with a BMC. An id is never an address and never reused for other hardware.
    NodeId
);
name!(
    /// The logical server that fails over: identity, networks, volumes, boot source.
    InstanceId
);
name!(
    /// A volume at a storage provider.
    VolumeId
);
name!(
    /// A named policy document.
    PolicyId
);
name!(
    /// A configured storage, network or boot provider.
    ProviderId
);
name!(
    /// Who owns an instance: a customer, a department, a project.
    TenantId
);

name!(
    /// A program of an `exec` provider, in each member's own directory of such programs; never a path.
    ProgramName
);

impl Default for PolicyId {
    /// The policy of what names none and is selected by none.
    fn default() -> Self {
        PolicyId(crate::state::DEFAULT_POLICY.to_owned())
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $type:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(pub u64);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl FromStr for $type {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.strip_prefix($prefix).unwrap_or(text).parse().map($type)
            }
        }
    };
}

number!(
    /// A supervisor process in the Raft cluster. Never reused: a member that lost its store comes back under a new id.
    MemberId, "m"
);
number!(
    /// An index of the replicated log. The index of an intent is the token of its effect (R8).
    LogIndex, "i"
);
number!(
    /// A failover (a plan), named by the log index of the entry that created it.
    PlanId, "f"
);
number!(
    /// A backup, named by the log index of the order.
    BackupId, "b"
);
number!(
    /// Counts the placements of one instance; +1 at each.
    Epoch, "e"
);

impl Epoch {
    /// What a node says that waits for an instance as a hot spare. No placement comes so far.
    pub const STANDBY: Epoch = Epoch(u64::MAX);
}
number!(
    /// A leadership, named by the log index of the leader's own `TookOver` (R10). A Raft term is not an epoch.
    LeaderEpoch, "L"
);
number!(
    /// One life of a process or an operating system: drawn at random at its start.
    BootId, "b"
);

/// A length of time in milliseconds. Written as `250ms`, `2s`, `10m`, `1h`, `7d`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Millis(pub u64);

impl Millis {
    /// Whole seconds.
    pub const fn secs(seconds: u64) -> Self {
        Millis(seconds * 1000)
    }
}

/// Why a text is not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a length of time: write a number and a unit, as in 250ms, 2s, 10m, 1h or 7d")]
pub struct BadMillis {
    text: String,
}

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl FromStr for Millis {
    type Err = BadMillis;
    fn from_str(text: &str) -> Result<Self, BadMillis> {
        let bad = || BadMillis { text: text.chars().take(40).collect() };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        let number: u64 = number.parse().map_err(|_| bad())?;
        number.checked_mul(*factor).map(Millis).ok_or_else(bad)
    }
}
impl TryFrom<String> for Millis {
    type Error = BadMillis;
    fn try_from(text: String) -> Result<Self, BadMillis> {
        text.parse()
    }
}
impl From<Millis> for String {
    fn from(length: Millis) -> String {
        length.to_string()
    }
}
impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |unit: &&(&str, u64)| self.0 != 0 && self.0.is_multiple_of(unit.1);
        let (unit, factor) = UNITS.iter().rev().find(fits).unwrap_or(&UNITS[0]);
        f.pad(&format!("{}{unit}", self.0 / factor))
    }
}
impl fmt::Debug for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Milliseconds since 1970, as stamped by the leader that proposed a command. For people; never compared with a clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wall(pub u64);

impl Wall {
    /// Time from `earlier` to `self`; zero if the stamps run backwards (two leaders, two clocks).
    pub fn since(self, earlier: Wall) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

/// Milliseconds on this process's CLOCK_BOOTTIME. Never sent to another machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Mono(pub u64);

impl Mono {
    /// Time from `earlier` to `self`.
    pub fn since(self, earlier: Mono) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}
impl std::ops::Add<Millis> for Mono {
    type Output = Mono;
    fn add(self, length: Millis) -> Mono {
        Mono(self.0.saturating_add(length.0))
    }
}

/// Both clocks, read once per input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For measuring.
    pub mono: Mono,
    /// For stamping.
    pub wall: Wall,
}

/// A sealed secret (ciphertext, as text). Opened only by the body, shown by nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub String);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<sealed>")
    }
}

/// An error and its causes in one line, for a log, an answer or a refusal.
pub fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The first so many of these names, and how many more there are: one line for a thousand objects.
pub fn first_of(names: impl IntoIterator<Item = String>, max: usize) -> Vec<String> {
    let mut names = names.into_iter();
    let mut named: Vec<String> = names.by_ref().take(max).collect();
    let more = names.count();
    named.extend((more > 0).then(|| format!("and {more} more")));
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_and_written_in_the_largest_whole_unit() {
        for (text, ms) in
            [("250ms", 250), ("2s", 2000), ("10m", 600_000), ("1h", 3_600_000), ("7d", 604_800_000)]
        {
            assert_eq!(text.parse(), Ok(Millis(ms)));
            assert_eq!(Millis(ms).to_string(), text);
        }
        assert_eq!(Millis(0).to_string(), "0ms");
        for bad in ["", "5", "ms", "1.5s", "-1s", "99999999999999999999s", "18446744073709551615d"] {
            assert!(bad.parse::<Millis>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_short_plain_and_lower_case() {
        assert!("node-1.rack_2".parse::<NodeId>().is_ok());
        assert_eq!(crate::state::DEFAULT_POLICY.parse(), Ok(PolicyId::default()));
        for bad in ["", "-a", "Node", "a b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }
}
