//! **The brakes hold.** No fence is begun by the program itself while the cluster is disarmed or the node is in
//! maintenance, and never more at a time, or within ten minutes, than the policy allows. (Design §4;
//! facts/verification.md I11.)

use super::{Checker, Fact, Scene};
use policies::{Cause, Command, Decision, NodeId, PlanId, Step};
use std::collections::BTreeSet;

/// The window of `fences_per_10min_max`, in µs, less what two members' clocks and the log may differ by.
const WINDOW: u64 = 590_000_000;

#[derive(Debug, Default)]
pub(super) struct BrakesHold {
    begun: Vec<(u64, NodeId)>,
}

impl Checker for BrakesHold {
    fn name(&self) -> &'static str {
        "brakes"
    }

    fn see(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        let Some((_, proposal)) = scene.entry(fact) else { return Ok(()) };
        match &proposal.command {
            Command::Lead { step: Step::Begin(decision) | Step::Replace { decision, .. }, .. } => {
                begins(scene, decision)
            }
            Command::Lead { step: Step::Intend { plan, .. }, .. } => self.acts(scene, *plan),
            _ => Ok(()),
        }
    }
}

fn begins(scene: &Scene, decision: &Decision) -> Result<(), String> {
    let Some(policy) = scene.state.policies.get(&decision.policy.0) else { return Ok(()) };
    let (now, max) = (scene.state.fences_in_flight(), policy.policy.brakes.fences_in_flight_max);
    match decision.cause {
        _ if now > max => Err(format!("{now} fences are under way, at most {max} may be")),
        Cause::Ordered => Ok(()),
        _ if !scene.state.armed.armed => {
            Err(format!("{} is fenced although the cluster is disarmed", decision.from))
        }
        _ => Ok(()),
    }
}

impl BrakesHold {
    /// A plan's first step is the fence that counts.
    fn acts(&mut self, scene: &Scene, plan: PlanId) -> Result<(), String> {
        let Some(plan) = scene.state.plans.get(&plan).filter(|plan| plan.intents.len() == 1) else {
            return Ok(());
        };
        let Some(policy) = scene.state.policies.get(&plan.decision.policy.0) else { return Ok(()) };
        self.begun.retain(|(at, _)| scene.now - at < WINDOW);
        self.begun.push((scene.now, plan.decision.from.clone()));
        let nodes: BTreeSet<&NodeId> = self.begun.iter().map(|(_, node)| node).collect();
        let max = policy.policy.brakes.fences_per_10min_max;
        match u32::try_from(nodes.len()) {
            Ok(begun) if begun <= max => Ok(()),
            Ok(_) | Err(_) => Err(format!("{nodes:?} were fenced within ten minutes, at most {max} may be")),
        }
    }
}
