//! A spare that Ironic keeps for us: an allocation, which Ironic makes in one transaction, of that node alone.
//!
//! Why it exists: whoever deploys by allocations (Nova, Metal3, another cluster of ours) is refused a node that has one. What it never does:
//! give a node back that it has claimed. Undeploying the node ends the claim.

use super::*;
use ::openstack::{Allocation, AllocationName, AllocationState, AllocationUuid, AllocationWish};
use policies::Millis;
use std::collections::BTreeSet;

/// In whose name nodes are claimed: our cluster's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claimant(String);

impl Claimant {
    pub(crate) fn new(cluster: &str) -> Claimant {
        Claimant(cluster.to_owned())
    }

    /// The id of our claim of this node, so that `instance_uuid` tells by itself whether it is ours: a UUID of version 8, of bits that
    /// are our own choice (RFC 9562, section 5.8).
    fn claim_of(&self, node: &NodeUuid) -> String {
        let hash = blake3::Hasher::new_derive_key("ha-supervisor 2026-11-30 claim of an Ironic node")
            .update(self.0.as_bytes())
            .update(node.as_str().to_ascii_lowercase().as_bytes())
            .finalize();
        let hex = hash.to_hex();
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        format!("{}-{}-8{}-8{}-{}", part(0, 8), part(8, 12), part(12, 15), part(15, 18), part(18, 30))
    }

    /// True if it is claimed for us.
    fn has(&self, node: &Node) -> bool {
        node.instance_uuid.as_ref() == Some(&self.claim_of(&node.uuid))
    }

    /// The claim of anybody else.
    pub(super) fn other<'n>(&self, node: &'n Node) -> Option<&'n String> {
        node.instance_uuid.as_ref().filter(|_| !self.has(node))
    }

    /// Why the node is not free to be deployed by us.
    pub(crate) fn in_use(&self, node: &Node) -> Option<String> {
        if node.provision_state != ProvisionState::Available {
            return Some(format!("it is {}", told(node)));
        }
        if node.maintenance {
            return Some(format!("it is in maintenance: {}", reason(node)));
        }
        if node.retired {
            return Some("it is retired".to_owned());
        }
        self.other(node).map(|claim| format!("it is claimed (instance_uuid {claim})"))
    }

    /// Whether the node is a spare for us and nobody else.
    pub(super) fn finding(&self, node: &Node) -> Finding {
        match self.in_use(node) {
            Some(why) => Finding::Faulty(why),
            None if self.has(node) => Finding::Fine,
            None => Finding::Unclaimed,
        }
    }
}

/// That a claim by somebody else is in the way.
pub(super) fn claimed_by_other(claim: &str) -> Refusal {
    Refusal::HeldByOther(format!("whoever claimed it in Ironic (instance_uuid {claim})"))
}

impl Openstack {
    pub(super) async fn is_claimed(&self, holder: &str, deadline: Instant) -> Result<State, ProviderError> {
        let node = self.node(Some(holder), deadline).await?;
        let claim = node.instance_uuid.as_ref().map(|claim| format!(", claimed as {claim}"));
        let reading = format!("{}{}", told(&node), claim.unwrap_or_default());
        Ok(State::new(self.claimant.has(&node), reading))
    }

