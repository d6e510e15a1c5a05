//! What is done to the world, and what its end taught us. Values only; carrying out is the body's work.

use crate::snapshot::SnapshotName;
use crate::words::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// What a step does to the world. Each action names its object completely: a successor can carry it out
/// without choosing anything (R1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Action {
    /// Ask the node's system to shut down, through the first fencing level (IPMI 2.0 §28.3), and see the node off. Polite,
    /// asked once, and no part of a proof: a fence follows however it ends.
    ShutDown {
        /// The node to be off.
        node: NodeId,
    },
    /// Read from its BMC, at the first fencing level, what may tell why the node died. Changes nothing.
    Diagnose {
        /// The node.
        node: NodeId,
    },
    /// Prove by fencing level `level` (0 is the first) that the node is off. Only ever off; never reset or cycle (R2).
    PowerOff {
        /// The node to be off.
        node: NodeId,
        /// Index into its fencing topology.
        level: usize,
    },
    /// Take the node's right to the volume away and drop its live sessions (R3).
    Revoke {
        /// The node that loses it.
        node: NodeId,
        /// The storage provider.
        provider: ProviderId,
        /// The volume.
        volume: VolumeId,
    },
    /// Close the node's switch port (R9).
    ClosePort {
        /// The node behind the port.
        node: NodeId,
        /// The network provider.
        provider: ProviderId,
        /// The port there.
        port: String,
    },
    /// Keep the state of the volume as a snapshot of this name: of one that nobody writes to now, before the node gets it; or,
    /// for a backup, of one that the node may be writing to. Older snapshots of ours of that kind go. Asked once, and no part
    /// of a proof: a failover goes on however it ends.
    Snapshot {
        /// The node that gets the volume after it; for a backup, that has it.
        node: NodeId,
        /// The storage provider.
        provider: ProviderId,
        /// The volume.
        volume: VolumeId,
        /// The snapshot.
        name: SnapshotName,
        /// How many snapshots of ours of that kind the volume has afterwards at most, this one included.
        keep: u32,
    },
    /// Give the node, and only this node, the volume.
    Attach {
        /// The node that gets it.
        node: NodeId,
        /// The storage provider.
        provider: ProviderId,
        /// The volume.
        volume: VolumeId,
        /// Its place among the instance's volumes; 0: the one that it starts from.
        #[serde(default, skip_serializing_if = "is_first")]
        index: u32,
    },
    /// Open the node's switch port into the instance's network.
    OpenPort {
        /// The node behind the port.
        node: NodeId,
        /// The network provider.
        provider: ProviderId,
        /// The port there.
        port: String,
        /// VLAN id, untagged.
        vlan: u16,
        /// Further VLANs that it passes, tagged (IEEE 802.1Q).
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        tagged: BTreeSet<u16>,
        /// The MAC address that moves along.
        mac: Option<String>,
    },
    /// Give the node's NIC, and only this one, a port of the cloud's network, with its addresses and security groups.
    AttachVif {
        /// The node that gets it.
        node: NodeId,
        /// The cloud.
        provider: ProviderId,
        /// The NIC (or LAG) there.
        port: String,
        /// Neutron's port.
        vif: String,
    },
    /// Make the node's next start boot this instance in this epoch.
    SetBoot {
        /// The node that will boot.
        node: NodeId,
        /// The boot provider.
        provider: ProviderId,
        /// The instance.
        instance: InstanceId,
        /// The boot source.
        image: String,
        /// The placement for which it is valid; a node with an older epoch gets nothing.
        epoch: Epoch,
    },
    /// Switch the node on.
    PowerOn {
        /// The node.
        node: NodeId,
    },
    /// Have the cloud that owns the node keep it for us, a spare, and give it to nobody else.
    Claim {
        /// The node.
        node: NodeId,
        /// The cloud.
        provider: ProviderId,
    },
    /// Have the cloud that owns the node take away what it was given and erase it, and see it free.
    Clean {
        /// The node.
        node: NodeId,
        /// The cloud.
        provider: ProviderId,
    },
    /// Send the node's kernel a diagnostic interrupt (NMI, IPMI 2.0 §28.3), on which it dumps and dies. Sent once, and no
    /// part of a proof.
    Interrupt {
        /// The node.
        node: NodeId,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if wants a reference")]
fn is_first(index: &u32) -> bool {
    *index == 0
}

impl Action {
    /// The node that the action touches.
    pub fn node(&self) -> &NodeId {
        match self {
            Action::ShutDown { node }
            | Action::Diagnose { node }
            | Action::PowerOff { node, .. }
            | Action::Revoke { node, .. }
            | Action::ClosePort { node, .. }
            | Action::Snapshot { node, .. }
            | Action::Attach { node, .. }
            | Action::OpenPort { node, .. }
            | Action::AttachVif { node, .. }
            | Action::SetBoot { node, .. }
            | Action::PowerOn { node }
            | Action::Claim { node, .. }
            | Action::Clean { node, .. }
            | Action::Interrupt { node } => node,
        }
    }
}

impl Action {
    /// What it does to its node.
    pub(crate) fn bearing(&self) -> Bearing {
        match self {
            Action::ShutDown { .. }
            | Action::PowerOff { .. }
            | Action::Revoke { .. }
            | Action::ClosePort { .. }
            | Action::Clean { .. }
            | Action::Interrupt { .. } => Bearing::Takes,
            Action::Attach { .. }
            | Action::OpenPort { .. }
            | Action::AttachVif { .. }
            | Action::SetBoot { .. }
            | Action::PowerOn { .. } => Bearing::Gives,
            Action::Diagnose { .. } | Action::Snapshot { .. } | Action::Claim { .. } => Bearing::Reads,
        }
    }

    /// True if this reading shows that the wished-for state is there (R2: two readings of off, nothing else).
    pub(crate) fn is_shown_by(&self, seen: &Seen) -> bool {
        match self {
            Action::ShutDown { .. } | Action::PowerOff { .. } => matches!(seen, Seen::OffTwice { .. }),
            Action::Diagnose { .. } => matches!(seen, Seen::Diagnosed(_)),
            Action::PowerOn { .. } => *seen == Seen::On,
            Action::Interrupt { .. } => *seen == Seen::Accepted,
            Action::Revoke { .. }
            | Action::ClosePort { .. }
            | Action::Snapshot { .. }
            | Action::Attach { .. }
            | Action::OpenPort { .. }
            | Action::AttachVif { .. }
            | Action::Claim { .. }
            | Action::Clean { .. }
            | Action::SetBoot { .. } => matches!(seen, Seen::ReadBack(_)),
        }
    }

    /// True if `other`, on the same node, gives back what this action takes.
    pub(crate) fn is_undone_by(&self, other: &Action) -> bool {
        matches!(
            (self, other),
            (Action::ShutDown { .. } | Action::PowerOff { .. }, Action::PowerOn { .. })
                | (Action::Revoke { .. }, Action::Attach { .. })
                | (Action::ClosePort { .. }, Action::OpenPort { .. } | Action::AttachVif { .. })
        )
    }
}

/// What an action does to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bearing {
    /// It takes something from the node.
    Takes,
    /// It gives it something.
    Gives,
    /// It changes nothing that a node does or has, as whoever looks: no late copy of it can do harm.
    Reads,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::ShutDown { node } => write!(f, "ask {node} to shut down"),
            Action::Diagnose { node } => write!(f, "read why {node} died"),
            Action::PowerOff { node, level } => write!(f, "power off {node} (level {})", level + 1),
            Action::Revoke { node, volume, .. } => write!(f, "revoke {volume} from {node}"),
            Action::ClosePort { node, port, .. } => write!(f, "close port {port} of {node}"),
            Action::Snapshot { volume, name, .. } => write!(f, "keep {volume} as snapshot {name}"),
            Action::Attach { node, volume, .. } => write!(f, "attach {volume} to {node}"),
            Action::OpenPort { node, port, vlan, tagged, .. } => {
                write!(f, "open port {port} of {node} into vlan {}", vlans(*vlan, tagged))
            }
            Action::AttachVif { node, port, vif, .. } => write!(f, "attach VIF {vif} to {port} of {node}"),
            Action::SetBoot { node, instance, epoch, .. } => write!(f, "let {node} boot {instance} {epoch}"),
            Action::PowerOn { node } => write!(f, "power on {node}"),
            Action::Claim { node, provider } => write!(f, "claim {node} at {provider}"),
            Action::Clean { node, provider } => write!(f, "clean {node} by {provider}"),
            Action::Interrupt { node } => write!(f, "interrupt {node} (NMI)"),
        }
    }
}

