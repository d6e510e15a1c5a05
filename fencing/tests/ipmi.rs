//! The IPMI driver over real datagrams, against a BMC that obeys, lies, hangs, forges and forgets.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use fencing::contract::{self, GUID, Lease, Mood, Rig};
use fencing::ipmi::commands::{ChassisControl, GetSystemGuid};
use fencing::ipmi::crypto::{Key, Suite};
use fencing::ipmi::{Bmc, Port, Settings};
use fencing::{Act, DriverError, PowerDriver, fence};
use policies::{BootDevice, FenceDevice, Identity, Outcome, Power, Refusal, Sealed, Seen};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{FakeBmc, PASSWORD, USER};
use tokio::task::JoinSet;
use tokio::time::Instant;

fn within(milliseconds: u64) -> Instant {
    Instant::now() + Duration::from_millis(milliseconds)
}

fn settings(bmc: &FakeBmc) -> Settings {
    Settings::new(&bmc.address.to_string(), USER, PASSWORD, bmc.state().suite.number()).unwrap()
}

fn driver(bmc: &FakeBmc) -> Bmc {
    Bmc::new(settings(bmc), &Port::new())
}

/// The driver under the contract table, with a new BMC for each row.
struct IpmiRig {
    suite: Suite,
    newest: Mutex<Option<FakeBmc>>,
}

impl Rig for IpmiRig {
    type Driver = Bmc;

    async fn device(&self, mood: Mood) -> Bmc {
        let bmc = FakeBmc::start(mood).await;
        bmc.state().suite = self.suite;
        let driver = driver(&bmc);
        *self.newest.lock().unwrap() = Some(bmc);
        driver
    }

    fn commands(&self) -> Vec<Act> {
        let newest = self.newest.lock().unwrap();
        let controls = newest.as_ref().unwrap().state().controls.clone();
        let act = |control| match control {
            0 => Act::Off,
            1 => Act::On,
            4 => Act::Interrupt,
            5 => Act::SoftOff,
            other => panic!("chassis control {other} is never sent"),
        };
        controls.into_iter().map(act).collect()
    }
}

#[tokio::test]
async fn the_driver_keeps_the_contract_with_suite_17() {
    contract::check(&IpmiRig { suite: Suite::Seventeen, newest: Mutex::default() }).await.unwrap();
}

#[tokio::test]
async fn the_driver_keeps_the_contract_with_suite_3() {
    contract::check(&IpmiRig { suite: Suite::Three, newest: Mutex::default() }).await.unwrap();
}

/// The unsafe fault of other clients: an answer "off" that is delayed past its request is taken for the answer to a
/// later one, when the node has long been on.
#[tokio::test]
async fn a_late_answer_is_never_taken_for_a_later_one() {
    let bmc = FakeBmc::start(Mood::AlreadyOff).await;
    bmc.state().delay_status = |number| Duration::from_millis(if number <= 2 { 300 } else { 0 });
    let driver = driver(&bmc);
    driver.ask(GetSystemGuid, within(5000)).await.unwrap();
    assert!(driver.look(within(200)).await.is_err(), "the answer came too early for this test");
    bmc.state().off = false;
    let until = within(600);
    while Instant::now() < until {
        assert_eq!(driver.look(within(5000)).await.unwrap().power, Power::On);
    }
}

/// As above within one warm session: the caller gives up, the session stays.
#[tokio::test]
async fn a_late_answer_in_the_same_session_is_dropped() {
    let bmc = FakeBmc::start(Mood::AlreadyOff).await;
    bmc.state().delay_status = |number| Duration::from_millis(if number == 1 { 150 } else { 0 });
    let driver = driver(&bmc);
    driver.ask(GetSystemGuid, within(5000)).await.unwrap();
    let given_up = tokio::time::timeout(Duration::from_millis(50), driver.look(within(5000))).await;
    assert!(given_up.is_err(), "the answer came too early for this test");
    bmc.state().off = false;
    let until = within(400);
    while Instant::now() < until {
        assert_eq!(driver.look(within(5000)).await.unwrap().power, Power::On);
    }
    assert_eq!(bmc.state().opens, 1);
}

#[tokio::test]
async fn a_caller_in_a_hurry_does_not_cost_the_session() {
    let bmc = FakeBmc::start(Mood::Obeys).await;
    bmc.state().delay_status = |number| Duration::from_millis(if number <= 2 { 150 } else { 0 });
    let driver = driver(&bmc);
    driver.ask(GetSystemGuid, within(5000)).await.unwrap();
    assert!(driver.look(within(50)).await.is_err(), "the answer came too early for this test");
    driver.look(within(5000)).await.unwrap();
    assert_eq!(bmc.state().opens, 1);
}

