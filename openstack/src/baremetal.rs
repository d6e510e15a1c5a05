//! Ironic: nodes, their power and provisioning, what is attached to them, and allocations.
//!
//! Why it exists: where Ironic owns the nodes, power and networks are changed through it, or it changes them back.
//! What it never does: take an answer for the deed. Power and provisioning are accepted (202) and done later, or never: read
//! the node until it has no target and no reservation. `power_state` is what Ironic's database says, not the BMC.

use crate::catalog::Service;
use crate::error::CallError;
use crate::exchange::{LISTED_MAX, PAGE_MAX};
use crate::ids::{
    AllocationName, ConnectorUuid, NodeUuid, PortId, PortUuid, ProjectId, TargetUuid, VolumeId,
};
use crate::session::{Ask, Cloud};
use policies::Permit;
use reqwest::Method;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use tokio::time::Instant;

mod model;

pub use model::*;

/// Longest text about an entry that cannot be understood, in characters: it may quote the entry.
const UNREAD_MAX: usize = 300;

/// Ironic's calls.
#[derive(Clone, Copy, Debug)]
pub struct Baremetal<'a>(&'a Cloud);

impl<'a> Baremetal<'a> {
    pub(crate) fn new(cloud: &'a Cloud) -> Baremetal<'a> {
        Baremetal(cloud)
    }

    // ---- nodes

    /// Reads a node, as Ironic's database has it.
    ///
    /// # Errors
    /// [`CallError`]; a node of another project is absent for whoever has not the role `service` or `admin` of the system.
    pub async fn node(&self, node: &NodeUuid, deadline: Instant) -> Result<Node, CallError> {
        let ask = get(&["nodes", node.as_str()], format!("read node {node}"));
        self.0.read(ask.query("fields", NODE_FIELDS.join(",")), deadline).await
    }

    /// Reads all nodes that fit the filter, page by page.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn nodes(&self, filter: &NodeFilter, deadline: Instant) -> Result<Vec<Node>, CallError> {
        let ask = || {
            let ask = get(&["nodes"], "list nodes".to_owned()).query("fields", NODE_FIELDS.join(","));
            filter.pairs().into_iter().fold(ask, |ask, (key, value)| ask.query(key, value))
        };
        self.all("nodes", ask, deadline).await
    }

