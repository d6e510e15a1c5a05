//! What the operator tells us of the world: nodes and instances. Facts and wishes, no beliefs.

use crate::capability::Capabilities;
use crate::device::FenceDevice;
use crate::http_url::HttpUrl;
use crate::identity::Identity;
use crate::mac::Mac;
use crate::network::Network;
use crate::provider::{Provider, ProviderKind};
use crate::requirement::Requirements;
use crate::words::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A physical server as the operator described it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name; never reused for other hardware.
    pub name: NodeId,
    /// What tells it from all others.
    #[serde(default, skip_serializing_if = "Identity::is_empty")]
    pub identity: Identity,
    /// Failure domains it stands in, e.g. `rack = "r1"`, `pdu = "p2"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub domains: BTreeMap<String, String>,
    /// Free labels, matched by instances.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Fencing topology: level 1 first. A node without levels cannot be fenced by power.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fencing: Vec<FenceDevice>,
    /// Switch ports its NICs hang on; port `i` carries network `i` of an instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<SwitchPort>,
    /// Burned-in addresses of the network cards that it starts from, by which the boot service knows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot_macs: Vec<Mac>,
    /// What it boots while it has no instance: a system in memory in which its agent waits. Makes it a hot spare while it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<Boot>,
    /// The name by which storage knows this node (IQN, host id).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initiator: Option<String>,
    /// What the node's kernel answers to when asked from outside.
    #[serde(default, skip_serializing_if = "Probe::is_empty")]
    pub probe: Probe,
    /// Key of its agent's heartbeats; absent: no agent, only probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_key: Option<Sealed>,
    /// What its hardware is, for the floors of instances.
    #[serde(default, skip_serializing_if = "Capabilities::is_empty")]
    pub capabilities: Capabilities,
}

impl Node {
    /// True if its console is to be listened to: of its first fencing device.
    pub fn has_console(&self) -> bool {
        match self.fencing.first().and_then(FenceDevice::bmc) {
            Some(FenceDevice::Ipmi { console, .. }) => *console,
            Some(FenceDevice::Redfish { .. } | FenceDevice::Ironic { .. }) | None => false,
        }
    }

    /// Its UUID at this cloud.
    pub fn at_cloud(&self, cloud: &ProviderId) -> Option<&str> {
        self.fencing.iter().find_map(|device| device.node_at(cloud))
    }

    /// The name by which a provider knows it: for a cloud its node's UUID there, for any other storage its initiator.
    pub fn known_to(&self, provider: &Provider) -> Option<&str> {
        match provider.kind {
            ProviderKind::Openstack { .. } => self.at_cloud(&provider.name),
            ProviderKind::Rack { .. }
            | ProviderKind::Ovsdb { .. }
            | ProviderKind::Boot { .. }
            | ProviderKind::Exec { .. }
            | ProviderKind::Iscsi { .. } => self.initiator.as_deref(),
        }
    }

    /// True if what its first fencing device says of its power is what somebody else has noted, and no BMC is read.
    pub(crate) fn is_power_hearsay(&self) -> bool {
        self.fencing.first().is_some_and(|device| device.bmc().is_none())
    }
}

/// A switch port under a network provider.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchPort {
    /// Who switches it.
    pub provider: ProviderId,
    /// Its name there, e.g. `sw1/3`.
    pub port: String,
}

/// Where the node answers. Asked by every member: again and again if it has no agent, else when its agent is silent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// `host:port` that is connected to; a refusal counts as an answer, for the kernel gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// Address that is sent an ICMP echo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<String>,
    /// Address that is asked by plain HTTP. Whoever names one means that the node is to do its work, not only to live:
    /// of a node without an agent, an answer with a status below 500 counts as a heartbeat, and `tcp` and `icmp` no
    /// longer do; a 5xx, a refusal or no answer counts as silence. Whether the kernel of a silent node lives (is it
    /// gray?) is asked by every way that is named, and there a connection or a refusal is proof of life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpUrl>,
    /// The watchdog of its BMC, at the first fencing level, which the agent feeds: one that was fed after the node fell silent
    /// is proof of life. Only for a node with an agent: a watchdog that nobody misses anything of tells nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bmc_watchdog: bool,
}

impl Probe {
    /// True if there is nothing to ask.
    pub fn is_empty(&self) -> bool {
        self.tcp.is_none() && self.icmp.is_none() && self.http.is_none() && !self.bmc_watchdog
    }
}

/// A logical server that fails over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Its name.
    pub name: InstanceId,
    /// Where it runs when it is first described. Later the cluster's own record counts.
    pub node: NodeId,
    /// The policy that protects it; absent: the most specific one that applies to it, or the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyId>,
    /// Who owns it; policies may apply to their instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Free labels, matched by policies.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Volumes that must be attached to its node and to no other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Networks, in the order of the node's ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Network>,
    /// Who gives its node the boot source, if anyone has to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
    /// Labels that a spare must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needs: BTreeMap<String, String>,
    /// What a spare's hardware must be at least.
    #[serde(default, skip_serializing_if = "Requirements::is_empty")]
    pub requires: Requirements,
}

impl Instance {
    /// True if whatever spare fits one of them fits the other, wherever they run.
    pub(crate) fn needs_the_same_as(&self, other: &Instance) -> bool {
        // All fields, so that a new one asks whether it is a need.
        let Instance {
            name: _,
            node: _,
            policy: _,
            tenant: _,
            labels: _,
            volumes,
            networks,
            boot,
            needs,
            requires,
        } = self;
        let booted_by = |boot: &Option<Boot>| boot.as_ref().map(|boot| boot.provider.clone());
        let kinds = |networks: &[Network]| networks.iter().map(std::mem::discriminant).collect::<Vec<_>>();
        let stores =
            |volumes: &[Volume]| volumes.iter().map(|it| it.provider.clone()).collect::<BTreeSet<_>>();
        kinds(networks) == kinds(&other.networks)
            && stores(volumes) == stores(&other.volumes)
            && booted_by(boot) == booted_by(&other.boot)
            && *needs == other.needs
            && *requires == other.requires
    }
}

/// A volume of an instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Who stores it.
    pub provider: ProviderId,
    /// Its id there.
    pub volume: VolumeId,
}

/// The boot source of an instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Who serves it.
    pub provider: ProviderId,
    /// What is served, in the provider's words.
    pub image: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stored entries and snapshots of older versions know no capabilities.
    #[test]
    fn without_capabilities_a_node_and_an_instance_are_written_as_before_there_were_any() {
        let node = r#"{"name":"n1"}"#;
        let instance = r#"{"name":"web","node":"n1","policy":"quick"}"#;
        let again = serde_json::to_string(&serde_json::from_str::<Node>(node).unwrap());
        assert_eq!(again.unwrap(), node);
        let again = serde_json::to_string(&serde_json::from_str::<Instance>(instance).unwrap());
        assert_eq!(again.unwrap(), instance);
    }
}
