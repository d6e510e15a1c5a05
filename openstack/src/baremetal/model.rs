//! What Ironic tells of its objects, as far as a failover uses it, and what it is asked for.
//!
//! Why it exists: texts become types once. Words that we do not know stay readable: newer services have new ones.
//! What it never does: hold a secret. `driver_info` and the properties of volume targets, in which there may be some, are not
//! read; of `instance_info` only what it names below.

use super::*;
use crate::ids::AllocationUuid;

/// What is read of a node.
pub(super) const NODE_FIELDS: [&str; 23] = [
    "uuid",
    "name",
    "driver",
    "power_state",
    "target_power_state",
    "provision_state",
    "target_provision_state",
    "maintenance",
    "maintenance_reason",
    "fault",
    "last_error",
    "reservation",
    "instance_uuid",
    "owner",
    "lessee",
    "resource_class",
    "traits",
    "properties",
    "protected",
    "retired",
    "storage_interface",
    "network_interface",
    "extra",
];

/// A node as Ironic's database has it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Node {
    /// Its id.
    pub uuid: NodeUuid,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its hardware type: `redfish`, `ipmi`, ...
    pub driver: String,
    /// Its power when Ironic last read or set it; absent: it could not be read. Never refreshed in maintenance.
    pub power_state: Option<PowerState>,
    /// What Ironic is about to make of it.
    pub target_power_state: Option<PowerState>,
    /// Its state of provisioning.
    pub provision_state: ProvisionState,
    /// What Ironic is about to make of it.
    pub target_provision_state: Option<ProvisionState>,
    /// True if Ironic keeps its hands off it.
    pub maintenance: bool,
    /// Why.
    #[serde(default, deserialize_with = "line")]
    pub maintenance_reason: Option<String>,
    /// Set if it was Ironic itself that began the maintenance (`power failure`); it then ends it by itself.
    pub fault: Option<String>,
    /// Why the last operation failed. May be absent although it did.
    #[serde(default, deserialize_with = "line")]
    pub last_error: Option<String>,
    /// The conductor that has its lock.
    pub reservation: Option<String>,
    /// Set while it is used or claimed; then the UUID of its allocation. (Ironic 39.0 answers 500 to a list that asks for
    /// `allocation_uuid`.)
    pub instance_uuid: Option<String>,
    /// Whose it is.
    pub owner: Option<ProjectId>,
    /// Who uses it.
    pub lessee: Option<ProjectId>,
    /// Its kind, for scheduling.
    pub resource_class: Option<String>,
    /// What it can do, for scheduling.
    #[serde(default)]
    pub traits: BTreeSet<String>,
    /// What was found or noted about its hardware.
    #[serde(default)]
    pub properties: BTreeMap<String, Value>,
    /// True if it must not be undeployed.
    #[serde(default)]
    pub protected: bool,
    /// True if it is not to be used again.
    #[serde(default)]
    pub retired: bool,
    /// How volumes come to it: `cinder`, `noop`, `external`.
    pub storage_interface: Option<String>,
    /// How networks come to it: `neutron`, `flat`, `noop`.
    pub network_interface: Option<String>,
    /// What its users note of it.
    #[serde(default)]
    pub extra: BTreeMap<String, Value>,
    /// What it was deployed with; absent where it was not asked for.
    pub instance_info: Option<InstanceInfo>,
}

/// What a node was deployed with, as far as it tells deployments apart and is no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct InstanceInfo {
    /// Its image: an address or an id.
    pub image_source: Option<String>,
    /// Or the ISO that it starts from.
    pub boot_iso: Option<String>,
    /// Or the kernel, with its ramdisk.
    pub kernel: Option<String>,
    /// See `kernel`.
    pub ramdisk: Option<String>,
    /// The server's name, where Nova has deployed it.
    pub display_name: Option<String>,
}

