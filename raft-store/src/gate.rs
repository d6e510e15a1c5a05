//! Which vote requests openraft gets to see.
//!
//! Why it exists: a lease is only as good as the voters' promises, and openraft keeps neither of these two. A process
//! that has just started has forgotten when it last heard the leader, so it refuses for `election_max`; only a store
//! that never took part in anything has nothing to remember. And a leader that handed out a lease votes for nobody
//! until that lease is over. A refused candidate is answered as if we could not be reached.
//! What it never does: hold back anything but vote requests.

use crate::lease::Lease;
use crate::types::Vote;
use policies::{Millis, Mono};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The gate, and the lease that it guards.
#[derive(Debug)]
pub(crate) struct Gate {
    lease: Mutex<Lease>,
    opens_at: Mono,
}

/// Why a vote request was held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Closed {
    #[error("this process started a moment ago and votes in {0}")]
    JustStarted(Millis),
    #[error("this member's own lease as leader lasts {0} longer")]
    LeaseRuns(Millis),
}

impl Gate {
    /// A gate that opens `election_max` after `now`, or at once if the store is fresh.
    pub(crate) fn new(fresh: bool, now: Mono, election_max: Millis) -> Gate {
        let opens_at = if fresh { Mono(0) } else { now + election_max };
        Gate { lease: Mutex::default(), opens_at }
    }

    fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a vote request through, or not.
    pub(crate) fn admit(&self, now: Mono, candidate: Vote) -> Result<VoteInHand<'_>, Closed> {
        if now < self.opens_at {
            return Err(Closed::JustStarted(self.opens_at.since(now)));
        }
        self.lease().vote_begins(now).map_err(|runs| Closed::LeaseRuns(runs.left))?;
        Ok(VoteInHand { gate: self, granted: Some(candidate) })
    }

    /// See [`Lease::acknowledge`].
    pub(crate) fn acknowledge(&self, vote: Vote, voter: u64, sent: Mono) {
        self.lease().acknowledge(vote, voter, sent);
    }

    /// See [`Lease::hand_out`].
    pub(crate) fn hand_out(
        &self,
        vote: Vote,
        me: u64,
        voters: &[BTreeSet<u64>],
        now: Mono,
        election_min: Millis,
    ) -> Option<Mono> {
        self.lease().hand_out(vote, me, voters, now, election_min)
    }

    /// See [`Lease::promised`].
    pub(crate) fn promised(&self) -> Mono {
        self.lease().promised()
    }
}

/// A vote request that openraft is looking at. Dropped without [`VoteInHand::refused`], it counts as granted.
#[derive(Debug)]
pub(crate) struct VoteInHand<'a> {
    gate: &'a Gate,
    granted: Option<Vote>,
}

impl VoteInHand<'_> {
    /// openraft surely did not grant it.
    pub(crate) fn refused(mut self) {
        self.granted = None;
    }
}

impl Drop for VoteInHand<'_> {
    fn drop(&mut self) {
        self.gate.lease().vote_done(self.granted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Millis = Millis(600);
    const CANDIDATE: Vote = Vote { term: 4, member: 2, committed: false };

    #[test]
    fn a_restarted_process_votes_only_after_the_longest_election_time() {
        let gate = Gate::new(false, Mono(1000), MAX);
        assert_eq!(gate.admit(Mono(1599), CANDIDATE).unwrap_err(), Closed::JustStarted(Millis(1)));
        assert!(gate.admit(Mono(1600), CANDIDATE).is_ok());
        assert!(Gate::new(true, Mono(1000), MAX).admit(Mono(1000), CANDIDATE).is_ok(), "nothing to remember");
    }

    #[test]
    fn a_vote_whose_answer_is_lost_counts_as_given() {
        let gate = Gate::new(true, Mono(0), MAX);
        let (mine, voters) = (Vote { term: 3, member: 1, committed: true }, [BTreeSet::from([1])]);
        gate.admit(Mono(10), CANDIDATE).unwrap().refused();
        assert!(gate.hand_out(mine, 1, &voters, Mono(11), Millis(300)).is_some());
        drop(gate.admit(Mono(1000), CANDIDATE).unwrap());
        assert_eq!(gate.hand_out(mine, 1, &voters, Mono(1001), Millis(300)), None);
    }
}
