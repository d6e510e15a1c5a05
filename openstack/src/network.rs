//! Neutron: the port that a server's addresses, security groups and services hang on.
//!
//! Why it exists: a port keeps its id, addresses and security groups when it moves, so firewalls, load balancers and VPNs follow.
//! Which node it is bound to is seen here only. What it never does: overwrite a port that has changed since it was read.

use crate::catalog::Service;
use crate::error::CallError;
use crate::exchange::{LISTED_MAX, PAGE_MAX};
use crate::ids::{NodeUuid, PortId};
use crate::session::{Ask, Cloud};
use policies::Permit;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// Neutron's calls.
#[derive(Clone, Copy, Debug)]
pub struct Network<'a>(&'a Cloud);

/// Counts a port's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub struct Revision(u64);

/// A port.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Port {
    /// Its id.
    pub id: PortId,
    /// Its name; may be empty.
    #[serde(default)]
    pub name: String,
    /// Its network's id.
    pub network_id: String,
    /// Its MAC address. Ironic sets it to that of the NIC, and to a random one when it is detached.
    pub mac_address: String,
    /// `ACTIVE`: the switch is set; `DOWN`, `BUILD`, `ERROR`.
    pub status: String,
    /// What it belongs to, in the words of whoever attached it.
    #[serde(default)]
    pub device_id: String,
    /// Where it is bound: the UUID of an Ironic node, or empty. Absent if the token may not see it.
    #[serde(rename = "binding:host_id")]
    pub host_id: Option<String>,
    /// How: `other` (bound by a switch driver), `unbound`, `binding_failed`.
    #[serde(rename = "binding:vif_type")]
    pub vif_type: Option<String>,
    /// `baremetal` for ours.
    #[serde(rename = "binding:vnic_type")]
    pub vnic_type: Option<String>,
    /// The switch port and more, from whoever attached it.
    #[serde(rename = "binding:profile", default)]
    pub profile: BTreeMap<String, Value>,
    /// Its addresses.
    #[serde(default)]
    pub fixed_ips: Vec<FixedIp>,
    /// Ids of its security groups.
    #[serde(default)]
    pub security_groups: BTreeSet<String>,
    /// Counts its changes.
    pub revision_number: Revision,
}

/// One address of a port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FixedIp {
    /// The subnet's id.
    pub subnet_id: String,
    /// The address.
    pub ip_address: String,
}

/// Several networks on one port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Trunk {
    /// Its id.
    pub id: String,
    /// The port that is attached to a node, untagged: the parent.
    pub port_id: PortId,
    /// The others, each with its tag.
    #[serde(default)]
    pub sub_ports: Vec<SubPort>,
}

/// A network on a trunk.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SubPort {
    /// Its port.
    pub port_id: PortId,
    /// Its tag: for `vlan` the VLAN id.
    pub segmentation_id: Option<u32>,
}

/// What is to be changed of a port; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PortChange {
    /// Where it is bound; empty: nowhere. Needs the role `service`.
    #[serde(rename = "binding:host_id", skip_serializing_if = "Option::is_none")]
    pub host_id: Option<String>,
    /// The switch port. Needs the role `service`.
    #[serde(rename = "binding:profile", skip_serializing_if = "Option::is_none")]
    pub profile: Option<BTreeMap<String, Value>>,
    /// False: the switch lets nothing through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_state_up: Option<bool>,
    /// What it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

#[derive(Deserialize)]
struct One {
    port: Port,
}

impl<'a> Network<'a> {
    pub(crate) fn new(cloud: &'a Cloud) -> Network<'a> {
        Network(cloud)
    }

    /// Reads a port.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn port(&self, port: &PortId, deadline: Instant) -> Result<Port, CallError> {
        let ask =
            Ask::new(Service::Network, Method::GET, &["ports", port.as_str()], format!("read port {port}"));
        self.0.read(ask, deadline).await.map(|it: One| it.port)
    }

    /// Reads all ports that are bound to a node. The token must see `binding:host_id`, or all ports would seem bound: what comes is
    /// looked at again.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn bound_to(&self, node: &NodeUuid, deadline: Instant) -> Result<Vec<Port>, CallError> {
        #[derive(Deserialize)]
        struct List {
            ports: Vec<Port>,
        }
        let doing = format!("list the ports that are bound to node {node}");
        let ask = Ask::new(Service::Network, Method::GET, &["ports"], doing.clone());
        let List { ports } = self.0.read(ask.query("binding:host_id", node), deadline).await?;
        match ports.iter().find(|port| port.host_id.as_deref() != Some(node.as_str())) {
            None => Ok(ports),
            Some(other) => {
                let why = format!("port {} is in the answer, bound to {:?}", other.id, other.host_id);
                Err(CallError::Unclear { doing, why })
            }
        }
    }

    /// Reads all trunks, page by page; none where Neutron has no trunks (the extension `trunk`).
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn trunks(&self, deadline: Instant) -> Result<Vec<Trunk>, CallError> {
        #[derive(Deserialize)]
        struct List {
            trunks: Vec<Trunk>,
        }
        let doing = "list trunks".to_owned();
        let mut found: Vec<Trunk> = vec![];
        loop {
            let mut ask = Ask::new(Service::Network, Method::GET, &["trunks"], doing.clone());
            // In the order of their ids, or a trunk that is made meanwhile moves the pages.
            ask = ask.query("limit", PAGE_MAX).query("sort_key", "id").query("sort_dir", "asc");
            if let Some(last) = found.last() {
                ask = ask.query("marker", &last.id);
            }
            let page = match self.0.read::<List>(ask, deadline).await {
                Err(error) if error.is_absent() && found.is_empty() => return Ok(vec![]),
                page => page?.trunks,
            };
            // A page that is cut shorter by the service's own limit costs one more call.
            let is_end = page.is_empty();
            found.extend(page);
            if is_end {
                return Ok(found);
            }
            if found.len() > LISTED_MAX {
                let why = format!("the list has more than {LISTED_MAX} entries");
                return Err(CallError::Unclear { doing, why });
            }
        }
    }

    /// Changes a port if it still is as it was at that revision. A binding is made later: read the port until it is `ACTIVE`.
    ///
    /// # Errors
    /// [`CallError`]; [`crate::No::Stale`] if somebody was faster.
    pub async fn update_port(
        &self,
        port: &PortId,
        change: &PortChange,
        revision: Revision,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<Port, CallError> {
        let ask =
            Ask::new(Service::Network, Method::PUT, &["ports", port.as_str()], format!("change port {port}"));
        let ask = ask.body(json!({ "port": change })).if_match(format!("revision_number={}", revision.0));
        self.0.change_for(ask, permit, deadline).await.map(|it: One| it.port)
    }
}
