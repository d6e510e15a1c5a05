//! The one algorithm that proves a node off, by force or by asking, and its smaller sisters: one sees a node on, one sends an
//! interrupt, of which nothing can be seen.
//!
//! Why it exists: "accepted" is not "off". Every driver goes through here, so that the proof means the same for all.
//! What it never does: believing an acknowledgement, resetting or cycling, reporting Refused once the command may
//! have reached the device.

use crate::power::{Act, DriverError, Look, PowerDriver, Weight};
use policies::{Doubt, Identity, Millis, Outcome, Permit, Power, Refusal, Seen};
use std::time::Duration;
use tokio::time::Instant;

/// Proves the node off: identity first, off seen twice, the second time in a fresh exchange; already off is success.
///
/// `Refused` means that the power-off command certainly had no effect; `Unknown` that it may have. Ends at the
/// deadline at the latest.
pub async fn fence(
    driver: &impl PowerDriver,
    expected: &Identity,
    permit: &dyn Permit,
    deadline: Instant,
) -> Outcome {
    let first = match look_first(driver, expected, permit, deadline).await {
        Ok(look) => look,
        Err(refusal) => return Outcome::Refused(refusal),
    };
    if first.power == Power::Off && first.weight == Weight::Lasts {
        // A failed second look proves nothing; the command below then does no harm to a node that is off.
        if let Ok(second) = driver.look(deadline).await
            && second == first
        {
            return Outcome::Done(Seen::OffTwice { already: true, took: Millis(0) });
        }
    }
    switch(driver, &first.identity, Wish::Off, permit, deadline).await
}

/// Asks the node's operating system to shut down, once, and proves the node off as [`fence`] does. Already off is success;
/// a node that reads off is asked nothing, for the power button may switch it on.
///
/// `Refused` means that nobody was asked, or that the BMC does not know how. `Unknown` after a deadline is the usual
/// end when the operating system hangs or ignores it - and then it may still go off later. The deadline has to cover
/// the whole shutdown.
pub async fn shut_down(
    driver: &impl PowerDriver,
    expected: &Identity,
    permit: &dyn Permit,
    deadline: Instant,
) -> Outcome {
    let first = match look_first(driver, expected, permit, deadline).await {
        Ok(look) => look,
        Err(refusal) => return Outcome::Refused(refusal),
    };
    if first.power == Power::Off && first.weight > Weight::Noted {
        match look_first(driver, &first.identity, permit, deadline).await {
            Ok(second) if second.power == Power::Off => {
                return Outcome::Done(Seen::OffTwice { already: true, took: Millis(0) });
            }
            Ok(_) => {}
            Err(refusal) => return Outcome::Refused(refusal),
        }
    }
    switch(driver, &first.identity, Wish::SoftOff, permit, deadline).await
}

/// Switches the node on: identity first; on is read back; already on is success.
///
/// `Refused` means that the power-on command certainly had no effect; `Unknown` that it may have. Ends at the
/// deadline at the latest.
pub async fn power_on(
    driver: &impl PowerDriver,
    expected: &Identity,
    permit: &dyn Permit,
    deadline: Instant,
) -> Outcome {
    let first = match look_first(driver, expected, permit, deadline).await {
        Ok(look) => look,
        Err(refusal) => return Outcome::Refused(refusal),
    };
    match first.power {
        Power::On if first.weight > Weight::Noted => Outcome::Done(Seen::On),
        Power::On | Power::Off => switch(driver, &first.identity, Wish::On, permit, deadline).await,
    }
}

/// Sends the node's kernel a diagnostic interrupt, once: identity first; a node that is off has no kernel. Nothing that could
/// be read back shows that it arrived, so the device's word is all that there is, and it proves nothing.
///
/// `Refused` means that it was certainly not sent, or that the BMC does not know how; `Unknown` that it may have been.
pub async fn interrupt(
    driver: &impl PowerDriver,
    expected: &Identity,
    permit: &dyn Permit,
    deadline: Instant,
) -> Outcome {
    match look_first(driver, expected, permit, deadline).await {
        Err(refusal) => return Outcome::Refused(refusal),
        Ok(Look { power: Power::Off, .. }) => {
            let why = "the node is off: nothing runs there that could be interrupted".to_owned();
            return Outcome::Refused(Refusal::DeviceRefused(why));
        }
        Ok(Look { power: Power::On, .. }) => {}
    }
    let started = Instant::now();
    let acted = match permit.check() {
        Ok(()) => driver.act(Act::Interrupt, permit, deadline).await,
        Err(refusal) => Err(DriverError::NotPermitted(refusal)),
    };
    match acted {
        Ok(()) => Outcome::Done(Seen::Accepted),
        Err(error) if error.may_have_happened() => {
            tracing::debug!(%error, "interrupt");
            Outcome::Unknown(Doubt::NoAnswer { waited: millis(started.elapsed()) })
        }
        Err(error) => Outcome::Refused(error.into()),
    }
}