    /// Takes a node out of Ironic's care, with a reason. Ironic then neither reads nor changes its power by itself.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn set_maintenance(
        &self,
        node: &NodeUuid,
        reason: &str,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let doing = format!("set maintenance of node {node}");
        let ask = ask(Method::PUT, &["nodes", node.as_str(), "maintenance"], doing);
        self.0.change(ask.body(json!({ "reason": reason })), permit, deadline).await
    }

    /// Gives a node back to Ironic's care. If Ironic's database has it as on, Ironic switches it on.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn clear_maintenance(
        &self,
        node: &NodeUuid,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let doing = format!("clear maintenance of node {node}");
        let ask = ask(Method::DELETE, &["nodes", node.as_str(), "maintenance"], doing);
        self.0.change(ask, permit, deadline).await
    }

    /// Asks Ironic to switch a node. `Ok`: it will try, and the node is locked meanwhile; with a BMC that hangs for minutes
    /// to an hour, and what it tries may still happen then. `off` of an active node also detaches its Cinder volumes.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn set_power(
        &self,
        node: &NodeUuid,
        target: PowerTarget,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let doing = format!("{target} node {node}");
        let ask = ask(Method::PUT, &["nodes", node.as_str(), "states", "power"], doing);
        self.0.change(ask.body(json!({ "target": target.word() })), permit, deadline).await
    }

    /// Asks Ironic to bring a node into another state of provisioning. `Ok`: it has begun.
    ///
    /// # Errors
    /// [`CallError`]; [`crate::No::Other`]`(400)` if there is no way from its state to that one.
    pub async fn set_provision(
        &self,
        node: &NodeUuid,
        target: &ProvisionTarget,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let doing = format!("{target} node {node}");
        let ask = ask(Method::PUT, &["nodes", node.as_str(), "states", "provision"], doing);
        self.0.change(ask.body(target.body()), permit, deadline).await
    }

    /// Sets what a deployment takes from the node (`boot_iso`, `image_source`, `capabilities`, ...) and what is noted of it, key by
    /// key, in one call.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn set_instance(
        &self,
        node: &NodeUuid,
        info: &BTreeMap<String, Value>,
        extra: &BTreeMap<String, Value>,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let doing = format!("set instance_info of node {node}");
        let ask = ask(Method::PATCH, &["nodes", node.as_str()], doing);
        let fields = [("instance_info", info), ("extra", extra)];
        let values = fields.iter().flat_map(|(field, values)| values.iter().map(move |pair| (field, pair)));
        let patch = values.map(|(field, (key, value))| {
            // RFC 6901, section 3. Ironic takes letters, digits, `_` and `-` only, and says so.
            let key = key.replace('~', "~0").replace('/', "~1");
            json!({ "op": "add", "path": format!("/{field}/{key}"), "value": value })
        });
        self.0.change(ask.body(patch.collect()), permit, deadline).await
    }

    /// Reads a node's traits.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn traits(&self, node: &NodeUuid, deadline: Instant) -> Result<BTreeSet<String>, CallError> {
        #[derive(Deserialize)]
        struct Traits {
            traits: BTreeSet<String>,
        }
        let ask = get(&["nodes", node.as_str(), "traits"], format!("read traits of node {node}"));
        self.0.read(ask, deadline).await.map(|it: Traits| it.traits)
    }

    /// Asks Ironic which of a node's interfaces could do their part of a deployment now, by their names (`power`, `deploy`,
    /// `boot`, `network`, `storage`, `management`, ...).
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn validate(&self, node: &NodeUuid, deadline: Instant) -> Result<Validation, CallError> {
        self.0
            .read(get(&["nodes", node.as_str(), "validate"], format!("validate node {node}")), deadline)
            .await
    }

    /// Reads from the BMC what a node starts from. Waits for the BMC.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn boot_device(&self, node: &NodeUuid, deadline: Instant) -> Result<BootDevice, CallError> {
        let path = ["nodes", node.as_str(), "management", "boot_device"];
        self.0.read(get(&path, format!("read boot device of node {node}")), deadline).await
    }

    /// Sets at the BMC what a node starts from. Waits for the BMC.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn set_boot_device(
        &self,
        node: &NodeUuid,
        device: &BootDevice,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let doing = format!("set boot device of node {node}");
        let path = ["nodes", node.as_str(), "management", "boot_device"];
        let ask = ask(Method::PUT, &path, doing);
        let body = json!({ "boot_device": device.device, "persistent": device.persistent });
        self.0.change(ask.body(body), permit, deadline).await
    }

    // ---- networks

    /// Reads the physical NICs of a node, or of all nodes.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn ports(
        &self,
        node: Option<&NodeUuid>,
        deadline: Instant,
    ) -> Result<Vec<NodePort>, CallError> {
        let ask = || of_node(get(&["ports"], "list bare-metal ports".to_owned()), node).query("detail", true);
        self.all("ports", ask, deadline).await
    }

    /// Reads the port groups (LAGs) of a node, or of all nodes.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn port_groups(
        &self,
        node: Option<&NodeUuid>,
        deadline: Instant,
    ) -> Result<Vec<PortGroup>, CallError> {
        let ask = || of_node(get(&["portgroups"], "list port groups".to_owned()), node).query("detail", true);
        self.all("portgroups", ask, deadline).await
    }

    /// Reads which Neutron ports are attached to a node.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn vifs(&self, node: &NodeUuid, deadline: Instant) -> Result<BTreeSet<PortId>, CallError> {
        #[derive(Deserialize)]
        struct Vifs {
            vifs: Vec<Vif>,
        }
        #[derive(Deserialize)]
        struct Vif {
            id: PortId,
        }
        let ask = get(&["nodes", node.as_str(), "vifs"], format!("read VIFs of node {node}"));
        let read: Vifs = self.0.read(ask, deadline).await?;
        Ok(read.vifs.into_iter().map(|vif| vif.id).collect())
    }

    /// True if there is a physical NIC, or a port group, of this id.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn has_nic(&self, nic: &PortUuid, deadline: Instant) -> Result<bool, CallError> {
        for kind in ["ports", "portgroups"] {
            let ask = get(&[kind, nic.as_str()], format!("read bare-metal port {nic}"));
            match self.0.read::<IgnoredAny>(ask.query("fields", "uuid"), deadline).await {
                Ok(_) => return Ok(true),
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Attaches a Neutron port to a node; to `nic`, a NIC or port group of it, or to one that is free. Ironic does not look whether it is attached to another, from which it is then
    /// taken: detach it there first. Gives the port the MAC address of the NIC.
    ///
    /// # Errors
    /// [`CallError`]; [`crate::No::Conflict`] if it is attached to this node already, or no NIC is free.
    pub async fn attach_vif(
        &self,
        node: &NodeUuid,
        port: &PortId,
        nic: Option<&PortUuid>,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let doing = format!("attach VIF {port} to node {node}");
        let ask = ask(Method::POST, &["nodes", node.as_str(), "vifs"], doing);
        let body = match nic {
            Some(nic) => json!({ "id": port, "port_uuid": nic }),
            None => json!({ "id": port }),
        };
        self.0.change(ask.body(body), permit, deadline).await
    }

    /// Detaches a Neutron port from a node. It is unbound then, and has a random MAC address. Ironic does so even if the port
    /// has been given to another node meanwhile: read its `binding:host_id` first.
    ///
    /// # Errors
    /// [`CallError`]; [`crate::No::Other`]`(400)` if it is not attached.
    pub async fn detach_vif(
        &self,
        node: &NodeUuid,
        port: &PortId,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let doing = format!("detach VIF {port} from node {node}");
        let path = ["nodes", node.as_str(), "vifs", port.as_str()];
        self.0.change(ask(Method::DELETE, &path, doing), permit, deadline).await
    }

    // ---- volumes

    /// Reads which volumes a node is to have, or all nodes.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn volume_targets(
        &self,
        node: Option<&NodeUuid>,
        deadline: Instant,
    ) -> Result<Vec<VolumeTarget>, CallError> {
        let ask = || {
            of_node(get(&["volume", "targets"], "list volume targets".to_owned()), node).query("detail", true)
        };
        self.all("targets", ask, deadline).await
    }

    /// Notes that a node is to have a volume from its next deployment or power-on. The node must be off.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn create_volume_target(
        &self,
        wish: &VolumeTargetWish,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<VolumeTarget, CallError> {
        let doing = format!("give volume {} to node {}", wish.volume_id, wish.node_uuid);
        let ask = ask(Method::POST, &["volume", "targets"], doing);
        let body = json!({
            "node_uuid": wish.node_uuid, "volume_type": wish.volume_type, "boot_index": wish.boot_index,
            "volume_id": wish.volume_id, "properties": {},
        });
        self.0.change_for(ask.body(body), permit, deadline).await
    }

    /// Takes a volume target away from its node, which must be off.
    ///
    /// # Errors
    /// [`CallError`]; [`crate::No::Other`]`(400)` if the node is on.
    pub async fn delete_volume_target(
        &self,
        target: &TargetUuid,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let doing = format!("delete volume target {target}");
        let path = ["volume", "targets", target.as_str()];
        self.0.change(ask(Method::DELETE, &path, doing), permit, deadline).await
    }

    /// Reads by which names storage knows a node, or all nodes.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn volume_connectors(
        &self,
        node: Option<&NodeUuid>,
        deadline: Instant,
    ) -> Result<Vec<VolumeConnector>, CallError> {
        let ask = || {
            of_node(get(&["volume", "connectors"], "list volume connectors".to_owned()), node)
                .query("detail", true)
        };
        self.all("connectors", ask, deadline).await
    }

    /// Notes an iSCSI initiator name of a node. The node must be off.
    ///
    /// # Errors
    /// [`CallError`]; [`crate::No::Conflict`] if some node has it already.
    pub async fn create_volume_connector(
        &self,
        node: &NodeUuid,
        iqn: &str,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<VolumeConnector, CallError> {
        let doing = format!("note initiator {iqn} of node {node}");
        let ask = ask(Method::POST, &["volume", "connectors"], doing);
        let body = json!({ "node_uuid": node, "type": "iqn", "connector_id": iqn });
        self.0.change_for(ask.body(body), permit, deadline).await
    }

    /// Forgets a volume connector. Its node must be off.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn delete_volume_connector(
        &self,
        connector: &ConnectorUuid,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let doing = format!("delete volume connector {connector}");
        let path = ["volume", "connectors", connector.as_str()];
        self.0.change(ask(Method::DELETE, &path, doing), permit, deadline).await
    }

    // ---- allocations

    /// Reads an allocation, by its name or UUID.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn allocation(
        &self,
        name: &AllocationName,
        deadline: Instant,
    ) -> Result<Allocation, CallError> {
        self.0.read(get(&["allocations", name.as_str()], format!("read allocation {name}")), deadline).await
    }

    /// Claims a free node. Ironic decides later: read the allocation until it is active or failed. Nobody else gets the node
    /// then: Ironic sets its `instance_uuid` in one transaction.
    ///
    /// # Errors
    /// [`CallError`]; [`crate::No::Conflict`] if the name is taken.
    pub async fn create_allocation(
        &self,
        wish: &AllocationWish,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<Allocation, CallError> {
        let ask = ask(Method::POST, &["allocations"], format!("claim a node as {}", wish.name));
        self.0.change_for(ask.body(json!(wish)), permit, deadline).await
    }

    /// Gives a claimed node back. The node must not be active.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn delete_allocation(
        &self,
        name: &AllocationName,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let doing = format!("delete allocation {name}");
        let ask = ask(Method::DELETE, &["allocations", name.as_str()], doing);
        self.0.change(ask, permit, deadline).await
    }

    // ---- lists

    /// Reads all that Ironic has, in five lists at the same time, whatever the number of nodes.
    ///
    /// # Errors
    /// [`CallError`] if one of the lists could not be read.
    pub async fn everything(&self, deadline: Instant) -> Result<Everything, CallError> {
        let nodes = || {
            let fields = [&NODE_FIELDS[..], &["instance_info"]].concat().join(",");
            get(&["nodes"], "list nodes".to_owned()).query("fields", fields)
        };
        let detailed = |path: &[&str], what: &str| get(path, format!("list {what}")).query("detail", true);
        let (nodes, ports, port_groups, targets, connectors) = tokio::try_join!(
            self.list("nodes", nodes, deadline),
            self.list("ports", || detailed(&["ports"], "bare-metal ports"), deadline),
            self.list("portgroups", || detailed(&["portgroups"], "port groups"), deadline),
            self.list("targets", || detailed(&["volume", "targets"], "volume targets"), deadline),
            self.list("connectors", || detailed(&["volume", "connectors"], "volume connectors"), deadline),
        )?;
        let mut unread = vec![];
        Ok(Everything {
            nodes: understood("node", nodes, &mut unread),
            ports: understood("bare-metal port", ports, &mut unread),
            port_groups: understood("port group", port_groups, &mut unread),
            targets: understood("volume target", targets, &mut unread),
            connectors: understood("volume connector", connectors, &mut unread),
            unread,
        })
    }

    /// Reads a list of which everything has to be understood.
    async fn all<T: DeserializeOwned>(
        &self,
        key: &str,
        ask: impl Fn() -> Ask,
        deadline: Instant,
    ) -> Result<Vec<T>, CallError> {
        let doing = ask().doing().to_owned();
        let items = self.list(key, ask, deadline).await?;
        serde_json::from_value(Value::Array(items))
            .map_err(|error| CallError::Unclear { doing, why: error.to_string() })
    }

    /// Reads a list to its end. Pages are asked for by the last id of the one before; the address in the answer's `next` is
    /// not followed: behind a proxy it is often wrong, and it is not for an answer to say where our token goes.
    async fn list(
        &self,
        key: &str,
        ask: impl Fn() -> Ask,
        deadline: Instant,
    ) -> Result<Vec<Value>, CallError> {
        let (mut found, mut seen): (Vec<Value>, BTreeSet<String>) = (vec![], BTreeSet::new());
        loop {
            let mut ask = ask().query("limit", PAGE_MAX);
            let doing = ask.doing().to_owned();
            let unclear = |why: String| CallError::Unclear { doing: doing.clone(), why };
            if let Some(last) = found.last() {
                let marker = last.get("uuid").and_then(Value::as_str);
                ask = ask.query(
                    "marker",
                    marker.ok_or_else(|| unclear("an entry of the list has no uuid".to_owned()))?,
                );
            }
            let mut page: BTreeMap<String, Value> = self.0.read(ask, deadline).await?;
            let has_more = page.get("next").is_some_and(Value::is_string);
            let Some(Value::Array(items)) = page.remove(key) else {
                return Err(unclear(format!("there are no {key} in the answer")));
            };
            let before = found.len();
            // Where the list has changed between two pages, an entry may come twice.
            let is_new = |item: &Value| {
                item.get("uuid").and_then(Value::as_str).is_none_or(|uuid| seen.insert(uuid.to_owned()))
            };
            found.extend(items.into_iter().filter(is_new));
            if !has_more {
                return Ok(found);
            }
            if found.len() == before {
                return Err(unclear("the list goes on and brings nothing new".to_owned()));
            }
            if found.len() > LISTED_MAX {
                return Err(unclear(format!("the list has more than {LISTED_MAX} entries")));
            }
        }
    }
}

/// What of a list can be understood; of the rest it is told why not. One odd entry must not hide a thousand others.
fn understood<T: DeserializeOwned>(
    kind: &'static str,
    items: Vec<Value>,
    unread: &mut Vec<Unread>,
) -> Vec<T> {
    let mut found = Vec::with_capacity(items.len());
    for item in items {
        let text = |key: &str| item.get(key).and_then(Value::as_str).map(str::to_owned);
        let (uuid, node) = (text("uuid"), text("node_uuid"));
        match serde_json::from_value(item) {
            Ok(item) => found.push(item),
            Err(error) => {
                let why = error.to_string().chars().take(UNREAD_MAX).collect();
                unread.push(Unread { kind, uuid, node, why });
            }
        }
    }
    found
}

fn ask(method: Method, path: &[&str], doing: String) -> Ask {
    Ask::new(Service::Baremetal, method, path, doing)
}

fn get(path: &[&str], doing: String) -> Ask {
    ask(Method::GET, path, doing)
}

fn of_node(ask: Ask, node: Option<&NodeUuid>) -> Ask {
    match node {
        Some(node) => ask.query("node", node),
        None => ask,
    }
}
