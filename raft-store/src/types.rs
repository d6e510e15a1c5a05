//! Our own form of everything that is stored or sent.
//!
//! Why it exists: openraft's structs may change shape with any release; a disk or a peer of another version must not
//! notice. So every openraft value crosses this file, in both directions, field by field.
//! What it never does: I/O.

use openraft::{CommittedLeaderId, EntryPayload};
use policies::{Applied, MemberId, Proposal, Rejected};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

openraft::declare_raft_types!(
    /// The types that openraft works with.
    pub(crate) Types:
        D = Proposal,
        R = Reply,
        NodeId = u64,
        Node = Address,
        Entry = openraft::Entry<Types>,
        SnapshotData = Vec<u8>,
        AsyncRuntime = openraft::TokioRuntime,
);

pub(crate) type Entry = openraft::Entry<Types>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, Address>;

/// What applying an entry gave; `None` for entries that are openraft's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply(pub(crate) Option<Result<Applied, Rejected>>);

/// Where a member is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    /// `host:port` of the traffic between members.
    pub(crate) peer: String,
    /// `host:port` of its HTTPS API.
    pub(crate) api: String,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id. Never used again for another store.
    pub id: MemberId,
    /// `host:port` of the traffic between members.
    pub address: String,
    /// `host:port` of its HTTPS API.
    pub api: String,
    /// Whether it votes. A learner only receives the log.
    pub voter: bool,
}

impl Member {
    pub(crate) fn to_address(&self) -> Address {
        Address { peer: self.address.clone(), api: self.api.clone() }
    }
}

/// A position in the log together with the leadership that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct LogId {
    pub(crate) term: u64,
    pub(crate) member: u64,
    pub(crate) index: u64,
}

/// A vote. Ordered by term, then member, then committed, as openraft orders it without `single-term-leader`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Vote {
    pub(crate) term: u64,
    pub(crate) member: u64,
    /// A quorum granted it: its member is, or was, leader.
    pub(crate) committed: bool,
}

/// Who votes (two sets while the voters are being changed) and where everybody is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Members {
    pub(crate) voters: Vec<BTreeSet<u64>>,
    pub(crate) addresses: BTreeMap<u64, Address>,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogEntry {
    pub(crate) id: LogId,
    pub(crate) content: Content,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Content {
    /// Nothing: a new leader's first entry.
    Blank,
    /// A command for the state machine.
    Proposal(Proposal),
    /// A change of the members.
    Members(Members),
}

/// What a snapshot covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    pub(crate) last: Option<LogId>,
    pub(crate) members_at: Option<LogId>,
    pub(crate) members: Members,
    pub(crate) id: String,
}

impl From<openraft::LogId<u64>> for LogId {
    fn from(id: openraft::LogId<u64>) -> Self {
        LogId { term: id.leader_id.term, member: id.leader_id.node_id, index: id.index }
    }
}

impl From<LogId> for openraft::LogId<u64> {
    fn from(id: LogId) -> Self {
        openraft::LogId::new(CommittedLeaderId::new(id.term, id.member), id.index)
    }
}

impl From<openraft::Vote<u64>> for Vote {
    fn from(vote: openraft::Vote<u64>) -> Self {
        Vote { term: vote.leader_id.term, member: vote.leader_id.node_id, committed: vote.committed }
    }
}

impl From<Vote> for openraft::Vote<u64> {
    fn from(vote: Vote) -> Self {
        match vote.committed {
            true => openraft::Vote::new_committed(vote.term, vote.member),
            false => openraft::Vote::new(vote.term, vote.member),
        }
    }
}

impl From<&openraft::Membership<u64, Address>> for Members {
    fn from(membership: &openraft::Membership<u64, Address>) -> Self {
        let addresses = membership.nodes().map(|(&id, address)| (id, address.clone())).collect();
        Members { voters: membership.get_joint_config().clone(), addresses }
    }
}

impl From<Members> for openraft::Membership<u64, Address> {
    fn from(members: Members) -> Self {
        openraft::Membership::new(members.voters, members.addresses)
    }
}

impl From<&Entry> for LogEntry {
    fn from(entry: &Entry) -> Self {
        let content = match &entry.payload {
            EntryPayload::Blank => Content::Blank,
            EntryPayload::Normal(proposal) => Content::Proposal(proposal.clone()),
            EntryPayload::Membership(membership) => Content::Members(membership.into()),
        };
        LogEntry { id: entry.log_id.into(), content }
    }
}

impl From<LogEntry> for Entry {
    fn from(entry: LogEntry) -> Self {
        let payload = match entry.content {
            Content::Blank => EntryPayload::Blank,
            Content::Proposal(proposal) => EntryPayload::Normal(proposal),
            Content::Members(members) => EntryPayload::Membership(members.into()),
        };
        Entry { log_id: entry.id.into(), payload }
    }
}

impl From<&SnapshotMeta> for SnapshotHead {
    fn from(meta: &SnapshotMeta) -> Self {
        SnapshotHead {
            last: meta.last_log_id.map(LogId::from),
            members_at: meta.last_membership.log_id().map(LogId::from),
            members: meta.last_membership.membership().into(),
            id: meta.snapshot_id.clone(),
        }
    }
}

impl From<SnapshotHead> for SnapshotMeta {
    fn from(head: SnapshotHead) -> Self {
        let members_at = head.members_at.map(openraft::LogId::from);
        SnapshotMeta {
            last_log_id: head.last.map(openraft::LogId::from),
            last_membership: openraft::StoredMembership::new(members_at, head.members.into()),
            snapshot_id: head.id,
        }
    }
}
