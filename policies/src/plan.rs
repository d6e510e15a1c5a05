//! A failover: what is to be done, what was done, what was proved. Plans never change their choices; they are replaced.

use crate::effect::{Action, Doubt, Outcome, Refusal, Seen};
use crate::inventory::{Instance, Node};
use crate::observation::{Power, SelfDoubt, Sight};
use crate::policy::{After, Policy};
use crate::waiting::Waiting;
use crate::words::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The cluster's belief about a node. What we did about it is [`crate::NodeState`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nobody has judged it yet.
    #[default]
    Unknown,
    /// Enough members see it alive.
    Healthy,
    /// Its kernel lives, but its agent is silent or its writes are stale: a slower deadline runs.
    Gray,
    /// Dead, for this reason.
    Failed(Cause),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Unknown => f.pad("unknown"),
            Verdict::Healthy => f.pad("healthy"),
            Verdict::Gray => f.pad("gray"),
            Verdict::Failed(cause) => f.pad(&format!("failed: {cause}")),
        }
    }
}

/// Why a node counts as failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Silent and mute for enough members.
    Silent,
    /// Its BMC reads power off while it is silent: positive proof, no waiting.
    PowerOff,
    /// It said farewell.
    Gasped,
    /// Gray for too long.
    GrayTooLong,
    /// An operator ordered it.
    Ordered,
    /// It did not start in time when it took over.
    DidNotStart,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Silent => "silent, and its kernel does not answer",
            Cause::PowerOff => "silent, and its BMC reads power off",
            Cause::Gasped => "it said farewell",
            Cause::GrayTooLong => "it lives, but has not worked as it should for too long",
            Cause::Ordered => "ordered by an operator",
            Cause::DidNotStart => "it did not start in time",
        })
    }
}

/// What a verdict rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// What each member saw.
    pub members: BTreeMap<MemberId, Sight>,
    /// Members that did not trust their own eyes.
    pub doubts: BTreeMap<MemberId, SelfDoubt>,
    /// What its BMC read, if it answered.
    pub power: Option<Power>,
    /// How many members see it dead, and how many are needed.
    pub dead: u32,
    /// Needed for the verdict.
    pub needed: u32,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dead {
            0 => write!(f, "no member sees it dead")?,
            dead => write!(f, "{dead} of {} needed members see it dead", self.needed)?,
        }
        for (member, sight) in &self.members {
            write!(f, "; {member}: {sight}")?;
        }
        for (member, doubt) in &self.doubts {
            write!(f, "; {member}: {doubt}")?;
        }
        match self.power {
            Some(Power::On) => write!(f, "; BMC: power on"),
            Some(Power::Off) => write!(f, "; BMC: power off"),
            None => Ok(()),
        }
    }
}

/// One thing that was checked before a plan was made, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// What was checked.
    pub name: String,
    /// What was found.
    pub found: String,
}

/// The choice that a plan carries out, with all that led to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What moves; `None`: the node is only fenced.
    pub instance: Option<InstanceId>,
    /// From where.
    pub from: NodeId,
    /// To where; `None`: the node is only fenced.
    pub spare: Option<NodeId>,
    /// Why.
    pub cause: Cause,
    /// What the verdict rests on.
    pub evidence: Evidence,
    /// The policy and the log index of its version.
    pub policy: (PolicyId, LogIndex),
    /// What was checked, in order.
    pub gates: Vec<Gate>,
    /// The spares that were not taken, best first, each with the reason.
    pub runners_up: Vec<(NodeId, String)>,
    /// How long the system of the old node has to shut down before the node is fenced; absent: it is fenced at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown: Option<Millis>,
    /// How the spare is made to run the instance.
    #[serde(default, skip_serializing_if = "Start::is_power_on")]
    pub start: Start,
}

/// How a spare is made to run an instance; the quickest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// It waits hot, and its agent goes on into the instance's kernel; if that takes too long, as with `PowerCycle`.
    Kexec,
    /// It is off, and is switched on.
    #[default]
    PowerOn,
    /// It waits hot, and is switched off and on: nothing else would make it boot the instance.
    PowerCycle,
    /// Its cloud deploys the instance on it, and switches it on.
    Deploy,
}

impl Start {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if wants a reference")]
    fn is_power_on(&self) -> bool {
        *self == Start::PowerOn
    }
}

/// A failover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its name: the log index of the entry that created it.
    pub id: PlanId,
    /// When, by the leader's stamp.
    pub at: Wall,
    /// What was decided, and on what grounds.
    pub decision: Decision,
    /// The epoch that the instance gets with the new placement.
    pub epoch: Epoch,
    /// How far it is.
    pub phase: Phase,
    /// Set while a human is needed (or the world changes its mind): the exact missing thing.
    pub stuck: Option<String>,
    /// The committed records of everything that was about to be done, oldest first.
    pub intents: Vec<Intent>,
    /// Why later steps were allowed.
    pub proof: Option<FenceProof>,
    /// When each phase was entered.
    pub entered: Vec<(Phase, Wall)>,
}

