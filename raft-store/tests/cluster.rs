//! Three members that elect, replicate, lose each other and come back.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests stop the test")]

mod common;

use common::{Cluster, note, until};
use policies::{BootId, Command, LeaderEpoch, LogIndex, MemberId, Proposal};
use raft_store::{BarrierError, MemberError, ProposeError, Query, StoreEvent};
use std::time::{Duration, Instant};

fn applied(cluster: &Cluster, id: u64) -> LogIndex {
    cluster.node(id).store.read(|state| state.applied)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_proposed_at_the_leader_is_applied_everywhere_in_order() {
    let mut cluster = Cluster::new(3).await;
    let mut last = LogIndex(0);
    for number in 0..20 {
        last = cluster.propose(&format!("note {number}")).await;
    }
    for id in 1..=3 {
        until("it is applied everywhere", || applied(&cluster, id) >= last).await;
        let texts = cluster.node_mut(id).applied();
        assert_eq!(texts, (0..20).map(|number| format!("note {number}")).collect::<Vec<_>>(), "at m{id}");
    }
    let states: Vec<_> = cluster.nodes.iter().map(|node| node.store.read(Clone::clone)).collect();
    assert!(states.iter().all(|state| *state == states[0]));

    let members = cluster.leader().await.store.members();
    assert_eq!(members.len(), 3);
    assert!(members.iter().all(|member| member.voter && member.api == format!("api-of-{}", member.id)));

    let history = cluster.node(2).store.history();
    // It is written beside the log, and may be later.
    let newest = || history.query(Query { limit: Some(2), ..Query::default() });
    let mut found = newest().await.unwrap();
    for _ in 0..10_000 {
        if found.last().is_some_and(|event| event.index == last) {
            break;
        }
        tokio::task::yield_now().await;
        found = newest().await.unwrap();
    }
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].index, last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_refuses_proposals_and_barriers_and_names_the_leader() {
    let cluster = Cluster::new(2).await;
    let leader = cluster.leader().await.member();
    let follower = cluster.nodes.iter().find(|node| node.id != leader.id).unwrap();
    until("the follower knows the leader", || follower.store.leader().is_some()).await;
    let named = Some(leader);
    assert_eq!(
        follower.store.propose(note("x")).await.unwrap_err(),
        ProposeError::NotLeader { leader: named.clone() }
    );
    assert_eq!(follower.store.barrier().await.unwrap_err(), BarrierError::NotLeader { leader: named });
    assert_eq!(follower.store.lease_end(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_leader_is_replaced_nothing_is_lost_and_it_catches_up_when_it_comes_back() {
    let mut cluster = Cluster::new(3).await;
    cluster.propose("before").await;
    let old = cluster.leader().await.id;
    cluster.node(old.0).stop().await;
    let stopped = Instant::now();
    let last = cluster.propose("after").await;
    while let Ok(event) = cluster.node_mut(old.0).events.try_recv() {
        assert!(!matches!(event, StoreEvent::Fatal(_)), "an orderly stop is no failure");
    }
    println!("a new leader committed {:?} after the old one stopped", stopped.elapsed());
    assert_ne!(cluster.leader().await.id, old);

    cluster.node_mut(old.0).start().await;
    until("it caught up", || applied(&cluster, old.0) >= last).await;
    let node = cluster.node_mut(old.0);
    let StoreEvent::Installed(state) = node.events.try_recv().unwrap() else {
        panic!("the first event is the state that it starts from")
    };
    assert_eq!(state.applied, LogIndex(0), "no snapshot yet");
    assert_eq!(node.applied(), ["before", "after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_leader_wins_an_election_before_it_leads_again() {
    let mut cluster = Cluster::new(1).await;
    cluster.propose("one").await;
    cluster.node(1).stop().await;
    let restarted = Instant::now();
    cluster.node_mut(1).start().await;
    assert!(!cluster.node(1).store.is_leader(), "facts F2: no leadership without an election");
    cluster.propose("two").await;
    assert!(restarted.elapsed() >= Duration::from_millis(common::TIMING.election_min.0));
    assert_eq!(cluster.node_mut(1).applied(), ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_learner_is_sent_the_snapshot_then_votes_and_is_removed_again() {
    let mut cluster = Cluster::new(1).await;
    let mut last = LogIndex(0);
    for number in 0..150 {
        last = cluster.propose(&format!("note {number}")).await;
    }
    cluster.spawn(2).await;
    let leader = cluster.node(1).store.clone();
    leader.add_learner(cluster.node(2).member()).await.unwrap();
    leader.add_learner(cluster.node(2).member()).await.unwrap();
    until("the learner has everything", || applied(&cluster, 2) >= last).await;
    let mut snapshot = LogIndex(0);
    let mut texts = Vec::new();
    while let Ok(event) = cluster.node_mut(2).events.try_recv() {
        match event {
            StoreEvent::Installed(state) => snapshot = state.applied,
            StoreEvent::Applied { proposal, .. } => texts.extend(common::text_of(&proposal)),
            StoreEvent::Leader { .. } | StoreEvent::Message { .. } | StoreEvent::Fatal(_) => {}
        }
    }
    assert!(snapshot > LogIndex(0), "the log was purged, so it got a snapshot");
    assert!(texts.len() < 150 && texts.last().unwrap() == "note 149", "and the rest as entries");
    let states: Vec<_> = cluster.nodes.iter().map(|node| node.store.read(Clone::clone)).collect();
    assert_eq!(states[0], states[1]);
    let progress = leader.progress();
    assert!(progress.purged.is_some() && progress.purged < progress.snapshot, "{progress:?}");
    assert_eq!(progress.applied, progress.last);
    assert_eq!(progress.replicated.keys().copied().collect::<Vec<_>>(), [MemberId(1), MemberId(2)]);
    assert_eq!(leader.members().iter().filter(|member| member.voter).count(), 1);

    cluster.join(2).await;
    leader.promote(MemberId(2)).await.unwrap();
    assert_eq!(leader.members().iter().filter(|member| member.voter).count(), 2);
    let moved = raft_store::Member { address: "127.0.0.1:1".into(), ..cluster.node(2).member() };
    assert_eq!(leader.add_learner(moved).await, Err(MemberError::Taken(MemberId(2))));

    leader.remove(MemberId(2)).await.unwrap();
    assert_eq!(leader.members().iter().map(|member| member.id).collect::<Vec<_>>(), [MemberId(1)]);
    assert_eq!(leader.remove(MemberId(2)).await, Err(MemberError::NotAMember(MemberId(2))));
    assert_eq!(leader.remove(MemberId(1)).await, Err(MemberError::LastVoter(MemberId(1))));
    cluster.propose("alone again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_is_removed_without_ever_voting() {
    let mut cluster = Cluster::new(1).await;
    cluster.spawn(2).await;
    let leader = cluster.node(1).store.clone();
    leader.add_learner(cluster.node(2).member()).await.unwrap();
    assert_eq!(leader.transfer(MemberId(2)).await, Err(MemberError::NotAVoter(MemberId(2))));
    leader.remove(MemberId(2)).await.unwrap();
    assert_eq!(leader.members().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_on_request() {
    let cluster = Cluster::new(3).await;
    cluster.propose("before").await;
    let old = cluster.leader().await;
    let to = if old.id == MemberId(3) { MemberId(2) } else { MemberId(3) };
    assert!(old.store.lease_end().is_some());
    let begun = Instant::now();
    let (transferred, meanwhile) = tokio::join!(old.store.transfer(to), async {
        until("the transfer is under way", || old.store.lease_end().is_none()).await;
        (old.store.propose(note("x")).await, old.store.transfer(to).await)
    });
    transferred.unwrap();
    println!("leadership moved in {:?}", begun.elapsed());
    assert_eq!(meanwhile.0.unwrap_err(), ProposeError::NotLeader { leader: None });
    assert_eq!(meanwhile.1.unwrap_err(), MemberError::Busy);
    assert_eq!(cluster.leader().await.id, to);
    cluster.propose("after").await;
    cluster.leader().await.store.transfer(old.id).await.unwrap();
    assert_eq!(cluster.leader().await.id, old.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_to_a_dead_member_fails_and_the_leader_goes_on() {
    let cluster = Cluster::new(3).await;
    cluster.propose("before").await;
    let leader = cluster.leader().await;
    let to = if leader.id == MemberId(3) { MemberId(2) } else { MemberId(3) };
    cluster.node(to.0).stop().await;
    let error = leader.store.transfer(to).await.unwrap_err();
    assert!(matches!(error, MemberError::NotElected { .. } | MemberError::Behind { .. }), "{error}");
    cluster.propose("after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_follows_the_heartbeats_and_is_over_when_the_quorum_is_lost() {
    let cluster = Cluster::new(3).await;
    cluster.propose("x").await;
    let leader = cluster.leader().await;
    let first = leader.store.lease_end().unwrap();
    until("the lease is renewed", || leader.store.lease_end().is_some_and(|end| end > first)).await;
    for node in cluster.nodes.iter().filter(|node| node.id != leader.id) {
        node.stop().await;
    }
    let last = leader.store.lease_end().unwrap();
    until("the lease is over", || {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap();
        let now = u64::try_from(now.tv_sec() * 1000 + now.tv_nsec() / 1_000_000).unwrap();
        leader.store.lease_end().is_none_or(|end| end.0 < now)
    })
    .await;
    assert!(
        leader.store.lease_end().is_none_or(|end| end == last),
        "nobody acknowledges, so nothing is renewed"
    );
    let error = leader.store.barrier().await.unwrap_err();
    assert!(matches!(error, BarrierError::NoQuorum { .. }), "{error}");
    let error = leader.store.propose(note("lost")).await.unwrap_err();
    assert!(matches!(error, ProposeError::OutcomeUnknown { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_of_a_leadership_does_not_come_back_with_its_member() {
    let cluster = Cluster::new(3).await;
    cluster.propose("before").await;
    let first = cluster.leader().await;
    let other = if first.id == MemberId(3) { MemberId(2) } else { MemberId(3) };
    let command = Command::TookOver { member: first.id, boot: BootId(1) };
    let took_over = Proposal { command, ..note("") };
    let old = LeaderEpoch(first.store.propose(took_over.clone()).await.unwrap().0.0);
    until("its lease begins", || first.store.lease_end_of(old).is_some()).await;
    first.store.transfer(other).await.unwrap();
    cluster.leader().await.store.transfer(first.id).await.unwrap();
    until("it leads again", || first.store.lease_end().is_some()).await;
    assert_eq!(first.store.lease_end_of(old), None, "it leads, but not as it did when it took over");
    let new = LeaderEpoch(first.store.propose(took_over).await.unwrap().0.0);
    until("it has taken over anew", || first.store.lease_end_of(new).is_some()).await;
    assert_eq!(first.store.lease_end_of(old), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_reach_all_other_members_and_name_their_sender() {
    let mut cluster = Cluster::new(3).await;
    cluster.propose("everybody is a member").await;
    for id in 1..=3 {
        until("it knows all members", || cluster.node(id).store.members().len() == 3).await;
    }
    assert!(cluster.node(1).store.broadcast(b"suspect n4"));
    assert!(!cluster.node(1).store.broadcast(&vec![0; raft_store::MESSAGE_BYTES_MAX + 1]));
    for id in [2, 3] {
        let message = async {
            loop {
                let event = cluster.node_mut(id).events.recv().await.unwrap();
                if let StoreEvent::Message { from, bytes } = event {
                    return (from, bytes);
                }
            }
        };
        let (from, bytes) = tokio::time::timeout(common::PATIENCE, message).await.unwrap();
        assert_eq!((from, bytes.as_slice()), (MemberId(1), b"suspect n4".as_slice()));
    }
    let own = cluster.node_mut(1).events.try_recv();
    assert!(!matches!(own, Ok(StoreEvent::Message { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_that_is_too_large_is_refused_and_the_largest_is_replicated() {
    let cluster = Cluster::new(2).await;
    let leader = cluster.leader().await;
    let too_large = leader.store.propose(note("x".repeat(raft_store::PROPOSAL_BYTES_MAX))).await;
    assert!(matches!(too_large, Err(ProposeError::TooLarge { .. })));
    let last = cluster.propose(&"x".repeat(raft_store::PROPOSAL_BYTES_MAX - 1000)).await;
    for id in 1..=2 {
        until("it is applied everywhere", || applied(&cluster, id) >= last).await;
    }
}
