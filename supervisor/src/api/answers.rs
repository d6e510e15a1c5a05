//! What the API answers, as values that `hactl` reads back: the cluster's own words, not a second vocabulary.
//!
//! Why it exists: the server, the client and the golden screens share one definition. Everything here is made by a pure
//! function of the committed state and of the leader's view. What it never does: show a secret, sealed or not.

use crate::seal;
use policies::{
    Armed, Because, Cause, Check, Checked, ClusterState, Coverage, Event, FenceDevice, Instance, InstanceId,
    InstanceRecord, LogIndex, MemberId, Millis, Node, NodeId, NodeRecord, NodeState, NodeView, Order, Phase,
    Plan, PlanId, Policy, PolicyId, Power, TenantId, Verdict, View, Waiting, Wall,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

/// Answer to a command: it is committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Committed {
    /// Its index in the log.
    #[schema(value_type = u64)]
    pub index: LogIndex,
    /// What it did.
    #[schema(value_type = Vec<Object>)]
    pub events: Vec<Event>,
}

/// Answer to `apply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Described {
    /// Each object of the documents, in their order.
    pub objects: Vec<ObjectChange>,
    /// The index in the log; absent if nothing had to be changed.
    #[schema(value_type = Option<u64>)]
    pub index: Option<LogIndex>,
}

/// What `apply` did with one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ObjectChange {
    /// `node/n1`, `instance/web`, ...
    pub object: String,
    /// What was done.
    pub change: Change,
}

/// What `apply` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is new.
    Created,
    /// It was there and is different now.
    Configured,
    /// It was there and is the same.
    Unchanged,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberLine {
    /// Its number.
    #[schema(value_type = u64)]
    pub id: MemberId,
    /// `host:port` of the traffic between members.
    pub address: String,
    /// `host:port` of its API.
    pub api: String,
    /// A learner only receives the log.
    pub voter: bool,
    /// It leads, as the answering member sees it.
    pub leader: bool,
    /// The failure domain it stands in, from its reports.
    pub domain: Option<String>,
    /// Age of its newest report at the answering member, in milliseconds; absent for itself and for strangers.
    pub report_age_ms: Option<u64>,
    /// Why it does not trust its own eyes.
    pub doubt: Option<String>,
    /// How many entries of the log it lacks; only the leader knows.
    pub behind: Option<u64>,
}

impl MemberLine {
    /// True if the answering member is this one, or has a report of it that still counts.
    pub fn is_heard_by(&self, answered_by: MemberId) -> bool {
        self.id == answered_by || self.report_age_ms.is_some_and(|age| age <= policies::REPORT_AGE_MAX.0)
    }
}

/// Answer to `member list`, from the member that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Members {
    /// Who answers.
    #[schema(value_type = u64)]
    pub answered_by: MemberId,
    /// The members.
    pub members: Vec<MemberLine>,
}

impl Members {
    /// Whether the voters that the answering member hears would be a majority without this one.
    pub fn has_quorum_without(&self, member: MemberId) -> bool {
        let voters = self.members.iter().filter(|line| line.voter);
        let heard = voters.clone().filter(|line| line.id != member && line.is_heard_by(self.answered_by));
        heard.count() * 2 > voters.count()
    }
}

/// The coverage in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CoverageTold {
    /// Instances that would not come back by themselves if their node were lost.
    #[schema(value_type = Vec<String>)]
    pub instances_uncovered: Vec<InstanceId>,
    /// Failure domains whose loss is not covered, as `rack/r1`.
    pub losses_uncovered: Vec<String>,
    /// Failure domains in which an instance runs.
    pub losses: u64,
}

impl CoverageTold {
    /// Of the whole coverage.
    pub fn of(coverage: &Coverage) -> Self {
        let uncovered = coverage.losses.iter().filter(|(_, loss)| !loss.is_covered());
        CoverageTold {
            instances_uncovered: coverage.uncovered().map(|(name, _)| name.clone()).collect(),
            losses_uncovered: uncovered.map(|(domain, _)| domain.clone()).collect(),
            losses: coverage.losses.len() as u64,
        }
    }
}

