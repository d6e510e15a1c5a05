//! Everything that is known of one failover when it is over.
//!
//! What this is: what the array, the rack and the cluster say, as one value that is also written to `findings.json`
//! beside the logs.
//! Why it exists: the verdict and the times are functions of it, so that they can be tested without a failover.
//! What it never does: judge.

use super::DemoError;
use super::kind::Kind;
use super::moments::Point;
use crate::rack::array::{Handover, VolumeReport};
use crate::rack::{Description, Life, Report};
use policies::{
    Accepted, Action, Epoch, FenceProof, InstanceId, Intent, LeaderEpoch, MemberId, NodeId, Phase, Plan,
    PlanId, Power, VolumeId, Wall,
};
use serde::Serialize;
use std::collections::BTreeMap;

/// Who is struck and what he carries.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Victim {
    pub(super) node: NodeId,
    pub(super) instance: InstanceId,
    pub(super) volume: VolumeId,
}

impl Victim {
    /// The node of the rack's first instance.
    pub(super) fn of(description: &Description) -> Result<Victim, DemoError> {
        let first = description.instances.first();
        let instance = first
            .ok_or_else(|| DemoError::Unexpected("the rack was described without instances".to_owned()))?;
        let (node, volume) = (instance.node.clone(), instance.volume.clone());
        Ok(Victim { node, instance: instance.name.clone(), volume })
    }
}

/// A leader that was killed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Killed {
    pub(super) member: MemberId,
    /// When it was certainly dead.
    pub(super) at: Point,
}

/// What the cluster committed about one failover.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Failover {
    pub(super) id: PlanId,
    pub(super) decided: Point,
    pub(super) instance: Option<InstanceId>,
    pub(super) from: NodeId,
    pub(super) spare: Option<NodeId>,
    pub(super) epoch: Epoch,
    pub(super) phase: Phase,
    /// What the proof rests on, and when it was committed.
    pub(super) proof: Option<(Accepted, Point)>,
    /// The proof as a sentence.
    pub(super) proof_text: String,
    pub(super) steps: Vec<StepTaken>,
}

/// One step of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct StepTaken {
    pub(super) action: Action,
    /// Whose intent it was.
    pub(super) leader: LeaderEpoch,
    pub(super) intended: Point,
    pub(super) ended: Option<Point>,
    pub(super) done: bool,
}

impl From<&Plan> for Failover {
    fn from(plan: &Plan) -> Self {
        let proven =
            plan.entered.iter().find(|(phase, _)| *phase == Phase::Moving).map(|(_, at)| Point::of(*at));
        let accepted = plan.proof.as_ref().map(FenceProof::accepted).cloned();
        Failover {
            id: plan.id,
            decided: Point::of(plan.at),
            instance: plan.decision.instance.clone(),
            from: plan.decision.from.clone(),
            spare: plan.decision.spare.clone(),
            epoch: plan.epoch,
            phase: plan.phase,
            proof: accepted.zip(proven),
            proof_text: plan.proof.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string),
            steps: plan.intents.iter().map(StepTaken::from).collect(),
        }
    }
}

impl From<&Intent> for StepTaken {
    fn from(intent: &Intent) -> Self {
        StepTaken {
            action: intent.action.clone(),
            leader: intent.leader,
            intended: Point::of(intent.at),
            ended: intent.end.as_ref().map(|(_, at)| Point::of(*at)),
            done: intent.is_done(),
        }
    }
}

/// Where the cluster has the instance now.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Placed {
    pub(super) node: NodeId,
    pub(super) epoch: Epoch,
}

/// What the struck machine really does, and what its BMC says.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) life: Life,
    pub(super) reported: Power,
}

/// What the array saw.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Writes {
    /// Acknowledged writes that were lost, over all volumes.
    pub(super) lost: u64,
    /// Writes of two writers at once, over all volumes.
    pub(super) overlapping: u64,
    pub(super) volumes: Vec<VolumeReport>,
}

/// One failover.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Findings {
    pub(super) kind: Kind,
    pub(super) victim: Victim,
    /// Wall clock at the rack's start, from which its times count.
    pub(super) started: Wall,
    /// When the rack let the fault happen, in nanoseconds since its start.
    pub(super) fault_ns: u64,
    /// The names by which the array knows the nodes.
    pub(super) initiators: BTreeMap<NodeId, String>,
    /// When each member heard the node no more.
    pub(super) suspected: BTreeMap<MemberId, Point>,
    /// When the cluster last judged the node failed.
    pub(super) judged: Option<Point>,
    pub(super) killed: Option<Killed>,
    /// All failovers of the cluster, oldest first.
    pub(super) failovers: Vec<Failover>,
    pub(super) placed: Placed,
    pub(super) machine: Machine,
    pub(super) writes: Writes,
}

