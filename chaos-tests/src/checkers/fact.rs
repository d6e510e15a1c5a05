//! What happened: in the world, and in the program.
//!
//! Why it exists: whoever judges a run, simulated or real, needs the same few facts.
//! What it never does: say whether it was right.

use policies::{
    Action, ClusterState, Epoch, InstanceId, LogIndex, MemberId, NodeId, Proposal, SnapshotName, VolumeId,
};
use provisioning::Wish;
use std::fmt;
use std::sync::Arc;

/// What is done to a device; an [`Action`] without the names of providers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// Switch off.
    PowerOff {
        /// Which node.
        node: NodeId,
    },
    /// Ask its system to shut down.
    ShutDown {
        /// Which node.
        node: NodeId,
    },
    /// Interrupt its kernel.
    Interrupt {
        /// Which node.
        node: NodeId,
    },
    /// Switch on.
    PowerOn {
        /// Which node.
        node: NodeId,
    },
    /// Take the volume away.
    Revoke {
        /// From which node.
        node: NodeId,
        /// Which volume.
        volume: VolumeId,
    },
    /// Keep the volume's state.
    Snapshot {
        /// Which volume.
        volume: VolumeId,
        /// As what.
        name: SnapshotName,
    },
    /// Give the volume.
    Attach {
        /// To which node.
        node: NodeId,
        /// Which volume.
        volume: VolumeId,
    },
    /// Close the port.
    Close {
        /// Of which node.
        node: NodeId,
    },
    /// Open the port.
    Open {
        /// Of which node.
        node: NodeId,
        /// Into which network.
        vlan: u16,
    },
    /// Let it boot.
    Boot {
        /// Which node.
        node: NodeId,
        /// What.
        instance: InstanceId,
        /// In which placement.
        epoch: Epoch,
    },
}

