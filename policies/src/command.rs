//! Entries of the replicated log: the only thing that changes state. Applied in `apply.rs`.

use crate::capability::Capabilities;
use crate::effect::{Action, Outcome};
use crate::inventory::{Instance, Node};
use crate::plan::{Decision, Evidence, Phase, Verdict};
use crate::policy::{Acting, Backups, BadPolicy, Brakes, Detection, Fencing, Policy, Spares, Takeover};
use crate::provider::Provider;
use crate::select::Applies;
use crate::waiting::Waiting;
use crate::words::*;
use serde::{Deserialize, Serialize};

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Stamped by whoever proposed it; `apply` never asks for the time.
    pub at: Wall,
    /// Who wants it: `admin`, `token/prometheus`, `member/m1`.
    pub by: String,
    /// What is wanted.
    pub command: Command,
}

/// A document of `hactl apply -f`: everything in it is taken, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Documents {
    /// `[[provider]]`
    #[serde(default, rename = "provider", skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<Provider>,
    /// `[[node]]`
    #[serde(default, rename = "node", skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Node>,
    /// `[[instance]]`
    #[serde(default, rename = "instance", skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<Instance>,
    /// `[[policy]]`
    #[serde(default, rename = "policy", skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyDocument>,
}

/// A named policy in a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "PolicyTable", into = "PolicyTable")]
pub struct PolicyDocument {
    /// Its name.
    pub name: PolicyId,
    /// Its content.
    pub policy: Policy,
}

/// A policy as it is written: its name beside its sections. (Serde cannot refuse unknown keys beside a flattened field.)
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyTable {
    name: PolicyId,
    #[serde(default, skip_serializing_if = "Applies::is_empty")]
    applies: Applies,
    detection: Detection,
    fencing: Fencing,
    takeover: Takeover,
    brakes: Brakes,
    #[serde(default)]
    spares: Spares,
    #[serde(default)]
    acting: Acting,
    #[serde(default, skip_serializing_if = "Backups::is_default")]
    backups: Backups,
}

impl From<PolicyTable> for PolicyDocument {
    fn from(table: PolicyTable) -> Self {
        let PolicyTable { name, applies, detection, fencing, takeover, brakes, spares, acting, backups } =
            table;
        let policy = Policy { applies, detection, fencing, takeover, brakes, spares, acting, backups };
        PolicyDocument { name, policy }
    }
}

impl From<PolicyDocument> for PolicyTable {
    fn from(PolicyDocument { name, policy }: PolicyDocument) -> Self {
        let Policy { applies, detection, fencing, takeover, brakes, spares, acting, backups } = policy;
        PolicyTable { name, applies, detection, fencing, takeover, brakes, spares, acting, backups }
    }
}

