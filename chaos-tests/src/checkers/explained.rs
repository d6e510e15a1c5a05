//! **Whatever it does or does not do, it can say why.** An instance whose node is judged failed and which has no running
//! plan has a committed reason for that, within a while in which somebody led. (The mission; style rule 6.)

use super::{Checker, Fact, Scene};
use policies::{Command, InstanceId, NodeState, Step, Verdict};
use std::collections::BTreeMap;

/// How many entries may be committed by a leader before the reason must be there: each pass of a leader proposes all
/// reasons that are missing.
const ENTRIES: u64 = 60;

#[derive(Debug, Default)]
pub(super) struct Explained {
    /// Entries of leaders since each instance has neither plan nor reason.
    silent: BTreeMap<InstanceId, u64>,
}

impl Checker for Explained {
    fn name(&self) -> &'static str {
        "explained"
    }

    fn see(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        let Some((_, proposal)) = scene.entry(fact) else { return Ok(()) };
        let Command::Lead { step, .. } = &proposal.command else { return Ok(()) };
        if let Step::Withhold { .. } = step {
            scene.sometimes("a refusal is committed with its reason");
        }
        for (name, record) in &scene.state.instances {
            let Some(node) = scene.state.nodes.get(&record.node) else { continue };
            let should_move =
                matches!(node.verdict, Verdict::Failed(_)) && matches!(node.state, NodeState::Active { .. });
            let said = node.withheld.is_some() || scene.state.plan_of_instance(name).is_some();
            if !should_move || said {
                self.silent.remove(name);
                continue;
            }
            let entries = self.silent.entry(name.clone()).or_default();
            *entries += 1;
            if *entries > ENTRIES {
                return Err(format!("{name} should leave {}, and nothing says why it does not", record.node));
            }
        }
        Ok(())
    }
}