impl Deed {
    /// A provider's wish, where initiators and ports are named after their nodes.
    pub fn of(wish: &Wish) -> Option<Deed> {
        let node = |name: &str| {
            let node = name.parse();
            #[expect(
                clippy::expect_used,
                reason = "whoever describes the nodes names initiators and ports so"
            )]
            node.expect("an initiator or port named after its node")
        };
        Some(match wish {
            // The simulated world has no cloud.
            Wish::VifAttached { .. } | Wish::Claimed { .. } | Wish::Cleaned { .. } => return None,
            Wish::Revoked { volume, holder } => Deed::Revoke { node: node(holder), volume: volume.clone() },
            Wish::Attached { volume, holder, index: _ } => {
                Deed::Attach { node: node(holder), volume: volume.clone() }
            }
            Wish::Snapshot { volume, name, .. } => Deed::Snapshot { volume: volume.clone(), name: *name },
            Wish::PortClosed { port, holder: _ } => Deed::Close { node: node(port) },
            Wish::PortOpen { port, vlan, .. } => Deed::Open { node: node(port), vlan: *vlan },
            Wish::Boots { node, instance, epoch, .. } => {
                Deed::Boot { node: node.clone(), instance: instance.clone(), epoch: *epoch }
            }
        })
    }

    /// What an action does, if it does anything.
    pub fn by(action: &Action) -> Option<Deed> {
        Some(match action.clone() {
            // The simulated world has no cloud.
            Action::Diagnose { .. }
            | Action::AttachVif { .. }
            | Action::Claim { .. }
            | Action::Clean { .. } => return None,
            Action::Interrupt { node } => Deed::Interrupt { node },
            Action::ShutDown { node } => Deed::ShutDown { node },
            Action::PowerOff { node, .. } => Deed::PowerOff { node },
            Action::PowerOn { node } => Deed::PowerOn { node },
            Action::Revoke { node, volume, .. } => Deed::Revoke { node, volume },
            Action::Snapshot { volume, name, .. } => Deed::Snapshot { volume, name },
            Action::Attach { node, volume, .. } => Deed::Attach { node, volume },
            Action::ClosePort { node, .. } => Deed::Close { node },
            Action::OpenPort { node, vlan, .. } => Deed::Open { node, vlan },
            Action::SetBoot { node, instance, epoch, .. } => Deed::Boot { node, instance, epoch },
        })
    }

    /// Whom it touches, if anybody.
    pub fn node(&self) -> Option<&NodeId> {
        match self {
            Deed::Snapshot { .. } => None,
            Deed::PowerOff { node }
            | Deed::ShutDown { node }
            | Deed::Interrupt { node }
            | Deed::PowerOn { node }
            | Deed::Revoke { node, .. }
            | Deed::Attach { node, .. }
            | Deed::Close { node }
            | Deed::Open { node, .. }
            | Deed::Boot { node, .. } => Some(node),
        }
    }

    /// The thing at the device that a token is compared for.
    pub fn object(&self) -> String {
        match self {
            Deed::PowerOff { node }
            | Deed::ShutDown { node }
            | Deed::Interrupt { node }
            | Deed::PowerOn { node } => format!("power of {node}"),
            Deed::Revoke { volume, .. } | Deed::Snapshot { volume, .. } | Deed::Attach { volume, .. } => {
                format!("volume {volume}")
            }
            Deed::Close { node } | Deed::Open { node, .. } => format!("port of {node}"),
            Deed::Boot { instance, .. } => format!("role of {instance}"),
        }
    }

    /// True if it gives something to the node.
    pub fn gives(&self) -> bool {
        match self {
            Deed::PowerOff { .. }
            | Deed::ShutDown { .. }
            | Deed::Interrupt { .. }
            | Deed::Revoke { .. }
            | Deed::Close { .. }
            | Deed::Snapshot { .. } => false,
            Deed::PowerOn { .. } | Deed::Attach { .. } | Deed::Open { .. } | Deed::Boot { .. } => true,
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deed::PowerOff { node } => write!(f, "power off {node}"),
            Deed::ShutDown { node } => write!(f, "ask {node} to shut down"),
            Deed::Interrupt { node } => write!(f, "interrupt {node}"),
            Deed::PowerOn { node } => write!(f, "power on {node}"),
            Deed::Revoke { node, volume } => write!(f, "revoke {volume} from {node}"),
            Deed::Snapshot { volume, name } => write!(f, "keep {volume} as snapshot {name}"),
            Deed::Attach { node, volume } => write!(f, "attach {volume} to {node}"),
            Deed::Close { node } => write!(f, "close the port of {node}"),
            Deed::Open { node, vlan } => write!(f, "open the port of {node} into vlan {vlan}"),
            Deed::Boot { node, instance, epoch } => write!(f, "let {node} boot {instance} {epoch}"),
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A node gained or lost power.
    Power {
        /// Which.
        node: NodeId,
        /// Which of the two.
        on: bool,
    },
    /// Writes of a node to a volume arrive from now on, or do no longer.
    Session {
        /// Which node.
        node: NodeId,
        /// Which volume.
        volume: VolumeId,
        /// Which of the two.
        open: bool,
    },
    /// A node's port leads into a network, or nowhere.
    Port {
        /// Whose.
        node: NodeId,
        /// Where.
        vlan: Option<u16>,
    },
    /// A command left a member.
    Sent {
        /// Whom.
        member: MemberId,
        /// What.
        deed: Deed,
        /// Under which token, where the device takes one.
        token: Option<LogIndex>,
    },
    /// A command took effect.
    Struck {
        /// What.
        deed: Deed,
    },
    /// A BMC told a member how its node's power is.
    Looked {
        /// Whom.
        member: MemberId,
        /// Of which node.
        node: NodeId,
        /// What it said.
        on: bool,
    },
    /// A member's life began.
    Started {
        /// Which.
        member: MemberId,
        /// Which life.
        life: u64,
    },
    /// A member's life ended.
    Died {
        /// Which.
        member: MemberId,
        /// How, and what it said.
        how: String,
    },
    /// A member applied an entry.
    Applied {
        /// Which.
        member: MemberId,
        /// The entry's place.
        index: LogIndex,
        /// The entry.
        proposal: Arc<Proposal>,
    },
    /// A member took over a whole state.
    Installed {
        /// Which.
        member: MemberId,
        /// The state.
        state: Arc<ClusterState>,
    },
    /// A client asked for something.
    Asked {
        /// Its number.
        request: u64,
        /// What.
        what: Request,
    },
    /// A client was answered.
    Answered {
        /// The request's number.
        request: u64,
        /// What.
        answer: Answer,
    },
    /// Somebody made trouble, or ended it.
    Trouble {
        /// In words.
        what: String,
    },
}

/// What a client wants.
#[derive(Clone, Debug)]
pub enum Request {
    /// Put this into the log.
    Propose(Arc<Proposal>),
    /// Read the newest state.
    Read,
}

/// What a client got.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Its entry is in the log, there.
    Committed(LogIndex),
    /// The state as of this entry.
    State(LogIndex),
    /// It was certainly not done.
    Failed,
    /// Nobody knows.
    Unknown,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on_off = |on: &bool| if *on { "on" } else { "off" };
        match self {
            Fact::Power { node, on } => write!(f, "world  {node} is {}", on_off(on)),
            Fact::Session { node, volume, open: true } => write!(f, "world  {node} can write {volume}"),
            Fact::Session { node, volume, open: false } => {
                write!(f, "world  {node} can no longer write {volume}")
            }
            Fact::Port { node, vlan: Some(vlan) } => write!(f, "world  {node} is in vlan {vlan}"),
            Fact::Port { node, vlan: None } => write!(f, "world  {node} is in no network"),
            Fact::Sent { member, deed, token: Some(token) } => write!(f, "{member} do  {deed} ({token})"),
            Fact::Sent { member, deed, token: None } => write!(f, "{member} do  {deed}"),
            Fact::Struck { deed } => write!(f, "world  {deed}: takes effect"),
            Fact::Looked { member, node, on } => write!(f, "{member} sees {node} {}", on_off(on)),
            Fact::Started { member, life } => write!(f, "{member} starts (life {life})"),
            Fact::Died { member, how } => write!(f, "{member} dies: {how}"),
            Fact::Applied { member, index, proposal } => {
                let command = &proposal.command;
                write!(f, "{member} log {index} by {} at {}: {command:?}", proposal.by, proposal.at.0)
            }
            Fact::Installed { member, state } => write!(f, "{member} has the state of {}", state.applied),
            Fact::Asked { request, what: Request::Propose(proposal) } => {
                write!(f, "client asks #{request}: {:?}", proposal.command)
            }
            Fact::Asked { request, what: Request::Read } => write!(f, "client asks #{request}: read"),
            Fact::Answered { request, answer } => write!(f, "client is told #{request}: {answer:?}"),
            Fact::Trouble { what } => write!(f, ">  {what}"),
        }
    }
}