impl Node {
    /// True if it is in a maintenance that a fence of ours has set.
    pub fn is_fenced(&self) -> bool {
        let reason = self.maintenance_reason.as_deref().unwrap_or_default();
        self.maintenance && reason.starts_with(crate::FENCED_BY)
    }

    /// True if no operation has the node or is about to: what it says is what came of the last one.
    pub fn is_settled(&self) -> bool {
        self.reservation.is_none() && self.target_power_state.is_none()
    }
}

/// Power in Ironic's words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub enum PowerState {
    /// On.
    #[serde(rename = "power on")]
    On,
    /// Off.
    #[serde(rename = "power off")]
    Off,
    /// `rebooting`, `error`, or a word that is newer than this program.
    #[serde(untagged)]
    Other(String),
}

/// States of provisioning.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProvisionState {
    /// New, its BMC not tried yet.
    Enroll,
    /// Its BMC is being tried.
    Verifying,
    /// Known, in nobody's use, not offered.
    Manageable,
    /// Ready to be deployed.
    Available,
    /// Being deployed.
    Deploying,
    /// Being deployed: what runs on it is waited for.
    #[serde(rename = "wait call-back")]
    DeployWait,
    /// Its deployment failed.
    #[serde(rename = "deploy failed")]
    DeployFailed,
    /// Deployed: it runs an instance.
    Active,
    /// Being undeployed.
    Deleting,
    /// Being cleaned.
    Cleaning,
    /// Being cleaned: what runs on it is waited for.
    #[serde(rename = "clean wait")]
    CleanWait,
    /// Its cleaning failed; `manage` is the only way out.
    #[serde(rename = "clean failed")]
    CleanFailed,
    /// Its undeployment failed.
    Error,
    /// Any other (rescue, service, inspection, adoption), or a word that is newer than this program.
    #[serde(untagged)]
    Other(String),
}

/// To what power a node is to be brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerTarget {
    /// On.
    On,
    /// Off, at once.
    Off,
    /// Off, by its operating system; Ironic switches it off if that takes too long.
    SoftOff,
}

impl PowerTarget {
    pub(super) fn word(self) -> &'static str {
        match self {
            PowerTarget::On => "power on",
            PowerTarget::Off => "power off",
            PowerTarget::SoftOff => "soft power off",
        }
    }
}

impl fmt::Display for PowerTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// To what state of provisioning a node is to be brought.
#[derive(Clone, Debug, PartialEq)]
pub enum ProvisionTarget {
    /// Out of a failed state, or into care for the first time.
    Manage,
    /// Cleaned and offered.
    Provide,
    /// Deployed.
    Active(Option<ConfigDrive>),
    /// Undeployed, which cleans it and offers it again. No fence: what is off in the database is not switched off.
    Deleted,
    /// Given up, where Ironic waits for something.
    Abort,
}

impl ProvisionTarget {
    fn word(&self) -> &'static str {
        match self {
            ProvisionTarget::Manage => "manage",
            ProvisionTarget::Provide => "provide",
            ProvisionTarget::Active(_) => "active",
            ProvisionTarget::Deleted => "deleted",
            ProvisionTarget::Abort => "abort",
        }
    }

    pub(super) fn body(&self) -> Value {
        match self {
            ProvisionTarget::Active(Some(drive)) => json!({ "target": self.word(), "configdrive": drive }),
            ProvisionTarget::Active(None)
            | ProvisionTarget::Manage
            | ProvisionTarget::Provide
            | ProvisionTarget::Deleted
            | ProvisionTarget::Abort => json!({ "target": self.word() }),
        }
    }
}

impl fmt::Display for ProvisionTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What an instance is told about itself at its first start. Ironic makes a medium of it. User data may hold secrets, so
/// nothing of it is shown.
#[derive(Clone, PartialEq, Default, Serialize)]
pub struct ConfigDrive {
    /// OpenStack's metadata.
    pub meta_data: BTreeMap<String, Value>,
    /// OpenStack's network metadata.
    pub network_data: BTreeMap<String, Value>,
    /// For cloud-init.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
}

