//! The Ironic driver: power of a node that OpenStack's Ironic owns.
//!
//! Why it exists: Ironic switches a node on again that was switched off behind its back, so it is told first, and switches it. What it
//! never does: take what Ironic's database has for a reading (docs/adr/0024), or undo the maintenance that it has set.
//!
//! One of these is made for each effect: what Ironic was told in it decides what a reading is worth.

use crate::power::{Act, Bmc, DriverError, Look, PowerDriver, Weight};
use openstack::{CallError, Cloud, FENCED_BY, No, Node, NodeUuid, PowerState, PowerTarget};
use policies::{Identity, Permit, Power};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Longest time in which Ironic takes a command: four calls, one of which may wait for the node's lock, which Ironic itself does
/// for two or three seconds before it says no.
const ACT_MAX: Duration = Duration::from_secs(10);
/// How Ironic's own words for a change of power that failed begin (`ironic/conductor/utils.py`).
const POWER_FAILED: &str = "Failed to change power state";

/// One node of one cloud, for one effect.
pub struct Ironic {
    cloud: Cloud,
    node: NodeUuid,
    bmc: Option<Arc<Bmc>>,
    told: Mutex<Told>,
}

/// What Ironic was told in this effect.
#[derive(Clone, Default)]
struct Told {
    /// It was seen in maintenance: Ironic leaves its power alone.
    is_left_alone: bool,
    /// Ironic took the command.
    accepted: bool,
    /// What Ironic complained of right before.
    complaint: Option<String>,
}

impl fmt::Debug for Ironic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ironic({} of {:?})", self.node, self.cloud)
    }
}

impl Ironic {
    /// The node of that cloud. `bmc`, if its credentials are known, is what its power is read by.
    pub fn new(cloud: Cloud, node: NodeUuid, bmc: Option<Arc<Bmc>>) -> Ironic {
        Ironic { cloud, node, bmc, told: Mutex::default() }
    }

    /// The node's BMC.
    pub(crate) fn bmc(&self) -> Option<&Bmc> {
        self.bmc.as_deref()
    }

    async fn read(&self, deadline: Instant) -> Result<Node, DriverError> {
        let read = self.cloud.baremetal().node(&self.node, deadline).await.map_err(unsent)?;
        match read.uuid == self.node {
            true => Ok(read),
            false => {
                Err(DriverError::Unclear(format!("Ironic tells of node {}, not of {}", read.uuid, self.node)))
            }
        }
    }

    /// What Ironic's database has.
    async fn noted(&self, deadline: Instant) -> Result<Look, DriverError> {
        let node = self.read(deadline).await?;
        let power = match &node.power_state {
            Some(PowerState::On) => Power::On,
            Some(PowerState::Off) => Power::Off,
            other => {
                let why = node.last_error.as_deref().unwrap_or("it does not say why");
                return Err(DriverError::Unclear(format!(
                    "Ironic does not know the power of node {} ({other:?}): {why}",
                    self.node
                )));
            }
        };
        let weight = if self.told().has_done(&node) { Weight::Lasts } else { Weight::Noted };
        Ok(Look { power, identity: Identity::default(), weight })
    }

