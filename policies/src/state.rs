//! The replicated state: what we know, what we decided. Changed only by `apply.rs`.

use crate::backup::Backup;
use crate::capability::Capabilities;
use crate::command::{Documents, Rejected};
use crate::inventory::{Instance, Node};
use crate::plan::{Evidence, FenceProof, Intent, Phase, Plan, Start, Verdict};
use crate::policy::Policy;
use crate::provider::Provider;
use crate::waiting::Waiting;
use crate::words::*;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Finished plans that are kept for `hactl failover list`; older ones are only in the history.
pub const PLANS_KEPT_MAX: usize = 500;
/// Strikes of one node that are kept; no limit of a policy may be higher.
pub const STRIKES_KEPT_MAX: usize = 10;
/// Nodes, instances, providers or policies of one cluster. Bounds the snapshot (about 1 kB each).
pub const OBJECTS_MAX: usize = 20_000;

/// The replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// Index of the last applied entry.
    pub applied: LogIndex,
    /// The newest leadership.
    pub leadership: Option<Leadership>,
    /// May the cluster act by itself?
    pub armed: Armed,
    /// Back ends.
    pub providers: BTreeMap<ProviderId, Provider>,
    /// Nodes.
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    /// Instances.
    pub instances: BTreeMap<InstanceId, InstanceRecord>,
    /// Policies, with their versions.
    pub policies: BTreeMap<PolicyId, PolicyRecord>,
    /// What they were before, and what the deleted ones were, oldest first.
    #[serde(default)]
    pub policies_past: BTreeMap<PolicyId, Vec<PolicyRecord>>,
    /// Failovers, running and finished.
    pub plans: BTreeMap<PlanId, Plan>,
    /// The highest epoch of an instance that was deleted; those described later begin above it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epochs_gone: Epoch,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if wants a reference")]
fn is_zero(epoch: &Epoch) -> bool {
    epoch.0 == 0
}

/// The newest leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leadership {
    /// Log index of its `TookOver`.
    pub epoch: LeaderEpoch,
    /// Who.
    pub member: MemberId,
    /// Which life of it.
    pub boot: BootId,
}

/// The operator's global switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Armed {
    /// True: act.
    pub armed: bool,
    /// Who switched it and why.
    pub order: Order,
}

/// An operator's order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Who.
    pub by: String,
    /// Why, in their words.
    pub reason: String,
    /// When.
    pub at: Wall,
    /// When it ends by itself; absent: when somebody ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Wall>,
}

impl Order {
    /// An order that nobody has limited.
    pub fn new(by: &str, reason: &str, at: Wall) -> Self {
        Order { by: by.to_owned(), reason: reason.to_owned(), at, until: None }
    }

    /// True once it has ended by itself, by this clock.
    pub fn has_lapsed(&self, now: Wall) -> bool {
        self.until.is_some_and(|until| now >= until)
    }
}

/// A node and what we decided about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// As described; shared, for the state is copied more often than nodes change.
    pub node: Arc<Node>,
    /// What we did about it.
    pub state: NodeState,
    /// What we think of it.
    pub verdict: Verdict,
    /// What the verdict rests on.
    pub evidence: Evidence,
    /// When the verdict was committed.
    pub judged: Wall,
    /// The committed reason why a failed node is not acted on.
    pub withheld: Option<Waiting>,
    /// No new instance.
    pub cordoned: bool,
    /// Hands off. Beside the state, for a node in maintenance still has its instance.
    pub maintenance: Option<Order>,
    /// An operator's leave to move its instance; used up by the failover, void once the node is judged anew.
    #[serde(default)]
    pub approved: Option<Order>,
    /// When it was fenced because it had failed or did not start, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strikes: Vec<Wall>,
    /// Its last takeover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takeover: Option<LastTakeover>,
    /// An operator's order to fence it.
    pub fence_order: Option<Order>,
    /// An operator's word that it is off; used up by the fence that is under way.
    pub confirmed_off: Option<Order>,
    /// What operators did to it by hand, and what the cluster did to look after it beside failovers, oldest first; the newest of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_hand: Vec<ByHand>,
    /// The hardware that its agent found last; `None`: no agent has told yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Box<Capabilities>>,
}

/// What an operator did to a node by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByHand {
    /// Who, why, when.
    pub order: Order,
    /// The same order as the committed record that it is about to be carried out (R1), and its end.
    pub intent: Intent,
}