impl fmt::Debug for ConfigDrive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConfigDrive(..)")
    }
}

/// Which nodes of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFilter {
    /// In this state, by Ironic's word.
    pub provision_state: Option<String>,
    /// Of this kind.
    pub resource_class: Option<String>,
    /// In maintenance, or not.
    pub maintenance: Option<bool>,
    /// Used or claimed, or not.
    pub associated: Option<bool>,
    /// Of this owner.
    pub owner: Option<ProjectId>,
}

impl NodeFilter {
    pub(super) fn pairs(&self) -> Vec<(&'static str, String)> {
        let NodeFilter { provision_state, resource_class, maintenance, associated, owner } = self;
        let pairs = [
            ("provision_state", provision_state.clone()),
            ("resource_class", resource_class.clone()),
            ("maintenance", maintenance.map(|it| it.to_string())),
            ("associated", associated.map(|it| it.to_string())),
            ("owner", owner.clone().map(String::from)),
        ];
        pairs.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

/// Whether each of a node's interfaces could do its part.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Validation(BTreeMap<String, Verdict>);

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Verdict {
    /// Absent where the driver has no such interface.
    result: Option<bool>,
    reason: Option<String>,
}

impl Validation {
    /// Those of `interfaces` that could not, with Ironic's reasons. One that Ironic says nothing about could not.
    pub fn unfit(&self, interfaces: &[&str]) -> BTreeMap<String, String> {
        let unfit = interfaces.iter().filter_map(|&name| {
            let why = match self.0.get(name) {
                Some(Verdict { result: Some(true), .. }) => return None,
                Some(verdict) => verdict.reason.clone().unwrap_or_else(|| "no reason given".to_owned()),
                None => "the node has no such interface".to_owned(),
            };
            Some((name.to_owned(), why))
        });
        unfit.collect()
    }
}

/// What a node starts from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct BootDevice {
    /// `pxe`, `disk`, `cdrom`, ...; absent: the BMC does not say.
    #[serde(rename = "boot_device")]
    pub device: Option<String>,
    /// Each time, not only the next.
    pub persistent: Option<bool>,
}

/// A physical NIC of a node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NodePort {
    /// Its id.
    pub uuid: PortUuid,
    /// Whose it is.
    pub node_uuid: NodeUuid,
    /// Its MAC address.
    pub address: String,
    /// Whether the node may start from it.
    pub pxe_enabled: bool,
    /// The switch port that it is plugged into.
    #[serde(default)]
    pub local_link_connection: LinkConnection,
    /// Neutron's name for the network that it is in.
    pub physical_network: Option<String>,
    /// The group that it is part of.
    pub portgroup_uuid: Option<PortUuid>,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What its users note of it.
    #[serde(default)]
    pub extra: BTreeMap<String, Value>,
    /// What Ironic notes of it.
    #[serde(default)]
    pub internal_info: BTreeMap<String, Value>,
}

impl NodePort {
    /// The Neutron port that is attached to it.
    pub fn vif(&self) -> Option<&str> {
        vif(&self.internal_info, &self.extra)
    }

    /// The client id of its InfiniBand port; a NIC of Ethernet has none (Ironic's installation guide, "bare-metal InfiniBand").
    pub fn infiniband(&self) -> Option<&str> {
        self.extra.get("client-id").and_then(Value::as_str)
    }
}

/// Where Ironic notes an attached VIF, and where it did before it had an API for that (Ironic 7).
fn vif<'a>(internal: &'a BTreeMap<String, Value>, extra: &'a BTreeMap<String, Value>) -> Option<&'a str> {
    internal.get("tenant_vif_port_id").or_else(|| extra.get("vif_port_id")).and_then(Value::as_str)
}

/// A switch port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct LinkConnection {
    /// The switch, mostly by its MAC address.
    pub switch_id: Option<String>,
    /// The port, by the switch's name for it.
    pub port_id: Option<String>,
    /// The switch, by its name.
    pub switch_info: Option<String>,
}

