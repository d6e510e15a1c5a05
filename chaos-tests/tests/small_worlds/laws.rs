//! What must hold in every state of a small world.
//!
//! Why it exists: a law is asked of the ground truth or of the committed state, never of what an engine believes.
//! What it never does: forgive. A shortcut's world is expected to break exactly the law that is named for it.

use super::world::World;
use policies::*;
use std::collections::BTreeSet;

/// A sentence that must always be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Law {
    /// Never two powered nodes with access to one volume.
    OneOwner,
    /// Never two powered nodes with a port open into one network.
    OneAddress,
    /// No attach before the old node was off.
    ProofFirst,
    /// A spare serves one instance.
    OneInstance,
    /// A rightful owner is never cut off by a late command.
    OwnerSpared,
    /// One running plan for each node, instance and spare.
    OnePlan,
}

impl Law {
    pub(crate) const ALL: [Law; 6] =
        [Law::OneOwner, Law::OneAddress, Law::ProofFirst, Law::OneInstance, Law::OwnerSpared, Law::OnePlan];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Law::OneOwner => "one owner",
            Law::OneAddress => "one address",
            Law::ProofFirst => "proof first",
            Law::OneInstance => "one instance",
            Law::OwnerSpared => "owner spared",
            Law::OnePlan => "one plan",
        }
    }

    pub(crate) fn holds(self, world: &World) -> bool {
        let ground = &world.ground;
        match self {
            Law::OneOwner => ground.access.iter().all(|nodes| (nodes & ground.on).count_ones() <= 1),
            Law::OneAddress => ground.open.iter().all(|nodes| (nodes & ground.on).count_ones() <= 1),
            Law::ProofFirst => !world.harm.early && given_after_proof(world.truth()),
            Law::OneInstance => (0..8).all(|node| {
                let served = ground.access.iter().filter(|nodes| **nodes & 1 << node != 0);
                served.count() <= 1
            }),
            Law::OwnerSpared => !world.harm.struck,
            Law::OnePlan => plans_share_nothing(world.truth()),
        }
    }
}

/// The same as the log says it: nothing is given to a spare before the plan has its proof (R3).
fn given_after_proof(state: &ClusterState) -> bool {
    let gives = |intent: &Intent| match intent.action {
        Action::ShutDown { .. }
        | Action::Diagnose { .. }
        | Action::PowerOff { .. }
        | Action::Revoke { .. }
        | Action::ClosePort { .. }
        | Action::Claim { .. }
        | Action::Clean { .. }
        | Action::Interrupt { .. } => false,
        Action::Snapshot { .. }
        | Action::Attach { .. }
        | Action::OpenPort { .. }
        | Action::AttachVif { .. }
        | Action::SetBoot { .. }
        | Action::PowerOn { .. } => true,
    };
    state.plans.values().all(|plan| plan.proof.is_some() || !plan.intents.iter().any(gives))
}

/// R7.
fn plans_share_nothing(state: &ClusterState) -> bool {
    let (mut nodes, mut instances) = (BTreeSet::new(), BTreeSet::new());
    state.running().all(|plan| {
        let mut takes_part = std::iter::once(&plan.decision.from).chain(&plan.decision.spare);
        takes_part.all(|node| nodes.insert(node))
            && plan.decision.instance.iter().all(|instance| instances.insert(instance))
    })
}

/// True if nothing is left to do, or the leader says what is missing.
pub(crate) fn is_at_rest(world: &World) -> bool {
    let state = world.truth();
    let over = state.running().next().is_none();
    let ordered = state.instances.values().any(|record| record.evacuate.is_some());
    over && !ordered || says_why(world)
}

/// A stated reason that only a human can remove: there is no other spare.
fn says_why(world: &World) -> bool {
    let reasons = world.members[world.leader].engine.waiting().values();
    reasons.flatten().any(|why| matches!(why, Waiting::NoFittingSpare { .. }))
}

/// True if every failover is done and every instance runs where the log says.
pub(crate) fn is_served(world: &World) -> bool {
    let state = world.truth();
    let runs = |(place, record): (usize, &InstanceRecord)| {
        let bit = 1 << super::cluster::number(&record.node);
        record.epoch.0 > 0 && world.ground.on & world.ground.access[place] & bit != 0
    };
    state.running().next().is_none() && state.instances.values().enumerate().all(runs)
}
