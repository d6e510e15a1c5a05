//! **A quarantined node gets nothing.** A node that is proven to be cut off is quarantined; no command that gives a node
//! something is sent while it is; it comes back only by an operator's release. (R4, R6; facts/verification.md I8, I9.)

use super::{Checker, Fact, Scene};
use policies::{Command, NodeId, NodeState, Step};
use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub(super) struct Quarantine {
    out: BTreeSet<NodeId>,
}

impl Checker for Quarantine {
    fn name(&self) -> &'static str {
        "quarantine"
    }

    fn see(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        if let Fact::Sent { deed, .. } = fact {
            let record = deed.node().and_then(|node| scene.state.nodes.get(node));
            return match record.map(|record| &record.state) {
                Some(state @ (NodeState::Quarantined { .. } | NodeState::Cleaning { .. }))
                    if deed.gives() =>
                {
                    Err(format!("`{deed}` was sent although it is {state}"))
                }
                _ => Ok(()),
            };
        }
        let Some((_, proposal)) = scene.entry(fact) else { return Ok(()) };
        if let Command::Lead { step: Step::Place { plan, .. }, .. } = &proposal.command
            && let Some(plan) = scene.state.plans.get(plan)
        {
            let from = &plan.decision.from;
            let state = scene.state.nodes.get(from).map(|record| &record.state);
            if !matches!(state, Some(NodeState::Quarantined { .. })) {
                return Err(format!("{from} was fenced by {}, and is {state:?}", plan.id));
            }
        }
        for (node, record) in &scene.state.nodes {
            match &record.state {
                NodeState::Quarantined { .. } => drop(self.out.insert(node.clone())),
                NodeState::Cleaning { .. } => drop(self.out.remove(node)),
                NodeState::Spare | NodeState::Reserved { .. } | NodeState::Active { .. }
                    if self.out.contains(node) =>
                {
                    return Err(format!("{node} left quarantine without a release"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
