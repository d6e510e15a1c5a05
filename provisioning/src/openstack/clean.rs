//! A fenced node given back to its cloud: what it was given is taken away, and Ironic erases it.
//!
//! Why it exists: Ironic cleans only a node out of maintenance, and what it has noted of a volume it would detach, whoever has that by
//! then. What it never does: undeploy a node that somebody uses, or end a maintenance that somebody else has begun.

use super::*;
use ::openstack::{PowerState, PowerTarget};

/// Ironic's own word for the maintenance that a failed cleaning begins (`ironic/common/faults.py`).
const CLEAN_FAILURE: &str = "clean failure";
/// How long Ironic may take to switch a node off before it is cleaned. Lower: a slow BMC's node stays quarantined. Higher: a dead one's
/// reason is told later.
const SWITCH_OFF_MAX: Duration = Duration::from_secs(60);

impl Openstack {
    /// Whether the node is free, as after a cleaning.
    pub(super) async fn is_clean(&self, holder: &str, deadline: Instant) -> Result<State, ProviderError> {
        let node = self.node(Some(holder), deadline).await?;
        let reading = told(&node);
        Ok(match (&node.provision_state, node.is_settled()) {
            (ProvisionState::Available, true) => {
                State::new(!node.maintenance && self.claimant.other(&node).is_none(), reading)
            }
            (ProvisionState::CleanFailed | ProvisionState::Error, true) => State::failed(reading),
            _ => State::new(false, reading),
        })
    }

    /// Begins it, or goes on with it; what is under way already is left alone.
    pub(super) async fn clean(
        &self,
        wish: &Wish,
        holder: &str,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), ProviderError> {
        let (mut node, baremetal) = (self.node(Some(holder), deadline).await?, self.cloud.baremetal());
        if let Some(why) = hindrance(&node, &self.claimant) {
            return Err(ProviderError::Refused { doing: wish.to_string(), why });
        }
        if node.is_fenced() && node.power_state != Some(PowerState::Off) {
            node = self.switched_off(wish, &node, permit, deadline).await?;
        }
        // In maintenance what runs on the node to erase it would not be listened to.
        if node.maintenance {
            baremetal.clear_maintenance(&node.uuid, permit, deadline).await?;
        }
        let targets: &[ProvisionTarget] = match node.provision_state {
            ProvisionState::Active
            | ProvisionState::Error
            | ProvisionState::DeployWait
            | ProvisionState::DeployFailed => {
                self.forget_volumes(&node, permit, deadline).await?;
                &[ProvisionTarget::Deleted]
            }
            ProvisionState::Manageable => &[ProvisionTarget::Provide],
            ProvisionState::CleanFailed => &[ProvisionTarget::Manage, ProvisionTarget::Provide],
            ProvisionState::Available
            | ProvisionState::Deleting
            | ProvisionState::Cleaning
            | ProvisionState::CleanWait
            | ProvisionState::Enroll
            | ProvisionState::Verifying
            | ProvisionState::Deploying
            | ProvisionState::Other(_) => &[],
        };
        for target in targets {
            baremetal.set_provision(&node.uuid, target, permit, deadline).await?;
        }
        Ok(())
    }

