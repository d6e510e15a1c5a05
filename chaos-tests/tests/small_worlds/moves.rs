//! What may happen next in a small world, and under which assumptions.
//!
//! Why it exists: the physical assumptions of the design (R5) stand here, each at the event that it forbids:
//! time that lets a command count as gone passes only once it is gone; a deposed leader's commands are refused.
//! What it never does: judge what happened.

use super::cluster::{Span, instance, node, number, volume_number};
use super::naive;
use super::rules::{Rules, Shortcut};
use super::world::{Job, Letter, World};
use policies::*;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Move {
    /// The log takes the leader's oldest proposal.
    Commit,
    /// The other member is elected; so many of the old leader's proposals are in the log.
    Elect { kept: usize },
    /// The leader dies and is elected again.
    Restart { kept: usize },
    /// A deposed leader applies one more entry.
    Read,
    /// A deposed leader is told.
    Learn,
    /// A command arrives.
    Deliver(Letter),
    /// A command arrives, and a copy of it is still on its way.
    DeliverCopy(Letter),
    /// A power-off arrives; the BMC says "off" and does nothing.
    Lie(Letter),
    /// An executor reads back what it wished for.
    Finish(Job),
    /// An executor does not see what it wished for.
    GiveUp(Job),
    /// A node that was started beats.
    Beat(usize),
    /// Somebody switches a node on.
    Boot(usize),
    /// An operator cancels.
    Cancel(PlanId),
    /// An operator releases a quarantined node.
    Release(usize),
    /// An operator orders an instance to move again.
    Order(usize),
    /// An operator cordons a node.
    Cordon(usize),
    /// [`Shortcut::SpareChangedFreely`].
    ChangeSpare(PlanId, usize),
    /// Time passes.
    Pass(Span),
}

/// Everything that may happen now.
pub(crate) fn possible(world: &World, rules: &Rules) -> Vec<Move> {
    let mut moves = vec![];
    elections(world, &mut moves);
    operators(world, rules, &mut moves);
    // The log is faster than any device: with an order of the two in which a device comes first, the same states are
    // reached by letting it come before the proposal.
    if !world.pending.is_empty() {
        moves.push(Move::Commit);
        return moves;
    }
    if !world.alone.is_empty() {
        moves.push(Move::Commit);
    }
    devices(world, rules, &mut moves);
    executors(world, rules, &mut moves);
    time(world, rules, &mut moves);
    moves
}

fn elections(world: &World, moves: &mut Vec<Move>) {
    let other_knows = world.aware[1 - world.leader];
    let proposed = world.pending.len() + world.alone.len();
    if world.budget.elections > 0 {
        moves.extend((0..=proposed).map(|kept| Move::Elect { kept }));
    }
    if world.budget.restarts > 0 && other_knows {
        moves.extend((0..=proposed).map(|kept| Move::Restart { kept }));
    }
    if !other_knows {
        moves.push(Move::Learn);
        if !world.unread.is_empty() {
            moves.push(Move::Read);
        }
    }
}

fn operators(world: &World, rules: &Rules, moves: &mut Vec<Move>) {
    let state = world.truth();
    if world.budget.cancels > 0 {
        moves.extend(state.running().map(|plan| Move::Cancel(plan.id)));
    }
    if !world.pending.is_empty() {
        return;
    }
    let rests = |node: &NodeId| state.plan_of_node(node).is_none();
    if world.budget.releases > 0 {
        let quarantined = |place: &usize| {
            let name = node(*place);
            let is = matches!(state.nodes[&name].state, NodeState::Quarantined { .. });
            is && rests(&name) && state.instances.values().all(|record| record.node != name)
        };
        moves.extend((0..rules.nodes()).filter(quarantined).map(Move::Release));
    }
    if world.budget.orders > 0 {
        let settled = |place: &usize| {
            let record = &state.instances[&instance(*place)];
            record.evacuate.is_none() && state.plan_of_instance(&record.instance.name).is_none()
        };
        moves.extend((0..rules.instances).filter(settled).map(Move::Order));
    }
    if world.budget.cordons > 0 {
        let open = |place: &usize| !state.nodes[&node(*place)].cordoned;
        moves.extend((rules.instances..rules.nodes()).filter(open).map(Move::Cordon));
    }
    if world.budget.changes > 0 && rules.takes(Shortcut::SpareChangedFreely) {
        let moving = state.running().filter(|plan| matches!(plan.phase, Phase::Moving | Phase::Starting));
        for plan in moving {
            let spare = |place: &usize| state.nodes[&node(*place)].state == NodeState::Spare;
            moves.extend((0..rules.nodes()).filter(spare).map(|place| Move::ChangeSpare(plan.id, place)));
        }
    }
}

