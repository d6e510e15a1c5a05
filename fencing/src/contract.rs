//! The contract that every driver passes: one table of devices that obey, lie, hang and refuse, and of what
//! [`fence`](crate::fence), [`shut_down`](crate::shut_down) and [`interrupt`](crate::interrupt) must say of each.
//!
//! Why it exists: a driver is right when the proof that it gives is right, whatever its device does. A driver's tests
//! bring a [`Rig`], a device with moods; the table is the same for all.
//! What it never does: running in production.

use crate::fence::carry_out;
use crate::power::{Act, PowerDriver};
use policies::{Doubt, Identity, Outcome, Permit, Refusal, Seen};
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// The identity that a device of a [`Rig`] reports, unless its mood says otherwise: 32 hexadecimal digits.
pub const GUID: &str = "000102030405060708090a0b0c0d0e0f";

/// How a device behaves. "On" before the command unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Off before the command.
    AlreadyOff,
    /// Switches off at once.
    Obeys,
    /// Switches off 200 ms after the command.
    ObeysLate,
    /// Switches off, but never answers the command.
    ObeysMute,
    /// Reads off once, then on; switches off when told.
    OffOnce,
    /// After the command it reads off, on, off, off, off, ...
    Wavers,
    /// After the command it reads off, on, off, on, ... for ever.
    Lies,
    /// Accepts the command and stays on.
    Ignores,
    /// Accepts the command and answers nothing any more.
    FallsSilent,
    /// Answers nothing from the beginning.
    Deaf,
    /// Refuses the command for lack of privilege.
    Refuses,
    /// Obeys, but does not know the soft-off.
    OnlyHardOff,
    /// Reports another identity.
    OtherIdentity,
    /// Reports no identity.
    NoIdentity,
}

/// A device with moods.
pub trait Rig {
    /// The driver under test.
    type Driver: PowerDriver;

    /// A new device in that mood, reporting [`GUID`], and a driver for it.
    fn device(&self, mood: Mood) -> impl Future<Output = Self::Driver>;

    /// The commands that the newest device has received, repetitions included.
    fn commands(&self) -> Vec<Act>;

    /// True if somebody else owns the power, and has to be told also that a node which is off is to stay so.
    fn has_owner(&self) -> bool {
        false
    }
}

/// A permit that allows a number of checks and then says that the lease ended.
#[derive(Debug)]
pub struct Lease {
    left: AtomicU32,
}

impl Lease {
    /// Allows `checks` checks.
    pub fn of(checks: u32) -> Lease {
        Lease { left: AtomicU32::new(checks) }
    }

    /// Allows every check that a test can make.
    pub fn endless() -> Lease {
        Lease::of(u32::MAX)
    }
}

impl Permit for Lease {
    fn check(&self) -> Result<(), Refusal> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(|_| ()).map_err(|_| Refusal::LeaseEnded)
    }

    fn token(&self) -> policies::LogIndex {
        policies::LogIndex(7)
    }
}

/// What the table wants to hear.
#[derive(Clone, Copy, Debug)]
enum Want {
    AlreadyOff,
    Off,
    NotSeen,
    NoAnswer,
    Unreachable,
    DeviceRefused,
    WrongIdentity,
    LeaseEnded,
    Accepted,
}

/// One row.
struct Case {
    act: Act,
    mood: Mood,
    /// Checks that the permit allows.
    checks: u32,
    want: Want,
    /// Whether the command must reach the device (true), or must not (false). No other ever may, and a soft-off or an
    /// interrupt only once.
    commanded: bool,
}

const ENDLESS: u32 = u32::MAX;
/// Checks of the algorithm itself before it calls the driver: one at its start, one before the command. With exactly
/// these the driver's own check, right before the write, is the one that fails.
const CHECKS_OF_FENCE: u32 = 2;
/// How long each case may take. Cases that end in doubt take all of it.
const CASE_TIME: Duration = Duration::from_millis(1500);

const fn case(mood: Mood, checks: u32, want: Want, commanded: bool) -> Case {
    Case { act: Act::Off, mood, checks, want, commanded }
}

const fn soft(mood: Mood, checks: u32, want: Want, commanded: bool) -> Case {
    Case { act: Act::SoftOff, ..case(mood, checks, want, commanded) }
}

const fn interrupt(mood: Mood, checks: u32, want: Want, commanded: bool) -> Case {
    Case { act: Act::Interrupt, ..case(mood, checks, want, commanded) }
}

