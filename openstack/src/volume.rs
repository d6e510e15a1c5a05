//! Cinder: volumes, who has a right to them (attachments), and snapshots.
//!
//! Why it exists: deleting an attachment takes the right away at the storage, and Cinder itself refuses a second attachment of
//! a volume that only one may have. What it never does: keep what storage wants to be told in secret (CHAP), or change a
//! volume's state in the database only.

use crate::baremetal::VolumeConnector;
use crate::catalog::Service;
use crate::error::CallError;
use crate::ids::{AttachmentId, NodeUuid, SnapshotId, VolumeId};
use crate::session::{Ask, Cloud};
use crate::version::Microversion;
use policies::Permit;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::time::Instant;

/// From this API version on `force` is a word of the past (`SNAPSHOT_IN_USE` in cinder/api/microversions.py).
const IN_USE_BY_ITSELF: Microversion = Microversion::new(3, 66);

/// Cinder's calls.
#[derive(Clone, Copy, Debug)]
pub struct Volumes<'a>(&'a Cloud);

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    /// Its name.
    pub name: Option<String>,
    /// Its state.
    pub status: VolumeState,
    /// Its size in GiB.
    pub size: u64,
    /// True if several nodes may have it at once.
    #[serde(default)]
    pub multiattach: bool,
    /// Its type's name.
    pub volume_type: Option<String>,
    /// Notes of whoever uses it; Ironic notes its nodes there.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// States of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeState {
    /// Nobody has it.
    Available,
    /// Somebody will have it.
    Reserved,
    /// Somebody is being given it.
    Attaching,
    /// Somebody has it.
    InUse,
    /// It is being taken from somebody.
    Detaching,
    /// Something went wrong with it.
    Error,
    /// Any other, or a word that is newer than this program.
    #[serde(untagged)]
    Other(String),
}

/// A right to a volume.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Attachment {
    /// Its id.
    pub id: AttachmentId,
    /// The volume.
    pub volume_id: VolumeId,
    /// Its state.
    pub status: AttachmentState,
    /// Whose it is, in the words of whoever made it.
    pub instance: Option<String>,
    /// Where the volume is found, once it is connected over iSCSI. Its secrets, if it has some, are not read.
    #[serde(default, rename = "connection_info", deserialize_with = "target")]
    pub target: Option<IscsiTarget>,
}

/// States of an attachment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachmentState {
    /// Nothing is connected yet.
    Reserved,
    /// Storage has given the right; whoever has it did not say yet that it works.
    Attaching,
    /// In use.
    Attached,
    /// Being taken.
    Detaching,
    /// Any other, or a word that is newer than this program.
    #[serde(untagged)]
    Other(String),
}

/// Where a volume is found.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct IscsiTarget {
    /// Address and port.
    #[serde(rename = "target_portal")]
    pub portal: String,
    /// The target's name.
    #[serde(rename = "target_iqn")]
    pub iqn: String,
    /// The logical unit.
    #[serde(rename = "target_lun")]
    pub lun: u32,
}

/// `connection_info` is flat in attachments, and `{}` before they are connected; other protocols have other keys.
fn target<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<IscsiTarget>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// Who is to get a right, in the words of storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connector {
    /// The name of its iSCSI initiator.
    pub initiator: String,
    /// The node's name, for people.
    pub host: String,
    /// Its address in the storage network.
    pub ip: String,
    /// True if it reaches storage over several paths.
    pub multipath: bool,
    /// Its processor.
    pub platform: String,
    /// Its operating system.
    pub os_type: String,
}

/// A node as storage knows it from Ironic: what that makes of the node's volume connectors when it attaches a volume
/// (`_generate_connector` in ironic/drivers/modules/storage/cinder.py).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Peer {
    host: NodeUuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    initiator: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    wwpns: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    wwnns: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    multipath: bool,
}