impl Findings {
    /// A time of the rack on the wall clock.
    pub(super) fn point(&self, ns: u64) -> Point {
        Point::of_rack(self.started, ns)
    }

    pub(super) fn fault_at(&self) -> Point {
        self.point(self.fault_ns)
    }

    /// The log of the instance's volume.
    pub(super) fn volume(&self) -> Option<&VolumeReport> {
        self.writes.volumes.iter().find(|volume| volume.volume == self.victim.volume)
    }

    /// The first change of writer after the fault.
    pub(super) fn handover(&self) -> Option<&Handover> {
        first_handover(self.volume()?, self.fault_ns)
    }
}

/// The first change of a volume's writer after a time of the rack.
pub(super) fn handover<'a>(report: &'a Report, volume: &VolumeId, after: u64) -> Option<&'a Handover> {
    first_handover(report.volumes.iter().find(|log| log.volume == *volume)?, after)
}

fn first_handover(volume: &VolumeReport, after: u64) -> Option<&Handover> {
    volume.handovers.iter().find(|handover| handover.first_at > after)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::rack::array::Run;

    const SECOND: u64 = 1_000_000_000;

    fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
        text.parse().unwrap()
    }

    fn step(action: Action, intended: u64, ended: u64) -> StepTaken {
        let at = |ms| Point::of(Wall(1_000_000 + ms));
        StepTaken {
            action,
            leader: LeaderEpoch(2),
            intended: at(intended),
            ended: Some(at(ended)),
            done: true,
        }
    }

    fn volume(number: u64) -> VolumeReport {
        let initiator = format!("iqn:node-{number}");
        let run = Run { initiator, grant: 1, first: 1, last: 100, first_at: 0, last_at: 3 * SECOND };
        VolumeReport {
            volume: name(&format!("vol-{number}")),
            writes: 100,
            lost_writes: 0,
            overlapping_writes: 0,
            runs: vec![run],
            handovers: vec![],
            snapshots: BTreeMap::new(),
        }
    }

    /// A hang one second after the rack's start that went as it should: judged after 0.7 s, back after 1 s.
    pub(in crate::demo) fn hang() -> Findings {
        let (node, spare): (NodeId, NodeId) = (name("node-1"), name("node-5"));
        let at = |ms: u64| Point::of(Wall(1_000_000 + ms));
        let mut written = volume(1);
        let (from, to) = (written.runs[0].initiator.clone(), "iqn:node-5".to_owned());
        written.runs[0].last_at = SECOND - 5;
        let (last_at, first_at) = (SECOND - 5, 2 * SECOND);
        let last = 200;
        written.runs.push(Run {
            initiator: to.clone(),
            grant: 2,
            first: 101,
            last,
            first_at,
            last_at: 3 * SECOND,
        });
        written.handovers.push(Handover { from, to, last_at, first_at });
        let failover = Failover {
            id: PlanId(20),
            decided: at(1701),
            instance: Some(name("web-1")),
            from: node.clone(),
            spare: Some(spare.clone()),
            epoch: Epoch(2),
            phase: Phase::Done,
            proof: Some((Accepted::PowerAndIsolation, at(1750))),
            proof_text: "power seen off twice".to_owned(),
            steps: vec![
                step(Action::PowerOff { node: node.clone(), level: 0 }, 1705, 1730),
                step(Action::PowerOn { node: spare.clone() }, 1760, 1780),
            ],
        };
        Findings {
            kind: Kind::Hang,
            started: Wall(1_000_000),
            fault_ns: SECOND,
            initiators: [1, 2, 5].map(|n| (name(&format!("node-{n}")), format!("iqn:node-{n}"))).into(),
            suspected: [(MemberId(1), at(1500)), (MemberId(2), at(1490))].into(),
            judged: Some(at(1700)),
            killed: None,
            failovers: vec![failover],
            placed: Placed { node: spare, epoch: Epoch(2) },
            machine: Machine { life: Life::Off, reported: Power::Off },
            writes: Writes { lost: 0, overlapping: 0, volumes: vec![written, volume(2)] },
            victim: Victim { node, instance: name("web-1"), volume: name("vol-1") },
        }
    }
}