const TABLE: [Case; 44] = [
    case(Mood::AlreadyOff, ENDLESS, Want::AlreadyOff, false),
    case(Mood::Obeys, ENDLESS, Want::Off, true),
    case(Mood::ObeysLate, ENDLESS, Want::Off, true),
    case(Mood::ObeysMute, ENDLESS, Want::Off, true),
    case(Mood::OffOnce, ENDLESS, Want::Off, true),
    case(Mood::Wavers, ENDLESS, Want::Off, true),
    case(Mood::Lies, ENDLESS, Want::NotSeen, true),
    case(Mood::Ignores, ENDLESS, Want::NotSeen, true),
    case(Mood::FallsSilent, ENDLESS, Want::NoAnswer, true),
    case(Mood::Deaf, ENDLESS, Want::Unreachable, false),
    case(Mood::Refuses, ENDLESS, Want::DeviceRefused, true),
    case(Mood::OtherIdentity, ENDLESS, Want::WrongIdentity, false),
    case(Mood::NoIdentity, ENDLESS, Want::WrongIdentity, false),
    case(Mood::Obeys, 0, Want::LeaseEnded, false),
    case(Mood::Obeys, 1, Want::LeaseEnded, false),
    case(Mood::Obeys, CHECKS_OF_FENCE, Want::LeaseEnded, false),
    case(Mood::OnlyHardOff, ENDLESS, Want::Off, true),
    soft(Mood::AlreadyOff, ENDLESS, Want::AlreadyOff, false),
    soft(Mood::Obeys, ENDLESS, Want::Off, true),
    soft(Mood::ObeysLate, ENDLESS, Want::Off, true),
    soft(Mood::ObeysMute, ENDLESS, Want::Off, true),
    soft(Mood::OffOnce, ENDLESS, Want::Off, true),
    soft(Mood::Wavers, ENDLESS, Want::Off, true),
    soft(Mood::Lies, ENDLESS, Want::NotSeen, true),
    soft(Mood::Ignores, ENDLESS, Want::NotSeen, true),
    soft(Mood::FallsSilent, ENDLESS, Want::NoAnswer, true),
    soft(Mood::Deaf, ENDLESS, Want::Unreachable, false),
    soft(Mood::Refuses, ENDLESS, Want::DeviceRefused, true),
    soft(Mood::OnlyHardOff, ENDLESS, Want::DeviceRefused, true),
    soft(Mood::OtherIdentity, ENDLESS, Want::WrongIdentity, false),
    soft(Mood::NoIdentity, ENDLESS, Want::WrongIdentity, false),
    soft(Mood::Obeys, 0, Want::LeaseEnded, false),
    soft(Mood::Obeys, 1, Want::LeaseEnded, false),
    soft(Mood::Obeys, CHECKS_OF_FENCE, Want::LeaseEnded, false),
    interrupt(Mood::AlreadyOff, ENDLESS, Want::DeviceRefused, false),
    interrupt(Mood::Obeys, ENDLESS, Want::Accepted, true),
    // Nothing shows whether it arrived.
    interrupt(Mood::Ignores, ENDLESS, Want::Accepted, true),
    interrupt(Mood::ObeysMute, ENDLESS, Want::NoAnswer, true),
    interrupt(Mood::Deaf, ENDLESS, Want::Unreachable, false),
    interrupt(Mood::Refuses, ENDLESS, Want::DeviceRefused, true),
    interrupt(Mood::OtherIdentity, ENDLESS, Want::WrongIdentity, false),
    interrupt(Mood::Obeys, 0, Want::LeaseEnded, false),
    interrupt(Mood::Obeys, 1, Want::LeaseEnded, false),
    interrupt(Mood::Obeys, CHECKS_OF_FENCE, Want::LeaseEnded, false),
];

/// Runs the table.
///
/// # Errors
/// One line for each row that was not kept.
pub async fn check(rig: &impl Rig) -> Result<(), String> {
    let expected = Identity { guid: Some(GUID.to_owned()), ..Identity::default() };
    let mut broken = Vec::new();
    for Case { act, mood, checks, want, commanded } in TABLE {
        let driver = rig.device(mood).await;
        let (want, commanded) = match (act, mood, rig.has_owner()) {
            (Act::Off, Mood::AlreadyOff, true) => (Want::Off, true),
            (Act::On | Act::Off | Act::SoftOff | Act::Interrupt, _, _) => (want, commanded),
        };
        let (lease, deadline) = (Lease::of(checks), Instant::now() + CASE_TIME);
        let outcome = carry_out(&driver, act, &expected, &lease, deadline).await;
        let commands = rig.commands();
        let only_this = commands.iter().all(|command| *command == act);
        let once = matches!(act, Act::SoftOff | Act::Interrupt);
        let often_enough = commanded != commands.is_empty() && (!once || commands.len() <= 1);
        if !fits(want, &outcome) || !only_this || !often_enough {
            broken.push(format!(
                "{act:?}, {mood:?}, {checks} checks: want {want:?}, got {outcome:?}, commands {commands:?}"
            ));
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(broken.join("\n")) }
}

fn fits(want: Want, outcome: &Outcome) -> bool {
    match want {
        Want::AlreadyOff => matches!(outcome, Outcome::Done(Seen::OffTwice { already: true, .. })),
        Want::Off => matches!(outcome, Outcome::Done(Seen::OffTwice { already: false, .. })),
        Want::NotSeen => matches!(outcome, Outcome::Unknown(Doubt::NotSeen { .. })),
        Want::NoAnswer => matches!(outcome, Outcome::Unknown(Doubt::NoAnswer { .. })),
        Want::Unreachable => matches!(outcome, Outcome::Refused(Refusal::Unreachable(_))),
        Want::DeviceRefused => matches!(outcome, Outcome::Refused(Refusal::DeviceRefused(_))),
        Want::WrongIdentity => matches!(outcome, Outcome::Refused(Refusal::WrongIdentity { .. })),
        Want::LeaseEnded => matches!(outcome, Outcome::Refused(Refusal::LeaseEnded)),
        Want::Accepted => *outcome == Outcome::Done(Seen::Accepted),
    }
}