impl Peer {
    /// The node with these connectors, of which the first of a kind counts; `None` without a name by which storage could know it.
    pub fn new(node: &NodeUuid, connectors: &[VolumeConnector]) -> Option<Peer> {
        let all = |kind: &str| {
            let its = connectors.iter().filter(|it| it.kind.contains(kind));
            its.map(|it| it.connector_id.clone()).collect::<Vec<_>>()
        };
        let first = |kind: &str| all(kind).into_iter().next();
        let (initiator, ip, wwpns, wwnns) = (first("iqn"), first("ip"), all("wwpn"), all("wwnn"));
        let is_known = initiator.is_some() || !wwpns.is_empty() || !wwnns.is_empty();
        let (host, multipath) = (node.clone(), connectors.len() > 1);
        is_known.then_some(Peer { host, initiator, ip, wwpns, wwnns, multipath })
    }
}

/// A snapshot of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// The volume.
    pub volume_id: VolumeId,
    /// Its name.
    pub name: Option<String>,
    /// Its state.
    pub status: SnapshotState,
}

/// States of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotState {
    /// Being made.
    Creating,
    /// Made.
    Available,
    /// Being deleted.
    Deleting,
    /// Not made.
    Error,
    /// Any other, or a word that is newer than this program.
    #[serde(untagged)]
    Other(String),
}

#[derive(Deserialize)]
struct OneAttachment {
    attachment: Attachment,
}

#[derive(Deserialize)]
struct OneSnapshot {
    snapshot: Snapshot,
}

impl<'a> Volumes<'a> {
    pub(crate) fn new(cloud: &'a Cloud) -> Volumes<'a> {
        Volumes(cloud)
    }

    /// Reads a volume.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn volume(&self, volume: &VolumeId, deadline: Instant) -> Result<Volume, CallError> {
        #[derive(Deserialize)]
        struct One {
            volume: Volume,
        }
        let ask = ask(Method::GET, &["volumes", volume.as_str()], format!("read volume {volume}"));
        self.0.read(ask, deadline).await.map(|it: One| it.volume)
    }

    // ---- attachments

