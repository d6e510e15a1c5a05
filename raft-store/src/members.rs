//! Changing who belongs to the cluster, and handing leadership over.
//!
//! Why it exists: members come and go while the cluster works. A newcomer learns first and votes later; a leader that
//! is about to be restarted hands over instead of being missed.
//! What it never does: change two things at once, or use an id again.

use crate::clock::boottime;
use crate::store::{ProposeError, Store};
use crate::types::{Address, Member, Vote};
use openraft::ChangeMembers;
use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::metrics::RaftMetrics;
use policies::{MemberId, Millis, Mono};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A learner may be promoted when it lacks no more entries than this. More, and the new quorum could stand still
/// until it has caught up.
const BEHIND_MAX: u64 = 100;

/// Why the members did not change, or leadership did not move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// We are not the leader; nothing was proposed.
    #[error(transparent)]
    NotLeader(ProposeError),
    /// There is no such member.
    #[error("{0} is not a member")]
    NotAMember(MemberId),
    /// The id is taken, with another address. Ids are never used again.
    #[error("{0} is a member already, with other addresses; remove it and join under a new id")]
    Taken(MemberId),
    /// It only learns, so it cannot lead.
    #[error("{0} does not vote; promote it first")]
    NotAVoter(MemberId),
    /// It lacks too much of the log.
    #[error("{id} lacks {behind} entries; wait until it has caught up")]
    Behind {
        /// The member.
        id: MemberId,
        /// How many entries.
        behind: u64,
    },
    /// It is the only voter.
    #[error("{0} is the only voter; a cluster without voters can never decide anything again")]
    LastVoter(MemberId),
    /// Another change is under way.
    #[error("another change of the members, or a transfer, is under way")]
    Busy,
    /// Leadership did not move in time; whoever is elected leads.
    #[error("{to} did not become leader within {waited}")]
    NotElected {
        /// Who should have.
        to: MemberId,
        /// How long we waited.
        waited: Millis,
    },
    /// It may have been committed, or may be yet: look at the members.
    #[error("the outcome is unknown: {why}")]
    OutcomeUnknown {
        /// What happened instead of an answer.
        why: String,
    },
    /// The memory is dead.
    #[error("this member's memory is dead: {0}")]
    Fatal(String),
}

impl Store {
    fn must_lead(&self) -> Result<(), MemberError> {
        match (self.dead(), self.is_leader()) {
            (Some(why), _) => Err(MemberError::Fatal(why)),
            (None, true) => Ok(()),
            (None, false) => Err(MemberError::NotLeader(ProposeError::NotLeader { leader: self.leader() })),
        }
    }

    fn must_be_member(&self, id: MemberId) -> Result<Member, MemberError> {
        self.member(id).ok_or(MemberError::NotAMember(id))
    }