/// The one-screen status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The cluster's name.
    pub cluster: String,
    /// The answering member's clock, milliseconds since 1970.
    #[schema(value_type = u64)]
    pub now: Wall,
    /// Who answers.
    #[schema(value_type = u64)]
    pub answered_by: MemberId,
    /// True if the answer is that member's own memory and no quorum stands behind it.
    pub local: bool,
    /// Why the answering member does not act, if it does not.
    pub not_acting: Option<String>,
    /// Why no node is judged failed, if so many members doubt themselves that the others are no majority.
    pub not_judging: Option<String>,
    /// The operator's switch.
    #[schema(value_type = Object)]
    pub armed: Armed,
    /// The members.
    pub members: Vec<MemberLine>,
    /// How many nodes are in each state.
    pub nodes: BTreeMap<String, u64>,
    /// How many instances there are.
    pub instances: u64,
    /// Failovers under way.
    pub failovers: Vec<FailoverLine>,
    /// Who would be covered; absent if the answering member does not lead.
    #[serde(default)]
    pub coverage: Option<CoverageTold>,
    /// Everything that is not as it should be, with the reason; empty if all is well.
    pub attention: Vec<Attention>,
}

/// Why no node is judged failed, if so many voters doubt themselves that the others are no majority.
pub fn not_judging(members: &[MemberLine]) -> Option<String> {
    let voters: Vec<&MemberLine> = members.iter().filter(|member| member.voter).collect();
    let doubting: Vec<&&MemberLine> = voters.iter().filter(|member| member.doubt.is_some()).collect();
    let why = doubting.first()?.doubt.as_ref()?;
    let sure = voters.len() - doubting.len();
    let line = || format!("{} of {} voters doubt themselves ({why})", doubting.len(), voters.len());
    (sure * 2 <= voters.len()).then(line)
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attention {
    /// `node/n1`, `instance/web`, `failover/f12`.
    pub about: String,
    /// What, and why nothing (more) happens.
    pub what: String,
}

/// A node in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeLine {
    /// Its name.
    #[schema(value_type = String)]
    pub name: NodeId,
    /// What we did about it.
    #[schema(value_type = Object)]
    pub state: NodeState,
    /// What we think of it.
    #[schema(value_type = Object)]
    pub verdict: Verdict,
    /// What its BMC said last: `on`, `off`, `no answer`; `null` if this member never asked it.
    pub power: Option<String>,
    /// The instance that it carries or is promised.
    #[schema(value_type = Option<String>)]
    pub instance: Option<InstanceId>,
    /// No new instance.
    pub cordoned: bool,
    /// Hands off.
    pub maintenance: bool,
    /// Why nothing happens with it.
    pub waiting: Vec<String>,
    /// When the verdict was committed; 0 if nobody has judged it yet.
    #[serde(default)]
    #[schema(value_type = u64)]
    pub judged: Wall,
    /// It has an agent; without one it is watched by probes only.
    #[serde(default)]
    pub agent: bool,
    /// Where it is fenced, level 1 first, as `ipmi:10.1.0.1:623`.
    #[serde(default)]
    pub fencing: Vec<String>,
    /// Serial number that is printed on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Failure domains it stands in.
    #[serde(default)]
    pub domains: BTreeMap<String, String>,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Answer to `node show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeDetail {
    /// The record; its secrets are hidden.
    #[schema(value_type = Object)]
    pub record: NodeRecord,
    /// What the members see now.
    #[schema(value_type = Object)]
    pub view: NodeView,
    /// The instance that it carries or is promised.
    #[schema(value_type = Option<String>)]
    pub instance: Option<InstanceId>,
    /// The policy by which it is judged.
    #[schema(value_type = Option<String>)]
    pub policy: Option<PolicyId>,
    /// What its ports' providers say beforehand; empty at members that do not lead.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub checks: Vec<Checked>,
    /// The answering member's clock.
    #[schema(value_type = u64)]
    pub now: Wall,
}

/// An instance in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceLine {
    /// Its name.
    #[schema(value_type = String)]
    pub name: InstanceId,
    /// The node that it belongs to.
    #[schema(value_type = String)]
    pub node: NodeId,
    /// What we think of that node.
    #[schema(value_type = Object)]
    pub verdict: Verdict,
    /// Counts its placements.
    #[schema(value_type = u64)]
    pub epoch: policies::Epoch,
    /// The policy that protects it.
    #[schema(value_type = String)]
    pub policy: PolicyId,
    /// The failover that moves it.
    #[schema(value_type = Option<u64>)]
    pub failover: Option<PlanId>,
    /// Why it is not moved.
    pub waiting: Vec<String>,
    /// Its networks.
    #[serde(default)]
    pub vlans: Vec<u16>,
    /// Its volumes, as `PROVIDER/VOLUME`.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// What it boots.
    #[serde(default)]
    pub boot: Option<String>,
    /// Labels that a spare must carry.
    #[serde(default)]
    pub needs: BTreeMap<String, String>,
    /// Who owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tenant: Option<TenantId>,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Answer to `instance show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceDetail {
    /// The record.
    #[schema(value_type = Object)]
    pub record: InstanceRecord,
    /// The line of the list.
    pub line: InstanceLine,
    /// Why its policy protects it; absent from members that do not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub because: Option<Because>,
    /// Its failovers, newest first.
    pub failovers: Vec<FailoverLine>,
    /// What the providers of its volumes and its boot source say beforehand; empty at members that do not lead.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub checks: Vec<Checked>,
    /// The answering member's clock.
    #[schema(value_type = u64)]
    pub now: Wall,
}

/// A failover in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailoverLine {
    /// Its name.
    #[schema(value_type = u64)]
    pub id: PlanId,
    /// When it began.
    #[schema(value_type = u64)]
    pub at: Wall,
    /// What moves; absent: the node is only fenced.
    #[schema(value_type = Option<String>)]
    pub instance: Option<InstanceId>,
    /// From where.
    #[schema(value_type = String)]
    pub from: NodeId,
    /// To where.
    #[schema(value_type = Option<String>)]
    pub spare: Option<NodeId>,
    /// Why.
    #[schema(value_type = String)]
    pub cause: Cause,
    /// How far.
    #[schema(value_type = String)]
    pub phase: Phase,
    /// When it came to that phase.
    #[schema(value_type = u64)]
    pub entered: Wall,
    /// What a human has to do.
    pub stuck: Option<String>,
    /// What it waits for.
    pub waiting: Vec<String>,
}