    /// Has Ironic switch off what it has noted as on, whatever the BMC reads: out of maintenance Ironic would switch it on again, and it forgets
    /// no volume of it. So it is when Ironic died in the middle of the fence.
    async fn switched_off(
        &self,
        wish: &Wish,
        node: &Node,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<Node, ProviderError> {
        self.cloud.baremetal().set_power(&node.uuid, PowerTarget::Off, permit, deadline).await?;
        let (asked, until) = (Instant::now(), deadline.min(Instant::now() + SWITCH_OFF_MAX));
        loop {
            let node = self.node(Some(node.uuid.as_str()), deadline).await?;
            if node.is_settled() && node.power_state == Some(PowerState::Off) {
                return Ok(node);
            }
            if !next_look(asked, until).await {
                let why =
                    Refusal::DeviceRefused(format!("Ironic does not switch it off: it is {}", told(&node)));
                return Err(ProviderError::Refused { doing: wish.to_string(), why });
            }
        }
    }

    /// Lets Ironic forget the node's volumes, which are its successor's; it does so only while the node is off.
    async fn forget_volumes(
        &self,
        node: &Node,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), ProviderError> {
        let baremetal = self.cloud.baremetal();
        if node.power_state != Some(PowerState::Off) {
            return Ok(());
        }
        for target in baremetal.volume_targets(Some(&node.uuid), deadline).await? {
            baremetal.delete_volume_target(&target.uuid, permit, deadline).await?;
        }
        Ok(())
    }
}

/// Why the node must not be cleaned, or cannot be.
fn hindrance(node: &Node, us: &Claimant) -> Option<Refusal> {
    let refused = |why: String| Some(Refusal::DeviceRefused(why));
    if node.maintenance && !node.is_fenced() && node.fault.as_deref() != Some(CLEAN_FAILURE) {
        return refused(format!("it is in maintenance, and not by us: {}", reason(node)));
    }
    if node.protected {
        return refused("it is protected in Ironic".to_owned());
    }
    match &node.provision_state {
        ProvisionState::Available => us.other(node).map(|claim| claim::claimed_by_other(claim)),
        // A node that we have fenced is off. One that is on and that nobody has in maintenance somebody uses.
        ProvisionState::Active | ProvisionState::DeployWait
            if !node.is_fenced() && node.power_state != Some(PowerState::Off) =>
        {
            refused(
                "it is on, and in no maintenance of ours: `hactl node power off` first, if nobody uses it"
                    .to_owned(),
            )
        }
        ProvisionState::Enroll
        | ProvisionState::Verifying
        | ProvisionState::Deploying
        | ProvisionState::Other(_) => refused(format!("it is {}", told(node))),
        ProvisionState::Active
        | ProvisionState::DeployWait
        | ProvisionState::DeployFailed
        | ProvisionState::Error
        | ProvisionState::Manageable
        | ProvisionState::CleanFailed
        | ProvisionState::Deleting
        | ProvisionState::Cleaning
        | ProvisionState::CleanWait => None,
    }
}

#[cfg(test)]
mod tests {
    use super::claim::tests::node;
    use super::*;

    #[test]
    fn only_what_we_have_fenced_and_nobody_uses_is_cleaned() {
        let us = Claimant::new("c1");
        let ours = json!("fenced by ha-supervisord, token i3");
        for entries in [
            json!({ "maintenance": true, "maintenance_reason": ours }),
            // An earlier try has ended our maintenance, or the fence was isolation alone.
            json!({}),
            json!({ "maintenance": true, "maintenance_reason": ours, "power_state": "power on" }),
            json!({ "maintenance": true, "maintenance_reason": "x", "fault": "clean failure",
                "provision_state": "clean failed" }),
            json!({ "provision_state": "available" }),
            json!({ "provision_state": "cleaning", "reservation": "conductor-1" }),
        ] {
            assert_eq!(hindrance(&node(&entries), &us), None, "{entries}");
        }
        for (entries, why) in [
            (
                json!({ "maintenance": true, "maintenance_reason": "new DIMMs" }),
                "the device refused: it is in maintenance, and not by us: new DIMMs",
            ),
            (
                json!({ "maintenance": true, "fault": "power failure" }),
                "the device refused: it is in maintenance, and not by us: no reason given",
            ),
            (json!({ "protected": true }), "the device refused: it is protected in Ironic"),
            (
                json!({ "power_state": "power on" }),
                "the device refused: it is on, and in no maintenance of ours: `hactl node power off` first, if nobody uses it",
            ),
            (
                json!({ "power_state": null }),
                "the device refused: it is on, and in no maintenance of ours: `hactl node power off` first, if nobody uses it",
            ),
            (
                json!({ "provision_state": "available", "instance_uuid": "a7" }),
                "held by whoever claimed it in Ironic (instance_uuid a7)",
            ),
            (json!({ "provision_state": "rescue" }), "the device refused: it is Other(\"rescue\")"),
        ] {
            assert_eq!(
                hindrance(&node(&entries), &us).map(|why| why.to_string()),
                Some(why.to_owned()),
                "{entries}"
            );
        }
    }
}