#[tokio::test]
async fn callers_in_a_hurry_find_out_together_that_the_session_is_lost() {
    let bmc = FakeBmc::start(Mood::Obeys).await;
    let driver = driver(&bmc);
    driver.look(within(5000)).await.unwrap();
    bmc.state().sessions.clear();
    let deadline = within(20_000);
    while driver.look(within(300)).await.is_err() {
        assert!(Instant::now() < deadline, "the lost session was never replaced");
    }
    assert!(bmc.state().opens >= 2);
}

#[tokio::test]
async fn a_forged_answer_is_dropped_and_the_good_one_taken() {
    let bmc = FakeBmc::start(Mood::Obeys).await;
    bmc.state().forge = true;
    assert_eq!(driver(&bmc).look(within(5000)).await.unwrap().power, Power::On);
}

#[tokio::test]
async fn the_identity_is_the_system_guid() {
    let bmc = FakeBmc::start(Mood::Obeys).await;
    assert_eq!(driver(&bmc).look(within(5000)).await.unwrap().identity.guid.as_deref(), Some(GUID));
}

fn not_admitted(result: Result<fencing::Look, DriverError>) -> String {
    match result {
        Err(DriverError::NotAdmitted(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn another_suite_than_the_configured_one_is_never_tried() {
    for (offered, configured) in [(Suite::Three, 17), (Suite::Seventeen, 3)] {
        let bmc = FakeBmc::start(Mood::Obeys).await;
        bmc.state().suite = offered;
        let settings = Settings::new(&bmc.address.to_string(), USER, PASSWORD, configured).unwrap();
        let why = not_admitted(Bmc::new(settings, &Port::new()).look(within(5000)).await);
        assert!(why.contains("does not offer this cipher suite"), "{why}");
        assert_eq!(bmc.state().opens, 1);
    }
}

#[tokio::test]
async fn a_wrong_password_or_user_is_found_at_once_and_not_tried_again() {
    let bmc = FakeBmc::start(Mood::Obeys).await;
    for (user, password) in [(USER, &b"wrong"[..]), ("nobody", PASSWORD)] {
        let opens = bmc.state().opens;
        let settings = Settings::new(&bmc.address.to_string(), user, password, 17).unwrap();
        let why = not_admitted(Bmc::new(settings, &Port::new()).look(within(5000)).await);
        assert!(why.contains("wrong password") || why.contains("no such user"), "{why}");
        assert!(!why.contains("wrong\""), "{why}");
        assert_eq!(bmc.state().opens, opens + 1);
        bmc.wait_for("the half-open session is freed", |state| state.sessions.is_empty()).await;
    }
}

#[tokio::test]
async fn a_bmc_key_is_used_where_it_is_set() {
    let bmc = FakeBmc::start(Mood::Obeys).await;
    bmc.state().k_g = Key::from_secret(b"bmc key");
    let with = settings(&bmc).with_k_g(b"bmc key").unwrap();
    assert!(Bmc::new(with, &Port::new()).look(within(5000)).await.is_ok());
    let why = not_admitted(driver(&bmc).look(within(5000)).await);
    assert!(why.contains("K_g"), "{why}");
}

#[tokio::test]
async fn lost_datagrams_are_sent_again() {
    let bmc = FakeBmc::start(Mood::Obeys).await;
    bmc.state().lose_one_in = 4;
    let driver = driver(&bmc);
    for _ in 0..10 {
        assert_eq!(driver.look(within(30_000)).await.unwrap().power, Power::On);
    }
}

#[tokio::test]
async fn a_forgotten_session_is_replaced_within_the_request() {
    let bmc = FakeBmc::start(Mood::Obeys).await;
    let driver = driver(&bmc);
    driver.look(within(5000)).await.unwrap();
    bmc.state().sessions.clear();
    driver.look(within(5000)).await.unwrap();
    assert_eq!(bmc.state().opens, 2);
}

#[tokio::test]
async fn a_warm_look_is_one_exchange_and_the_session_is_closed_at_the_end() {
    let bmc = FakeBmc::start(Mood::Obeys).await;
    let driver = driver(&bmc);
    for _ in 0..100 {
        driver.clone().look(within(5000)).await.unwrap();
    }
    assert_eq!(bmc.opens_and_statuses(), (1, 100));
    driver.close().await;
    bmc.wait_for("the session is closed", |state| state.sessions.is_empty()).await;
    driver.look(within(5000)).await.unwrap();
    assert_eq!(bmc.state().sessions.len(), 1);
    drop(driver);
    bmc.wait_for("the session is closed on drop", |state| state.sessions.is_empty()).await;
}

#[tokio::test]
async fn an_idle_session_is_kept_alive() {
    let bmc = FakeBmc::start(Mood::Obeys).await;
    let port = Port::with_idle_max(Duration::from_millis(20));
    let driver = Bmc::new(settings(&bmc), &port);
    driver.look(within(5000)).await.unwrap();
    bmc.wait_for("three signs of life", |state| state.device_ids >= 3).await;
    assert_eq!(bmc.opens_and_statuses(), (1, 1));
}

#[tokio::test]
async fn a_bmc_without_free_sessions_says_so() {
    let bmc = FakeBmc::start(Mood::Obeys).await;
    bmc.state().sessions_max = 0;
    let why = not_admitted(driver(&bmc).look(within(5000)).await);
    assert!(why.contains("all its sessions are taken"), "{why}");
}

#[tokio::test]
async fn a_permit_is_asked_before_each_datagram_of_a_command() {
    let bmc = FakeBmc::start(Mood::ObeysMute).await;
    let driver = driver(&bmc);
    driver.look(within(5000)).await.unwrap();
    let result = driver.act(Act::Off, &Lease::of(0), within(5000)).await;
    assert!(matches!(result, Err(DriverError::NotPermitted(Refusal::LeaseEnded))), "{result:?}");
    assert!(bmc.state().controls.is_empty());
    let error = driver.act(Act::Off, &Lease::of(2), within(600)).await.unwrap_err();
    assert!(error.may_have_happened(), "{error}");
    assert_eq!(bmc.state().controls.len(), 2, "one check, one datagram");
}

#[tokio::test]
async fn a_command_that_does_more_the_second_time_is_sent_once() {
    let bmc = FakeBmc::start(Mood::Obeys).await;
    let driver = driver(&bmc);
    // The BMC answers no reset.
    let error = driver.tell(ChassisControl::Reset, &Lease::endless(), within(1000)).await.unwrap_err();
    assert!(error.may_have_happened(), "{error}");
    assert_eq!(bmc.state().controls, [3]);
    let bmc = FakeBmc::start(Mood::ObeysMute).await;
    let asked = self::driver(&bmc).act(Act::SoftOff, &Lease::endless(), within(1000)).await;
    assert!(asked.is_err_and(|error| error.may_have_happened()));
    assert_eq!(bmc.state().controls, [5]);
}

/// Boot options and chassis controls that have arrived.
fn seen(bmc: &FakeBmc) -> (Vec<(usize, Vec<u8>)>, Vec<u8>) {
    let state = bmc.state();
    (state.boots.clone(), state.controls.clone())
}

#[tokio::test]
async fn a_node_is_switched_on_only_after_its_boot_device_was_set() {
    let bmc = FakeBmc::start(Mood::AlreadyOff).await;
    let driver = Bmc::new(settings(&bmc).with_boot_device(Some(BootDevice::PxeUefi)), &Port::new());
    driver.act(Act::On, &Lease::endless(), within(5000)).await.unwrap();
    // IPMI 2.0 table 28-14: parameter 5; valid, this start only, UEFI; PXE.
    let boots = vec![(0, vec![5, 0xa0, 0x04, 0, 0, 0])];
    assert_eq!(seen(&bmc), (boots.clone(), vec![1]));
    driver.act(Act::Off, &Lease::endless(), within(5000)).await.unwrap();
    assert_eq!(seen(&bmc), (boots, vec![1, 0]));
    // The permit is asked for each of the two.
    let refused = driver.act(Act::On, &Lease::of(1), within(5000)).await;
    assert!(matches!(refused, Err(DriverError::NotPermitted(Refusal::LeaseEnded))), "{refused:?}");
    let (boots, controls) = seen(&bmc);
    assert_eq!((boots.len(), controls), (2, vec![1, 0]));
}

#[tokio::test]
async fn without_its_boot_device_a_node_stays_off_and_that_is_certain() {
    for (completion, time, expected) in [(Some(0xc1), 5000, "0xc1"), (None, 300, "no answer")] {
        let bmc = FakeBmc::start(Mood::AlreadyOff).await;
        bmc.state().boot_completion = completion;
        let driver = Bmc::new(settings(&bmc).with_boot_device(Some(BootDevice::Pxe)), &Port::new());
        driver.look(within(5000)).await.unwrap();
        let error = driver.act(Act::On, &Lease::endless(), within(time)).await.unwrap_err();
        assert!(!error.may_have_happened() && error.to_string().contains(expected), "{error}");
        assert_eq!(bmc.state().controls, [0u8; 0]);
    }
}

#[tokio::test]
async fn requests_to_one_bmc_wait_for_each_other() {
    let bmc = FakeBmc::start(Mood::Obeys).await;
    let driver = driver(&bmc);
    let mut asking = JoinSet::new();
    for _ in 0..50 {
        let driver = driver.clone();
        asking.spawn(async move { driver.look(within(10_000)).await.map(|look| look.power) });
    }
    while let Some(look) = asking.join_next().await {
        assert_eq!(look.unwrap().unwrap(), Power::On);
    }
    assert_eq!(bmc.opens_and_statuses(), (1, 50));
}

#[tokio::test]
async fn a_driver_is_built_from_the_inventory() {
    let bmc = FakeBmc::start(Mood::Obeys).await;
    let device = |cipher_suite| FenceDevice::Ipmi {
        address: bmc.address.to_string(),
        user: USER.to_owned(),
        password: Sealed(String::new()),
        cipher_suite,
        boot_device: None,
        console: false,
    };
    for suite in [0, 1, 2, 6, 15, 16, 18, 255] {
        let refused = fencing::Bmc::from(&device(suite), PASSWORD, &Port::new()).err();
        assert!(matches!(refused, Some(Refusal::NotConfigured(why)) if why.contains("cipher_suite")));
    }
    let driver = fencing::Bmc::from(&device(17), PASSWORD, &Port::new()).unwrap();
    let expected = Identity { guid: Some(GUID.to_owned()), ..Identity::default() };
    let outcome = fence(&driver, &expected, &Lease::endless(), within(5000)).await;
    assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { already: false, .. })), "{outcome:?}");
}

#[test]
fn settings_show_no_password() {
    let text = format!("{:?}", Settings::new("bmc-1:623", USER, b"hunter2", 17).unwrap());
    assert!(!text.contains("hunter2") && text.contains(USER), "{text}");
}

/// One node, BMCs of different slowness: never proven before it is off. Prints what we add to the BMC's own delay;
/// `make bench` measures it.
#[tokio::test]
async fn one_fenced_node_is_not_proven_off_before_it_is() {
    for own_delay in [0, 100, 1000, 2500].map(Duration::from_millis) {
        let bmc = FakeBmc::start(Mood::Obeys).await;
        bmc.state().off_delay = own_delay;
        let driver = driver(&bmc);
        driver.look(within(5000)).await.unwrap();
        let started = Instant::now();
        let outcome = fence(&driver, &Identity::default(), &Lease::endless(), within(20_000)).await;
        assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { already: false, .. })), "{outcome:?}");
        let took = started.elapsed();
        assert!(took >= own_delay, "proven off after {took:?}, but it was on for {own_delay:?}");
        println!("one node fenced {:?} over its BMC's own {own_delay:?}", took - own_delay);
    }
}

