//! What is really so, told by nobody's belief.
//!
//! Why it exists: several properties compare the program with it.
//! What it never does: forget what is under way.

use super::fact::{Deed, Fact};
use policies::{MemberId, NodeId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

/// Heartbeats that are farther apart than this, in µs, are not an unbroken row: the node was silent for `suspect_after` of
/// the simulator's policy (quick), and whoever could not reach its kernel then either may have called it dead.
const GAP: u64 = 500_000;
/// A node whose newest heartbeat is younger than this, in µs, is not silent: heartbeats come every 250 ms.
const JUST_NOW: u64 = 350_000;

/// The world's own state.
#[derive(Debug, Default)]
pub struct Truth {
    /// Nodes with power.
    pub powered: BTreeSet<NodeId>,
    /// Whose writes arrive, by volume.
    pub writers: BTreeMap<VolumeId, BTreeSet<NodeId>>,
    /// The network of each node.
    pub networks: BTreeMap<NodeId, u16>,
    /// Commands on their way to devices, with their numbers.
    pub commands: BTreeMap<Deed, i64>,
    /// Since when each member has received heartbeats of each node without a gap, and the last one, in µs.
    pub heard: BTreeMap<NodeId, BTreeMap<MemberId, (u64, u64)>>,
    /// Members that run.
    pub up: BTreeSet<MemberId>,
}

impl Truth {
    /// Takes a fact in.
    pub fn take(&mut self, _now: u64, fact: &Fact) {
        match fact {
            Fact::Power { node, on: true } => drop(self.powered.insert(node.clone())),
            Fact::Power { node, on: false } => drop(self.powered.remove(node)),
            Fact::Session { node, volume, open } => {
                let writers = self.writers.entry(volume.clone()).or_default();
                match open {
                    true => drop(writers.insert(node.clone())),
                    false => drop(writers.remove(node)),
                }
            }
            Fact::Port { node, vlan: Some(vlan) } => drop(self.networks.insert(node.clone(), *vlan)),
            Fact::Port { node, vlan: None } => drop(self.networks.remove(node)),
            Fact::Started { member, .. } => drop(self.up.insert(*member)),
            Fact::Died { member, .. } => drop(self.up.remove(member)),
            Fact::Sent { .. }
            | Fact::Struck { .. }
            | Fact::Looked { .. }
            | Fact::Applied { .. }
            | Fact::Installed { .. }
            | Fact::Asked { .. }
            | Fact::Answered { .. }
            | Fact::Trouble { .. } => {}
        }
    }

    /// A heartbeat has arrived.
    pub fn heard(&mut self, now: u64, node: &NodeId, member: MemberId) {
        let heard = self.heard.entry(node.clone()).or_default().entry(member).or_insert((now, now));
        if now - heard.1 > GAP {
            heard.0 = now;
        }
        heard.1 = now;
    }

    /// For how long a member has heard a node without a gap, up to now.
    pub fn hears_for(&self, node: &NodeId, member: MemberId, now: u64) -> Option<u64> {
        let (since, last) = self.heard.get(node)?.get(&member)?;
        (now - last <= JUST_NOW).then_some(now - since)
    }

    /// A command is on its way (+1) or no longer (-1).
    pub fn under_way(&mut self, deed: &Deed, change: i64) {
        let count = self.commands.entry(deed.clone()).or_default();
        *count += change;
        if *count == 0 {
            self.commands.remove(deed);
        }
    }

    /// Nodes with power whose writes to the volume arrive.
    pub fn live_writers(&self, volume: &VolumeId) -> Vec<&NodeId> {
        let writers = self.writers.get(volume).into_iter().flatten();
        writers.filter(|node| self.powered.contains(*node)).collect()
    }
}
