//! One machine of the world: power, operating system, BMC. Obeys what reaches it; knows nothing of plans.

use super::Ending;
use super::script::CLOUD;
use policies::*;

/// From power-on to the first heartbeat.
const BOOT: u64 = 3_000;
/// From a hot spare's farewell to the first heartbeat of the system that it goes on into.
const KEXEC: u64 = 1_000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Everything runs.
    Beats,
    /// The kernel answers, nothing else does.
    Kernel,
    /// Nothing answers.
    Mute,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bmc {
    Honest,
    /// Says that it has switched off and does not.
    Lies,
    Dead,
}

pub(super) struct Machine {
    pub(super) power: bool,
    pub(super) life: Life,
    pub(super) bmc: Bmc,
    /// What the BMC claims while it lies.
    pub(super) claims_off: bool,
    /// False: it stays dark when it is switched on.
    pub(super) boots: bool,
    /// False: it stays dark when it goes on into another kernel.
    pub(super) kexecs: bool,
    pub(super) has_agent: bool,
    /// Without an agent: its service is asked, not its kernel.
    pub(super) has_service: bool,
    pub(super) epoch: Epoch,
    /// Counts its starts: also its boot id.
    pub(super) starts: u64,
    pub(super) disk_stalled: Option<u64>,
    /// The numbers of the paths that its heartbeats take.
    pub(super) paths: Vec<u8>,
    pub(super) gasp: Option<LastGasp>,
    pub(super) beaten: u64,
}

impl Machine {
    pub(super) fn new(on: bool, has_agent: bool, epoch: Epoch) -> Self {
        Machine {
            power: on,
            life: if on { Life::Beats } else { Life::Mute },
            bmc: Bmc::Honest,
            claims_off: false,
            boots: true,
            kexecs: true,
            has_agent,
            has_service: false,
            epoch,
            starts: 1,
            disk_stalled: None,
            paths: vec![0, 1],
            gasp: None,
            beaten: 0,
        }
    }

    /// The heartbeat that is due, if it beats. A machine without an agent answers the members' questions instead,
    /// which look alike to the engine but carry no epoch.
    pub(super) fn beat(&mut self, now: u64, every: u64) -> Option<Heartbeat> {
        let silent = match (self.has_agent, self.life) {
            (_, Life::Beats) => self.gasp.is_some(),
            (false, Life::Kernel) => self.has_service || self.gasp.is_some(),
            (true, Life::Kernel) | (_, Life::Mute) => true,
        };
        if silent || !self.power || now < self.beaten + every {
            return None;
        }
        self.beaten = now;
        Some(self.heartbeat(now))
    }

    pub(super) fn heartbeat(&self, now: u64) -> Heartbeat {
        let stalled = self.disk_stalled.map(|since| Millis(now - since));
        let (epoch, boot) = match self.has_agent {
            true => (self.epoch, BootId(self.starts)),
            false => (Epoch(0), BootId(0)),
        };
        let write_age = Some(stalled.unwrap_or(Millis(0))).filter(|_| self.has_agent);
        Heartbeat { boot, epoch, write_age, last_gasp: self.gasp }
    }

    pub(super) fn kernel_answers(&self) -> bool {
        self.power && self.life != Life::Mute
    }

    pub(super) fn read_power(&self) -> Option<Power> {
        match self.bmc {
            Bmc::Dead => None,
            Bmc::Lies if self.claims_off => Some(Power::Off),
            Bmc::Lies | Bmc::Honest => Some(if self.power { Power::On } else { Power::Off }),
        }
    }

    pub(super) fn lose_power(&mut self) {
        self.power = false;
        self.life = Life::Mute;
    }

    /// How an effect on this machine usually ends.
    pub(super) fn ending(&self, effect: &Effect) -> Ending {
        let by_power = match effect.action {
            Action::ShutDown { .. }
            | Action::Diagnose { .. }
            | Action::PowerOff { .. }
            | Action::PowerOn { .. }
            | Action::Interrupt { .. } => true,
            Action::Revoke { .. }
            | Action::ClosePort { .. }
            | Action::Snapshot { .. }
            | Action::Attach { .. }
            | Action::OpenPort { .. }
            | Action::AttachVif { .. }
            | Action::Claim { .. }
            | Action::Clean { .. }
            | Action::SetBoot { .. } => false,
        };
        match (by_power, self.bmc) {
            (true, Bmc::Dead) => {
                let what = format!("the BMC of {} does not answer", effect.action.node());
                Ending { after: Some(500), outcome: Some(Outcome::Refused(Refusal::Unreachable(what))) }
            }
            (true, Bmc::Lies | Bmc::Honest) | (false, Bmc::Dead | Bmc::Lies | Bmc::Honest) => {
                Ending::usual(effect)
            }
        }
    }