/// The VLANs of one port in short, the untagged one first: `10 +20 +30`.
pub fn vlans(untagged: impl fmt::Display, tagged: &BTreeSet<u16>) -> String {
    let tagged: String = tagged.iter().map(|vlan| format!(" +{vlan}")).collect();
    format!("{untagged}{tagged}")
}

/// A committed intent on its way to the world. May start twice and may start late: doing it again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Log index of its intent (R8): greater tokens win where a device can compare them.
    pub token: LogIndex,
    /// The failover that it belongs to; `None`: an operator ordered it, by hand or as a backup, or the cluster looks after a node.
    pub plan: Option<PlanId>,
    /// What to do.
    pub action: Action,
}

/// How an effect ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// We saw the wished-for state by reading back.
    Done(Seen),
    /// It did not happen and left nothing behind.
    Refused(Refusal),
    /// We cannot tell.
    Unknown(Doubt),
}

/// What was read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// Power read as off twice, the second time in a fresh exchange (R2).
    OffTwice {
        /// True if it was off before we did anything.
        already: bool,
        /// From the power-off command to the second reading; 0 if already off.
        took: Millis,
    },
    /// Power read as on.
    On,
    /// The device says that it did it, and nothing can be read back that would show it. Proves nothing.
    Accepted,
    /// What the BMC tells of the node's past, a line each, newest first.
    Diagnosed(Arc<[String]>),
    /// The wished-for state was read back from the provider, in the provider's words.
    ReadBack(String),
}

