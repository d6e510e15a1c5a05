//! Storage array, switch and boot service.
//!
//! Why it exists: they decide what a node can really touch, whatever anybody believes.
//! What it never does: take a right away without being told, or know which machine is the rightful one.

use super::scene::IMAGE;
use super::world::Inner;
use crate::checkers::{Deed, Fact};
use policies::{Check, Epoch, Finding, InstanceId, LogIndex, NodeId, SnapshotName, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

/// How a provider behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    #[default]
    Well,
    /// Takes up to this many ms for an answer.
    Slow(u64),
    /// Answers nothing.
    Away,
    /// Takes commands, answers nothing, and carries them out as late as it may.
    Late,
    /// Says no.
    Refuses,
}

/// The devices' own state.
#[derive(Debug, Default)]
pub struct Array {
    /// Who has the right to each volume.
    rights: BTreeMap<VolumeId, BTreeSet<NodeId>>,
    /// Who is connected to each volume. A session outlives the right to it until it is dropped.
    sessions: BTreeMap<VolumeId, BTreeSet<NodeId>>,
    /// What was kept of each volume.
    snapshots: BTreeSet<(VolumeId, SnapshotName)>,
    /// The VLAN of each node's port.
    ports: BTreeMap<NodeId, Option<u16>>,
    /// Whom each instance boots on.
    roles: BTreeMap<InstanceId, (NodeId, Epoch)>,
    /// The newest token that each object has seen.
    newest: BTreeMap<String, LogIndex>,
    /// Refuses a second node on a volume.
    pub is_exclusive: bool,
    /// Refuses older tokens.
    pub compares_tokens: bool,
    /// How it behaves: storage, switch, boot service.
    pub manners: [Manner; 3],
}

impl Array {
    /// The first placement of an instance.
    pub fn place(&mut self, instance: &InstanceId, volume: &VolumeId, vlan: u16, node: &NodeId) {
        self.rights.entry(volume.clone()).or_default().insert(node.clone());
        self.ports.insert(node.clone(), Some(vlan));
        self.roles.insert(instance.clone(), (node.clone(), Epoch(1)));
    }

    /// The epoch of the instance that a node boots; 0 if none.
    pub fn boots(&self, node: &NodeId) -> Epoch {
        let role = self.roles.values().find(|(whom, _)| whom == node);
        role.map_or(Epoch(0), |(_, epoch)| *epoch)
    }

    /// True if a write of this node to any volume would arrive.
    pub fn may_write(&self, node: &NodeId) -> bool {
        self.sessions.values().any(|nodes| nodes.contains(node))
    }

    /// Whether the deed's wish holds.
    pub fn holds(&self, deed: &Deed) -> bool {
        let has = |of: &BTreeMap<VolumeId, BTreeSet<NodeId>>, volume, node| {
            of.get(volume).is_some_and(|nodes: &BTreeSet<NodeId>| nodes.contains(node))
        };
        match deed {
            Deed::Revoke { node, volume } => {
                !has(&self.rights, volume, node) && !has(&self.sessions, volume, node)
            }
            Deed::Snapshot { volume, name } => self.snapshots.contains(&(volume.clone(), *name)),
            Deed::Attach { node, volume } => {
                self.rights.get(volume).is_some_and(|nodes| nodes.len() == 1 && nodes.contains(node))
            }
            Deed::Close { node } => self.ports.get(node).is_none_or(Option::is_none),
            Deed::Open { node, vlan } => self.ports.get(node) == Some(&Some(*vlan)),
            Deed::Boot { node, instance, epoch } => self.roles.get(instance) == Some(&(node.clone(), *epoch)),
            Deed::PowerOff { .. } | Deed::ShutDown { .. } | Deed::Interrupt { .. } | Deed::PowerOn { .. } => {
                false
            }
        }
    }

    /// Takes note of the token; false if the object has seen a newer one and the device compares them.
    fn is_fresh(&mut self, deed: &Deed, token: LogIndex) -> bool {
        let newest = self.newest.entry(deed.object()).or_default();
        let fresh = token >= *newest;
        *newest = (*newest).max(token);
        fresh || !self.compares_tokens
    }

    /// The other node that has the volume, for a device that refuses a second one; or whoever has it, if its state is to be
    /// kept.
    pub fn holder(&self, deed: &Deed) -> Option<NodeId> {
        match deed {
            Deed::Attach { node, volume } => {
                let other = |nodes: &BTreeSet<NodeId>| nodes.iter().find(|other| *other != node).cloned();
                self.rights.get(volume).and_then(other).filter(|_| self.is_exclusive)
            }
            Deed::Snapshot { volume, name: SnapshotName::Failover(_) } => {
                self.rights.get(volume)?.first().cloned()
            }
            Deed::Snapshot { name: SnapshotName::Backup(_), .. } => None,
            Deed::Revoke { .. } | Deed::Close { .. } | Deed::Open { .. } | Deed::Boot { .. } => None,
            Deed::PowerOff { .. } | Deed::ShutDown { .. } | Deed::Interrupt { .. } | Deed::PowerOn { .. } => {
                None
            }
        }
    }
}