fn devices(world: &World, rules: &Rules, moves: &mut Vec<Move>) {
    for letter in &world.bag {
        moves.push(Move::Deliver(letter.clone()));
        if world.budget.copies > 0 {
            moves.push(Move::DeliverCopy(letter.clone()));
        }
        if world.budget.lies > 0 && matches!(letter.action, Action::PowerOff { .. }) {
            moves.push(Move::Lie(letter.clone()));
        }
    }
    if world.budget.boots > 0 {
        moves.extend((0..rules.nodes()).filter(|place| !world.ground.is_on(*place)).map(Move::Boot));
    }
    let state = world.truth();
    for plan in state.running().filter(|plan| plan.phase == Phase::Starting) {
        let (Some(spare), Some(name)) = (&plan.decision.spare, &plan.decision.instance) else { continue };
        let volumes = &state.instances[name].instance.volumes;
        let place = number(spare);
        let has = |volume: &Volume| world.ground.access[volume_number(&volume.volume)] & 1 << place != 0;
        if world.ground.is_on(place) && volumes.iter().all(has) {
            moves.push(Move::Beat(place));
        }
    }
}

fn executors(world: &World, rules: &Rules, moves: &mut Vec<Move>) {
    for job in &world.jobs {
        let on_its_way = world.bag.iter().any(|letter| letter.action == job.action);
        if world.ground.shows(&job.action, rules).is_some() {
            moves.push(Move::Finish(job.clone()));
        } else if !on_its_way || world.budget.timeouts > 0 {
            moves.push(Move::GiveUp(job.clone()));
        }
    }
}

fn time(world: &World, rules: &Rules, moves: &mut Vec<Move>) {
    let waits = |wanted: fn(&Waiting) -> bool| {
        world.members[world.leader].engine.waiting().values().flatten().any(wanted)
    };
    let short = !rules.drains() && waits(|why| matches!(why, Waiting::Draining { .. }));
    if short || waits(|why| matches!(why, Waiting::Retrying { .. })) {
        moves.push(Move::Pass(Span::Retry));
    }
    if !world.jobs.is_empty() {
        return;
    }
    // Every executor has ended, and this is longer than any command may be late.
    moves.push(Move::Pass(Span::Drain));
    let moving = |plan: &Plan| matches!(plan.phase, Phase::Moving | Phase::Starting);
    let gives_up = world.budget.changes > 0 && !rules.takes(Shortcut::SpareChangedFreely);
    if gives_up && world.truth().running().any(moving) {
        moves.push(Move::Pass(Span::Start));
    }
}

/// What follows.
pub(crate) fn make(mut world: World, rules: &Rules, made: Move) -> World {
    match made {
        Move::Commit => world.commit_next(),
        Move::Elect { kept } => world.elect(kept),
        Move::Restart { kept } => world.restart(kept),
        Move::Read => world.read(),
        Move::Learn => world.learn(),
        Move::Deliver(letter) => world.deliver(&letter, false),
        Move::DeliverCopy(letter) => world.deliver(&letter, true),
        Move::Lie(letter) => world.lie(&letter),
        Move::Finish(job) => {
            if let Some(outcome) = world.ground.shows(&job.action, rules) {
                world.end(&job, outcome);
            }
        }
        Move::GiveUp(job) => {
            if world.bag.iter().any(|letter| letter.action == job.action) {
                world.budget.timeouts -= 1;
            }
            world.end(&job, Outcome::Unknown(Doubt::NoAnswer { waited: Millis(0) }));
        }
        Move::Beat(place) => world.beat(place),
        Move::Boot(place) => {
            world.budget.boots -= 1;
            world.ground.boot(place);
        }
        Move::Cancel(plan) => cancel(&mut world, rules, plan),
        Move::Release(place) => {
            world.budget.releases -= 1;
            world.commit(Command::Release { node: node(place), reason: "o".to_owned() });
        }
        Move::Order(place) => {
            world.budget.orders -= 1;
            world.commit(Command::Evacuate { instance: instance(place), reason: "o".to_owned() });
        }
        Move::Cordon(place) => {
            world.budget.cordons -= 1;
            world.commit(Command::Cordon { node: node(place), on: true });
        }
        Move::ChangeSpare(plan, place) => naive::change_spare(&mut world, plan, &node(place)),
        Move::Pass(span) => world.pass(span),
    }
    world.seal()
}

/// The real core refuses this after the point of no return; then the world is as it was.
fn cancel(world: &mut World, rules: &Rules, plan: PlanId) {
    let before = world.truth().plans[&plan].phase;
    if rules.takes(Shortcut::CancelAnyTime) {
        naive::cancel(world, plan);
    } else {
        world.commit(Command::Cancel { plan, reason: "o".to_owned() });
    }
    if world.truth().plans[&plan].phase != before {
        world.budget.cancels -= 1;
    }
}
