//! The leader's lease: until when nobody else can be leader (R5).
//!
//! Why it exists: an effect may be sent only while no other member can have become leader. openraft 0.9 has no lease
//! for the leader, so it is computed here from what our own network layer saw: when the newest heartbeat that each
//! voter acknowledged was *sent*.
//! What it never does: trust a clock of another machine, or openraft's own notion of being leader.
//!
//! Why it holds. A voter that accepted a heartbeat of this leadership refuses every vote request for `election_max`
//! after it received it (openraft 0.9.25 `engine_impl.rs:284-316`), does not campaign before
//! `election_max + election_min` (`raft_core.rs:1475-1490`), and after a restart of its process refuses votes for
//! `election_max` again ([`crate::gate`]). We, too, refuse to vote while a lease that we handed out lasts. Every
//! electing quorum shares a voter with the quorum that acknowledged, so nobody is elected before the send time plus
//! `election_max`; the lease is the shorter `election_min`, less the difference of two clocks' rates.
//! Voters measure with CLOCK_MONOTONIC, which stands still in suspend and so only lengthens their promise; the leader
//! measures with CLOCK_BOOTTIME, which does not.

use crate::types::Vote;
use policies::{Millis, Mono};
use std::collections::{BTreeMap, BTreeSet};

/// One part in this many is taken off the lease: two clocks may differ in rate by 2 %. Quartz clocks differ by less
/// than 0.02 %, and NTP slews by at most 0.05 %; 2 % leaves room for virtual machines.
const CLOCK_RATE_PART: u64 = 50;

/// The newest time such that a quorum of every voter set acknowledged something sent at or after it. `None` if a set
/// has no quorum or there is no set.
pub(crate) fn quorum_time(
    voter_sets: &[BTreeSet<u64>],
    acknowledged: impl Fn(u64) -> Option<Mono>,
) -> Option<Mono> {
    let newest_of_set = |voters: &BTreeSet<u64>| {
        let mut times: Vec<Mono> = voters.iter().filter_map(|&id| acknowledged(id)).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        times.get(voters.len() / 2).copied()
    };
    let times: Option<Vec<Mono>> = voter_sets.iter().map(newest_of_set).collect();
    times?.into_iter().min()
}

/// The end of a lease that began at `from`.
pub(crate) fn lease_end(from: Mono, election_min: Millis) -> Mono {
    from + Millis(election_min.0 - election_min.0.div_ceil(CLOCK_RATE_PART).min(election_min.0))
}

/// What this member knows about its own lease, and what it promised.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// The leadership that the acknowledgements belong to.
    vote: Option<Vote>,
    /// Per voter: send time of the newest request of this leadership that it acknowledged.
    acknowledged: BTreeMap<u64, Mono>,
    /// The end of the longest lease that was handed out. Until then we vote for nobody.
    promised: Mono,
    /// Vote requests that openraft is looking at; while there are any we may have voted already.
    votes_in_hand: u32,
    /// The newest vote that we may have granted: an older leadership never gets a lease again.
    granted: Option<Vote>,
}

/// A vote request may not be looked at now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeaseRuns {
    /// How much longer.
    pub left: Millis,
}

impl Lease {
    /// `voter` acknowledged a request of leadership `vote` that was sent at `sent`.
    pub(crate) fn acknowledge(&mut self, vote: Vote, voter: u64, sent: Mono) {
        if self.vote != Some(vote) {
            if self.vote.is_some_and(|ours| ours > vote) {
                return;
            }
            self.vote = Some(vote);
            self.acknowledged.clear();
        }
        let newest = self.acknowledged.entry(voter).or_default();
        *newest = (*newest).max(sent);
    }

    /// Hands out the lease of leadership `vote` as of `now`; from then on we keep our part of it. The end may be past.
    pub(crate) fn hand_out(
        &mut self,
        vote: Vote,
        me: u64,
        voter_sets: &[BTreeSet<u64>],
        now: Mono,
        election_min: Millis,
    ) -> Option<Mono> {
        if self.votes_in_hand > 0 || self.granted > Some(vote) {
            return None;
        }
        let same = self.vote == Some(vote);
        let of = |id: u64| match id == me {
            true => Some(now),
            false => self.acknowledged.get(&id).copied().filter(|_| same),
        };
        let end = lease_end(quorum_time(voter_sets, of)?, election_min);
        self.promised = self.promised.max(end);
        Some(end)
    }

    /// The end of the longest lease that was handed out.
    pub(crate) fn promised(&self) -> Mono {
        self.promised
    }

    /// A vote request came in. If it may be looked at, [`Lease::vote_done`] must follow.
    pub(crate) fn vote_begins(&mut self, now: Mono) -> Result<(), LeaseRuns> {
        if now < self.promised {
            return Err(LeaseRuns { left: self.promised.since(now) });
        }
        self.votes_in_hand += 1;
        Ok(())
    }