    /// Claims the node, and sees how that ended: a claim that came too late stays in Ironic, and would be in our own way.
    pub(super) async fn claim(
        &self,
        wish: &Wish,
        (name, holder): (&NodeId, &str),
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), ProviderError> {
        let refused = |why| ProviderError::Refused { doing: wish.to_string(), why };
        let (node, baremetal) = (self.node(Some(holder), deadline).await?, self.cloud.baremetal());
        if let Some(claim) = self.claimant.other(&node) {
            return Err(refused(claimed_by_other(claim)));
        }
        if let Some(why) = self.claimant.in_use(&node) {
            return Err(refused(Refusal::DeviceRefused(why)));
        }
        let Some(resource_class) = node.resource_class else {
            let command = format!("openstack baremetal node set --resource-class CLASS {}", node.uuid);
            let why = format!("nobody can claim it, for it has no resource class in Ironic: `{command}`");
            return Err(refused(Refusal::DeviceRefused(why)));
        };
        let uuid = self.claimant.claim_of(&node.uuid);
        let claim = match self.claim_in_ironic(&uuid, permit, deadline).await? {
            Some(claim) => claim,
            None => {
                let short = uuid.get(..8).unwrap_or_default();
                let wish = AllocationWish {
                    uuid: Some(id::<AllocationUuid>(&uuid)?),
                    name: id(&format!("ha-{name}-{short}"))?,
                    resource_class,
                    traits: BTreeSet::new(),
                    candidate_nodes: vec![node.uuid],
                    extra: [("ha_cluster".to_owned(), json!(self.claimant.0))].into(),
                };
                baremetal.create_allocation(&wish, permit, deadline).await?
            }
        };
        let (claim, waited) = self.decided(&id(&uuid)?, claim, deadline).await?;
        let is_decided = match claim.state {
            AllocationState::Active | AllocationState::Other(_) => return Ok(()),
            AllocationState::Error => true,
            AllocationState::Allocating => false,
        };
        baremetal.delete_allocation(&id(&uuid)?, permit, deadline).await?;
        if is_decided {
            let why = claim.last_error.unwrap_or_else(|| "Ironic does not say why".to_owned());
            return Err(refused(Refusal::DeviceRefused(format!("it could not be claimed: {why}"))));
        }
        // A conductor that died, or whose database failed it, leaves a claim so for good.
        tracing::warn!(node = %name, claim = uuid, %waited, "Ironic does not decide about a claim, which is taken back");
        Ok(())
    }

    /// Our claim, if there is one. One that has failed is none.
    async fn claim_in_ironic(
        &self,
        uuid: &str,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<Option<Allocation>, ProviderError> {
        let (name, baremetal) = (id(uuid)?, self.cloud.baremetal());
        match baremetal.allocation(&name, deadline).await {
            Ok(claim) if claim.state == AllocationState::Error => {
                baremetal.delete_allocation(&name, permit, deadline).await?;
                Ok(None)
            }
            Ok(claim) => Ok(Some(claim)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The claim, once Ironic has decided about it, or as it is when the time is over.
    async fn decided(
        &self,
        name: &AllocationName,
        mut claim: Allocation,
        deadline: Instant,
    ) -> Result<(Allocation, Millis), ProviderError> {
        let (asked, until) = (Instant::now(), last_look(deadline));
        while claim.state == AllocationState::Allocating && next_look(asked, until).await {
            claim = self.cloud.baremetal().allocation(name, deadline).await?;
        }
        let waited = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok((claim, Millis(waited)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A node with these entries beside what all have.
    pub(crate) fn node(entries: &Value) -> Node {
        let mut all = json!({ "uuid": "11111111-1111-4111-8111-111111111111", "driver": "redfish",
            "provision_state": "active", "power_state": "power off", "maintenance": false });
        for (key, value) in entries.as_object().unwrap() {
            all[key] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn a_spare_is_ours_if_nobody_else_has_it_in_ironic() {
        let us = Claimant::new("c1");
        let faulty = |why: &str| Finding::Faulty(why.to_owned());
        let ours = us.claim_of(&node(&json!({})).uuid);
        for (entries, finding) in [
            (json!({ "provision_state": "available" }), Finding::Unclaimed),
            (json!({ "provision_state": "available", "instance_uuid": ours }), Finding::Fine),
            (
                json!({ "provision_state": "available", "instance_uuid": "a7" }),
                faulty("it is claimed (instance_uuid a7)"),
            ),
            (json!({ "provision_state": "available", "retired": true }), faulty("it is retired")),
            (
                json!({ "provision_state": "available", "maintenance": true, "maintenance_reason": "fans" }),
                faulty("it is in maintenance: fans"),
            ),
            (json!({ "extra": { "ha_boots": "web e2" } }), faulty("it is Active, told to run web e2")),
        ] {
            assert_eq!(us.finding(&node(&entries)), finding, "{entries}");
        }
    }

    #[test]
    fn a_claim_is_one_clusters_and_one_nodes() {
        let (one, other) = (node(&json!({})).uuid, "22222222-2222-4222-8222-222222222222".parse().unwrap());
        let claim = Claimant::new("c1").claim_of(&one);
        assert_eq!(claim.parse::<AllocationUuid>().unwrap().as_str(), claim);
        assert_eq!((claim.as_bytes()[14], claim.as_bytes()[19]), (b'8', b'8'));
        assert_ne!(claim, Claimant::new("c2").claim_of(&one));
        assert_ne!(claim, Claimant::new("c1").claim_of(&other));
    }
}
