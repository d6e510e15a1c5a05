//! **A quarantined node gets nothing.** No command that gives a node something is sent while it is fenced or
//! quarantined; it comes back only by an operator's release. (R6; facts/verification.md I8, I9.)

use super::{Checker, Fact, Scene};
use policies::{NodeId, NodeState};
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
            let record = scene.state.nodes.get(deed.node());
            return match record.map(|record| &record.state) {
                Some(state @ (NodeState::Quarantined { .. } | NodeState::Cleaning { .. }))
                    if deed.gives() =>
                {
                    Err(format!("`{deed}` was sent although it is {state}"))
                }
                _ => Ok(()),
            };
        }
        if scene.entry(fact).is_none() {
            return Ok(());
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