    /// Carries an action out. Returns when and in which life it will have booted, if it boots.
    pub(super) fn obey(&mut self, action: &Action) -> Option<(u64, u64)> {
        match action {
            Action::PowerOff { .. } if self.bmc == Bmc::Lies => self.claims_off = true,
            // A system that hangs does not listen.
            Action::ShutDown { .. } if self.life != Life::Beats => {}
            Action::ShutDown { .. } | Action::PowerOff { .. } => self.lose_power(),
            Action::PowerOn { .. } if !self.power => return self.start(),
            Action::Interrupt { .. } => self.life = Life::Mute,
            // A deployment switches it off and on.
            Action::SetBoot { provider, .. } if provider.as_str() == CLOUD => return self.start(),
            Action::SetBoot { .. } if self.waits_hot() => {
                self.life = Life::Mute;
                self.starts += 1;
                return self.kexecs.then_some((KEXEC, self.starts));
            }
            Action::Diagnose { .. }
            | Action::PowerOn { .. }
            | Action::Revoke { .. }
            | Action::ClosePort { .. }
            | Action::Snapshot { .. }
            | Action::Attach { .. }
            | Action::OpenPort { .. }
            | Action::AttachVif { .. }
            | Action::Claim { .. }
            | Action::Clean { .. }
            | Action::SetBoot { .. } => {}
        }
        None
    }

    fn start(&mut self) -> Option<(u64, u64)> {
        self.power = true;
        self.claims_off = false;
        self.starts += 1;
        self.boots.then_some((BOOT, self.starts))
    }

    /// The farewell of a hot spare that goes on into another kernel.
    pub(super) fn farewell(&self, action: &Action, now: u64) -> Option<Heartbeat> {
        let leaves = matches!(action, Action::SetBoot { .. }) && self.waits_hot();
        leaves.then(|| Heartbeat { last_gasp: Some(LastGasp::Shutdown), ..self.heartbeat(now) })
    }

    fn waits_hot(&self) -> bool {
        self.power && self.life == Life::Beats && self.epoch == Epoch::STANDBY
    }

    pub(super) fn booted(&mut self, life: u64, epoch: Epoch) {
        if self.power && self.starts == life {
            (self.life, self.gasp, self.epoch) = (Life::Beats, None, epoch);
        }
    }
}

impl Ending {
    /// Done, after the time that such a thing takes.
    pub(super) fn usual(effect: &Effect) -> Ending {
        let after = match effect.action {
            Action::ShutDown { .. } => 8_000,
            Action::Diagnose { .. } => 300,
            Action::PowerOff { .. } => 200,
            Action::PowerOn { .. } | Action::Interrupt { .. } => 100,
            Action::Claim { .. } => 500,
            Action::Clean { .. } => 20_000,
            Action::Revoke { .. }
            | Action::ClosePort { .. }
            | Action::Snapshot { .. }
            | Action::Attach { .. }
            | Action::OpenPort { .. }
            | Action::AttachVif { .. }
            | Action::SetBoot { .. } => 20,
        };
        Ending { after: Some(after), outcome: None }
    }

    /// When and how the effect ends, within its limit.
    pub(super) fn resolve(&self, effect: &Effect, limit: Millis) -> (u64, Outcome) {
        let too_late = Outcome::Unknown(Doubt::NoAnswer { waited: limit });
        let wished = match effect.action {
            Action::Diagnose { .. } => Seen::Diagnosed(["SEL: watchdog 2, hard reset".to_owned()].into()),
            Action::ShutDown { .. } | Action::PowerOff { .. } => {
                Seen::OffTwice { already: false, took: Millis(self.after.unwrap_or_default()) }
            }
            Action::PowerOn { .. } => Seen::On,
            Action::Interrupt { .. } => Seen::Accepted,
            Action::Revoke { .. }
            | Action::ClosePort { .. }
            | Action::Snapshot { .. }
            | Action::Attach { .. }
            | Action::OpenPort { .. }
            | Action::AttachVif { .. }
            | Action::Claim { .. }
            | Action::Clean { .. }
            | Action::SetBoot { .. } => Seen::ReadBack("as wished".to_owned()),
        };
        match self.after.filter(|after| *after <= limit.0) {
            Some(after) => (after, self.outcome.clone().unwrap_or(Outcome::Done(wished))),
            None => (limit.0, too_late),
        }
    }
}
