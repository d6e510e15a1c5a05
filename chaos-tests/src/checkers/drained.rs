//! **Nothing old is still under way when a node or an instance is given on, or cut off.** When a released node becomes a
//! spare, no command against or for it is on its way; when a command gives an instance's volume to a node, none that gives
//! it to another node is; when one gives a node power, a volume or a network, none that takes the same away is, and when
//! one takes it away, none that gives it is. (R5, drain.)

use super::{Checker, Deed, Fact, Scene};
use policies::{Command, Step};

#[derive(Debug, Default)]
pub(super) struct Drained;

/// True if the older command, should it arrive now, would undo or double what the newer one does.
fn contradicts(newer: &Deed, older: &Deed) -> bool {
    match (newer, older) {
        (Deed::Attach { node, volume }, Deed::Attach { node: other, volume: same }) => {
            volume == same && node != other
        }
        (Deed::Attach { node, volume }, Deed::Revoke { node: other, volume: same })
        | (Deed::Revoke { node, volume }, Deed::Attach { node: other, volume: same }) => {
            volume == same && node == other
        }
        (Deed::Open { node, .. }, Deed::Close { node: same })
        | (Deed::Close { node }, Deed::Open { node: same, .. })
        | (Deed::PowerOff { node } | Deed::ShutDown { node }, Deed::PowerOn { node: same })
        | (
            Deed::PowerOn { node },
            Deed::PowerOff { node: same } | Deed::ShutDown { node: same } | Deed::Interrupt { node: same },
        ) => node == same,
        (Deed::Open { node, vlan }, Deed::Open { node: other, vlan: same }) => vlan == same && node != other,
        _ => false,
    }
}

impl Checker for Drained {
    fn name(&self) -> &'static str {
        "drained"
    }

    fn see(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        if let Fact::Sent { deed, .. } = fact {
            let mut older = scene.truth.commands.keys();
            return match older.find(|older| contradicts(deed, older)) {
                Some(older) => Err(format!("`{deed}` is sent while `{older}` is still under way")),
                None => Ok(()),
            };
        }
        let Some((_, proposal)) = scene.entry(fact) else { return Ok(()) };
        if let Command::Lead { step: Step::Cleaned { node }, .. } = &proposal.command {
            scene.sometimes("a released node becomes a spare again");
            if let Some(deed) = scene.truth.commands.keys().find(|deed| deed.node() == Some(node)) {
                return Err(format!("{node} is a spare again while `{deed}` is still under way"));
            }
        }
        Ok(())
    }
}
