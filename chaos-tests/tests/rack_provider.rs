//! The product's `rack` provider against the rack itself: the two ends of one interface.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support"
)]

mod rack_support;

use chaos_tests::rack::fault::DeviceMood;
use chaos_tests::rack::{Change, Rack, RackSpec};
use policies::{
    Action, Doubt, Effect, Epoch, LogIndex, Outcome, Permit, PlanId, Refusal, Seen, SnapshotName,
};
use provisioning::rack::VolumeChange;
use provisioning::{Backend, Us, carry_out};
use rack_support::*;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

struct Always;

impl Permit for Always {
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }

    fn token(&self) -> policies::LogIndex {
        policies::LogIndex(7)
    }
}

fn revoke(number: usize) -> Action {
    Action::Revoke { node: node(number), provider: "rack".parse().unwrap(), volume: volume(1) }
}

fn attach(number: usize) -> Action {
    Action::Attach { node: node(number), provider: "rack".parse().unwrap(), volume: volume(1), index: 0 }
}

fn snapshot() -> Action {
    let (provider, name) = ("rack".parse().unwrap(), SnapshotName::Failover(PlanId(1)));
    Action::Snapshot { node: node(2), provider, volume: volume(1), name, keep: 2 }
}

fn close(number: usize) -> Action {
    let port = format!("sw-a/{number}");
    Action::ClosePort { node: node(number), provider: "rack".parse().unwrap(), port }
}

fn open(number: usize) -> Action {
    let (port, mac) = (format!("sw-a/{number}"), Some("02:00:00:0a:00:01".to_owned()));
    Action::OpenPort {
        node: node(number),
        provider: "rack".parse().unwrap(),
        port,
        vlan: 100,
        tagged: BTreeSet::new(),
        mac,
    }
}

fn boot(number: usize, epoch: u64) -> Action {
    Action::SetBoot {
        node: node(number),
        provider: "rack".parse().unwrap(),
        instance: "web-1".parse().unwrap(),
        image: "golden-1".to_owned(),
        epoch: Epoch(epoch),
    }
}

async fn run(rack: &Rack, action: Action, token: u64, time: Duration) -> Outcome {
    let documents = rack.description().inventory().unwrap();
    let secret = documents.providers[0].kind.secret().unwrap();
    let backend =
        Backend::from_config(&documents.providers[0].kind, secret.0.as_bytes(), Us::nobody()).unwrap();
    let initiator = rack.description().machine(action.node()).unwrap().initiator.clone();
    let effect = Effect { token: LogIndex(token), plan: Some(PlanId(1)), action };
    carry_out(&backend, &effect, Some(&initiator), &Always, Instant::now() + time).await
}

async fn done(rack: &Rack, action: Action, token: u64) {
    let outcome = run(rack, action.clone(), token, PATIENCE).await;
    assert!(matches!(outcome, Outcome::Done(Seen::ReadBack(_))), "{action}: {outcome:?}");
}

