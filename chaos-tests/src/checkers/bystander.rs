//! **A rightful owner is never powered off by a late command.** When a power-off takes effect at a node, no instance
//! belongs to that node, or a plan against it is past its first intent, or the failover that gave it the instance starts it
//! anew; the same holds for a system that is asked to shut down and for a kernel that is interrupted. (facts/verification.md I10.)

use super::{Checker, Deed, Fact, Scene};
use policies::{NodeState, Phase, Plan};

#[derive(Debug, Default)]
pub(super) struct Bystander;

impl Checker for Bystander {
    fn name(&self) -> &'static str {
        "bystander"
    }

    fn see(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        let Fact::Struck {
            deed: deed @ (Deed::PowerOff { node } | Deed::ShutDown { node } | Deed::Interrupt { node }),
        } = fact
        else {
            return Ok(());
        };
        if matches!(deed, Deed::Interrupt { .. }) {
            scene.sometimes("a silent node's kernel is interrupted for its crash dump");
        }
        let stops = |plan: &Plan| plan.phase == Phase::Stopping && plan.decision.from == *node;
        if scene.state.plan_of_node(node).is_some_and(stops) {
            scene.sometimes("a drained system is asked to shut down");
            return Ok(());
        }
        let restarts = |plan: &Plan| plan.decision.spare.as_ref() == Some(node) && plan.is_restarting();
        if scene.state.plan_of_node(node).is_some_and(restarts) {
            scene.sometimes("a hot spare is started cold");
            return Ok(());
        }
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