/// What can be wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// An operator's remark, kept in the history.
    Note {
        /// The remark.
        text: String,
    },
    /// `hactl apply`: describe providers, nodes, instances, policies. All or nothing.
    Describe(Box<Documents>),
    /// `hactl policy set`.
    SetPolicy {
        /// Which policy; created if new.
        name: PolicyId,
        /// The whole new content.
        policy: Box<Policy>,
        /// Compare-and-set: the index of the version that was changed.
        check: Option<LogIndex>,
        /// Why.
        #[serde(default)]
        reason: String,
    },
    /// `hactl policy delete`.
    DeletePolicy {
        /// Which.
        name: PolicyId,
        /// Compare-and-set: the index of the version that was read.
        check: Option<LogIndex>,
        /// Why.
        reason: String,
    },
    /// `hactl node delete` and its like: take something out of the inventory.
    Delete {
        /// What.
        what: Object,
        /// Why.
        reason: String,
    },
    /// An order that takes cover away, given all the same (`--force`).
    Forced {
        /// The order; not every command can be one.
        order: Box<Command>,
        /// What it leaves without cover, as whoever gave it was told.
        gaps: Vec<String>,
    },
    /// Let the cluster act by itself.
    Arm {
        /// Why.
        reason: String,
    },
    /// Let the cluster watch and judge, but begin nothing by itself.
    Disarm {
        /// Why.
        reason: String,
        /// When it is armed again by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Wall>,
    },
    /// No new instance for this node.
    Cordon {
        /// Which.
        node: NodeId,
        /// True to cordon, false to lift it.
        on: bool,
    },
    /// Hands off this node, or hands on again.
    Maintain {
        /// Which.
        node: NodeId,
        /// The reason; `None` ends the maintenance.
        reason: Option<String>,
        /// When it ends by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Wall>,
    },
    /// Move an instance after a fence of its node, whatever the node's health.
    Evacuate {
        /// Which.
        instance: InstanceId,
        /// Why.
        reason: String,
    },
    /// Cordon a node and move its instance politely: its system is asked to shut down, and the node is fenced once it is
    /// off or its time is over.
    Drain {
        /// Which.
        node: NodeId,
        /// Why.
        reason: String,
        /// How long its system has to shut down.
        shutdown: Millis,
    },
    /// Fence a node, whatever its health. If it carries an instance, a failover follows.
    Fence {
        /// Which.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// An operator vouches that a node that is being fenced is off: replaces the power proof, not the isolation.
    ConfirmOff {
        /// Which.
        node: NodeId,
        /// How they know.
        reason: String,
    },
    /// Call a failover off; only before anything was done (R6).
    Cancel {
        /// Which.
        plan: PlanId,
        /// Why.
        reason: String,
    },
    /// Let a decided failover begin that waits for a human ([`crate::Mode::Approval`]).
    Approve {
        /// The instance that is to move.
        instance: InstanceId,
        /// Why.
        reason: String,
    },
    /// Let a quarantined node become a spare again, once every older command against it has drained.
    Release {
        /// Which.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// Do something to a node by hand, once. The order is its own intent (R1): its log index is the token.
    ByHand {
        /// Which.
        node: NodeId,
        /// What.
        hand: Hand,
        /// Why.
        reason: String,
    },
    /// Keep what is on an instance's volumes now, each as a snapshot, once. The leader records an intent for each ([`Step::Keep`]).
    Backup {
        /// Which.
        instance: InstanceId,
        /// Why.
        reason: String,
    },
    /// A new leader begins; its log index is the leadership epoch (R10).
    TookOver {
        /// Who.
        member: MemberId,
        /// Which life of it.
        boot: BootId,
    },
    /// What a leader decides. Applied only if that leadership is still the newest.
    Lead {
        /// The leadership that decided it.
        leader: LeaderEpoch,
        /// What it decided.
        step: Step,
    },
}

/// What an operator can do to a node by hand, through its first fencing level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hand {
    /// Switch it on.
    PowerOn,
    /// Switch it off, and see it off.
    PowerOff,
    /// Make its kernel dump and die.
    Interrupt,
}

impl Hand {
    /// The same as what is carried out.
    pub fn action(self, node: &NodeId) -> Action {
        let node = node.clone();
        match self {
            Hand::PowerOn => Action::PowerOn { node },
            Hand::PowerOff => Action::PowerOff { node, level: 0 },
            Hand::Interrupt => Action::Interrupt { node },
        }
    }
}

/// Something in the inventory, by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Object {
    /// A node.
    Node(NodeId),
    /// An instance.
    Instance(InstanceId),
    /// A provider.
    Provider(ProviderId),
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Object::Node(name) => write!(f, "node/{name}"),
            Object::Instance(name) => write!(f, "instance/{name}"),
            Object::Provider(name) => write!(f, "provider/{name}"),
        }
    }
}