impl Plan {
    /// True while its spare is being switched off to be switched on again.
    pub fn is_restarting(&self) -> bool {
        let newest_first = self.intents.iter().rev().map(|intent| &intent.action);
        let mut on = newest_first.take_while(|action| !self.restarts(action));
        self.restart().is_some() && !on.any(|action| matches!(action, Action::PowerOn { .. }))
    }

    /// The newest command that switches the spare off, for it to boot anew. Not part of any proof.
    pub(crate) fn restart(&self) -> Option<&Intent> {
        self.intents.iter().rev().find(|intent| self.restarts(&intent.action))
    }

    /// The first one, from which on the spare is started cold.
    pub(crate) fn restarted_first(&self) -> Option<&Intent> {
        self.intents.iter().find(|intent| self.restarts(&intent.action))
    }

    /// True if this action switches the spare off.
    pub(crate) fn restarts(&self, action: &Action) -> bool {
        matches!(action, Action::PowerOff { node, .. } if self.decision.spare.as_ref() == Some(node))
    }

    /// The phase in which this plan carries the action out.
    pub(crate) fn phase_of(&self, action: &Action) -> Phase {
        match action {
            Action::ShutDown { .. } => Phase::Stopping,
            Action::PowerOff { .. } if self.restarts(action) => Phase::Starting,
            Action::Diagnose { .. }
            | Action::PowerOff { .. }
            | Action::Revoke { .. }
            | Action::ClosePort { .. }
            | Action::Interrupt { .. } => Phase::Fencing,
            Action::SetBoot { .. } if self.decision.start != Start::PowerOn => Phase::Starting,
            Action::Snapshot { .. }
            | Action::Attach { .. }
            | Action::OpenPort { .. }
            | Action::AttachVif { .. }
            | Action::SetBoot { .. } => Phase::Moving,
            // No failover claims or cleans: that is done before it and afterwards.
            Action::PowerOn { .. } | Action::Claim { .. } | Action::Clean { .. } => Phase::Starting,
        }
    }

    /// True if what this action wishes for was seen.
    pub(crate) fn did(&self, action: &Action) -> bool {
        self.intents.iter().any(|intent| intent.action == *action && intent.is_done())
    }

    /// True if this action was begun.
    pub(crate) fn tried(&self, action: &Action) -> bool {
        self.intents.iter().any(|intent| intent.action == *action)
    }

    /// True if this action was tried and its end is recorded.
    pub(crate) fn ended(&self, action: &Action) -> bool {
        self.intents.iter().any(|intent| intent.action == *action && intent.end.is_some())
    }
}

/// How far a plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The spare is reserved; nothing was done yet. The only phase that can be cancelled (R6).
    Reserved,
    /// The system of the old node was asked to shut down.
    Stopping,
    /// The old node is being cut off.
    Fencing,
    /// Proven; volumes, ports and boot source go to the spare.
    Moving,
    /// The spare starts.
    Starting,
    /// The service was seen on the spare (or, without an instance, the node is fenced).
    Done,
    /// Another plan took over.
    Replaced,
    /// Called off before anything was done.
    Cancelled,
}

impl Phase {
    /// True if nothing is left to do.
    pub fn is_over(self) -> bool {
        match self {
            Phase::Reserved | Phase::Stopping | Phase::Fencing | Phase::Moving | Phase::Starting => false,
            Phase::Done | Phase::Replaced | Phase::Cancelled => true,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Phase::Reserved => "reserved",
            Phase::Stopping => "stopping",
            Phase::Fencing => "fencing",
            Phase::Moving => "moving",
            Phase::Starting => "starting",
            Phase::Done => "done",
            Phase::Replaced => "replaced",
            Phase::Cancelled => "cancelled",
        })
    }
}

/// The committed record that a step is about to be carried out (R1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Its log index: the token of the effect (R8).
    pub token: LogIndex,
    /// The leadership that recorded it.
    pub leader: LeaderEpoch,
    /// When.
    pub at: Wall,
    /// What exactly.
    pub action: Action,
    /// How it ended and when; `None`: not known to have ended.
    pub end: Option<(Outcome, Wall)>,
}

impl Intent {
    /// True if the wished-for state was seen.
    pub fn is_done(&self) -> bool {
        matches!(&self.end, Some((Outcome::Done(seen), _)) if self.action.is_shown_by(seen))
    }

    /// What the BMC told of why the node died, a line each.
    pub fn told(&self) -> &[String] {
        match &self.end {
            Some((Outcome::Done(Seen::Diagnosed(lines)), _)) => lines,
            Some((
                Outcome::Done(Seen::OffTwice { .. } | Seen::On | Seen::Accepted | Seen::ReadBack(_))
                | Outcome::Refused(_)
                | Outcome::Unknown(_),
                _,
            ))
            | None => &[],
        }
    }

    /// The refusal or doubt it ended in, as a sentence.
    pub fn trouble(&self) -> Option<String> {
        match &self.end {
            None => None,
            Some((Outcome::Done(seen), _)) => {
                (!self.action.is_shown_by(seen)).then(|| format!("what was seen does not show it: {seen:?}"))
            }
            Some((Outcome::Refused(refusal), _)) => Some(Refusal::to_string(refusal)),
            Some((Outcome::Unknown(doubt), _)) => Some(Doubt::to_string(doubt)),
        }
    }
}

