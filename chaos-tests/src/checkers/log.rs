//! **All members are equal at equal index.** Whatever a member applies at a place in the log, every other member, and
//! every later life, applies there; and a state that is installed is the state of its place. (Raft's state machine
//! safety; facts/verification.md I15.)

use super::{Checker, Entries, Fact, Scene};
use policies::{ClusterState, LogIndex};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Log {
    entries: Entries,
    /// States that were installed, by place; from the first on, others are compared.
    states: BTreeMap<LogIndex, Arc<ClusterState>>,
}

impl Checker for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    fn see(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Applied { member, index, proposal } => match self.entries.get(index) {
                Some(known) if known != proposal => {
                    Err(format!("{member} applied another entry at {index} than the others"))
                }
                Some(_) => Ok(()),
                None if scene.applied.is_none() && scene.state.applied > *index => {
                    // Known to us only as part of a snapshot.
                    Ok(())
                }
                None => {
                    self.entries.insert(*index, Arc::clone(proposal));
                    Ok(())
                }
            },
            Fact::Installed { member, state } => {
                if state.applied.0 > 0 {
                    scene.sometimes("a snapshot is installed");
                }
                let same_place = state.applied == scene.state.applied;
                let differs = self.states.get(&state.applied).is_some_and(|known| known != state);
                if differs || same_place && **state != scene.state {
                    return Err(format!("the state of {member} at {} differs", state.applied));
                }
                self.states.insert(state.applied, Arc::clone(state));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