/// 100 nodes at once on one port: all are proven off, none before it is. Prints what we add to the BMCs' own delay.
#[tokio::test]
async fn a_hundred_fenced_nodes_are_proven_off_at_once() {
    const OWN_DELAY: Duration = Duration::from_millis(500);
    let port = Port::new();
    let mut bmcs = vec![];
    for _ in 0..100 {
        let bmc = FakeBmc::start(Mood::Obeys).await;
        bmc.state().off_delay = OWN_DELAY;
        let driver = Bmc::new(settings(&bmc), &port);
        driver.look(within(10_000)).await.unwrap();
        bmcs.push((bmc, driver));
    }
    let started = Instant::now();
    let mut fencing = JoinSet::new();
    let lease = Arc::new(Lease::endless());
    for (_, driver) in &bmcs {
        let (driver, lease) = (driver.clone(), Arc::clone(&lease));
        fencing.spawn(async move { fence(&driver, &Identity::default(), &*lease, within(20_000)).await });
    }
    while let Some(outcome) = fencing.join_next().await {
        assert!(matches!(outcome, Ok(Outcome::Done(Seen::OffTwice { already: false, .. }))), "{outcome:?}");
    }
    let took = started.elapsed();
    assert!(took >= OWN_DELAY, "proven off after {took:?}");
    println!("100 nodes fenced {:?} over the BMCs' own delay", took - OWN_DELAY);
}