/// Several NICs as one (LAG).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PortGroup {
    /// Its id.
    pub uuid: PortUuid,
    /// Whose it is.
    pub node_uuid: NodeUuid,
    /// Its MAC address.
    pub address: Option<String>,
    /// How it is bundled: `802.3ad`, `active-backup`, ...
    pub mode: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// What its users note of it.
    #[serde(default)]
    pub extra: BTreeMap<String, Value>,
    /// What Ironic notes of it.
    #[serde(default)]
    pub internal_info: BTreeMap<String, Value>,
}

impl PortGroup {
    /// The Neutron port that is attached to it.
    pub fn vif(&self) -> Option<&str> {
        vif(&self.internal_info, &self.extra)
    }
}

/// A volume that a node is to have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct VolumeTarget {
    /// Its id.
    pub uuid: TargetUuid,
    /// Who is to have it.
    pub node_uuid: NodeUuid,
    /// `iscsi`, `fibre_channel`.
    pub volume_type: String,
    /// 0: the node starts from it.
    pub boot_index: u32,
    /// The volume.
    pub volume_id: VolumeId,
}

/// What volume a node shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeTargetWish {
    /// Who.
    pub node_uuid: NodeUuid,
    /// `iscsi`, `fibre_channel`.
    pub volume_type: String,
    /// 0: the node starts from it.
    pub boot_index: u32,
    /// The volume.
    pub volume_id: VolumeId,
}

/// A name by which storage knows a node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct VolumeConnector {
    /// Its id.
    pub uuid: ConnectorUuid,
    /// Whose it is.
    pub node_uuid: NodeUuid,
    /// `iqn`, `ip`, `wwpn`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// The name.
    pub connector_id: String,
}

/// Words of Ironic for people.
fn line<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.as_deref().map(crate::error::line))
}

/// A claim of a node.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Allocation {
    /// Its name.
    pub name: Option<AllocationName>,
    /// How far it is.
    pub state: AllocationState,
    /// The node.
    pub node_uuid: Option<NodeUuid>,
    /// Why there is none.
    #[serde(default, deserialize_with = "line")]
    pub last_error: Option<String>,
    /// What we noted.
    #[serde(default)]
    pub extra: BTreeMap<String, Value>,
}

/// How far a claim is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AllocationState {
    /// A node is being looked for.
    Allocating,
    /// It has a node.
    Active,
    /// There was none.
    Error,
    /// A word that is newer than this program.
    #[serde(untagged)]
    Other(String),
}

/// What node is to be claimed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AllocationWish {
    /// Its id, if it is ours to choose; the claimed node's `instance_uuid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<AllocationUuid>,
    /// A name that is unique: who makes the claim twice is told so.
    pub name: AllocationName,
    /// Its kind.
    pub resource_class: String,
    /// What it must have.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub traits: BTreeSet<String>,
    /// One of these; empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidate_nodes: Vec<NodeUuid>,
    /// Kept with it: epoch, token (R8).
    pub extra: BTreeMap<String, Value>,
}

/// All that Ironic has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Everything {
    /// Its nodes, with what they were deployed with.
    pub nodes: Vec<Node>,
    /// Their NICs.
    pub ports: Vec<NodePort>,
    /// And groups of these.
    pub port_groups: Vec<PortGroup>,
    /// The volumes that they are to have.
    pub targets: Vec<VolumeTarget>,
    /// The names by which storage knows them.
    pub connectors: Vec<VolumeConnector>,
    /// What there is besides and cannot be understood.
    pub unread: Vec<Unread>,
}

/// An entry of a list that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// `node`, `volume target`, ...
    pub kind: &'static str,
    /// Its id, if it has one.
    pub uuid: Option<String>,
    /// Whose it is, if it is a node's.
    pub node: Option<String>,
    /// What is wrong with it.
    pub why: String,
}