/// How a spare took over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastTakeover {
    /// How it was started in the end.
    pub start: Start,
    /// From the proof that the old node was cut off until the instance was seen on it.
    pub took: Millis,
}

impl LastTakeover {
    /// Of a plan that is done.
    pub fn of(plan: &Plan) -> Option<Self> {
        let entered = |wanted| plan.entered.iter().find(|(phase, _)| *phase == wanted).map(|(_, at)| *at);
        let took = entered(Phase::Done)?.since(entered(Phase::Moving)?);
        let start = match plan.restart() {
            Some(_) => Start::PowerCycle,
            None => plan.decision.start,
        };
        Some(LastTakeover { start, took })
    }
}

impl NodeRecord {
    /// Its hardware: as declared, and as found where nothing is declared.
    pub fn capabilities(&self) -> Cow<'_, Capabilities> {
        let declared = &self.node.capabilities;
        self.found.as_ref().map_or(Cow::Borrowed(declared), |found| Cow::Owned(declared.or(found)))
    }

    /// What its agent found to be less than declared.
    pub fn mismatch(&self) -> Option<String> {
        self.node.capabilities.mismatch(self.found.as_deref()?)
    }
}

/// What we did about a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// No instance, ready to take one.
    Spare,
    /// Promised to a plan.
    Reserved {
        /// Which.
        plan: PlanId,
    },
    /// Runs an instance.
    Active {
        /// Which.
        instance: InstanceId,
    },
    /// Is being cut off.
    Fencing {
        /// By which plan.
        plan: PlanId,
    },
    /// Fenced and not yet cleaned; must not run.
    Quarantined {
        /// By which plan.
        plan: PlanId,
        /// Why we believe it can touch nothing.
        proof: FenceProof,
        /// Why it could not be cleaned when it was released.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unclean: Option<String>,
    },
    /// Released by an operator; becomes a spare once older commands have drained and its cloud has cleaned it.
    Cleaning {
        /// The plan that had fenced it; absent if it was not fenced, but its instance deleted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        plan: Option<PlanId>,
        /// The release, or the deletion of its instance.
        order: Order,
        /// Why we believe that it can touch nothing; it goes back to quarantine with it if it cannot be cleaned.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        proof: Option<FenceProof>,
    },
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeState::Spare => write!(f, "spare"),
            NodeState::Reserved { plan } => write!(f, "reserved for {plan}"),
            NodeState::Active { instance } => write!(f, "active with {instance}"),
            NodeState::Fencing { plan } => write!(f, "being fenced by {plan}"),
            NodeState::Quarantined { plan, .. } => write!(f, "quarantined by {plan}"),
            NodeState::Cleaning { .. } => write!(f, "being cleaned"),
        }
    }
}

/// An instance and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredInstance")]
pub struct InstanceRecord {
    /// As described; shared likewise.
    pub instance: Arc<Instance>,
    /// The node that it belongs to now.
    pub node: NodeId,
    /// Counts its placements.
    pub epoch: Epoch,
    /// An operator's order to move it.
    pub evacuate: Option<Evacuation>,
    /// The policy that protects it: as it was selected when documents or policies changed last.
    pub policy: PolicyId,
    /// What operators ordered to be kept of its volumes, oldest first; the newest of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<Backup>,
}

/// The same as it is stored: without a policy in snapshots of before policies were selected.
#[derive(Deserialize)]
struct StoredInstance {
    instance: Arc<Instance>,
    node: NodeId,
    epoch: Epoch,
    evacuate: Option<Evacuation>,
    #[serde(default)]
    policy: Option<PolicyId>,
    #[serde(default)]
    backups: Vec<Backup>,
}

impl From<StoredInstance> for InstanceRecord {
    fn from(stored: StoredInstance) -> Self {
        let StoredInstance { instance, node, epoch, evacuate, policy, backups } = stored;
        let policy = policy.or_else(|| instance.policy.clone()).unwrap_or_default();
        InstanceRecord { instance, node, epoch, evacuate, policy, backups }
    }
}

/// An operator's order to move an instance off its node, whatever the node's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evacuation {
    /// Who, why, when.
    #[serde(flatten)]
    pub order: Order,
    /// How long the node's system has to shut down before the node is fenced; absent: it is fenced at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown: Option<Millis>,
}

/// A policy and its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// The content.
    pub policy: Policy,
    /// The log index of this version; 0 for an untouched preset.
    pub version: LogIndex,
    /// Who set it, why and when. Of a deleted policy, the last past version says who deleted it.
    pub order: Order,
}