    fn told(&self) -> Told {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn learn(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Sees to it that Ironic leaves the node's power alone. Maintenance of somebody else's does that as well.
    async fn keep_out(&self, permit: &dyn Permit, deadline: Instant) -> Result<(), DriverError> {
        let mut node = self.read(deadline).await?;
        if !node.maintenance {
            let reason = format!("{FENCED_BY}, token {}", permit.token());
            let set = self.cloud.baremetal().set_maintenance(&self.node, &reason, permit, deadline).await;
            set.map_err(unsent)?;
            node = self.read(deadline).await?;
        }
        if !node.maintenance {
            let why = format!("node {} is in no maintenance, although Ironic has taken that", self.node);
            return Err(DriverError::Refused(why));
        }
        self.learn(|told| (told.is_left_alone, told.complaint) = (true, node.last_error));
        Ok(())
    }

    async fn switch(
        &self,
        target: PowerTarget,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), DriverError> {
        let sent = Instant::now();
        let accepted = self.cloud.baremetal().set_power(&self.node, target, permit, deadline).await;
        accepted.map_err(|error| match error {
            CallError::NoAnswer { .. } => {
                let waited = crate::fence::millis(sent.elapsed());
                DriverError::NoAnswer { what: policies::causes(&error), waited }
            }
            CallError::Unclear { .. } => DriverError::Unclear(policies::causes(&error)),
            CallError::Unreachable { .. }
            | CallError::NotPermitted { .. }
            | CallError::Locked { .. }
            | CallError::Refused { .. }
            | CallError::Unusable { .. } => unsent(error),
        })?;
        self.learn(|told| told.accepted = true);
        Ok(())
    }

    /// A node that somebody keeps switched off is not switched on.
    async fn may_run(&self, deadline: Instant) -> Result<(), DriverError> {
        let node = self.read(deadline).await?;
        self.learn(|told| told.complaint = node.last_error);
        if !node.maintenance {
            return Ok(());
        }
        let reason = node.maintenance_reason.as_deref().unwrap_or("no reason given");
        Err(DriverError::Refused(format!(
            "node {0} is in maintenance ({reason}); once it may run: openstack baremetal node maintenance unset {0}",
            self.node
        )))
    }
}

impl Told {
    /// True if Ironic has carried out what it took: it then has read the BMC, whatever it had noted before. A complaint is new
    /// unless it stood there before, which only one about something else can (Ironic clears it as it begins, but for a
    /// node whose deployment or cleaning failed).
    fn has_done(&self, node: &Node) -> bool {
        let is_old = |complaint: &String| {
            self.complaint.as_ref() == Some(complaint) && !complaint.starts_with(POWER_FAILED)
        };
        self.accepted
            && node.is_settled()
            && node.fault.is_none()
            && node.last_error.as_ref().is_none_or(is_old)
    }
}

impl PowerDriver for Ironic {
    async fn look(&self, deadline: Instant) -> Result<Look, DriverError> {
        let Some(bmc) = self.bmc() else { return self.noted(deadline).await };
        let look = bmc.look(deadline).await?;
        let weight = if self.told().is_left_alone { Weight::Lasts } else { Weight::Read };
        Ok(Look { weight, ..look })
    }

    fn act_max(&self) -> Duration {
        ACT_MAX
    }

    fn pause(&self, waited: Duration) -> Duration {
        match self.bmc() {
            Some(bmc) => bmc.pause(waited),
            None => openstack::pause(waited),
        }
    }

    async fn act(&self, act: Act, permit: &dyn Permit, deadline: Instant) -> Result<(), DriverError> {
        match (act, self.bmc()) {
            (Act::Off, _) => {
                self.keep_out(permit, deadline).await?;
                self.switch(PowerTarget::Off, permit, deadline).await
            }
            (Act::On, _) => {
                self.may_run(deadline).await?;
                self.switch(PowerTarget::On, permit, deadline).await
            }
            (Act::SoftOff, _) => self.switch(PowerTarget::SoftOff, permit, deadline).await,
            // Ironic's power sync does not mind it.
            (Act::Interrupt, Some(bmc)) => bmc.act(Act::Interrupt, permit, deadline).await,
            (Act::Interrupt, None) => {
                let why =
                    "a diagnostic interrupt is sent by the node's BMC itself, which is not described (`bmc`)";
                Err(DriverError::Refused(why.to_owned()))
            }
        }
    }
}

/// Of a call that does not switch power: however it ended, that was not switched.
fn unsent(error: CallError) -> DriverError {
    let what = policies::causes(&error);
    match error {
        CallError::NotPermitted { why, .. } => DriverError::NotPermitted(why),
        CallError::Refused { no: No::NotAdmitted, .. } => DriverError::NotAdmitted(what),
        CallError::Refused { .. } | CallError::Locked { .. } | CallError::Unclear { .. } => {
            DriverError::Refused(what)
        }
        CallError::Unreachable { .. } | CallError::NoAnswer { .. } | CallError::Unusable { .. } => {
            DriverError::Unreachable { what, source: None }
        }
    }
}
