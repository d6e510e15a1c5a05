//! Why nothing happens. The same sentence appears in the log, the metric, `hactl explain` and the scenario files.

use crate::policy::After;
use crate::readiness::{CANNOT_TELL_MAX, Check, Finding};
use crate::words::*;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why the planner does not go on with a node, an instance or a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Waiting {
    /// This member does not lead.
    NotLeader {
        /// Who does, as far as it knows.
        leader: Option<MemberId>,
    },
    /// This member is elected, but its `TookOver` is not committed yet (R10).
    TakingOver,
    /// An operator disarmed the cluster, or it was never armed.
    Disarmed {
        /// The reason given.
        reason: String,
    },
    /// Hands off.
    Maintenance {
        /// The node.
        node: NodeId,
        /// The reason given.
        reason: String,
    },
    /// Suspected, and not enough members see it dead.
    MembersDisagree {
        /// Members that see it dead.
        dead: u32,
        /// Members needed.
        needed: u32,
    },
    /// Members do not trust their own eyes; without them too few are left to judge.
    MembersDoubt {
        /// Members that doubt themselves.
        doubting: u32,
        /// Members needed.
        needed: u32,
        /// What one of them says.
        why: String,
    },
    /// Enough members see it dead, but they stand in too few failure domains.
    DomainsTooFew {
        /// Different domains among them.
        domains: u32,
        /// Domains needed.
        needed: u32,
    },
    /// Suspected; its kernel is being asked.
    AskingKernel,
    /// No member has ever heard it as it is described now: no sign of death, but no protection either.
    NeverHeard,
    /// Gray: its kernel lives; the slower deadline runs.
    Gray {
        /// The deadline.
        after: Millis,
    },
    /// Too many nodes have failed: this is probably us or something they share.
    Hold {
        /// Where: `the cluster` or a failure domain.
        place: String,
        /// Failed or just fenced nodes there.
        failed: u32,
        /// The limit.
        max: u32,
        /// What they have in common, if anything.
        common: Option<String>,
    },
    /// An operator called the failover off before anything was done.
    CalledOff {
        /// Who.
        by: String,
        /// The reason given.
        reason: String,
    },
    /// A hold has ended a short while ago: those that are still missing may be about to return.
    HoldSettles {
        /// How long after the hold.
        after: Millis,
    },
    /// The limit of fences at the same time.
    FencesInFlight {
        /// Under way.
        now: u32,
        /// The limit.
        max: u32,
    },
    /// The limit of fences within ten minutes.
    FencesPer10Min {
        /// Begun.
        now: u32,
        /// The limit.
        max: u32,
    },
    /// Decided, but outside of the windows in which the policy may act as it does inside.
    OutsideWindow {
        /// When the next window begins.
        begins: Wall,
        /// What is waited for until then.
        meanwhile: Box<Waiting>,
    },
    /// Decided, but the policy only watches.
    Shadow {
        /// The node that would be fenced.
        node: NodeId,
        /// The spare that would take over.
        spare: NodeId,
    },
    /// Decided, and waiting for a human's leave.
    Approval {
        /// The instance that would move.
        instance: InstanceId,
        /// The spare that would take over.
        spare: NodeId,
        /// When it begins without an answer.
        unapproved_after: After,
    },
    /// No spare fits.
    NoFittingSpare {
        /// Each node that was looked at and what it misses.
        missing: Vec<(NodeId, String)>,
    },
    /// A failover begins and will not get through: what it needs of providers is not there, or nobody has been able to
    /// tell for too long.
    NotReady {
        /// Each object and what its provider says.
        lacks: Vec<(Check, Finding)>,
    },
    /// Volumes and ports of the old node are not all cut off.
    IsolationMissing {
        /// What is missing.
        missing: Vec<String>,
    },
    /// The old node is isolated, but not proven to be off.
    PowerProofMissing {
        /// The node.
        node: NodeId,
        /// How the last attempt ended.
        last: Option<String>,
        /// When isolation alone will do.
        isolation_alone: After,
    },
    /// Power is proven, but the node has no port and the instance no volume to revoke, and the policy wants more.
    NothingToIsolate {
        /// The node.
        node: NodeId,
    },
    /// An older, contradicting command may still take effect (R5).
    Draining {
        /// The older command.
        older: String,
        /// Its token.
        token: LogIndex,
    },
    /// A step is under way.
    InFlight {
        /// Steps under way.
        steps: Vec<String>,
    },
    /// A step failed and will be tried again.
    Retrying {
        /// The step.
        step: String,
        /// How the last attempt ended.
        last: String,
    },
    /// The old node's kernel was interrupted and may be writing its crash dump; its power is cut after that.
    CrashDump {
        /// Which node.
        node: NodeId,
        /// How long it has from the interrupt on.
        max: Millis,
    },
    /// The hot spare was not heard in time after it was told to go on into the instance.
    StartsCold {
        /// Which node.
        node: NodeId,
        /// In which epoch.
        epoch: Epoch,
        /// How long it had.
        after: Millis,
    },
    /// The spare was started; its first heartbeat of the new epoch is awaited.
    FirstHeartbeat {
        /// The spare.
        node: NodeId,
        /// The epoch.
        epoch: Epoch,
    },
    /// A failover is under way.
    PlanRunning {
        /// Which.
        plan: PlanId,
    },
    /// The node failed, but carries nothing that could be moved.
    NothingToMove,
    /// The node is fenced and must not run; it comes back through `hactl node release`.
    Quarantined,
    /// The node was released, and its cloud could not clean it.
    Unclean {
        /// What the cloud says.
        why: String,
    },
    /// The node is quarantined, and yet its power is on: somebody switched it on, or its BMC answers again.
    QuarantinedButOn {
        /// Which.
        node: NodeId,
    },
    /// The node is quarantined, and yet something beats under its name.
    QuarantinedButAlive {
        /// The node.
        node: NodeId,
    },
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waiting::NotLeader { leader: Some(leader) } => {
                write!(f, "this member does not lead; {leader} does")
            }
            Waiting::NotLeader { leader: None } => {
                write!(f, "this member sees no leader: without a quorum nothing is done")
            }
            Waiting::TakingOver => write!(f, "the new leader's take-over is being committed"),
            Waiting::Disarmed { reason } => {
                write!(f, "the cluster is disarmed ({reason}); `hactl arm` arms it")
            }
            Waiting::Maintenance { node, reason } => {
                write!(f, "{node} is in maintenance ({reason}): hands off")
            }
            Waiting::MembersDisagree { dead, needed } => {
                write!(f, "{dead} members see it dead, {needed} are needed")
            }
            Waiting::MembersDoubt { doubting, needed, why } => {
                write!(f, "{doubting} members doubt themselves ({why}), {needed} are needed to judge")
            }
            Waiting::DomainsTooFew { domains, needed } => {
                write!(
                    f,
                    "the members that see it dead stand in {domains} failure domains, {needed} are needed"
                )
            }
            Waiting::AskingKernel => write!(f, "suspected; its kernel is being asked"),
            Waiting::NeverHeard => {
                write!(
                    f,
                    "never heard since it was described: does its agent run, are its key and its probe right?"
                )
            }
            Waiting::Gray { after } => write!(f, "gray: its kernel lives; it counts as failed after {after}"),
            Waiting::Hold { place, failed, max, common } => {
                write!(f, "hold: {failed} nodes failed in {place}, more than {max}")?;
                match common {
                    Some(common) => write!(f, "; all stand in {common}"),
                    None => Ok(()),
                }
            }
            Waiting::CalledOff { by, reason } => {
                write!(
                    f,
                    "{by} called the failover off ({reason}); it is not tried before the node is judged anew or its instance is evacuated"
                )
            }
            Waiting::HoldSettles { after } => {
                write!(f, "a hold has just ended; what is still missing is left alone for {after}")
            }
            Waiting::FencesInFlight { now, max } => {
                write!(f, "{now} fences are under way, at most {max} may be")
            }
            Waiting::FencesPer10Min { now, max } => {
                write!(f, "{now} fences were begun within ten minutes, at most {max} may be")
            }
            Waiting::OutsideWindow { begins, meanwhile } => {
                let begins = crate::window::minute(*begins);
                write!(f, "outside of the policy's windows until {begins}; until then {meanwhile}")
            }
            Waiting::Shadow { node, spare } => {
                write!(
                    f,
                    "shadow: {node} would be fenced and {spare} would take over; the policy only watches"
                )
            }
            Waiting::Approval { instance, spare, unapproved_after } => {
                write!(
                    f,
                    "{instance} may move to {spare} once somebody says `hactl failover approve {instance}`"
                )?;
                match unapproved_after {
                    After::Never => Ok(()),
                    After::Time(after) => write!(f, "; without an answer it begins after {after}"),
                }
            }
            Waiting::NoFittingSpare { missing } if missing.is_empty() => write!(f, "there is no spare"),
            Waiting::NoFittingSpare { missing } => {
                write!(f, "no spare fits")?;
                missing.iter().try_for_each(|(node, what)| write!(f, "; {node}: {what}"))
            }
            Waiting::NotReady { lacks } => {
                write!(f, "not ready for a failover")?;
                lacks.iter().try_for_each(|(check, finding)| match finding {
                    Finding::Fine | Finding::Absent(_) | Finding::Faulty(_) | Finding::Unclaimed => {
                        write!(f, "; {check}: {finding}")
                    }
                    Finding::CannotTell(words) => {
                        write!(f, "; {check}: for more than {CANNOT_TELL_MAX} nobody can tell: {words}")
                    }
                })
            }
            Waiting::IsolationMissing { missing } => write!(f, "not yet isolated: {}", missing.join(", ")),
            Waiting::PowerProofMissing { node, last, isolation_alone } => {
                write!(f, "{node} is not proven to be off")?;
                if let Some(last) = last {
                    write!(f, " ({last})")?;
                }
                match isolation_alone {
                    After::Never => {
                        write!(f, "; `hactl confirm-off {node}` if you have seen it off yourself")
                    }
                    After::Time(after) => write!(f, "; isolation alone is accepted after {after}"),
                }
            }
            Waiting::NothingToIsolate { node } => {
                write!(
                    f,
                    "power of {node} is proven off, but there is no port or volume to revoke, and the policy does not accept power alone"
                )
            }
            Waiting::Draining { older, token } => {
                write!(f, "an older command may still take effect: {older} ({token})")
            }
            Waiting::InFlight { steps } => write!(f, "under way: {}", steps.join(", ")),
            Waiting::Retrying { step, last } => write!(f, "will try again: {step} ({last})"),
            Waiting::CrashDump { node, max } => {
                write!(f, "{node} was interrupted and has {max} in all to write its crash dump")
            }
            Waiting::StartsCold { node, epoch, after } => write!(
                f,
                "{node} was not heard within {after} after it was told to go on into {epoch}: it is started cold"
            ),
            Waiting::FirstHeartbeat { node, epoch } => {
                write!(f, "waiting for the first heartbeat of {node} in {epoch}")
            }
            Waiting::PlanRunning { plan } => write!(f, "failover {plan} is under way"),
            Waiting::NothingToMove => write!(f, "it carries no instance: nothing to move"),
            Waiting::Quarantined => {
                write!(f, "quarantined: fenced and not yet released (`hactl node release`)")
            }
            Waiting::Unclean { why } => {
                write!(
                    f,
                    "quarantined: it could not be cleaned ({why}); see to it, then `hactl node release` again"
                )
            }
            Waiting::QuarantinedButOn { node } => {
                write!(f, "{node} is quarantined and must not run, but its power is on: it is switched off")
            }
            Waiting::QuarantinedButAlive { node } => {
                write!(
                    f,
                    "{node} is quarantined and must not run, but it beats: look at its power and its BMC"
                )
            }
        }
    }
}
