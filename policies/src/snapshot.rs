//! The name of a volume's snapshot: `ha-fN`, after the failover N that asked for it.
//!
//! Why it exists: devices delete old snapshots of ours, and must never take another's for one of them; and a name goes to
//! programs on their command line. What it never does: stand for a name that is not exactly of this form.

use crate::words::PlanId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// What all our names begin with; the failover's number follows.
const BEGIN: &str = "ha-f";

/// A snapshot of ours. Their order is their age: a later failover has the greater number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotName(PlanId);

impl SnapshotName {
    /// The name of what this failover asks for. No two failovers have the same, so a volume has one of each at most.
    pub fn of(plan: PlanId) -> Self {
        SnapshotName(plan)
    }

    /// Those of `ours` that go once this one is there, so that `keep` are left at most: the oldest, and never itself.
    pub fn surplus(self, keep: u32, ours: &BTreeSet<SnapshotName>) -> Vec<SnapshotName> {
        let others = ours.iter().copied().filter(|name| *name != self);
        let kept = usize::try_from(keep).unwrap_or(usize::MAX).saturating_sub(1);
        others.clone().take(others.count().saturating_sub(kept)).collect()
    }
}

/// Why a text is not the name of a snapshot of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a snapshot of ours: those are called {BEGIN}N, after failover N")]
pub struct BadSnapshotName {
    text: String,
}

impl FromStr for SnapshotName {
    type Err = BadSnapshotName;
    fn from_str(text: &str) -> Result<Self, BadSnapshotName> {
        let number = text.strip_prefix(BEGIN).and_then(|number| number.parse().ok());
        let name = number.map(|number| SnapshotName(PlanId(number)));
        // One text for each name: no sign, no leading zero.
        let name = name.filter(|name| name.to_string() == text);
        name.ok_or_else(|| BadSnapshotName { text: text.chars().take(80).collect() })
    }
}

impl TryFrom<String> for SnapshotName {
    type Error = BadSnapshotName;
    fn try_from(text: String) -> Result<Self, BadSnapshotName> {
        text.parse()
    }
}

impl From<SnapshotName> for String {
    fn from(name: SnapshotName) -> String {
        name.to_string()
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BEGIN}{}", self.0.0)
    }
}

impl fmt::Debug for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_names_and_later_ones_are_greater() {
        let name = SnapshotName::of(PlanId(12));
        assert_eq!(name.to_string(), "ha-f12");
        assert_eq!("ha-f12".parse(), Ok(name));
        assert!(SnapshotName::of(PlanId(9)) < name, "by number, not by letter");
        for bad in [
            "",
            "ha-f",
            "ha-f012",
            "ha-f+1",
            "ha-f-1",
            "ha-f1 ",
            "HA-f1",
            "f1",
            "ha-f1/..",
            "ha-f99999999999999999999",
        ] {
            assert!(bad.parse::<SnapshotName>().is_err(), "{bad}");
        }
        let read = serde_json::from_str::<SnapshotName>("\"nightly\"").unwrap_err().to_string();
        assert!(read.contains("nightly") && read.contains("ha-fN"), "{read}");
    }
}