/// Why the executor, a driver or a provider did not do it. It certainly did not happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The lease of this leadership is over or too short (R5).
    LeaseEnded,
    /// The failover no longer wanted it when it was about to be sent.
    Withdrawn,
    /// The BMC is another machine's.
    WrongIdentity {
        /// From the inventory.
        expected: String,
        /// From the BMC.
        found: String,
    },
    /// No session: wrong user, password, or cipher suite.
    NotAdmitted(String),
    /// Nothing at the address answered.
    Unreachable(String),
    /// The device said no.
    DeviceRefused(String),
    /// The device has seen a newer token.
    TokenTooOld {
        /// Ours.
        ours: LogIndex,
        /// The device's.
        newest: LogIndex,
    },
    /// Someone else holds it exclusively.
    HeldByOther(String),
    /// The inventory names no such device, level or provider, or its secret does not open.
    NotConfigured(String),
}

impl Refusal {
    /// True if the command was never sent, so that no copy of it can be on its way. What a device refused was sent,
    /// and a network may deliver a packet twice: the device that said no to the first copy may obey the second.
    pub(crate) fn is_unsent(&self) -> bool {
        match self {
            Refusal::LeaseEnded
            | Refusal::Withdrawn
            | Refusal::WrongIdentity { .. }
            | Refusal::NotAdmitted(_)
            | Refusal::Unreachable(_)
            | Refusal::NotConfigured(_) => true,
            Refusal::DeviceRefused(_) | Refusal::TokenTooOld { .. } | Refusal::HeldByOther(_) => false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::LeaseEnded => write!(f, "the leader's lease ended before the command could be sent"),
            Refusal::Withdrawn => write!(f, "it was no longer wanted when it was about to be sent"),
            Refusal::WrongIdentity { expected, found } => {
                write!(f, "the BMC is another machine's: inventory says {expected}, BMC says {found}")
            }
            Refusal::NotAdmitted(why) => write!(f, "no session: {why}"),
            Refusal::Unreachable(what) => write!(f, "unreachable: {what}"),
            Refusal::DeviceRefused(why) => write!(f, "the device refused: {why}"),
            Refusal::TokenTooOld { ours, newest } => {
                write!(f, "the device has seen a newer command: ours {ours}, newest {newest}")
            }
            Refusal::HeldByOther(who) => write!(f, "held by {who}"),
            Refusal::NotConfigured(what) => write!(f, "not configured: {what}"),
        }
    }
}

/// Why we cannot tell what happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// The command may have been received, but no answer came in time.
    NoAnswer {
        /// How long we waited.
        waited: Millis,
    },
    /// The device accepted the command, but the state never read back as wished.
    NotSeen {
        /// How long we looked.
        waited: Millis,
        /// The last reading.
        last: String,
    },
    /// The device accepted the command and said later that it had failed. How far it came nobody knows.
    Failed {
        /// How long we looked.
        waited: Millis,
        /// What it says.
        last: String,
    },
    /// The leadership that was to do it has ended, and no other does it again.
    LeadershipEnded,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::NoAnswer { waited } => write!(f, "no answer in {waited}"),
            Doubt::NotSeen { waited, last } => write!(f, "accepted, but after {waited} still reads {last}"),
            Doubt::Failed { waited, last } => write!(f, "accepted, and failed after {waited}: {last}"),
            Doubt::LeadershipEnded => {
                write!(f, "the leader changed before its end was recorded; it may have been done")
            }
        }
    }
}

/// Leave to send one effect. Asked when the effect starts and again right before the socket write, after the
/// last await (R5). The body implements it with the lease; drivers and providers only ask.
pub trait Permit: Send + Sync {
    /// `Ok` if the effect may be sent now.
    ///
    /// # Errors
    /// The refusal to report if it may not.
    fn check(&self) -> Result<(), Refusal>;

    /// The token of that effect (R8).
    fn token(&self) -> LogIndex;
}