    /// Reads who has a right to a volume. The list has no targets.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn attachments(
        &self,
        volume: &VolumeId,
        deadline: Instant,
    ) -> Result<Vec<Attachment>, CallError> {
        #[derive(Deserialize)]
        struct List {
            attachments: Vec<Attachment>,
        }
        let ask = ask(Method::GET, &["attachments"], format!("list attachments of volume {volume}"));
        let ask = ask.query("volume_id", volume).query("all_tenants", 1);
        self.0.read(ask, deadline).await.map(|it: List| it.attachments)
    }

    /// Reads one attachment.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn attachment(
        &self,
        attachment: &AttachmentId,
        deadline: Instant,
    ) -> Result<Attachment, CallError> {
        let ask =
            ask(Method::GET, &["attachments", attachment.as_str()], format!("read attachment {attachment}"));
        self.0.read(ask, deadline).await.map(|it: OneAttachment| it.attachment)
    }

    /// Reserves a volume, and with a connector also connects it. `instance` is whose it is to be, a UUID: for Cinder a server of
    /// Nova, which then only a service may detach.
    ///
    /// # Errors
    /// [`CallError`]; [`crate::No::Other`]`(400)` if somebody has the volume and only one may.
    pub async fn create_attachment(
        &self,
        volume: &VolumeId,
        instance: Option<&str>,
        connector: Option<&Connector>,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<Attachment, CallError> {
        #[derive(Serialize)]
        struct Wish<'a> {
            volume_uuid: &'a VolumeId,
            #[serde(skip_serializing_if = "Option::is_none")]
            instance_uuid: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            connector: Option<&'a Connector>,
        }
        let wish = Wish { volume_uuid: volume, instance_uuid: instance, connector };
        let ask = ask(Method::POST, &["attachments"], format!("attach volume {volume}"));
        let made = self.0.change_for(ask.body(json!({ "attachment": wish })), permit, deadline);
        made.await.map(|it: OneAttachment| it.attachment)
    }

    /// Connects a reserved volume: storage gives the right, and the answer has the target.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn update_attachment(
        &self,
        attachment: &AttachmentId,
        connector: &Connector,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<Attachment, CallError> {
        let doing = format!("connect attachment {attachment} to {}", connector.host);
        let ask = ask(Method::PUT, &["attachments", attachment.as_str()], doing);
        let made = self.0.change_for(
            ask.body(json!({ "attachment": { "connector": connector } })),
            permit,
            deadline,
        );
        made.await.map(|it: OneAttachment| it.attachment)
    }

    /// Notes that a connected volume works: it is in use from then on.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn complete_attachment(
        &self,
        attachment: &AttachmentId,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let doing = format!("complete attachment {attachment}");
        let ask = ask(Method::POST, &["attachments", attachment.as_str(), "action"], doing);
        self.0.change(ask.body(json!({ "os-complete": {} })), permit, deadline).await
    }

    /// Takes the right away, at the storage too. Goes out as from a service, or Cinder would ask Nova first.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn delete_attachment(
        &self,
        attachment: &AttachmentId,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let doing = format!("delete attachment {attachment}");
        let ask = ask(Method::DELETE, &["attachments", attachment.as_str()], doing).with_service_token();
        self.0.change(ask, permit, deadline).await
    }

    /// Takes away what storage gave a node, whatever Cinder has recorded of it; what storage does not give, or no longer, may be taken
    /// away again. `Ok`: storage has done it. For an attachment made with Cinder's first API, as Ironic's are, Cinder has recorded no
    /// connector, and deleting it asks storage for nothing (`_connection_terminate` in cinder/volume/manager.py).
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn end_connection(
        &self,
        volume: &VolumeId,
        peer: &Peer,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let doing = format!("end the connection of {} to volume {volume}", peer.host);
        let body = json!({ "os-terminate_connection": { "connector": peer } });
        let ask =
            ask(Method::POST, &["volumes", volume.as_str(), "action"], doing).body(body).with_service_token();
        self.0.change(ask, permit, deadline).await
    }

    // ---- snapshots

    /// Reads a volume's snapshots.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn snapshots(&self, volume: &VolumeId, deadline: Instant) -> Result<Vec<Snapshot>, CallError> {
        #[derive(Deserialize)]
        struct List {
            snapshots: Vec<Snapshot>,
        }
        let ask = ask(Method::GET, &["snapshots", "detail"], format!("list snapshots of volume {volume}"));
        let ask = ask.query("volume_id", volume).query("all_tenants", 1);
        self.0.read(ask, deadline).await.map(|it: List| it.snapshots)
    }

    /// Asks for a snapshot of a volume. `Ok`: it is being made. Cinder makes two of one name, and from API version 3.66 on also
    /// of a volume that somebody writes to: look before. With `in_use` that is wanted, and said to older ones, too.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn create_snapshot(
        &self,
        volume: &VolumeId,
        name: &str,
        in_use: bool,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<Snapshot, CallError> {
        let ask = ask(Method::POST, &["snapshots"], format!("make snapshot {name} of volume {volume}"));
        let spoken = self.0.version(Service::BlockStorage, deadline).await?;
        let wish = match in_use && spoken.is_some_and(|spoken| spoken < IN_USE_BY_ITSELF) {
            true => json!({ "volume_id": volume, "name": name, "force": true }),
            false => json!({ "volume_id": volume, "name": name }),
        };
        let body = json!({ "snapshot": wish });
        self.0.change_for(ask.body(body), permit, deadline).await.map(|it: OneSnapshot| it.snapshot)
    }

    /// Asks for a snapshot's end. `Ok`: it is being deleted.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn delete_snapshot(
        &self,
        snapshot: &SnapshotId,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let ask =
            ask(Method::DELETE, &["snapshots", snapshot.as_str()], format!("delete snapshot {snapshot}"));
        self.0.change(ask, permit, deadline).await
    }
}

fn ask(method: Method, path: &[&str], doing: String) -> Ask {
    Ask::new(Service::BlockStorage, method, path, doing)
}