/// What only a leader may put into the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The cluster's belief about a node has changed.
    Judge {
        /// Which.
        node: NodeId,
        /// The belief.
        verdict: Verdict,
        /// What it rests on.
        evidence: Evidence,
    },
    /// A failed node is not acted on, and why: a committed refusal.
    Withhold {
        /// Which.
        node: NodeId,
        /// Why.
        why: Waiting,
    },
    /// Make a plan: reserves the spare (R7).
    Begin(Box<Decision>),
    /// Make a plan for an instance whose takeover failed: fence the spare that was given up, go on with another (R4).
    Replace {
        /// The plan that is given up.
        plan: PlanId,
        /// The new choice; its `from` is the old plan's spare.
        decision: Box<Decision>,
    },
    /// A step is about to be carried out (R1). Its log index is the token of the effect.
    Intend {
        /// Of which plan.
        plan: PlanId,
        /// What exactly.
        action: Action,
    },
    /// A volume is about to be kept for a backup (R1). Its log index is the token of the effect.
    Keep {
        /// Whose backup.
        instance: InstanceId,
        /// What exactly; the backup is named in it.
        action: Action,
    },
    /// How it ended.
    Resolve {
        /// The intent.
        token: LogIndex,
        /// Its end.
        outcome: Outcome,
    },
    /// The proof is complete: the instance now belongs to the spare, under a new epoch.
    Place {
        /// Of which plan.
        plan: PlanId,
        /// How long power has been tried, on the leader's clock.
        tried: Millis,
    },
    /// The service was seen on the spare.
    Finish {
        /// Of which plan.
        plan: PlanId,
        /// What was seen.
        seen: String,
    },
    /// The plan needs a human, or does no longer (`None`).
    Stick {
        /// Which.
        plan: PlanId,
        /// The exact missing thing.
        why: Option<String>,
    },
    /// The time is over for which an operator disarmed the cluster (`None`) or put a node into maintenance.
    Lapse {
        /// Which node.
        node: Option<NodeId>,
    },
    /// A quarantined node is on, and about to be switched off. Its log index is the token of the effect.
    CutAgain {
        /// Which.
        node: NodeId,
    },
    /// The cloud that owns a spare is about to keep it for us. Its log index is the token of the effect.
    Claim {
        /// Which.
        node: NodeId,
    },
    /// The cloud that owns a released node is about to clean it. Its log index is the token of the effect.
    Clean {
        /// Which.
        node: NodeId,
    },
    /// A released node has drained, and was cleaned if it is a cloud's: it is a spare again.
    Cleaned {
        /// Which.
        node: NodeId,
    },
    /// The agent of a node found other hardware than is recorded.
    Discover {
        /// Which.
        node: NodeId,
        /// What it found.
        found: Box<Capabilities>,
    },
}

impl Command {
    /// The command itself, without the force behind it.
    pub fn unforced(&self) -> &Command {
        if let Command::Forced { order, .. } = self { order } else { self }
    }

    /// True for orders that may take cover away.
    pub(crate) fn can_be_forced(&self) -> bool {
        match self {
            Command::Describe(_)
            | Command::SetPolicy { .. }
            | Command::DeletePolicy { .. }
            | Command::Delete { .. }
            | Command::Cordon { .. }
            | Command::Drain { .. }
            | Command::Maintain { .. } => true,
            Command::Note { .. }
            | Command::Forced { .. }
            | Command::Arm { .. }
            | Command::Disarm { .. }
            | Command::Evacuate { .. }
            | Command::Fence { .. }
            | Command::ConfirmOff { .. }
            | Command::Cancel { .. }
            | Command::Approve { .. }
            | Command::Release { .. }
            | Command::ByHand { .. }
            | Command::Backup { .. }
            | Command::TookOver { .. }
            | Command::Lead { .. } => false,
        }
    }

    /// The node that this command judges.
    pub(crate) fn judges(&self) -> Option<&NodeId> {
        let Command::Lead { step: Step::Judge { node, .. }, .. } = self else { return None };
        Some(node)
    }
}

/// What an applied command did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// For the history and for people, oldest first.
    pub events: Vec<Event>,
}