impl Default for ClusterState {
    /// The state of a new cluster: disarmed, with the presets.
    fn default() -> Self {
        let order = Order::new("init", "a new cluster", Wall(0));
        let preset = Order::new("preset", "a new cluster", Wall(0));
        let record = |policy| PolicyRecord { policy, version: LogIndex(0), order: preset.clone() };
        ClusterState {
            applied: LogIndex(0),
            leadership: None,
            armed: Armed { armed: false, order },
            providers: BTreeMap::new(),
            nodes: BTreeMap::new(),
            instances: BTreeMap::new(),
            policies: Policy::presets().into_iter().map(|(name, policy)| (name, record(policy))).collect(),
            policies_past: BTreeMap::new(),
            plans: BTreeMap::new(),
            epochs_gone: Epoch(0),
        }
    }
}

impl ClusterState {
    /// The plan that takes part in, is about, or moves to this node, if one runs.
    pub fn plan_of_node(&self, node: &NodeId) -> Option<&Plan> {
        self.running().find(|plan| plan.decision.from == *node || plan.decision.spare.as_ref() == Some(node))
    }

    /// The running plan of an instance.
    pub fn plan_of_instance(&self, instance: &InstanceId) -> Option<&Plan> {
        self.running().find(|plan| plan.decision.instance.as_ref() == Some(instance))
    }

    /// Plans that have something left to do.
    pub fn running(&self) -> impl Iterator<Item = &Plan> {
        self.plans.values().filter(|plan| !plan.phase.is_over())
    }

    /// Plans whose old node is not yet proven to be cut off. A drained one counts once it is fenced: while its system shuts
    /// down, others may fail.
    pub fn fences_in_flight(&self) -> u32 {
        let in_flight = |plan: &&Plan| matches!(plan.phase, Phase::Reserved | Phase::Fencing);
        u32::try_from(self.running().filter(in_flight).count()).unwrap_or(u32::MAX)
    }

    /// The intent with this token, and its plan.
    pub fn intent(&self, token: LogIndex) -> Option<(&Plan, &Intent)> {
        self.plans.values().rev().find_map(|plan| {
            plan.intents.iter().find(|intent| intent.token == token).map(|intent| (plan, intent))
        })
    }

    /// What was ordered by hand with this token.
    pub fn ordered_by_hand(&self, token: LogIndex) -> Option<&ByHand> {
        self.nodes.values().flat_map(|record| &record.by_hand).find(|by_hand| by_hand.intent.token == token)
    }

    /// The intent with this token, of a plan, by hand or of a backup.
    pub(crate) fn any_intent(&self, token: LogIndex) -> Option<&Intent> {
        let planned = self.intent(token).map(|(_, intent)| intent);
        let ordered = planned.or_else(|| self.ordered_by_hand(token).map(|by_hand| &by_hand.intent));
        ordered.or_else(|| self.backup_intent(token).map(|(_, _, intent)| intent))
    }

    /// True for an intent whose end is not recorded.
    pub(crate) fn is_open(&self, token: LogIndex) -> bool {
        self.any_intent(token).is_some_and(|intent| intent.end.is_none())
    }

    /// The instance that a node carries or is promised.
    pub fn instance_on(&self, node: &NodeId) -> Option<&InstanceRecord> {
        match &self.nodes.get(node)?.state {
            NodeState::Active { instance } => self.instances.get(instance),
            NodeState::Spare | NodeState::Reserved { .. } | NodeState::Cleaning { .. } => None,
            NodeState::Fencing { .. } | NodeState::Quarantined { .. } => {
                self.instances.values().find(|record| record.node == *node)
            }
        }
    }

    /// The policy that protects what the node carries, or the default policy.
    pub fn policy_of_node(&self, node: &NodeId) -> Option<(&PolicyId, &PolicyRecord)> {
        let wanted = self.instance_on(node).map(|record| &record.policy);
        match wanted {
            Some(wanted) => self.policies.get_key_value(wanted),
            None => self.policies.iter().find(|(name, _)| name.as_str() == DEFAULT_POLICY),
        }
    }

    /// What `apply` would refuse of these documents, without changing anything.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn check_documents(&self, documents: &Documents) -> Result<(), Rejected> {
        self.clone()
            .describe(LogIndex(self.applied.0.saturating_add(1)), Wall(0), "check", documents)
            .map(|_| ())
    }
}

/// The policy of nodes that carry no instance.
pub const DEFAULT_POLICY: &str = "cautious";