/// Carries out what is asked of a node's power, each by its own algorithm.
pub async fn carry_out(
    driver: &impl PowerDriver,
    act: Act,
    expected: &Identity,
    permit: &dyn Permit,
    deadline: Instant,
) -> Outcome {
    match act {
        Act::On => power_on(driver, expected, permit, deadline).await,
        Act::Off => fence(driver, expected, permit, deadline).await,
        Act::SoftOff => shut_down(driver, expected, permit, deadline).await,
        Act::Interrupt => interrupt(driver, expected, permit, deadline).await,
    }
}

/// The look before anything is done. Nothing was sent yet, so every failure is a refusal.
async fn look_first(
    driver: &impl PowerDriver,
    expected: &Identity,
    permit: &dyn Permit,
    deadline: Instant,
) -> Result<Look, Refusal> {
    permit.check()?;
    let look = driver.look(deadline).await?;
    expected.admits(&look.identity)?;
    Ok(look)
}

/// What of the acts ends in a power that can be seen.
#[derive(Clone, Copy)]
enum Wish {
    On,
    Off,
    SoftOff,
}

impl Wish {
    fn act(self) -> Act {
        match self {
            Wish::On => Act::On,
            Wish::Off => Act::Off,
            Wish::SoftOff => Act::SoftOff,
        }
    }

    fn power(self) -> Power {
        match self {
            Wish::On => Power::On,
            Wish::Off | Wish::SoftOff => Power::Off,
        }
    }

    /// What a reading of that has to be worth: only a fence has to last.
    fn weight(self) -> Weight {
        match self {
            Wish::Off => Weight::Lasts,
            Wish::On | Wish::SoftOff => Weight::Read,
        }
    }
}

/// Sends the command, then looks until what it wishes was seen often enough.
async fn switch(
    driver: &impl PowerDriver,
    identity: &Identity,
    wish: Wish,
    permit: &dyn Permit,
    deadline: Instant,
) -> Outcome {
    let started = Instant::now();
    // A device that obeys but does not answer must still be looked at, and soon.
    let half = deadline.saturating_duration_since(started) / 2;
    let act_deadline = started + half.min(driver.act_max());
    let acted = match permit.check() {
        Ok(()) => driver.act(wish.act(), permit, act_deadline).await,
        Err(refusal) => Err(DriverError::NotPermitted(refusal)),
    };
    match acted {
        Ok(()) => {}
        Err(error) if error.may_have_happened() => tracing::debug!(%error, "switch power, looking on"),
        Err(error) => return Outcome::Refused(error.into()),
    }
    look_until(driver, identity, wish, started, deadline).await
}

/// Looks until what is wished was read twice in a row (off) or once (on), each time in an exchange of its own. A look without
/// a reading counts for nothing, neither way.
async fn look_until(
    driver: &impl PowerDriver,
    identity: &Identity,
    wish: Wish,
    started: Instant,
    deadline: Instant,
) -> Outcome {
    let waited = || millis(started.elapsed());
    let mut last: Option<String> = None;
    let mut seen_before = false;
    loop {
        match driver.look(deadline).await {
            Ok(look) if look.identity != *identity => {
                last = Some("another machine's BMC".to_owned());
                seen_before = false;
            }
            Ok(look) if look.power == wish.power() && look.weight >= wish.weight() => {
                match (look.power, seen_before) {
                    (Power::On, _) => return Outcome::Done(Seen::On),
                    (Power::Off, true) => {
                        return Outcome::Done(Seen::OffTwice { already: false, took: waited() });
                    }
                    (Power::Off, false) => {
                        last = Some("off once, not confirmed".to_owned());
                        seen_before = true;
                        // The confirming look comes at once.
                        if Instant::now() < deadline {
                            continue;
                        }
                    }
                }
            }
            Ok(look) => {
                last = Some(name(&look));
                seen_before = false;
            }
            Err(error) => tracing::debug!(%error, "look at power, trying again"),
        }
        let pause = driver.pause(started.elapsed());
        if Instant::now() + pause >= deadline {
            return Outcome::Unknown(match last {
                Some(last) => Doubt::NotSeen { waited: waited(), last },
                None => Doubt::NoAnswer { waited: waited() },
            });
        }
        tokio::time::sleep(pause).await;
    }
}

fn name(look: &Look) -> String {
    let power = match look.power {
        Power::On => "on",
        Power::Off => "off",
    };
    match look.weight {
        Weight::Lasts => power.to_owned(),
        Weight::Read => format!("{power}, which its owner may undo"),
        Weight::Noted => format!("{power}, by what was noted earlier"),
    }
}

/// Whole milliseconds, begun ones counted.
pub(crate) fn millis(length: Duration) -> Millis {
    Millis(u64::try_from(length.as_micros().div_ceil(1000)).unwrap_or(u64::MAX))
}
