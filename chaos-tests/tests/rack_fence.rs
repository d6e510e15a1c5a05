//! The product's fencing against the rack's machines: what counts is whether the machine is off, not what it says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod rack_support;

use chaos_tests::rack::{Change, Fault, Life, MoodChange, Rack, RackSpec};
use fencing::ipmi::Port;
use fencing::ipmi::commands::{ResetWatchdog, SetWatchdog, WatchdogAction, WatchdogUse};
use fencing::{Bmc, PowerDriver, fence, interrupt, power_on, shut_down};
use policies::{Doubt, Identity, Millis, Outcome, Permit, Refusal, Seen};
use rack_support::*;
use std::sync::Arc;
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

/// Driver and identity of a machine, from the same inventory that the supervisor gets.
fn driver(rack: &Rack, number: usize, port: &Arc<Port>) -> (Bmc, Identity) {
    let documents = rack.description().inventory().unwrap();
    let described = documents.nodes.iter().find(|described| described.name == node(number)).unwrap();
    let device = &described.fencing[0];
    let password = rack.description().machine(&node(number)).unwrap().password.0.clone();
    (Bmc::from(device, password.as_bytes(), port).unwrap(), described.identity.clone())
}

#[tokio::test]
async fn a_hung_machine_is_seen_off_and_its_processes_are_gone() {
    for suite in [3, 17] {
        let (rack, _dir) = start(&RackSpec { suite, ..spec(1, 0) }).await;
        let port = Port::new();
        let (driver, identity) = driver(&rack, 1, &port);
        assert!(rack.fault(&node(1), Fault::Hang).await);
        let outcome = fence(&driver, &identity, &Always, Instant::now() + PATIENCE).await;
        assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { already: false, .. })), "{outcome:?}");
        assert_eq!(rack.status().machines[&node(1)].life, Life::Off);
        let outcome = fence(&driver, &identity, &Always, Instant::now() + PATIENCE).await;
        assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { already: true, .. })), "{outcome:?}");
        let outcome = power_on(&driver, &identity, &Always, Instant::now() + PATIENCE).await;
        assert_eq!(outcome, Outcome::Done(Seen::On));
        assert!(rack.reaches(&node(1), Life::Running, Instant::now() + PATIENCE).await);
        rack.stop().await;
    }
}

/// The node's system arms and feeds it over the same commands, from its own side.
#[tokio::test]
async fn a_watchdog_tells_when_it_was_fed() {
    let (rack, _dir) = start(&spec(1, 0)).await;
    let port = Port::new();
    let (driver, _) = driver(&rack, 1, &port);
    let Bmc::Ipmi(bmc) = &driver else { panic!("not IPMI") };
    let end = Instant::now() + PATIENCE;
    let fed = async || driver.fed(end).await.unwrap();
    assert_eq!(fed().await, None);
    let set = SetWatchdog { used_for: WatchdogUse::Os, action: WatchdogAction::Off, initial: 6000 };
    bmc.tell(set, &Always, end).await.unwrap();
    assert_eq!(fed().await, None, "it stands still until it is fed");
    let start = Instant::now();
    bmc.tell(ResetWatchdog, &Always, end).await.unwrap();
    let mut last = fed().await.unwrap();
    while last < Millis(500) {
        assert!(Instant::now() < end, "it does not count");
        tokio::task::yield_now().await;
        last = fed().await.unwrap();
    }
    // Read after it was told, to a tenth of a second.
    assert!(u128::from(last.0) <= start.elapsed().as_millis() + 100, "{last}");
    let again = Instant::now();
    bmc.tell(ResetWatchdog, &Always, end).await.unwrap();
    let last = fed().await.unwrap();
    assert!(u128::from(last.0) <= again.elapsed().as_millis() + 100, "{last}");
    rack.stop().await;
}

#[tokio::test]
async fn a_machine_that_is_asked_shuts_down_in_order_and_loses_no_write() {
    let (rack, _dir) = start(&spec(1, 0)).await;
    let port = Port::new();
    let (driver, identity) = driver(&rack, 1, &port);
    let delay = Millis(300);
    assert!(rack.fault(&node(1), Fault::BmcMood { mood: MoodChange::OffDelay(delay) }).await);
    let outcome = shut_down(&driver, &identity, &Always, Instant::now() + PATIENCE).await;
    let Outcome::Done(Seen::OffTwice { already: false, took }) = outcome else { panic!("{outcome:?}") };
    assert!(took >= delay, "{took}");
    assert_eq!(rack.status().machines[&node(1)].life, Life::Off);
    assert_eq!(rack.report().lost_writes, 0);
    let outcome = shut_down(&driver, &identity, &Always, Instant::now() + PATIENCE).await;
    assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { already: true, .. })), "{outcome:?}");
    rack.stop().await;
}

