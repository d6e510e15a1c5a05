//! What goes wrong, and what people do. Values only; drawn before anything happens.
//!
//! Why it exists: a list of troubles can be printed, cut down to the few that matter, and played again.
//! What it never does: happen; that is `trouble.rs`.

use super::array::Manner;
use super::machine::Mood;
use super::world::Death;
use policies::{MemberId, Millis, NodeId};
use std::fmt;

/// One trouble. Times are in ms.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each line above a variant names its fields")]
pub enum Fault {
    /// A member's life ends; the next begins later.
    Die { member: MemberId, death: Death, down: u64 },
    /// It ends right after this many more syncs to disk.
    DieAfterSyncs { member: MemberId, syncs: u64, death: Death, down: u64 },
    /// It ends right after this many more commands to devices.
    DieAfterSends { member: MemberId, sends: u64, death: Death, down: u64 },
    /// A member runs no instruction (SIGSTOP).
    Pause { member: MemberId, length: u64 },
    /// The member that is the next but so many to come to this moment is struck in it.
    Trap { moment: Moment, skips: u64, blow: Blow, length: u64 },
    /// Of 1,000 commands to devices so many are carried out a second time, as late as possible.
    Echo { in_thousand: u64, length: u64 },
    /// A member's machine sleeps: only CLOCK_BOOTTIME goes on.
    Suspend { member: MemberId, length: u64 },
    /// A member's clock runs at another rate, in millionths.
    Rate { member: MemberId, rate: u64 },
    /// A member's wall clock jumps ahead.
    WallClock { member: MemberId, ahead: u64 },
    /// Nothing passes from one member to the other, in this direction.
    OneWay { from: MemberId, to: MemberId, length: u64 },
    /// Nothing passes between a member and the others.
    Isolate { member: MemberId, length: u64 },
    /// Packets are lost and late everywhere.
    Lossy { in_thousand: u64, delay: u64, length: u64 },
    /// A member's disk is slow.
    SlowDisk { member: MemberId, pace: u64, length: u64 },
    /// Every operation of a member's disk fails; later it has another disk cable.
    FailingDisk { member: MemberId, full: bool, down: u64 },
    /// A member's disk says that it has synced and has not; then its machine loses power. It may start again, but never
    /// reaches the others: Raft has no answer to a voter that forgets.
    LyingDisk { member: MemberId, length: u64 },
    /// A member's machine loses power, and bytes on its disk change before it starts again.
    Rot { member: MemberId, bytes: u64, down: u64 },
    /// A node's kernel stops; later it goes on as if nothing had been, if it still has power.
    Hang { node: NodeId, length: u64 },
    /// A node's agent stops, its kernel answers.
    AgentDies { node: NodeId, length: u64 },
    /// A node's kernel panics.
    Panic { node: NodeId },
    /// A node loses power; maybe its BMC with it.
    PowerLoss { node: NodeId, with_bmc: bool },
    /// A node's network card is cut off.
    Nic { node: NodeId, length: u64 },
    /// Nothing passes between a node and one member.
    Deaf { node: NodeId, member: MemberId, length: u64 },
    /// Nothing passes between one member and all nodes.
    DeafToAll { member: MemberId, length: u64 },
    /// A BMC behaves so.
    Bmc { node: NodeId, mood: Mood, length: u64 },
    /// A node switches itself on, or somebody does.
    SelfBoot { node: NodeId },
    /// A node does not boot any more when it is switched on.
    WontBoot { node: NodeId, length: u64 },
    /// Storage (0), switch (1) or boot service (2) behaves so.
    Provider { device: usize, manner: Manner, length: u64 },
    /// An operator does something.
    Order(Order),
}

/// A moment in which a trouble shows most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A provider was asked, and its answer will be acted on.
    Asked,
    /// A command to a device has left.
    Sent,
}

/// What strikes a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// It runs no instruction.
    Pause,
    /// Nothing passes between it and the others, and the device answers it late.
    CutOff,
    /// Its process ends.
    Kill,
}

/// What operators do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Move an instance, by its number.
    Evacuate(u64),
    /// Move what a node carries politely.
    Drain {
        /// Which.
        node: NodeId,
        /// How long its system has to shut down.
        shutdown: Millis,
    },
    /// Keep what is on an instance's volumes, by its number.
    Backup(u64),
    /// Fence a node.
    Fence(NodeId),
    /// Call off whatever failover runs.
    CancelAny,
    /// Let every quarantined node return.
    ReleaseAll,
    /// Fence the node that an instance has moved to last, as soon as it is there, again and again.
    Chase {
        /// Until then.
        length: u64,
    },
    /// Let every quarantined node return at once, and move instances as soon as they are where they belong.
    Hurry {
        /// Until then.
        length: u64,
    },
    /// Vouch for every node that is being fenced and really is off.
    ConfirmOff,
    /// Disarm, and arm again later.
    Disarm {
        /// Until then.
        length: u64,
    },
    /// Hands off a node.
    Maintain {
        /// Which.
        node: NodeId,
        /// Until then.
        length: u64,
    },
    /// No new instance for a node.
    Cordon {
        /// Which.
        node: NodeId,
        /// Until then.
        length: u64,
    },
    /// Change brakes and accepted proofs.
    Policy {
        /// The new limit of fences at a time.
        fences_in_flight_max: u32,
        /// Whether isolation alone becomes a proof.
        isolation_alone: bool,
    },
    /// Hand leadership to a member.
    Transfer(MemberId),
    /// Let a new member in and the old one out.
    Replace {
        /// The one that leaves.
        old: MemberId,
        /// The one that comes, with an empty disk.
        new: MemberId,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{self:?}");
        f.write_str(&text.replace("MemberId(", "").replace(" { ", " ").replace(" }", ""))
    }
}
