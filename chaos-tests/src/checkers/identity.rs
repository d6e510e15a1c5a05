//! **Never two machines with one identity.** At no moment are two nodes with power in the network of one instance.
//! (R9; facts/verification.md I2. In these worlds each instance has a network of its own.)

use super::{Checker, Fact, Scene};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Identity;

impl Checker for Identity {
    fn name(&self) -> &'static str {
        "identity"
    }

    fn see(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        let (Fact::Port { vlan: Some(_), .. } | Fact::Power { on: true, .. }) = fact else { return Ok(()) };
        let mut seen = BTreeMap::new();
        for (node, vlan) in
            scene.truth.networks.iter().filter(|(node, _)| scene.truth.powered.contains(*node))
        {
            if let Some(other) = seen.insert(vlan, node) {
                return Err(format!("{other} and {node} are both in vlan {vlan}"));
            }
        }
        Ok(())
    }
}