/// Answer to `failover show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailoverDetail {
    /// The plan.
    #[schema(value_type = Object)]
    pub plan: Plan,
    /// What it waits for.
    pub waiting: Vec<String>,
    /// The answering member's clock.
    #[schema(value_type = u64)]
    pub now: Wall,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyDetail {
    /// Its name.
    #[schema(value_type = String)]
    pub name: PolicyId,
    /// The log index of this version; 0 for an untouched preset.
    #[schema(value_type = u64)]
    pub version: LogIndex,
    /// Who set it, why and when.
    #[schema(value_type = Object)]
    pub order: Order,
    /// How many instances it protects.
    pub instances: u64,
    /// Its content.
    #[schema(value_type = Object)]
    pub policy: Policy,
}

/// The committed state and the leader's view of it: what every answer is made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Committed.
    pub state: &'a ClusterState,
    /// Believed.
    pub view: &'a View,
    /// The answering member's clock.
    pub now: Wall,
}

pub(super) fn power(read: Option<Power>) -> &'static str {
    match read {
        Some(Power::On) => "on",
        Some(Power::Off) => "off",
        None => "no answer",
    }
}

fn fence_place(device: &FenceDevice) -> String {
    match device {
        FenceDevice::Ipmi { address, .. } => format!("ipmi:{address}"),
    }
}

