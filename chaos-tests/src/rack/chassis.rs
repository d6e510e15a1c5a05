//! The power plane behind a BMC: what the BMC reads and switches, honest or not.
//!
//! Why it exists: our BMC and `ipmi_sim` share it, so both can lie in the same ways.
//! What it never does: it speaks no protocol.

use super::fault::{Honesty, Mood, MoodChange};
use super::locked;
use super::machine::{Machine, Order};
use policies::Power;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A chassis control command (IPMI 2.0 §28.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Power down.
    Off,
    /// Power up.
    On,
    /// Power down, then up.
    Cycle,
    /// Hard reset.
    Reset,
    /// Pulse a diagnostic interrupt: the kernel panics.
    Diagnostic,
    /// Soft shutdown by a pressed power button; whether anything comes of it is up to the operating system.
    Soft,
}

/// A machine's power as its BMC knows it.
#[derive(Clone, Debug)]
pub struct Chassis {
    machine: Machine,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    mood: Mood,
    /// Set while the BMC lies about a power-off that it was told.
    claims_off: bool,
}

impl Chassis {
    /// The chassis of a machine.
    pub fn new(machine: Machine) -> Self {
        Chassis { machine, state: Arc::default() }
    }

    /// The machine itself.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// How the BMC behaves now.
    pub fn mood(&self) -> Mood {
        locked(&self.state).mood.clone()
    }

    /// Changes the mood.
    pub fn change_mood(&self, change: MoodChange) {
        let mut state = locked(&self.state);
        state.mood.change(change);
        state.claims_off &= state.mood.honesty == Honesty::Lying;
    }

    /// What the BMC reads.
    pub fn power(&self) -> Power {
        if locked(&self.state).claims_off { Power::Off } else { self.machine.life().power() }
    }

    /// Accepts a command and returns before it is carried out, as real BMCs do.
    ///
    /// # Errors
    /// If the mood is to refuse.
    pub fn control(&self, control: Control) -> Result<(), Refused> {
        let mut state = locked(&self.state);
        let after = Duration::from_millis(state.mood.off_delay.0);
        let ends_power = match control {
            Control::Off | Control::Cycle | Control::Soft => true,
            Control::On | Control::Reset | Control::Diagnostic => false,
        };
        match state.mood.honesty {
            Honesty::Refuses => return Err(Refused),
            Honesty::IgnoresOff if ends_power => return Ok(()),
            Honesty::IgnoresSoft if control == Control::Soft => return Ok(()),
            Honesty::Lying if ends_power => {
                state.claims_off = control != Control::Cycle;
                return Ok(());
            }
            Honesty::Honest | Honesty::IgnoresOff | Honesty::IgnoresSoft | Honesty::Lying => {
                state.claims_off = false;
            }
        }
        self.machine.post(match control {
            Control::Off => Order::PowerOff { after },
            Control::On => Order::PowerOn,
            Control::Cycle => Order::Cycle { after },
            Control::Reset => Order::Reset,
            Control::Diagnostic => Order::Panic { gasp: false },
            Control::Soft => Order::Shutdown { after },
        });
        Ok(())
    }
}

/// The power plane refused a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the power plane refuses commands")]
pub struct Refused;