/// Which of the ways that a policy allows made the proof complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accepted {
    /// Power seen off twice, volumes revoked, ports closed.
    PowerAndIsolation,
    /// Volumes revoked and ports closed; power was tried for this long and not proven.
    IsolationAlone {
        /// How long power was tried.
        tried: Millis,
    },
    /// Power seen off twice; the instance has nothing that could be revoked.
    PowerAlone,
    /// An operator vouched that the node is off; volumes revoked, ports closed.
    OperatorAndIsolation {
        /// Who.
        by: String,
        /// Why, in their words.
        reason: String,
    },
}

/// The record that the old node can touch neither network nor volumes. Only [`prove`] makes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceProof {
    accepted: Accepted,
    power: Option<LogIndex>,
    isolation: Vec<LogIndex>,
}

impl FenceProof {
    /// What made it complete.
    pub fn accepted(&self) -> &Accepted {
        &self.accepted
    }
    /// The intents whose outcomes it rests on.
    pub fn rests_on(&self) -> impl Iterator<Item = LogIndex> {
        self.power.into_iter().chain(self.isolation.iter().copied())
    }
}

impl fmt::Display for FenceProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let isolated = self.isolation.len();
        match &self.accepted {
            Accepted::PowerAndIsolation => write!(f, "power seen off twice, {isolated} isolations read back"),
            Accepted::IsolationAlone { tried } => {
                write!(
                    f,
                    "{isolated} isolations read back; power tried for {tried}, not proven, accepted by policy"
                )
            }
            Accepted::PowerAlone => write!(f, "power seen off twice; nothing to isolate"),
            Accepted::OperatorAndIsolation { by, reason } => {
                write!(f, "{by} vouched that it is off ({reason}), {isolated} isolations read back")
            }
        }
    }
}

/// What cuts `node` off from everything that `instance` owns, power aside.
pub fn isolation(node: &Node, instance: Option<&Instance>) -> Vec<Action> {
    let volumes = instance.into_iter().flat_map(|instance| &instance.volumes).map(|volume| Action::Revoke {
        node: node.name.clone(),
        provider: volume.provider.clone(),
        volume: volume.volume.clone(),
    });
    let ports = node.ports.iter().map(|port| Action::ClosePort {
        node: node.name.clone(),
        provider: port.provider.clone(),
        port: port.port.clone(),
    });
    volumes.chain(ports).collect()
}

/// Judges whether the outcomes so far prove that the old node is cut off (R2, R3).
///
/// `tried`: how long power has been tried. `vouched`: an operator's word that it is off, and the reason.
///
/// # Errors
/// What is missing.
pub fn prove(
    plan: &Plan,
    node: &Node,
    instance: Option<&Instance>,
    policy: &Policy,
    tried: Millis,
    vouched: Option<(&str, &str)>,
) -> Result<FenceProof, Waiting> {
    let done = |action: &Action| plan.intents.iter().rev().find(|i| i.action == *action && i.is_done());
    let is_off = |i: &&Intent| {
        matches!(i.action, Action::PowerOff { .. }) && i.is_done() && i.action.node() == &node.name
    };
    let power = plan.intents.iter().rev().find(is_off).map(|intent| intent.token);
    let wanted = isolation(node, instance);
    let missing: Vec<String> = wanted.iter().filter(|a| done(a).is_none()).map(Action::to_string).collect();
    if !missing.is_empty() {
        return Err(Waiting::IsolationMissing { missing });
    }
    let isolation: Vec<LogIndex> = wanted.iter().filter_map(|a| done(a).map(|i| i.token)).collect();
    let isolated = !isolation.is_empty() || policy.fencing.power_alone || instance.is_none();
    let accepted = match (power, vouched, policy.fencing.isolation_alone) {
        (Some(_), _, _) | (None, Some(_), _) if !isolated => {
            return Err(Waiting::NothingToIsolate { node: node.name.clone() });
        }
        (Some(_), _, _) if !isolation.is_empty() => Accepted::PowerAndIsolation,
        (Some(_), _, _) => Accepted::PowerAlone,
        (None, Some((by, reason)), _) => {
            Accepted::OperatorAndIsolation { by: by.to_owned(), reason: reason.to_owned() }
        }
        (None, None, After::Time(after)) if !isolation.is_empty() && tried >= after => {
            Accepted::IsolationAlone { tried }
        }
        (None, None, After::Time(_) | After::Never) => {
            return Err(Waiting::PowerProofMissing {
                node: node.name.clone(),
                last: plan
                    .intents
                    .iter()
                    .rev()
                    .filter(|i| matches!(i.action, Action::PowerOff { .. }))
                    .find_map(Intent::trouble),
                // Where nothing can be isolated, no time makes it a proof.
                isolation_alone: if isolation.is_empty() {
                    After::Never
                } else {
                    policy.fencing.isolation_alone
                },
            });
        }
    };
    Ok(FenceProof { accepted, power, isolation })
}