impl Facts<'_> {
    /// What the node's BMC said last, as a word.
    pub(super) fn power_of(&self, node: &NodeId) -> Option<String> {
        let reading = self.view.nodes.get(node).and_then(|node| node.power);
        reading.map(|(read, _)| power(read).to_owned())
    }

    /// `node list`.
    pub fn nodes(&self) -> Vec<NodeLine> {
        // One pass over the instances, for `instance_on` would be a pass for each node.
        let carries: BTreeMap<&NodeId, &InstanceId> =
            self.state.instances.iter().map(|(name, record)| (&record.node, name)).collect();
        let line = |(name, record): (&NodeId, &NodeRecord)| NodeLine {
            name: name.clone(),
            state: record.state.clone(),
            verdict: record.verdict.clone(),
            power: self.power_of(name),
            instance: carries.get(name).map(|instance| (*instance).clone()),
            cordoned: record.cordoned,
            maintenance: record.maintenance.is_some(),
            waiting: self.node_waiting(name, record),
            judged: record.judged,
            agent: record.node.agent_key.is_some(),
            fencing: record.node.fencing.iter().map(fence_place).collect(),
            serial: record.node.identity.serial.clone(),
            domains: record.node.domains.clone(),
            labels: record.node.labels.clone(),
        };
        self.state.nodes.iter().map(line).collect()
    }

    /// What the view says, or else the committed reason: a follower's view knows none.
    fn node_waiting(&self, name: &NodeId, record: &NodeRecord) -> Vec<String> {
        let believed = self.view.nodes.get(name).map(|node| sentences(&node.waiting)).unwrap_or_default();
        if believed.is_empty() { sentences(record.withheld.as_slice()) } else { believed }
    }

    /// `node show`.
    pub fn node(&self, name: &NodeId) -> Option<NodeDetail> {
        let mut record = self.state.nodes.get(name)?.clone();
        seal::hide_node(Arc::make_mut(&mut record.node));
        let ports = record.node.ports.clone();
        Some(NodeDetail {
            record,
            view: self.view.nodes.get(name).cloned().unwrap_or_default(),
            instance: self.state.instance_on(name).map(|record| record.instance.name.clone()),
            policy: self.state.policy_of_node(name).map(|(name, _)| name.clone()),
            checks: self.checked(|check| match check {
                Check::Port(port) => ports.contains(port),
                Check::Volume(_) | Check::Boot(_) => false,
            }),
            now: self.now,
        })
    }

    /// `instance list`.
    pub fn instances(&self) -> Vec<InstanceLine> {
        let moving: BTreeMap<&InstanceId, PlanId> = self
            .state
            .running()
            .filter_map(|plan| Some((plan.decision.instance.as_ref()?, plan.id)))
            .collect();
        let line = |(name, record): (&InstanceId, &InstanceRecord)| {
            self.instance_line(name, record, moving.get(name).copied())
        };
        self.state.instances.iter().map(line).collect()
    }

    fn instance_line(
        &self,
        name: &InstanceId,
        record: &InstanceRecord,
        failover: Option<PlanId>,
    ) -> InstanceLine {
        let Instance { volumes, networks, boot, needs, tenant, labels, .. } = &*record.instance;
        InstanceLine {
            name: name.clone(),
            node: record.node.clone(),
            verdict: self.state.nodes.get(&record.node).map(|node| node.verdict.clone()).unwrap_or_default(),
            epoch: record.epoch,
            policy: record.policy.clone(),
            failover,
            waiting: self.view.instances.get(name).map(|reasons| sentences(reasons)).unwrap_or_default(),
            vlans: networks.iter().map(|network| network.vlan).collect(),
            volumes: volumes.iter().map(|volume| format!("{}/{}", volume.provider, volume.volume)).collect(),
            boot: boot.as_ref().map(|boot| boot.image.clone()),
            needs: needs.clone(),
            tenant: tenant.clone(),
            labels: labels.clone(),
        }
    }

    /// `instance show`.
    pub fn instance(&self, name: &InstanceId) -> Option<InstanceDetail> {
        let record = self.state.instances.get(name)?;
        let failover = self.state.plan_of_instance(name).map(|plan| plan.id);
        let plans = self.state.plans.values().rev();
        let its = plans.filter(|plan| plan.decision.instance.as_ref() == Some(name));
        Some(InstanceDetail {
            record: record.clone(),
            line: self.instance_line(name, record, failover),
            because: self.state.selection(name).map(|selection| selection.because),
            failovers: its.map(|plan| self.failover_line(plan)).collect(),
            checks: self.checked(|check| match check {
                Check::Port(_) => false,
                Check::Volume(volume) => record.instance.volumes.contains(volume),
                Check::Boot(boot) => record.instance.boot.as_ref() == Some(boot),
            }),
            now: self.now,
        })
    }

    fn checked(&self, concerns: impl Fn(&Check) -> bool) -> Vec<Checked> {
        self.view.checks.iter().filter(|checked| concerns(&checked.check)).cloned().collect()
    }

    /// `failover list`: newest first.
    pub fn failovers(&self) -> Vec<FailoverLine> {
        self.state.plans.values().rev().map(|plan| self.failover_line(plan)).collect()
    }

    fn failover_line(&self, plan: &Plan) -> FailoverLine {
        FailoverLine {
            id: plan.id,
            at: plan.at,
            instance: plan.decision.instance.clone(),
            from: plan.decision.from.clone(),
            spare: plan.decision.spare.clone(),
            cause: plan.decision.cause.clone(),
            phase: plan.phase,
            entered: plan.entered.last().map_or(plan.at, |(_, at)| *at),
            stuck: plan.stuck.clone(),
            waiting: self.plan_waiting(plan.id),
        }
    }

    fn plan_waiting(&self, id: PlanId) -> Vec<String> {
        self.view.plans.get(&id).map(|reasons| sentences(reasons)).unwrap_or_default()
    }

    /// `failover show`.
    pub fn failover(&self, id: PlanId) -> Option<FailoverDetail> {
        let plan = self.state.plans.get(&id)?.clone();
        Some(FailoverDetail { plan, waiting: self.plan_waiting(id), now: self.now })
    }

    /// `policy list`.
    pub fn policies(&self) -> Vec<PolicyDetail> {
        self.state.policies.keys().filter_map(|name| self.policy(name)).collect()
    }

    /// `policy get`.
    pub fn policy(&self, name: &PolicyId) -> Option<PolicyDetail> {
        let record = self.state.policies.get(name)?;
        let protects = |instance: &&InstanceRecord| instance.policy == *name;
        Some(PolicyDetail {
            name: name.clone(),
            version: record.version,
            order: record.order.clone(),
            instances: self.state.instances.values().filter(protects).count() as u64,
            policy: record.policy.clone(),
        })
    }

    /// How many nodes are in each state; states without nodes are there with 0.
    pub fn node_counts(&self) -> BTreeMap<String, u64> {
        let words = ["active", "spare", "reserved", "fencing", "quarantined", "cleaning"];
        let mut counts: BTreeMap<String, u64> = words.into_iter().map(|word| (word.to_owned(), 0)).collect();
        for record in self.state.nodes.values() {
            *counts.entry(state_word(&record.state).to_owned()).or_default() += 1;
        }
        counts
    }

    /// Everything that is not as it should be.
    pub fn attention(&self) -> Vec<Attention> {
        let mut found = vec![];
        let mut add = |about: String, what: String| found.push(Attention { about, what });
        for plan in self.state.running() {
            let why = plan.stuck.clone().map(|stuck| format!("stuck: {stuck}"));
            let waits = self.plan_waiting(plan.id);
            let waits = (!waits.is_empty()).then(|| format!("{}: {}", plan.phase, waits.join("; ")));
            if let Some(what) = why.or(waits) {
                add(format!("failover/{}", plan.id), what);
            }
        }
        for (name, record) in &self.state.nodes {
            if let Some(what) = self.node_attention(name, record) {
                add(format!("node/{name}"), what);
            }
        }
        for (member, view) in &self.view.members {
            if view.report_age > policies::REPORT_AGE_MAX {
                let age = Millis::secs(view.report_age.0 / 1000);
                add(format!("member/{member}"), format!("has not reported for {age}"));
            } else if let Some(doubt) = &view.doubt {
                add(format!("member/{member}"), doubt.to_string());
            }
        }
        for (name, reasons) in &self.view.instances {
            if !reasons.is_empty() {
                add(format!("instance/{name}"), sentences(reasons).join("; "));
            }
        }
        found
    }

    fn node_attention(&self, name: &NodeId, record: &NodeRecord) -> Option<String> {
        let mut what = vec![];
        match (&record.state, &record.verdict) {
            (NodeState::Quarantined { .. }, _) => what.push("quarantined".to_owned()),
            (_, Verdict::Gray | Verdict::Failed(_)) => what.push(record.verdict.to_string()),
            (
                NodeState::Spare
                | NodeState::Reserved { .. }
                | NodeState::Active { .. }
                | NodeState::Fencing { .. }
                | NodeState::Cleaning { .. },
                Verdict::Unknown | Verdict::Healthy,
            ) => {}
        }
        if let Some(Order { by, reason, .. }) = &record.maintenance {
            what.push(format!("in maintenance by {by}: {reason}"));
        }
        if let Some(mismatch) = record.mismatch() {
            what.push(format!("its hardware is not as declared: {mismatch}"));
        }
        let waiting = self.node_waiting(name, record);
        // A quarantined node's wait says the same again.
        if record.maintenance.is_none() && !matches!(record.state, NodeState::Quarantined { .. }) {
            what.extend(waiting);
        } else {
            what.extend(waiting.into_iter().filter(|waiting| waiting.contains("beats")));
        }
        (!what.is_empty()).then(|| what.join("; "))
    }
}