    /// openraft answered the vote request. `granted` is the vote that we gave or, if we cannot tell, may have given.
    pub(crate) fn vote_done(&mut self, granted: Option<Vote>) {
        self.votes_in_hand = self.votes_in_hand.saturating_sub(1);
        self.granted = self.granted.max(granted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VOTE: Vote = Vote { term: 3, member: 1, committed: true };
    const MIN: Millis = Millis(300);

    fn set(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    #[test]
    fn a_quorum_counts_from_its_slowest_part() {
        let times = BTreeMap::from([(1, Mono(90)), (2, Mono(70)), (3, Mono(50)), (4, Mono(30))]);
        let at = |id: u64| times.get(&id).copied();
        assert_eq!(quorum_time(&[set(&[1])], at), Some(Mono(90)));
        assert_eq!(quorum_time(&[set(&[1, 2])], at), Some(Mono(70)));
        assert_eq!(quorum_time(&[set(&[1, 2, 3])], at), Some(Mono(70)));
        assert_eq!(quorum_time(&[set(&[1, 2, 3, 4])], at), Some(Mono(50)));
        assert_eq!(quorum_time(&[set(&[1, 2, 9])], at), Some(Mono(70)));
        assert_eq!(quorum_time(&[set(&[1, 8, 9])], at), None);
        assert_eq!(quorum_time(&[], at), None);
        assert_eq!(quorum_time(&[set(&[])], at), None);
    }

    #[test]
    fn a_joint_membership_needs_both_quorums() {
        let times = BTreeMap::from([(1, Mono(90)), (2, Mono(80)), (4, Mono(20)), (5, Mono(10))]);
        let at = |id: u64| times.get(&id).copied();
        assert_eq!(quorum_time(&[set(&[1, 2, 3]), set(&[1, 4, 5])], at), Some(Mono(20)));
        assert_eq!(quorum_time(&[set(&[1, 2, 3]), set(&[6, 7, 5])], at), None);
    }

    #[test]
    fn the_lease_counts_from_the_send_time_and_is_shortened_by_the_clock_rate() {
        let mut lease = Lease::default();
        let voters = [set(&[1, 2, 3])];
        assert_eq!(lease.hand_out(VOTE, 1, &voters, Mono(1000), MIN), None);
        lease.acknowledge(VOTE, 2, Mono(900));
        assert_eq!(lease.hand_out(VOTE, 1, &voters, Mono(1000), MIN), Some(Mono(900 + 294)));
        lease.acknowledge(VOTE, 2, Mono(800));
        assert_eq!(lease.hand_out(VOTE, 1, &voters, Mono(1000), MIN), Some(Mono(1194)));
        lease.acknowledge(VOTE, 3, Mono(990));
        assert_eq!(lease.hand_out(VOTE, 1, &voters, Mono(1000), MIN), Some(Mono(1284)));
        assert_eq!(
            lease.hand_out(VOTE, 1, &voters, Mono(5000), MIN),
            Some(Mono(1284)),
            "long past, and says so"
        );
    }

    #[test]
    fn acknowledgements_of_another_leadership_do_not_count() {
        let mut lease = Lease::default();
        let next = Vote { term: 4, ..VOTE };
        lease.acknowledge(VOTE, 2, Mono(900));
        assert_eq!(lease.hand_out(next, 1, &[set(&[1, 2])], Mono(950), MIN), None);
        lease.acknowledge(next, 2, Mono(940));
        lease.acknowledge(VOTE, 2, Mono(949));
        assert_eq!(lease.hand_out(next, 1, &[set(&[1, 2])], Mono(950), MIN), Some(Mono(940 + 294)));
    }

    #[test]
    fn we_vote_for_nobody_while_a_lease_lasts_and_have_none_while_we_may_be_voting() {
        let mut lease = Lease::default();
        let voters = [set(&[1, 2, 3])];
        lease.acknowledge(VOTE, 2, Mono(900));
        assert_eq!(lease.hand_out(VOTE, 1, &voters, Mono(1000), MIN), Some(Mono(1194)));
        assert_eq!(lease.vote_begins(Mono(1193)), Err(LeaseRuns { left: Millis(1) }));
        assert_eq!(lease.vote_begins(Mono(1194)), Ok(()));
        lease.acknowledge(VOTE, 2, Mono(1190));
        assert_eq!(lease.hand_out(VOTE, 1, &voters, Mono(1195), MIN), None, "a vote is in hand");
        lease.vote_done(None);
        assert!(lease.hand_out(VOTE, 1, &voters, Mono(1195), MIN).is_some(), "it was refused");
        assert_eq!(lease.vote_begins(Mono(2000)), Ok(()));
        lease.vote_done(Some(Vote { term: 4, member: 2, committed: false }));
        lease.acknowledge(VOTE, 2, Mono(2000));
        assert_eq!(lease.hand_out(VOTE, 1, &voters, Mono(2001), MIN), None, "this leadership is over");
        let next = Vote { term: 5, ..VOTE };
        lease.acknowledge(next, 2, Mono(3000));
        assert!(lease.hand_out(next, 1, &voters, Mono(3001), MIN).is_some(), "elected again, later");
    }

    proptest! {
        /// R5: whichever quorum elects the next leader, one of its voters has a promise at least as long as ours.
        #[test]
        fn every_quorum_contains_a_voter_that_promised(
            voters in prop::collection::btree_set(1_u64..8, 1..6),
            times in prop::collection::btree_map(1_u64..8, 0_u64..1000, 0..8),
            electors in prop::collection::btree_set(1_u64..8, 0..8),
        ) {
            let at = |id: u64| times.get(&id).map(|&t| Mono(t));
            let elect = voters.intersection(&electors).count() > voters.len() / 2;
            if let (Some(quorum), true) = (quorum_time(std::slice::from_ref(&voters), at), elect) {
                let promised = voters.intersection(&electors).any(|&id| at(id).is_some_and(|t| t >= quorum));
                prop_assert!(promised);
            }
        }
    }
}
