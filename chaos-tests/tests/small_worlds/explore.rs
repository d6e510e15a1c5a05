//! Explores a small world to its end with stateright, and asks whether its goal stays within reach.
//!
//! Why it exists: stateright looks for broken laws; that a state of rest can be reached from every state is asked here,
//! over the same transitions, backwards (stateright's `eventually` is blind on cycles).
//! What it never does: stop early and call it exhausted.

use super::laws::{Law, is_at_rest, is_served};
use super::moves::{Move, make, possible};
use super::rules::Rules;
use super::world::World;
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A world with more transitions is not small. Far above the largest of ours, so that none ends here unnoticed.
const STEPS_MAX: usize = 400_000;

/// A world to explore, and the transitions that were found.
pub(crate) struct Exploration {
    rules: Rules,
    /// The only law to ask, for a world that is expected to break it.
    only: Option<Law>,
    steps: Mutex<Vec<Step>>,
}

/// From which state to which, by fingerprint; and whether the second is a state of rest.
struct Step {
    from: u64,
    to: u64,
    rests: bool,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) states: usize,
    pub(crate) transitions: usize,
    pub(crate) took: Duration,
    pub(crate) exhausted: bool,
    /// Broken laws, each with the shortest known way there.
    pub(crate) broken: Vec<(&'static str, Vec<String>)>,
    /// True if a state was found in which the instance runs on its new node.
    pub(crate) served: bool,
    /// States from which no state of rest can be reached. Only meaningful if exhausted.
    pub(crate) trapped: Vec<u64>,
}

const SERVED: &str = "served";

impl Exploration {
    fn asked(&self) -> impl Iterator<Item = Law> {
        Law::ALL.into_iter().filter(|law| self.only.is_none_or(|only| only == *law))
    }
}

impl Model for Exploration {
    type State = World;
    type Action = Move;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.rules)]
    }

    fn actions(&self, world: &World, moves: &mut Vec<Move>) {
        // What follows a broken law is of no interest.
        if self.asked().all(|law| law.holds(world)) {
            moves.extend(possible(world, &self.rules));
        }
    }

    fn next_state(&self, world: &World, made: Move) -> Option<World> {
        let next = make(world.clone(), &self.rules, made);
        if next == *world {
            return None;
        }
        let step = Step { from: world.print(), to: next.print(), rests: is_at_rest(&next) };
        self.steps.lock().unwrap().push(step);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let laws = [
            Property::<Self>::always(Law::OneOwner.name(), |_, world| Law::OneOwner.holds(world)),
            Property::<Self>::always(Law::OneAddress.name(), |_, world| Law::OneAddress.holds(world)),
            Property::<Self>::always(Law::ProofFirst.name(), |_, world| Law::ProofFirst.holds(world)),
            Property::<Self>::always(Law::OneInstance.name(), |_, world| Law::OneInstance.holds(world)),
            Property::<Self>::always(Law::OwnerSpared.name(), |_, world| Law::OwnerSpared.holds(world)),
            Property::<Self>::always(Law::OnePlan.name(), |_, world| Law::OnePlan.holds(world)),
        ];
        let served = Property::<Self>::sometimes(SERVED, |_, world| is_served(world));
        let asked = |property: &Property<Self>| self.asked().any(|law| law.name() == property.name);
        laws.into_iter().filter(asked).chain([served]).collect()
    }
}

/// Explores everything, or until a law is broken; of `only` one law, if it is given.
pub(crate) fn explore(rules: &Rules, only: Option<Law>) -> Findings {
    let began = Instant::now();
    let exploration = Exploration { rules: *rules, only, steps: Mutex::default() };
    // One thread goes strictly by depth, so that the way to a broken law is the shortest.
    let checker = exploration.checker().threads(1).target_state_count(STEPS_MAX);
    let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let mut findings = Findings {
        states: checker.unique_state_count(),
        transitions: checker.state_count(),
        took: Duration::ZERO,
        exhausted: false,
        broken: vec![],
        served: false,
        trapped: vec![],
    };
    for (name, path) in checker.discoveries() {
        if name == SERVED {
            findings.served = true;
        } else {
            let moves = path.into_actions().into_iter().map(|made| format!("{made:?}"));
            findings.broken.push((name, moves.collect()));
        }
    }
    findings.took = began.elapsed();
    findings.exhausted = findings.broken.is_empty() && findings.transitions < STEPS_MAX;
    if findings.exhausted {
        findings.trapped = trapped(&checker.model().steps.lock().unwrap());
    }
    findings
}

/// States from which no state of rest can be reached.
fn trapped(steps: &[Step]) -> Vec<u64> {
    let mut before: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut reached: HashMap<u64, bool> = HashMap::new();
    let mut next: Vec<u64> = vec![];
    for step in steps {
        before.entry(step.to).or_default().push(step.from);
        reached.entry(step.from).or_insert(false);
        let is_new = reached.insert(step.to, step.rests) != Some(step.rests);
        if step.rests && is_new {
            next.push(step.to);
        }
    }
    while let Some(state) = next.pop() {
        for earlier in before.remove(&state).unwrap_or_default() {
            if reached.insert(earlier, true) == Some(false) {
                next.push(earlier);
            }
        }
    }
    reached.into_iter().filter(|(_, reached)| !reached).map(|(state, _)| state).collect()
}
