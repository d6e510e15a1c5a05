//! What the API answers, as values that `hactl` reads back: the cluster's own words, not a second vocabulary.
//!
//! Why it exists: the server, the client and the golden screens share one definition. What it never does: say how an
//! answer is made; `facts.rs` does.

use policies::{
    Armed, Because, Cause, Checked, Coverage, Event, InstanceId, InstanceRecord, LogIndex, MemberId, NodeId,
    NodeRecord, NodeState, NodeView, Order, Phase, Plan, PlanId, Policy, PolicyId, TenantId, Verdict, Wall,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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

/// Answer to `node power status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodePower {
    /// The node.
    #[schema(value_type = String)]
    pub name: NodeId,
    /// What its fencing devices said just now, level 1 first.
    pub levels: Vec<LevelPower>,
}

/// What one fencing device said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LevelPower {
    /// Where it is, as `ipmi:10.1.0.1:623`.
    pub device: String,
    /// `on` or `off`; absent if it could not be read.
    pub power: Option<String>,
    /// The GUID that it reports, if it does.
    pub guid: Option<String>,
    /// Why nothing was read, or what is wrong with it.
    pub trouble: Option<String>,
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

/// Answer to `events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Events {
    /// Oldest first.
    #[schema(value_type = Vec<Object>)]
    pub events: Vec<Event>,
}
