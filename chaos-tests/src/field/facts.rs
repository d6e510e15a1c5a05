//! What is known when a scenario is over, as plain data: the rack's report and journal, every member's log and memory,
//! what was acknowledged, what we broke, who ended and what he said.
//!
//! Why it exists: the checks are functions of it. It is written to `facts.json` beside the members' words, except for
//! journal and logs, which `trail.txt` shows in their order.
//! What it never does: judge.

use super::notes::Acked;
use crate::rack::{Journal, Report};
use policies::{
    Armed, ClusterState, InstanceId, InstanceRecord, LogIndex, MemberId, NodeId, NodeRecord, Plan, PolicyId,
    PolicyRecord, Proposal,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Everything that is known.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Facts {
    /// The names by which the array knows the nodes.
    pub(super) initiators: BTreeMap<NodeId, String>,
    /// Which node is behind each port of the switch.
    pub(super) ports: BTreeMap<String, NodeId>,
    /// What the array, the switch and the boot service saw.
    pub(super) report: Report,
    /// The same, command by command.
    #[serde(skip)]
    pub(super) journal: Journal,
    /// Nodes that we made ill; only they may be fenced.
    pub(super) struck: BTreeSet<NodeId>,
    /// What the cluster acknowledged.
    pub(super) acked: Vec<Acked>,
    /// Members that ended, and how.
    pub(super) ends: Vec<End>,
    /// What each running member remembers, at the same moment.
    pub(super) memories: BTreeMap<MemberId, Memory>,
    /// What each member left on its disk.
    #[serde(skip)]
    pub(super) logs: BTreeMap<MemberId, Log>,
}

/// The committed log of a member.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// The state that it begins with.
    pub(super) begins: Arc<ClusterState>,
    /// What comes after that.
    pub(super) entries: BTreeMap<LogIndex, Arc<Proposal>>,
}

/// The committed state as one member has applied it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Memory {
    /// Up to this entry of the log.
    pub(super) applied: LogIndex,
    pub(super) nodes: BTreeMap<NodeId, NodeRecord>,
    pub(super) instances: BTreeMap<InstanceId, InstanceRecord>,
    /// Oldest first.
    pub(super) plans: Vec<Plan>,
    /// Policies and their versions.
    pub(super) policies: BTreeMap<PolicyId, LogIndex>,
    pub(super) armed: Armed,
}

/// Why a member's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ending {
    /// We killed it, as a power failure would.
    Killed,
    /// The kernel killed it because of a limit that we set.
    OutOfMemory,
    /// It could not go on because of what we did to it, and ended by itself.
    GaveUp,
    /// It ended by itself, and nobody had done anything to it.
    Unexpected,
}

/// The end of a member's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct End {
    pub(super) member: MemberId,
    pub(super) ending: Ending,
    /// As the system tells it.
    pub(super) status: String,
    /// The last lines of its log, oldest first.
    pub(super) last_words: Vec<String>,
}

impl Memory {
    /// What a member with this state remembers.
    pub(super) fn of(state: &ClusterState, applied: LogIndex) -> Memory {
        let version = |(name, record): (&PolicyId, &PolicyRecord)| (name.clone(), record.version);
        let mut nodes = state.nodes.clone();
        // As a member shows them.
        nodes
            .values_mut()
            .for_each(|record| supervisor::seal::hide_node(std::sync::Arc::make_mut(&mut record.node)));
        Memory {
            applied,
            nodes,
            instances: state.instances.clone(),
            plans: state.plans.values().cloned().collect(),
            policies: state.policies.iter().map(version).collect(),
            armed: state.armed.clone(),
        }
    }
}

impl Facts {
    /// The memory of the first member; [`super::checks`] and [`super::court`] make sure that all are the same.
    pub(super) fn memory(&self) -> Option<&Memory> {
        self.memories.values().next()
    }

    /// All failovers, oldest first.
    pub(super) fn plans(&self) -> &[Plan] {
        self.memory().map_or(&[], |memory| &memory.plans)
    }
}
