//! **One running plan for each node, instance and spare, and no plan goes back.** (R4, R6, R7; facts/verification.md I6,
//! I7.)

use super::{Checker, Fact, Scene};
use policies::{Phase, PlanId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct Plans {
    phases: BTreeMap<PlanId, Phase>,
}

/// Whether a plan may go from one phase to the other, at once or with phases between that nobody has seen.
fn leads_to(from: Phase, to: Phase) -> bool {
    match to {
        // Only before anything was done (R6).
        Phase::Cancelled => from == Phase::Reserved,
        Phase::Replaced => matches!(from, Phase::Moving | Phase::Starting),
        Phase::Reserved
        | Phase::Stopping
        | Phase::Fencing
        | Phase::Moving
        | Phase::Starting
        | Phase::Done => !from.is_over() && from < to,
    }
}

impl Checker for Plans {
    fn name(&self) -> &'static str {
        "plans"
    }

    fn see(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        if scene.entry(fact).is_none() {
            return Ok(());
        }
        let (mut nodes, mut instances) = (BTreeSet::new(), BTreeSet::new());
        for plan in scene.state.running() {
            for node in std::iter::once(&plan.decision.from).chain(&plan.decision.spare) {
                if !nodes.insert(node) {
                    return Err(format!("{node} takes part in two plans, one of them {}", plan.id));
                }
            }
            if plan.decision.instance.as_ref().is_some_and(|instance| !instances.insert(instance)) {
                return Err(format!("{:?} is moved by two plans", plan.decision.instance));
            }
        }
        for plan in scene.state.plans.values() {
            match self.phases.insert(plan.id, plan.phase) {
                Some(before) if before != plan.phase && !leads_to(before, plan.phase) => {
                    return Err(format!("{} went from {before} to {}", plan.id, plan.phase));
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }
}
