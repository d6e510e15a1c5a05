//! Which nodes' consoles this member listens to: those that are described so, while it leads.
//!
//! Why it exists: most BMCs give their console to one session at a time, so one member has to have it; the leader also
//! carries out the failovers that the end of the console is kept with. What it never does: wait for a BMC.

use fencing::{Console, PowerDriver};
use policies::{ClusterState, Node, NodeId, Refusal};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What listens, by node.
pub(crate) struct Consoles<P>(BTreeMap<NodeId, Arc<P>>);

impl<P> Default for Consoles<P> {
    fn default() -> Self {
        Consoles(BTreeMap::new())
    }
}

impl<P: PowerDriver> Consoles<P> {
    /// Brings the listening in line with the state. `device`: the first fencing device of a node.
    pub(crate) fn tend(
        &mut self,
        state: &ClusterState,
        leads: bool,
        device: impl Fn(&Node) -> Result<Arc<P>, Refusal>,
    ) {
        let mut wanted = BTreeMap::new();
        for record in state.nodes.values().filter(|record| leads && record.node.has_console()) {
            let name = &record.node.name;
            match device(&record.node) {
                Ok(device) => drop(wanted.insert(name.clone(), device)),
                Err(refusal) => tracing::debug!(node = %name, %refusal, "listen to a console"),
            }
        }
        let before = std::mem::replace(&mut self.0, wanted);
        for (node, device) in before {
            // Described anew, a node has another device.
            if self.0.get(&node).is_none_or(|kept| !Arc::ptr_eq(kept, &device)) {
                device.listen(false);
            }
        }
        self.0.values().for_each(|device| device.listen(true));
    }

    /// What a node's console said since it is listened to.
    pub(crate) fn of(&self, node: &NodeId) -> Option<Arc<Console>> {
        self.0.get(node)?.console()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fencing::{Act, DriverError, Look};
    use policies::{Command, Documents, LogIndex, Permit, Proposal, Wall};
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::time::Instant;

    #[derive(Default)]
    struct Ear(AtomicBool);

    impl PowerDriver for Ear {
        async fn look(&self, _: Instant) -> Result<Look, DriverError> {
            Err(DriverError::Refused("only an ear".to_owned()))
        }

        async fn act(&self, _: Act, _: &dyn Permit, _: Instant) -> Result<(), DriverError> {
            Err(DriverError::Refused("only an ear".to_owned()))
        }

        fn listen(&self, wanted: bool) {
            self.0.store(wanted, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_leader_listens_to_what_is_described_and_ends_with_it() {
        let node = |name, console| {
            format!(
                "[[node]]\nname = \"{name}\"\n[[node.fencing]]\ndriver = \"ipmi\"\naddress = \"{name}.bmc\"\n\
                 user = \"ha\"\npassword = \"p\"\nconsole = {console}\n"
            )
        };
        let documents: Documents = toml::from_str(&(node("n1", true) + &node("n2", false))).unwrap();
        let command = Command::Describe(Box::new(documents));
        let mut state = ClusterState::default();
        state.apply(LogIndex(1), &Proposal { at: Wall(1), by: "test".to_owned(), command }).unwrap();
        let (one, other) = (Arc::new(Ear::default()), Arc::new(Ear::default()));
        let listens = |ear: &Ear| ear.0.load(Ordering::SeqCst);
        let mut consoles = Consoles::default();
        consoles.tend(&state, false, |_| Ok(Arc::clone(&one)));
        assert!(!listens(&one), "a member that does not lead");
        consoles.tend(&state, true, |_| Ok(Arc::clone(&one)));
        assert!(listens(&one));
        consoles.tend(&state, true, |_| Ok(Arc::clone(&other)));
        assert!(!listens(&one) && listens(&other), "described anew");
        consoles.tend(&state, false, |_| Ok(Arc::clone(&other)));
        assert!(!listens(&other), "it leads no more");
        assert!(consoles.of(&"n2".parse().unwrap()).is_none());
    }
}