/// The word for a node's state, as in `--output json` and in metrics.
pub fn state_word(state: &NodeState) -> &'static str {
    match state {
        NodeState::Spare => "spare",
        NodeState::Reserved { .. } => "reserved",
        NodeState::Active { .. } => "active",
        NodeState::Fencing { .. } => "fencing",
        NodeState::Quarantined { .. } => "quarantined",
        NodeState::Cleaning { .. } => "cleaning",
    }
}

fn sentences(reasons: &[Waiting]) -> Vec<String> {
    reasons.iter().map(Waiting::to_string).collect()
}

/// What `apply` would do with each object of `documents`, which are already sealed. Also drops what is unchanged from
/// them, so that nothing is written twice.
pub fn compare(state: &ClusterState, documents: &mut policies::Documents) -> Vec<ObjectChange> {
    let mut objects = vec![];
    let mut note = |object: String, old: Option<bool>| {
        let change = match old {
            None => Change::Created,
            Some(false) => Change::Configured,
            Some(true) => Change::Unchanged,
        };
        objects.push(ObjectChange { object, change });
        change != Change::Unchanged
    };
    documents.providers.retain(|new| {
        let old = state.providers.get(&new.name);
        note(format!("provider/{}", new.name), old.map(|old| old == new))
    });
    documents.nodes.retain(|new| {
        let old = state.nodes.get(&new.name);
        note(format!("node/{}", new.name), old.map(|old| *old.node == *new))
    });
    documents.instances.retain(|new| {
        let old = state.instances.get(&new.name);
        note(format!("instance/{}", new.name), old.map(|old| same_instance(old, new)))
    });
    documents.policies.retain(|new| {
        let old = state.policies.get(&new.name);
        note(format!("policy/{}", new.name), old.map(|old| old.policy == new.policy))
    });
    objects
}

/// `node` says only where an instance was when it was first described; after a failover the document still says so,
/// and applying it again changes nothing.
fn same_instance(old: &InstanceRecord, new: &Instance) -> bool {
    Instance { node: old.instance.node.clone(), ..new.clone() } == *old.instance
}

/// A node that is described twice in one document would silently take the last description.
pub fn duplicate(documents: &policies::Documents) -> Option<String> {
    let names = documents
        .nodes
        .iter()
        .map(|Node { name, .. }| format!("node/{name}"))
        .chain(documents.instances.iter().map(|instance| format!("instance/{}", instance.name)))
        .chain(documents.providers.iter().map(|provider| format!("provider/{}", provider.name)))
        .chain(documents.policies.iter().map(|policy| format!("policy/{}", policy.name)));
    let mut seen = std::collections::BTreeSet::new();
    names.into_iter().find(|name| !seen.insert(name.clone()))
}

/// Answer to `events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Events {
    /// Oldest first.
    #[schema(value_type = Vec<Object>)]
    pub events: Vec<Event>,
}
