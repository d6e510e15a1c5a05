//! What is known when a scenario is over, as plain data: the array's journal, every member's memory, what was
//! acknowledged, what we broke, who ended and what he said.
//!
//! Why it exists: the checks are functions of it, and it is written to `facts.json` beside the logs.
//! What it never does: judge.

use super::notes::Acked;
use crate::rack::Report;
use policies::{
    Armed, Brakes, InstanceId, InstanceRecord, LogIndex, MemberId, NodeId, NodeRecord, Plan, PolicyId,
    VolumeId,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Everything that is known.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Facts {
    /// The names by which the array knows the nodes.
    pub(super) initiators: BTreeMap<NodeId, String>,
    /// Where each volume was at first.
    pub(super) homes: BTreeMap<VolumeId, Place>,
    /// The limits that were in force.
    pub(super) brakes: Brakes,
    /// What the array, the switch and the boot service saw.
    pub(super) report: Report,
    /// Nodes that we made ill; only they may be fenced.
    pub(super) struck: BTreeSet<NodeId>,
    /// What the cluster acknowledged.
    pub(super) acked: Vec<Acked>,
    /// Members that ended, and how.
    pub(super) ends: Vec<End>,
    /// What each running member remembers, at the same moment.
    pub(super) memories: BTreeMap<MemberId, Memory>,
}

/// An instance on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Place {
    pub(super) instance: InstanceId,
    pub(super) node: NodeId,
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

impl Facts {
    /// The memory of the first member; [`super::checks`] makes sure that all are the same.
    pub(super) fn memory(&self) -> Option<&Memory> {
        self.memories.values().next()
    }

    /// All failovers, oldest first.
    pub(super) fn plans(&self) -> &[Plan] {
        self.memory().map_or(&[], |memory| &memory.plans)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::rack::array::{Run, VolumeReport};
    use policies::{
        Action, Cause, Decision, Epoch, Evidence, Intent, LeaderEpoch, Millis, Outcome, Phase, PlanId,
        Policy, Seen, Wall,
    };

    fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(name: &str) -> T {
        name.parse().unwrap()
    }

    fn run(initiator: &str, grant: u64, first: u64, last: u64) -> Run {
        Run { initiator: initiator.to_owned(), grant, first, last, first_at: first * 10, last_at: last * 10 }
    }

    /// One failover from node-1 to node-2, with nothing wrong.
    pub(in super::super) fn calm() -> Facts {
        let intent = Intent {
            token: LogIndex(20),
            leader: LeaderEpoch(5),
            at: Wall(1000),
            action: Action::PowerOff { node: name("node-1"), level: 0 },
            end: Some((Outcome::Done(Seen::OffTwice { already: false, took: Millis(500) }), Wall(1500))),
        };
        let attach = Intent {
            token: LogIndex(25),
            at: Wall(1600),
            action: Action::Attach { node: name("node-2"), provider: name("rack"), volume: name("vol-1") },
            ..intent.clone()
        };
        let plan = Plan {
            id: PlanId(19),
            at: Wall(990),
            decision: Decision {
                instance: Some(name("web-1")),
                from: name("node-1"),
                spare: Some(name("node-2")),
                cause: Cause::Silent,
                evidence: Evidence::default(),
                policy: (name("cautious"), LogIndex(0)),
                gates: Vec::new(),
                runners_up: Vec::new(),
            },
            epoch: Epoch(2),
            phase: Phase::Done,
            stuck: None,
            intents: vec![intent, attach],
            proof: None,
            entered: vec![
                (Phase::Fencing, Wall(1000)),
                (Phase::Moving, Wall(1550)),
                (Phase::Done, Wall(2000)),
            ],
        };
        let memory = Memory {
            applied: LogIndex(40),
            nodes: BTreeMap::new(),
            instances: BTreeMap::new(),
            plans: vec![plan],
            policies: BTreeMap::from([(name("note-1"), LogIndex(30))]),
            armed: Armed { armed: true, order: policies::Order::default() },
        };
        let volume = VolumeReport {
            volume: name("vol-1"),
            writes: 20,
            lost_writes: 0,
            overlapping_writes: 0,
            runs: vec![run("iqn-1", 1, 1, 10), run("iqn-2", 2, 11, 20)],
            handovers: Vec::new(),
        };
        let event = |text: &str| crate::rack::world::Event { at: 1, text: text.to_owned() };
        Facts {
            initiators: [("node-1", "iqn-1"), ("node-2", "iqn-2"), ("node-3", "iqn-3")]
                .map(|(node, initiator)| (name(node), initiator.to_owned()))
                .into(),
            homes: BTreeMap::from([(name("vol-1"), Place { instance: name("web-1"), node: name("node-1") })]),
            brakes: Policy::presets().into_iter().next().unwrap().1.brakes,
            report: Report {
                started: Wall(0),
                now: 1000,
                lost_writes: 0,
                overlapping_writes: 0,
                volumes: vec![volume],
                events: vec![event("node-1 hangs"), event("vol-1 is attached to iqn-2 (i25)")],
            },
            struck: BTreeSet::from([name("node-1")]),
            acked: vec![Acked { policy: name("note-1"), index: LogIndex(30) }],
            ends: vec![End {
                member: MemberId(2),
                ending: Ending::GaveUp,
                status: "exit status: 1".to_owned(),
                last_words: vec![
                    "2026-01-02T03:04:05Z ERROR raft_store: write to the store; this member stops".to_owned(),
                    "ha-supervisord: this member had to stop: the store failed".to_owned(),
                ],
            }],
            memories: (1..=3).map(|id| (MemberId(id), memory.clone())).collect(),
        }
    }
}