#[tokio::test]
async fn a_takeover_step_by_step_and_every_late_step_refused() {
    let (rack, _dir) = start(&spec(2, 1)).await;
    let held = run(&rack, attach(2), 5, PATIENCE).await;
    assert!(matches!(held, Outcome::Refused(Refusal::HeldByOther(_))), "{held:?}");
    let held = run(&rack, snapshot(), 5, PATIENCE).await;
    assert!(matches!(held, Outcome::Refused(Refusal::HeldByOther(_))), "{held:?}");
    let steps = [revoke(1), close(1), snapshot(), attach(2), open(2), boot(2, 2)];
    for (token, step) in (10..).zip(&steps) {
        done(&rack, step.clone(), token).await;
        done(&rack, step.clone(), token).await;
    }
    let status = rack.status();
    assert_eq!(status.volumes[&volume(1)].holders, ["iqn.2026-01.rack:node-2"]);
    assert!(status.volumes[&volume(1)].sessions.is_empty());
    assert_eq!(status.machines[&node(2)].boots.as_ref().unwrap().epoch, Epoch(2));
    assert_eq!(status.machines[&node(1)].boots, None);

    let old = |newest| Outcome::Refused(Refusal::TokenTooOld { ours: LogIndex(9), newest: LogIndex(newest) });
    assert_eq!(run(&rack, revoke(2), 9, PATIENCE).await, old(13));
    assert_eq!(run(&rack, attach(1), 9, PATIENCE).await, old(13));
    assert_eq!(run(&rack, open(1), 9, PATIENCE).await, old(11));
    assert_eq!(run(&rack, close(2), 9, PATIENCE).await, old(14));
    assert_eq!(run(&rack, boot(2, 1), 9, PATIENCE).await, old(15));

    let reaches =
        |open| Change::Reach { volume: volume(1), initiator: initiator(if open { 2 } else { 1 }), open };
    let carried_out = rack.journal().changes.into_iter().map(|noted| noted.change);
    let carried_out: Vec<(u64, Change)> =
        carried_out.filter_map(|change| Some((token(&change)?, change))).collect();
    let tokens: Vec<u64> = carried_out.iter().map(|(token, _)| *token).collect();
    assert_eq!(tokens, [10, 11, 12, 13, 14, 15], "what was refused, or was so already, is not in it");
    let changes: Vec<Change> = rack.journal().changes.into_iter().map(|noted| noted.change).collect();
    for reach in [reaches(false), reaches(true)] {
        assert_eq!(changes.iter().filter(|change| **change == reach).count(), 1, "{reach:?}");
    }
    rack.stop().await;
}

fn initiator(number: usize) -> String {
    format!("iqn.2026-01.rack:node-{number}")
}

/// The token of a command.
fn token(change: &Change) -> Option<u64> {
    let token = match change {
        Change::Volume { change: VolumeChange::Attach { token, .. }, .. }
        | Change::Volume { change: VolumeChange::Revoke { token, .. }, .. } => token,
        Change::Snapshot { change, .. } => &change.token,
        Change::Port { change, .. } => &change.token,
        Change::Boot { change, .. } => &change.token,
        Change::Power { .. }
        | Change::Commanded { .. }
        | Change::Asked { .. }
        | Change::Told { .. }
        | Change::Reach { .. } => {
            return None;
        }
    };
    (token.0 > 0).then_some(token.0)
}

#[tokio::test]
async fn moods_of_the_devices_are_seen_through() {
    let (rack, _dir) = start(&RackSpec { exclusive_volumes: false, ..spec(2, 1) }).await;
    let short = Duration::from_millis(300);
    for step in [revoke(1), close(1), snapshot(), attach(2), open(2), boot(2, 2)] {
        rack.device_mood(DeviceMood::Hang);
        let outcome = run(&rack, step.clone(), 10, short).await;
        assert!(matches!(outcome, Outcome::Unknown(Doubt::NoAnswer { .. })), "{step}: {outcome:?}");
        rack.device_mood(DeviceMood::Lie);
        let outcome = run(&rack, step.clone(), 10, short).await;
        assert!(matches!(outcome, Outcome::Unknown(Doubt::NotSeen { .. })), "{step}: {outcome:?}");
        rack.device_mood(DeviceMood::Refuse);
        let outcome = run(&rack, step.clone(), 10, PATIENCE).await;
        assert!(matches!(outcome, Outcome::Refused(Refusal::DeviceRefused(_))), "{step}: {outcome:?}");
    }
    // The workload of node 1 is logged in: without its sessions dropped, nothing is revoked.
    eventually("a session", async || !rack.status().volumes[&volume(1)].sessions.is_empty()).await;
    rack.device_mood(DeviceMood::KeepSessions);
    let outcome = run(&rack, revoke(1), 10, short).await;
    assert!(matches!(outcome, Outcome::Unknown(Doubt::NotSeen { .. })), "{outcome:?}");
    let cut = Change::Reach { volume: volume(1), initiator: initiator(1), open: false };
    let is_cut = || rack.journal().changes.iter().any(|noted| noted.change == cut);
    assert!(!is_cut(), "it has no right, but it has its session");
    rack.device_mood(DeviceMood::Ok);
    done(&rack, revoke(1), 10).await;
    assert!(is_cut());
    rack.stop().await;
}
