//! Shortcuts that rewrite what an engine is told: a snapshot that says what a naive design would have decided.
//!
//! Why it exists: the core refuses such decisions, so they come from outside it. What it never does: run in a world
//! without a shortcut.

use super::rules::Shortcut;
use super::world::World;
use policies::*;

/// [`Shortcut::CancelAnyTime`]: the failover is forgotten, whatever was done; its old node is the owner again.
pub(crate) fn cancel(world: &mut World, plan: PlanId) {
    rewrite(world, |state| {
        let Some(plan) = state.plans.get_mut(&plan) else { return };
        plan.phase = Phase::Cancelled;
        let decision = plan.decision.clone();
        if let Some(spare) = decision.spare.and_then(|spare| state.nodes.get_mut(&spare)) {
            spare.state = NodeState::Spare;
        }
        if let Some(name) = decision.instance {
            let record = state.instances.get_mut(&name).unwrap();
            (record.node, record.evacuate) = (decision.from.clone(), None);
            state.nodes.get_mut(&decision.from).unwrap().state = NodeState::Active { instance: name };
        }
    });
}

/// [`Shortcut::SpareChangedFreely`]: the instance is promised to the next spare, the one before is simply forgotten.
pub(crate) fn change_spare(world: &mut World, plan: PlanId, next: &NodeId) {
    world.budget.changes -= 1;
    rewrite(world, |state| {
        let Some(plan) = state.plans.get_mut(&plan) else { return };
        let (Some(name), Some(old)) = (plan.decision.instance.clone(), plan.decision.spare.clone()) else {
            return;
        };
        plan.decision.spare = Some(next.clone());
        plan.phase = Phase::Moving;
        plan.intents.retain(|intent| intent.action.node() != &old);
        state.nodes.get_mut(&old).unwrap().state = NodeState::Spare;
        state.nodes.get_mut(next).unwrap().state = NodeState::Active { instance: name.clone() };
        state.instances.get_mut(&name).unwrap().node = next.clone();
    });
}

/// What the log would have decided without one of its checks.
pub(crate) fn after_commit(world: &mut World, command: &Command) {
    match (world.rules().shortcut, command) {
        (Some(Shortcut::NoQuarantine), Command::Lead { step: Step::Place { .. }, .. }) => release_all(world),
        (Some(Shortcut::NoCompareAndSet), Command::Lead { step: Step::Begin(_), .. }) => overbook(world),
        (_, _) => {}
    }
}

/// [`Shortcut::NoQuarantine`]: whatever was fenced may be taken again at once.
fn release_all(world: &mut World) {
    rewrite(world, |state| {
        for record in state.nodes.values_mut() {
            if matches!(record.state, NodeState::Quarantined { .. }) {
                (record.state, record.verdict) = (NodeState::Spare, Verdict::Unknown);
            }
        }
    });
}

/// [`Shortcut::NoCompareAndSet`]: another instance that must move is promised the same spare.
fn overbook(world: &mut World) {
    rewrite(world, |state| {
        let Some(first) = state.running().last().cloned() else { return };
        let waits = |record: &&InstanceRecord| state.plan_of_instance(&record.instance.name).is_none();
        let Some(record) = state.instances.values().find(waits) else { return };
        let id = PlanId(first.id.0 + OVERBOOKED);
        let mut second = Plan { id, ..first };
        second.decision.instance = Some(record.instance.name.clone());
        second.decision.from = record.node.clone();
        state.plans.insert(id, second);
    });
}

/// Far from every index of a small world's log, for the second plan has no entry of its own.
const OVERBOOKED: u64 = 1_000_000;

fn rewrite(world: &mut World, change: impl Fn(&mut ClusterState)) {
    for member in 0..2 {
        let mut state = world.members[member].engine.state().clone();
        change(&mut state);
        world.feed(member, Input::Installed(Box::new(state)));
    }
}
