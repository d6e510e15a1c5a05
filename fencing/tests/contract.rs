//! The fencing algorithm itself against the contract table: a scripted device, virtual time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use fencing::contract::{self, GUID, Lease, Mood, Rig};
use fencing::{Act, DriverError, Look, PowerDriver, Weight, fence, power_on, shut_down};
use policies::{Doubt, Identity, Millis, Outcome, Permit, Power, Refusal, Seen};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// A device that follows its mood without any wire.
struct Scripted {
    mood: Mood,
    commands: Arc<Mutex<Vec<Act>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    looks: u32,
    commanded_at: Option<Instant>,
    looks_since: u32,
}

impl Scripted {
    fn new(mood: Mood) -> Scripted {
        Scripted { mood, commands: Arc::default(), state: Mutex::default() }
    }

    fn power(&self) -> Power {
        let mut state = self.state.lock().unwrap();
        state.looks += 1;
        let Some(at) = state.commanded_at else {
            let off = self.mood == Mood::AlreadyOff || (self.mood == Mood::OffOnce && state.looks == 1);
            return if off { Power::Off } else { Power::On };
        };
        state.looks_since += 1;
        let on = (self.mood == Mood::ObeysLate && at.elapsed() < Duration::from_millis(200))
            || (self.mood == Mood::Wavers && state.looks_since == 2)
            || (self.mood == Mood::Lies && state.looks_since.is_multiple_of(2))
            || self.mood == Mood::Ignores;
        if on { Power::On } else { Power::Off }
    }
}

async fn silence(deadline: Instant) -> DriverError {
    sleep_until(deadline).await;
    DriverError::Unreachable { what: "ask the scripted device".to_owned(), source: None }
}

impl PowerDriver for Scripted {
    async fn look(&self, deadline: Instant) -> Result<Look, DriverError> {
        let commanded = self.state.lock().unwrap().commanded_at.is_some();
        if self.mood == Mood::Deaf || (self.mood == Mood::FallsSilent && commanded) {
            return Err(silence(deadline).await);
        }
        let own = (self.mood != Mood::NoIdentity).then(|| GUID.to_owned());
        let guid = if self.mood == Mood::OtherIdentity { Some("ff".repeat(16)) } else { own };
        Ok(Look {
            power: self.power(),
            identity: Identity { guid, ..Identity::default() },
            weight: Weight::Lasts,
        })
    }

    async fn act(&self, act: Act, permit: &dyn Permit, deadline: Instant) -> Result<(), DriverError> {
        permit.check().map_err(DriverError::NotPermitted)?;
        self.commands.lock().unwrap().push(act);
        if self.mood == Mood::Refuses {
            return Err(DriverError::Refused("insufficient privilege".to_owned()));
        }
        if self.mood == Mood::OnlyHardOff && act == Act::SoftOff {
            return Err(DriverError::Refused("invalid command".to_owned()));
        }
        self.state.lock().unwrap().commanded_at = Some(Instant::now());
        if self.mood == Mood::ObeysMute {
            sleep_until(deadline).await;
            return Err(DriverError::NoAnswer { what: "command".to_owned(), waited: Millis(0) });
        }
        Ok(())
    }
}

#[derive(Default)]
struct ScriptedRig(Mutex<Arc<Mutex<Vec<Act>>>>);

impl Rig for ScriptedRig {
    type Driver = Scripted;

    async fn device(&self, mood: Mood) -> Scripted {
        let device = Scripted::new(mood);
        *self.0.lock().unwrap() = Arc::clone(&device.commands);
        device
    }

