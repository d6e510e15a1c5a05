//! **A rightful owner is never powered off by a late command.** When a power-off takes effect at a node, no instance
//! belongs to that node, or a plan against it is past its first intent. (facts/verification.md I10.)

use super::{Checker, Deed, Fact, Scene};
use policies::NodeState;

#[derive(Debug, Default)]
pub(super) struct Bystander;

impl Checker for Bystander {
    fn name(&self) -> &'static str {
        "bystander"
    }

    fn see(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        let Fact::Struck { deed: Deed::PowerOff { node } } = fact else { return Ok(()) };
        match scene.state.nodes.get(node).map(|record| &record.state) {
            Some(NodeState::Active { instance }) => {
                Err(format!("{node} was switched off although {instance} belongs to it"))
            }
            Some(NodeState::Reserved { plan }) => {
                Err(format!("{node} was switched off although {plan} counts on it"))
            }
            Some(NodeState::Quarantined { .. }) => {
                scene.sometimes("a power-off takes effect after the node was fenced");
                Ok(())
            }
            Some(NodeState::Spare | NodeState::Fencing { .. } | NodeState::Cleaning { .. }) | None => Ok(()),
        }
    }
}