    async fn change(
        &self,
        change: impl Into<ChangeMembers<u64, Address>>,
        retain: bool,
    ) -> Result<(), MemberError> {
        if self.inner.transferring.load(Ordering::SeqCst) {
            return Err(MemberError::Busy);
        }
        let limit = self.inner.timing.propose_limit;
        let changed = self.inner.raft.change_membership(change, retain);
        let late =
            |_elapsed| MemberError::OutcomeUnknown { why: format!("it was not committed within {limit}") };
        let changed = tokio::time::timeout(Duration::from_millis(limit.0), changed).await.map_err(late)?;
        changed.map(|_written| ()).map_err(|error| match error {
            RaftError::Fatal(fatal) => MemberError::Fatal(fatal.to_string()),
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
                MemberError::OutcomeUnknown { why: "leadership was lost meanwhile".to_owned() }
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
                ChangeMembershipError::InProgress(_) => MemberError::Busy,
                ChangeMembershipError::EmptyMembership(_) => MemberError::LastVoter(self.inner.me),
                ChangeMembershipError::LearnerNotFound(missing) => {
                    MemberError::NotAMember(MemberId(missing.node_id))
                }
            },
        })
    }

    /// Adds a member that receives the log and does not vote. Adding it again with the same addresses is success.
    ///
    /// # Errors
    /// [`MemberError`].
    pub async fn add_learner(&self, member: Member) -> Result<(), MemberError> {
        self.must_lead()?;
        if let Some(known) = self.member(member.id) {
            let same = known.to_address() == member.to_address();
            return if same { Ok(()) } else { Err(MemberError::Taken(member.id)) };
        }
        let nodes = BTreeMap::from([(member.id.0, member.to_address())]);
        self.change(ChangeMembers::AddNodes(nodes), true).await
    }

    /// Lets a learner that has caught up vote. Promoting a voter is success.
    ///
    /// # Errors
    /// [`MemberError`].
    pub async fn promote(&self, id: MemberId) -> Result<(), MemberError> {
        self.must_lead()?;
        if self.must_be_member(id)?.voter {
            return Ok(());
        }
        let behind = behind(&self.inner.raft.metrics().borrow(), id);
        if behind > BEHIND_MAX {
            return Err(MemberError::Behind { id, behind });
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id.0])), true).await
    }

    /// Removes a member. Its id is never used again. A leader that removes itself steps down afterwards; better hand
    /// over first.
    ///
    /// # Errors
    /// [`MemberError`].
    pub async fn remove(&self, id: MemberId) -> Result<(), MemberError> {
        self.must_lead()?;
        let ids = BTreeSet::from([id.0]);
        if !self.must_be_member(id)?.voter {
            return self.change(ChangeMembers::RemoveNodes(ids), true).await;
        }
        if self.members().iter().filter(|member| member.voter).count() == 1 {
            return Err(MemberError::LastVoter(id));
        }
        self.change(ChangeMembers::RemoveVoters(ids), false).await
    }

    /// Hands leadership over to `to`. Takes `election_max` and a little; nothing can be proposed meanwhile.
    ///
    /// openraft 0.9 has no transfer, so: propose nothing more, let `to` catch up, fall silent until the lease that we
    /// handed out and every follower's promise to us are over, and only then ask `to` to campaign. It campaigns
    /// before any other follower would. If it is not elected in time we go on as leader, if we still are.
    ///
    /// # Errors
    /// [`MemberError`].
    pub async fn transfer(&self, to: MemberId) -> Result<(), MemberError> {
        self.must_lead()?;
        if to == self.inner.me {
            return Ok(());
        }
        let target = self.must_be_member(to)?;
        if !target.voter {
            return Err(MemberError::NotAVoter(to));
        }
        let silence = Silence::begin(self)?;
        let limit = Millis(self.inner.timing.election_max.0.saturating_mul(2));
        let caught_up = |metrics: &RaftMetrics<u64, Address>| behind(metrics, to) == 0;
        if !self.wait(limit, caught_up).await {
            let behind = behind(&self.inner.raft.metrics().borrow(), to);
            return Err(MemberError::Behind { id: to, behind });
        }
        self.inner.raft.runtime_config().heartbeat(false);
        let not_elected = MemberError::NotElected { to, waited: limit };
        let promises = self.wait_for_promises();
        tokio::time::timeout(Duration::from_millis(limit.0), promises)
            .await
            .map_err(|_late| not_elected.clone())?;
        self.must_lead()?;
        let vote = Vote::from(self.inner.raft.metrics().borrow().vote);
        let answer_limit = Duration::from_millis(self.inner.timing.election_min.0);
        let asked = self.inner.network.campaign(to.0, &target.to_address(), vote, answer_limit).await;
        if let Err(error) = asked {
            tracing::warn!(%to, error = &error as &dyn std::error::Error, "ask a member to lead");
            return Err(not_elected);
        }
        let elected = |metrics: &RaftMetrics<u64, Address>| metrics.current_leader == Some(to.0);
        let elected = self.wait(limit, elected).await;
        drop(silence);
        if elected { Ok(()) } else { Err(not_elected) }
    }

    async fn wait(&self, limit: Millis, until: impl Fn(&RaftMetrics<u64, Address>) -> bool + Send) -> bool {
        let limit = Some(Duration::from_millis(limit.0));
        self.inner.raft.wait(limit).metrics(until, "leadership is handed over").await.is_ok()
    }

    /// Returns when the longest lease that we handed out is over and every follower may vote again: `election_max`
    /// after the last call that we sent, and a heartbeat more for its way and its handling.
    async fn wait_for_promises(&self) {
        let timing = self.inner.timing;
        loop {
            let sent = Mono(self.inner.network.last_sent.load(Ordering::SeqCst));
            let end = self.inner.gate.promised().max(sent + timing.election_max + timing.heartbeat);
            let now = boottime();
            if now >= end {
                return;
            }
            tokio::time::sleep(Duration::from_millis(end.since(now).0)).await;
        }
    }
}

/// How many entries `id` lacks, as far as the leader knows.
fn behind(metrics: &RaftMetrics<u64, Address>, id: MemberId) -> u64 {
    let next = |index: Option<u64>| index.map_or(0, |index| index + 1);
    let replicated = metrics.replication.as_ref().and_then(|members| members.get(&id.0).copied().flatten());
    next(metrics.last_log_index).saturating_sub(next(replicated.map(|last| last.index)))
}

/// While it lives, this member proposes nothing, gives no lease and, once told so, sends no heartbeats.
struct Silence<'a> {
    store: &'a Store,
}

impl<'a> Silence<'a> {
    fn begin(store: &'a Store) -> Result<Silence<'a>, MemberError> {
        match store.inner.transferring.swap(true, Ordering::SeqCst) {
            true => Err(MemberError::Busy),
            false => Ok(Silence { store }),
        }
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.store.inner.raft.runtime_config().heartbeat(true);
        self.store.inner.transferring.store(false, Ordering::SeqCst);
    }
}
