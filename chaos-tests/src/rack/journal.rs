//! The rack's journal: what was commanded, what was told, and what really came of it, each with its time.
//!
//! What this is: a list of changes as plain data, from the first state on.
//! Why it exists: whoever judges a run needs the order of these exactly; the report's events are sentences for people.
//! What it never does: forget in silence; it says how many of its oldest changes are gone. What ipmi_sim is told and tells
//! is not in it: only our own BMC says so exactly.

use policies::{NodeId, VolumeId};
use provisioning::rack::{BootChange, PortChange, SnapshotChange, VolumeChange};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Changes that are kept; older ones are forgotten, so that a rack can run for days. A scenario of a minute makes about
/// a thousand, nearly all of them readings of spares.
const CHANGES_MAX: usize = 20_000;

/// One thing that a judge needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// A node has power from now on, or no longer.
    Power {
        /// Which.
        node: NodeId,
        /// Which of the two.
        on: bool,
    },
    /// Its BMC took a command over the network.
    Commanded {
        /// Whose.
        node: NodeId,
        /// True if the command leaves it on, as a reset does.
        on: bool,
    },
    /// Its BMC took the order over the network to ask the operating system to shut down.
    Asked {
        /// Whose.
        node: NodeId,
    },
    /// Its BMC told somebody how its power is.
    Told {
        /// Whose.
        node: NodeId,
        /// What it told.
        on: bool,
    },
    /// The array carried out a change.
    Volume {
        /// Of which volume.
        volume: VolumeId,
        /// What.
        change: VolumeChange,
    },
    /// The array kept a volume's state.
    Snapshot {
        /// Of which volume.
        volume: VolumeId,
        /// What was asked for.
        change: SnapshotChange,
    },
    /// Writes of an initiator arrive from now on, for it has the right or a session, or they do no longer.
    Reach {
        /// At which volume.
        volume: VolumeId,
        /// Whose.
        initiator: String,
        /// Which of the two.
        open: bool,
    },
    /// The switch carried out a change. Token 0: so it was at first.
    Port {
        /// Of which port.
        port: String,
        /// What.
        change: PortChange,
    },
    /// The boot service carried out a change.
    Boot {
        /// For which node.
        node: NodeId,
        /// What.
        change: BootChange,
    },
}

/// A change, and when it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// When, ns since the rack's start.
    pub at: u64,
    /// What.
    pub change: Change,
}

/// All that was noted, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// How many of the oldest changes are gone.
    pub forgotten: u64,
    /// The others.
    pub changes: VecDeque<Noted>,
}

impl Journal {
    /// Notes a change.
    pub(super) fn add(&mut self, at: u64, change: Change) {
        if self.changes.len() == CHANGES_MAX {
            self.changes.pop_front();
            self.forgotten += 1;
        }
        self.changes.push_back(Noted { at, change });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_is_counted() {
        let mut journal = Journal::default();
        for at in 0..CHANGES_MAX as u64 + 3 {
            journal.add(at, Change::Power { node: "n1".parse().unwrap(), on: true });
        }
        assert_eq!((journal.forgotten, journal.changes.len()), (3, CHANGES_MAX));
        assert_eq!(journal.changes.front().map(|noted| noted.at), Some(3));
    }
}
