//! What another policy would have done: the flight records of all members, played once under the policies in force and
//! once with a candidate (ADR 0012).
//!
//! Why it exists: a number of a policy is best chosen by what really happened. What it never does: model detection a
//! second time; how a sight changes and what it means, self-doubt, the verdict and the brakes are production's own
//! functions. What it cannot know it assumes, and says so: see [`Fence::assumed`] and [`Replay::notes`].

mod compare;
mod gates;
mod patient;
#[cfg(test)]
mod tests;
mod track;
mod world;

use crate::flight::Record;
use crate::plan::Cause;
use crate::policy::Policy;
use crate::words::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Records that one replay takes; some 40 bytes of memory each. 10,000 nodes at ten records a day and member give 9 M
/// in 30 days.
pub const RECORDS_MAX: usize = 16_000_000;
/// Members whose records one replay takes.
pub const MEMBERS_MAX: usize = 15;

/// What is tried.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The policies in force.
    pub in_force: BTreeMap<PolicyId, Policy>,
    /// The one that the candidate would replace.
    pub name: PolicyId,
    /// The candidate.
    pub candidate: Policy,
    /// Voters of the cluster: the majority is of them, whether their records are there or not.
    pub voters: u32,
    /// What happened before is only learnt from.
    pub since: Wall,
    /// How long a failover takes from the fence to the service: what a false fence costs.
    pub failover_takes: Millis,
}

/// Why nothing can be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTrial {
    /// The candidate would replace nothing.
    #[error("there is no policy {0} in force that the candidate could replace; name one of: {1}")]
    NoSuchPolicy(PolicyId, String),
    /// Too much for one replay.
    #[error("more than {RECORDS_MAX} records; choose a shorter time")]
    TooManyRecords,
    /// More members than there can be.
    #[error("records of more than {MEMBERS_MAX} members")]
    TooManyMembers,
    /// No verdict could come of these records.
    #[error("a verdict needs {needed} members, and there are records of {recorded}")]
    TooFewMembers {
        /// Members that must see a node dead.
        needed: u32,
        /// Members whose records are there.
        recorded: u32,
    },
}

/// A fence that a policy would have begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// Of which node.
    pub node: NodeId,
    /// When.
    pub at: Wall,
    /// Since when something was wrong with it.
    pub trouble_since: Wall,
    /// Why.
    pub cause: Cause,
    /// Rests on a kernel that nobody asked at the time and that counts as mute.
    pub assumed: bool,
    /// The node really was fenced in this trouble.
    pub really: bool,
    /// How long after this most members heard the node again, without a fence: then this one would have been false.
    pub back_after: Option<Millis>,
}

/// A fence that a brake would have stopped, for a while or for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Braked {
    /// Of which node.
    pub node: NodeId,
    /// When first.
    pub at: Wall,
    /// By what, as `hactl explain` says it.
    pub why: String,
    /// True if it was fenced later in the same trouble.
    pub fenced_later: bool,
}

/// What one policy would have done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doings {
    /// The fences, in order.
    pub fences: Vec<Fence>,
    /// What the brakes stopped, in order.
    pub braked: Vec<Braked>,
}

/// What would be different with the candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// Only the candidate fences.
    Added,
    /// Only the policy in force fences.
    Avoided,
    /// Both do, the candidate later.
    Later,
    /// Both do, the candidate sooner.
    Sooner,
}

/// One trouble of one node in which the candidate would have acted differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Which node.
    pub node: NodeId,
    /// When its trouble began.
    pub trouble_since: Wall,
    /// What would be different.
    pub difference: Difference,
    /// The fence of the policy in force.
    pub in_force: Option<Fence>,
    /// The fence of the candidate.
    pub candidate: Option<Fence>,
    /// Milliseconds of downtime that the candidate adds; negative: it saves them. `None`: the record cannot tell.
    pub downtime_ms: Option<i64>,
}

/// How much of the time a member's record covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Whose.
    pub member: MemberId,
    /// Its records.
    pub records: u64,
    /// From its first record on.
    pub from: Wall,
    /// Until its last.
    pub until: Wall,
    /// Time in between in which it did not record: it was down, or records were lost.
    pub blind: Millis,
    /// Time in which it doubted itself.
    pub doubted: Millis,
}

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// Which policy the candidate would replace.
    pub policy: PolicyId,
    /// From when on.
    pub since: Wall,
    /// Until the last record.
    pub until: Wall,
    /// What the members' records cover.
    pub members: Vec<Coverage>,
    /// What the policies in force would have done.
    pub in_force: Doings,
    /// What would have been done with the candidate.
    pub candidate: Doings,
    /// The differences, in order.
    pub differences: Vec<Row>,
    /// Sum over the differences that can be told.
    pub downtime_ms: i64,
    /// The same for each node of them.
    pub downtime_by_node_ms: BTreeMap<NodeId, i64>,
    /// Nodes that really were fenced, and in how many of these cases the replay of the policy in force fences, too.
    pub really_fenced: (u32, u32),
    /// What this answer does not know.
    pub notes: Vec<String>,
}

impl Replay {
    /// True if the candidate would have acted differently.
    pub fn differs(&self) -> bool {
        !self.differences.is_empty()
    }
}

/// The records of several members in the order of time; each member's own order is kept.
pub fn in_order<R: Iterator<Item = Record>>(
    members: impl IntoIterator<Item = (MemberId, R)>,
) -> impl Iterator<Item = (MemberId, Record)> {
    let mut members: Vec<_> =
        members.into_iter().map(|(member, records)| (member, records.peekable())).collect();
    std::iter::from_fn(move || {
        let mut first: Option<(Wall, usize)> = None;
        for (place, (_, records)) in members.iter_mut().enumerate() {
            let next = records.peek().map(|record| (record.at, place));
            first = [first, next].into_iter().flatten().min();
        }
        let (member, records) = members.get_mut(first?.1)?;
        Some((*member, records.next()?))
    })
}

/// Plays the records, which are in the order of time ([`in_order`]), under the policies in force and with the candidate.
///
/// # Errors
/// [`BadTrial`].
pub fn replay(
    trial: &Trial,
    records: impl IntoIterator<Item = (MemberId, Record)>,
) -> Result<Replay, BadTrial> {
    let Some(current) = trial.in_force.get(&trial.name) else {
        let names: Vec<&str> = trial.in_force.keys().map(PolicyId::as_str).collect();
        return Err(BadTrial::NoSuchPolicy(trial.name.clone(), names.join(", ")));
    };
    let track = track::Track::of(records)?;
    let recorded = u32::try_from(track.members.len()).unwrap_or(u32::MAX);
    let needed = trial.candidate.detection.members_min.unwrap_or(trial.voters / 2 + 1);
    if recorded < needed {
        return Err(BadTrial::TooFewMembers { needed, recorded });
    }
    let mut policies = trial.in_force.clone();
    let in_force = world::play(&track, &policies, trial);
    policies.insert(trial.name.clone(), trial.candidate.clone());
    let candidate = world::play(&track, &policies, trial);
    Ok(compare::compare(trial, current, &track, in_force, candidate))
}
