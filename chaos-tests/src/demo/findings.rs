//! Everything that is known of one failover when it is over.
//!
//! What this is: what the array, the rack and the cluster say, in their own words, as one value that is also written
//! to `findings.json` beside the logs.
//! Why it exists: the verdict and the times are functions of it, so that they can be tested without a failover.
//! What it never does: judge.

use super::DemoError;
use super::kind::Kind;
use super::moments::Point;
use crate::rack::array::{Handover, VolumeReport};
use crate::rack::world::MachineStatus;
use crate::rack::{Description, Report, Status};
use policies::{InstanceId, InstanceRecord, MemberId, NodeId, NodeRecord, Plan, VolumeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Who is struck and what he carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Killed {
    pub(super) member: MemberId,
    pub(super) at: Point,
}

/// One failover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Findings {
    pub(super) kind: Kind,
    pub(super) victim: Victim,
    /// When the rack let the fault happen, in nanoseconds since its start.
    pub(super) fault_ns: u64,
    /// The names by which the array knows the nodes.
    pub(super) initiators: BTreeMap<NodeId, String>,
    /// When each member heard the node no more.
    pub(super) suspected: BTreeMap<MemberId, Point>,
    pub(super) killed: Option<Killed>,
    /// All failovers of the cluster, oldest first.
    pub(super) plans: Vec<Plan>,
    /// The struck node as the cluster has it now.
    pub(super) old: NodeRecord,
    /// Its instance as the cluster has it now.
    pub(super) placed: InstanceRecord,
    /// The rack as it is now.
    pub(super) status: Status,
    /// What the array has seen.
    pub(super) report: Report,
}

impl Findings {
    /// A time of the rack on the wall clock.
    pub(super) fn point(&self, ns: u64) -> Point {
        Point::of_rack(self.report.started, ns)
    }

    pub(super) fn fault_at(&self) -> Point {
        self.point(self.fault_ns)
    }

    /// The struck machine as it is now.
    pub(super) fn machine(&self) -> Option<&MachineStatus> {
        self.status.machines.get(&self.victim.node)
    }

    /// The log of the instance's volume.
    pub(super) fn volume(&self) -> Option<&VolumeReport> {
        self.report.volumes.iter().find(|volume| volume.volume == self.victim.volume)
    }

    /// The first change of writer after the fault.
    pub(super) fn handover(&self) -> Option<&Handover> {
        handover(&self.report, &self.victim.volume, self.fault_ns)
    }
}

/// The first change of a volume's writer after a time of the rack.
pub(super) fn handover<'a>(report: &'a Report, volume: &VolumeId, after: u64) -> Option<&'a Handover> {
    let log = report.volumes.iter().find(|log| log.volume == *volume)?;
    log.handovers.iter().find(|handover| handover.first_at > after)
}