#[tokio::test]
async fn a_machine_that_does_not_listen_or_hangs_stays_on_until_it_is_fenced() {
    let (rack, _dir) = start(&spec(1, 0)).await;
    let port = Port::new();
    let (driver, identity) = driver(&rack, 1, &port);
    let short = || Instant::now() + Duration::from_millis(500);
    for fault in [Fault::BmcMood { mood: MoodChange::IgnoreSoft }, Fault::Hang] {
        assert!(rack.fault(&node(1), fault.clone()).await);
        let outcome = shut_down(&driver, &identity, &Always, short()).await;
        let Outcome::Unknown(Doubt::NotSeen { last, .. }) = outcome else { panic!("{fault:?}: {outcome:?}") };
        assert_eq!(last, "on", "{fault:?}");
        // In the first case only the soft-off is ignored.
        let outcome = fence(&driver, &identity, &Always, Instant::now() + PATIENCE).await;
        assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { already: false, .. })), "{outcome:?}");
        assert!(rack.fault(&node(1), Fault::BmcMood { mood: MoodChange::Ok }).await);
        assert_eq!(
            power_on(&driver, &identity, &Always, Instant::now() + PATIENCE).await,
            Outcome::Done(Seen::On)
        );
        assert!(rack.reaches(&node(1), Life::Running, Instant::now() + PATIENCE).await);
    }
    rack.stop().await;
}

/// What its BMC tells of a machine once the newest event is as wished.
async fn diagnosis(driver: &Bmc, newest: &str) -> Vec<String> {
    let mut lines = Vec::new();
    eventually(newest, async || {
        lines = driver.diagnose(Instant::now() + PATIENCE).await.unwrap();
        lines.get(3).is_some_and(|line| line.ends_with(newest))
    })
    .await;
    lines
}

#[tokio::test]
async fn what_happened_to_a_machine_is_told_newest_first() {
    let (rack, _dir) = start(&spec(1, 0)).await;
    let port = Port::new();
    let (driver, identity) = driver(&rack, 1, &port);
    assert!(rack.fault(&node(1), Fault::Panic { gasp: false }).await);
    let panicked = diagnosis(&driver, "OS Stop/Shutdown sensor 0x02: Run-time Critical Stop").await;
    assert!(panicked[0].starts_with("chassis: power on; "), "{panicked:#?}");
    for _ in 0..2 {
        assert!(matches!(
            fence(&driver, &identity, &Always, Instant::now() + PATIENCE).await,
            Outcome::Done(Seen::OffTwice { .. })
        ));
        let on = power_on(&driver, &identity, &Always, Instant::now() + PATIENCE).await;
        assert_eq!(on, Outcome::Done(Seen::On));
        assert!(rack.reaches(&node(1), Life::Running, Instant::now() + PATIENCE).await);
    }
    let outcome = shut_down(&driver, &identity, &Always, Instant::now() + PATIENCE).await;
    assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { already: false, .. })), "{outcome:?}");
    let Bmc::Ipmi(bmc) = &driver else { panic!("the rack's BMCs speak IPMI") };
    assert_eq!(bmc.learn_sensors(Instant::now() + PATIENCE).await.unwrap(), 3);
    let lines = diagnosis(&driver, "Power Off / Power Down").await;
    assert_eq!(
        lines[11..],
        [
            "sensors: 3 read; none tells of trouble",
            "temperatures: Cpu Temp 45 °C",
            "power supplies: Psu 1 Presence detected, Psu 2 Presence detected",
        ]
    );
    let events = lines.iter().skip(3).take(8).map(|line| line.split_once("Z: ").unwrap().1);
    let off = "Power Unit sensor 0x01: Power Off / Power Down";
    let on = "Power Unit sensor 0x01: Power Off / Power Down, no longer";
    let ended = "OS Stop/Shutdown sensor 0x02: OS Graceful Shutdown";
    let stopped = "OS Stop/Shutdown sensor 0x02: Run-time Critical Stop";
    assert_eq!(events.collect::<Vec<_>>(), [off, ended, on, off, on, off, stopped, on]);
    assert_eq!(
        lines[..3],
        [
            "chassis: power off; no fault reported",
            "chassis: last power event: on by an IPMI command",
            "event log: 8 entries, the newest first",
        ]
    );
    rack.stop().await;
}

