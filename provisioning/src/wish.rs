//! What is wished for at a provider.
//!
//! What this is: an action of a plan in the words that storage, networks and boot services understand.
//! Why it exists: actions name nodes, storage names initiators; both are brought together once, at the edge.
//! What it never does: it knows no particular provider.

use policies::{Action, Epoch, InstanceId, NodeId, Refusal, SnapshotName, VolumeId, vlans};
use std::collections::BTreeSet;
use std::fmt;

/// A state that a provider is to be in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The holder has no right to the volume and no live session with it (R3).
    Revoked {
        /// The volume.
        volume: VolumeId,
        /// Who must not have it, by the name that the provider knows.
        holder: String,
    },
    /// The holder, and no other, has the right to the volume.
    Attached {
        /// The volume.
        volume: VolumeId,
        /// Who must have it, by the name that the provider knows.
        holder: String,
        /// Its place among the holder's volumes; 0: the one that it starts from.
        index: u32,
    },
    /// There is a snapshot of the volume with this name: for a failover made while nobody could write to the volume, for a
    /// backup of one moment, whoever was writing.
    Snapshot {
        /// The volume.
        volume: VolumeId,
        /// The snapshot.
        name: SnapshotName,
        /// How many of our snapshots of that kind the volume has at most once it was made.
        keep: u32,
    },
    /// The port passes nothing (R9).
    PortClosed {
        /// The port's name at the provider.
        port: String,
        /// The node behind it, if the provider knows it by a name.
        holder: Option<String>,
    },
    /// The port passes the instance's network.
    PortOpen {
        /// The port's name at the provider.
        port: String,
        /// VLAN id, untagged.
        vlan: u16,
        /// Further VLANs, tagged.
        tagged: BTreeSet<u16>,
        /// The MAC address that moves along.
        mac: Option<String>,
    },
    /// The node's NIC, and no other, has a port of the cloud's network.
    VifAttached {
        /// The NIC's name at the provider.
        port: String,
        /// Neutron's port.
        vif: String,
        /// The node, by the name that the provider knows.
        holder: String,
    },
    /// The node's next start boots the instance in this epoch.
    Boots {
        /// The node.
        node: NodeId,
        /// The same, if the provider knows it by a name.
        holder: Option<String>,
        /// The instance.
        instance: InstanceId,
        /// The boot source.
        image: String,
        /// The placement for which it is valid.
        epoch: Epoch,
    },
    /// The node, a spare, is kept for us.
    Claimed {
        /// The node.
        node: NodeId,
        /// The same, by the name that the provider knows.
        holder: String,
    },
    /// The node has nothing, was erased, and is free.
    Cleaned {
        /// The node, by the name that the provider knows.
        holder: String,
    },
}

impl Wish {
    /// Translates an action. `known_as` is the name by which the provider knows the action's node.
    ///
    /// # Errors
    /// [`Refusal::NotConfigured`] if the action is no provider's work, or the node has no name there and needs one.
    pub fn new(action: &Action, known_as: Option<&str>) -> Result<Self, Refusal> {
        let known = || known_as.map(str::to_owned);
        let holder = |node: &NodeId| {
            let why = || {
                format!("node {node} has no name that the provider knows: no initiator, no node of the cloud")
            };
            known().ok_or_else(|| Refusal::NotConfigured(why()))
        };
        match action {
            Action::Revoke { node, volume, .. } => {
                Ok(Wish::Revoked { volume: volume.clone(), holder: holder(node)? })
            }
            Action::Attach { node, volume, index, .. } => {
                Ok(Wish::Attached { volume: volume.clone(), holder: holder(node)?, index: *index })
            }
            Action::Snapshot { volume, name, keep, .. } => {
                Ok(Wish::Snapshot { volume: volume.clone(), name: *name, keep: *keep })
            }
            Action::ClosePort { port, .. } => Ok(Wish::PortClosed { port: port.clone(), holder: known() }),
            Action::AttachVif { node, port, vif, .. } => {
                Ok(Wish::VifAttached { port: port.clone(), vif: vif.clone(), holder: holder(node)? })
            }
            Action::OpenPort { port, vlan, tagged, mac, .. } => Ok(Wish::PortOpen {
                port: port.clone(),
                vlan: *vlan,
                tagged: tagged.clone(),
                mac: mac.clone(),
            }),
            Action::SetBoot { node, instance, image, epoch, .. } => Ok(Wish::Boots {
                node: node.clone(),
                holder: known(),
                instance: instance.clone(),
                image: image.clone(),
                epoch: *epoch,
            }),
            Action::Claim { node, .. } => Ok(Wish::Claimed { node: node.clone(), holder: holder(node)? }),
            Action::Clean { node, .. } => Ok(Wish::Cleaned { holder: holder(node)? }),
            Action::ShutDown { .. }
            | Action::Diagnose { .. }
            | Action::PowerOff { .. }
            | Action::PowerOn { .. }
            | Action::Interrupt { .. } => Err(Refusal::NotConfigured(format!("no provider can {action}"))),
        }
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wish::Revoked { volume, holder } => write!(f, "revoke {volume} from {holder}"),
            Wish::Attached { volume, holder, .. } => write!(f, "attach {volume} to {holder}"),
            Wish::Snapshot { volume, name, .. } => write!(f, "keep {volume} as snapshot {name}"),
            Wish::VifAttached { port, vif, holder } => write!(f, "attach VIF {vif} to {port} of {holder}"),
            Wish::PortClosed { port, .. } => write!(f, "close port {port}"),
            Wish::PortOpen { port, vlan, tagged, .. } => {
                write!(f, "open port {port} into vlan {}", vlans(*vlan, tagged))
            }
            Wish::Claimed { holder, .. } => write!(f, "claim {holder}"),
            Wish::Cleaned { holder } => write!(f, "clean {holder}"),
            Wish::Boots { node, instance, epoch, .. } => write!(f, "let {node} boot {instance} {epoch}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::ProviderId;

    #[test]
    fn volumes_need_an_initiator_and_power_is_no_providers_work() {
        let node: NodeId = "n1".parse().unwrap();
        let provider: ProviderId = "array".parse().unwrap();
        let volume: VolumeId = "v1".parse().unwrap();
        let revoke = Action::Revoke { node: node.clone(), provider, volume: volume.clone() };
        let wish = Wish::new(&revoke, Some("iqn.n1")).unwrap();
        assert_eq!(wish, Wish::Revoked { volume, holder: "iqn.n1".to_owned() });
        assert!(matches!(Wish::new(&revoke, None), Err(Refusal::NotConfigured(why)) if why.contains("n1")));
        assert!(matches!(Wish::new(&Action::PowerOn { node }, Some("x")), Err(Refusal::NotConfigured(_))));
    }
}