/// One line of history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The entry that caused it.
    pub index: LogIndex,
    /// When, by the stamp of the entry.
    pub at: Wall,
    /// Nodes, instances and failovers that it is about, as `node/n1`, `instance/web`, `failover/f12`.
    pub about: Vec<String>,
    /// A sentence.
    pub text: String,
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Rejected {
    /// Nothing there by that name.
    #[error("there is no {what}")]
    NotThere {
        /// Kind and name.
        what: String,
    },
    /// The policy contradicts itself.
    #[error("policy {name}: {why}")]
    BadPolicy {
        /// Which.
        name: PolicyId,
        /// The contradiction.
        why: BadPolicy,
    },
    /// Compare-and-set found another version.
    #[error(
        "policy {name} was changed since you read it: you checked for {expected}, it is at {found}; read it again"
    )]
    PolicyChanged {
        /// Which.
        name: PolicyId,
        /// The version that was named.
        expected: LogIndex,
        /// The version there.
        found: LogIndex,
    },
    /// Two policies apply to one instance, and neither is more specific.
    #[error(
        "instance {instance} is matched by policy {first} and policy {second}, and neither is more specific: name one of them in the instance, or give one of them another label or a tenant in its [applies]"
    )]
    Ambiguous {
        /// Which instance.
        instance: InstanceId,
        /// A policy.
        first: PolicyId,
        /// Another.
        second: PolicyId,
    },
    /// Two objects claim the same thing.
    #[error("{what} is claimed by both {first} and {second}")]
    Conflict {
        /// The thing.
        what: String,
        /// The one that has it.
        first: String,
        /// The one that wants it.
        second: String,
    },
    /// A described thing cannot change while something depends on it.
    #[error("{what} cannot change now: {why}")]
    InUse {
        /// The thing.
        what: String,
        /// Why not.
        why: String,
    },
    /// A limit of the replicated state.
    #[error("{what}: {now} of at most {max}")]
    TooMany {
        /// Of what.
        what: String,
        /// Wanted.
        now: u64,
        /// The limit.
        max: u64,
    },
    /// A leadership that is over (R10).
    #[error("the leadership {given} is over; {newest} leads")]
    OldLeadership {
        /// The one that decided.
        given: LeaderEpoch,
        /// The newest.
        newest: LeaderEpoch,
    },
    /// One plan per instance, per node and per spare (R7).
    #[error("{what} already takes part in failover {plan}")]
    PlanExists {
        /// The node or instance.
        what: String,
        /// The plan.
        plan: PlanId,
    },
    /// The node is not where the decision believed it to be.
    #[error("{node} is {found}, not {wanted}")]
    WrongState {
        /// Which.
        node: NodeId,
        /// Its state.
        found: String,
        /// What the command needs.
        wanted: String,
    },
    /// The plan is not in the phase that the step belongs to.
    #[error("failover {plan} is {phase}: too late or too early for this")]
    WrongPhase {
        /// Which.
        plan: PlanId,
        /// Where it is.
        phase: Phase,
    },
    /// The step is not one of this plan.
    #[error("`{action}` is not a step of failover {plan} in this phase")]
    NotAStep {
        /// Which plan.
        plan: PlanId,
        /// The step.
        action: String,
    },
    /// Cancelled too late (R6).
    #[error("failover {plan} is past the point of no return: it began to cut the node off at {fence}")]
    PointOfNoReturn {
        /// Which.
        plan: PlanId,
        /// The first intent.
        fence: LogIndex,
    },
    /// The proof that later steps need is not there (R3).
    #[error("failover {plan}: {missing}")]
    NotProven {
        /// Which.
        plan: PlanId,
        /// What is missing.
        missing: Waiting,
    },
    /// The cluster is disarmed, and this is no operator's order.
    #[error("the cluster is disarmed")]
    NotArmed,
    /// No order of this kind has a time that is over, by the proposer's clock.
    #[error("no such order has run out")]
    NothingLapsed,
    /// The same step is recorded and has not ended.
    #[error("`{action}` is already under way as {token}")]
    AlreadyIntended {
        /// The step.
        action: String,
        /// Its intent.
        token: LogIndex,
    },
    /// A value that can never be right.
    #[error("{what}: {why}")]
    BadValue {
        /// Which object.
        what: String,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// It ended already.
    #[error("the intent {token} has ended already")]
    EndedAlready {
        /// Which.
        token: LogIndex,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_section_of_a_policy_is_refused() {
        let good = format!("[[policy]]\nname = \"mine\"\n{}", include_str!("../presets/quick.toml"))
            .replace("\n[", "\n[policy.")
            .replace("[policy.[policy]]", "[[policy]]");
        let documents: Documents = toml::from_str(&good).unwrap();
        assert_eq!(toml::from_str::<Documents>(&toml::to_string(&documents).unwrap()), Ok(documents));
        assert!(toml::from_str::<Documents>(&good.replace("[policy.brakes]", "[policy.breaks]")).is_err());
        assert!(toml::from_str::<Documents>(&format!("{good}\n[policy.more]\nx = 1\n")).is_err());
    }
}