/// Why a device did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum No {
    /// It has seen a newer command.
    Old {
        /// Which.
        newest: LogIndex,
    },
    /// Somebody else has it.
    Held(NodeId),
    /// It does not say why.
    Just,
}

impl Inner {
    /// A provider's command arrives and takes effect, if the device lets it.
    pub fn change(&mut self, deed: &Deed, token: LogIndex) -> Result<(), No> {
        if !self.array.is_fresh(deed, token) {
            let newest = self.array.newest.get(&deed.object()).copied().unwrap_or_default();
            return Err(No::Old { newest });
        }
        if let Some(holder) = self.array.holder(deed) {
            return Err(No::Held(holder));
        }
        self.fact(Fact::Struck { deed: deed.clone() });
        match deed {
            Deed::Revoke { node, volume } => {
                self.array.rights.entry(volume.clone()).or_default().remove(node);
                // The session is dropped in a second step, as `tgtadm --op delete --mode conn` is one.
                let (node, volume, pause) = (node.clone(), volume.clone(), self.dice.between(0, 20_000));
                self.after(pause, move |inner| {
                    let has_right =
                        inner.array.rights.get(&volume).is_some_and(|nodes| nodes.contains(&node));
                    if !has_right {
                        inner.session(&volume, &node, false);
                    }
                });
            }
            Deed::Snapshot { volume, name } => drop(self.array.snapshots.insert((volume.clone(), *name))),
            Deed::Attach { node, volume } => {
                self.array.rights.entry(volume.clone()).or_default().insert(node.clone());
                self.use_what_it_may(node);
            }
            Deed::Close { node } => self.set_port(node, None),
            Deed::Open { node, vlan } => self.set_port(node, Some(*vlan)),
            Deed::Boot { node, instance, epoch } => {
                self.array.roles.insert(instance.clone(), (node.clone(), *epoch));
            }
            Deed::PowerOff { .. } | Deed::ShutDown { .. } | Deed::Interrupt { .. } | Deed::PowerOn { .. } => {
            }
        }
        Ok(())
    }

    /// What the devices have. A port is called as its node.
    pub fn find(&self, check: &Check) -> Finding {
        let is_there = match check {
            Check::Port(port) => self.machines.keys().any(|node| node.as_str() == port.port),
            Check::Volume(volume) | Check::Snapshot(volume) | Check::Backup(volume) => {
                self.array.rights.contains_key(&volume.volume)
            }
            Check::Boot(boot) => boot.image == IMAGE,
            Check::Free(_) => false,
        };
        if is_there { Finding::Fine } else { Finding::Absent(format!("there is no {check}")) }
    }

    fn set_port(&mut self, node: &NodeId, vlan: Option<u16>) {
        if self.array.ports.insert(node.clone(), vlan) != Some(vlan) {
            self.fact(Fact::Port { node: node.clone(), vlan });
        }
    }

    fn session(&mut self, volume: &VolumeId, node: &NodeId, open: bool) {
        let sessions = self.array.sessions.entry(volume.clone()).or_default();
        let changed = if open { sessions.insert(node.clone()) } else { sessions.remove(node) };
        if changed {
            self.fact(Fact::Session { node: node.clone(), volume: volume.clone(), open });
        }
    }

    /// A node with power connects to every volume that it has the right to.
    pub fn use_what_it_may(&mut self, node: &NodeId) {
        if !self.machine(node).power {
            return;
        }
        let rights = self.array.rights.iter().filter(|(_, nodes)| nodes.contains(node));
        let volumes: Vec<VolumeId> = rights.map(|(volume, _)| volume.clone()).collect();
        for volume in volumes {
            self.session(&volume, node, true);
        }
    }

    /// A node without power is connected to nothing.
    pub fn drop_sessions(&mut self, node: &NodeId) {
        let sessions = self.array.sessions.iter().filter(|(_, nodes)| nodes.contains(node));
        let volumes: Vec<VolumeId> = sessions.map(|(volume, _)| volume.clone()).collect();
        for volume in volumes {
            self.session(&volume, node, false);
        }
    }

    /// Tells the first placement to whoever judges.
    pub fn announce(&mut self, node: &NodeId) {
        let vlan = self.array.ports.get(node).copied().flatten();
        let power = self.machine(node).power;
        self.fact(Fact::Power { node: node.clone(), on: power });
        self.fact(Fact::Port { node: node.clone(), vlan });
        self.use_what_it_may(node);
    }
}
