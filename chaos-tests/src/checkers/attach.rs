//! **Nothing is given to the new node before the old one is proven to be cut off.** When a plan's proof is committed,
//! the old node really cannot write the instance's volumes and is in no network, and where the proof says that power
//! was seen off, some member has read it as off twice since the plan began. Nothing is given before that entry, and no
//! volume's state is kept for a failover while somebody can write to it, nor for a backup while a failover is about it.
//! (R2, R3; facts/verification.md I3.)

use super::{Checker, Deed, Fact, Scene};
use policies::{
    Accepted, Command, InstanceRecord, NodeId, Phase, Plan, PlanId, SnapshotName, Step, VolumeId,
};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Attach {
    /// How often each node was read as off without a reading of on in between, by anybody.
    off: BTreeMap<NodeId, u32>,
    /// When that was last twice or more.
    twice: BTreeMap<NodeId, u64>,
    /// When each plan was begun.
    begun: BTreeMap<PlanId, u64>,
}

impl Checker for Attach {
    fn name(&self) -> &'static str {
        "attach"
    }

    fn see(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Looked { node, on: true, .. } => drop(self.off.insert(node.clone(), 0)),
            Fact::Looked { node, on: false, .. } => {
                let off = self.off.entry(node.clone()).or_default();
                *off += 1;
                if *off >= 2 {
                    self.twice.insert(node.clone(), scene.now);
                }
            }
            Fact::Sent { deed: Deed::Snapshot { volume, name: SnapshotName::Failover(_) }, .. } => {
                return still(scene, volume);
            }
            Fact::Sent { deed: Deed::Snapshot { volume, name: SnapshotName::Backup(_) }, .. } => {
                return in_peace(scene, volume);
            }
            Fact::Sent { deed, .. } if deed.gives() => return given(scene, deed),
            _ => {}
        }
        let Some((index, proposal)) = scene.entry(fact) else { return Ok(()) };
        match &proposal.command {
            Command::Lead { step: Step::Begin(_) | Step::Replace { .. }, .. } => {
                self.begun.insert(PlanId(index.0), scene.now);
                let plan = scene.state.plans.get(&PlanId(index.0));
                let moved = plan.and_then(|plan| scene.state.instances.get(plan.decision.instance.as_ref()?));
                if moved.is_some_and(|record| record.backing_up().is_some()) {
                    scene.sometimes("a failover begins during a backup");
                }
                Ok(())
            }
            Command::Lead { step: Step::Place { plan, .. }, .. } => {
                scene.state.plans.get(plan).map_or(Ok(()), |plan| self.proven(scene, plan))
            }
            _ => Ok(()),
        }
    }
}

/// Only the plan that the node is the spare of may give it something, and only after its proof.
fn given(scene: &Scene, deed: &Deed) -> Result<(), String> {
    let plans = scene.state.plans.values();
    let mut proven = plans.filter(|plan| plan.decision.spare.as_ref() == deed.node());
    match proven.any(|plan| plan.proof.is_some()) {
        true => Ok(()),
        false => Err(format!("`{deed}` was sent without any proven plan for it")),
    }
}

/// What is kept of a volume must not be torn.
fn still(scene: &Scene, volume: &VolumeId) -> Result<(), String> {
    match scene.truth.writers.get(volume).into_iter().flatten().next() {
        Some(node) => Err(format!("the state of {volume} is kept while {node} can write to it")),
        None => {
            scene.sometimes("a volume's state is kept before it is given on");
            Ok(())
        }
    }
}

/// A failover goes before a backup: none is sent while one is about the volume's instance or its node.
fn in_peace(scene: &Scene, volume: &VolumeId) -> Result<(), String> {
    let has_it = |record: &&InstanceRecord| record.instance.volumes.iter().any(|it| it.volume == *volume);
    for record in scene.state.instances.values().filter(has_it) {
        let name = &record.instance.name;
        let plan = scene.state.plan_of_instance(name).or_else(|| scene.state.plan_of_node(&record.node));
        if let Some(plan) = plan {
            return Err(format!("{volume} is kept for a backup during {}", plan.id));
        }
    }
    if scene.truth.writers.get(volume).is_some_and(|writers| !writers.is_empty()) {
        scene.sometimes("a volume is backed up while it is in use");
    }
    Ok(())
}

impl Attach {
    fn proven(&self, scene: &Scene, plan: &Plan) -> Result<(), String> {
        let (from, Some(proof)) = (&plan.decision.from, &plan.proof) else {
            return Err(format!("{} is placed without proof", plan.id));
        };
        if let (Accepted::PowerAndIsolation | Accepted::PowerAlone, true) =
            (proof.accepted(), self.twice.get(from) < self.begun.get(&plan.id))
        {
            return Err(format!("{} says that {from} was seen off twice; nobody has", plan.id));
        }
        if plan.phase == Phase::Done {
            scene.sometimes("a node is fenced without an instance to move");
        }
        let instance = plan.decision.instance.as_ref().and_then(|name| scene.state.instances.get(name));
        for volume in instance.iter().flat_map(|record| &record.instance.volumes) {
            if scene.truth.writers.get(&volume.volume).is_some_and(|nodes| nodes.contains(from)) {
                return Err(format!("{} is proven, but {from} can still write {}", plan.id, volume.volume));
            }
        }
        if scene.truth.networks.contains_key(from) {
            return Err(format!("{} is proven, but the port of {from} is open", plan.id));
        }
        if scene.truth.powered.contains(from) {
            scene.sometimes("isolation saves us: a proven node still has power");
        }
        Ok(())
    }
}
