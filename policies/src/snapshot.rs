//! The name of a volume's snapshot: `ha-fN` after the failover N, `ha-bN` after the backup N that asked for it.
//!
//! Why it exists: devices delete old snapshots of ours, and must never take another's for one of them; and a name goes to
//! programs on their command line. It also says what was promised of it: whether somebody may have been writing.
//! What it never does: stand for a name that is not exactly of this form.

use crate::words::{BackupId, PlanId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// What all our names begin with; the kind and the number follow.
const BEGIN: &str = "ha-";

/// A snapshot of ours. Within a kind their order is their age: what was asked for later has the greater number. Nothing asks
/// twice for the same, so a volume has one of each at most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SnapshotName {
    /// `ha-fN`: what was on the volume once nobody could write to it any more, before failover N gave it on.
    Failover(PlanId),
    /// `ha-bN`: what was on it at one moment of backup N, while whoever has it may have been writing: what a sudden loss of
    /// power would have left.
    Backup(BackupId),
}

impl SnapshotName {
    /// Those of `ours` that go once this one is there, so that `keep` of its kind are left at most: the oldest, and never
    /// itself. What failovers kept and what backups kept do not push each other out.
    pub fn surplus(self, keep: u32, ours: &BTreeSet<SnapshotName>) -> Vec<SnapshotName> {
        let kind = std::mem::discriminant(&self);
        let is_other = |name: &SnapshotName| *name != self && std::mem::discriminant(name) == kind;
        let others: Vec<SnapshotName> = ours.iter().copied().filter(is_other).collect();
        let kept = usize::try_from(keep).unwrap_or(usize::MAX).saturating_sub(1);
        let surplus = others.len().saturating_sub(kept);
        others.into_iter().take(surplus).collect()
    }
}

/// Why a text is not the name of a snapshot of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a snapshot of ours: those are called {BEGIN}fN, after failover N, or {BEGIN}bN, after backup N"
)]
pub struct BadSnapshotName {
    text: String,
}

impl FromStr for SnapshotName {
    type Err = BadSnapshotName;
    fn from_str(text: &str) -> Result<Self, BadSnapshotName> {
        let read = || {
            let (kind, number) = text.strip_prefix(BEGIN)?.split_at_checked(1)?;
            let number = number.parse().ok()?;
            match kind {
                "f" => Some(SnapshotName::Failover(PlanId(number))),
                "b" => Some(SnapshotName::Backup(BackupId(number))),
                _ => None,
            }
        };
        // One text for each name: no sign, no leading zero.
        let name = read().filter(|name| name.to_string() == text);
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
        match self {
            SnapshotName::Failover(plan) => write!(f, "{BEGIN}{plan}"),
            SnapshotName::Backup(backup) => write!(f, "{BEGIN}{backup}"),
        }
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
        let name = SnapshotName::Failover(PlanId(12));
        assert_eq!(name.to_string(), "ha-f12");
        assert_eq!("ha-f12".parse(), Ok(name));
        assert_eq!("ha-b12".parse(), Ok(SnapshotName::Backup(BackupId(12))));
        assert!(SnapshotName::Failover(PlanId(9)) < name, "by number, not by letter");
        for bad in [
            "",
            "ha-",
            "ha-f",
            "ha-b",
            "ha-x1",
            "ha-\u{e4}1",
            "ha-f012",
            "ha-ff1",
            "ha-bb1",
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

    #[test]
    fn backups_and_failovers_do_not_push_each_other_out() {
        let names = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<BTreeSet<_>>();
        let there = names(&["ha-f3", "ha-f9", "ha-b4", "ha-b5", "ha-b20"]);
        let surplus = |name: &str, keep| name.parse::<SnapshotName>().unwrap().surplus(keep, &there);
        assert_eq!(surplus("ha-b20", 1), ["ha-b4".parse().unwrap(), "ha-b5".parse().unwrap()]);
        assert_eq!(surplus("ha-f9", 1), ["ha-f3".parse().unwrap()]);
        assert_eq!(surplus("ha-f9", 5), []);
        assert_eq!(surplus("ha-b20", 3), []);
    }
}
