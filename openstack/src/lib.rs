//! The calls of OpenStack that a failover needs: Keystone, Ironic, Neutron, Cinder.
//!
//! What this is: a typed client of a few dozen calls, each with a deadline, and errors that say whether a change that
//! failed may have happened all the same.
//! Why it exists: the hand that stops (power through Ironic) and the hand that moves (ports, volumes) both need it and
//! do not know each other (docs/adr/0022).
//! What it never does: decide, repeat a change whose end is unknown, send one without a permit (R5), follow a redirect or
//! an address in an answer, or show a secret.
//!
//! Facts about the services are from Ironic 39.0, Neutron 29.0, Cinder 29.0 and Keystone 30.0 as observed; recorded
//! requests and answers are in `testdata/`.

mod auth;
mod baremetal;
mod catalog;
mod error;
mod exchange;
mod identity;
mod ids;
mod network;
mod session;
mod version;
mod volume;

pub use auth::{Credentials, Domain, Reference, Scope};
pub use baremetal::{
    Allocation, AllocationState, AllocationWish, Baremetal, BootDevice, ConfigDrive, Everything,
    InstanceInfo, LinkConnection, Node, NodeFilter, NodePort, PortGroup, PowerState, PowerTarget,
    ProvisionState, ProvisionTarget, Unread, Validation, VolumeConnector, VolumeTarget, VolumeTargetWish,
};
pub use catalog::Service;
pub use error::{CallError, Cause, No};
pub use exchange::pause;
pub use identity::Subject;
pub use ids::{
    AllocationName, AllocationUuid, AttachmentId, BadId, ConnectorUuid, NodeUuid, PortId, PortUuid,
    ProjectId, SnapshotId, TargetUuid, VolumeId,
};
pub use network::{FixedIp, Network, Port, PortChange, Revision, SubPort, Trunk};
pub use session::{Admission, Cloud, Settings};
pub use version::Microversion;
pub use volume::{
    Attachment, AttachmentState, Connector, IscsiTarget, Peer, Snapshot, SnapshotState, Volume, VolumeState,
    Volumes,
};

/// How the reason of a maintenance begins that a fence of ours has set, before the token of that fence.
pub const FENCED_BY: &str = "fenced by ha-supervisord";