    fn commands(&self) -> Vec<Act> {
        self.0.lock().unwrap().lock().unwrap().clone()
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[tokio::test(start_paused = true)]
async fn the_algorithm_keeps_the_contract() {
    contract::check(&ScriptedRig::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_the_inventory_does_not_know_is_not_compared() {
    let device = Scripted::new(Mood::OtherIdentity);
    let outcome = fence(&device, &Identity::default(), &Lease::endless(), soon()).await;
    assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { already: false, .. })), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn an_off_node_is_proved_off_in_two_looks() {
    let device = Scripted::new(Mood::AlreadyOff);
    let outcome = fence(&device, &Identity::default(), &Lease::endless(), soon()).await;
    assert_eq!(outcome, Outcome::Done(Seen::OffTwice { already: true, took: Millis(0) }));
    assert_eq!(device.state.lock().unwrap().looks, 2);
}

#[tokio::test(start_paused = true)]
async fn doubt_names_the_last_reading_and_the_time() {
    let deadline = Instant::now() + Duration::from_secs(30);
    let outcome =
        fence(&Scripted::new(Mood::Ignores), &Identity::default(), &Lease::endless(), deadline).await;
    let Outcome::Unknown(Doubt::NotSeen { waited, last }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(last, "on");
    assert!((29_000..=30_000).contains(&waited.0), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn a_device_is_looked_at_often_at_first_and_seldom_later() {
    let device = Scripted::new(Mood::Ignores);
    fence(&device, &Identity::default(), &Lease::endless(), Instant::now() + Duration::from_millis(256))
        .await;
    let in_the_first_moments = device.state.lock().unwrap().looks;
    assert!((32..=66).contains(&in_the_first_moments), "{in_the_first_moments}");
    let device = Scripted::new(Mood::Ignores);
    fence(&device, &Identity::default(), &Lease::endless(), soon()).await;
    let in_a_minute = device.state.lock().unwrap().looks;
    assert!(in_a_minute < 600, "{in_a_minute}");
}

#[tokio::test(start_paused = true)]
async fn what_a_late_device_costs_us_is_a_small_part_of_its_own_delay() {
    let device = Scripted::new(Mood::ObeysLate);
    let outcome = fence(&device, &Identity::default(), &Lease::endless(), soon()).await;
    let Outcome::Done(Seen::OffTwice { already: false, took }) = outcome else { panic!("{outcome:?}") };
    assert!((200..=206).contains(&took.0), "{took}");
}

/// A device that is off, but behind whose address another machine's BMC answers after the command.
struct Swapped(AtomicU32);

impl PowerDriver for Swapped {
    async fn look(&self, _: Instant) -> Result<Look, DriverError> {
        let commanded = self.0.load(Ordering::SeqCst) > 0;
        let power = if commanded { Power::Off } else { Power::On };
        let guid = if commanded { "ff".repeat(16) } else { GUID.to_owned() };
        Ok(Look {
            power,
            identity: Identity { guid: Some(guid), ..Identity::default() },
            weight: Weight::Lasts,
        })
    }

    async fn act(&self, _: Act, permit: &dyn Permit, _: Instant) -> Result<(), DriverError> {
        permit.check().map_err(DriverError::NotPermitted)?;
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn another_machine_that_is_off_proves_nothing() {
    let (anyone, lease) = (Identity::default(), Lease::endless());
    for outcome in [
        fence(&Swapped(AtomicU32::new(0)), &anyone, &lease, soon()).await,
        shut_down(&Swapped(AtomicU32::new(0)), &anyone, &lease, soon()).await,
    ] {
        let Outcome::Unknown(Doubt::NotSeen { last, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(last, "another machine's BMC");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_may_take_minutes_and_one_that_never_ends_is_doubt() {
    let ten_minutes = Instant::now() + Duration::from_secs(600);
    let device = Scripted::new(Mood::Ignores);
    let outcome = shut_down(&device, &Identity::default(), &Lease::endless(), ten_minutes).await;
    let Outcome::Unknown(Doubt::NotSeen { waited, last }) = outcome else { panic!("{outcome:?}") };
    assert!((599_000..=600_000).contains(&waited.0) && last == "on", "{waited} {last}");
    let looks = device.state.lock().unwrap().looks;
    assert!(looks < 3000, "{looks} looks in ten minutes");
}

/// A device that reads off once and then nothing.
struct OffThenSilent(AtomicU32);

impl PowerDriver for OffThenSilent {
    async fn look(&self, deadline: Instant) -> Result<Look, DriverError> {
        match self.0.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(Look {
                power: Power::Off,
                identity: Identity { guid: Some(GUID.to_owned()), ..Identity::default() },
                weight: Weight::Lasts,
            }),
            _ => Err(silence(deadline).await),
        }
    }

    async fn act(&self, act: Act, _: &dyn Permit, _: Instant) -> Result<(), DriverError> {
        panic!("{act:?} sent to a node that reads off")
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_reads_off_is_not_asked_to_shut_down() {
    let device = OffThenSilent(AtomicU32::new(0));
    let outcome = shut_down(&device, &Identity::default(), &Lease::endless(), soon()).await;
    assert!(matches!(outcome, Outcome::Refused(Refusal::Unreachable(_))), "{outcome:?}");
}

/// A device whose power is what it was last told.
struct Switch(Mutex<Power>);

impl PowerDriver for Switch {
    async fn look(&self, _: Instant) -> Result<Look, DriverError> {
        Ok(Look {
            power: *self.0.lock().unwrap(),
            identity: Identity { guid: Some(GUID.to_owned()), ..Identity::default() },
            weight: Weight::Lasts,
        })
    }

    async fn act(&self, act: Act, permit: &dyn Permit, _: Instant) -> Result<(), DriverError> {
        permit.check().map_err(DriverError::NotPermitted)?;
        *self.0.lock().unwrap() = if act == Act::On { Power::On } else { Power::Off };
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn power_on_looks_first_and_reads_back() {
    let expected = Identity { guid: Some(GUID.to_uppercase()), ..Identity::default() };
    let switch = Switch(Mutex::new(Power::Off));
    assert_eq!(
        power_on(&switch, &expected, &Lease::of(1), soon()).await,
        Outcome::Refused(Refusal::LeaseEnded)
    );
    assert_eq!(power_on(&switch, &expected, &Lease::endless(), soon()).await, Outcome::Done(Seen::On));
    assert_eq!(*switch.0.lock().unwrap(), Power::On);
    // Already on: one check, no command.
    assert_eq!(power_on(&switch, &expected, &Lease::of(1), soon()).await, Outcome::Done(Seen::On));
    let other = Identity { guid: Some("ff".repeat(16)), ..Identity::default() };
    let outcome = power_on(&switch, &other, &Lease::endless(), soon()).await;
    assert!(matches!(outcome, Outcome::Refused(Refusal::WrongIdentity { .. })), "{outcome:?}");
}