#[tokio::test]
async fn a_kernel_is_interrupted_once_and_dies() {
    let (rack, _dir) = start(&spec(1, 0)).await;
    let port = Port::new();
    let (driver, identity) = driver(&rack, 1, &port);
    let interrupted = async || interrupt(&driver, &identity, &Always, Instant::now() + PATIENCE).await;
    assert_eq!(interrupted().await, Outcome::Done(Seen::Accepted));
    assert!(rack.reaches(&node(1), Life::Panicked, Instant::now() + PATIENCE).await);
    let outcome = fence(&driver, &identity, &Always, Instant::now() + PATIENCE).await;
    assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { .. })), "{outcome:?}");
    let refused = interrupted().await;
    assert!(matches!(refused, Outcome::Refused(Refusal::DeviceRefused(_))), "{refused:?}");
    rack.stop().await;
}

#[tokio::test]
async fn the_journal_tells_what_was_commanded_what_came_of_it_and_what_was_told() {
    let (rack, _dir) = start(&spec(1, 0)).await;
    let port = Port::new();
    let (driver, identity) = driver(&rack, 1, &port);
    let begun = rack.journal().changes.len();
    let outcome = fence(&driver, &identity, &Always, Instant::now() + PATIENCE).await;
    assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { already: false, .. })), "{outcome:?}");
    let changes: Vec<Change> =
        rack.journal().changes.into_iter().skip(begun).map(|noted| noted.change).collect();
    let told = |on| Change::Told { node: node(1), on };
    let place = |wanted: Change| changes.iter().position(|change| *change == wanted).unwrap();
    let commanded = place(Change::Commanded { node: node(1), on: false });
    let off = place(Change::Power { node: node(1), on: false });
    assert!(place(told(true)) < commanded && commanded < off, "{changes:?}");
    assert!(off < place(told(false)), "{changes:?}");
    assert_eq!(changes.iter().filter(|change| **change == told(false)).count(), 2, "{changes:?}");
    rack.stop().await;
}

#[tokio::test]
async fn a_bmc_that_ignores_is_doubted_and_one_that_died_is_unreachable() {
    let (rack, _dir) = start(&spec(1, 0)).await;
    let port = Port::new();
    let (driver, identity) = driver(&rack, 1, &port);
    let short = || Instant::now() + Duration::from_millis(500);
    assert!(rack.fault(&node(1), Fault::BmcMood { mood: MoodChange::IgnoreOff }).await);
    let outcome = fence(&driver, &identity, &Always, short()).await;
    assert!(matches!(outcome, Outcome::Unknown(Doubt::NotSeen { .. })), "{outcome:?}");
    assert!(rack.fault(&node(1), Fault::PowerLoss).await);
    let outcome = fence(&driver, &identity, &Always, short()).await;
    assert!(matches!(outcome, Outcome::Refused(Refusal::Unreachable(_))), "{outcome:?}");
    assert!(rack.fault(&node(1), Fault::Heal).await);
    // The BMC has forgotten the session; the driver has to notice and open a new one.
    let outcome = fence(&driver, &identity, &Always, Instant::now() + PATIENCE).await;
    assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { already: true, .. })), "{outcome:?}");
    rack.stop().await;
}

#[tokio::test]
async fn a_slow_board_is_waited_for_and_another_machines_bmc_is_left_alone() {
    let (rack, _dir) = start(&spec(2, 0)).await;
    let port = Port::new();
    let (first, identity) = driver(&rack, 1, &port);
    let (second, _) = driver(&rack, 2, &port);
    let outcome = fence(&second, &identity, &Always, Instant::now() + PATIENCE).await;
    assert!(matches!(outcome, Outcome::Refused(Refusal::WrongIdentity { .. })), "{outcome:?}");
    assert_eq!(rack.status().machines[&node(2)].life, Life::Running);

    let delay = Millis(600);
    assert!(rack.fault(&node(1), Fault::BmcMood { mood: MoodChange::OffDelay(delay) }).await);
    let outcome = fence(&first, &identity, &Always, Instant::now() + PATIENCE).await;
    let Outcome::Done(Seen::OffTwice { already: false, took }) = outcome else { panic!("{outcome:?}") };
    assert!(took >= delay, "{took}");
    rack.stop().await;
}
